//! What a socket needs so that a dead reader is cut from outside its stream: a body that nobody takes is never asked again.
//!
//! The server calls [`harden`] on every accepted connection and gives its response writer [`WRITE_BUFFER_BYTES`]. Knows
//! nothing of streams.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// Bytes a stream hands to the server at once. Together with [`WRITE_BUFFER_BYTES`] it stays inside the 8 KiB that a
/// connection's write buffer begins with, so a burst leaves no larger buffer behind.
pub const CHUNK_BYTES: usize = 4_000;
/// Bytes of events that are kept as one chunk for streams that write to their connection themselves, and share them.
pub const SHARED_BYTES: usize = 16 * 1024;
/// How many bytes the server may gather before it writes: for `HttpServer::h1_write_buffer_size`.
pub const WRITE_BUFFER_BYTES: usize = 4_096;
/// Send buffer of a connection as it is asked for; Linux keeps twice as much for its own accounting.
pub const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// A connection whose peer takes no byte for this long while some wait is cut.
pub const DEAD_AFTER: Duration = Duration::from_secs(30);

/// Silence after which a peer is asked whether it is there, and again as often, where no heartbeat finds that out.
pub const PROBE_AFTER: Duration = Duration::from_secs(15);

/// Bounds the send buffer, sends small chunks at once, and cuts a peer that takes nothing for [`DEAD_AFTER`].
///
/// A slow peer is not dead as long as its system takes something in that time. That is less often than it reads: a receiver whose
/// buffer is full says that there is room when a segment is free, and Linux goes on counting while what is to be sent next does not
/// fit into that room. A peer that reads 2.5 KB a second without a pause was seen to stay over segments of 536 bytes, and to be cut at
/// 1.5 KB; over the loopback, whose segments have 64 KiB, it stayed at 8 KB and was cut at 6. An idle one is found by the heartbeat, whose bytes it
/// does not take.
///
/// # Errors
/// As the system refuses an option; the connection works without it.
pub fn harden(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(DEAD_AFTER))?;
    Ok(())
}

/// Asks a peer that is sent nothing whether it is there; one that does not answer for [`DEAD_AFTER`] is cut.
///
/// # Errors
/// As the system refuses an option; the connection works without it.
pub fn probe(socket: &impl AsFd) -> io::Result<()> {
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_AFTER);
    SockRef::from(socket).set_tcp_keepalive(&probes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_write_buffer_and_one_chunk_fit_into_the_first_allocation() {
        let chunk_head_and_end = 3 + 2 + 2;
        assert!(WRITE_BUFFER_BYTES - 1 + CHUNK_BYTES + chunk_head_and_end <= 8 * 1024);
    }

    #[test]
    fn a_hardened_socket_cuts_a_peer_that_takes_nothing() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let _peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        harden(&accepted).unwrap();
        let socket = SockRef::from(&accepted);
        assert!(!socket.keepalive().unwrap(), "heartbeats do that");
        probe(&accepted).unwrap();
        assert_eq!(socket.tcp_keepalive_time().unwrap(), PROBE_AFTER);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(DEAD_AFTER));
        assert!(socket.send_buffer_size().unwrap() <= 2 * SEND_BUFFER_BYTES);
        assert!(socket.tcp_nodelay().unwrap());
    }
}
