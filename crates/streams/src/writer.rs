//! Writes a stream to the connection that it has for itself: one write a chunk, the chunk shared with its neighbours.
//!
//! Most chunks are sent by the feeder itself, one client after the other; the task is woken when the socket is full, the stream ends or the
//! log has to be read. It reads only to learn that the peer is gone, or what a WebSocket client says. It holds no buffer of its own: while the socket takes nothing more, the rest
//! of one chunk waits here and the stream stands still in the log.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

use super::chunk::Wrapping;
use super::client::{Client, Found};
use super::sleepers::Served;
use super::websocket::{Ending, Session};
use hookcast_supervise::{Panic, catch};

/// Bytes of what a peer still says that are thrown away at once.
const IGNORED_BYTES: usize = 512;

/// A stream and its connection; done when either has ended.
pub(super) struct Writer(Rc<Sending>);

/// What the feeder serves without waking anybody: most of a task's turn would go into finding out that one chunk is to be sent. With
/// whether a panic left it in a state that nobody knows.
struct Sending(RefCell<State>, Cell<bool>);

struct State {
    client: Client,
    socket: TcpStream,
    wrapping: Wrapping,
    /// What is being written.
    unsent: Bytes,
    ended: bool,
    /// What a WebSocket client says; others say nothing.
    session: Option<Box<Session>>,
}

impl Writer {
    pub(super) fn new(client: Client, socket: TcpStream, wrapping: Wrapping, session: Option<Box<Session>>) -> Self {
        let state = State { client, socket, wrapping, unsent: Bytes::new(), ended: false, session };
        let sending = Rc::new(Sending(RefCell::new(state), Cell::new(false)));
        sending.0.borrow().client.set_served(Some(Rc::clone(&sending) as Rc<dyn Served>));
        Self(sending)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The place holds the client, and the client the place.
        self.0.0.borrow().client.set_served(None);
    }
}

impl Served for Sending {
    fn serve(&self) -> bool {
        let served = catch(|| self.0.try_borrow_mut().is_ok_and(|mut state| state.serve()));
        served.unwrap_or_else(|panic| {
            self.break_off(&panic);
            false
        })
    }
}

impl Sending {
    /// Ends a stream whose state nobody knows any more.
    fn break_off(&self, panic: &Panic) {
        panic.tell("stream", "this stream ends, no other does");
        self.1.set(true);
    }
}

impl State {
    /// Sends what the ring has as long as the socket takes it; whatever else is to be done is left to the task.
    fn serve(&mut self) -> bool {
        while self.unsent.is_empty() && !self.ended {
            match self.client.find() {
                Found::Nothing => return true,
                Found::Else => return false,
                Found::Chunk(mut chunk) => {
                    // What goes wrong here goes wrong for the task again, and there it counts.
                    chunk.advance(self.socket.try_write(&chunk).unwrap_or(0));
                    self.unsent = chunk;
                }
            }
        }
        false
    }

    /// Sends and hears what there is; ready when either side has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.poll_send(cx).is_ready() || self.poll_gone(cx).is_ready() {
                return Poll::Ready(());
            }
            let Some(session) = &mut self.session else { return Poll::Pending };
            if !session.take_news() {
                return session.poll_late(cx);
            }
        }
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
                let session = self.session.as_ref();
                if session.is_some_and(|session| !session.is_deaf()) {
                    return Poll::Pending;
                }
                let done = Pin::new(&mut self.socket).poll_shutdown(cx).map(drop);
                return if session.is_some_and(|session| session.is_lingering()) { Poll::Pending } else { done };
            }
            if let Some(session) = &mut self.session
                && let Some(frame) = session.next_frame()
            {
                self.unsent = frame;
                self.ended = session.is_closed();
                continue;
            }
            match (ready!(self.client.poll_chunk(cx, self.wrapping)), &mut self.session) {
                (Some(Ok(chunk)), _) => self.unsent = chunk,
                (Some(Err(_)), None) => return Poll::Ready(()),
                (Some(Err(_)), Some(session)) => session.end(Ending::Broken),
                (None, Some(session)) => session.end(self.client.ending()),
                (None, None) => {
                    self.ended = true;
                    self.unsent = self.wrapping.last();
                }
            }
        }
    }

    /// Ready when the peer sends no more: nothing else tells an abandoned stream from a quiet one. What a WebSocket client says
    /// is heard piece by piece, so that it can be answered before it is gone.
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
            let Some(session) = self.session.as_mut().filter(|session| !session.is_deaf()) else { continue };
            session.hear(ignored.filled_mut(), self.client.tick());
            if let Some(seq) = session.take_resume() {
                self.client.resume(seq);
            }
            return Poll::Pending;
        }
    }
}

impl Future for Writer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.1.get() {
            return Poll::Ready(());
        }
        catch(|| self.0.0.borrow_mut().poll(cx)).unwrap_or_else(|panic| {
            self.0.break_off(&panic);
            Poll::Ready(())
        })
    }
}
