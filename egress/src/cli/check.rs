//! `egress check`: whether a routes file can be put in force or a manifest rendered, and everything that is wrong with it.
//!
//! Exit: 0 it can, 1 it cannot. The faults go to stderr; the summary, or the JSON of either, to stdout.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use self::bottles::Bottles;
use super::limits::LimitArgs;
use crate::config::{self, Colour, Either, Faults, sarif};
use crate::credential::Environment;
use crate::proxy::limits::{Ceiling, Limits};
use crate::route::{Rule, Tls};

mod bottles;

/// Check a routes file or a manifest, and list everything that is wrong with it
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The routes file or the manifest; `-` reads stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The form of the report
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Check that each slot of a routes file has a usable value in this environment, too
    #[arg(long)]
    slots: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people: faults with their lines, and hints
    Text,
    /// For programs: one JSON object on stdout
    Json,
    /// For forges: the faults as SARIF 2.1.0 on stdout
    Sarif,
}

const EXAMPLES: &str = "\
Examples:
  egress check routes.yaml
  egress check --slots routes.yaml           # as `egress serve` would: the slots have to be there
  egress check bottle.yaml                   # a manifest: each bottle, and what it renders to
  egress check --max-connections 512 routes.yaml  # and how much memory that may take
  egress check --format json routes.yaml     # {\"version\": 1, \"ok\": false, \"faults\": [...]}
  egress check --format sarif routes.yaml    # for a forge, which shows it beside the lines

Exit status: 0 nothing is wrong, 1 something is, 2 usage.";

/// Runs the command.
///
/// # Errors
///
/// Output that cannot be written.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let ceiling = args.limits.limits().ceiling();
    let checked = match config::read_either(&args.file) {
        Either::Routes(draft) if args.slots => {
            let environment = Environment::take(draft.slots());
            let policy = draft.into_policy(&environment, None, SystemTime::now());
            policy.map(|policy| {
                let rules = policy.routes.iter().map(|route| &route.rule);
                Summary::of(rules, Some(ceiling))
            })
        }
        Either::Routes(draft) => {
            let file = draft.finish();
            file.map(|file| Summary::of(file.rules.iter().map(|(rule, _)| rule), Some(ceiling)))
        }
        Either::Manifest(_) if args.slots => {
            eprintln!("error: a manifest has no slots in this environment");
            eprintln!("hint: leave --slots out; references to credentials are resolved at launch");
            return Ok(ExitCode::from(2));
        }
        Either::Manifest(_) if ceiling != Limits::default().ceiling() => {
            eprintln!(
                "error: the caps are those of `egress serve`, and a manifest's sidecars have the defaults"
            );
            eprintln!("hint: leave them out, or check a routes file");
            return Ok(ExitCode::from(2));
        }
        Either::Manifest(manifest) => {
            let bottles = manifest.and_then(|manifest| Bottles::of(&manifest));
            let output = Output::of(&args);
            return output.write(bottles, &mut io::stdout().lock(), &mut io::stderr().lock());
        }
    };
    Output::of(&args).write(checked, &mut io::stdout().lock(), &mut io::stderr().lock())
}

/// What a good file says.
trait Report {
    /// For people, on one screen.
    fn to_text(&self, name: &str) -> String;
    /// For programs.
    fn to_json(&self, name: &str) -> Value;
}

/// How the outcome is told.
struct Output {
    file: String,
    format: Format,
    colour: Colour,
}

impl Output {
    fn of(args: &Args) -> Self {
        Self {
            file: args.file.display().to_string(),
            format: args.format,
            colour: Colour::of_stderr(),
        }
    }

