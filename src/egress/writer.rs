//! Writes a stream to the connection that it has for itself: one write a chunk, the chunk shared with its neighbours.
//!
//! It reads only to learn that the peer is gone. It holds no buffer of its own: while the socket takes nothing more, the rest
//! of one chunk waits here and the stream stands still in the log.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

use super::chunk::LAST_CHUNK;
use super::client::Client;

/// Bytes of what a peer still says that are thrown away at once.
const IGNORED_BYTES: usize = 512;

/// A stream and its connection; done when either has ended.
pub(super) struct Writer {
    client: Client,
    socket: TcpStream,
    /// What is being written.
    unsent: Bytes,
    ended: bool,
}

impl Writer {
    pub(super) fn new(client: Client, socket: TcpStream) -> Self {
        Self { client, socket, unsent: Bytes::new(), ended: false }
    }

    /// Writes until the stream has nothing, the socket takes nothing, or all is over: only then it is ready.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            while !self.unsent.is_empty() {
                match ready!(Pin::new(&mut self.socket).poll_write(cx, &self.unsent)) {
                    Ok(written) if written > 0 => self.unsent.advance(written),
                    _ => return Poll::Ready(()),
                }
            }
            // What was shared is let go before anything is waited for.
            self.unsent = Bytes::new();
            if self.ended {
                return Pin::new(&mut self.socket).poll_shutdown(cx).map(drop);
            }
            match ready!(self.client.poll_chunk(cx)) {
                Some(Ok(chunk)) => self.unsent = chunk,
                Some(Err(_)) => return Poll::Ready(()),
                None => {
                    self.ended = true;
                    self.unsent = LAST_CHUNK;
                }
            }
        }
    }

    /// Ready when the peer sends no more: nothing else tells an abandoned stream from a quiet one.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if !matches!(ready!(self.socket.poll_read_ready(cx)), Ok(())) {
                return Poll::Ready(());
            }
            let mut bytes = [0; IGNORED_BYTES];
            let mut ignored = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut ignored));
            if read.is_err() || ignored.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

impl Future for Writer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.poll_send(cx).is_ready() { Poll::Ready(()) } else { this.poll_gone(cx) }
    }
}
