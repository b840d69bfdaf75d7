//! What an agent is told: what was refused, and what can be done about it. It repeats nothing of the request.

use std::fmt;

use super::Cause;
use crate::proxy::gate::fault::Fault;
use crate::route::target::InvalidTarget;

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Framing(Fault::HeadTimeout | Fault::BodyTimeout) => {
                "the request did not come in time"
            }
            Self::Framing(Fault::HeadTooLarge | Fault::TooManyFields) => {
                "the request has too much in its head"
            }
            Self::Framing(_) => "the request is not unambiguous HTTP/1.1",
            Self::Target(InvalidTarget::Misdirected) => {
                "a request inside this tunnel names another host"
            }
            Self::Target(_) => "the request does not name one host in the form that a proxy takes",
            Self::Forfeited => "an earlier request on this connection named another host",
            Self::HeaderName => "a header name is not allowed",
            Self::Expectation => "the expectation cannot be met",
            Self::Handshake => "the upgrade is no WebSocket handshake",
            Self::ServerName => "the TLS server name is not the tunnel's host",
            Self::NoServerName => "the client hello names no host",
            Self::Preamble => "the connection is not announced as the machine's network does it",
            Self::AgentTls => "no TLS handshake with the agent",
            Self::ClientAuth => "this proxy asks its clients for a password",
            Self::Denied(reason) => reason.text(),
            Self::Address(_) => "the host resolves into a network that its route may not reach",
            Self::Loop => "the host is this proxy itself",
            Self::Expired => "the credential for this host has expired",
            Self::NoCredential => "the credential for this host is missing",
            Self::Unresolved => "the name does not resolve",
            Self::Unreachable => "the upstream cannot be reached",
            Self::UpstreamTls => "no trusted TLS connection to the upstream",
            Self::UpstreamProtocol => {
                "the upstream broke off, or answered with something that is not HTTP"
            }
            Self::UpstreamTimeout(_) => "the upstream took too long",
            Self::UpstreamHandshake => "the upstream's WebSocket handshake is wrong",
            Self::UpstreamCoding => {
                "the upstream answered in a coding, or with a part, in which the credential cannot be masked"
            }
            Self::UpstreamProxy => "the proxy in front of the upstream refused",
            Self::Decoders => "too many compressed answers are under way",
            Self::Issue => "no certificate for this host",
            Self::Audit => "the audit file cannot be written",
            Self::Busy => "too many requests are under way",
            Self::Stopping => "the sidecar is stopping",
        })
    }
}

impl Cause {
    /// What can be done about it.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Framing(Fault::TlsHello) => {
                "speak plain HTTP to the proxy itself: its URL begins with http://"
            }
            Self::Framing(Fault::HeadTimeout) => {
                "send the whole head without a pause; the operator can raise `--head-timeout`"
            }
            Self::Framing(Fault::BodyTimeout) => {
                "send the body without long pauses; the operator can raise `--body-timeout`"
            }
            Self::Framing(Fault::HeadTooLarge) => {
                "send shorter headers, cookies or a shorter URL; the operator can raise `--max-head`"
            }
            Self::Framing(Fault::TooManyFields) => {
                "send fewer header lines; the operator can raise `--max-fields`"
            }
            Self::Framing(_) => "send plain HTTP/1.1 as RFC 9112 describes it",
            Self::Target(InvalidTarget::Misdirected) | Self::Forfeited => {
                "open a tunnel of its own to each host"
            }
            Self::Target(_) => {
                "this is a forward proxy: set HTTPS_PROXY and HTTP_PROXY to it and name one host"
            }
            Self::HeaderName => "rename the header: some servers read an underscore as a hyphen",
            Self::Expectation => "send `Expect: 100-continue` or none",
            Self::Handshake => "send a WebSocket handshake as RFC 6455, version 13, describes it",
            Self::ServerName => "send the host of the CONNECT as the TLS server name",
            Self::NoServerName => "send the host as the TLS server name, and not encrypted alone",
            Self::Preamble => "only the machine's own network may connect here",
            Self::AgentTls => {
                "have the agent trust the bottle's CA certificate (`egress env` sets the variables)"
            }
            Self::ClientAuth => "put the sidecar's user and password into the proxy URL",
            Self::Denied(reason) => reason.hint(),
            Self::Address(_) => {
                "the operator can name the network under the route's `ssrf_ip_allowlist`"
            }
            Self::Loop => "the operator should look at the route's `connect_to` and the host's DNS",
            Self::Expired => {
                "the operator has to renew the credential on the host; nothing inside the sandbox can"
            }
            Self::NoCredential => "the operator has to provide the slot's value again",
            Self::Unresolved => "check the name, and the sidecar's resolver",
            Self::Unreachable => {
                "check that the upstream is up and can be reached from the sidecar"
            }
            Self::UpstreamTls => {
                "the sidecar's log has the reason; a private CA goes into the route's `upstream_ca`"
            }
            Self::UpstreamProtocol | Self::UpstreamHandshake => {
                "the sidecar's log has the reason; try again"
            }
            Self::UpstreamTimeout(_) => "try again, or raise the sidecar's deadlines",
            Self::UpstreamCoding => {
                "send `Accept-Encoding: identity`; the operator can set `redact: false` on the route"
            }
            Self::Decoders => {
                "the request was sent; try again, or send `Accept-Encoding: identity`. The operator can raise `--max-decoding`"
            }
            Self::UpstreamProxy => "check `--upstream-proxy`; the sidecar's log has its answer",
            Self::Issue => "the sidecar's log has the reason",
            Self::Audit => {
                "nothing is let through that cannot be written down; the operator finds the reason in the sidecar's log"
            }
            Self::Busy => {
                "wait for a request of yours to end; the operator can raise `--max-requests` and `--max-per-client`"
            }
            Self::Stopping => "try again once the sidecar is up",
        }
    }
}
