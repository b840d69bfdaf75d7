//! HTTP/2 by the h2 crate, whose windows are so wide that they hold nothing up.

use std::future::poll_fn;
use std::io;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::Method;

use crate::target::{BLOCK, Request, Tls};

/// A connection; clones share it.
#[derive(Clone)]
pub(crate) struct Http2 {
    send: SendRequest<Bytes>,
    authority: String,
    credential: Option<&'static str>,
}

impl Http2 {
    pub(crate) async fn new(
        tls: Tls,
        authority: String,
        credential: Option<&'static str>,
    ) -> io::Result<Self> {
        let mut builder = Builder::new();
        builder
            .initial_window_size(4 << 20)
            .initial_connection_window_size(16 << 20);
        let (send, connection) = builder.handshake(tls).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self {
            send,
            authority,
            credential,
        })
    }

    /// The answer's status.
    pub(crate) async fn exchange(
        &mut self,
        request: &Request<'_>,
        mut on: impl FnMut(&[u8]),
    ) -> io::Result<u16> {
        let head = self.head(request).map_err(io::Error::other)?;
        poll_fn(|context| self.send.poll_ready(context))
            .await
            .map_err(io::Error::other)?;
        let sent = self.send.send_request(head, request.upload.is_none());
        let (answer, mut body) = sent.map_err(io::Error::other)?;
        if let Some(upload) = &request.upload {
            let mut left = upload.size;
            while left > 0 {
                let want = BLOCK.get(..left as usize).unwrap_or(&BLOCK).len();
                body.reserve_capacity(want);
                let room = poll_fn(|context| body.poll_capacity(context)).await;
                let room = room
                    .ok_or(io::ErrorKind::BrokenPipe)?
                    .map_err(io::Error::other)?;
                let piece = BLOCK.get(..room.min(want)).unwrap_or(&BLOCK);
                left -= piece.len() as u64;
                body.send_data(Bytes::from_static(piece), left == 0)
                    .map_err(io::Error::other)?;
                upload.sent.set(upload.sent.get() + piece.len() as u64);
            }
        }
        let answer = answer.await.map_err(io::Error::other)?;
        let status = answer.status().as_u16();
        let mut body = answer.into_body();
        while let Some(piece) = body.data().await {
            let piece = piece.map_err(io::Error::other)?;
            body.flow_control()
                .release_capacity(piece.len())
                .map_err(io::Error::other)?;
            on(&piece);
        }
        Ok(status)
    }

    fn head(&self, request: &Request<'_>) -> http::Result<http::Request<()>> {
        let method = if request.upload.is_some() {
            Method::POST
        } else {
            Method::GET
        };
        let mut head = http::Request::builder()
            .method(method)
            .uri(format!("https://{}{}", self.authority, request.path))
            .header("user-agent", "eload")
            .header("accept", "*/*");
        if let Some(credential) = self.credential {
            head = head.header("authorization", credential);
        }
        if let Some(upload) = &request.upload {
            head = head.header("content-length", upload.size);
        }
        head.body(())
    }
}
