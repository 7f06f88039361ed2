//! The socket as the wire client sees it: one response a request, nothing behind it.
//!
//! Owns the socket (plain or TLS) and applies `framing` to what is read. It reports what happened to the attempt through
//! [`Conn`], because the wire client does not say which of its pooled sockets a request used. A socket that must not be used
//! again reads as closed, which is how the pool finds out.

use super::framing::{Fault, Feed, Framing};
use crate::net::socket::Socket;
use actix_rt::net::{ActixStream, Ready};
use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes looked for in one read while a request is still going out.
const EARLY_READ_BYTES: usize = 4 * 1024;

/// What became of the request on one connection.
#[derive(Debug, Default)]
pub(super) struct Conn {
    /// Requests sent before this one.
    pub(super) reused: Cell<bool>,
    /// A byte of the answer has arrived.
    pub(super) answered: Cell<bool>,
    /// The answer has been read to its end.
    pub(super) done: Cell<bool>,
    /// The connection reads as closed from now on.
    pub(super) closed: Cell<bool>,
    pub(super) fault: Cell<Option<Fault>>,
}

/// Where a connection leaves its [`Conn`] when a request starts; whoever polls that request picks it up.
#[derive(Debug, Default)]
pub(super) struct Touched(RefCell<Option<Rc<Conn>>>);

impl Touched {
    pub(super) fn take(&self) -> Option<Rc<Conn>> {
        self.0.take()
    }
}

/// A socket with the rules of one response a request.
#[derive(Debug)]
pub(super) struct Guarded {
    socket: Socket,
    framing: Framing,
    conn: Rc<Conn>,
    touched: Rc<Touched>,
    /// Response bytes already taken from the socket.
    ready: Vec<u8>,
    ready_at: usize,
    requests: u32,
    /// The peer takes no more of the request; the rest of it is discarded.
    unwanted: bool,
    /// Why sending stopped; the system tells it only once, and reading may see a plain end.
    lost: Option<io::Error>,
    /// How reading ended while the request was still going out.
    ended: Option<io::Result<()>>,
}

impl Guarded {
    pub(super) fn new(socket: Socket, touched: Rc<Touched>) -> Self {
        Self {
            socket,
            framing: Framing::new(),
            conn: Rc::new(Conn::default()),
            touched,
            ready: Vec::new(),
            ready_at: 0,
            requests: 0,
            unwanted: false,
            lost: None,
            ended: None,
        }
    }

    /// A request starts: tells the attempt which connection it got.
    fn begin(&mut self) {
        if self.framing.begin() {
            self.conn.reused.set(self.requests > 0);
            self.conn.answered.set(false);
            self.conn.done.set(false);
            self.requests = self.requests.saturating_add(1);
            self.touched.0.replace(Some(Rc::clone(&self.conn)));
        }
    }

    /// Applies the rules to bytes from the wire.
    fn take(&mut self, data: &[u8]) -> io::Result<Feed> {
        self.conn.answered.set(true);
        let feed = self.framing.feed(data).map_err(|fault| {
            self.conn.fault.set(Some(fault));
            self.conn.closed.set(true);
            io::Error::new(io::ErrorKind::InvalidData, fault)
        })?;
        self.conn.done.set(!self.framing.is_reading());
        if self.framing.is_last() {
            self.conn.closed.set(true);
        }
        Ok(feed)
    }

    fn hand_out(&mut self, buf: &mut ReadBuf<'_>) {
        let n = buf.remaining().min(self.ready.len() - self.ready_at);
        buf.put_slice(&self.ready[self.ready_at..self.ready_at + n]);
        self.ready_at += n;
        if self.ready_at == self.ready.len() {
            self.ready = Vec::new();
            self.ready_at = 0;
        }
    }

    /// The peer may answer without wanting the whole request: looks for that while sending is stuck.
    fn early_answer(&mut self, cx: &mut Context<'_>) -> bool {
        let mut bytes = [0; EARLY_READ_BYTES];
        while self.ready.is_empty() && self.ended.is_none() {
            let mut buf = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.socket).poll_read(cx, &mut buf) {
                Poll::Pending => return false,
                Poll::Ready(Err(error)) => self.ended = Some(Err(error)),
                Poll::Ready(Ok(())) if buf.filled().is_empty() => self.ended = Some(Ok(())),
                Poll::Ready(Ok(())) => match self.take(buf.filled()) {
                    Ok(Feed::Pass(from, to)) => self.ready.extend_from_slice(&buf.filled()[from..to]),
                    Ok(Feed::Held(held)) => self.ready = held,
                    Ok(Feed::Nothing) => {}
                    Err(error) => self.ended = Some(Err(error)),
                },
            }
        }
        self.give_up_sending();
        true
    }

    fn give_up_sending(&mut self) {
        self.unwanted = true;
        self.conn.closed.set(true);
    }

    fn is_gone(error: &io::Error) -> bool {
        matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted)
    }
}

impl AsyncRead for Guarded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.ready.is_empty() {
                this.hand_out(buf);
                return Poll::Ready(Ok(()));
            }
            if let Some(ended) = this.ended.take() {
                return Poll::Ready(ended);
            }
            // Between requests the pool looks whether the socket still lives; a bad one must look dead.
            if this.conn.closed.get() && !this.framing.is_reading() {
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.socket).poll_read(cx, buf))?;
            if buf.filled().len() == before {
                this.conn.closed.set(true);
                return Poll::Ready(this.lost.take().map_or(Ok(()), Err));
            }
            let due = this.framing.is_reading();
            let length = buf.filled().len() - before;
            match this.take(&buf.filled()[before..])? {
                Feed::Pass(0, to) if to == length => return Poll::Ready(Ok(())),
                Feed::Pass(from, to) => {
                    buf.filled_mut().copy_within(before + from..before + to, before);
                    buf.set_filled(before + to - from);
                }
                Feed::Held(held) => {
                    buf.set_filled(before);
                    this.ready = held;
                    continue;
                }
                Feed::Nothing => buf.set_filled(before),
            }
            // No byte passed: more is needed, unless none was due, which reads as the end.
            if buf.filled().len() > before || !due {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.begin();
        if this.unwanted {
            return Poll::Ready(Ok(buf.len()));
        }
        match Pin::new(&mut this.socket).poll_write(cx, buf) {
            // An answer may already wait behind the closed door; reading tells, and brings the error if not.
            Poll::Ready(Err(error)) if Self::is_gone(&error) => {
                this.give_up_sending();
                this.lost = Some(error);
                Poll::Ready(Ok(buf.len()))
            }
            Poll::Pending if this.early_answer(cx) => Poll::Ready(Ok(buf.len())),
            other => other,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.unwanted {
            return Poll::Ready(Ok(()));
        }
        match Pin::new(&mut this.socket).poll_flush(cx) {
            Poll::Ready(Err(error)) if Self::is_gone(&error) => {
                this.give_up_sending();
                this.lost = Some(error);
                Poll::Ready(Ok(()))
            }
            Poll::Pending if this.early_answer(cx) => Poll::Ready(Ok(())),
            other => other,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

impl ActixStream for Guarded {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_read_ready(self.socket.tcp(), cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_write_ready(self.socket.tcp(), cx)
    }
}
