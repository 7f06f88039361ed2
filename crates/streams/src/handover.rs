//! How a stream takes its connection over from the server once the head of its answer is out.
//!
//! A server's connection keeps buffers, timers and a parser for the next request, several pages of memory that an endless
//! stream never needs again, and it copies every chunk. So the server is handed a [`Wire`] in place of the socket: when the
//! head is flushed and a stream waits for the connection, the wire tells the server that the peer is gone, the server lets go of
//! everything it has, and [`Connection::stream`] goes on with the socket alone. The wire also sees where heads of requests begin
//! ([`heads`]), so that one that does not end can be given up, a connection that nobody uses, and an answer that nobody
//! takes. Knows nothing of events.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::chunk::Wrapping;
use super::client::Client;
use super::socket;
use super::websocket::Session;
use super::writer::Writer;

mod allowance;
mod heads;
mod wire;

use allowance::Allowance;
use heads::Heads;
pub use heads::{BodyEnd, Wait};
pub use wire::Wire;

/// What is said to whoever does not end the head of a request in time.
const LATE_HEAD: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// One accepted connection, shared by the server's side of it and by the stream that may take it over. Cheap to clone.
#[derive(Clone)]
pub struct Connection(Rc<Shared>);

struct Shared {
    /// Gone once a stream has it.
    socket: RefCell<Option<TcpStream>>,
    /// The stream that waits for the head to be out.
    next: RefCell<Option<(Client, Speaking)>>,
    /// Whether the head of the stream's answer stands in the server's write buffer, or is out.
    head_written: Cell<bool>,
    /// Whether the server has nothing to do with the socket any more.
    taken: Cell<bool>,
    heads: RefCell<Heads>,
    /// Whether the server wrote something and has more to write.
    is_writing: Cell<bool>,
    /// Counts how often the socket took bytes.
    writes: Cell<u32>,
    /// The count of those at which the system was last asked whether the socket takes more, and whether that is still to be done.
    asked_at: Cell<Option<u32>>,
    asks: Cell<bool>,
    /// Whether an answer of the handlers ended and may stand in the server's write buffer.
    has_answered: Cell<bool>,
    allowance: Allowance,
}

/// What is spoken on the connection.
enum Speaking {
    /// The rest of an answer.
    Body(Wrapping),
    /// Frames, in both directions.
    WebSocket(Box<Session>),
}

impl Connection {
    /// A connection that the server has.
    #[must_use]
    pub fn new(socket: TcpStream) -> Self {
        Self(Rc::new(Shared {
            socket: RefCell::new(Some(socket)),
            next: RefCell::default(),
            head_written: Cell::new(false),
            taken: Cell::new(false),
            heads: RefCell::default(),
            is_writing: Cell::new(false),
            writes: Cell::new(0),
            asked_at: Cell::default(),
            asks: Cell::new(false),
            has_answered: Cell::new(false),
            allowance: Allowance::default(),
        }))
    }

    /// What the server reads and writes.
    #[must_use]
    pub fn wire(&self) -> Wire {
        Wire::new(self.clone())
    }

    /// A request begins, whose head has at least so many bytes; dropping what is returned says that its answer is written.
    #[must_use]
    pub fn begin(&self, body: BodyEnd, head_bytes: impl FnOnce() -> u64) -> UnderWay {
        self.0.heads.borrow_mut().begin(body);
        self.0.allowance.begin(body, head_bytes);
        UnderWay(self.clone())
    }

    /// Whether the server is to be asked again at once, because it may read now what it was not let before. To be asked after each
    /// turn of the server: nothing else changes it, and the socket wakes nobody for what was not read.
    #[must_use]
    pub fn reads_on(&self) -> bool {
        !self.0.is_writing.get() && self.0.allowance.goes_on()
    }

    /// Says whether a handler waits for more of the body under way, one of unknown length.
    pub fn want_body(&self, wants: bool) {
        self.0.allowance.want_body(wants);
    }

    /// What is waited for; `None` while a request is under way and all of its answer that is there is out.
    #[must_use]
    pub fn waits_for(&self) -> Option<Wait> {
        if self.0.is_writing.get() {
            // An answer that is still being read is not cut for what comes behind it.
            return Some(Wait::Taking(self.0.writes.get()));
        }
        self.0.heads.borrow().waiting()
    }

