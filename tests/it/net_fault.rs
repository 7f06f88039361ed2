//! A server that speaks raw bytes and breaks the rules on purpose; one blocking thread a connection.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One accepted connection, as a script sees it.
pub(crate) struct Peer {
    stream: TcpStream,
    /// The how-many-th connection this is, from 0.
    pub(crate) number: usize,
    buffered: Vec<u8>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    /// Reads one request with its body; `None` once the client has closed.
    pub(crate) fn request(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffered.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffered[..end]).to_ascii_lowercase();
                let length: usize = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .map_or(0, |value| value.trim().parse().unwrap());
                if self.buffered.len() >= end + 4 + length {
                    let request: Vec<u8> = self.buffered.drain(..end + 4 + length).collect();
                    let request = String::from_utf8_lossy(&request).into_owned();
                    self.requests.lock().unwrap().push(request.clone());
                    return Some(request);
                }
            }
            let mut bytes = [0; 8192];
            match self.stream.read(&mut bytes) {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.buffered.extend_from_slice(&bytes[..n]),
            }
        }
    }

    /// The next bytes as they come; none at the end.
    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 16 * 1024];
        let count = self.stream.read(&mut bytes).unwrap_or(0);
        bytes.truncate(count);
        bytes
    }

    /// Sends; says whether the client still takes bytes.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Ends the connection with a reset instead of a FIN.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Says that no more will be sent, but goes on reading.
    pub(crate) fn half_close(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Waits until the client closes; answers how many bytes came until then.
    pub(crate) fn wait_for_close(&mut self) -> usize {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
        rest.len()
    }
}

/// The server; stops accepting when dropped.
pub(crate) struct FaultServer {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
}

impl FaultServer {
    /// Runs `script` for every connection.
    pub(crate) fn start(script: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        Self::following(Arc::new(script))
    }

    /// Compiled once, and not for every script of a test.
    fn following(script: Arc<dyn Fn(Peer) + Send + Sync>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { address, connections: Arc::default(), requests: Arc::default(), stop: Arc::default() };
        let (connections, requests, stop) =
            (Arc::clone(&server.connections), Arc::clone(&server.requests), Arc::clone(&server.stop));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let _ = stream.set_nodelay(true);
                let number = connections.fetch_add(1, Ordering::SeqCst);
                let peer = Peer { stream, number, buffered: Vec::new(), requests: Arc::clone(&requests) };
                let script = Arc::clone(&script);
                std::thread::spawn(move || script(peer));
            }
        });
        server
    }

    /// Answers every request of every connection with the same bytes.
    pub(crate) fn answering(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self::start(move |mut peer| while peer.request().is_some() && peer.send(bytes.as_ref()) {})
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook?x=1", self.address)
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Requests read so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for FaultServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}
