//! The host's Codex login as a launch uses it: one reading of the file gives both the token for the sidecar and the
//! dummy for the agent, so that the two always belong together.
//!
//! The refresh token is neither kept nor redeemed.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Host;
use crate::credential::Secret;
use crate::credential::codex::dummy::{Dummy, Leak};
use crate::credential::codex::{self, HostFile, NoHome};
use crate::credential::jwt::Expiry;

/// A login that was good when it was read.
#[derive(Clone, Debug)]
pub struct Login {
    path: PathBuf,
    token: Secret,
    expiry: Expiry,
    dummy: Dummy,
    warning: Option<&'static str>,
}

impl Login {
    /// Reads the login from where Codex keeps it.
    ///
    /// # Errors
    ///
    /// [`NoLogin`] where there is none that a sandbox can be served with.
    pub fn find(host: &Host<'_>) -> Result<Self, NoLogin> {
        Self::read(&codex::locate(host.env)?, host.now)
    }

    /// Reads the login from a file, as it is at `now`.
    ///
    /// # Errors
    ///
    /// As [`Login::find`].
    pub fn read(path: &Path, now: SystemTime) -> Result<Self, NoLogin> {
        let file = HostFile::read(path)?;
        let login = file.login(now)?;
        Ok(Self {
            path: path.to_owned(),
            token: login.access_token().clone(),
            expiry: login.expiry(),
            dummy: Dummy::build(file.document(), login.expiry())?,
            warning: login.mode().warning(),
        })
    }

    /// The file that it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The access token, for the sidecar.
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// When the access token ends.
    pub fn expiry(&self) -> Expiry {
        self.expiry
    }

    /// The `auth.json` for the agent.
    pub fn dummy(&self) -> &Dummy {
        &self.dummy
    }

    /// What the operator should hear about it.
    pub fn warning(&self) -> Option<&'static str> {
        self.warning
    }
}

/// Why there is no login to use.
#[derive(Debug, thiserror::Error)]
pub enum NoLogin {
    /// It cannot be located.
    #[error(transparent)]
    NoHome(#[from] NoHome),
    /// The file is of no use.
    #[error(transparent)]
    File(#[from] codex::Error),
    /// No dummy can be made of it.
    #[error(transparent)]
    Leak(#[from] Leak),
}

impl NoLogin {
    /// A stable name of the state, for programs and for telling it once.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoHome(_) => "no_home",
            Self::File(error) => error.problem().code(),
            Self::Leak(_) => "leak",
        }
    }

    /// What the operator can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoHome(_) => "set HOME or CODEX_HOME",
            Self::File(error) => error.hint(),
            Self::Leak(_) => {
                "a field that the dummy keeps repeats a secret; log in anew with `codex login --device-auth`"
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;
    use std::time::SystemTime;

    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use serde_json::json;

    use crate::credential::unix_seconds;

    /// A login that Codex could have written, whose access token ends in `left` seconds. The token is returned.
    pub(in crate::launch) fn login(left: i64, mark: &str) -> (String, String) {
        let exp = unix_seconds(SystemTime::now()).saturating_add_signed(left);
        let token = |kind: &str| {
            let claims = json!({"exp": exp, "sub": format!("user-{kind}-{mark}")});
            let payload = BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
            format!("eyJhbGciOiJSUzI1NiJ9.{payload}.signature-{kind}-{mark}")
        };
        let login = json!({
            "auth_mode": "chatgpt",
            "OPENAI_API_KEY": null,
            "tokens": {
                "id_token": token("id"),
                "access_token": token("access"),
                "refresh_token": format!("rt_refresh-{mark}"),
                "account_id": "acc-0123456789",
            },
            "last_refresh": "2026-11-01T00:00:00Z",
        });
        (login.to_string(), token("access"))
    }

    /// Writes such a login in one step, as Codex does.
    pub(in crate::launch) fn write_login(path: &Path, left: i64, mark: &str) -> String {
        let (login, token) = login(left, mark);
        let staged = path.with_extension("new");
        std::fs::write(&staged, login).unwrap();
        std::fs::rename(staged, path).unwrap();
        token
    }
}
