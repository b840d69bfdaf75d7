//! Ways out that an agent must not have. Each is tried from outside of the agent's network as well, where it has to
//! succeed: a probe that cannot succeed shows nothing.

/// A way out.
pub(crate) struct WayOut {
    pub(crate) what: &'static str,
    /// A shell command that succeeds where there is one.
    pub(crate) probe: &'static str,
}

pub(crate) const WAYS_OUT: &[WayOut] = &[
    WayOut {
        what: "the upstream's own address",
        probe: "nc -w 2 198.51.100.2 443 </dev/null",
    },
    WayOut {
        what: "another host",
        probe: "nc -w 2 203.0.113.9 7 </dev/null | grep word",
    },
    WayOut {
        what: "the metadata service",
        probe: "nc -w 2 169.254.169.254 80 </dev/null | grep word",
    },
    WayOut {
        what: "a service of the host, at the host's own address",
        probe: "nc -w 2 198.51.100.1 7 </dev/null | grep word",
    },
    WayOut {
        what: "a service of the host, at the address of some bridge",
        probe: "me=$(hostname -i); for ip in 172.17.0.1 ${me%.*}.1; do \
                nc -w 2 $ip 7 </dev/null | grep word && exit 0; done; exit 1",
    },
    WayOut {
        what: "Docker's resolver, for a foreign name",
        probe: "nslookup leak.example 127.0.0.11 | grep 198.51.100.2",
    },
    WayOut {
        what: "a resolver elsewhere",
        probe: "nslookup leak.example 203.0.113.9 | grep 198.51.100.2",
    },
    WayOut {
        what: "a foreign name, as any program looks it up",
        probe: "nc -w 2 leak.example 7 </dev/null | grep word",
    },
];
