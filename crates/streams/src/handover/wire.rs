//! The server's side of a [`Connection`]: what it reads and writes in place of the socket. Knows no timers.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Connection;

/// Most bytes of one read into a buffer that has space for more than may be read.
const PIECE_BYTES: usize = 16 * 1024;

/// The server's side of a [`Connection`]: the socket, until a stream has taken it.
#[derive(Debug)]
pub struct Wire(Connection);

impl Wire {
    pub(super) fn new(connection: Connection) -> Self {
        Self(connection)
    }

    /// The connection that this is a side of.
    #[must_use]
    pub fn connection(&self) -> Connection {
        self.0.clone()
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let shared = &self.0.0;
        let most = shared.allowance.left();
        // The server bounds no answers that have no body: who takes none is heard no further. That a peer is gone is then seen by
        // the write that waits; behind a request that is still answered, only when its answer is written.
        if shared.is_writing.get() || (most == 0 && !shared.taken.get()) {
            shared.allowance.hold();
            return Poll::Pending;
        }
        let before = space.filled().len();
        let read = self.0.on_socket(
            |socket| if space.remaining() > most { read_some(socket, cx, space, most) } else { socket.poll_read(cx, space) },
            Ok(()),
        );
        let bytes = &space.filled()[before..];
        shared.allowance.read(bytes.len());
        shared.heads.borrow_mut().read(bytes);
        read
    }
}

/// Reads less than there is space for: only into a buffer that grew with a body, or when little may be read.
#[inline(never)]
fn read_some(socket: Pin<&mut TcpStream>, cx: &mut Context<'_>, space: &mut ReadBuf<'_>, most: usize) -> Poll<io::Result<()>> {
    let mut bytes = [MaybeUninit::uninit(); PIECE_BYTES];
    let mut some = ReadBuf::uninit(&mut bytes[..most.min(PIECE_BYTES)]);
    let read = socket.poll_read(cx, &mut some);
    space.put_slice(some.filled());
    read
}

/// Writes when the runtime knows that the socket takes something, or asks the system first.
fn write(socket: Pin<&mut TcpStream>, cx: &mut Context<'_>, bytes: &[u8], asks: bool) -> Poll<io::Result<usize>> {
    if asks {
        match SockRef::from(&*socket).send(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => return Poll::Ready(sent),
        }
    }
    socket.poll_write(cx, bytes)
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // To be told is a courtesy here, too: what does not fit at once is cut.
        if let Some(refusal) = self.0.own_refusal(bytes)
            && self.0.0.socket.borrow().as_ref().is_some_and(|socket| socket.try_write(&refusal).is_ok())
        {
            return Poll::Ready(Ok(bytes.len()));
        }
        let shared = &self.0.0;
        shared.is_writing.set(true);
        let written =
            self.0.on_socket(|socket| write(socket, cx, bytes, shared.asks.take()), Err(io::ErrorKind::BrokenPipe.into()));
        if written.is_ready() {
            shared.writes.set(shared.writes.get().wrapping_add(1));
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shared = &self.0.0;
        // The server flushes when its write buffer is empty, so everything is out now.
        shared.is_writing.set(false);
        shared.has_answered.set(false);
        if shared.head_written.get() && !shared.taken.replace(true) {
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.on_socket(|socket| socket.poll_shutdown(cx), Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::super::Wait;
    use super::*;

    /// Writes until the runtime knows of no more room; how much.
    fn fill(wire: &mut Wire, cx: &mut Context<'_>) -> usize {
        let mut written = 0;
        while let Poll::Ready(bytes) = Pin::new(&mut *wire).poll_write(cx, &[b'x'; 4096]) {
            written += bytes.unwrap();
        }
        written
    }

    /// Nothing here gives the runtime the time to look, as when the process stood still.
    #[tokio::test]
    async fn the_system_is_asked_whether_an_answer_is_taken_before_it_is_given_up() {
        for taken in [usize::MAX, 64 * 1024] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (socket, _) = listener.accept().unwrap();
            socket.set_nonblocking(true).unwrap();
            SockRef::from(&socket).set_send_buffer_size(128 * 1024).unwrap();
            let connection = Connection::new(TcpStream::from_std(socket).unwrap());
            let mut wire = connection.wire();
            let cx = &mut Context::from_waker(std::task::Waker::noop());
            std::future::poll_fn(|cx| Pin::new(&mut wire).poll_write(cx, b"x")).await.unwrap();
            let written = fill(&mut wire, cx) + 1;
            let wait = connection.waits_for().unwrap();
            assert!(matches!(wait, Wait::Taking(_)));
            peer.read_exact(&mut vec![0; written.min(taken)]).unwrap();
            assert_eq!(connection.waits_for(), Some(wait));
            assert!(connection.asks(wait), "before it is given up");
            assert!(fill(&mut wire, cx) > 0, "the socket takes more");
            let wait = connection.waits_for().unwrap();
            assert!(connection.asks(wait), "it took some");
            assert!(!connection.asks(wait), "once, as long as nothing is taken");
        }
    }
}
