//! opencode. It needs no file: with a placeholder for a provider's key, its screen starts at the prompt (tried with
//! 1.18.33). Nothing of the host's is copied: its `auth.json` holds the keys of every provider.

use super::{Agent, words};

pub(super) fn agent() -> Agent {
    Agent {
        name: "opencode".into(),
        command: words(["opencode"]),
        test: Some(words(["opencode", "--version"])),
        install: Some(words(["npm", "install", "-g", "opencode-ai"])),
        environment: vec![("OPENCODE_DISABLE_AUTOUPDATE".into(), "1".into())],
        ..Agent::default()
    }
}
