//! The least HTTP that a load loop can do with: whole requests out, answers in, one keep-alive connection.

use std::io::ErrorKind;
use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest answer that is taken.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    buffer: BytesMut,
}

/// An answer: its status and body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { address, stream, buffer: BytesMut::with_capacity(16 * 1024) })
    }

    /// Sends bytes and expects nothing.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// Reads until `mark` has gone by, and throws away what came before it.
    pub(crate) async fn read_past(&mut self, mark: &[u8]) -> anyhow::Result<()> {
        loop {
            if let Some(at) = find(&self.buffer, mark) {
                self.buffer.advance(at + mark.len());
                return Ok(());
            }
            // The mark may lie across two reads.
            self.buffer.advance(self.buffer.len().saturating_sub(mark.len()));
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the stream ended early");
            }
        }
    }

    /// Connects anew when the other side has closed the connection while it rested: whoever waits for a turn may rest longer than a
    /// server keeps it.
    async fn wake(&mut self) -> anyhow::Result<()> {
        let is_closed = match self.stream.try_read_buf(&mut self.buffer) {
            Ok(bytes) => bytes == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        if is_closed {
            *self = Self::open(self.address).await?;
        }
        Ok(())
    }

    /// Sends a whole request and reads the whole answer.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Answer> {
        self.wake().await?;
        self.stream.write_all(request).await?;
        loop {
            if let Some((head_bytes, body_bytes)) = message_length(&self.buffer) {
                if body_bytes > ANSWER_BYTES_MAX {
                    bail!("an answer of {body_bytes} bytes");
                }
                if self.buffer.len() >= head_bytes + body_bytes {
                    let status = std::str::from_utf8(&self.buffer[9..12])?.parse()?;
                    let body = self.buffer[head_bytes..head_bytes + body_bytes].to_vec();
                    self.buffer.advance(head_bytes + body_bytes);
                    return Ok(Answer { status, body });
                }
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the connection was closed without an answer");
            }
        }
    }

    /// Sends a whole request and takes an answer of exactly `answer_bytes` bytes that begins as a 200 does.
    pub(crate) async fn exchange_known(&mut self, request: &[u8], answer_bytes: usize) -> anyhow::Result<()> {
        self.stream.write_all(request).await?;
        while self.buffer.len() < answer_bytes {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the connection was closed without an answer");
            }
        }
        if !self.buffer.starts_with(b"HTTP/1.1 200 ") || self.buffer.len() > answer_bytes {
            bail!("another answer than the one expected");
        }
        self.buffer.clear();
        Ok(())
    }

    /// Sends `body` with a method and path and gives the body of a 2xx answer.
    pub(crate) async fn call(&mut self, method: &str, path: &str, content_type: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        let answer = self.exchange(&request).await.with_context(|| format!("{method} {path}"))?;
        if !(200..300).contains(&answer.status) {
            bail!("{method} {path} answered {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        Ok(answer.body)
    }
}

/// Length of the head, and of the body as `content-length` says (zero without one), once the head is whole.
pub(crate) fn message_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let head_bytes = find(bytes, b"\r\n\r\n")? + 4;
    let head = &bytes[..head_bytes];
    // Our own side writes lower case; other load generators may be pointed at the receiver, too.
    let Some(at) = find(head, b"\r\ncontent-length: ").or_else(|| find(head, b"\r\nContent-Length: ")) else {
        return Some((head_bytes, 0));
    };
    let digits = head[at + 18..].iter().take_while(|byte| byte.is_ascii_digit());
    let body_bytes = digits.fold(0usize, |length, digit| length.saturating_mul(10) + usize::from(digit - b'0'));
    Some((head_bytes, body_bytes))
}

/// Where `needle` begins in `haystack`.
pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_was_closed_while_it_rested_is_opened_anew() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            for _ in 0..2 {
                let (mut stream, _) = server.accept().await.unwrap();
                stream.read_exact(&mut [0; 16]).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            }
        });
        let mut connection = Connection::open(address).await.unwrap();
        for _ in 0..2 {
            let answer = connection.exchange(b"GET / HTTP/1.1\r\n").await.unwrap();
            assert_eq!(answer.status, 200);
            assert_eq!(connection.stream.peek(&mut [0]).await.unwrap(), 0, "it is closed");
        }
        serving.await.unwrap();
    }
}
