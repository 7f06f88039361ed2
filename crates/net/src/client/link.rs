//! One connection, and one POST on it: bytes out, one answer in.
//!
//! Owns the order of sending and reading (an endpoint may answer before it has read everything), and whether the connection
//! may be used again. `framing` says where the answer ends. Must not retry, dial or keep time.

use super::answer::{Reply, WireFailure, named};
use super::framing::Framing;
use super::request::PostRequest;
use super::{BODY_READ_BYTES_MAX, WireAnswer};
use awc::BoxedSocket;
use bytes::{Buf as _, Bytes};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

/// Taken from the socket at once; an ordinary answer is smaller, and the socket then knows without asking that it is empty.
const READ_BYTES: usize = 4 * 1024;

/// A connection that has not been found broken.
pub(super) struct Link {
    socket: BoxedSocket,
    framing: Framing,
    /// Whether a request was answered on it before.
    is_used: bool,
    /// When its newest answer ended.
    pub(super) idle_since: Instant,
}

impl Link {
    pub(super) fn new(socket: BoxedSocket, now: Instant) -> Self {
        Self { socket, framing: Framing::new(), is_used: false, idle_since: now }
    }

    /// Whether nothing has happened on the connection while it was idle: neither bytes that nobody asked for, nor its end.
    pub(super) fn is_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        let mut byte = [0];
        Pin::new(&mut self.socket).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_pending()
    }
}

/// A POST under way on a link.
pub(super) struct Exchange {
    link: Link,
    /// What of the head (and of a small body) the socket has not taken.
    unsent: Bytes,
    /// A large body, to follow it.
    body: Bytes,
    is_sent: bool,
    /// The connection must not carry another request.
    is_spoiled: bool,
    /// A byte of an answer has arrived.
    is_answered: bool,
    /// Why sending stopped; the system tells it only once, and reading may see a plain end.
    lost: Option<io::Error>,
    reply: Reply,
    body_read_bytes: usize,
}

impl Exchange {
    pub(super) fn new(mut link: Link) -> Self {
        link.framing.begin();
        Self {
            link,
            unsent: Bytes::new(),
            body: Bytes::new(),
            is_sent: false,
            is_spoiled: false,
            is_answered: false,
            lost: None,
            reply: Reply::default(),
            body_read_bytes: 0,
        }
    }

    /// Sends as much as the socket takes at once; `scratch` is only borrowed for building the request.
    pub(super) fn begin(&mut self, cx: &mut Context<'_>, request: &PostRequest<'_>, scratch: &mut Vec<u8>) {
        scratch.clear();
        self.body = request.write(scratch);
        let mut sent = 0;
        while sent < scratch.len() {
            match Pin::new(&mut self.link.socket).poll_write(cx, &scratch[sent..]) {
                Poll::Ready(Ok(0)) => return self.stop_sending(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(bytes)) => sent += bytes,
                Poll::Ready(Err(error)) => return self.stop_sending(error),
                Poll::Pending => {
                    self.unsent = Bytes::copy_from_slice(&scratch[sent..]);
                    return;
                }
            }
        }
    }

    /// Ready once the head of the answer is known.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireFailure>> {
        loop {
            // Whatever comes of sending: the endpoint may answer without wanting the rest.
            if !self.is_sent {
                let _ = self.poll_send(cx);
            }
            match ready!(self.poll_read(cx)) {
                Ok(true) if self.reply.has_head() => return Poll::Ready(Ok(())),
                Ok(true) => {}
                Ok(false) => return Poll::Ready(Err(self.lost.take().map_or(WireFailure::Eof, |error| named(&error)))),
                Err(failure) => return Poll::Ready(Err(failure)),
            }
        }
    }

    /// Whether there is more of the answer to come.
    pub(super) fn is_reading(&self) -> bool {
        self.link.framing.is_reading()
    }

    /// Ready once the body has ended, or as much of it was read as is worth it.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.link.framing.is_reading() && self.body_read_bytes < BODY_READ_BYTES_MAX {
            // However the body ends, the status has decided; the framing knows that it is not whole.
            let Ok(true) = ready!(self.poll_read(cx)) else { break };
        }
        Poll::Ready(())
    }

    /// Whether the connection died before it said anything, and had answered before: the endpoint may just have closed it.
    pub(super) fn is_stale(&self) -> bool {
        self.link.is_used && !self.is_answered
    }

    /// The answer, once its head is known, and the connection if it may be used again.
    pub(super) fn finish(self, now: Instant) -> (Option<WireAnswer>, Option<Link>) {
        let mut link = self.link;
        let is_clean = self.is_sent && !self.is_spoiled && !link.framing.is_reading() && !link.framing.is_last();
        link.is_used = true;
        link.idle_since = now;
        (self.reply.into_answer(), is_clean.then_some(link))
    }

    /// Ready when nothing is left to send, be it that the socket takes no more.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut socket = Pin::new(&mut self.link.socket);
        let sent = loop {
            let part = if self.unsent.is_empty() { &mut self.body } else { &mut self.unsent };
            if part.is_empty() {
                break ready!(socket.as_mut().poll_flush(cx));
            }
            match ready!(socket.as_mut().poll_write(cx, part)) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => part.advance(bytes),
                Err(error) => break Err(error),
            }
        };
        match sent {
            Ok(()) => self.is_sent = true,
            Err(error) => self.stop_sending(error),
        }
        Poll::Ready(())
    }

    /// An answer may already wait behind the closed door; reading tells, and brings the error if not.
    fn stop_sending(&mut self, error: io::Error) {
        self.is_sent = true;
        self.is_spoiled = true;
        self.lost = Some(error);
    }

    /// Takes bytes from the socket; `false` at its end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, WireFailure>> {
        let mut bytes = [const { MaybeUninit::<u8>::uninit() }; READ_BYTES];
        let mut buf = ReadBuf::uninit(&mut bytes);
        if let Err(error) = ready!(Pin::new(&mut self.link.socket).poll_read(cx, &mut buf)) {
            return Poll::Ready(Err(named(&error)));
        }
        let read = buf.filled();
        if read.is_empty() {
            return Poll::Ready(Ok(false));
        }
        self.is_answered = true;
        if self.reply.has_head() {
            self.body_read_bytes += read.len();
        }
        let taken = self.link.framing.feed(read, &mut self.reply);
        Poll::Ready(taken.map(|()| true).map_err(|fault| WireFailure::Protocol(fault.to_string())))
    }
}