    fn write(
        &self,
        checked: Result<impl Report, Faults>,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> anyhow::Result<ExitCode> {
        match (checked, self.format) {
            (Ok(summary), Format::Text) => {
                write!(out, "{}", summary.to_text(&self.file))?;
                Ok(ExitCode::SUCCESS)
            }
            (Ok(summary), Format::Json) => {
                writeln!(out, "{:#}", summary.to_json(&self.file))?;
                Ok(ExitCode::SUCCESS)
            }
            (Ok(_), Format::Sarif) => {
                writeln!(out, "{:#}", sarif::clean())?;
                Ok(ExitCode::SUCCESS)
            }
            (Err(faults), Format::Sarif) => {
                writeln!(out, "{:#}", faults.to_sarif())?;
                Ok(ExitCode::from(1))
            }
            (Err(faults), Format::Text) => {
                let (count, plural) = (faults.len(), if faults.len() == 1 { "" } else { "s" });
                writeln!(err, "{}\n", faults.to_text(self.colour))?;
                writeln!(err, "{}: {count} error{plural}", self.file)?;
                Ok(ExitCode::from(1))
            }
            (Err(faults), Format::Json) => {
                writeln!(out, "{:#}", faults.to_json())?;
                Ok(ExitCode::from(1))
            }
        }
    }
}

/// The routes of a file, and the memory that a sidecar with these limits may come to hold.
struct Summary {
    /// Of a routes file alone: a manifest has no sidecar yet.
    ceiling: Option<Ceiling>,
    routes: usize,
    passthrough: usize,
    hosts: BTreeSet<String>,
    slots: BTreeSet<String>,
    /// Hosts with what their routes give up of the credential's guards.
    waived: BTreeSet<String>,
}

impl Summary {
    fn of<'r>(rules: impl Iterator<Item = &'r Rule>, ceiling: Option<Ceiling>) -> Self {
        let mut summary = Self {
            ceiling,
            routes: 0,
            passthrough: 0,
            hosts: BTreeSet::new(),
            slots: BTreeSet::new(),
            waived: BTreeSet::new(),
        };
        for rule in rules {
            summary.routes += 1;
            summary.passthrough += usize::from(rule.tls == Tls::Passthrough);
            summary.hosts.insert(rule.host.to_string());
            let slot = rule.injection.as_ref().map(|injection| &injection.slot);
            summary.slots.extend(slot.map(ToString::to_string));
            let waived = rule.waived().map(|key| format!("{} ({key})", rule.host));
            summary.waived.extend(waived);
        }
        summary
    }
}

impl Report for Summary {
    fn to_text(&self, name: &str) -> String {
        format!("{name}: ok\n{}", self.lines())
    }

    fn to_json(&self, name: &str) -> Value {
        let mut json = self.counts();
        for (key, value) in [
            ("version", json!(1)),
            ("ok", json!(true)),
            ("file", json!(name)),
            ("kind", json!("routes")),
            ("faults", json!([])),
        ] {
            json.insert(key.into(), value);
        }
        Value::Object(json)
    }
}

impl Summary {
    fn lines(&self) -> String {
        let mut text = format!("  routes  {}", self.routes);
        if self.passthrough > 0 {
            text.push_str(&format!(" ({} passed through)", self.passthrough));
        }
        text.push('\n');
        if self.routes == 0 {
            text.push_str("  every request is denied\n");
        }
        for (title, names) in [
            ("hosts", &self.hosts),
            ("slots", &self.slots),
            ("waived", &self.waived),
        ] {
            if title == "waived" && names.is_empty() {
                continue;
            }
            text.push_str(&format!("  {title:<8}{}", names.len()));
            text.push_str(&first_few(names));
            text.push('\n');
        }
        if let Some(ceiling) = &self.ceiling {
            text.push_str(&format!("  memory  {ceiling}\n"));
        }
        text
    }

    fn counts(&self) -> Map<String, Value> {
        let counts = [
            ("routes", json!(self.routes)),
            ("passthrough", json!(self.passthrough)),
            ("hosts", json!(self.hosts)),
            ("slots", json!(self.slots)),
            ("waived", json!(self.waived)),
        ];
        let ceiling = self
            .ceiling
            .iter()
            .map(|ceiling| ("memory_ceiling", json!(ceiling.total())));
        counts
            .into_iter()
            .chain(ceiling)
            .map(|(key, value)| (key.to_owned(), value))
            .collect()
    }
}

