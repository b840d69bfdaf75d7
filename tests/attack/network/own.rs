//! The sidecar as its own upstream.

use crate::harness::line::{Line, Outcome, Way};

use super::site::{Site, get, ip};

/// Each of its listeners, by each spelling of an address that leads to it, although the operator allowed all of them.
#[tokio::test]
async fn row_30_the_sidecar_does_not_dial_itself() {
    let doors: [(u16, &[&str]); 7] = [
        // --listen on one address of IPv4, and one of IPv6
        (8080, &["127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0"]),
        (8081, &["::1", "::"]),
        // --listen on all addresses, one of which is any address here
        (
            8082,
            &[
                "127.0.0.1",
                "127.9.9.9",
                "::ffff:127.0.0.1",
                "0.0.0.0",
                "93.184.215.14",
                "10.0.0.1",
            ],
        ),
        // --steer-http, --dns, --admin, --ui
        (8083, &["127.0.0.1", "::ffff:127.0.0.1"]),
        (8084, &["127.0.0.1", "::ffff:127.0.0.1"]),
        (8085, &["127.0.0.1", "::ffff:127.0.0.1"]),
        (8086, &["127.0.0.1", "::ffff:127.0.0.1"]),
    ];
    let all: Vec<(u16, &'static str)> = doors
        .iter()
        .flat_map(|(port, hosts)| hosts.iter().map(|host| (*port, *host)))
        .collect();
    let mut routes = String::new();
    for (number, (port, host)) in all.iter().enumerate() {
        let address = std::net::SocketAddr::new(ip(host), *port);
        routes += &format!(
            "- {{host: a{number}.test, scheme: http, port: 80, connect_to: '{address}'}}\n\
             - {{host: n{number}.test, scheme: http, port: 80, connect_to: 'n{number}.name.test:{port}', ssrf_ip_allowlist: ['0.0.0.0/0', '::/0']}}\n"
        );
    }
    let named = all.clone();
    let site = Site::with(
        &routes,
        move |name, _| {
            let number = name.trim_start_matches('n').split('.').next();
            let found = number.and_then(|number| named.get(number.parse::<usize>().ok()?));
            found.map(|(_, host)| ip(host)).into_iter().collect()
        },
        |builder| {
            builder
                .arg("--listen=127.0.0.1:8080")
                .arg("--listen=[::1]:8081")
                .arg("--listen=0.0.0.0:8082")
                .arg("--steer-http=127.0.0.1:8083")
                .arg("--dns=127.0.0.1:8084")
                .arg("--dns-answer=127.0.0.2")
                .admin("127.0.0.1:8085")
                .arg("--ui=127.0.0.1:8086")
                .arg("--allow-client=127.0.0.0/8")
        },
    )
    .await;
    let mut line = Line::new(&site.agent, Way::Absolute);
    for (number, (port, host)) in all.iter().enumerate() {
        for kind in ["a", "n"] {
            let outcome = line
                .put(&get(&format!("{kind}{number}.test"), number))
                .await;
            let expected = Outcome::Refused("proxy_loop".into());
            assert_eq!(outcome, expected, "{kind} {host} {port}");
        }
    }
}
