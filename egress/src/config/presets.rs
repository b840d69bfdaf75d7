//! Routes that many bottles need, under a name: the fewest that a client or a package registry works with.
//!
//! They are written as a routes file is, so what `egress presets NAME` prints can be edited and pasted.

use std::path::Path;

use super::render;
use super::routes_file::parse;
use crate::route::Rule;

/// Routes under a name.
#[derive(Debug)]
pub struct Preset {
    /// What a manifest calls it by.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Its forms, the usual one first; each has a credential of another scheme.
    pub forms: &'static [Form],
}

/// Routes for one kind of credential.
#[derive(Debug)]
pub struct Form {
    /// What `scheme` of `auth` asks for it; `None` where no credential is taken.
    pub scheme: Option<&'static str>,
    /// The text of a routes file. Its one slot is [`SLOT`].
    pub routes: &'static str,
}

/// The slot in the presets' texts.
pub const SLOT: &str = "EGRESS_TOKEN_0";

/// All presets.
pub static ALL: &[Preset] = &[
    Preset {
        name: "codex",
        about: "Codex with a ChatGPT login, which `forward_host_credentials: true` adds; no telemetry",
        forms: &[Form {
            scheme: None,
            routes: CODEX,
        }],
    },
    Preset {
        name: "claude",
        about: "Claude Code, with a login (Bearer) or an API key (raw); no telemetry",
        forms: &[
            Form {
                scheme: Some("Bearer"),
                routes: CLAUDE_LOGIN,
            },
            Form {
                scheme: Some("raw"),
                routes: CLAUDE_KEY,
            },
        ],
    },
    Preset {
        name: "gemini",
        about: "The Gemini command line with an API key; no telemetry",
        forms: &[Form {
            scheme: Some("raw"),
            routes: GEMINI,
        }],
    },
    Preset {
        name: "opencode",
        about: "opencode with an Anthropic API key, its list of models and its packages",
        forms: &[Form {
            scheme: Some("raw"),
            routes: OPENCODE,
        }],
    },
    Preset {
        name: "github-read",
        about: "GitHub to read from: its REST API, and git clone and fetch",
        forms: &[Form {
            scheme: Some("Bearer"),
            routes: GITHUB_READ,
        }],
    },
    Preset {
        name: "npm",
        about: "npm's registry to read from, scoped packages too",
        forms: &[Form {
            scheme: None,
            routes: NPM,
        }],
    },
    Preset {
        name: "pypi",
        about: "PyPI to read from",
        forms: &[Form {
            scheme: None,
            routes: PYPI,
        }],
    },
    Preset {
        name: "crates",
        about: "crates.io to read from, by its sparse index",
        forms: &[Form {
            scheme: None,
            routes: CRATES,
        }],
    },
    Preset {
        name: "mise",
        about: "mise's lists of versions, and tools that are released on GitHub",
        forms: &[Form {
            scheme: Some("Bearer"),
            routes: MISE,
        }],
    },
];

/// The preset of a name.
pub fn find(name: &str) -> Option<&'static Preset> {
    ALL.iter().find(|preset| preset.name == name)
}

/// Every name.
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|preset| preset.name).collect()
}

impl Preset {
    /// The form for a scheme of `auth`, or the usual one.
    pub fn form(&self, scheme: Option<&str>) -> Option<&'static Form> {
        match scheme {
            None => self.forms.first(),
            Some(_) => self.forms.iter().find(|form| form.scheme == scheme),
        }
    }

    /// The schemes that it takes a credential with.
    pub fn schemes(&self) -> impl Iterator<Item = &'static str> {
        self.forms.iter().filter_map(|form| form.scheme)
    }
}

impl Form {
    /// The rules.
    pub fn rules(&self) -> Vec<Rule> {
        let rules = parse("preset", self.routes, Path::new("/"));
        let rules = rules.expect("every preset is read by a test");
        rules.into_iter().map(|(rule, _)| rule).collect()
    }

    /// The routes, as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        let rules = self.rules();
        rules.iter().map(render::json).collect()
    }
}

// The most of a good session. Analytics, and `ab.chatgpt.com`, stay out. The API's host is named because a forwarded login
// would be given to all of it otherwise.
const CODEX: &str = "\
routes:
  - host: chatgpt.com
    description: 'codex: the model, and connected tools'
    path_allowlist: [/backend-api/codex/responses, /backend-api/ps/mcp]
    methods: [GET, POST]
  - host: chatgpt.com
    description: 'codex: account, models, plugins, settings'
    path_allowlist:
      - /backend-api/wham/accounts/check
      - /backend-api/wham/settings/user
      - /backend-api/codex/models
      - /backend-api/ps/plugins
    methods: [GET]
  - host: api.openai.com
    description: 'codex: the API'
    path_allowlist: [/v1/responses]
    methods: [GET, POST]
