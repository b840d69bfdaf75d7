//! `egress relay`: a port of this machine that leads to a Unix socket, for a machine that shares a socket with its host
//! and no network. It looks at nothing that it carries.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, UnixStream};

use super::Failure;

/// Arguments of `egress relay`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where clients connect, on loopback
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The Unix socket that they are connected to
    #[arg(long, value_name = "PATH")]
    to: PathBuf,
    /// A file that is made once clients can connect
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  egress relay --listen 127.0.0.1:8080 --to /run/egress/proxy.sock
  HTTPS_PROXY=http://127.0.0.1:8080 curl https://api.example.com/

It is for places that can share a socket and no network, such as a machine of smolvm without an
interceptor.";

/// Runs the relay until it is ended.
///
/// # Errors
///
/// A [`Failure`].
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    if !args.listen.ip().is_loopback() {
        let error = anyhow!("--listen {}: not a loopback address", args.listen);
        return Err(Failure::usage(error)
            .hint("whoever reaches the port reaches the sidecar; name 127.0.0.1:PORT"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::runtime)?;
    runtime.block_on(serve(args)).map_err(Failure::runtime)?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: &Args) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    if let Some(path) = &args.ready_file {
        std::fs::write(path, "").with_context(|| format!("cannot write {}", path.display()))?;
    }
    loop {
        let Ok((mut client, _)) = listener.accept().await else {
            // Out of descriptors, for one: connections that end give some back.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let to = args.to.clone();
        tokio::spawn(async move {
            // A sidecar that is gone is a connection that ends.
            if let Ok(mut sidecar) = UnixStream::connect(&to).await {
                _ = copy_bidirectional(&mut client, &mut sidecar).await;
            }
        });
    }
}
