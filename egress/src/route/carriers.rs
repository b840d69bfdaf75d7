//! The names under which clients send credentials, in headers and in queries. Pure.
//!
//! Servers differ in how they spell a name, so names are compared as [`folded`] writes them, and always whole: much that
//! only ends in `key` or `token` is none, such as `idempotency-key` and `x-csrf-token`.

/// What is a credential both as a header and as a parameter.
const BOTH: [&str; 19] = [
    // OAuth (RFC 6750, section 2.3; RFC 6749, sections 2.3.1, 4.3.2 and 6).
    "accesstoken",
    "clientsecret",
    "refreshtoken",
    "idtoken",
    "oauthtoken",
    // Google's API keys (cloud.google.com/docs/authentication/api-keys-use), and what other APIs call theirs.
    "key",
    "apikey",
    "accesskey",
    "subscriptionkey",
    // GitLab (docs.gitlab.com/api/rest/authentication).
    "privatetoken",
    "jobtoken",
    "feedtoken",
    // Slack's, Firebase's, CircleCI's, Atlassian's and the like.
    "token",
    "apitoken",
    "authtoken",
    "circletoken",
    "auth",
    "authorization",
    "jwt",
];

/// Parameters alone.
const PARAMETERS: [&str; 13] = [
    // RFC 5849, section 3.5.3.
    "oauthsignature",
    // What servers map from a parameter to the header of the same name.
    "xapikey",
    "xgoogapikey",
    // Signed requests: Amazon's (AWS Signature, versions 2 and 4), Google's and Azure's.
    "signature",
    "sig",
    "awsaccesskeyid",
    "xamzcredential",
    "xamzsignature",
    "xamzsecuritytoken",
    "googleaccessid",
    "xgoogcredential",
    "xgoogsignature",
    "xgoogsecuritytoken",
];

/// Headers alone, without the `x` that may be before them.
const HEADERS: [&str; 36] = [
    "proxyauthorization",
    "authkey",
    "secretkey",
    "secrettoken",
    "sessiontoken",
    "securitytoken",
    "usertoken",
    // GitLab, GitHub, Figma, HashiCorp (Vault, Consul, Nomad).
    "deploytoken",
    "gitlabtoken",
    "githubtoken",
    "figmatoken",
    "vaulttoken",
    "consultoken",
    "nomadtoken",
    // Amazon, Google (Cloud Run and IAM), Azure (API Management, Functions, Storage).
    "amzsecuritytoken",
    "googapikey",
    "googiamauthorizationtoken",
    "serverlessauthorization",
    "ocpapimsubscriptionkey",
    "functionskey",
    "msauthorizationauxiliary",
    // Cloudflare: the account's key, Access, and what its origin is told.
    "authuserservicekey",
    "cfaccessclientid",
    "cfaccessclientsecret",
    "cfaccesstoken",
    "cfaccessjwtassertion",
    // Datadog, Shopify, RapidAPI, Algolia, NuGet, Artifactory, Octopus, Plex, New Relic, Honeycomb.
    "ddapikey",
    "ddapplicationkey",
    "shopifyaccesstoken",
    "rapidapikey",
    "algoliaapikey",
    "nugetapikey",
    "jfrogartapi",
    "octopusapikey",
    "plextoken",
    "honeycombteam",
];

/// No name of a header is longer, an `x` before it counted.
const LONGEST: usize = 32;

/// Whether a parameter of this name, as [`folded`] writes it, carries a credential.
pub(super) fn is_parameter(folded: &str) -> bool {
    BOTH.contains(&folded) || PARAMETERS.contains(&folded)
}

/// Whether a header of this name carries a credential. Every header of every request is asked about, so nothing is allocated.
pub fn is_header(name: &str) -> bool {
    let mut folded = [0; LONGEST];
    let mut length = 0;
    for byte in letters(name) {
        let Some(place) = folded.get_mut(length) else {
            return false;
        };
        *place = byte;
        length += 1;
    }
    let folded = folded.get(..length).unwrap_or_default();
    let base = folded.strip_prefix(b"x").unwrap_or(folded);
    let mut known = BOTH.iter().chain(&HEADERS);
    known.any(|known| known.as_bytes() == base)
}

/// Whether two headers' names are one to a server that does not tell their spellings apart.
pub fn is_same(name: &str, other: &str) -> bool {
    letters(name).eq(letters(other))
}

/// The same as [`folded`], of what is ASCII.
fn letters(name: &str) -> impl Iterator<Item = u8> {
    let letters = name.bytes().filter(u8::is_ascii_alphanumeric);
    letters.map(|byte| byte.to_ascii_lowercase())
}

