//! Slots: the sidecar's own environment variables (or files) that hold credentials, each with its expiry.
//!
//! A slot's value is leased for one request. A value that has expired, or whose file has gone, is not leased: nothing is
//! ever sent without a credential that a route demands, or with a stale one.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use zeroize::Zeroizing;

use super::environment::Environment;
use super::salt::Salt;
use super::{Secret, jwt};
use crate::confine;
use crate::file::open_regular;
use crate::redact::{Pattern, SHORTEST};

/// The slots of a policy.
#[derive(Clone, Debug, Default)]
pub struct Slots(HashMap<SlotName, Arc<Slot>>);

impl Slots {
    /// Opens each named slot. A slot that `previous` had, from the same source and with the same value, is carried over
    /// with its generation, so that its connections live on.
    ///
    /// # Errors
    ///
    /// Every slot that cannot be used, with the reason, but for those that `previous` had.
    pub fn open<'a>(
        names: impl Iterator<Item = &'a SlotName>,
        environment: &Environment,
        previous: Option<&Self>,
        now: SystemTime,
    ) -> Result<Self, Vec<(SlotName, Unusable)>> {
        let mut slots = HashMap::new();
        let mut unusable = Vec::new();
        for name in names {
            if slots.contains_key(name) {
                continue;
            }
            let old = previous.and_then(|slots| slots.0.get(name));
            match (Slot::open(name, environment, now), old) {
                (Ok(opened), Some(old)) if old.same_as(&opened) => {
                    _ = slots.insert(name.clone(), old.clone())
                }
                (Ok(opened), _) => _ = slots.insert(name.clone(), Arc::new(opened)),
                // A slot that lapsed while it was in force must not keep the operator from taking routes away. Nothing
                // is sent with it: it is looked at again on each lease.
                (Err(_), Some(old)) => _ = slots.insert(name.clone(), old.clone()),
                (Err(reason), None) => unusable.push((name.clone(), reason)),
            }
        }
        unusable.sort_by(|(a, _), (b, _)| a.cmp(b));
        unusable.dedup_by(|(a, _), (b, _)| a == b);
        if unusable.is_empty() {
            Ok(Self(slots))
        } else {
            Err(unusable)
        }
    }

    /// The slot of a name.
    pub fn get(&self, name: &SlotName) -> Option<&Arc<Slot>> {
        self.0.get(name)
    }

    /// All slots, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.0.values()
    }
}

/// One credential of the sidecar.
#[derive(Debug)]
pub struct Slot {
    name: SlotName,
    source: Source,
    state: ArcSwap<State>,
}

#[derive(Debug)]
enum State {
    Held(Arc<Held>),
    Gone(Unusable),
}

#[derive(Debug)]
struct Held {
    secret: Secret,
    expiry: Option<SystemTime>,
    generation: Generation,
    patterns: Mutex<Vec<(User, Option<Arc<Pattern>>)>>,
    fingerprint: OnceLock<Arc<str>>,
}

/// The user beside whom a value is sent; `None` where it is sent by itself.
type User = Option<Box<str>>;

/// Where a slot's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The variable of the slot's name.
    Environment,
    /// The file that the variable `NAME_FILE` names.
    File(PathBuf),
    /// The launcher, through a descriptor.
    Handed,
}

impl Slot {
    fn open(name: &SlotName, environment: &Environment, now: SystemTime) -> Result<Self, Unusable> {
        let variable = environment.secret(name);
        let file = environment.path(name);
        let (source, secret) = match (variable, file, environment.handed(name)) {
            (None, None, None) => return Err(Unusable::Missing),
            (Some(secret), None, None) => (Source::Environment, secret),
            (None, None, Some(secret)) => (Source::Handed, secret),
            (None, Some(path), None) => {
                let secret = read_file(&path)?;
                (Source::File(path), secret)
            }
            (Some(_), Some(_), _) => return Err(Unusable::BothForms),
            (_, _, Some(_)) => return Err(Unusable::HandedToo),
        };
        let held = Held::new(secret)?;
        held.check_expiry(now)?;
        Ok(Self {
            name: name.clone(),
            source,
            state: ArcSwap::from_pointee(State::Held(Arc::new(held))),
        })
    }

    /// The slot's name.
    pub fn name(&self) -> &SlotName {
        &self.name
    }

