//! A connection that is not read before something was written.
//!
//! Owns that order only. Whoever accepts may answer at once, as a server does that is at its limit; the HTTP library would take
//! bytes that are there before its request for a broken connection, and the answer would be lost with its `Retry-After`.

use crate::socket::Socket;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A [`Socket`] that has nothing to read until something was written.
pub(super) struct Asking {
    socket: Socket,
    has_written: bool,
    /// Whoever wanted to read too early.
    reader: Option<Waker>,
}

impl Asking {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, has_written: false, reader: None }
    }

    /// The socket as it is.
    pub(super) fn into_socket(self) -> Socket {
        self.socket
    }
}

impl AsyncRead for Asking {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.has_written {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Asking {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // Whatever comes of it: the library knows by now that it asks, so what is read is an answer.
        self.has_written = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
