//! `egress explain`: what the sidecar would do with a request, and why. Nothing is sent, and no slot is read.
//!
//! The decision is the data path's own ([`Routes::admits`], [`Routes::decide`]), on the URL's bytes as they are given.
//! Exit: 0 the request is admitted, 1 it is denied, 2 usage or configuration, 3 nothing is known of the id.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use http::Method;
use serde_json::Value;

use self::explanation::Explanation;
use super::recorded::{self, Source};
use super::{Failure, status};
use crate::admin::AdminAddress;
use crate::advice::recorded::Asked;
use crate::audit::id::RequestId;
use crate::config::{self, Colour};
use crate::route::Routes;
use crate::route::target::{Kind, Target};
use crate::route::url::Url;

mod explanation;

/// Show which route decides about a request, why, and what would be stripped and injected
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The routes file. With `--id` it is the sidecar's own, if none is named
    #[arg(short, long, value_name = "FILE", required_unless_present = "id")]
    routes: Option<PathBuf>,
    /// Explain the request that an agent was told this id of, as `request_id`. What its query was is not known
    #[arg(long, value_name = "ID", conflicts_with_all = ["method", "url", "websocket"])]
    id: Option<RequestId>,
    /// The running sidecar that refused it, by its admin socket: unix:PATH or IP:PORT. It keeps the latest refusals
    #[arg(long, value_name = "ADDRESS", env = "EGRESS_ADMIN")]
    admin: Option<AdminAddress>,
    /// The audit file that it is in
    #[arg(long, value_name = "FILE", requires = "id")]
    audit: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Take the request for a WebSocket handshake, as `ws://` and `wss://` URLs do by themselves
    #[arg(long)]
    websocket: bool,
    /// The request's method
    #[arg(value_name = "METHOD", required_unless_present = "id")]
    method: Option<String>,
    /// The request's URL; its path and query are taken byte for byte, as a client would send them
    #[arg(value_name = "URL", required_unless_present = "id")]
    url: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  egress explain -r routes.yaml GET https://api.github.com/repos/o/r/pulls
  egress explain -r routes.yaml GET wss://chatgpt.com/backend-api/codex/responses
  egress explain -r routes.yaml --json POST 'https://github.com/o/r.git/git-receive-pack'
  egress explain --id 5f1848058f32c78f --admin unix:/run/bottle/admin.sock

Exit status: 0 the request is admitted, 1 it is denied, 2 usage or configuration,
3 nothing is known of the id.";

/// Runs the command.
///
/// # Errors
///
/// A request that is not found by its id, and output that cannot be written.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let (routes, target) = match (args.id, &args.routes) {
        (Some(id), _) => {
            let (routes, target) = recorded(id, args)?;
            (routes, Ok(target))
        }
        (None, Some(routes)) => (routes.clone(), target_of(args)),
        // Not reached: clap demands the file.
        (None, None) => return Err(Failure::usage(anyhow!("no routes file is named"))),
    };
    let (out, err) = (&mut io::stdout().lock(), &mut io::stderr().lock());
    explain(&routes, target, args.json, Colour::of_stderr(), out, err).map_err(Failure::runtime)
}

fn explain(
    routes: &Path,
    target: Result<Target, String>,
    json: bool,
    colour: Colour,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let usage = ExitCode::from(2);
    let target = match target {
        Ok(target) => target,
        Err(problem) => {
            writeln!(err, "error: {problem}")?;
            return Ok(usage);
        }
    };
    let file = match config::load(routes) {
        Ok(file) => file,
        Err(faults) if json => {
            writeln!(out, "{:#}", faults.to_json())?;
            return Ok(usage);
        }
        Err(faults) => {
            writeln!(err, "{}", faults.to_text(colour))?;
            return Ok(usage);
        }
    };
    let routes = Routes::new(file.rules, None)
        .map_err(|_| anyhow!("the routes file has ties that were not found at load"))?;
    let explanation = Explanation::of(&file.name, &routes, target);
    if json {
        writeln!(out, "{:#}", explanation.to_json())?;
    } else {
        write!(out, "{}", explanation.to_text())?;
    }
    Ok(match explanation.is_admitted() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(1),
    })
}

