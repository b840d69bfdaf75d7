//! What each agent finds in its home, and what it never does.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::SystemTime;

use tempfile::TempDir;

use super::*;
use crate::config;
use crate::config::agents::CredentialFile;
use crate::config::render::{RenderedSlot, TokenRef};
use crate::launch::login::tests::{login, write_login};
use crate::launch::resolve::resolve;

const SECRET: &str = "s3cret-value-of-the-host";

/// A host with a home of its own.
struct Machine {
    home: TempDir,
}

impl Machine {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".codex")).unwrap();
        Self { home }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), contents).unwrap();
    }

    fn env(&self) -> impl Fn(&str) -> Option<OsString> {
        let home = self.home.path().as_os_str().to_owned();
        move |name| match name {
            "HOME" => Some(home.clone()),
            "SECRET" => Some(SECRET.into()),
            _ => None,
        }
    }

    fn handed(&self, reference: TokenRef) -> Handed {
        let env = self.env();
        let slot = RenderedSlot {
            name: "EGRESS_TOKEN_0".parse().unwrap(),
            reference,
            hosts: Vec::new(),
        };
        resolve(&[slot], &host(&env)).unwrap()
    }

    fn custom(&self, source: &str, required: bool) -> Result<Agent, Error> {
        let env = self.env();
        let agent = CustomAgent {
            name: "tool".into(),
            command: vec!["tool".into()],
            test: None,
            install: None,
            credentials: vec![CredentialFile {
                source: source.into(),
                target: ".tool/file".into(),
                required,
            }],
            environment: Vec::new(),
        };
        Agent::custom(&agent, &setting(&env))
    }

    fn refused(&self, source: &str, required: bool) -> String {
        let error = self.custom(source, required).unwrap_err();
        let [problem] = error.iter().collect::<Vec<_>>()[..] else {
            panic!("{error}");
        };
        let told = format!("{problem}; {}", problem.hint());
        assert!(!told.contains("s3cret"), "{told}");
        told
    }
}

fn host<'a>(env: &'a dyn Fn(&str) -> Option<OsString>) -> Host<'a> {
    Host {
        env,
        now: SystemTime::now(),
    }
}

fn setting<'a>(env: &'a dyn Fn(&str) -> Option<OsString>) -> Setting<'a> {
    Setting {
        host: host(env),
        home: Path::new("/home/node"),
        workspace: Path::new("/work"),
        routes: None,
        roles: &[],
        handed: None,
    }
}

fn routes(text: &str) -> Routes {
    let rules = config::parse("routes.yaml", text, Path::new(".")).unwrap();
    Routes::new(rules, None).unwrap()
}

fn text<'a>(agent: &'a Agent, target: &str) -> &'a str {
    let file = agent
        .files
        .iter()
        .find(|file| file.target == Path::new(target));
    let file = file.unwrap_or_else(|| panic!("{target} in {agent:#?}"));
    assert_eq!(file.mode, 0o600);
    std::str::from_utf8(&file.contents).unwrap()
}

fn variable<'a>(agent: &'a Agent, name: &str) -> Option<&'a str> {
    let pair = agent.environment.iter().find(|(known, _)| known == name);
    pair.map(|(_, value)| value.as_str())
}

#[test]
fn a_known_credential_file_is_refused_even_where_it_is_optional() {
    let machine = Machine::new();
    machine.write(".netrc", "machine x login y password s3cret");
    machine.write(".ssh/id_ed25519", "s3cret");
    machine.write(".npmrc", "//r.example/:_authToken=s3cret-token");
    machine.write(".claude/.credentials.json", "{}");
    for source in [
        "~/.netrc",
        "~/.ssh/id_ed25519",
        "~/.npmrc",
        "~/.claude/.credentials.json",
    ] {
        for required in [true, false] {
            let told = machine.refused(source, required);
            assert!(told.contains("is not given to an agent"), "{told}");
        }
    }
}

#[test]
fn a_link_does_not_hide_what_it_leads_to() {
    let machine = Machine::new();
    machine.write(".config/gh/hosts.yml", "github.com: {user: x}");
    symlink(
        machine.path(".config/gh/hosts.yml"),
        machine.path("plain.yml"),
    )
    .unwrap();
    let told = machine.refused("~/plain.yml", true);
    assert!(told.contains("login of gh"), "{told}");
}

