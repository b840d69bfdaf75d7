//! The presets, as routes files. A credential's slot is `EGRESS_TOKEN_0`.

/// The most of a good session. Analytics, and `ab.chatgpt.com`, stay out. The API's host is named because a forwarded login
/// would be given to all of it otherwise. The cookies are those by which Cloudflare knows a client again.
pub(super) const CODEX: &str = "\
routes:
  - host: chatgpt.com
    description: 'codex: the model, and connected tools'
    path_allowlist: [/backend-api/codex/responses, /backend-api/ps/mcp]
    methods: [GET, POST]
    cookies: [__cf_bm, _cfuvid, cf_clearance]
  - host: chatgpt.com
    description: 'codex: account, models, plugins, settings'
    path_allowlist:
      - /backend-api/wham/accounts/check
      - /backend-api/wham/settings/user
      - /backend-api/codex/models
      - /backend-api/ps/plugins
    methods: [GET]
    cookies: [__cf_bm, _cfuvid, cf_clearance]
  - host: api.openai.com
    description: 'codex: the API'
    path_allowlist: [/v1/responses]
    methods: [GET, POST]
    cookies: [__cf_bm, _cfuvid, cf_clearance]
";

/// With `CLAUDE_CODE_OAUTH_TOKEN`.
pub(super) const CLAUDE_LOGIN: &str = "\
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

/// With `ANTHROPIC_API_KEY`.
pub(super) const CLAUDE_KEY: &str = "\
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

/// With `GEMINI_API_KEY`.
pub(super) const GEMINI: &str = "\
routes:
  - host: generativelanguage.googleapis.com
    description: 'gemini: the model'
    path_allowlist: [/v1beta/models]
    methods: [GET, POST]
    auth_scheme: raw
    auth_header: x-goog-api-key
    token_env: EGRESS_TOKEN_0
";

/// With `ANTHROPIC_API_KEY`; its packages come from npm.
pub(super) const OPENCODE: &str = "\
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

/// GraphQL stays out: its reads and its writes look alike.
pub(super) const GITHUB_READ: &str = "\
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

/// Scoped packages are asked for as `/@scope%2fname`.
pub(super) const NPM: &str = "\
routes:
  - host: registry.npmjs.org
    description: 'npm: packages'
    methods: [GET, HEAD]
    encoded_slash: true
";

/// The index, as pages and as JSON, and the packages.
pub(super) const PYPI: &str = "\
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

/// The index says where packages are: at `static.crates.io`.
pub(super) const CRATES: &str = "\
routes:
  - host: index.crates.io
    description: 'crates: the index'
    methods: [GET, HEAD]
  - host: static.crates.io
    description: 'crates: packages'
    path_allowlist: [/crates]
    methods: [GET, HEAD]
";

/// Downloads are redirected from `github.com` to the host of assets.
pub(super) const MISE: &str = "\
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
