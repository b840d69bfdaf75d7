//! The box, seen from inside: what an agent must not find here, and whether there is a way out beside the proxy.
//!
//! Of what is found, only names are told. Nothing is sent but to the address that the operator names.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;

use super::report::Finding;
use super::{Variables, Way};
use crate::admin::{AdminAddress, client};
use crate::credential::codex::{self, HostFile, dummy};
use crate::launch::variables::CA_VARIABLES;

mod credentials;

/// Looks around. Blocking, for a second at the most where `direct` names an address.
pub(super) fn examine(way: Way, variables: &Variables, direct: Option<SocketAddr>) -> Vec<Finding> {
    let mut findings = vec![route(way, has_route())];
    findings.extend(direct.map(|address| judge_direct(address, &attempt(address))));
    findings.extend(credentials::examine(variables));
    findings.push(codex_login(variables));
    findings.push(ca_key(&key_files(variables)));
    findings.push(admin_socket(&sockets(variables)));
    findings
}

/// Whether the kernel knows a way to public addresses. Connecting a datagram socket looks it up and sends nothing.
fn has_route() -> bool {
    // Addresses of documentation (RFC 5737, RFC 3849), which only a default route covers.
    let outside: [(IpAddr, IpAddr); 2] = [
        (
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::new(192, 0, 2, 1).into(),
        ),
        (
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        ),
    ];
    outside.iter().any(|(own, far)| {
        UdpSocket::bind((*own, 0)).is_ok_and(|socket| socket.connect((*far, 443)).is_ok())
    })
}

fn route(way: Way, has_route: bool) -> Finding {
    const NAME: &str = "box.route";
    match (way, has_route) {
        (_, false) => Finding::ok(NAME, "there is no route but to the sidecar"),
        (Way::Proxy, true) => Finding::warn(
            NAME,
            "there is a route out of here, and a variable does not keep a program from taking it",
            "leave the sandbox no route but the one to the sidecar; where a filter stops the rest, --probe-direct \
             IP:PORT tries it",
        ),
        (Way::Steered, true) => Finding::skip(
            NAME,
            "there is a route, as there has to be where connections are led to the sidecar; whether it leads anywhere \
             else, --probe-direct IP:PORT tries, with a port beside 80 and 443",
        ),
    }
}

fn attempt(address: SocketAddr) -> Result<(), ErrorKind> {
    const PATIENCE: Duration = Duration::from_secs(1);
    TcpStream::connect_timeout(&address, PATIENCE)
        .map(drop)
        .map_err(|error| error.kind())
}

fn judge_direct(address: SocketAddr, came: &Result<(), ErrorKind>) -> Finding {
    const NAME: &str = "box.direct";
    const HINT: &str = "leave the sandbox no route but the one to the sidecar. Where each connection to port 443 and 80 is \
                        handed to the sidecar (smolvm's interceptor), try another port";
    match came {
        Ok(()) => Finding::fail(
            NAME,
            format!("a connection to {address} leaves without the sidecar"),
            HINT,
        ),
        Err(ErrorKind::ConnectionRefused) => Finding::warn(
            NAME,
            format!("{address} refuses the connection: that host, or a filter on the way"),
            "name an address with --probe-direct that takes connections, to know which",
        ),
        Err(_) => Finding::ok(NAME, format!("no connection to {address} leaves")),
    }
}

fn codex_login(variables: &Variables) -> Finding {
    const NAME: &str = "box.codex";
    let Ok(path) = codex::locate(|name| variables.get(name).map(Into::into)) else {
        return Finding::skip(NAME, "HOME is not set");
    };
    if !path.exists() {
        return Finding::ok(
            NAME,
            format!("there is no Codex login ({})", path.display()),
        );
    }
    let file = path.display();
    match HostFile::read(&path) {
        Ok(there) if dummy::holds_login(there.document()) => Finding::fail(
            NAME,
            format!("{file} holds a real login"),
            "put a dummy in its place (`egress codex dummy-auth -o FILE` on the host), and log out what was there",
        ),
        Ok(_) => Finding::ok(NAME, format!("{file} is a dummy")),
        Err(error) => Finding::warn(
            NAME,
            error.to_string(),
            "put a dummy there: `egress codex dummy-auth -o FILE`",
        ),
    }
}

/// Where the CA's key would be found: beside the bundles, and where commands of this user look for it.
fn key_files(variables: &Variables) -> Vec<PathBuf> {
    let beside = CA_VARIABLES
        .iter()
        .filter_map(|name| Path::new(variables.get(name)?).parent().map(Path::to_owned));
    let named = variables.get("EGRESS_CA_DIR").map(PathBuf::from);
    let own = super::super::ca_dir(None).ok();
    let image = PathBuf::from("/var/lib/egress/ca");
    let mut files: Vec<_> = beside
        .chain(named)
        .chain(own)
        .chain([image])
        .map(|directory| directory.join("ca-key.pem"))
        .collect();
    files.sort();
    files.dedup();
    files
}

fn ca_key(files: &[PathBuf]) -> Finding {
    const NAME: &str = "box.ca_key";
    match files.iter().find(|file| File::open(file).is_ok()) {
        Some(file) => Finding::fail(
            NAME,
            format!("the CA's key can be read: {}", file.display()),
            "give the sandbox the bundle alone and never the CA's directory; then make another CA (`egress ca init \
             --renew`), since whoever read the key can stand for every host of it",
        ),
        None => Finding::ok(NAME, "no key of a CA is where one would be"),
    }
}

/// Where an admin socket would be found.
fn sockets(variables: &Variables) -> Vec<AdminAddress> {
    let named = variables
        .get("EGRESS_ADMIN")
        .and_then(|text| text.parse().ok());
    named
        .into_iter()
        .chain([AdminAddress::Unix("/run/egress/admin.sock".into())])
        .collect()
}

fn admin_socket(sockets: &[AdminAddress]) -> Finding {
    const NAME: &str = "box.admin";
    let answers = |address: &&AdminAddress| client::ask(address, Method::GET, "/healthz").is_ok();
    match sockets.iter().find(answers) {
        Some(address) => Finding::fail(
            NAME,
            format!("the sidecar's admin socket answers: {address}"),
            "keep its directory out of the sandbox, and out of its user's reach",
        ),
        None => Finding::ok(NAME, "no admin socket answers where one would be"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::{Way, ca_key, judge_direct, route};

    #[test]
    fn a_way_out_is_told() {
        for way in [Way::Proxy, Way::Steered] {
            assert!(route(way, false).is("ok", "no route"));
        }
        assert!(route(Way::Proxy, true).is("warn", "there is a route"));
        assert!(route(Way::Steered, true).is("skip", "--probe-direct"));
        let address = "192.0.2.1:443".parse().unwrap();
        for (came, state) in [
            (Ok(()), "fail"),
            (Err(ErrorKind::ConnectionRefused), "warn"),
            (Err(ErrorKind::TimedOut), "ok"),
            (Err(ErrorKind::NetworkUnreachable), "ok"),
        ] {
            assert!(
                judge_direct(address, &came).is(state, "192.0.2.1:443"),
                "{came:?}"
            );
        }
    }

    #[test]
    fn a_key_that_can_be_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca-key.pem");
        assert!(ca_key(std::slice::from_ref(&file)).is("ok", ""));
        std::fs::write(&file, "").unwrap();
        assert!(ca_key(&[file]).is("fail", "ca-key.pem"));
    }
}
