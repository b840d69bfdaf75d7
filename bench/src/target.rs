//! What is driven: a tunnel (TCP, CONNECT where there is a proxy, TLS), and exchanges inside it.

use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::http1::Http1;
use crate::http2::Http2;
use crate::process::Tree;
use crate::tls;

/// What the upstream is shown where nothing between here and there puts a credential in.
pub(crate) const OWN_CREDENTIAL: &str = "Bearer direct";

/// What is uploaded, over and over.
pub(crate) static BLOCK: [u8; 64 << 10] = [b'u'; 64 << 10];

pub(crate) type Tls = TlsStream<TcpStream>;

#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// Open tunnels with CONNECT, by the proxy on this port of loopback
    #[arg(
        long,
        value_name = "PORT",
        conflicts_with = "direct",
        required_unless_present = "direct"
    )]
    proxy: Option<u16>,
    /// Speak TLS at once, to this port of loopback
    #[arg(long, value_name = "PORT")]
    direct: Option<u16>,
    /// The upstream's name
    #[arg(long, value_name = "NAME", default_value = "api.test")]
    host: String,
    /// The upstream's port
    #[arg(long, value_name = "PORT", default_value_t = 18443)]
    port: u16,
    /// Roots to trust
    #[arg(long, value_name = "FILE", value_delimiter = ',', required = true)]
    ca: Vec<PathBuf>,
    /// Send a credential, because nobody injects one
    #[arg(long)]
    auth: bool,
    /// Speak HTTP/2
    #[arg(long)]
    h2: bool,
    /// Resume TLS sessions
    #[arg(long)]
    resume: bool,
    /// The process whose CPU time and memory are read, with its descendants
    #[arg(long, value_name = "PID")]
    pid: Option<i32>,
}

/// Where tunnels lead, and through what.
pub(crate) struct Target {
    args: TargetArgs,
    tls: TlsConnector,
    pub(crate) measured: Option<Tree>,
}

/// An open tunnel.
pub(crate) enum Connection {
    Http1(Box<Http1>),
    Http2(Http2),
}

/// One request: a GET, unless it uploads.
pub(crate) struct Request<'a> {
    pub(crate) path: &'a str,
    pub(crate) upload: Option<Upload<'a>>,
}

/// The body of a POST.
pub(crate) struct Upload<'a> {
    pub(crate) size: u64,
    /// Bytes that were sent so far, of this and of earlier ones.
    pub(crate) sent: &'a Cell<u64>,
}

impl Target {
    pub(crate) fn new(args: TargetArgs) -> anyhow::Result<Self> {
        let mut config = tls::client(&args.ca, args.resume)?;
        config.alpn_protocols = vec![if args.h2 {
            b"h2".to_vec()
        } else {
            b"http/1.1".to_vec()
        }];
        let measured = args.pid.map(Tree::of);
        Ok(Self {
            args,
            tls: TlsConnector::from(Arc::new(config)),
            measured,
        })
    }

    pub(crate) async fn open(&self) -> io::Result<Connection> {
        self.open_to(&self.args.host).await
    }

    pub(crate) async fn open_to(&self, host: &str) -> io::Result<Connection> {
        let authority = format!("{host}:{}", self.args.port);
        let tls = self.tunnel(host, &authority).await?;
        let credential = self.args.auth.then_some(OWN_CREDENTIAL);
        if !self.args.h2 {
            return Ok(Connection::Http1(Box::new(Http1::new(
                tls, &authority, credential,
            ))));
        }
        if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other("no HTTP/2 was agreed on"));
        }
        Http2::new(tls, authority, credential)
            .await
            .map(Connection::Http2)
    }

    pub(crate) async fn websocket(&self, path: &str) -> io::Result<WebSocketStream<Tls>> {
        let authority = format!("{}:{}", self.args.host, self.args.port);
        let tls = self.tunnel(&self.args.host, &authority).await?;
        let mut request = format!("wss://{authority}{path}")
            .into_client_request()
            .map_err(io::Error::other)?;
        if self.args.auth {
            request
                .headers_mut()
                .insert("authorization", HeaderValue::from_static(OWN_CREDENTIAL));
        }
        let (socket, _) = tokio_tungstenite::client_async(request, tls)
            .await
            .map_err(io::Error::other)?;
        Ok(socket)
    }

    async fn tunnel(&self, host: &str, authority: &str) -> io::Result<Tls> {
        let port = self.args.proxy.or(self.args.direct).unwrap_or_default();
        let mut tcp = TcpStream::connect(("127.0.0.1", port)).await?;
        tcp.set_nodelay(true)?;
        if self.args.proxy.is_some() {
            connect(&mut tcp, authority).await?;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        self.tls.connect(name, tcp).await
    }
}

async fn connect(tcp: &mut TcpStream, authority: &str) -> io::Result<()> {
    let head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    tcp.write_all(head.as_bytes()).await?;
    let mut answer = Vec::with_capacity(2048);
    while !answer.ends_with(b"\r\n\r\n") {
        if tcp.read_buf(&mut answer).await? == 0 {
            return Err(io::Error::other("the answer to CONNECT broke off"));
        }
    }
    if answer.get(8..12) != Some(b" 200") {
        return Err(io::Error::other(format!(
            "CONNECT: {}",
            String::from_utf8_lossy(&answer)
        )));
    }
    Ok(())
}

impl Connection {
    /// Another handle on the same connection, where it is one that can carry several requests at once.
    pub(crate) fn shared(&self) -> Option<Self> {
        match self {
            Connection::Http1(_) => None,
            Connection::Http2(connection) => Some(Connection::Http2(connection.clone())),
        }
    }

    /// Sends the request and reads the answer, whose body `on` sees. Any status but 200 is an error.
    pub(crate) async fn exchange(
        &mut self,
        request: &Request<'_>,
        on: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let status = match self {
            Connection::Http1(connection) => connection.exchange(request, on).await?,
            Connection::Http2(connection) => connection.exchange(request, on).await?,
        };
        if status == 200 {
            Ok(())
        } else {
            Err(io::Error::other(format!("status {status}")))
        }
    }

    pub(crate) async fn get(&mut self, path: &str) -> io::Result<()> {
        self.exchange(&Request { path, upload: None }, |_| ()).await
    }

    /// Says goodbye in TLS, so that no proxy has to take the end for a cut.
    pub(crate) async fn close(self) {
        if let Connection::Http1(connection) = self {
            connection.close().await;
        }
    }
}
