//! What this processor can do at best, on one core and in this process: TLS handshakes and records in memory, minting, and the
//! system calls that every proxy in user space has to make for a request.

use std::fs;
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustix::event::epoll;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use crate::tls;

const HANDSHAKES: u32 = 1000;

/// A request's head, an answer of 1 KiB with its head, and the largest record (RFC 8446, section 5.1).
const SIZES: [usize; 3] = [200, 1200, 16 << 10];

pub(crate) fn print(certs: &Path) -> anyhow::Result<()> {
    let limits = Limits {
        certs,
        server: Arc::new(tls::server(&certs.join("up"))?),
    };
    limits.randomness()?;
    limits.handshakes()?;
    limits.records()?;
    limits.minting()?;
    limits.loopback()
}

struct Limits<'a> {
    certs: &'a Path,
    server: Arc<ServerConfig>,
}

impl Limits<'_> {
    /// AWS-LC gathers its own entropy at the first use, unless it was built without that.
    fn randomness(&self) -> anyhow::Result<()> {
        let begin = Instant::now();
        KeyPair::generate()?;
        line("the first key of a process", begin.elapsed());
        Ok(())
    }

    fn handshakes(&self) -> anyhow::Result<()> {
        for (name, group) in [
            ("X25519", aws_lc_rs::kx_group::X25519),
            ("X25519MLKEM768", aws_lc_rs::kx_group::X25519MLKEM768),
        ] {
            for (kind, resumes) in [("full", false), ("resumed", true)] {
                let config = self.client(group, resumes)?;
                let mut taken = Sides::default();
                // The first is the one whose ticket the others use.
                self.handshake(&config, &mut Sides::default())?;
                for _ in 0..HANDSHAKES {
                    self.handshake(&config, &mut taken)?;
                }
                line(
                    &format!("handshake, {kind}, {name}: server"),
                    taken.server / HANDSHAKES,
                );
                line(
                    &format!("handshake, {kind}, {name}: client"),
                    taken.client / HANDSHAKES,
                );
            }
        }
        Ok(())
    }

    fn client(
        &self,
        group: &'static dyn SupportedKxGroup,
        resumes: bool,
    ) -> anyhow::Result<Arc<ClientConfig>> {
        let roots = [self.certs.join("up/ca-cert.pem")];
        let provider = CryptoProvider {
            kx_groups: vec![group],
            ..aws_lc_rs::default_provider()
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(tls::trusted(&roots)?)
            .with_no_client_auth();
        config.resumption = tls::client(&roots, resumes)?.resumption;
        Ok(Arc::new(config))
    }

    fn handshake(&self, config: &Arc<ClientConfig>, taken: &mut Sides) -> anyhow::Result<Pair> {
        let client = ClientConnection::new(Arc::clone(config), "api.test".try_into()?)?;
        let mut pair = Pair {
            client,
            server: ServerConnection::new(Arc::clone(&self.server))?,
        };
        let (mut up, mut down) = (Vec::with_capacity(8192), Vec::with_capacity(8192));
        loop {
            let begin = Instant::now();
            take(&mut pair.client, &down)?;
            write(&mut pair.client, &mut up)?;
            let half = Instant::now();
            take(&mut pair.server, &up)?;
            write(&mut pair.server, &mut down)?;
            taken.client += half - begin;
            taken.server += half.elapsed();
            if up.is_empty() && down.is_empty() {
                return Ok(pair);
            }
        }
    }

    fn records(&self) -> anyhow::Result<()> {
        let config = self.client(aws_lc_rs::kx_group::X25519, false)?;
        let mut pair = self.handshake(&config, &mut Sides::default())?;
        for size in SIZES {
            let (data, mut got, mut wire) =
                (vec![7; size], vec![0; size], Vec::with_capacity(size + 100));
            let mut sealing = Duration::ZERO;
            let both = each(20_000, || {
                let begin = Instant::now();
                pair.server.writer().write_all(&data)?;
                write(&mut pair.server, &mut wire)?;
                sealing += begin.elapsed();
                take(&mut pair.client, &wire)?;
                Ok(pair.client.reader().read_exact(&mut got)?)
            })?;
            line(&format!("record of {size} bytes: seal"), sealing / 20_000);
            line(
                &format!("record of {size} bytes: open"),
                both.saturating_sub(sealing / 20_000),
            );
        }
        Ok(())
    }

    fn minting(&self) -> anyhow::Result<()> {
        let read = |file: &str| {
            let path = self.certs.join("egress").join(file);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let key = KeyPair::from_pem(&read("ca-key.pem")?)?;
        let issuer = Issuer::from_ca_cert_pem(&read("ca-cert.pem")?, key)?;
        let shared = KeyPair::generate()?;
        let mint = |key: &KeyPair| {
            let mut params = CertificateParams::new(vec!["api.test".to_owned()])?;
            params.use_authority_key_identifier_extension = true;
            black_box(params.signed_by(key, &issuer)?);
            Ok(())
        };
        line("leaf, all with one key", each(2000, || mint(&shared))?);
        line(
            "leaf, each with a key of its own",
            each(2000, || mint(&KeyPair::generate()?))?,
        );
        Ok(())
    }

    fn loopback(&self) -> anyhow::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let mut near = TcpStream::connect(address)?;
        let mut far = listener.accept()?.0;
        near.set_nodelay(true)?;
        for size in SIZES {
            let (data, mut got, mut writing) = (vec![1; size], vec![0; size], Duration::ZERO);
            let both = each(20_000, || {
                let begin = Instant::now();
                near.write_all(&data)?;
                writing += begin.elapsed();
                Ok(far.read_exact(&mut got)?)
            })?;
            // The kernel charges the sender with what the receiver's side of loopback takes.
            line(&format!("loopback, {size} bytes: write"), writing / 20_000);
            line(
                &format!("loopback, {size} bytes: read"),
                both.saturating_sub(writing / 20_000),
            );
        }
        let ready = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }];
        let at_once = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let wait = || {
            epoll::wait(&ready, &mut events, Some(&at_once))
                .map(|_| ())
                .map_err(Into::into)
        };
        line("epoll_wait with nothing ready", each(100_000, wait)?);
        line(
            "connect, accept and close",
            each(2000, || {
                let near = TcpStream::connect(address)?;
                drop((near, listener.accept()?));
                Ok(())
            })?,
        );
        Ok(())
    }
}

struct Pair {
    client: ClientConnection,
    server: ServerConnection,
}

/// Time that each side of handshakes took.
#[derive(Default)]
struct Sides {
    client: Duration,
    server: Duration,
}

/// Hands a connection what the other wrote.
fn take<Data>(
    connection: &mut rustls::ConnectionCommon<Data>,
    mut wire: &[u8],
) -> anyhow::Result<()> {
    while !wire.is_empty() {
        connection.read_tls(&mut wire)?;
        connection.process_new_packets()?;
    }
    Ok(())
}

/// Replaces what is in `wire` by what a connection has to say.
fn write<Data>(
    connection: &mut rustls::ConnectionCommon<Data>,
    wire: &mut Vec<u8>,
) -> anyhow::Result<()> {
    wire.clear();
    while connection.wants_write() {
        connection.write_tls(wire)?;
    }
    Ok(())
}

/// The mean of so many times.
fn each(times: u32, mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    for _ in 0..times {
        work()?;
    }
    Ok(begin.elapsed() / times)
}

fn line(what: &str, took: Duration) {
    let seconds = took.as_secs_f64();
    println!(
        "{what:<48} {:>9.2} us {:>10.0} /s",
        seconds * 1e6,
        1.0 / seconds
    );
}
