//! Requests that want to leave HTTP behind: the head of the answer, and the bare connection after a 101.
//!
//! Owns the step from an answer to a connection of bytes; bytes that came along with the answer are not lost. Must not know
//! the protocol that follows. Spec: RFC 9110 §7.8.

use std::future::poll_fn;
use std::io;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use futures_core::future::BoxFuture;
use hookcast_supervise::deadline::within;
use hyper::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{FetchError, FetchRequest, Fetcher, HeaderMap, handshake, message, translate};
use crate::socket::Socket;

/// Most bytes read at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// The answer to a request for another protocol.
#[derive(Debug)]
pub struct Upgrade {
    /// 101, or the status that refuses.
    pub status: u16,
    /// All headers, at most 64 KiB.
    pub headers: HeaderMap,
    /// The connection after a 101; `None` = refused, and closed.
    pub pipe: Option<Pipe>,
}

/// A vetted connection that has left HTTP behind; dropping it closes it.
#[derive(Debug)]
pub struct Pipe {
    socket: Socket,
    /// What came with the answer.
    early: Bytes,
    buffer: BytesMut,
}

impl Fetcher {
    /// Sends a request that asks for another protocol and waits for the head of the answer.
    ///
    /// # Errors
    /// See [`FetchError`]; every error is worth a later try.
    ///
    /// # Cancellation
    /// Dropping the future closes the connection.
    pub async fn upgrade(&self, request: FetchRequest<'_>) -> Result<Upgrade, FetchError> {
        let limit = request.head_timeout;
        within(limit, self.exchanging_upgrade(request)).await.unwrap_or(Err(FetchError::Timeout))
    }

    /// As one object, see [`Fetcher::fetch`].
    #[inline(never)]
    fn exchanging_upgrade<'a>(&'a self, request: FetchRequest<'a>) -> BoxFuture<'a, Result<Upgrade, FetchError>> {
        Box::pin(self.exchange_upgrade(request))
    }

    async fn exchange_upgrade(&self, request: FetchRequest<'_>) -> Result<Upgrade, FetchError> {
        let message = message(&request)?;
        let (mut sender, mut connection) = handshake(self.open(request.target).await?).await?;
        let mut is_over = false;
        let response = {
            let mut response = pin!(sender.send_request(message));
            poll_fn(|cx| {
                is_over = is_over || connection.poll_without_shutdown(cx).is_ready();
                response.as_mut().poll(cx)
            })
            .await
        };
        let (head, _) = response.map_err(|error| translate(&error))?.into_parts();
        let status = head.status.as_u16();
        if head.status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Upgrade { status, headers: head.headers, pipe: None });
        }
        if !is_over {
            poll_fn(|cx| connection.poll_without_shutdown(cx)).await.map_err(|error| translate(&error))?;
        }
        let parts = connection.into_parts();
        let pipe = Pipe { socket: parts.io.into_inner().into_socket(), early: parts.read_buf, buffer: BytesMut::new() };
        Ok(Upgrade { status, headers: head.headers, pipe: Some(pipe) })
    }
}

impl Pipe {
    /// The next bytes as they arrive; `None` at the end of the connection.
    ///
    /// # Errors
    /// The connection broke.
    ///
    /// # Cancellation
    /// Nothing is lost if the future is dropped.
    pub async fn next_chunk(&mut self) -> Option<io::Result<Bytes>> {
        if !self.early.is_empty() {
            return Some(Ok(std::mem::take(&mut self.early)));
        }
        self.buffer.reserve(CHUNK_BYTES);
        match self.socket.read_buf(&mut self.buffer).await {
            // A TLS connection that ends without saying so, as many do, is an end like any other here.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => Some(Err(error)),
            Ok(0) => None,
            Ok(_) => Some(Ok(self.buffer.split().freeze())),
        }
    }

    /// Writes all of `bytes`; there is no time limit here.
    ///
    /// # Errors
    /// The connection broke.
    ///
    /// # Cancellation
    /// Part of the bytes may have gone out: the connection is of no use any more.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await?;
        self.socket.flush().await
    }
}
