//! Each way in which a file can be wrong, alone: one fault, in its place, with its key.

use super::faults;

/// A file (or keys of a route), and its one fault: line, column, key, a part of the problem.
type Case = (&'static str, u32, u32, Option<&'static str>, &'static str);

/// Faults of the file and of its form.
#[rustfmt::skip] // One case a line.
const FILES: &[Case] = &[
    ("x: 1\nroutes: []", 1, 1, Some("x"), "unknown key `x`"),
    ("routs: []", 1, 1, Some("routs"), "unknown key `routs`"),
    ("routes: []\nroutes: []", 2, 1, Some("routes"), "given twice"),
    ("routes:", 1, 1, Some("routes"), "no value"),
    ("routes: null", 1, 1, Some("routes"), "no value"),
    ("routes: {}", 1, 9, Some("routes"), "must be a list, and is a map"),
    ("routes: all", 1, 9, Some("routes"), "must be a list, and is a text"),
    ("{}", 1, 1, Some("routes"), "has no `routes`"),
    ("- host: a.test", 1, 1, Some("routes"), "is a list"),
    ("everything", 1, 1, Some("routes"), "is a text"),
    ("routes:\n  - a.test", 2, 5, Some("routes"), "must be a map"),
    ("routes:\n  - [a.test]", 2, 5, Some("routes"), "must be a map"),
    ("routes:\n  -", 2, 4, Some("routes"), "must be a map"),
    ("routes: [", 1, 9, None, "not valid YAML"),
    ("routes:\n\t- host: a.test", 2, 2, None, "not valid YAML"),
    ("routes:\n  - host: 'a.test", 2, 11, None, "not valid YAML: unclosed quote"),
    ("routes:\n  - host: a.test\n   port: 1", 3, 4, None, "not valid YAML"),
    ("%YAML 1.2\n---\nroutes: []", 1, 1, None, "directives are not supported"),
    ("routes: []\n---\nroutes: []", 2, 1, None, "a second document"),
    ("routes: &all []", 1, 9, None, "anchors are not supported"),
    ("routes:\n  - host: *name", 2, 11, None, "aliases are not supported"),
    ("routes: !!seq []", 1, 9, None, "tags are not supported"),
    ("routes:\n  - host: !!str a.test", 2, 11, None, "tags are not supported"),
    ("routes:\n  - host: a.test\n    <<: {port: 1}", 3, 5, Some("<<"), "merge keys are not supported"),
    ("routes:\n  - host: a.test\n    [a]: b", 3, 5, None, "cannot be a key"),
    ("routes: [[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]", 1, 25, None, "nest deeper than 16"),
];

/// Faults of one route, whose host is right. The keys begin in line 3, column 5.
#[rustfmt::skip] // One case a line.
const KEYS: &[Case] = &[
    ("hots: b.test", 3, 5, Some("hots"), "unknown key `hots`"),
    ("host: b.test", 3, 5, Some("host"), "`host` is given twice"),
    ("role: claude_code_oauth", 3, 5, Some("role"), "unknown key"),
    // Paths.
    ("path_allowlist:", 3, 5, Some("path_allowlist"), "no value"),
    ("path_allowlist: []", 3, 21, Some("path_allowlist"), "an empty list"),
    ("path_allowlist: /v1/", 3, 21, Some("path_allowlist"), "must be a list, and is a text"),
    ("path_allowlist: {regex: /a}", 3, 21, Some("path_allowlist"), "must be a list, and is a map"),
    ("path_allowlist: [v1/]", 3, 22, Some("path_allowlist"), "begins with `/`"),
    ("path_allowlist: ['']", 3, 22, Some("path_allowlist"), "begins with `/`"),
    ("path_allowlist: [/a?b=c]", 3, 22, Some("path_allowlist"), "no query"),
    ("path_allowlist: [/a/../b]", 3, 22, Some("path_allowlist"), "a dot segment"),
    ("path_allowlist: [/a//b]", 3, 22, Some("path_allowlist"), "an empty segment"),
    ("path_allowlist: [/a%2Fb]", 3, 22, Some("path_allowlist"), "an encoded slash is refused"),
    ("path_allowlist: [/a, /b, /a]", 3, 30, Some("path_allowlist"), "`/a` stands twice"),
    ("path_allowlist: [1]", 3, 22, Some("path_allowlist"), "`1` is a number"),
    ("path_allowlist: [[/a]]", 3, 22, Some("path_allowlist"), "must be a text, and is a list"),
    ("path_allowlist: [~]", 3, 22, Some("path_allowlist"), "no value"),
    ("path_allowlist: [{regex: '/a('}]", 3, 30, Some("regex"), "does not compile"),
    (r"path_allowlist: [{regex: '/\p{L}'}]", 3, 30, Some("regex"), "has a class of Unicode's"),
    ("path_allowlist: [{regex: 'a/.*'}]", 3, 30, Some("regex"), "can match no path"),
    ("path_allowlist: [{regx: '/a'}]", 3, 23, Some("regx"), "unknown key `regx`"),
    ("path_allowlist: [{}]", 3, 22, Some("path_allowlist"), "has no `regex`"),
    ("path_allowlist: [{regex: [a]}]", 3, 30, Some("regex"), "must be a text"),
    // Methods.
    ("methods: []", 3, 14, Some("methods"), "an empty list"),
    ("methods: GET", 3, 14, Some("methods"), "must be a list"),
    ("methods: [get]", 3, 15, Some("methods"), "not in upper case"),
    ("methods: [GET, TRACE]", 3, 20, Some("methods"), "never allowed"),
    ("methods: [CONNECT]", 3, 15, Some("methods"), "never allowed"),
    ("methods: ['GE T']", 3, 15, Some("methods"), "not a method"),
    ("methods: ['']", 3, 15, Some("methods"), "not a method"),
    ("methods: [GET, GET]", 3, 20, Some("methods"), "`GET` stands twice"),
    // Query.
    ("query: {}", 3, 12, Some("query"), "an empty map"),
    ("query: a=b", 3, 12, Some("query"), "must be a map"),
    ("query: [a]", 3, 12, Some("query"), "must be a map, and is a list"),
    ("query: {a: b, a: c}", 3, 19, Some("a"), "`a` is given twice"),
    ("query: {a: }", 3, 13, Some("query"), "`a` has no value"),
    ("query: {a: ~}", 3, 13, Some("query"), "`a` has no value"),
    ("query: {'': b}", 3, 13, Some("query"), "name is empty"),
    ("query: {a: [b]}", 3, 16, Some("query"), "must be a text, and is a list"),
    // Ports.
    ("port:", 3, 5, Some("port"), "no value"),
    ("port: 0", 3, 11, Some("port"), "`0` is not a port"),
    ("port: 0443", 3, 11, Some("port"), "`0443` is not a port"),
    ("port: 65536", 3, 11, Some("port"), "`65536` is not a port"),
    ("port: -1", 3, 11, Some("port"), "`-1` is not a port"),
    ("port: +1", 3, 11, Some("port"), "`+1` is not a port"),
    ("port: 0x1bb", 3, 11, Some("port"), "`0x1bb` is not a port"),
    ("port: 443.0", 3, 11, Some("port"), "`443.0` is not a port"),
    ("port: '443'", 3, 11, Some("port"), "must be a number, and is a text"),
    ("port: https", 3, 11, Some("port"), "`https` is not a port"),
    ("port: [443]", 3, 11, Some("port"), "and is a list"),
    // Words and flags.
    ("scheme: ftp", 3, 13, Some("scheme"), "unknown `scheme` `ftp`"),
    ("scheme: HTTPS", 3, 13, Some("scheme"), "unknown `scheme` `HTTPS`"),
    ("tls: off", 3, 10, Some("tls"), "unknown `tls` `off`"),
    ("tls: false", 3, 10, Some("tls"), "unknown `tls` `false`"),
    ("websocket: yes", 3, 16, Some("websocket"), "must be true or false"),
    ("websocket: True", 3, 16, Some("websocket"), "must be true or false"),
    ("websocket: 'false'", 3, 16, Some("websocket"), "must be true or false"),
    ("encoded_slash: 1", 3, 20, Some("encoded_slash"), "must be true or false"),
    ("encoded_slash:", 3, 5, Some("encoded_slash"), "no value"),
    ("insecure_inject: \"true\"", 3, 22, Some("insecure_inject"), "must be true or false"),
    ("insecure_inject: [true]", 3, 22, Some("insecure_inject"), "must be true or false, and is a list"),
    ("websocket_extensions: true", 3, 27, Some("websocket_extensions"), "unknown `websocket_extensions` `true`"),
    ("websocket_extensions: Drop", 3, 27, Some("websocket_extensions"), "unknown `websocket_extensions` `Drop`"),
    ("query_credentials: false", 3, 24, Some("query_credentials"), "unknown `query_credentials` `false`"),
    ("query_credentials: strip", 3, 24, Some("query_credentials"), "unknown `query_credentials` `strip`"),
    ("query_credentials:", 3, 5, Some("query_credentials"), "no value"),
    ("redact: mask", 3, 13, Some("redact"), "must be true or false"),
    ("redact: [true]", 3, 13, Some("redact"), "must be true or false, and is a list"),
    // Cookies.
    ("cookies:", 3, 5, Some("cookies"), "no value"),
    ("cookies: all", 3, 14, Some("cookies"), "must be a list"),
    ("cookies: {a: b}", 3, 14, Some("cookies"), "must be a list, and is a map"),
    ("cookies: [1]", 3, 15, Some("cookies"), "`1` is a number"),
    ("cookies: ['']", 3, 15, Some("cookies"), "it is empty"),
    ("cookies: ['+', 'a;b']", 3, 20, Some("cookies"), "`a;b` is not a cookie's name"),
    ("cookies: ['*']", 3, 15, Some("cookies"), "`*` is a pattern"),
    ("cookies: [a, _ga_*]", 3, 18, Some("cookies"), "`_ga_*` is a pattern"),
    ("cookies: true", 3, 14, Some("cookies"), "must be a list, and is a boolean"),
    ("query_credentials: true", 3, 24, Some("query_credentials"), "unknown `query_credentials` `true`"),
    ("query: {token: abc}\nauth_scheme: raw\ntoken_env: ONE", 3, 5, Some("query"), "no request meets `query`"),
    ("query: {x-own: abc}\nauth_scheme: raw\nauth_header: x-own\ntoken_env: ONE", 3, 5, Some("query"), "no request meets `query`"),
    ("query: {token: abc}\nquery_credentials: deny", 3, 5, Some("query"), "no request meets `query`"),
    ("cookies: [a, b, a]", 3, 21, Some("cookies"), "stands twice"),
    ("cookies: [a=secret]", 3, 15, Some("cookies"), "cannot hold `=`"),
    // Credentials.
    ("auth_scheme: Bearer", 3, 5, Some("auth_scheme"), "without `token_env`"),
    ("token_env: A", 3, 5, Some("token_env"), "without `auth_scheme`"),
    ("token_env: A\nauth_scheme: bearer", 4, 18, Some("auth_scheme"), "unknown `auth_scheme` `bearer`"),
    ("token_env: sk-1\nauth_scheme: Bearer", 3, 16, Some("token_env"), "not the name of an environment variable"),
    ("token_env: ''\nauth_scheme: Bearer", 3, 16, Some("token_env"), "not the name of an environment variable"),
    ("token_env: A_FILE\nauth_scheme: Bearer", 3, 16, Some("token_env"), "ends in `_FILE`"),
    ("token_env: A\nauth_scheme: Basic", 4, 18, Some("auth_scheme"), "without `auth_user`"),
    ("token_env: A\nauth_scheme: Basic\nauth_user: a:b", 5, 16, Some("auth_user"), "a colon"),
    ("token_env: A\nauth_scheme: Basic\nauth_user: \"a\\nb\"", 5, 16, Some("auth_user"), "control characters"),
    ("token_env: A\nauth_scheme: Basic\nauth_user: 7", 5, 16, Some("auth_user"), "`7` is a number"),
    ("token_env: A\nauth_scheme: Bearer\nauth_user: a", 5, 5, Some("auth_user"), "without `auth_scheme: Basic`"),
    ("auth_user: a", 3, 5, Some("auth_user"), "without `auth_scheme: Basic`"),
    ("auth_header: x-api-key", 3, 5, Some("auth_header"), "without a credential"),
    ("token_env: A\nauth_scheme: raw\nauth_header: 'x key'", 5, 18, Some("auth_header"), "not a header's name"),
    ("token_env: A\nauth_scheme: raw\nauth_header: Host", 5, 18, Some("auth_header"), "cannot carry a credential"),
    ("token_env: A\nauth_scheme: raw\nauth_header: Content-Length", 5, 18, Some("auth_header"), "cannot carry"),
    ("token_env: A\nauth_scheme: raw\nauth_header: cookie", 5, 18, Some("auth_header"), "cannot carry"),
    ("token_env: A\nauth_scheme: raw\nauth_header: keep-alive", 5, 18, Some("auth_header"), "cannot carry"),
    ("token_env: A\nauth_scheme: raw\nauth_header: proxy-authorization", 5, 18, Some("auth_header"), "cannot carry"),
    ("token_env: A\nauth_scheme: raw\nauth_header: X-Forwarded-For", 5, 18, Some("auth_header"), "cannot carry"),
    ("token_env: A\nauth_scheme: raw\nscheme: http", 3, 5, Some("token_env"), "in plain text"),
    ("token_env: A\nauth_scheme: raw\nscheme: http\ninsecure_inject: false", 3, 5, Some("token_env"), "in plain text"),
    // What a passthrough route cannot have.
    ("tls: passthrough\npath_allowlist: [/a]", 4, 5, Some("path_allowlist"), "no effect"),
    ("tls: passthrough\nmethods: [GET]", 4, 5, Some("methods"), "no effect"),
    ("tls: passthrough\nquery: {a: b}", 4, 5, Some("query"), "no effect"),
    ("tls: passthrough\nwebsocket: false", 4, 5, Some("websocket"), "no effect"),
    ("tls: passthrough\nencoded_slash: true", 4, 5, Some("encoded_slash"), "no effect"),
    ("tls: passthrough\nwebsocket_extensions: pass", 4, 5, Some("websocket_extensions"), "no effect"),
    ("tls: passthrough\ncookies: [a]", 4, 5, Some("cookies"), "no effect"),
    ("tls: passthrough\nquery_credentials: deny", 4, 5, Some("query_credentials"), "no effect"),
    ("tls: passthrough\nredact: true", 4, 5, Some("redact"), "no effect"),
    ("tls: passthrough\nscheme: http", 3, 10, Some("tls"), "with `scheme: http`"),
    // The network.
    ("ssrf_ip_allowlist: []", 3, 24, Some("ssrf_ip_allowlist"), "an empty list"),
    ("ssrf_ip_allowlist: 10.0.0.0/8", 3, 24, Some("ssrf_ip_allowlist"), "must be a list"),
    ("ssrf_ip_allowlist: [10.0.0.1/8]", 3, 25, Some("ssrf_ip_allowlist"), "bits set behind its prefix"),
    ("ssrf_ip_allowlist: [10.0.0.0/33]", 3, 25, Some("ssrf_ip_allowlist"), "not a network"),
    ("ssrf_ip_allowlist: [10.0.0/8]", 3, 25, Some("ssrf_ip_allowlist"), "not a network"),
    ("ssrf_ip_allowlist: [localhost]", 3, 25, Some("ssrf_ip_allowlist"), "not a network"),
    ("ssrf_ip_allowlist: ['fd00:0::/8']", 3, 25, Some("ssrf_ip_allowlist"), "canonical"),
    ("ssrf_ip_allowlist: [10.0.0.5, 10.0.0.5/32]", 3, 35, Some("ssrf_ip_allowlist"), "stands twice"),
    ("connect_to: b.test", 3, 17, Some("connect_to"), "has no port"),
    ("connect_to: 127.0.0.1", 3, 17, Some("connect_to"), "has no port"),
    ("connect_to: '[::1]'", 3, 17, Some("connect_to"), "has no port"),
    ("connect_to: b.test:0", 3, 17, Some("connect_to"), "cannot be dialled"),
    ("connect_to: http://b.test:80", 3, 17, Some("connect_to"), "cannot be dialled"),
    ("connect_to: u:p@b.test:80", 3, 17, Some("connect_to"), "a user part"),
    ("connect_to: 8080", 3, 17, Some("connect_to"), "is a number"),
    ("upstream_ca: ca.pem", 3, 18, Some("upstream_ca"), "cannot be read"),
    ("description:", 3, 5, Some("description"), "no value"),
    ("description: [a]", 3, 18, Some("description"), "must be a text"),
];

/// Hosts that are none. Each stands in line 2, column 11.
const HOSTS: &[(&str, &str)] = &[
    ("''", "the host is empty"),
    ("[a.test]", "must be a text, and is a list"),
    ("true", "`true` is a boolean"),
    ("1.5", "`1.5` is a number"),
    ("'*'", "`*` is not a host"),
    ("'*.com'", "at least two labels"),
    ("'a.*.test'", "letters, digits"),
    (".a.test", "1 to 63"),
    ("a.test.", "end with a dot"),
    ("a..test", "1 to 63"),
    ("a.test:443", "letters, digits"),
    ("a.test/v1", "letters, digits"),
    ("https://a.test", "letters, digits"),
    ("user@a.test", "a user part"),
    ("a test", "letters, digits"),
    ("bücher.example", "`xn--`"),
    ("0x7f.1", "canonical form"),
    ("127.1", "is a number"),
    ("127.0.1", "canonical form"),
    ("192.0.2.1", "over https"),
    ("'::1'", "over https"),
    ("'[2001:db8::1]'", "over https"),
];

#[test]
fn a_broken_file_has_its_one_fault_in_its_place() {
    for case in FILES {
        check(case.0, *case);
    }
}

#[test]
fn a_broken_key_has_its_one_fault_in_its_place() {
    for case in KEYS {
        let keys = case.0.replace('\n', "\n    ");
        check(&format!("routes:\n  - host: a.test\n    {keys}\n"), *case);
    }
}

#[test]
fn what_is_no_host_is_refused() {
    for (host, problem) in HOSTS {
        let text = format!("routes:\n  - host: {host}\n");
        check(&text, ("", 2, 11, Some("host"), problem));
    }
    check("routes:\n  - host:", ("", 2, 5, Some("host"), "no value"));
    check(
        "routes:\n  - port: 1",
        ("", 2, 5, Some("host"), "no `host`"),
    );
    check("routes:\n  - {}", ("", 2, 5, Some("host"), "no `host`"));
}

#[test]
fn an_empty_file_is_no_file_that_denies_everything() {
    for text in ["", "\n", "# nothing\n", "---\n", "~", "null\n"] {
        let found = faults(text);
        assert_eq!(found.len(), 1, "{text:?} {found:?}");
        assert_eq!(found[0].problem, "the routes file is empty");
        assert_eq!(found[0].span, None);
    }
    assert!(super::rules("routes: []").is_empty());
}

#[test]
fn a_hint_says_how_to_mend_it() {
    for (route, hint) in [
        ("hots: a.test", "did you mean `host`?"),
        ("HOST: a.test", "did you mean `host`?"),
        (
            "host: a.test\n    path-allowlist: [/]",
            "did you mean `path_allowlist`?",
        ),
        (
            "host: a.test\n    paths: [/]",
            "did you mean `path_allowlist`?",
        ),
        (
            "host: a.test\n    redaction: true",
            "did you mean `redact`?",
        ),
        ("host: a.test:8443", "write `host: a.test` and `port: 8443`"),
        ("host: https://a.test/v1", "give the host alone, `a.test`"),
        ("host: .a.test", "`*.a.test`"),
        ("host: 'ü.test'", "`xn--` form"),
        ("host: 10.0.0.1", "`scheme: http`"),
        ("host: a.test\n    path_allowlist: [v1]", "write `/v1`"),
        (
            "host: a.test\n    path_allowlist: [^/v1$]",
            "{regex: '...'}",
        ),
        (
            "host: a.test\n    path_allowlist: []",
            "leave the key out to allow every path",
        ),
        (
            "host: a.test\n    path_allowlist: [/a%2fb]",
            "`encoded_slash: true`",
        ),
        ("host: a.test\n    methods: [get]", "write GET"),
        (
            "host: a.test\n    tls: pasthrough",
            "did you mean `passthrough`?",
        ),
        (
            "host: a.test\n    ssrf_ip_allowlist: [10.1.2.3/8]",
            "the network is 10.0.0.0/8",
        ),
        (
            "host: a.test\n    ssrf_ip_allowlist: ['fd00::1/8']",
            "the network is fd00::/8",
        ),
    ] {
        let found = faults(&format!("routes:\n  - {route}\n"));
        assert_eq!(found.len(), 1, "{route} {found:?}");
        let told = found[0].hint.as_deref().unwrap_or_default();
        assert!(told.contains(hint), "{route}: {told}");
    }
}

fn check(text: &str, (_, line, column, key, problem): Case) {
    let found = faults(text);
    assert_eq!(found.len(), 1, "{text}\n{found:#?}");
    let fault = &found[0];
    assert_eq!(
        (fault.line(), fault.column(), fault.key.as_deref()),
        (Some(line), Some(column), key),
        "{text}\n{fault:#?}"
    );
    assert!(fault.problem.contains(problem), "{text}\n{fault:#?}");
}
