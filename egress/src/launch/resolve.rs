//! Credentials at launch: each reference of a manifest becomes a value, on the host, once.
//!
//! Everything that cannot be had is told at once. No message holds a value or a part of one, and none of a program's
//! output either.

mod command;
mod file;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use super::Host;
use super::handover::{Codex, Handed};
use super::login::Login;
use crate::config::render::{RenderedSlot, TokenRef};
use crate::credential::{Secret, SlotName, Unusable, check_value, jwt};

/// How long a program may take, and how many bytes a value may have.
const LIMITS: Limits = Limits {
    time: Duration::from_secs(10),
    bytes: 64 * 1024,
};

#[derive(Clone, Copy)]
struct Limits {
    time: Duration,
    bytes: usize,
}

/// Whether the launch that credentials are looked up for is over already.
static ABANDONED: AtomicBool = AtomicBool::new(false);

/// Ends the lookups of this process: a program that one of them waits for is killed, with what it started.
pub fn abandon() {
    ABANDONED.store(true, Ordering::Relaxed);
}

/// Finds the value of every slot. A reference that several slots share is looked up once, programs run one after the
/// other.
///
/// # Errors
///
/// All references without a usable value, each with its slots, hosts and a hint.
pub fn resolve(slots: &[RenderedSlot], host: &Host<'_>) -> Result<Handed, Unresolved> {
    within(LIMITS, slots, host)
}

fn within(limits: Limits, slots: &[RenderedSlot], host: &Host<'_>) -> Result<Handed, Unresolved> {
    let mut values = BTreeMap::new();
    let mut codex = None;
    let mut unmet = Vec::new();
    for wanted in distinct(slots) {
        match find(wanted.reference, limits, host) {
            Ok(Found { value, login }) => {
                for slot in &wanted.slots {
                    values.insert(slot.clone(), value.clone());
                }
                if let Some(login) = login {
                    let slots = wanted.slots;
                    codex = Some(Codex { slots, login });
                }
            }
            Err(problem) => unmet.push(wanted.unmet(problem)),
        }
    }
    if unmet.is_empty() {
        Ok(Handed::new(values, codex))
    } else {
        Err(Unresolved(unmet))
    }
}

/// A reference with everything that hangs on it.
struct Wanted<'a> {
    reference: &'a TokenRef,
    slots: Vec<SlotName>,
    hosts: Vec<String>,
}

fn distinct(slots: &[RenderedSlot]) -> Vec<Wanted<'_>> {
    let mut list: Vec<Wanted<'_>> = Vec::new();
    for slot in slots {
        let known = list
            .iter_mut()
            .find(|wanted| *wanted.reference == slot.reference);
        match known {
            Some(wanted) => {
                wanted.slots.push(slot.name.clone());
                wanted.hosts.extend(slot.hosts.iter().cloned());
            }
            None => list.push(Wanted {
                reference: &slot.reference,
                slots: vec![slot.name.clone()],
                hosts: slot.hosts.clone(),
            }),
        }
    }
    list
}

impl Wanted<'_> {
    fn unmet(self, problem: Problem) -> Unmet {
        Unmet {
            reference: named(self.reference),
            hint: hint(self.reference, &problem),
            problem: problem.what,
            slots: self.slots,
            hosts: self.hosts,
        }
    }
}

/// A value, and the login that it belongs to where it is one's token.
struct Found {
    value: Secret,
    login: Option<Login>,
}

fn find(reference: &TokenRef, limits: Limits, host: &Host<'_>) -> Result<Found, Problem> {
    let value = match reference {
        TokenRef::Variable(name) => variable(name, host)?,
        TokenRef::File(path) => file::read(path, limits.bytes, host)?,
        TokenRef::Command(argv) => command::output(argv, limits)?,
        TokenRef::CodexHost => {
            let login = Login::find(host).map_err(|error| Problem {
                hint: Some(error.hint()),
                what: error.to_string(),
            })?;
            check(login.token().expose(), host.now)?;
            let value = login.token().clone();
            let login = Some(login);
            return Ok(Found { value, login });
        }
    };
    check(value.expose(), host.now)?;
    Ok(Found { value, login: None })
}