#[test]
fn what_cannot_be_read_is_an_error_and_what_is_optional_and_missing_is_not() {
    let machine = Machine::new();
    let told = machine.refused("~/missing", true);
    assert!(told.contains("is not there"), "{told}");
    for required in [true, false] {
        let told = machine.refused("~/.codex", required);
        assert!(told.contains("not a regular file"), "{told}");
    }
    machine.write("large", vec![b'x'; (1 << 20) + 1]);
    let told = machine.refused("~/large", false);
    assert!(told.contains("larger than 1 MiB"), "{told}");

    let agent = machine.custom("~/missing", false).unwrap();
    assert_eq!(agent.files, []);
    assert!(agent.notes[0].contains("is not there"), "{:?}", agent.notes);
}

#[test]
fn every_problem_of_an_agent_is_told_at_once() {
    let machine = Machine::new();
    let env = machine.env();
    let file = |name: &str| CredentialFile {
        source: format!("~/{name}").into(),
        target: name.into(),
        required: true,
    };
    let agent = CustomAgent {
        name: "tool".into(),
        command: vec!["tool".into()],
        test: None,
        install: None,
        credentials: vec![file("one"), file("two")],
        environment: vec![("https_proxy".into(), "http://x:1".into())],
    };
    let error = Agent::custom(&agent, &setting(&env)).unwrap_err();
    assert_eq!(error.iter().count(), 3, "{error}");
}

