//! An HTTP/1.1 client of few instructions, since what the load takes is missing to the upstream beside it.

use std::io;
use std::str;

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::target::{BLOCK, Request, Tls};

/// A connection that is kept.
pub(crate) struct Http1 {
    tls: Tls,
    /// What was read and not used yet.
    read: BytesMut,
    /// The fields of every request.
    fields: String,
}

/// How the end of an answer's body is known (RFC 9112, section 6.3).
enum Length {
    Exact(u64),
    Chunked,
    ToTheEnd,
}

impl Http1 {
    pub(crate) fn new(tls: Tls, authority: &str, credential: Option<&str>) -> Self {
        let mut fields = format!("Host: {authority}\r\nUser-Agent: eload\r\nAccept: */*\r\n");
        if let Some(credential) = credential {
            fields.push_str(&format!("Authorization: {credential}\r\n"));
        }
        Self {
            tls,
            read: BytesMut::new(),
            fields,
        }
    }

    /// The answer's status.
    pub(crate) async fn exchange(
        &mut self,
        request: &Request<'_>,
        mut on: impl FnMut(&[u8]),
    ) -> io::Result<u16> {
        self.send(request).await?;
        let head = self.until(b"\r\n\r\n").await?;
        let (status, length) = parsed(&head)?;
        match length {
            Length::Exact(length) => self.body(length, &mut on).await?,
            Length::Chunked => self.chunks(&mut on).await?,
            Length::ToTheEnd => loop {
                on(&self.read);
                self.read.clear();
                if self.fill().await? == 0 {
                    break;
                }
            },
        }
        Ok(status)
    }

    pub(crate) async fn close(mut self) {
        let _ = self.tls.shutdown().await;
    }

    async fn send(&mut self, request: &Request<'_>) -> io::Result<()> {
        let (path, fields) = (request.path, &self.fields);
        let head = match &request.upload {
            None => format!("GET {path} HTTP/1.1\r\n{fields}\r\n"),
            Some(upload) => format!(
                "POST {path} HTTP/1.1\r\n{fields}Content-Length: {}\r\n\r\n",
                upload.size
            ),
        };
        self.tls.write_all(head.as_bytes()).await?;
        if let Some(upload) = &request.upload {
            let mut left = upload.size;
            while left > 0 {
                let some = BLOCK.get(..left as usize).unwrap_or(&BLOCK);
                let sent = self.tls.write(some).await? as u64;
                upload.sent.set(upload.sent.get() + sent);
                left -= sent;
            }
        }
        self.tls.flush().await
    }

    async fn chunks(&mut self, on: &mut impl FnMut(&[u8])) -> io::Result<()> {
        loop {
            let line = self.until(b"\r\n").await?;
            let size = str::from_utf8(&line)
                .ok()
                .and_then(|line| line.trim().split(';').next());
            let size = size.and_then(|size| u64::from_str_radix(size, 16).ok());
            let size = size.ok_or_else(|| io::Error::other("a chunk without a size"))?;
            self.body(size, on).await?;
            self.until(b"\r\n").await?;
            if size == 0 {
                return Ok(());
            }
        }
    }

    async fn body(&mut self, mut left: u64, on: &mut impl FnMut(&[u8])) -> io::Result<()> {
        while left > 0 {
            if self.read.is_empty() {
                self.more().await?;
            }
            let piece = self.read.split_to(
                self.read
                    .len()
                    .min(usize::try_from(left).unwrap_or(usize::MAX)),
            );
            on(&piece);
            left -= piece.len() as u64;
        }
        Ok(())
    }

    /// All up to and with `mark`.
    async fn until(&mut self, mark: &[u8]) -> io::Result<Bytes> {
        loop {
            if let Some(at) = memmem::find(&self.read, mark) {
                return Ok(self.read.split_to(at + mark.len()).freeze());
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> io::Result<()> {
        if self.fill().await? == 0 {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            Ok(())
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.read.reserve(BLOCK.len());
        self.tls.read_buf(&mut self.read).await
    }
}

/// Of an answer's head, its status and the length of the body.
fn parsed(head: &[u8]) -> io::Result<(u16, Length)> {
    let head = str::from_utf8(head).map_err(io::Error::other)?;
    let status = head.get(9..12).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("an answer without a status"))?;
    let mut length = Length::ToTheEnd;
    for (name, value) in head.lines().filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = Length::Exact(value.trim().parse().map_err(io::Error::other)?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Ok((status, Length::Chunked));
        }
    }
    Ok((status, length))
}