    /// Whether to wait for one more turn of the server, in which the system is asked whether the socket takes more of an answer. The
    /// runtime is told so only when a third of a full socket is free, and not at all while the process stands still.
    #[must_use]
    pub fn asks(&self, wait: Wait) -> bool {
        let Wait::Taking(writes) = wait else { return false };
        let is_new = self.0.asked_at.replace(Some(writes)) != Some(writes);
        self.0.asks.set(is_new);
        is_new
    }

    /// Gives up what was waited for, unless something came meanwhile that nobody had the time to read; whether it did. A head that
    /// is late is told so, a connection that nobody uses ends without a word, and an answer that is not taken with a reset.
    #[must_use]
    pub fn give_up(&self, wait: Wait) -> bool {
        let Some(socket) = &*self.0.socket.borrow() else { return true };
        match wait {
            // The system would go on offering what lies in its own buffer; if it refuses, that is all that it does.
            Wait::Taking(_) => drop(socket.set_zero_linger()),
            Wait::Head(_) | Wait::Request(_) if has_unread(socket) => return false,
            // To be told is a courtesy: who does not take it is cut all the same.
            Wait::Head(_) => drop(socket.try_write(LATE_HEAD)),
            Wait::Request(_) => {}
        }
        true
    }

    /// Goes on with the stream that took the connection over, until it ends; at once when there is none. To be awaited when
    /// the server is done with the [`Wire`].
    pub async fn stream(self) {
        if !self.0.taken.get() {
            return;
        }
        let (client, socket) = (self.0.next.take(), self.0.socket.take());
        drop(self);
        let Some(((client, speaking), socket)) = client.zip(socket) else { return };
        match speaking {
            Speaking::Body(wrapping) => Writer::new(client, socket, wrapping, None).await,
            Speaking::WebSocket(session) => Writer::new(client, socket, Wrapping::Bare, Some(session)).await,
        }
    }

    /// Has a peer that is sent nothing for long asked whether it is there.
    pub(super) fn probe(&self) {
        if let Some(Err(error)) = self.0.socket.borrow().as_ref().map(socket::probe) {
            tracing::debug!(%error, "a socket takes no probes");
        }
    }

    /// Gives the connection to a stream; what is returned is the body of the answer whose head goes out first.
    pub(super) fn give_to(&self, client: Client, wrapping: Wrapping) -> Handover {
        self.give(client, Speaking::Body(wrapping))
    }

    /// Gives the connection to a stream and to what its client says.
    pub(super) fn give_to_socket(&self, client: Client, session: Session) -> Handover {
        self.give(client, Speaking::WebSocket(Box::new(session)))
    }

    fn give(&self, client: Client, speaking: Speaking) -> Handover {
        self.0.next.replace(Some((client, speaking)));
        Handover(self.clone())
    }

    /// What to say in place of these bytes, when they are the server's own refusal of a head that it cannot read: it closes the
    /// connection behind that, and says so only when the head was the first.
    fn own_refusal(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let shared = &self.0;
        let is_own = !shared.has_answered.get() && !shared.is_writing.get() && shared.heads.borrow().is_between();
        let head =
            bytes.strip_suffix(b"\r\n").filter(|head| is_own && head.starts_with(b"HTTP/1.1 4") && head.ends_with(b"\r\n"))?;
        Some([head, b"connection: close\r\n\r\n"].concat())
    }

    fn on_socket<T>(
        &self,
        poll: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>,
        without: io::Result<T>,
    ) -> Poll<io::Result<T>> {
        if self.0.taken.get() {
            return Poll::Ready(without);
        }
        match self.0.socket.borrow_mut().as_mut() {
            Some(socket) => poll(Pin::new(socket)),
            None => Poll::Ready(without),
        }
    }
}

/// Whether bytes lie in a socket; asked of the system, because the runtime may not know of them yet.
fn has_unread(socket: &TcpStream) -> bool {
    SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]).is_ok_and(|bytes| bytes > 0)
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("taken", &self.0.taken.get()).finish_non_exhaustive()
    }
}

/// A request that is with the handlers, or whose answer is being written.
#[derive(Debug)]
pub struct UnderWay(Connection);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.heads.borrow_mut().end();
        self.0.0.allowance.end();
        self.0.0.has_answered.set(true);
    }
}

/// The body of an answer whose stream goes on without the server: says nothing, and marks that the head is written.
pub(super) struct Handover(Connection);

impl MessageBody for Handover {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.0.0.head_written.set(true);
        Poll::Pending
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        if !self.0.0.taken.get() {
            // The answer was dropped before its head was out.
            let unused = self.0.0.next.take();
            drop(unused);
        }
    }
}