    /// Where its value comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The value, for one request.
    ///
    /// # Errors
    ///
    /// [`Unusable`] where the value has expired at `now` (`exp == now` is expired), or has gone since the start.
    pub fn lease(&self, now: SystemTime) -> Result<Lease, Unusable> {
        match &**self.state.load() {
            State::Held(held) => {
                held.check_expiry(now)?;
                Ok(Lease(held.clone()))
            }
            State::Gone(reason) => Err(reason.clone()),
        }
    }

    /// When the value ends; `None` for one without an expiry, and for one that has gone.
    pub fn expiry(&self) -> Option<SystemTime> {
        match &**self.state.load() {
            State::Held(held) => held.expiry,
            State::Gone(_) => None,
        }
    }

    /// Which value is held now; `None` where it has gone.
    pub fn generation(&self) -> Option<Generation> {
        match &**self.state.load() {
            State::Held(held) => Some(held.generation),
            State::Gone(_) => None,
        }
    }

    /// Whether the value is too short to be masked in answers; `None` where it has gone.
    pub fn is_short(&self) -> Option<bool> {
        match &**self.state.load() {
            State::Held(held) => Some(held.secret.expose().len() < SHORTEST),
            State::Gone(_) => None,
        }
    }

    /// Reads a file slot again, and takes over what was handed over since; a slot of the environment stays as it is.
    /// Blocking, and for one caller at a time.
    pub fn refresh(&self, environment: &Environment) -> Refreshed {
        let read = match &self.source {
            Source::Environment => return Refreshed::Unchanged,
            Source::File(path) => read_file(path),
            Source::Handed => environment.handed(&self.name).ok_or(Unusable::Missing),
        };
        let read = read.and_then(Held::new);
        let new = match (&**self.state.load(), read) {
            (State::Held(old), Ok(new)) if old.secret == new.secret => return Refreshed::Unchanged,
            (State::Gone(old), Err(new)) if *old == new => return Refreshed::Unchanged,
            (_, Ok(new)) => State::Held(Arc::new(new)),
            (_, Err(reason)) => State::Gone(reason),
        };
        let result = match &new {
            State::Held(_) => Refreshed::Rotated,
            State::Gone(reason) => Refreshed::Gone(reason.clone()),
        };
        self.state.store(Arc::new(new));
        result
    }

    fn same_as(&self, other: &Self) -> bool {
        let same_value = match (&**self.state.load(), &**other.state.load()) {
            (State::Held(a), State::Held(b)) => a.secret == b.secret,
            _ => false,
        };
        self.source == other.source && same_value
    }
}

/// What [`Slot::refresh`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// The same as before.
    Unchanged,
    /// Another value.
    Rotated,
    /// No usable value any more.
    Gone(Unusable),
}

impl Held {
    fn new(secret: Secret) -> Result<Self, Unusable> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        check_value(secret.expose())?;
        let expiry = match jwt::expiry(secret.expose()) {
            Ok(expiry) => Some(expiry.time()),
            // A JWT without `exp`, or no JWT at all: there is no expiry to hold it to.
            Err(_) => None,
        };
        Ok(Self {
            secret,
            expiry,
            generation: Generation(NEXT.fetch_add(1, Ordering::Relaxed)),
            patterns: Mutex::default(),
            fingerprint: OnceLock::new(),
        })
    }

    fn check_expiry(&self, now: SystemTime) -> Result<(), Unusable> {
        match self.expiry {
            Some(expiry) if expiry <= now => Err(Unusable::Expired(expiry)),
            _ => Ok(()),
        }
    }
}

/// A slot's value at one moment, for one request.
#[derive(Clone, Debug)]
pub struct Lease(Arc<Held>);

impl Lease {
    /// The value.
    pub fn secret(&self) -> &Secret {
        &self.0.secret
    }

    /// What finds the value, and what `Basic` makes of it beside a user, in an answer. It is made once for each user. `None`
    /// for a value that is too short to be told from other text.
    pub fn pattern(&self, user: Option<&str>) -> Option<Arc<Pattern>> {
        let held = &*self.0;
        let mut patterns = held.patterns.lock().unwrap_or_else(PoisonError::into_inner);
        let made = patterns.iter().find(|(made, _)| made.as_deref() == user);
        if let Some((_, pattern)) = made {
            return pattern.clone();
        }
        let basic = user.map(|user| held.secret.basic(user));
        let sent = basic.as_deref().map(String::as_str);
        let pattern = Pattern::new([held.secret.expose()].into_iter().chain(sent));
        let pattern = pattern.map(Arc::new);
        patterns.push((user.map(Box::from), pattern.clone()));
        pattern
    }