fn first_few(names: &BTreeSet<String>) -> String {
    /// As many names as fit on a screen, one a line.
    const MOST: usize = 16;
    let mut text: String = names
        .iter()
        .take(MOST)
        .map(|name| format!("\n            {name}"))
        .collect();
    if names.len() > MOST {
        text.push_str(&format!("\n            and {} more", names.len() - MOST));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Format, Output, Summary};
    use crate::config::{self, Colour};
    use crate::proxy::limits::Limits;

    /// The exit code, stdout and stderr of a check.
    fn check(text: &str, format: Format) -> (String, String, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("routes.yaml");
        std::fs::write(&path, text).unwrap();
        let checked = config::load(&path).map(|file| {
            Summary::of(
                file.rules.iter().map(|(rule, _)| rule),
                Some(Limits::default().ceiling()),
            )
        });
        let output = Output {
            file: "routes.yaml".into(),
            format,
            colour: Colour::Never,
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = output.write(checked, &mut out, &mut err).unwrap();
        (
            format!("{code:?}"),
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    }

    const FAULTY: &str = "routes:\n  - hots: a.test\n  - host: b.test\n    port: 0\n";
    const GOOD: &str = "routes:
  - host: a.test
    auth_scheme: Bearer
    token_env: ONE
  - host: b.test
    tls: passthrough
";

    #[test]
    fn faults_go_to_stderr_and_fail_the_check() {
        let (code, out, err) = check(FAULTY, Format::Text);
        assert!(code.contains('1'), "{code}");
        assert_eq!(out, "");
        assert_eq!(err.matches("error: ").count(), 2, "{err}");
        assert_eq!(err.matches("\nhint: ").count(), 2, "{err}");
        assert!(err.ends_with("\nroutes.yaml: 2 errors\n"), "{err}");
        assert!(!err.contains('\u{1b}'), "{err}");
    }

    #[test]
    fn faults_for_programs_are_one_object_on_stdout() {
        let (code, out, err) = check(FAULTY, Format::Json);
        assert!(code.contains('1'), "{code}");
        assert_eq!(err, "");
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&json["version"], &json["ok"]), (&1.into(), &false.into()));
        assert_eq!(json["faults"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_good_file_is_summed_up() {
        let (code, out, err) = check(GOOD, Format::Text);
        assert!(code.contains('0'), "{code}");
        assert_eq!(err, "");
        assert_eq!(
            out,
            "\
routes.yaml: ok
  routes  2 (1 passed through)
  hosts   2
            a.test
            b.test
  slots   1
            ONE
  memory  at most 5089 MiB (1345 MiB of it by one client)
"
        );
        let (_, out, _) = check(GOOD, Format::Json);
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(json["slots"], serde_json::json!(["ONE"]));
        assert_eq!((&json["ok"], &json["routes"]), (&true.into(), &2.into()));
    }

    #[test]
    fn guards_that_a_route_waives_beside_a_credential_are_told() {
        let text = "routes:
  - {host: a.test, auth_scheme: raw, token_env: ONE, redact: false, query_credentials: allow}
  - {host: b.test, auth_scheme: raw, token_env: ONE}
  - {host: c.test, redact: false, query_credentials: allow}
";
        let (code, out, _) = check(text, Format::Text);
        assert!(code.contains('0'), "{code}");
        let told = "  waived  2
            a.test (query_credentials: allow)
            a.test (redact: false)
";
        assert!(out.contains(told), "{out}");
        let (_, out, _) = check(text, Format::Json);
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(json["waived"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_file_that_denies_everything_is_good_and_says_so() {
        let (code, out, _) = check("routes: []", Format::Text);
        assert!(code.contains('0'), "{code}");
        assert!(out.contains("every request is denied"), "{out}");
    }

    #[test]
    fn a_summary_fits_on_a_screen() {
        let mut text = String::from("routes:\n");
        for n in 0..500 {
            text.push_str(&format!(
                "  - {{host: h{n}.test, auth_scheme: raw, token_env: S{n}}}\n"
            ));
        }
        let (_, out, _) = check(&text, Format::Text);
        assert!(out.lines().count() <= 40, "{out}");
        assert!(out.contains("and 484 more"), "{out}");
    }
}
