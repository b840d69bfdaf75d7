//! The name server for clients that ignore the proxy variables: it gives one address for admitted names, and nothing leaves
//! by way of a name.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::harness::pki::Pki;
use crate::harness::sidecar::{Builder, Sidecar};
use crate::harness::{command, within};

const ROUTES: &str = "\
routes:
- {host: api.test, path_allowlist: [/v1/]}
- {host: '*.wild.test'}
- {host: through.test, tls: passthrough}
- {host: 192.0.2.1, scheme: http}
";

const A: u16 = 1;
const AAAA: u16 = 28;
const TXT: u16 = 16;

const FORMERR: u8 = 1;
const NXDOMAIN: u8 = 3;
const NOTIMP: u8 = 4;
const REFUSED: u8 = 5;

/// What has to come of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    Silence,
    /// The response code, and no record but perhaps an OPT.
    Code(u8),
}

#[tokio::test]
async fn hostile_messages_are_answered_briefly_or_not_at_all() {
    let sidecar = sidecar().start().await;
    let socket = client(sidecar.told_address("DNS_UDP")).await;
    let cases = hostile();
    assert!(cases.len() > 80, "{}", cases.len());
    for (what, message, expected) in &cases {
        // What follows is answered in any case, and only it where there is silence.
        let control = ask(&[b"api", b"test"], A);
        socket.send(message).await.expect("a socket");
        socket.send(&control).await.expect("a socket");
        let mut answer = receive(&socket).await;
        if let Expected::Code(code) = expected {
            assert_eq!(answer[3] & 15, *code, "{what}: {answer:?}");
            assert_eq!(answer[..2], message[..2], "{what}");
            assert_eq!(answer[2] & 0x80, 0x80, "{what}: no answer");
            assert_eq!(answer[6..10], [0; 4], "{what}: a record");
            assert!(answer.len() <= message.len(), "{what}: {answer:?}");
            answer = receive(&socket).await;
        }
        assert_eq!(address_in(&answer), Some(&[127, 0, 0, 2][..]), "{what}");
    }
    // The same by TCP, each on a connection of its own.
    for (what, message, expected) in &cases {
        let mut stream = TcpStream::connect(sidecar.told_address("DNS_TCP"))
            .await
            .expect("a listener");
        send(&mut stream, message).await;
        stream.shutdown().await.expect("an open stream");
        let mut answer = Vec::new();
        _ = within("the end", stream.read_to_end(&mut answer)).await;
        match expected {
            Expected::Silence => assert!(answer.is_empty(), "{what}: {answer:?}"),
            Expected::Code(code) => assert_eq!(answer[5] & 15, *code, "{what}"),
        }
    }
}