    /// What tells the value from others without a word of what it is. Made once: a process has one salt.
    pub fn fingerprint(&self, salt: &Salt) -> Arc<str> {
        let made = || salt.fingerprint(&self.0.secret).into();
        self.0.fingerprint.get_or_init(made).clone()
    }

    /// Which value it is.
    pub fn generation(&self) -> Generation {
        self.0.generation
    }
}

/// Tells the values that a slot held one after the other apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Generation(u64);

/// The name of a slot: an environment variable's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotName(Arc<str>);

impl SlotName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The variable that names the slot's file.
    pub fn file_variable(&self) -> String {
        format!("{}_FILE", self.0)
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SlotName {
    type Err = InvalidSlotName;

    fn from_str(text: &str) -> Result<Self, InvalidSlotName> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if text.is_empty()
            || text.starts_with(|c: char| c.is_ascii_digit())
            || !text.bytes().all(legal)
        {
            return Err(InvalidSlotName);
        }
        Ok(Self(text.into()))
    }
}

/// A text that is no environment variable's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a slot is an environment variable's name: letters, digits and `_`, not beginning with a digit"
)]
pub struct InvalidSlotName;

/// Why a slot cannot be used. Never says anything about the value itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Neither the variable nor its `_FILE` form is set, and it was not handed over.
    #[error("is not set")]
    Missing,
    /// The variable and its `_FILE` form.
    #[error("is given both as a value and as a file")]
    BothForms,
    /// One of the two, and on the launcher's descriptor.
    #[error("is handed over through --slots-fd, and given in the environment too")]
    HandedToo,
    /// Nothing in it.
    #[error("is empty")]
    Empty,
    /// CR, LF, NUL or another byte that no header value may carry, or a space.
    #[error(
        "holds a byte that cannot stand in a header (a line break, a blank, a control or non-ASCII byte)"
    )]
    Byte,
    /// `Bearer abc`: the route's scheme writes that word itself.
    #[error("begins with its scheme's name; give the token alone")]
    SchemeInside,
    /// It has ended.
    #[error("has expired ({} ago or at this moment)", ago(*.0))]
    Expired(SystemTime),
    /// The file of the `_FILE` form.
    #[error("cannot be read from {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
}

fn ago(expiry: SystemTime) -> String {
    let seconds = SystemTime::now()
        .duration_since(expiry)
        .map_or(0, |passed| passed.as_secs());
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Whether a text can be a slot's value: visible ASCII, not empty, without its scheme in front.
///
/// # Errors
///
/// [`Unusable`] says what it is, and nothing of the text.
pub fn check_value(text: &str) -> Result<(), Unusable> {
    if text.is_empty() {
        return Err(Unusable::Empty);
    }
    let scheme = text.split(' ').next().unwrap_or_default();
    if text.contains(' ')
        && ["bearer", "basic", "token"]
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
    {
        return Err(Unusable::SchemeInside);
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Unusable::Byte);
    }
    Ok(())
}

/// The largest token file that is read, in bytes. Tokens are a few kilobytes at the most.
const MAX_FILE: u64 = 64 * 1024;

fn read_file(path: &Path) -> Result<Secret, Unusable> {
    use std::io::Read as _;
    let failed = |reason: String| Unusable::File {
        path: path.into(),
        reason,
    };
    let file = open_regular(path).map_err(|error| failed(confine::reason(path, &error)))?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(failed(format!("it is larger than {MAX_FILE} bytes")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| Unusable::Byte)?;
    let text = text
        .strip_suffix('\n')
        .map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    Ok(Secret::new(text))
}

/// How long a value is good for from `now` on; `None` without an expiry.
pub fn time_left(expiry: Option<SystemTime>, now: SystemTime) -> Option<Duration> {
    expiry.map(|expiry| expiry.duration_since(now).unwrap_or_default())
}

/// Seconds since the epoch, for reports.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