#[test]
fn a_file_without_a_secret_is_copied_through_its_links() {
    let machine = Machine::new();
    machine.write("dotfiles/settings.json", r#"{"theme": "dark"}"#);
    symlink(
        machine.path("dotfiles/settings.json"),
        machine.path("s.json"),
    )
    .unwrap();
    let agent = machine.custom("~/s.json", true).unwrap();
    assert_eq!(text(&agent, ".tool/file"), r#"{"theme": "dark"}"#);
    assert!(agent.notes[0].contains("can read all of it"));
}

#[test]
fn a_codex_login_under_any_name_becomes_its_dummy() {
    let machine = Machine::new();
    let token = write_login(&machine.path("some.json"), 3600, "one");
    let agent = machine.custom("~/some.json", true).unwrap();
    let dummy = text(&agent, ".tool/file");
    assert!(dummy.contains("bot-bottle-placeholder"), "{dummy}");
    for secret in [token.as_str(), "rt_refresh-one", "signature-access-one"] {
        assert!(!leak::appears(secret, dummy), "{secret}");
    }

    machine.write(
        "key.json",
        r#"{"OPENAI_API_KEY": "sk-s3cret-s3cret-s3cret"}"#,
    );
    let agent = machine.custom("~/key.json", true).unwrap();
    assert!(!text(&agent, ".tool/file").contains("s3cret"));

    machine.write("old.json", login(-1, "old").0);
    let told = machine.refused("~/old.json", true);
    assert!(
        told.contains("expired") && told.contains("codex login"),
        "{told}"
    );
    let agent = machine.custom("~/old.json", false).unwrap();
    assert_eq!(agent.files, []);
}

#[test]
fn a_value_that_the_sidecar_is_handed_is_found_in_any_file_and_variable() {
    use base64::Engine as _;
    let machine = Machine::new();
    let env = machine.env();
    let handed = machine.handed(TokenRef::Variable("SECRET".into()));
    let setting = Setting {
        handed: Some(&handed),
        ..setting(&env)
    };
    let encoded = base64::prelude::BASE64_STANDARD.encode(format!("x{SECRET}"));
    machine.write("settings", format!("note: {SECRET}"));
    machine.write("encoded", format!("note: {encoded}"));
    for (file, variable) in [
        (Some("settings"), "x"),
        (Some("encoded"), "x"),
        (None, SECRET),
    ] {
        let agent = CustomAgent {
            name: "tool".into(),
            command: vec!["tool".into()],
            test: None,
            install: None,
            credentials: file
                .map(|name| CredentialFile {
                    source: machine.path(name),
                    target: "x".into(),
                    required: true,
                })
                .into_iter()
                .collect(),
            environment: vec![("X".into(), variable.into())],
        };
        let error = Agent::custom(&agent, &setting).unwrap_err().to_string();
        assert!(error.contains("slot EGRESS_TOKEN_0"), "{error}");
        assert!(!error.contains(SECRET), "{error}");
    }
}

#[test]
fn codex_gets_the_dummy_of_the_forwarded_login_and_a_trusted_workspace() {
    let machine = Machine::new();
    let env = machine.env();
    let token = write_login(&machine.path(".codex/auth.json"), 3600, "one");
    machine.write(
        ".codex/config.toml",
        "model = 'gpt-5'\nnotify = ['s3cret']\n",
    );
    let handed = machine.handed(TokenRef::CodexHost);
    let setting = Setting {
        handed: Some(&handed),
        ..setting(&env)
    };
    let agent = Agent::builtin(Template::Codex, &setting).unwrap();
    assert!(!leak::appears(&token, text(&agent, ".codex/auth.json")));
    let config = text(&agent, ".codex/config.toml");
    assert_eq!(
        config,
        "model = 'gpt-5'\n\n[projects.\"/work\"]\ntrust_level = \"trusted\"\n"
    );
    assert_eq!(variable(&agent, "CODEX_HOME"), Some("/home/node/.codex"));
    assert_eq!(agent.test.unwrap(), ["codex", "login", "status"]);
    assert!(agent.notes[0].ends_with("notify"), "{:?}", agent.notes);
}

#[test]
fn codex_without_a_forwarded_login_gets_none_or_a_placeholder_of_a_key() {
    let machine = Machine::new();
    let env = machine.env();
    write_login(&machine.path(".codex/auth.json"), 3600, "one");
    let agent = Agent::builtin(Template::Codex, &setting(&env)).unwrap();
    assert_eq!(agent.files.len(), 1);
    assert_eq!(agent.test.unwrap(), ["codex", "--version"]);

    let routes = routes(
        "routes:\n  - {host: api.openai.com, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0}\n",
    );
    let setting = Setting {
        routes: Some(&routes),
        ..setting(&env)
    };
    let agent = Agent::builtin(Template::Codex, &setting).unwrap();
    assert!(text(&agent, ".codex/auth.json").contains("sk-placeholder"));
}

#[test]
fn claude_gets_a_token_that_is_a_placeholder_where_a_route_injects_one() {
    let machine = Machine::new();
    let env = machine.env();
    let token = |setting: &Setting<'_>| {
        let agent = Agent::builtin(Template::Claude, setting).unwrap();
        assert_eq!(variable(&agent, "DISABLE_ERROR_REPORTING"), Some("1"));
        let settings: serde_json::Value =
            serde_json::from_str(text(&agent, ".claude.json")).unwrap();
        assert_eq!(
            settings["projects"]["/work"]["hasTrustDialogAccepted"],
            true
        );
        assert_eq!(
            settings["customApiKeyResponses"]["approved"][0],
            "nt-api03-placeholder"
        );
        variable(&agent, "CLAUDE_CODE_OAUTH_TOKEN").map(str::to_owned)
    };
    let none = setting(&env);
    assert_eq!(token(&none), None);
    let placeholder = Some("sk-ant-oat01-placeholder".to_owned());
    let roles = ["claude_code_oauth".to_owned()];
    let marked = Setting {
        roles: &roles,
        ..none
    };
    assert_eq!(token(&marked), placeholder);
    for (scheme, expected) in [
        ("auth_scheme: Bearer", placeholder),
        ("auth_scheme: raw, auth_header: x-api-key", None),
    ] {
        let routes = routes(&format!(
            "routes:\n  - {{host: api.anthropic.com, {scheme}, token_env: EGRESS_TOKEN_0}}\n"
        ));
        let injected = Setting {
            routes: Some(&routes),
            ..none
        };
        assert_eq!(token(&injected), expected, "{scheme}");
    }
}

#[test]
fn every_target_stays_in_the_home() {
    let machine = Machine::new();
    let env = machine.env();
    for template in [
        Template::Claude,
        Template::Codex,
        Template::Gemini,
        Template::Opencode,
        Template::Custom,
    ] {
        let agent = Agent::builtin(template, &setting(&env)).unwrap();
        for file in &agent.files {
            let normal = |part| matches!(part, std::path::Component::Normal(_));
            assert!(file.target.components().all(normal), "{file:?}");
        }
    }
}