fn hostile() -> Vec<(String, Vec<u8>, Expected)> {
    use Expected::{Code, Silence};
    let good = || ask(&[b"api", b"test"], A);
    let counted = |at: usize, count: u16| {
        let mut message = good();
        message[at..at + 2].copy_from_slice(&count.to_be_bytes());
        message
    };
    let with = |records: u16, bytes: &[u8]| [&counted(10, records)[..], bytes].concat();
    let question = |bytes: &[u8]| [&good()[..12], bytes].concat();
    let flagged = |high: u8| {
        let mut message = good();
        message[2] = high;
        message
    };
    let class = |class: u16| {
        let mut message = good();
        let at = message.len() - 2;
        message[at..].copy_from_slice(&class.to_be_bytes());
        message
    };
    let mut cases: Vec<(String, Vec<u8>, Expected)> = Vec::new();
    let mut case =
        |what: &str, message: Vec<u8>, expected| cases.push((what.to_owned(), message, expected));
    for length in 0..12 {
        case(
            &format!("{length} bytes"),
            good()[..length].to_vec(),
            Silence,
        );
    }
    case("a response", flagged(0x81), Silence);
    case("a response to an update", flagged(0xa8), Silence);
    for opcode in [1, 2, 3, 4, 5, 6, 15] {
        case(
            &format!("opcode {opcode}"),
            flagged(opcode << 3),
            Code(NOTIMP),
        );
    }
    for length in [12, 13, 16, 20, 21, 22, 24, 25] {
        case(
            &format!("cut at {length}"),
            good()[..length].to_vec(),
            Code(FORMERR),
        );
    }
    for (what, at, count) in [
        ("no question", 4, 0),
        ("a second question that is not there", 4, 2),
        ("65535 questions", 4, 65535),
        ("an answer", 6, 1),
        ("65535 answers", 6, 65535),
        ("an authority", 8, 1),
        ("an additional record that is not there", 10, 1),
        ("65535 additional records", 10, 65535),
    ] {
        case(what, counted(at, count), Code(FORMERR));
    }
    let two = [&counted(4, 2)[..], &good()[12..]].concat();
    case("two questions", two, Code(FORMERR));
    for (what, bytes) in [
        ("a pointer to itself", &[0xc0, 12, 0, 1, 0, 1][..]),
        ("a pointer ahead", &[0xc0, 14, 0, 1, 0, 1]),
        ("a pointer into the header", &[0xc0, 4, 0, 1, 0, 1]),
        (
            "a label and a pointer to it",
            &[1, b'a', 0xc0, 12, 0, 1, 0, 1],
        ),
        ("a pointer out of the message", &[0xff, 0xff, 0, 1, 0, 1]),
        ("an extended label", &[0x41, 1, 0, 0, 1, 0, 1]),
        ("a label of type 10", &[0x80, 1, 0, 0, 1, 0, 1]),
        ("a label beyond the end", &[60, b'a', 0, 0, 1, 0, 1]),
        ("a name without its root", &[1, b'a']),
    ] {
        case(what, question(bytes), Code(FORMERR));
    }
    let mut endless = good()[..12].to_vec();
    for _ in 0..128 {
        endless.extend([1, b'a']);
    }
    endless.extend([0, 0, 1, 0, 1]);
    case("a name of 257 bytes", endless, Code(FORMERR));
    case(
        "bytes behind the end",
        [&good()[..], b"x"].concat(),
        Code(FORMERR),
    );
    let opt = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
    for (what, records, bytes) in [
        ("two OPT records", 2, [opt, opt].concat()),
        (
            "an OPT record below a name",
            1,
            [&[1, b'a'][..], &opt].concat(),
        ),
        ("an OPT record that is cut", 1, opt[..9].to_vec()),
        (
            "an OPT record beyond the end",
            1,
            [&opt[..9], &[0, 9]].concat(),
        ),
        (
            "an option beyond its record",
            1,
            [&opt[..9], &[0, 4, 0, 10, 0, 9]].concat(),
        ),
        (
            "an option without a length",
            1,
            [&opt[..9], &[0, 2, 0, 10]].concat(),
        ),
        (
            "an address for free",
            1,
            vec![0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 6, 6, 6, 6],
        ),
        ("a signature", 1, vec![0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0]),
        (
            "a record with a pointer to itself",
            1,
            vec![0xc0, 26, 0, 41, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
    ] {
        case(what, with(records, &bytes), Code(FORMERR));
    }
    for (what, number) in [
        ("CHAOS", 3),
        ("HESIOD", 4),
        ("NONE", 254),
        ("ANY", 255),
        ("0", 0),
    ] {
        case(&format!("class {what}"), class(number), Code(REFUSED));
    }
    case(
        "a zone transfer",
        ask(&[b"api", b"test"], 252),
        Code(REFUSED),
    );
    case(
        "a small zone transfer",
        ask(&[b"api", b"test"], 251),
        Code(REFUSED),
    );
    let long = [b'x'; 63];
    let names: &[(&str, &[&[u8]])] = &[
        ("a foreign name", &[b"evil", b"test"]),
        ("a name below", &[b"x", b"api", b"test"]),
        ("a name that ends alike", &[b"evilapi", b"test"]),
        ("a name that begins alike", &[b"api", b"test", b"evil"]),
        ("a dot inside of a label", &[b"api.test"]),
        ("a dot at the end of a label", &[b"api", b"test."]),
        ("a dot in a wildcard's label", &[b"a.b", b"wild", b"test"]),
        ("the wildcard's own name", &[b"wild", b"test"]),
        (
            "two labels below a wildcard",
            &[b"a", b"b", b"wild", b"test"],
        ),
        ("an asterisk", &[b"*", b"wild", b"test"]),
        ("a NUL", &[b"api\0", b"test"]),
        ("a blank", &[b"api", b"test "]),
        ("bytes that are no text", &[b"\xff\xfe", b"wild", b"test"]),
        ("a hyphen at the end", &[b"a-", b"wild", b"test"]),
        ("the root", &[]),
        ("one label", &[b"test"]),
        ("localhost", &[b"localhost"]),
        ("an address of a route", &[b"192", b"0", b"2", b"1"]),
        ("an address", &[b"127", b"0", b"0", b"1"]),
        (
            "a reverse name",
            &[b"1", b"2", b"0", b"192", b"in-addr", b"arpa"],
        ),
        ("a metadata name", &[b"metadata", b"google", b"internal"]),
        ("much data", &[&long, &long, &long, b"evil", b"test"]),
        (
            "much data below an admitted name",
            &[&long, &long, &long, b"api", b"test"],
        ),
    ];
    for (what, labels) in names {
        case(what, ask(labels, A), Code(NXDOMAIN));
        case(&format!("{what}, TXT"), ask(labels, TXT), Code(NXDOMAIN));
    }
    for rtype in [
        0, 2, 5, 6, 12, 15, TXT, AAAA, 33, 41, 43, 48, 64, 65, 249, 250, 253, 255, 256, 65535,
    ] {
        case(
            &format!("type {rtype}"),
            ask(&[b"api", b"test"], rtype),
            Code(0),
        );
    }
    cases
}

#[tokio::test]
async fn admitted_names_have_the_one_address_in_the_spelling_that_was_asked_for() {
    let sidecar = sidecar().arg("--dns-answer=fd00::2").start().await;
    let socket = client(sidecar.told_address("DNS_UDP")).await;
    let names: [&[&[u8]]; 5] = [
        &[b"api", b"test"],
        &[b"aPi", b"TEsT"],
        &[b"one", b"wild", b"test"],
        &[b"ONE_x-1", b"Wild", b"test"],
        &[b"through", b"test"],
    ];
    for name in names {
        let query = ask(name, A);
        socket.send(&query).await.expect("a socket");
        let answer = receive(&socket).await;
        assert_eq!(answer[..4], [0x12, 0x34, 0x81, 0x80], "{answer:?}");
        assert_eq!(answer[12..query.len()], query[12..], "{name:?}");
        let rest = &answer[query.len()..];
        // A pointer to the question's name, A, IN, the time to live, and four bytes.
        assert_eq!(rest[..6], [0xc0, 12, 0, 1, 0, 1]);
        let ttl = u32::from_be_bytes([rest[6], rest[7], rest[8], rest[9]]);
        assert!((1..=30).contains(&ttl), "{ttl}");
        assert_eq!(rest[10..], [0, 4, 127, 0, 0, 2]);
        socket.send(&ask(name, AAAA)).await.expect("a socket");
        let answer = receive(&socket).await;
        let v6 = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
        assert_eq!(address_in(&answer), Some(&v6[..]));
    }
}

#[tokio::test]
async fn edns_is_answered_in_kind() {
    let sidecar = sidecar().start().await;
    let socket = client(sidecar.told_address("DNS_UDP")).await;
    // Payload 4096, DO, and a cookie.
    let opt = |version: u8| {
        [
            0, 0, 41, 16, 0, 0, version, 0x80, 0, 0, 12, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8,
        ]
    };
    for (version, code, high) in [(0, 0, 0), (1, 0, 1), (255, 0, 1)] {
        let mut query = ask(&[b"api", b"test"], A);
        query[11] = 1;
        query.extend(opt(version));
        socket.send(&query).await.expect("a socket");
        let answer = receive(&socket).await;
        assert_eq!(answer[3] & 15, code, "{answer:?}");
        assert_eq!(answer[10..12], [0, 1], "one OPT record");
        let ours = &answer[answer.len() - 11..];
        assert_eq!(ours[..3], [0, 0, 41]);
        assert!(u16::from_be_bytes([ours[3], ours[4]]) >= 512);
        assert_eq!(ours[5..], [high, 0, 0x80, 0, 0, 0], "{answer:?}");
        assert!(answer.len() <= query.len() + 16);
    }
}

#[tokio::test]
async fn a_reload_changes_which_names_there_are() {
    let sidecar = sidecar().arg("--no-name-constraints").start().await;
    let socket = client(sidecar.told_address("DNS_UDP")).await;
    sidecar.write_routes("routes: [{host: new.test}]\n");
    sidecar.sighup();
    sidecar.logged("\"reloaded\"").await;
    for (name, code) in [(&b"api"[..], NXDOMAIN), (b"new", 0)] {
        socket
            .send(&ask(&[name, b"test"], A))
            .await
            .expect("a socket");
        assert_eq!(receive(&socket).await[3] & 15, code);
    }
}

#[tokio::test]
async fn refused_names_are_shown_and_cannot_flood_the_log() {
    const MANY: usize = 3000;
    let sidecar = sidecar().start().await;
    let socket = client(sidecar.told_address("DNS_UDP")).await;
    let tag = b"\x1b[2Jsecret";
    for n in 0..MANY {
        let label = n.to_string();
        socket
            .send(&ask(&[tag, label.as_bytes(), b"evil", b"test"], A))
            .await
            .expect("a socket");
        assert_eq!(receive(&socket).await[3] & 15, NXDOMAIN);
    }
    let status = sidecar.status().await;
    assert_eq!(status["counters"]["names_denied"], MANY);
    let denials = status["denials"].as_array().expect("a list");
    let shown = denials[0].as_object().expect("an object");
    assert_eq!(shown["method"], "DNS");
    assert_eq!(shown["host"], "\\x1b[2Jsecret.0.evil.test");
    assert_eq!(shown["code"], "host_not_allowed");
    let (_, log) = sidecar.terminate().await;
    let lines = log
        .lines()
        .filter(|line| line.contains("evil.test"))
        .count();
    assert!((20..100).contains(&lines), "{lines}");
    assert!(!log.contains('\u{1b}'), "raw bytes in the log");
}

#[tokio::test]
async fn a_stream_carries_many_queries_and_ends_when_it_stands_still() {
    let sidecar = sidecar().start().await;
    let address = sidecar.told_address("DNS_TCP");
    let mut stream = TcpStream::connect(address).await.expect("a listener");
    let mut pipelined = Vec::new();
    for _ in 0..50 {
        let query = ask(&[b"api", b"test"], A);
        pipelined.extend((query.len() as u16).to_be_bytes());
        pipelined.extend(query);
    }
    let (first, rest) = pipelined.split_at(37);
    stream.write_all(first).await.expect("a reader");
    stream.write_all(rest).await.expect("a reader");
    for _ in 0..50 {
        let length = within("a length", stream.read_u16())
            .await
            .expect("an answer");
        let mut answer = vec![0; length.into()];
        stream.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(address_in(&answer), Some(&[127, 0, 0, 2][..]));
    }
    // Neither half a message nor a large one is waited for without end.
    let mut large = TcpStream::connect(address).await.expect("a listener");
    large
        .write_all(&[0xff, 0xff, 0, 0])
        .await
        .expect("a reader");
    let mut half = TcpStream::connect(address).await.expect("a listener");
    half.write_all(&[0, 30, 1]).await.expect("a reader");
    for stream in [&mut stream, &mut large, &mut half] {
        let mut nothing = Vec::new();
        _ = within("the end of the stream", stream.read_to_end(&mut nothing)).await;
        assert!(nothing.is_empty());
    }
}

#[tokio::test]
async fn streams_at_the_cap_wait_for_one_that_ends() {
    let sidecar = sidecar().start().await;
    let address = sidecar.told_address("DNS_TCP");
    let mut open = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(address).await.expect("a listener");
        assert!(query_on(&mut stream).await.is_some());
        open.push(stream);
    }
    let mut waiting = TcpStream::connect(address)
        .await
        .expect("the kernel's queue");
    send(&mut waiting, &ask(&[b"api", b"test"], A)).await;
    // Whoever has a connection is served meanwhile, and the one that waits is not.
    for stream in &mut open {
        assert!(query_on(stream).await.is_some());
    }
    let early = waiting.try_read(&mut [0; 1]);
    assert_eq!(
        early.expect_err("it waits").kind(),
        std::io::ErrorKind::WouldBlock
    );
    drop(open.pop());
    assert!(within("an answer", waiting.read_u16()).await.is_ok());
}

#[tokio::test]
async fn inherited_sockets_of_both_kinds_answer() {
    let udp = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let addresses =
        [udp.local_addr(), tcp.local_addr()].map(|address| address.expect("an address"));
    let sidecar = bare()
        .arg("--dns=fd:7")
        .arg("--dns=fd:8")
        .hand(7, udp)
        .hand(8, tcp)
        .start()
        .await;
    assert_eq!(sidecar.told_address("DNS_UDP"), addresses[0]);
    assert_eq!(sidecar.told_address("DNS_TCP"), addresses[1]);
    let socket = client(addresses[0]).await;
    socket
        .send(&ask(&[b"api", b"test"], A))
        .await
        .expect("a socket");
    assert!(address_in(&receive(&socket).await).is_some());
    let mut stream = TcpStream::connect(addresses[1]).await.expect("a listener");
    assert!(query_on(&mut stream).await.is_some());
}

#[tokio::test]
async fn clients_outside_the_named_networks_get_nothing() {
    let sidecar = bare()
        .arg("--dns=0.0.0.0:0")
        .arg("--allow-client=192.0.2.0/24")
        .start()
        .await;
    let port = sidecar.told_address("DNS_TCP").port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect(address).await.expect("a listener");
    assert!(query_on(&mut stream).await.is_none());
    assert_eq!(sidecar.status().await["counters"]["names"], 0);
}

#[tokio::test]
async fn what_cannot_be_right_is_refused_at_the_start() {
    let unbound = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    );
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (vec!["--dns=127.0.0.1:0"], "--dns-answer"),
        (vec!["--dns-answer=127.0.0.1"], "--dns"),
        (
            vec!["--dns=0.0.0.0:0", "--dns-answer=127.0.0.1"],
            "not loopback",
        ),
        (
            vec!["--dns=192.0.2.1:53", "--dns-answer=127.0.0.1"],
            "not loopback",
        ),
        (
            vec![
                "--dns=127.0.0.1:0",
                "--dns-answer=127.0.0.1",
                "--dns-answer=127.0.0.2",
            ],
            "second address",
        ),
        (
            vec!["--dns=127.0.0.1:0", "--dns-answer=0.0.0.0"],
            "no address that can be",
        ),
        (
            vec!["--dns=127.0.0.1:0", "--dns-answer=ff02::1"],
            "no address that can be",
        ),
        (
            vec!["--dns=fd:1", "--dns-answer=127.0.0.1"],
            "standard descriptors",
        ),
        (
            vec!["--dns=fd:70", "--dns-answer=127.0.0.1"],
            "no such descriptor",
        ),
        (
            vec!["--dns=unix:/x", "--dns-answer=127.0.0.1"],
            "IP:PORT or fd:N",
        ),
        (
            vec!["--dns=127.0.0.1", "--dns-answer=127.0.0.1"],
            "IP:PORT or fd:N",
        ),
    ];
    for (arguments, reason) in cases {
        let all = ["serve", "--routes", "none.yaml"]
            .into_iter()
            .chain(arguments);
        let done = command::egress(all).await;
        assert_eq!(done.code, Some(2), "{done:?}");
        assert!(done.stderr.contains(reason), "{reason}: {done:?}");
    }
    let builder = bare().arg("--dns=fd:7").hand(7, unbound.expect("a socket"));
    let Err(failure) = builder.try_start().await else {
        panic!("it started")
    };
    assert!(failure.log.contains("no bound UDP socket"), "{failure:?}");
}