/// The routes file, and the request that an agent was told this id of.
fn recorded(id: RequestId, args: &Args) -> Result<(PathBuf, Target), Failure> {
    let hint = "a running sidecar keeps its latest 64 refusals, and an audit file (`--audit FILE`) keeps all";
    // The sidecar is asked for what only it can tell.
    let status = match (&args.admin, &args.audit, &args.routes) {
        (Some(admin), None, _) | (Some(admin), _, None) => Some(status::ask(admin)?.1),
        _ => None,
    };
    let request = match (&args.audit, &status) {
        (Some(file), _) => recorded::named(id, Source::Audit(file))?,
        (None, Some(status)) => recorded::named(id, Source::Status(status))?,
        (None, None) => {
            let error = anyhow!("it is not said where the request {id} is to be looked for");
            return Err(Failure::usage(error).hint("name `--admin ADDRESS` or `--audit FILE`"));
        }
    };
    let Some(request) = request else {
        let error = anyhow!("no request {id} is recorded there");
        return Err(Failure::runtime(error).hint(hint));
    };
    let routes = match (&args.routes, status.as_ref().and_then(routes_file)) {
        (Some(routes), _) => routes.clone(),
        (None, Some(routes)) => routes,
        (None, None) => {
            let error = anyhow!("no routes file is named");
            let hint = "name it with `-r FILE`, or the sidecar with `--admin ADDRESS`";
            return Err(Failure::usage(error).hint(hint));
        }
    };
    let target = match request.asked() {
        Ok(Asked::Request(target)) => Ok(target),
        // Whether there is a tunnel is asked first for each request in it.
        Ok(Asked::Tunnel(origin)) => Target::new(origin, Method::GET, "/", Kind::Exchange),
        Err(error) => Err(error),
    };
    let target = target.map_err(|_| {
        let code = request.code;
        let error =
            anyhow!("the request {id} was refused for its form ({code}), whatever the routes");
        Failure::runtime(error).hint("its row has a `detail`: `egress audit FILE --id ID --json`")
    })?;
    Ok((routes, target))
}

/// The routes file that a sidecar names. From a relative name, as older ones give it, a file of this directory would answer.
fn routes_file(status: &Value) -> Option<PathBuf> {
    let routes = status.get("routes_file").and_then(Value::as_str);
    routes.map(PathBuf::from).filter(|file| file.is_absolute())
}

