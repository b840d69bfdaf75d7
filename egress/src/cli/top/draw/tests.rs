use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use serde_json::json;

use super::draw;
use crate::admin::watch::Told;
use crate::audit::object::object;
use crate::audit::row::Row;
use crate::cli::top::input::Action;
use crate::cli::top::model::{Effect, Event, Model, View};
use crate::config::Colour;

/// 2026-11-29T23:25:00Z.
const NOW: i64 = 1_795_994_700_000_000;

#[test]
fn requests() {
    shown("requests", &watched());
    shown("requests_of_nobody", &Model::new(None, NOW));
}

#[test]
fn requests_of_a_sidecar_that_is_gone_during_a_pause() {
    let mut model = watched();
    act(&mut model, [Action::Pause]);
    tell(
        &mut model,
        [request(9, "late.test:443", "/late", "allowed", "ok")],
    );
    model.update(Event::Told(Told::Gap(17)));
    model.update(Event::Told(Told::Lost("it has ended".into())));
    assert!(!text(&model, (80, 24)).contains("late.test"));
    shown("gone_and_paused", &model);
    act(&mut model, [Action::Pause]);
    assert!(text(&model, (80, 24)).contains("late.test"));
}

#[test]
fn an_observation_is_told_on_every_list() {
    let mut model = watched();
    let status = json!({ "healthy": true, "observe_seconds_left": 1200 });
    let status = serde_json::from_value(status).expect("a status");
    model.update(Event::Status(status));
    shown("observing", &model);
    for view in View::ALL {
        act(&mut model, [Action::Show(view)]);
        for size in [(80, 24), (200, 60)] {
            let text = text(&model, size);
            assert!(text.contains("OBSERVING, 20 min 0 s left"), "{text}");
        }
    }
}

#[test]
fn hosts_and_the_requests_of_one() {
    let mut model = watched();
    act(&mut model, [Action::Show(View::Hosts)]);
    shown("hosts", &model);
    act(&mut model, [Action::Move(1), Action::Open]);
    let text = text(&model, (80, 24));
    assert!(text.contains("filter: "), "{text}");
    assert!(text.contains("[1 Requests]"), "{text}");
}

#[test]
fn refusals_and_what_would_admit_one() {
    let mut model = watched();
    act(&mut model, [Action::Show(View::Refusals)]);
    shown("refusals", &model);
    act(&mut model, [Action::Move(1), Action::Open]);
    shown("refusal", &model);
    let Effect::Copy(text) = model.update(Event::Action(Action::Copy)) else {
        panic!("nothing to paste");
    };
    assert!(text.contains("\n  - host: "), "{text}");
}

#[test]
fn an_allowed_request() {
    let mut model = watched();
    act(&mut model, [Action::Open]);
    shown("allowed", &model);
    assert_eq!(model.update(Event::Action(Action::Copy)), Effect::None);
}

#[test]
fn the_sidecar() {
    let mut model = watched();
    act(&mut model, [Action::Show(View::Sidecar)]);
    shown("sidecar", &model);
}

#[test]
fn a_filter_that_is_typed() {
    let mut model = watched();
    act(&mut model, [Action::Filter]);
    act(&mut model, "PYPI".chars().map(Action::Type));
    shown("filter", &model);
    act(&mut model, [Action::Type('!'), Action::Accept]);
    assert!(text(&model, (80, 24)).contains("nothing contains the filter"));
    act(&mut model, [Action::Back]);
    assert!(text(&model, (80, 24)).contains("api.example.com"));
}

#[test]
fn a_refusal_is_found_by_the_id_that_the_agent_was_told_whole() {
    let mut model = watched();
    for (typed, is_found) in [("492F1EDEC315107", false), ("1", true)] {
        act(&mut model, [Action::Filter]);
        act(&mut model, typed.chars().map(Action::Type));
        act(&mut model, [Action::Accept]);
        let nothing = text(&model, (80, 24)).contains("nothing contains the filter");
        assert_ne!(nothing, is_found, "{typed}");
    }
}

#[test]
fn the_keys() {
    let mut model = watched();
    act(&mut model, [Action::Help]);
    shown("help", &model);
}

#[test]
fn a_terminal_that_is_too_small_says_so() {
    for size in [(39, 24), (80, 9), (1, 1)] {
        let text = text(&watched(), size);
        assert!("too small: 40x10 at least".starts_with(text.lines().next().unwrap_or_default()));
    }
    assert!(text(&watched(), (40, 10)).contains("VERDICT"));
}

#[test]
fn what_an_agent_or_a_foreign_server_sends_moves_no_cursor() {
    let mut model = Model::new(None, NOW);
    let evil = "\u{1b}[2J\u{9b}2J\r\n\u{202e}\u{7}";
    for view in View::ALL {
        tell(&mut model, [request(1, evil, evil, "denied", evil)]);
        act(&mut model, [Action::Show(view)]);
        for action in [Action::Move(0), Action::Open] {
            act(&mut model, [action]);
            let text = text(&model, (200, 60));
            let is_harmful = |char: char| char.is_control() && char != '\n';
            assert!(!text.contains(is_harmful), "{text:?}");
        }
        act(&mut model, [Action::Back, Action::Back]);
    }
}

#[test]
fn the_chosen_line_stays_chosen_while_others_come() {
    let mut model = watched();
    act(&mut model, [Action::Move(2)]);
    let chosen = |model: &Model| {
        let text = text(model, (80, 24));
        let line = text.lines().find(|line| line.starts_with("> "));
        line.map(str::to_owned)
    };
    let before = chosen(&model);
    for number in 0..100 {
        tell(
            &mut model,
            [request(number, "more.test:443", "/", "allowed", "ok")],
        );
    }
    assert!(before.is_some());
    assert_eq!(chosen(&model), before);
}