fn variable(name: &str, host: &Host<'_>) -> Result<Secret, Problem> {
    let value = (host.env)(name).ok_or(Unusable::Missing)?;
    let text = value.into_string().map_err(|_| Unusable::Byte)?;
    Ok(Secret::new(text))
}

/// The sidecar would refuse to start with it; here it is told together with everything else.
fn check(value: &str, now: SystemTime) -> Result<(), Unusable> {
    check_value(value)?;
    match jwt::expiry(value) {
        Ok(expiry) if expiry.is_past(now) => Err(Unusable::Expired(expiry.time())),
        _ => Ok(()),
    }
}

/// The value that a text ends up as: its one trailing newline is how files and programs end a line.
fn line_of(bytes: &[u8]) -> Result<Secret, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|_| Unusable::Byte)?;
    let text = text
        .strip_suffix('\n')
        .map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    Ok(Secret::new(text))
}

/// What is wrong with a reference.
struct Problem {
    what: String,
    hint: Option<&'static str>,
}

impl Problem {
    fn new(what: impl Into<String>) -> Self {
        let what = what.into();
        Self { what, hint: None }
    }

    fn hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }
}

impl From<Unusable> for Problem {
    fn from(unusable: Unusable) -> Self {
        let what = Self::new(unusable.to_string());
        match unusable {
            Unusable::Byte => {
                what.hint("a token is one line of visible ASCII; look at how it was written")
            }
            Unusable::SchemeInside => {
                what.hint("give the token alone; the route's scheme writes that word")
            }
            Unusable::Expired(_) => what.hint("renew the credential and launch again"),
            _ => what,
        }
    }
}

/// The reference as messages name it. A command's arguments are left out: some pass a secret there.
fn named(reference: &TokenRef) -> String {
    match reference {
        TokenRef::Variable(name) => name.escape_debug().to_string(),
        TokenRef::File(path) => format!("file:{}", path.display().to_string().escape_debug()),
        TokenRef::Command(argv) => match argv.as_slice() {
            [] => "cmd:".into(),
            [program] => format!("cmd:{}", program.escape_debug()),
            [program, ..] => format!("cmd:{} ...", program.escape_debug()),
        },
        TokenRef::CodexHost => "the host's Codex login".into(),
    }
}

fn hint(reference: &TokenRef, problem: &Problem) -> String {
    if let Some(hint) = problem.hint {
        return hint.into();
    }
    match reference {
        TokenRef::Variable(name) => format!(
            "set {} in the environment that the launch is started from",
            name.escape_debug()
        ),
        TokenRef::File(_) => "check the file's name, and who may read it".into(),
        TokenRef::Command(_) => "run the command by hand and see what it says".into(),
        TokenRef::CodexHost => "log in on the host with `codex login --device-auth`".into(),
    }
}

/// References without a usable value; never empty.
#[derive(Debug, thiserror::Error)]
#[error("{}", told(.0))]
pub struct Unresolved(Vec<Unmet>);

impl Unresolved {
    /// Each of them, in the order of the slots.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Unmet> {
        self.0.iter()
    }
}

/// One reference without a usable value. Its text is one line, and the hint is not in it.
#[derive(Debug, thiserror::Error)]
#[error("{reference}: {problem}; it fills {}", filled(.slots, .hosts))]
pub struct Unmet {
    reference: String,
    slots: Vec<SlotName>,
    hosts: Vec<String>,
    problem: String,
    hint: String,
}

impl Unmet {
    /// The slots that it was to fill.
    pub fn slots(&self) -> &[SlotName] {
        &self.slots
    }

    /// The hosts of the routes that name them.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// What the operator can do about it.
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

fn told(list: &[Unmet]) -> String {
    let lines: Vec<String> = list.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn filled(slots: &[SlotName], hosts: &[String]) -> String {
    /// As many hosts as are listed.
    const MOST: usize = 8;
    let slots: Vec<&str> = slots.iter().map(SlotName::as_str).collect();
    let mut text = format!("slot {}", slots.join(" and "));
    let listed: Vec<&str> = hosts.iter().take(MOST).map(String::as_str).collect();
    if !listed.is_empty() {
        text.push_str(" for ");
        text.push_str(&listed.join(", "));
    }
    if hosts.len() > MOST {
        text.push_str(&format!(" and {} more", hosts.len() - MOST));
    }
    text
}

#[cfg(test)]
mod tests;
