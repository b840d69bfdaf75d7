//! What a service manager is told, by the protocol of sd_notify(3).

use tokio::net::UnixDatagram;

use crate::harness::command;
use crate::harness::rig::Rig;
use crate::harness::within;

const ROUTES: &str = "\
- {host: api.test, auth_scheme: Bearer, token_env: EGRESS_TOKEN_0, connect_to: 'UPSTREAM'}
";

#[tokio::test]
async fn systemd_is_told_when_it_is_ready_when_it_reloads_and_what_became_of_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("notify.sock");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let rig = Rig::with(ROUTES, |builder| {
        builder.env("NOTIFY_SOCKET", path.display().to_string())
    })
    .await;
    let next = async || {
        let mut datagram = [0; 4096];
        let read = within("a word to systemd", socket.recv(&mut datagram)).await;
        String::from_utf8_lossy(&datagram[..read.expect("a datagram")]).into_owned()
    };
    assert_eq!(next().await, "READY=1\nSTATUS=routes: 1, slots: 1\n");

    // The time is that of the reload's begin, by the clock that the manager reads.
    let before = monotonic_micros();
    rig.sidecar.sighup();
    let begun = next().await;
    let time = begun.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
    let time: i64 = time
        .and_then(|time| time.trim_end().parse().ok())
        .expect(&begun);
    assert!((before..=monotonic_micros()).contains(&time), "{begun}");
    let ended = next().await;
    let told = ended.strip_prefix("READY=1\nSTATUS=routes: 1, slots: 1, reloaded at ");
    assert!(told.is_some(), "{ended}");

    // Over the admin socket as well, and a fault is named: in one line, whatever the file has in it.
    rig.sidecar
        .write_routes("routes:\n- {host: api.test, \"a\\nREADY=0\": true}\n- {}\n");
    let socket = format!("unix:{}", rig.sidecar.admin_socket().display());
    let reloaded = command::egress(["reload", "--admin", &socket]).await;
    assert_eq!(reloaded.code, Some(1), "{reloaded:?}");
    assert!(next().await.starts_with("RELOADING=1\n"));
    let ended = next().await;
    let [ready, status] = ended.lines().collect::<Vec<_>>()[..] else {
        panic!("{ended}")
    };
    assert_eq!(ready, "READY=1");
    assert!(status.starts_with("STATUS=the reload at "), "{status}");
    for part in [
        "the routes before it are in force",
        "routes.yaml:2: ",
        "(and 1 more)",
    ] {
        assert!(status.contains(part), "{part}: {status}");
    }
    let fault = rig.sidecar.status().await["last_reload_fault"].clone();
    assert!(fault.as_str().is_some(), "{fault}");

    let (status, log) = rig.sidecar.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(next().await.starts_with("STOPPING=1\n"));
}

fn monotonic_micros() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1000
}
