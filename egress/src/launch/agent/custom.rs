//! An agent of the operator's own, with the files of the host that it asks for.
//!
//! A file is read once, through its links, judged by its own name, by that of what the links lead to and by its contents, and
//! what was judged is what the agent gets.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::known::{self, Kind};
use super::{Agent, Error, HomeFile, Problem, Setting, codex, shown};
use crate::config::agents::{CredentialFile, CustomAgent};
use crate::launch::login::Login;
use crate::launch::variables;

pub(super) fn agent(described: &CustomAgent, setting: &Setting<'_>) -> Result<Agent, Error> {
    let mut made = Agent {
        name: described.name.clone(),
        command: described.command.clone(),
        test: described.test.clone(),
        install: described.install.clone(),
        environment: described.environment.clone(),
        ..Agent::default()
    };
    let mut problems: Vec<Problem> = described
        .environment
        .iter()
        .filter(|(name, _)| variables::is_ours(name))
        .map(|(name, _)| Problem {
            what: format!("the variable {} leads to the sidecar", name.escape_debug()),
            hint: "leave it out: the launcher sets it".into(),
        })
        .collect();
    for credential in &described.credentials {
        match provide(credential, setting) {
            Ok(Provided { file, note }) => {
                made.files.extend(file);
                made.notes.extend(note);
            }
            Err(problem) => problems.push(problem),
        }
    }
    Error::unless_none(problems).map(|()| made)
}

struct Provided {
    file: Option<HomeFile>,
    note: Option<String>,
}

fn provide(credential: &CredentialFile, setting: &Setting<'_>) -> Result<Provided, Problem> {
    let listed = named(&credential.source);
    let problem = |what: String, hint: &str| Problem {
        what: format!("{listed} {what}"),
        hint: hint.into(),
    };
    let Some(source) = setting.host.expand(&credential.source) else {
        return Err(problem(
            "cannot be found: HOME is not set".into(),
            "set HOME",
        ));
    };
    let bytes = match read_bounded(&source) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !credential.required => {
            return Ok(Provided {
                file: None,
                note: Some(format!("{listed} is not there, and is left out")),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(problem(
                "is not there, and the agent requires it".into(),
                "make the file, or write `required: false`",
            ));
        }
        Err(error) => {
            return Err(problem(
                format!("cannot be read: {error}"),
                "list a small file that this user may read; a directory is listed file by file",
            ));
        }
    };
    let file = |contents: Vec<u8>| HomeFile {
        target: credential.target.clone(),
        mode: 0o600,
        contents,
    };
    let replaced = |contents: String, what: &str| Provided {
        file: Some(file(contents.into_bytes())),
        note: Some(format!("{listed} is {what}; the agent gets a dummy of it")),
    };
    match kind(&source, &credential.target, &bytes) {
        Kind::Refused(refusal) => Err(problem(
            format!("{}, and is not given to an agent", refusal.what),
            refusal.hint,
        )),
        Kind::CodexApiKey => Ok(replaced(
            codex::api_key_login("sk-placeholder"),
            "a Codex login with an API key",
        )),
        Kind::CodexLogin => match Login::read(&source, setting.host.now) {
            Ok(login) => Ok(replaced(login.dummy().as_str().into(), "a Codex login")),
            Err(error) if credential.required => Err(problem(
                format!("is a Codex login of no use: {error}"),
                error.hint(),
            )),
            Err(error) => Ok(Provided {
                file: None,
                note: Some(format!("{listed} is left out: {error}")),
            }),
        },
        Kind::Other => Ok(Provided {
            note: Some(format!(
                "{listed} is copied to {}; the agent can read all of it",
                shown(&credential.target)
            )),
            file: Some(file(bytes.to_vec())),
        }),
    }
}

/// A name is judged on either side and behind the links, since one of them may tell what the others do not.
fn kind(source: &Path, target: &Path, bytes: &[u8]) -> Kind {
    let behind_links = source.canonicalize().ok();
    let names = [Some(source), behind_links.as_deref(), Some(target)];
    let by_contents = known::by_contents(bytes);
    if matches!(by_contents, Kind::CodexLogin | Kind::CodexApiKey) {
        return by_contents;
    }
    names
        .into_iter()
        .flatten()
        .find_map(known::by_name)
        .unwrap_or(by_contents)
}

fn named(source: &Path) -> String {
    source.display().to_string().escape_debug().to_string()
}

/// A file's bytes, of which there may be 1 MiB. Wiped on drop, since nobody knows yet what they are.
pub(super) fn read_bounded(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    const MOST: u64 = 1 << 20;
    // Without blocking, since a FIFO that nobody writes to would hold the launch for ever.
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let room = usize::try_from(metadata.len().min(MOST)).unwrap_or_default() + 64;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    Ok(bytes)
}
