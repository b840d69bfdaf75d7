//! References to credentials: where the host has them. A reference is resolved at launch, and never here.

use std::fmt;
use std::path::{Path, PathBuf};

use super::TokenRef;
use crate::config::pasted;

/// The reference that stands for the host's Codex login.
const CODEX_HOST: &str = "BOT_BOTTLE_CODEX_HOST_ACCESS_TOKEN";

impl TokenRef {
    /// Reads a reference: a variable's name, `file:PATH`, `cmd:PROGRAM ARGUMENT...`, or the name that stands for the
    /// host's Codex login. `locate` says what a relative path is relative to; a path that begins with `~/` is left as it
    /// is.
    ///
    /// A program's arguments are split and quoted as a POSIX shell would (`shlex`), but no shell is run: `$X`, `*` and `~`
    /// are what they are.
    ///
    /// # Errors
    ///
    /// [`InvalidTokenRef`], which never repeats the text: it may be a token.
    pub(in crate::config) fn parse(
        text: &str,
        locate: impl FnOnce(&str) -> PathBuf,
    ) -> Result<Self, InvalidTokenRef> {
        if text == CODEX_HOST {
            return Ok(Self::CodexHost);
        }
        if let Some(path) = text.strip_prefix("file:") {
            return match path {
                "" => Err(InvalidTokenRef::NoPath),
                path if path.contains('\0') => Err(InvalidTokenRef::NoPath),
                home if home.starts_with("~/") => Ok(Self::File(home.into())),
                path => Ok(Self::File(locate(path))),
            };
        }
        if let Some(line) = text.strip_prefix("cmd:") {
            return command(line);
        }
        let letters = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if text.is_empty() || !letters || text.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(InvalidTokenRef::NoVariable);
        }
        if is_token(text) {
            return Err(InvalidTokenRef::Token);
        }
        Ok(Self::Variable(text.to_owned()))
    }
}

fn command(line: &str) -> Result<TokenRef, InvalidTokenRef> {
    let words = shlex::split(line).ok_or(InvalidTokenRef::Quotes)?;
    match words.first() {
        Some(program) if !program.is_empty() => {}
        _ => return Err(InvalidTokenRef::NoProgram),
    }
    if words.iter().any(|word| word.contains('\0')) {
        return Err(InvalidTokenRef::NoProgram);
    }
    // Handed to the program as arguments, these would do something else than what they look like.
    let operators = ["|", "||", "&", "&&", ";", "<", ">", ">>", "2>", "2>&1"];
    if words.iter().any(|word| operators.contains(&word.as_str())) {
        return Err(InvalidTokenRef::Operator);
    }
    Ok(TokenRef::Command(words))
}

/// Whether a name is a token of a well-known issuer, or looks like one: some tokens are spelt as a variable might be.
fn is_token(text: &str) -> bool {
    let issuers = [
        "ghp_",
        "gho_",
        "ghu_",
        "ghs_",
        "ghr_",
        "github_pat_",
        "npm_",
        "sk_live_",
    ];
    let issued = issuers.iter().find_map(|issuer| text.strip_prefix(issuer));
    issued.is_some_and(|rest| rest.len() >= 20) || pasted::is_token(text)
}

/// The text that is read back as the same reference.
impl fmt::Display for TokenRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => f.write_str(name),
            Self::File(path) => write!(f, "file:{}", Path::display(path)),
            Self::Command(words) => {
                // Words with NUL, which alone cannot be quoted, are refused above.
                let line = shlex::try_join(words.iter().map(String::as_str));
                write!(f, "cmd:{}", line.unwrap_or_default())
            }
            Self::CodexHost => f.write_str(CODEX_HOST),
        }
    }
}

/// Why a text is no reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::config) enum InvalidTokenRef {
    /// A byte that no variable's name has.
    #[error("`token_ref` is neither a variable's name nor `file:` or `cmd:`")]
    NoVariable,
    /// What GitHub or npm hands out.
    #[error("`token_ref` looks like a token itself")]
    Token,
    /// Nothing behind `file:`.
    #[error("`file:` without a path")]
    NoPath,
    /// Nothing behind `cmd:`.
    #[error("`cmd:` without a program")]
    NoProgram,
    /// An open quote, or a backslash at the end.
    #[error("the quotes in `cmd:` are not closed")]
    Quotes,
    /// `|` and the like.
    #[error("`cmd:` with a shell's operator, which would reach the program as an argument")]
    Operator,
}

impl InvalidTokenRef {
    /// How to mend it.
    pub(in crate::config) fn hint(self) -> &'static str {
        match self {
            Self::NoVariable | Self::Token => {
                "name where the host has the token: GH_PAT (a variable), `file:PATH` or `cmd:PROGRAM ARGUMENT...`; the token itself never stands in this file"
            }
            Self::NoPath => "write `file:/run/secrets/token`",
            Self::NoProgram => "write `cmd:pass show github`",
            Self::Quotes => "close the quote; an argument with blanks is written 'in quotes'",
            Self::Operator => "no shell is run; ask for one with `cmd:sh -c '...'`",
        }
    }
}