/// The request's target from the command line.
fn target_of(args: &Args) -> Result<Target, String> {
    let (method, text) = match (&args.method, &args.url) {
        (Some(method), Some(url)) => (method, url),
        // Not reached: clap demands both.
        _ => return Err("a method and a URL are wanted".into()),
    };
    let method =
        Method::from_bytes(method.as_bytes()).map_err(|_| format!("{method:?} is not a method"))?;
    let url = Url::parse(text).map_err(|error| format!("{text:?}: {error}"))?;
    let kind = match args.websocket {
        true => Kind::WebSocket,
        false => url.kind,
    };
    if kind == Kind::WebSocket && method != Method::GET {
        return Err("a WebSocket handshake is a GET (RFC 6455, section 4.1)".into());
    }
    Target::new(url.origin, method, &url.path_and_query, kind)
        .map_err(|_| format!("{text:?}: the path holds a byte that no request can"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::{Value, json};

    use super::{Args, Colour, explain, target_of};

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    const ROUTES: &str = "routes:
  - host: api.test
    path_allowlist: [/v1/, {regex: '/v1/[a-z]+/x'}]
    methods: [GET]
    auth_scheme: Bearer
    token_env: ONE
    description: the interface
  - host: api.test
    path_allowlist: [/login]
    query: {service: fetch}
    websocket: false
    auth_scheme: Basic
    auth_user: me
    auth_header: x-own
    token_env: TWO
  - host: '*.wild.test'
    port: 8443
    connect_to: 127.0.0.1:9
  - host: passed.test
    tls: passthrough
  - host: plain.test
    scheme: http
";

    /// The exit code, stdout and stderr of `egress explain ARGS`.
    fn run(routes: &str, args: &[&str]) -> (String, String, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("routes.yaml");
        std::fs::write(&path, routes).unwrap();
        let path = path.to_str().unwrap();
        let cli = Cli::try_parse_from(["explain", "-r", path].iter().chain(args)).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let target = target_of(&cli.args);
        let (json, colour) = (cli.args.json, Colour::Never);
        let code = explain(path.as_ref(), target, json, colour, &mut out, &mut err).unwrap();
        (
            format!("{code:?}"),
            String::from_utf8(out).unwrap().replace(path, "routes.yaml"),
            String::from_utf8(err).unwrap().replace(path, "routes.yaml"),
        )
    }

    fn json_of(args: &[&str]) -> Value {
        let args: Vec<&str> = [&["--json"], args].concat();
        serde_json::from_str(&run(ROUTES, &args).1).unwrap()
    }

    #[test]
    fn a_denial_names_code_nearest_route_and_the_condition_that_failed() {
        for (args, code, line, failed) in [
            (
                &["GET", "https://evil.test/"][..],
                "host_not_allowed",
                None,
                None,
            ),
            (
                &["GET", "https://wild.test:8443/"],
                "host_not_allowed",
                None,
                Some("does not cover wild.test itself"),
            ),
            (
                &["GET", "https://a.b.wild.test:8443/"],
                "host_not_allowed",
                None,
                Some("covers one label"),
            ),
            (
                &["GET", "https://a.wild.test/"],
                "port_not_allowed",
                Some(16),
                Some("https on 8443, the request for https on 443"),
            ),
            (
                &["GET", "http://api.test/v1/x"],
                "port_not_allowed",
                Some(2),
                Some("the request for http on 80"),
            ),
            (
                &["GET", "https://api.test/v1/../x"],
                "path_ambiguous",
                Some(8),
                Some("a dot segment"),
            ),
            (
                &["GET", "https://api.test/v1/a%2fb"],
                "path_ambiguous",
                Some(8),
                Some("an encoded slash"),
            ),
            (
                &["GET", "https://api.test/v2"],
                "path_not_allowed",
                Some(8),
                Some("none of /login covers it"),
            ),
            (
                &["POST", "https://api.test/v1/x"],
                "method_not_allowed",
                Some(2),
                Some("POST is not among GET"),
            ),
            (
                &["GET", "https://api.test/login"],
                "query_not_allowed",
                Some(8),
                Some("service=fetch"),
            ),
            (
                &["GET", "https://api.test/v1/x?a=b&api%5Fkey=1"],
                "query_credential",
                Some(2),
                Some("the query has api%5Fkey, a parameter that carries a credential"),
            ),
            (
                &["GET", "https://api.test/v1/x?%256bey=1"],
                "query_ambiguous",
                Some(2),
                Some("query_credentials: deny; the query has a doubly encoded name"),
            ),
            (
                &["GET", "wss://api.test/login?service=fetch"],
                "websocket_not_allowed",
                Some(8),
                Some("websocket: false"),
            ),
            (
                &["TRACE", "https://a.wild.test:8443/"],
                "method_not_allowed",
                Some(16),
                Some("TRACE can never be allowed"),
            ),
        ] {
            let json = json_of(args);
            assert_eq!(json["verdict"], "denied", "{args:?}");
            assert_eq!(json["code"], code, "{args:?} {json}");
            assert_eq!(json["nearest"]["line"].as_u64(), line, "{args:?} {json}");
            let told = json["failed"].as_str().unwrap_or_default();
            assert!(told.contains(failed.unwrap_or_default()), "{args:?} {told}");
            assert_eq!(failed.is_some(), json["failed"].is_string(), "{json}");
            assert!(json["hint"].as_str().is_some_and(|hint| !hint.is_empty()));
            let (status, out, _) = run(ROUTES, args);
            assert!(status.contains('1'), "{args:?}");
            assert!(out.starts_with("denied: "), "{out}");
            assert!(out.contains(code) && out.contains("\nhint: "), "{out}");
        }
    }

    #[test]
    fn what_cannot_be_asked_is_a_usage_error() {
        for (args, problem) in [
            (&["GET", "api.test/"][..], "begins with `https://`"),
            (
                &["GET", "https://api.test/a b"],
                "a byte that no request can",
            ),
            (&["GET", "https://api.test/#x"], "fragment"),
            (&["GE T", "https://api.test/"], "not a method"),
            (&["POST", "wss://api.test/"], "is a GET"),
            (&["POST", "--websocket", "https://api.test/"], "is a GET"),
        ] {
            let (code, out, err) = run(ROUTES, args);
            assert!(code.contains('2'), "{args:?} {code}");
            assert_eq!(out, "");
            assert!(err.starts_with("error: ") && err.contains(problem), "{err}");
        }
        let (code, out, err) = run("routes: 1", &["GET", "https://api.test/"]);
        assert!(code.contains('2') && out.is_empty(), "{code} {out}");
        assert!(err.contains("--> routes.yaml:1:9"), "{err}");
    }

    #[test]
    fn an_admitted_request_shows_route_pattern_and_slot() {
        let (code, out, _) = run(ROUTES, &["GET", "https://API.test/v1/abc/x?q=1"]);
        assert!(code.contains('0'), "{code}");
        assert_eq!(
            out,
            "\
allowed: GET https://api.test/v1/abc/x?q=1
  route     routes.yaml:2 (api.test) the interface
  path      covered by regex /v1/[a-z]+/x
  strips    authorization, proxy-authorization, x-api-key, x-goog-api-key, api-key, private-token, cookie, and the like
  injects   authorization: Bearer <ONE>
"
        );
        let json = json_of(&["GET", "https://api.test/login?service=fetch"]);
        assert_eq!(json["version"], 1);
        assert_eq!(json["route"]["line"], 8);
        assert_eq!(json["path_pattern"], "/login");
        assert_eq!(
            json["injected"],
            json!({"header": "x-own", "scheme": "Basic", "user": "me", "slot": "TWO"})
        );
        let stripped = json["stripped"].as_array().unwrap();
        assert!(stripped.contains(&"x-own".into()) && stripped.contains(&"cookie".into()));
    }

    #[test]
    fn a_bare_route_injects_nothing_and_strips_all_the_same() {
        let json = json_of(&["GET", "http://plain.test/"]);
        assert_eq!(
            (&json["verdict"], &json["injected"]),
            (&"allowed".into(), &Value::Null)
        );
        let stripped = json["stripped"].as_array().unwrap();
        assert!(stripped.contains(&"authorization".into()));
        assert!(!stripped.contains(&"cookie".into()));
        assert_eq!(
            json_of(&["GET", "https://a.wild.test:8443"])["connect_to"],
            "127.0.0.1:9"
        );
    }

    #[test]
    fn the_cookies_that_stay_are_named() {
        let routes = "routes: [{host: a.test, cookies: [__cf_bm, id], websocket_extensions: drop}]";
        let (_, out, _) = run(routes, &["GET", "wss://a.test/"]);
        let [strips, keeps] = ["strips", "keeps"].map(|title| {
            out.lines()
                .find(|line| line.trim().starts_with(title))
                .unwrap()
        });
        assert!(
            strips.ends_with(", cookie, sec-websocket-extensions, and the like"),
            "{out}"
        );
        assert_eq!(keeps, "  keeps     the cookies __cf_bm, id");
        let kept = |args: &[&str]| json_of(args)["kept_cookies"].clone();
        assert_eq!(kept(&["GET", "https://api.test/v1/x"]), json!([]));
        assert_eq!(kept(&["GET", "http://plain.test/"]), Value::Null);
    }

    #[test]
    fn a_passthrough_route_admits_the_tunnel_and_touches_nothing() {
        let (code, out, _) = run(ROUTES, &["GET", "https://passed.test/any/../thing"]);
        assert!(code.contains('0'), "{code}");
        assert!(
            out.starts_with("passthrough: ") && out.contains("passed through unseen"),
            "{out}"
        );
        assert_eq!(
            json_of(&["GET", "https://passed.test/"])["stripped"],
            json!([])
        );
    }

    #[test]
    fn a_websocket_is_asked_for_by_scheme_or_flag() {
        for args in [
            &["GET", "wss://api.test/v1/x"][..],
            &["--websocket", "GET", "https://api.test/v1/x"],
        ] {
            let json = json_of(args);
            assert_eq!(json["verdict"], "allowed");
            assert_eq!(json["request"]["websocket"], true);
        }
    }
}
