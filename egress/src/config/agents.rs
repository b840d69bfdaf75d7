//! The agents file: agents of the operator's own, and the files of the host that they ask for.
//!
//! It holds no secret, and it is right as a whole or not at all. What the files hold is judged at the launch.

use std::path::{Component, Path, PathBuf};

use super::document::{self, Entry, Node, Value};
use super::fault::{Fault, Faults, shown};
use super::fields::{Field, Fields, duplicate};
use super::keys::{Form, Key, Keys, Unknown};
use super::rule::manifest::map;
use super::source::Source;
use super::values::repeated;

/// An agent as its operator describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomAgent {
    /// Its name.
    pub name: String,
    /// What runs it; never empty.
    pub command: Vec<String>,
    /// What shows that it works.
    pub test: Option<Vec<String>>,
    /// What installs it.
    pub install: Option<Vec<String>>,
    /// Files of the host that it needs.
    pub credentials: Vec<CredentialFile>,
    /// Its variables.
    pub environment: Vec<(String, String)>,
}

/// A file of the host for an agent's home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialFile {
    /// On the host: absolute, relative to the process's directory, or with a leading `~` that is not expanded yet.
    pub source: PathBuf,
    /// Relative to the agent's home, without `..`.
    pub target: PathBuf,
    /// Whether the agent cannot do without.
    pub required: bool,
}

/// Reads an agents file from disk.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn read(path: &Path) -> Result<Vec<CustomAgent>, Faults> {
    match Source::read(path, "agents file") {
        Ok(source) => read_source(&source),
        Err(fault) => Err(Faults::new(path.display().to_string(), "", vec![*fault])),
    }
}

/// Reads the text of an agents file. `directory` is what the names of other files in it are relative to.
///
/// # Errors
///
/// As [`read`].
pub fn parse(name: &str, text: &str, directory: &Path) -> Result<Vec<CustomAgent>, Faults> {
    read_source(&Source {
        name: name.into(),
        text: text.into(),
        directory: directory.into(),
    })
}

fn read_source(source: &Source) -> Result<Vec<CustomAgent>, Faults> {
    let mut faults = Vec::new();
    let root = document::parse(&source.text, &mut faults);
    let agents = agents_of(root.as_ref(), &mut faults)
        .into_iter()
        .filter_map(|(name, field)| agent(name, field, &source.directory, &mut faults))
        .collect();
    if faults.is_empty() {
        Ok(agents)
    } else {
        Err(Faults::new(source.name.clone(), &source.text, faults))
    }
}

fn agents_of<'d>(root: Option<&'d Node<'d>>, faults: &mut Vec<Fault>) -> Vec<(&'d str, Field<'d>)> {
    let broken = !faults.is_empty();
    let map = match root.map(|node| &node.value) {
        Some(Value::Map(map)) => map,
        Some(Value::Refused) => return Vec::new(),
        None | Some(Value::Scalar(_) | Value::Seq(_)) => {
            if !broken {
                faults.push(Fault::of_file("the agents file holds no agents").hint(EXAMPLE));
            }
            return Vec::new();
        }
    };
    let fields = Fields::read(map, &KEYS, faults);
    match fields.find("agents") {
        Some(field) => named(field, faults),
        None => {
            // After a syntax error the key may have been still to come.
            if !broken && fields.lacks("agents") {
                faults.push(Fault::of_file("the agents file has no `agents`").hint(EXAMPLE));
            }
            Vec::new()
        }
    }
}

/// Agents by their names, which become arguments and names of directories.
fn named<'d>(field: Field<'d>, faults: &mut Vec<Fault>) -> Vec<(&'d str, Field<'d>)> {
    let mut named: Vec<(&str, Field<'_>)> = Vec::new();
    for (name, key, node) in pairs(field, EXAMPLE, faults) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if BUILT_IN.contains(&name) {
            let problem = format!("an agent {} is built in", shown(name));
            faults.push(
                field
                    .fault_in(key.span, problem)
                    .hint("choose another name"),
            );
        } else if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(plain)
        {
            let problem = format!("{} cannot be an agent's name", shown(name));
            let fault = field.fault_in(key.span, problem);
            faults.push(
                fault.hint("use letters, digits, `-` and `_`, and begin with a letter or digit"),
            );
        } else {
            let field = Field {
                name: field.name,
                key: key.span,
                node,
            };
            named.push((name, field));
        }
    }
    named
}