/// Whether an item of `Sec-WebSocket-Protocol` carries a credential within itself: where a browser can set no header, it
/// goes here, as in `openai-insecure-api-key.sk-...` and `base64url.bearer.authorization.k8s.io.TOKEN`.
pub fn is_within(item: &[u8]) -> bool {
    let folded = folded(item);
    ["apikey", "bearer", "authorization", "accesstoken"]
        .iter()
        .any(|word| folded.contains(word))
}

/// Whether an item of `Sec-WebSocket-Protocol` says that the one after it is a credential, as in `token, VALUE`.
pub fn announces(item: &[u8]) -> bool {
    let item = folded(item);
    is_header(&item) || ["bearer", "basic"].contains(&item.as_str())
}

/// A name without regard to case, and with nothing left but letters and digits: `-`, `_` and `.` are alike to many servers
/// (PHP makes a `_` of blanks, dots and brackets), and a `+` or blank at an end is often cut off.
pub fn folded(name: &[u8]) -> String {
    if let Some(ascii) = std::str::from_utf8(name)
        .ok()
        .filter(|name| name.is_ascii())
    {
        return letters(ascii).map(char::from).collect();
    }
    let text = String::from_utf8_lossy(name);
    // Upper case first: there are letters beyond ASCII whose upper or lower case is within it.
    text.chars()
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .filter(char::is_ascii_alphanumeric)
        .collect()
}

/// All parameters that carry credentials, as [`folded`] writes them.
#[cfg(test)]
pub(super) fn parameters() -> Vec<&'static str> {
    BOTH.into_iter().chain(PARAMETERS).collect()
}

#[cfg(test)]
mod tests {
    use super::{HEADERS, LONGEST, announces, folded, is_header, is_same, is_within, parameters};

    #[test]
    fn the_lists_are_written_as_names_are_compared() {
        for name in parameters().into_iter().chain(HEADERS) {
            assert_eq!(folded(name.as_bytes()), name);
            assert!(name.len() < LONGEST && is_same(name, name));
        }
    }

    #[test]
    fn headers_with_which_clients_identify_themselves_are_known_however_they_are_spelt() {
        for name in [
            "authorization",
            "x-authorization",
            "Proxy-Authorization",
            "X-API-Key",
            "x.api.key",
            "xapikey",
            "api-key",
            "apikey",
            "x-api-token",
            "x-goog-api-key",
            "x-goog-iam-authorization-token",
            "private-token",
            "x-private-token",
            "job-token",
            "deploy-token",
            "x-gitlab-token",
            "x-auth-token",
            "x-auth-key",
            "x-access-token",
            "ocp-apim-subscription-key",
            "x-functions-key",
            "x-amz-security-token",
            "x-figma-token",
            "circle-token",
            "x-vault-token",
            "cf-access-client-secret",
            "dd-api-key",
        ] {
            assert!(is_header(name), "{name}");
        }
    }

    #[test]
    fn what_clients_send_beside_their_credential_is_none() {
        for name in [
            "accept",
            "anthropic-beta",
            "anthropic-version",
            "anthropic-dangerous-direct-browser-access",
            "chatgpt-account-id",
            "content-type",
            "cookie",
            "git-protocol",
            "idempotency-key",
            "npm-auth-type",
            "npm-command",
            "openai-beta",
            "openai-organization",
            "openai-project",
            "originator",
            "sec-websocket-key",
            "session-id",
            "x-amz-content-sha256",
            "x-amz-date",
            "x-app",
            "x-client-request-id",
            "x-codex-turn-metadata",
            "x-codex-turn-state",
            "x-csrf-token",
            "x-github-api-version",
            "x-goog-api-client",
            "x-goog-user-project",
            "x-openai-subagent",
            "x-request-id",
            "x-stainless-lang",
            "x-stainless-retry-count",
        ] {
            assert!(!is_header(name), "{name}");
        }
    }

    #[test]
    fn a_websockets_offer_tells_credentials_from_protocols() {
        for item in [
            "openai-insecure-api-key.sk-x",
            "base64url.bearer.authorization.k8s.io.eA",
            "access_token.x",
            "Bearer",
        ] {
            assert!(is_within(item.as_bytes()), "{item}");
        }
        for item in ["token", "Bearer", "authorization", "basic", "access_token"] {
            assert!(announces(item.as_bytes()), "{item}");
        }
        for item in [
            "realtime",
            "openai-beta.realtime-v1",
            "graphql-transport-ws",
            "v4.channel.k8s.io",
            "vite-hmr",
            "mqtt",
        ] {
            let item = item.as_bytes();
            assert!(!is_within(item) && !announces(item), "{item:?}");
        }
    }
}
