//! Secrets that are in no slot's variable: the passwords of clients and of the operator's proxy, and what a launcher hands
//! over.

use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::{Hay, answer, assert_free, canary, shown};
use crate::harness::agent::{Agent, exchange};
use crate::harness::command;
use crate::harness::forward::Forward;
use crate::harness::pki::Pki;
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::Upstream;

#[tokio::test]
async fn row_42_no_password_of_a_client_or_a_proxy_and_nothing_handed_over_is_shown() {
    for refuses in [false, true] {
        let pki = Pki::new();
        let upstream = Upstream::plain().start(answer).await;
        let forward = match refuses {
            false => Forward::to(upstream.addr()).await,
            true => Forward::refusing("HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n").await,
        };
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let clients = tempfile::tempdir().expect("a directory");
        let file = clients.path().join("clients");
        std::fs::write(&file, format!("agent:{}\n", canary("client"))).expect("a file");
        // With escapes, which a parser of JSON keeps room for.
        let handed = canary("handed").replace('A', "\\u0041");
        writeln!(writer, "{{\"HANDED\":\"{handed}\"}}").expect("a reader");
        let routes = "routes: [{host: plain.test, scheme: http, port: 80, auth_scheme: Bearer, token_env: HANDED, insecure_inject: true}]\n";
        let sidecar = Sidecar::with_routes(&pki, routes)
            .env(
                "EGRESS_UPSTREAM_PROXY",
                format!("http://me:{}@{}", canary("proxy"), forward.addr()),
            )
            .arg(format!("--client-auth-file={}", file.display()))
            .arg("--slots-fd=9")
            .hand(9, reader)
            .arg("--log=trace")
            .start()
            .await;
        let mut hay = Hay::default();
        let expected = if refuses {
            "HTTP/1.1 502 "
        } else {
            "HTTP/1.1 200 "
        };
        for (login, status) in [
            (format!("agent:{}", canary("client")), expected),
            (format!("agent:{}", canary("guess")), "HTTP/1.1 407 "),
        ] {
            let request = format!(
                "GET http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\nProxy-Authorization: Basic {}\r\n\r\n",
                BASE64_STANDARD.encode(login)
            );
            let answer = exchange(&mut Agent::of(&sidecar).raw().await, request.as_bytes()).await;
            assert!(answer.starts_with(status.as_bytes()), "{status}");
            hay.add("an answer", answer);
        }
        let login = BASE64_STANDARD.encode(format!("me:{}", canary("proxy")));
        assert!(forward.heads().iter().any(|head| head.contains(&login)));
        assert_eq!(shown(&upstream, &canary("handed")), usize::from(!refuses));
        for bad in [
            "x",
            "{\"HANDED\":\"TEXT TEXT\"}",
            "{\"HANDED\":[\"TEXT\"]}",
            "{\"TEXT\":1}",
        ] {
            writeln!(writer, "{}", bad.replace("TEXT", &canary("bad"))).expect("a reader");
        }
        sidecar.logged_times("a line of --slots-fd is bad", 4).await;
        let admin = format!("--admin=unix:{}", sidecar.admin_socket().display());
        hay.told(
            "egress status",
            &command::egress(["status", "--json", &admin]).await,
        );
        hay.process(sidecar.pid().as_raw_nonzero().get());
        hay.files(sidecar.dir());
        let (_, log) = sidecar.terminate().await;
        hay.add("the log", log);
        assert_free(&hay, &["client", "guess", "proxy", "handed", "bad"]);
    }
}
