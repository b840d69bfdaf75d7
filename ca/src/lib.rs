//! The bottle's certificate authority: loads or creates the root, issues leaf certificates.
//!
//! It owns every private key that the sidecar shows to the agent's side. It neither opens sockets nor knows routes or
//! credentials; which host may have a leaf is decided by the caller and, once more, by the root's name constraints.

#![forbid(unsafe_code)]

use std::io;
use std::path::PathBuf;

mod cache;
mod constraints;
mod issuer;
mod root;
mod store;
mod tls;
mod validity;

pub use constraints::Constraints;
pub use issuer::Issuer;
pub use root::{Root, is_bottle_root, validity_of};

/// Why a root could not be opened or a leaf not be issued.
///
/// The message is a fragment that names the thing at fault; [`Error::hint`] says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call on the CA directory or a file in it failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb: "open", "write".
        action: &'static str,
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// Another process held the directory's lock for longer than we wait (10 seconds).
    #[error("the CA directory {} is locked by another process", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },

    /// The directory can be written by its group or by others, who could replace the key.
    #[error("the CA directory {} has mode {mode:04o}: group or others can write to it", path.display())]
    DirectoryWritable {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },

    /// The key file gives its group or others any permission at all.
    #[error("the CA key {} has mode {mode:04o}: it is not private to its owner", path.display())]
    KeyNotPrivate {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },

    /// The certificate file can be written by its group or by others.
    #[error("the CA certificate {} has mode {mode:04o}: group or others can write to it", path.display())]
    CertificateWritable {
        /// The certificate file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },

    /// The directory or file belongs to somebody other than this user or root.
    #[error("{} belongs to user {owner}, who is neither this user nor root", path.display())]
    ForeignOwner {
        /// The directory or file.
        path: PathBuf,
        /// The owner's user id.
        owner: u32,
    },

    /// A symbolic link, directory, FIFO or device stands where a file is expected.
    #[error("{} is not a regular file", path.display())]
    NotRegular {
        /// The path of what stands there.
        path: PathBuf,
    },

    /// One file of the pair exists and the other does not.
    #[error("{} exists but {} does not", present.display(), missing.display())]
    HalfPair {
        /// The file that exists.
        present: PathBuf,
        /// The file that does not.
        missing: PathBuf,
    },

    /// The key file is not exactly one P-256 private key as PKCS #8 in PEM (RFC 7468 section 10).
    #[error("{} is not a P-256 private key in PKCS #8 PEM", path.display())]
    BadKey {
        /// The key file.
        path: PathBuf,
    },

    /// The certificate file is not exactly one X.509 certificate in PEM (RFC 7468 section 5), or cannot be read.
    #[error("{} is not a usable PEM certificate: {reason}", path.display())]
    BadCertificate {
        /// The certificate file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// The certificate may not sign others, or is not self-issued (RFC 5280 sections 4.2.1.3 and 4.2.1.9).
    #[error("{} is not the certificate of a root CA", path.display())]
    NotCa {
        /// The certificate file.
        path: PathBuf,
    },

    /// The certificate's public key is not on the curve P-256.
    #[error("the CA certificate {} does not hold a P-256 key", path.display())]
    NotP256 {
        /// The certificate file.
        path: PathBuf,
    },

    /// The certificate is past its end.
    #[error("the CA certificate {} has expired", path.display())]
    Expired {
        /// The certificate file.
        path: PathBuf,
    },

    /// The private key is not the one that the certificate speaks of.
    #[error("the CA key {} does not belong to the certificate {}", key.display(), certificate.display())]
    Mismatch {
        /// The key file.
        key: PathBuf,
        /// The certificate file.
        certificate: PathBuf,
    },

    /// A host that the root shall be constrained to is neither a DNS name nor `*.` before one.
    #[error("cannot constrain the CA to {host:?}: neither a DNS name nor `*.` and a DNS name")]
    BadConstraint {
        /// The host as given.
        host: String,
    },

    /// A leaf was asked for something that is not a canonical (lower-case, no trailing dot) DNS name.
    #[error("cannot issue a certificate for {host:?}: not a canonical DNS name")]
    NotDnsName {
        /// The host as given.
        host: String,
    },

    /// The root's name constraints do not permit the host (RFC 5280 section 4.2.1.10).
    #[error("the CA's name constraints do not permit {host}")]
    NotPermitted {
        /// The host.
        host: String,
    },

    /// The clock stands outside the root's validity, so nobody would accept a leaf.
    #[error("the clock stands outside the validity of the CA certificate")]
    OutsideValidity,

    /// The clock stands before 1970 or after 9999 and has no X.509 form (RFC 5280 section 4.1.2.5).
    #[error("the clock is outside the years 1970 to 9999")]
    Clock,

    /// The cryptographic library failed, which it does only when it has no randomness or no memory.
    #[error("cannot {action}")]
    Crypto {
        /// What was tried, as a verb: "sign a certificate".
        action: &'static str,
        /// What the library said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// What the operator can do about it, if anything.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Error::Busy { .. } => {
                "end the process that holds the directory, or give this one a directory of its own"
            }
            Error::DirectoryWritable { .. } => {
                "run `chmod go-w` on the directory once you trust what is in it"
            }
            Error::KeyNotPrivate { .. } => {
                "others may have read the key: replace it with `egress ca init --renew`, or run `chmod 600` if they did not"
            }
            Error::CertificateWritable { .. } => {
                "run `chmod go-w` on the file once you trust what is in it"
            }
            Error::ForeignOwner { .. } => {
                "run as the owner, or give this process a directory of its own"
            }
            Error::NotRegular { .. } => "put the file itself there; links are refused",
            Error::HalfPair { .. } => {
                "restore the missing file, or issue a new pair with `egress ca init --renew`"
            }
            Error::BadKey { .. }
            | Error::BadCertificate { .. }
            | Error::NotCa { .. }
            | Error::NotP256 { .. }
            | Error::Expired { .. }
            | Error::Mismatch { .. } => {
                "issue a new pair with `egress ca init --renew`; clients must then be given the new certificate"
            }
            Error::BadConstraint { .. } => {
                "an IP address cannot be permitted: name the host, or issue the CA with --no-name-constraints"
            }
            Error::NotPermitted { .. } => {
                "the CA was issued for other hosts: `egress ca init --renew` issues it for those of the routes file"
            }
            Error::OutsideValidity => {
                "check the clock; if it is right, run `egress ca init --renew`"
            }
            Error::Clock => "set the clock",
            Error::Io { .. } => {
                "choose with --ca-dir a directory that this user may create and write to"
            }
            Error::NotDnsName { .. } | Error::Crypto { .. } => return None,
        })
    }

    /// For `map_err`: the library's own error, and what was tried.
    fn crypto<E>(action: &'static str) -> impl FnOnce(E) -> Error
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |source| Error::Crypto {
            action,
            source: source.into(),
        }
    }
}