fn agent(
    name: &str,
    field: Field<'_>,
    directory: &Path,
    faults: &mut Vec<Fault>,
) -> Option<CustomAgent> {
    let fields = Fields::read(map(field, EXAMPLE, faults)?, &AGENT_KEYS, faults);
    if fields.lacks("command") {
        let problem = format!("the agent {} has no `command`", shown(name));
        let fault = Fault::new(field.key, problem).key("command");
        faults.push(fault.hint("write `command: [PROGRAM, ARGUMENT]`"));
    }
    let mut argv = |key| argv(fields.find(key)?, faults);
    let (command, test, install) = (argv("command"), argv("test"), argv("install"));
    Some(CustomAgent {
        name: name.into(),
        credentials: credentials(fields.find("credentials"), directory, faults),
        environment: environment(fields.find("environment"), faults),
        command: command?,
        test,
        install,
    })
}

/// A program and its arguments, as they are handed over: no shell looks at them.
fn argv(field: Field<'_>, faults: &mut Vec<Fault>) -> Option<Vec<String>> {
    let items = field.list("where there is none", faults)?;
    let mut argv = Vec::with_capacity(items.len());
    for item in items {
        let Some(text) = field.written(item, faults) else {
            continue;
        };
        if text.contains('\0') || (argv.is_empty() && text.is_empty()) {
            let problem = format!("{} cannot be run", shown(text));
            faults.push(field.fault_in(item.span, problem));
        }
        argv.push(text.to_owned());
    }
    Some(argv)
}

fn credentials(
    field: Option<Field<'_>>,
    directory: &Path,
    faults: &mut Vec<Fault>,
) -> Vec<CredentialFile> {
    let mut list: Vec<(CredentialFile, Field<'_>)> = Vec::new();
    let Some(field) = field else {
        return Vec::new();
    };
    for node in field
        .list("where the agent needs no file", faults)
        .unwrap_or_default()
    {
        let item = Field { node, ..field };
        let Some(map) = map(item, "write `{source: ~/.tool/settings.json}`", faults) else {
            continue;
        };
        let fields = Fields::read(map, &CREDENTIAL_KEYS, faults);
        if fields.lacks("source") {
            let fault = Fault::new(node.span, "a credential without a `source`").key("source");
            faults.push(fault.hint("name the file on the host: `source: ~/.tool/settings.json`"));
        }
        let source = fields.find("source");
        let text = source.and_then(|field| home_or_path(field, faults));
        let target = match (fields.find("target"), source) {
            (Some(field), _) => target(field, faults).map(|target| (target, field)),
            // What is wrong with the source has been told.
            (None, Some(field)) if text.is_some() => {
                target(field, faults).map(|target| (target, field))
            }
            (None, _) => None,
        };
        let required = match fields.find("required") {
            Some(field) => field.flag(faults),
            None => Some(true),
        };
        let (Some(text), Some((target, aim)), Some(required)) = (text, target, required) else {
            continue;
        };
        let overlaps = |known: &Path| known.starts_with(&target) || target.starts_with(known);
        if let Some((_, first)) = list.iter().find(|(known, _)| overlaps(&known.target)) {
            let at = first.node.span;
            faults.push(repeated(
                aim,
                aim.node.span,
                &shown(&target.to_string_lossy()),
                at,
            ));
            continue;
        }
        let source = match text.starts_with('~') {
            true => PathBuf::from(text),
            false => directory.join(text),
        };
        let file = CredentialFile {
            source,
            target,
            required,
        };
        list.push((file, aim));
    }
    list.into_iter().map(|(file, _)| file).collect()
}

/// A file on the host. Another user's home is none of ours.
fn home_or_path<'d>(field: Field<'d>, faults: &mut Vec<Fault>) -> Option<&'d str> {
    let text = field.text(faults)?;
    if text.starts_with('~') && !text.starts_with("~/") {
        let problem = format!("{} is not a file's name", shown(text));
        faults.push(
            field
                .fault(problem)
                .hint("write `~/` for the home directory"),
        );
        return None;
    }
    Some(text)
}

