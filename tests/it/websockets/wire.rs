//! A WebSocket client that says whatever it likes.

use std::io::Cursor;

use bytes::{Buf as _, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::OpCode;

use crate::support::{Relay, in_time};

/// A handshake's headers, all but `Host`.
pub(super) const HANDSHAKE: &str = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// The same with the subprotocol in which positions can be said.
pub(super) const OURS: &str = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: hookcast.v1\r\n";

/// One connection.
pub(super) struct Socket {
    stream: TcpStream,
    read: BytesMut,
    pub(super) head: String,
}

/// A frame of the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) opcode: u8,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// The status code of a close frame.
    pub(super) fn code(&self) -> Option<u16> {
        assert_eq!(self.opcode, 8, "{self:?}");
        Some(u16::from_be_bytes([*self.payload.first()?, *self.payload.get(1)?]))
    }

    /// The reason in it.
    pub(super) fn reason(&self) -> String {
        String::from_utf8(self.payload[2..].to_vec()).unwrap()
    }
}

impl Socket {
    /// Sends a request and reads the head of the answer, whatever it is.
    pub(super) async fn ask(relay: &Relay, path_and_query: &str, headers: &str) -> Self {
        let stream = TcpStream::connect(relay.url.trim_start_matches("http://")).await.unwrap();
        Self::ask_on(stream, path_and_query, headers).await
    }

    /// The same on a connection that is open.
    pub(super) async fn ask_on(mut stream: TcpStream, path_and_query: &str, headers: &str) -> Self {
        let request = format!("GET /v1/topics/{path_and_query} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut socket = Self { stream, read: BytesMut::new(), head: String::new() };
        in_time(async {
            let end = loop {
                if let Some(end) = socket.read.windows(4).position(|four| four == b"\r\n\r\n") {
                    break end;
                }
                assert!(socket.stream.read_buf(&mut socket.read).await.unwrap() > 0, "no head: {:?}", socket.read);
            };
            socket.head = String::from_utf8(socket.read.split_to(end + 4).to_vec()).unwrap();
        })
        .await;
        socket
    }

    /// A WebSocket stream.
    pub(super) async fn open(relay: &Relay, path_and_query: &str, headers: &str) -> Self {
        let socket = Self::ask(relay, path_and_query, headers).await;
        assert!(socket.head.starts_with("HTTP/1.1 101 "), "{}", socket.head);
        socket
    }

    pub(super) fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }

    /// The value of a header of the answer.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Sends bytes; a peer that has gone in the meantime says so when it is read.
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        let _ = in_time(self.stream.write_all(bytes)).await;
    }

    pub(super) async fn say(&mut self, text: &str) {
        self.send(&frame(0x81, text.as_bytes())).await;
    }

    /// Everything to the end of the connection.
    pub(super) async fn rest(mut self) -> String {
        while in_time(self.stream.read_buf(&mut self.read)).await.unwrap_or(0) > 0 {}
        String::from_utf8_lossy(&self.read).into_owned()
    }

    /// The next frame; `None` when the server has ended the connection.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        in_time(async {
            loop {
                let mut cursor = Cursor::new(&self.read[..]);
                if let Some((header, length)) = FrameHeader::parse(&mut cursor).unwrap() {
                    let (head, length) = (usize::try_from(cursor.position()).unwrap(), usize::try_from(length).unwrap());
                    if self.read.len() >= head + length {
                        assert!(header.is_final && header.mask.is_none() && !header.rsv1, "a whole, plain frame");
                        self.read.advance(head);
                        let payload = self.read.split_to(length).to_vec();
                        return Some(Frame { opcode: opcode(header.opcode), payload });
                    }
                }
                if self.stream.read_buf(&mut self.read).await.unwrap_or(0) == 0 {
                    assert!(self.read.is_empty(), "the connection ends inside a frame");
                    return None;
                }
            }
        })
        .await
    }

    /// The next text, pings skipped.
    pub(super) async fn event(&mut self) -> Value {
        loop {
            let frame = self.next().await.expect("the stream goes on");
            match frame.opcode {
                9 => {}
                1 => return serde_json::from_slice(&frame.payload).unwrap(),
                _ => panic!("{frame:?} {}", String::from_utf8_lossy(&frame.payload)),
            }
        }
    }

    /// Positions of the next events.
    pub(super) async fn seqs(&mut self, count: usize) -> Vec<u64> {
        let mut seqs = Vec::new();
        while seqs.len() < count {
            seqs.push(self.event().await["seq"].as_str().unwrap().parse().unwrap());
        }
        seqs
    }

    /// The close frame of the server, whatever comes before it.
    pub(super) async fn close(&mut self) -> Frame {
        loop {
            let frame = self.next().await.expect("a close before the end");
            if frame.opcode == 8 {
                return frame;
            }
        }
    }

    /// Answers a close, which must be the last that the server says.
    pub(super) async fn part(mut self) {
        self.send(&frame(0x88, &1000u16.to_be_bytes())).await;
        assert_eq!(self.next().await, None);
    }
}

fn opcode(opcode: OpCode) -> u8 {
    opcode.into()
}

/// A masked frame, as a client has to send it.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x0a, 0xb0, 0x0c, 0xd0];
    let mut out = vec![first];
    match payload.len() {
        short @ 0..126 => out.push(0x80 | short as u8),
        medium @ 126..65_536 => {
            out.push(0x80 | 0x7e);
            out.extend((medium as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 0x7f);
            out.extend((long as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    out
}