";

const CLAUDE_LOGIN: &str = "\
routes:
  - host: api.anthropic.com
    description: 'claude: the model'
    path_allowlist: [/v1/messages]
    methods: [POST]
    auth_scheme: Bearer
    token_env: EGRESS_TOKEN_0
  - host: api.anthropic.com
    description: 'claude: models and account'
    path_allowlist: [/v1/models, /api/oauth/profile, /api/oauth/usage]
    methods: [GET]
    auth_scheme: Bearer
    token_env: EGRESS_TOKEN_0
";

const CLAUDE_KEY: &str = "\
routes:
  - host: api.anthropic.com
    description: 'claude: the model'
    path_allowlist: [/v1/messages]
    methods: [POST]
    auth_scheme: raw
    auth_header: x-api-key
    token_env: EGRESS_TOKEN_0
  - host: api.anthropic.com
    description: 'claude: models'
    path_allowlist: [/v1/models]
    methods: [GET]
    auth_scheme: raw
    auth_header: x-api-key
    token_env: EGRESS_TOKEN_0
";

const GEMINI: &str = "\
routes:
  - host: generativelanguage.googleapis.com
    description: 'gemini: the model'
    path_allowlist: [/v1beta/models]
    methods: [GET, POST]
    auth_scheme: raw
    auth_header: x-goog-api-key
    token_env: EGRESS_TOKEN_0
";

const OPENCODE: &str = "\
routes:
  - host: api.anthropic.com
    description: 'opencode: the model'
    path_allowlist: [/v1/messages]
    methods: [POST]
    auth_scheme: raw
    auth_header: x-api-key
    token_env: EGRESS_TOKEN_0
  - host: models.opencode.ai
    description: 'opencode: list of models'
    methods: [GET, HEAD]
  - host: registry.npmjs.org
    description: 'npm: packages'
    methods: [GET, HEAD]
    encoded_slash: true
";

const GITHUB_READ: &str = "\
routes:
  - host: api.github.com
    description: 'github-read: REST API'
    methods: [GET, HEAD]
    auth_scheme: Bearer
    token_env: EGRESS_TOKEN_0
  - host: github.com
    description: 'github-read: git fetch, the references'
    path_allowlist: [{regex: '^/[^/]+/[^/]+/info/refs$'}]
    methods: [GET]
    query: {service: git-upload-pack}
    auth_scheme: Basic
    auth_user: x-access-token
    token_env: EGRESS_TOKEN_0
  - host: github.com
    description: 'github-read: git fetch, the pack'
    path_allowlist: [{regex: '^/[^/]+/[^/]+/git-upload-pack$'}]
    methods: [POST]
    auth_scheme: Basic
    auth_user: x-access-token
    token_env: EGRESS_TOKEN_0
";

const NPM: &str = "\
routes:
  - host: registry.npmjs.org
    description: 'npm: packages'
    methods: [GET, HEAD]
    encoded_slash: true
";

const PYPI: &str = "\
routes:
  - host: pypi.org
    description: 'pypi: the index'
    path_allowlist: [/simple, /pypi]
    methods: [GET, HEAD]
  - host: files.pythonhosted.org
    description: 'pypi: packages'
    path_allowlist: [/packages]
    methods: [GET, HEAD]
";

const CRATES: &str = "\
routes:
  - host: index.crates.io
    description: 'crates: the index'
    methods: [GET, HEAD]
  - host: static.crates.io
    description: 'crates: packages'
    path_allowlist: [/crates]
    methods: [GET, HEAD]
";

const MISE: &str = "\
routes:
  - host: mise-versions.jdx.dev
    description: 'mise: versions of tools'
    methods: [GET, HEAD]
  - host: mise.jdx.dev
    description: 'mise: its own version'
    methods: [GET, HEAD]
  - host: api.github.com
    description: 'mise: releases'
    path_allowlist:
      - {regex: '^/repos/[^/]+/[^/]+/releases(/.*)?$'}
      - {regex: '^/repos/[^/]+/[^/]+/attestations/.+$'}
    methods: [GET, HEAD]
    auth_scheme: Bearer
    token_env: EGRESS_TOKEN_0
  - host: github.com
    description: 'mise: downloads'
    path_allowlist: [{regex: '^/[^/]+/[^/]+/releases/download/.+$'}]
    methods: [GET, HEAD]
  - host: release-assets.githubusercontent.com
    description: 'mise: downloads'
    methods: [GET, HEAD]
  - host: nodejs.org
    description: 'mise: Node'
    path_allowlist: [/dist]
    methods: [GET, HEAD]
";
