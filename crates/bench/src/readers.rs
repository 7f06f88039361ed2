//! The stream clients of a benchmark: many connections in one process and on one thread, which count events and keep delays.
//!
//! `POST /open?ADDRESS?COUNT?PATH` opens connections, `GET /wait?N` is answered once `N` events came,
//! `GET /stats` and `POST /reset` are those of the receiver. The same clients read every server under test.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::framing::Framing;
use crate::receiver::{OK, ReceiverStats, SENT_MARK, now_us};
use crate::wire;

/// Digits of a send time.
const SENT_DIGITS: usize = 16;
/// Delays that are kept one by one.
const DELAYS_MAX: usize = 8_000_000;
/// Bytes taken from a connection at once.
const READ_BYTES: usize = 64 * 1024;
/// Connections that are opened at the same time.
const OPENING_MAX: usize = 64;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

struct Readers {
    received: Cell<u64>,
    timed: Cell<bool>,
    wanted: Cell<u64>,
    reached: Notify,
    delays_us: RefCell<Vec<u32>>,
    buffer: RefCell<Vec<u8>>,
}

/// Serves on a free port until the process ends; prints the bound address.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    crate::say::say(&format!("reading for http://{}", listener.local_addr()?));
    let readers = Rc::new(Readers {
        received: Cell::new(0),
        timed: Cell::new(false),
        wanted: Cell::new(u64::MAX),
        reached: Notify::new(),
        delays_us: RefCell::default(),
        buffer: RefCell::new(vec![0; READ_BYTES]),
    });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let readers = Rc::clone(&readers);
        tokio::task::spawn_local(async move {
            let _ = obey(stream, &readers).await;
        });
    }
}

/// Answers the orders of one connection.
async fn obey(mut stream: TcpStream, readers: &Rc<Readers>) -> anyhow::Result<()> {
    let mut buffer = BytesMut::with_capacity(1024);
    loop {
        while let Some((head_bytes, _)) = wire::message_length(&buffer) {
            let head = String::from_utf8_lossy(&buffer[..head_bytes]).into_owned();
            buffer.advance(head_bytes);
            let answer = match head.split_whitespace().nth(1).unwrap_or_default().split('?').collect::<Vec<_>>()[..] {
                ["/open", address, count, ref path @ ..] => {
                    readers.open(address.parse()?, count.parse()?, &path.join("?")).await?;
                    OK.to_vec()
                }
                ["/wait", count] => {
                    readers.wait(count.parse()?).await;
                    readers.stats()
                }
                ["/reset", ref timed @ ..] => {
                    readers.reset(!timed.is_empty());
                    OK.to_vec()
                }
                _ => readers.stats(),
            };
            stream.write_all(&answer).await?;
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

impl Readers {
    async fn open(self: &Rc<Self>, address: SocketAddr, count: usize, path: &str) -> anyhow::Result<()> {
        let framing = Framing::of(path);
        let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{}\r\n", framing.headers());
        let mut left = count;
        while left > 0 {
            let mut opening = Vec::new();
            for _ in 0..left.min(OPENING_MAX) {
                let request = request.clone();
                opening.push(tokio::task::spawn_local(open_one(address, request)));
            }
            left -= opening.len();
            for opened in opening {
                let stream = opened.await??;
                let readers = Rc::clone(self);
                let framing = framing.clone();
                tokio::task::spawn_local(async move { readers.read(stream, framing).await });
            }
        }
        Ok(())
    }

    /// Reads to the end of the connection.
    async fn read(&self, mut stream: TcpStream, mut framing: Framing) {
        loop {
            let read = poll_fn(|cx| {
                let mut bytes = self.buffer.borrow_mut();
                let mut space = ReadBuf::new(&mut bytes);
                std::task::ready!(Pin::new(&mut stream).poll_read(cx, &mut space))?;
                let got = space.filled();
                self.note(got, framing.count(got));
                std::task::Poll::Ready(std::io::Result::Ok(got.len()))
            });
            if !matches!(read.await, Ok(1..)) {
                return;
            }
        }
    }

    fn note(&self, got: &[u8], events: u64) {
        self.received.set(self.received.get() + events);
        if self.received.get() >= self.wanted.get() {
            self.wanted.set(u64::MAX);
            self.reached.notify_one();
        }
        let mut delays_us = self.delays_us.borrow_mut();
        if self.timed.get() && delays_us.len() < DELAYS_MAX {
            let now_us = now_us();
            for at in memchr::memmem::find_iter(got, SENT_MARK) {
                let digits = got.get(at + SENT_MARK.len()..at + SENT_MARK.len() + SENT_DIGITS);
                if let Some(sent_us) = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok()) {
                    delays_us.push(u32::try_from(now_us.saturating_sub(sent_us)).unwrap_or(u32::MAX));
                }
            }
        }
    }

    async fn wait(&self, count: u64) {
        if self.received.get() < count {
            self.wanted.set(count);
            let _ = tokio::time::timeout(PATIENCE, self.reached.notified()).await;
        }
    }

    fn reset(&self, timed: bool) {
        self.received.set(0);
        self.delays_us.borrow_mut().clear();
        self.timed.set(timed);
    }

    fn stats(&self) -> Vec<u8> {
        let mut delays_us = self.delays_us.borrow_mut();
        delays_us.sort_unstable();
        let quantile = |part: usize| delays_us.get(delays_us.len() * part / 100).map_or(0, |delay| u64::from(*delay));
        let stats = ReceiverStats {
            received: self.received.get(),
            timed: delays_us.len() as u64,
            p50_us: quantile(50),
            p99_us: quantile(99),
            ..ReceiverStats::default()
        };
        let body = serde_json::to_vec(&stats).unwrap_or_default();
        let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
        answer.extend_from_slice(&body);
        answer
    }
}

/// Connects, asks, and reads the head of the answer.
async fn open_one(address: SocketAddr, request: String) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
    stream.set_nodelay(true)?;
    stream.write_all(request.as_bytes()).await?;
    let mut head = BytesMut::with_capacity(1024);
    while wire::find(&head, b"\r\n\r\n").is_none() {
        if stream.read_buf(&mut head).await? == 0 {
            anyhow::bail!("the stream ended before it began");
        }
    }
    if !head.starts_with(b"HTTP/1.1 200") && !head.starts_with(b"HTTP/1.1 101") {
        anyhow::bail!("no stream: {}", String::from_utf8_lossy(&head));
    }
    Ok(stream)
}
