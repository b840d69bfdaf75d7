//! git over HTTPS, against the real `git http-backend`. git sends no credential before a 401, and never gets to see one.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::Response;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::harness::clients::{Home, Output, run, system};
use crate::harness::pki::Pki;
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{self, Body, Call, Upstream};
use crate::harness::within;

const REAL: &str = "ghp_real-token-of-the-host-77aa";

struct Scene {
    upstream: Upstream,
    sidecar: Sidecar,
    home: Home,
    repositories: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let repositories = tempfile::tempdir().expect("a temporary directory");
        let pki = Pki::new();
        let basic = BASE64_STANDARD.encode(format!("x-access-token:{REAL}"));
        let root = repositories.path().to_owned();
        let upstream = Upstream::tls(&pki)
            .require("authorization", format!("Basic {basic}"))
            .start(move |call| http_backend(root.clone(), call))
            .await;
        let routes = format!(
            "routes:\n  - host: git.test\n    path_allowlist: [/team/]\n    auth_scheme: Basic\n    \
             auth_user: x-access-token\n    token_env: EGRESS_TOKEN_0\n    connect_to: {}\n",
            upstream.addr()
        );
        let sidecar = Sidecar::with_routes(&pki, routes)
            .slot("EGRESS_TOKEN_0", REAL)
            .start()
            .await;
        let home = Home::behind(&sidecar)
            .set("GIT_TERMINAL_PROMPT", "0")
            .set("GIT_CONFIG_NOSYSTEM", "1");
        let scene = Self {
            upstream,
            sidecar,
            home,
            repositories,
        };
        scene
            .host_git(&["init", "--quiet", "--bare", "team/project.git"])
            .await;
        scene
            .host_git(&[
                "-C",
                "team/project.git",
                "config",
                "http.receivepack",
                "true",
            ])
            .await;
        scene
    }

    /// git on the upstream's side, which needs no proxy.
    async fn host_git(&self, arguments: &[&str]) {
        run(self
            .home
            .command(system("git", "git"))
            .current_dir(self.repositories.path())
            .args(arguments))
        .await
        .success();
    }

    async fn git(&self, dir: &Path, arguments: &[&str]) -> Output {
        let mut git = self.home.command(system("git", "git"));
        for setting in [
            "user.name=agent",
            "user.email=agent@example.invalid",
            "init.defaultBranch=main",
        ] {
            git.args(["-c", setting]);
        }
        run(git.current_dir(dir).args(arguments)).await
    }
}

#[tokio::test]
async fn a_repository_outside_the_route_is_refused() {
    let scene = Scene::new().await;
    let url = "https://git.test/other/project.git";
    let output = scene
        .git(&scene.home.work(), &["clone", url, "clone"])
        .await;
    assert!(!output.status.success(), "{output:#?}");
    assert!(output.stderr.contains("403"), "{output:#?}");
    assert_eq!(scene.upstream.connections(), 0);
}

#[tokio::test]
async fn a_push_of_6_mb_and_a_clone_work_without_a_credential_in_the_sandbox() {
    let scene = Scene::new().await;
    let url = "https://git.test/team/project.git";
    let work = scene.home.work();
    let first = work.join("first");
    scene
        .git(&work, &["init", "--quiet", "first"])
        .await
        .success();
    // Random bytes, so that the pack stays larger than http.postBuffer (1 MiB) and git has to send it chunked.
    let mut content = vec![0; 6 << 20];
    std::io::Read::read_exact(
        &mut std::fs::File::open("/dev/urandom").expect("urandom"),
        &mut content,
    )
    .expect("bytes");
    std::fs::write(first.join("large"), &content).expect("a writable work tree");
    scene.git(&first, &["add", "large"]).await.success();
    scene
        .git(&first, &["commit", "--quiet", "-m", "Add a large file"])
        .await
        .success();
    let pushed = scene
        .git(&first, &["push", "--quiet", url, "HEAD:refs/heads/main"])
        .await
        .success();
    let cloned = scene
        .git(
            &work,
            &["clone", "--quiet", "--branch", "main", url, "second"],
        )
        .await
        .success();
    assert!(
        std::fs::read(work.join("second/large")).expect("a cloned file") == content,
        "the clone differs"
    );

    let seen = scene.upstream.seen();
    assert!(
        seen.iter().all(|request| request.authorised),
        "git never had to be asked: {seen:#?}"
    );
    let pack = scene.upstream.at("/team/project.git/git-receive-pack");
    let pack = pack
        .iter()
        .max_by_key(|request| request.body.len())
        .expect("a push");
    assert!(pack.body.len() > 6 << 20, "{}", pack.body.len());
    assert!(
        pack.all("content-length").is_empty(),
        "git sent it with a length: {:?}",
        pack.headers
    );
    for output in [&pushed, &cloned] {
        scene.home.assert_free_of(REAL, output);
    }
    assert!(!scene.sidecar.log().contains(REAL));
}

/// Runs `git http-backend` as a CGI program for one request.
async fn http_backend(root: PathBuf, call: Call) -> Response<Body> {
    let header = |name: &str| {
        call.seen
            .all(name)
            .first()
            .copied()
            .unwrap_or_default()
            .to_owned()
    };
    let mut backend = Command::new(system("git", "git"));
    backend
        .arg("http-backend")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", &root)
        .env("GIT_PROJECT_ROOT", &root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", call.seen.method.as_str())
        .env("PATH_INFO", call.seen.path())
        .env(
            "QUERY_STRING",
            call.seen
                .target
                .split_once('?')
                .map_or("", |(_, query)| query),
        )
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", call.seen.body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("HTTP_GIT_PROTOCOL", header("git-protocol"))
        .env("REMOTE_USER", "x-access-token")
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut child = backend.spawn().expect("git http-backend runs");
    let mut stdin = child.stdin.take().expect("a piped stdin");
    let body = call.seen.body.clone();
    let feeding = tokio::spawn(async move {
        // A refusal may come before the whole body is read.
        let _ = stdin.write_all(&body).await;
    });
    let output = within("answer of git http-backend", child.wait_with_output())
        .await
        .expect("an answer");
    feeding.abort();
    from_cgi(&output.stdout)
}

fn from_cgi(output: &[u8]) -> Response<Body> {
    let end = output
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("a CGI head");
    let (head, body) = (&output[..end], &output[end + 4..]);
    let mut response = Response::builder().status(200);
    for line in String::from_utf8_lossy(head).split("\r\n") {
        let (name, value) = line.split_once(": ").expect("a CGI header");
        response = match name {
            "Status" => response.status(value.split(' ').next().unwrap_or_default()),
            _ => response.header(name, value),
        };
    }
    response
        .body(upstream::text_body(body.to_vec()))
        .expect("a valid response")
}
