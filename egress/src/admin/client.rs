//! One question to a sidecar's admin socket, and its answer.

use std::error::Error as StdError;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

use super::{AdminAddress, Error};

/// Asks a sidecar's admin socket, and returns its answer.
///
/// # Errors
///
/// [`Error::Ask`], where nobody answers there.
pub fn ask(
    address: &AdminAddress,
    method: Method,
    path: &str,
) -> Result<(StatusCode, String), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(answer(address, method, path)),
        Err(error) => Err(Error::Ask {
            address: address.clone(),
            source: error.into(),
        }),
    }
}

/// The same, for who has a runtime.
///
/// # Errors
///
/// [`Error::Ask`], where nobody answers there.
pub async fn answer(
    address: &AdminAddress,
    method: Method,
    path: &str,
) -> Result<(StatusCode, String), Error> {
    let patience = match method {
        Method::POST => RELOAD_TIME,
        _ => ANSWER_TIME,
    };
    let answered = tokio::time::timeout(patience, exchange(address, method, path)).await;
    let answered = answered
        .unwrap_or_else(|_| Err(format!("no answer within {} s", patience.as_secs()).into()));
    answered.map_err(|source| Error::Ask {
        address: address.clone(),
        source,
    })
}

async fn exchange(
    address: &AdminAddress,
    method: Method,
    path: &str,
) -> Result<(StatusCode, String), Box<dyn StdError + Send + Sync>> {
    let (head, body) = send(address, method, path).await?.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
    Ok((head.status, String::from_utf8_lossy(&body).into_owned()))
}

/// Sends a request on a connection of its own, and returns the answer with its body still to come.
pub(super) async fn send(
    address: &AdminAddress,
    method: Method,
    path: &str,
) -> Result<Response<Incoming>, Box<dyn StdError + Send + Sync>> {
    let (stream, host) = match address {
        AdminAddress::Unix(path) => {
            let stream = UnixStream::connect(path).await?;
            (Either::Left(stream), "egress".to_owned())
        }
        AdminAddress::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            (Either::Right(stream), address.to_string())
        }
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", host)
        .body(Empty::<Bytes>::new())?;
    Ok(sender.send_request(request).await?)
}

const MAX_ANSWER: usize = 16 * 1024 * 1024;
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Routes are read and slots asked for meanwhile.
const RELOAD_TIME: Duration = Duration::from_secs(30);