/// A model after some minutes of work.
fn watched() -> Model {
    let mut model = Model::new(None, NOW);
    tell(
        &mut model,
        [
            request(-70, "api.example.com:443", "/v1/models", "allowed", "ok"),
            request(-50, "pypi.org:443", "", "allowed", "tunnel"),
            request(-40, "pypi.org:443", "/simple/requests/", "allowed", "ok"),
            request(
                -30,
                "evil.example.net:443",
                "/upload",
                "denied",
                "host_not_allowed",
            ),
            request(
                -20,
                "api.example.com:443",
                "/v2/a/path/that/is/longer/than/its/column/is/wide",
                "denied",
                "path_not_allowed",
            ),
            request(
                -10,
                "files.example.com:443",
                "/a.bin",
                "failed",
                "upstream_timeout",
            ),
            request(
                -5,
                "evil.example.net:443",
                "/upload",
                "denied",
                "host_not_allowed",
            ),
            request(-1, "api.example.com:443", "/v1/responses", "allowed", "ok"),
        ],
    );
    let status = json!({
        "egress": "0.1.0", "healthy": false, "uptime_seconds": 754, "routes": 12,
        "routes_file": "/etc/egress/routes.yaml",
        "last_reload_fault": "routes.yaml:3: a fault\nhint: mend it",
        "slots": [
            {"name": "EGRESS_TOKEN_0", "state": "ok", "source": "environment", "seconds_left": null},
            {"name": "EGRESS_TOKEN_1", "state": "ok", "source": "/run/secrets/one", "seconds_left": 312},
            {"name": "EGRESS_TOKEN_2", "state": "it has expired", "source": "launcher", "seconds_left": 0},
        ],
        "counters": {
            "requests": 1234, "denied": 56, "failed": 7, "open_connections": 8, "open_tunnels": 2,
            "open_websockets": 1, "reloads": 3, "reload_failures": 1, "of a later version": 4,
        },
        "audit": {"waiting": 0, "lost": 5, "failing": true},
        "confinement": [{"name": "seccomp", "state": "in force"}],
    });
    let status = serde_json::from_value(status).expect("a status");
    model.update(Event::Status(status));
    model
}

/// A request that ended so many seconds after now.
fn request(seconds: i64, host: &str, path: &str, verdict: &str, code: &str) -> Told {
    let is_tunnel = code == "tunnel";
    let row = Row {
        time: NOW + seconds * 1_000_000,
        client: "127.0.0.1".to_owned().into(),
        method: if is_tunnel { "CONNECT" } else { "GET" }.into(),
        scheme: Some("https".into()),
        host: host.into(),
        path: path.into(),
        verdict: verdict.into(),
        code: code.into(),
        route: (verdict != "denied").then_some(7),
        slot: (verdict == "allowed" && !is_tunnel).then(|| "EGRESS_TOKEN_0".into()),
        status: match verdict {
            "allowed" => 200,
            "denied" => 403,
            _ => 504,
        },
        bytes_down: 3 << 20,
        head_us: Some(1200),
        id: (verdict == "denied").then(|| "492f1edec3151071".into()),
        ..Row::default()
    };
    Told::Request(object(&row))
}

fn tell(model: &mut Model, told: impl IntoIterator<Item = Told>) {
    for told in told {
        model.update(Event::Told(told));
    }
}

fn act(model: &mut Model, actions: impl IntoIterator<Item = Action>) {
    for action in actions {
        model.update(Event::Action(action));
    }
}

/// Holds a screen to its snapshots: in both sizes, its text, which is the same without colour, and the styles with and
/// without.
#[track_caller]
fn shown(name: &str, model: &Model) {
    for size @ (width, height) in [(80, 24), (200, 60)] {
        let coloured = drawn(model, Colour::Always, size);
        let plain = drawn(model, Colour::Never, size);
        assert_eq!(text_of(&coloured), text_of(&plain));
        let snapshot = format!(
            "{}\nin colour:\n{}\nwithout:\n{}",
            text_of(&plain),
            styles(&coloured),
            styles(&plain)
        );
        insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_snapshot!(format!("{name}_{width}x{height}"), snapshot);
        });
    }
}

fn text(model: &Model, size: (u16, u16)) -> String {
    text_of(&drawn(model, Colour::Always, size))
}

fn drawn(model: &Model, colour: Colour, (width, height): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("memory");
    let admin = "unix:/run/bottle/admin.sock";
    let drawn = terminal.draw(|frame| draw(model, admin, colour, frame));
    drawn.expect("memory").buffer.clone()
}

fn text_of(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let lines = buffer.content.chunks(width);
    let lines = lines.map(|line| {
        let line: String = line.iter().map(|cell| cell.symbol()).collect();
        line.trim_end().to_owned() + "\n"
    });
    lines.collect()
}

/// Which columns of which lines are in a style.
fn styles(buffer: &Buffer) -> String {
    let mut text = String::new();
    let width = usize::from(buffer.area.width);
    for (number, line) in buffer.content.chunks(width).enumerate() {
        let mut begin = 0;
        for run in line.chunk_by(|one, next| one.style() == next.style()) {
            let end = begin + run.len();
            let style = run.first().map(|cell| (cell.fg, cell.modifier));
            if let Some((colour, modifier)) = style
                && (colour, modifier) != Default::default()
            {
                text += &format!("{number}: {begin}..{end} {colour} {modifier:?}\n");
            }
            begin = end;
        }
    }
    text
}
