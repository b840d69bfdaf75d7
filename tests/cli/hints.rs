//! What commands say of a place or a file that is of no use: which one, why, and what is to be done about it.

use std::path::Path;

use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

use crate::harness::agent::read_head;
use crate::harness::command::{self, Done};
use crate::harness::scripted::Scripted;

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named_with_a_hint() {
    let dir = directory();
    let missing = dir.path().join("missing");
    let (missing, own) = (shown(&missing), shown(dir.path()));
    let routes = shown(&dir.path().join("routes.yaml"));
    for (arguments, problem, hint) in [
        (
            ["-r", &missing],
            "the routes file does not exist",
            "name one that does",
        ),
        (["-r", &own], "is a directory", "name a file in it"),
        (
            ["--upstream-ca", &missing],
            "No such file",
            "PEM file of certificates",
        ),
        (
            ["--upstream-ca", &routes],
            "holds no certificate",
            "PEM file of certificates",
        ),
        (
            ["--client-auth-file", &missing],
            "No such file",
            "USER:PASSWORD for each",
        ),
        (
            ["--client-auth-file", "/dev/null"],
            "is not made of",
            "USER:PASSWORD for each",
        ),
    ] {
        let said = serve(&dir, &arguments).await;
        refused(&said, 2, problem, hint);
        assert!(said.stderr.contains(arguments[1]), "{said:?}");
    }
}

/// What an operator names by mistake, or what is older than the command.
#[tokio::test]
async fn what_is_no_sidecar_of_this_version_is_told_with_a_hint_by_all_that_ask_one() {
    let html = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>";
    let unknown = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
    let foreign = "is no sidecar's admin socket";
    for (answer, command, problem, hint) in [
        (html, "status", foreign, "name what the sidecar was given"),
        (html, "reload", foreign, "name what the sidecar was given"),
        (html, "suggest", foreign, "name what the sidecar was given"),
        (html, "ui", foreign, "name what the sidecar was given"),
        (
            unknown,
            "status",
            foreign,
            "name what the sidecar was given",
        ),
        (
            unknown,
            "reload",
            foreign,
            "name what the sidecar was given",
        ),
        (unknown, "ui", "knows of no page", "older than this command"),
    ] {
        let other = Scripted::start(None, move |_, mut wire| async move {
            read_head(&mut wire).await;
            _ = wire.write_all(answer.as_bytes()).await;
            read_head(&mut wire).await;
        })
        .await;
        let said = command::egress([command, "--admin", &other.addr().to_string()]).await;
        refused(&said, 3, problem, hint);
        assert_eq!(said.stdout, "", "{command}");
    }
}

#[tokio::test]
async fn a_descriptor_that_nobody_handed_over_is_told_with_a_hint() {
    let dir = directory();
    for arguments in [
        &["--listen", "fd:99"][..],
        &["--dns", "fd:99", "--dns-answer", "127.0.0.1"],
        &["--slots-fd", "99"],
    ] {
        let said = serve(&dir, arguments).await;
        refused(
            &said,
            2,
            "no such descriptor is open",
            "open under that number",
        );
    }
}

#[tokio::test]
async fn a_socket_that_cannot_be_made_says_what_is_in_its_way() {
    let dir = directory();
    let file = format!("unix:{}", dir.path().join("routes.yaml").display());
    let deep = format!("unix:{}", dir.path().join("none/x.sock").display());
    for (option, address, hint) in [
        ("--listen", &file, "no socket, and is left alone"),
        ("--listen", &deep, "directory has to be there already"),
        ("--admin", &file, "something is there already"),
        ("--admin", &deep, "directory has to be there already"),
    ] {
        let said = serve(&dir, &[option, address]).await;
        refused(&said, 3, address, hint);
        assert!(said.stderr.contains(option), "{said:?}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let said = serve(&dir, &["--listen", &address]).await;
    refused(&said, 3, &address, "another process listens there");
}

#[tokio::test]
async fn no_two_listeners_have_one_address() {
    let dir = directory();
    let socket = format!("unix:{}", dir.path().join("x.sock").display());
    for (address, option) in [
        ("127.0.0.1:1", "--listen"),
        ("127.0.0.1:1", "--steer-tls"),
        (&socket, "--listen"),
        (&socket, "--steer-http"),
    ] {
        let said = serve(&dir, &["--listen", address, option, address]).await;
        let problem = format!("{option} {address} is where --listen listens already");
        refused(&said, 2, &problem, "an address of its own");
    }
}

#[tokio::test]
async fn a_network_of_clients_is_written_as_what_it_is() {
    let dir = directory();
    for (network, why) in [
        ("10.0.0.1/8", "the network is 10.0.0.0/8"),
        ("fd00::1/8", "the network is fd00::/8"),
        ("10.0.0.0/33", "expected a network"),
        ("10.0.0.1", "expected a network"),
    ] {
        let said = serve(&dir, &["--allow-client", network]).await;
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.stderr.contains(why), "{said:?}");
    }
}

#[tokio::test]
async fn caps_say_nothing_about_a_manifest() {
    let dir = directory();
    let manifest = dir.path().join("bottle.yaml");
    let text = "bottles: {dev: {agent_provider: {template: custom}, egress: {routes: []}}}\n";
    std::fs::write(&manifest, text).expect("a manifest");
    let manifest = shown(&manifest);
    let said = command::egress(["check", &manifest, "--max-connections=5"]).await;
    refused(&said, 2, "manifest", "check a routes file");
    let said = command::egress(["check", &manifest]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
}

fn directory() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("routes.yaml"), "routes: []\n").expect("a routes file");
    dir
}

/// A sidecar of a directory's routes with other arguments, which ends by itself.
async fn serve(dir: &TempDir, arguments: &[&str]) -> Done {
    let routes = shown(&dir.path().join("routes.yaml"));
    let mut words = vec!["serve", "--ca-ephemeral", "--roots=bundled"];
    if arguments.first() != Some(&"-r") {
        words.extend(["-r", &routes]);
    }
    if !arguments.contains(&"--listen") {
        words.extend(["--listen", "127.0.0.1:0"]);
    }
    command::egress(words.iter().chain(arguments)).await
}

#[track_caller]
fn refused(said: &Done, code: i32, problem: &str, hint: &str) {
    assert_eq!(said.code, Some(code), "{said:?}");
    let (error, told) = said.stderr.split_once("hint: ").expect(&said.stderr);
    assert!(
        error.contains("error: ") && error.contains(problem),
        "{said:?}"
    );
    assert!(told.contains(hint), "{said:?}");
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