fn bare() -> Builder {
    Sidecar::with_routes(&Pki::new(), ROUTES).arg("--dns-answer=127.0.0.2")
}

fn sidecar() -> Builder {
    bare().arg("--dns=127.0.0.1:0")
}

async fn client(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port");
    socket.connect(server).await.expect("an address");
    socket
}

async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 1500];
    let length = within("an answer", socket.recv(&mut buffer)).await;
    buffer[..length.expect("an answer")].to_vec()
}

async fn send(stream: &mut TcpStream, message: &[u8]) {
    let length = u16::try_from(message.len()).expect("a short message");
    let whole = [&length.to_be_bytes()[..], message].concat();
    _ = stream.write_all(&whole).await;
}

/// Asks for an admitted name. `None` where the stream ends instead.
async fn query_on(stream: &mut TcpStream) -> Option<Vec<u8>> {
    send(stream, &ask(&[b"api", b"test"], A)).await;
    let length = within("an answer", stream.read_u16()).await.ok()?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await.ok()?;
    Some(answer)
}

/// A query for one name, with recursion desired.
fn ask(labels: &[&[u8]], rtype: u16) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in labels {
        message.push(u8::try_from(label.len()).expect("a short label"));
        message.extend(*label);
    }
    message.push(0);
    message.extend(rtype.to_be_bytes());
    message.extend([0, 1]);
    message
}

/// The address at the end of an answer that has exactly one record.
fn address_in(answer: &[u8]) -> Option<&[u8]> {
    if answer[3] & 15 != 0 || answer[6..12] != [0, 1, 0, 0, 0, 0] {
        return None;
    }
    let kinds = BTreeSet::from([4, 16]);
    let length = kinds.into_iter().find(|length| {
        let at = answer.len() - length - 2;
        answer[at..at + 2] == (*length as u16).to_be_bytes()
    })?;
    Some(&answer[answer.len() - length..])
}
