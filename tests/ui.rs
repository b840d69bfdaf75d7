//! The page in a real browser: Debian's Chromium, driven by Playwright. What a browser is shown, and what it is not, is asserted
//! by tests/ui/page.mjs; `EGRESS_PICTURES=docs` has it make the pictures of the documents.

use std::process::Stdio;

use tokio::process::Command;

use crate::harness::clients::{playwright, run, system};
use crate::harness::pki::Pki;
use crate::harness::refusing;
use crate::harness::rig::{REAL, Rig};
use crate::harness::sidecar::EGRESS;
use crate::harness::upstream::{self, Upstream};

const ROUTES: &str = "\
- {host: api.test, scheme: http, path_allowlist: [/v1/], connect_to: 'UPSTREAM'}
- {host: down.test, scheme: http, connect_to: 'DOWN'}
- {host: spare.test, methods: [GET], path_allowlist: [/never/], auth_scheme: Bearer, token_env: EGRESS_TOKEN_0}
";

#[tokio::test]
async fn a_browser_shows_what_happens_and_reloads_what_it_has_shown() {
    let node = system("node", "nodejs");
    let chromium = system("chromium", "chromium");
    let modules = playwright().await;
    let (_bound, down) = refusing();
    let upstream = Upstream::plain()
        .start(async |_call| upstream::text(200, "fine"))
        .await;
    let routes = ROUTES.replace("DOWN", &down.to_string());
    let rig = Rig::around(&Pki::new(), upstream, &routes, |builder| {
        builder.arg("--ui=127.0.0.1:0")
    })
    .await;
    let logged = rig.sidecar.logged("this address opens the page once").await;
    let logged: serde_json::Value = serde_json::from_str(&logged).expect("a line of JSON");
    let work = tempfile::tempdir().expect("a temporary directory");
    // Node looks for a script's packages beside it.
    let script = work.path().join("page.mjs");
    std::fs::copy(
        concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/ui/page.mjs"),
        &script,
    )
    .expect("the script is there");
    std::os::unix::fs::symlink(&modules, work.path().join("node_modules")).expect("a link");
    let pictures = std::env::var("EGRESS_PICTURES")
        .ok()
        .map(|directory| format!("{}/../{directory}", env!("CARGO_MANIFEST_DIR")));
    let mut command = Command::new(node);
    command
        .arg(&script)
        .env_clear()
        .env("PATH", std::env::var("PATH").expect("PATH is set"))
        .env("HOME", work.path())
        .env("URL", logged["url"].as_str().expect("an address"))
        .env("PROXY", rig.sidecar.url())
        .env("ROUTES", rig.sidecar.routes_file())
        .env("EGRESS", EGRESS)
        .env(
            "ADMIN",
            format!("unix:{}", rig.sidecar.admin_socket().display()),
        )
        .env("SECRET", REAL)
        .env("DIRECTORY", work.path())
        .env("CHROMIUM", chromium)
        .envs(pictures.map(|pictures| ("PICTURES", pictures)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let output = run(&mut command).await.success();
    // A script that ends early has asserted nothing.
    assert!(output.stdout.ends_with("\nthat is all\n"), "{output:#?}");
}
