//! Which fault of an upstream a rejection counts as.

use std::io;

use rustls::CertificateError;

use super::{Cause, Reject};
use crate::audit::UpstreamFault;

/// What an upstream was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A connection to it.
    Connection,
    /// Its part of the TLS handshake.
    Handshake,
    /// The head of its answer.
    Answer,
}

impl Reject {
    /// The upstream's fault; `None` where it has none.
    pub(super) fn upstream_fault(&self) -> Option<UpstreamFault> {
        Some(match self.cause {
            Cause::Unresolved => UpstreamFault::Unresolved,
            Cause::Unreachable => UpstreamFault::Unreachable,
            Cause::UpstreamTimeout(Wait::Connection) => UpstreamFault::ConnectTimeout,
            Cause::UpstreamTimeout(Wait::Handshake) => UpstreamFault::TlsTimeout,
            Cause::UpstreamTimeout(Wait::Answer) => UpstreamFault::AnswerTimeout,
            Cause::UpstreamTls => self
                .certificate_error()
                .map_or(UpstreamFault::Tls, fault_of),
            Cause::UpstreamProtocol => UpstreamFault::Protocol,
            Cause::UpstreamHandshake => UpstreamFault::Handshake,
            Cause::UpstreamCoding => UpstreamFault::Coding,
            Cause::UpstreamProxy => UpstreamFault::Proxy,
            _ => return None,
        })
    }

    /// What is wrong with the upstream's certificate, where that is why there is no TLS.
    fn certificate_error(&self) -> Option<&CertificateError> {
        // A handshake's error is one of I/O, and the library's own is inside it.
        let error = self.source.as_ref()?.downcast_ref::<io::Error>()?;
        match error.get_ref()?.downcast_ref()? {
            rustls::Error::InvalidCertificate(error) => Some(error),
            _ => None,
        }
    }
}

fn fault_of(error: &CertificateError) -> UpstreamFault {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            UpstreamFault::CertificateExpired
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            UpstreamFault::CertificateName
        }
        // Also where it bears the name of an issuer who is trusted, without that one's signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            UpstreamFault::CertificateIssuer
        }
        _ => UpstreamFault::Certificate,
    }
}