/// A place in the agent's home, wherever that is: `~/x` and `x` are the same.
fn target(field: Field<'_>, faults: &mut Vec<Fault>) -> Option<PathBuf> {
    let text = field.text(faults)?;
    let inside = text.strip_prefix("~/").unwrap_or(text);
    let mut target = PathBuf::new();
    for part in Path::new(inside).components() {
        match part {
            Component::Normal(name) => target.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                let problem = format!("{} does not stay in the agent's home", shown(text));
                faults.push(field.fault(problem).hint(
                    "write where it belongs in the agent's home: `target: ~/.tool/settings.json`",
                ));
                return None;
            }
        }
    }
    if target.as_os_str().is_empty() || inside.starts_with('~') || inside.ends_with('/') {
        let problem = format!("{} is not a file's place in the agent's home", shown(text));
        faults.push(
            field
                .fault(problem)
                .hint("write `target: ~/.tool/settings.json`"),
        );
        return None;
    }
    Some(target)
}

fn environment(field: Option<Field<'_>>, faults: &mut Vec<Fault>) -> Vec<(String, String)> {
    let Some(field) = field else {
        return Vec::new();
    };
    let mut variables = Vec::new();
    for (name, key, node) in pairs(field, "write `{NAME: value}`", faults) {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(legal) {
            let problem = format!("{} is not a variable's name", shown(name));
            faults.push(field.fault_in(key.span, problem));
        } else if name.starts_with("EGRESS_") || name == HOME {
            let problem = format!("the variable {} is the launcher's", shown(name));
            faults.push(field.fault_in(key.span, problem).hint("leave it out"));
        } else if let Some(value) = field.written(node, faults) {
            variables.push((name.to_owned(), value.to_owned()));
        }
    }
    variables
}

/// The entries of a map whose keys are the operator's, each key once and not empty.
fn pairs<'d>(
    field: Field<'d>,
    hint: &str,
    faults: &mut Vec<Fault>,
) -> Vec<(&'d str, &'d Node<'d>, &'d Node<'d>)> {
    let mut pairs: Vec<(&str, &Node<'_>, &Node<'_>)> = Vec::new();
    for Entry { key, value } in map(field, hint, faults).into_iter().flatten() {
        let Some(name) = field.written(key, faults) else {
            continue;
        };
        match pairs.iter().find(|(known, ..)| *known == name) {
            Some((_, first, _)) => faults.push(duplicate(key.span, name, first.span)),
            None if name.is_empty() => faults.push(field.fault_in(key.span, "a name is empty")),
            None => pairs.push((name, key, value)),
        }
    }
    pairs
}

const EXAMPLE: &str = "write `agents: {NAME: {command: [PROGRAM]}}`";

/// Agents of which everything is known already.
const BUILT_IN: [&str; 5] = ["claude", "codex", "custom", "gemini", "opencode"];

/// A launcher decides where the home is.
const HOME: &str = "HOME";

pub(super) static KEYS: Keys = Keys {
    unknown: |key| match key {
        "bottles" => Some(Unknown::Hint(
            "this is a manifest, not an agents file".into(),
        )),
        _ => None,
    },
    one_of: &["agents"],
    ..Keys::new(
        "an agents file",
        &[&[Key {
            name: "agents",
            form: Form::Named(&AGENT_KEYS),
            about: "Agents by name",
        }]],
    )
};

static AGENT_KEYS: Keys = Keys {
    unknown: |key| match key {
        "bottle" | "skills" | "prompt" => Some(Unknown::Hint(
            "that is a manifest's; an agents file says how an agent is run".into(),
        )),
        _ => None,
    },
    one_of: &["command"],
    ..Keys::new(
        "an agent",
        &[&[
            Key {
                name: "command",
                form: Form::Argv,
                about: "What runs it: the program and its arguments",
            },
            Key {
                name: "test",
                form: Form::Argv,
                about: "What shows that it works, without any network",
            },
            Key {
                name: "install",
                form: Form::Argv,
                about: "What installs it",
            },
            Key {
                name: "credentials",
                form: Form::Maps(&CREDENTIAL_KEYS),
                about: "Files of the host for the agent's home; logins become dummies, other secrets are refused",
            },
            Key {
                name: "environment",
                form: Form::Variables,
                about: "Variables by name",
            },
        ]],
    )
};

static CREDENTIAL_KEYS: Keys = Keys {
    one_of: &["source"],
    ..Keys::new(
        "a credential",
        &[&[
            Key {
                name: "source",
                form: Form::Text,
                about: "The file on the host; links are followed",
            },
            Key {
                name: "target",
                form: Form::Text,
                about: "The file in the agent's home; the same as the source where that begins with ~",
            },
            Key {
                name: "required",
                form: Form::Flag,
                about: "Whether the launch fails where the file is missing (true unless given)",
            },
        ]],
    )
};

#[cfg(test)]
mod tests;
