//! What a WebSocket client says to its stream, and what it is answered: pongs, a new position, the close.
//!
//! A [`Session`] stands beside the writer of its connection. It knows frames and time in ticks, but neither sockets nor events;
//! it has no buffer beyond the message under way, no task, and a timer only while it waits for the peer's last frame.
//!
//! Spec: RFC 6455, sections 5.5 and 7.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::http::header::{HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use bytes::{Bytes, BytesMut};
use tokio::time::{Sleep, sleep};

use super::handover::Connection;
use super::start::parse_seq;
use super::{Ask, StreamError, Worker, open};
use hookcast_core::codec::websocket::{Decoder, Message, Opcode, Violation, write_close, write_frame};
use hookcast_core::model::Seq;

/// The subprotocol in which a client may say where it wants to go on.
pub const SUBPROTOCOL: &str = "hookcast.v1";
/// Most frames that a client may send in a tick of the wheel, which is a second.
const FRAMES_MAX: u64 = 100;
/// Time for the peer to answer a close frame.
const CLOSE_WAIT: Duration = Duration::from_secs(3);

/// What the server accepted.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// Value of `Sec-WebSocket-Accept`.
    pub accept: HeaderValue,
    /// Whether [`SUBPROTOCOL`] was offered.
    pub is_ours: bool,
}

/// Why a stream ends, and what the peer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It came to the end that was asked for.
    Done,
    /// The relay stops.
    Closing,
    /// What allowed it is over.
    Revoked,
    /// The log cannot be read.
    Broken,
}

impl Ending {
    fn close(self) -> (u16, &'static str) {
        match self {
            Self::Done => (1000, "the end that was asked for"),
            Self::Closing => (1001, "the relay is shutting down; come back in a moment"),
            Self::Revoked => (1008, "the token is no longer valid"),
            Self::Broken => (1011, "the log cannot be read at this position"),
        }
    }
}

/// The other direction of one WebSocket stream.
#[derive(Debug)]
pub(super) struct Session {
    decoder: Decoder,
    is_ours: bool,
    /// The tick in which frames are counted, and how many had come before it.
    tick: u64,
    frames_before: u64,
    /// What the last ping carried, until it is answered: earlier ones need no answer.
    ping: Option<Vec<u8>>,
    resume: Option<Seq>,
    /// The position that the client has yet to be told of.
    resumed: Option<Seq>,
    has_news: bool,
    stage: Stage,
    peer: Peer,
    late: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// A close frame is to be sent.
    Closing(Option<u16>, &'static str),
    /// It is on its way.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    /// It is listened to.
    Heard,
    /// What it still sends cannot be read, or is too much.
    Unheard,
    /// It has said its last frame.
    Closed,
}

impl Session {
    pub(super) fn new(is_ours: bool) -> Self {
        Self {
            decoder: Decoder::default(),
            is_ours,
            tick: 0,
            frames_before: 0,
            ping: None,
            resume: None,
            resumed: None,
            has_news: false,
            stage: Stage::Open,
            peer: Peer::Heard,
            late: None,
        }
    }

    /// Takes what the client sent, unmasking it in place.
    pub(super) fn hear(&mut self, mut bytes: &mut [u8], tick: u64) {
        self.has_news = true;
        if tick != self.tick {
            (self.tick, self.frames_before) = (tick, self.decoder.frames());
        }
        while !self.is_deaf() && !bytes.is_empty() {
            match self.decoder.next(bytes) {
                Ok((taken, message)) => {
                    bytes = &mut std::mem::take(&mut bytes)[taken..];
                    if self.decoder.frames() - self.frames_before > FRAMES_MAX {
                        self.peer = Peer::Unheard;
                        self.close(1008, "more than 100 frames a second");
                    } else if let Some(message) = message {
                        self.take(message);
                    }
                }
                Err(violation) => self.fail(violation),
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Ping(payload) => self.ping = Some(payload),
            Message::Pong => {}
            Message::Binary => self.close(1003, "bytes are not understood here"),
            Message::Text(text) => match text.as_deref().filter(|_| self.is_ours).and_then(parse_resume) {
                Some(seq) => self.resume = Some(seq),
                None if self.is_ours => self.close(1008, "the only message understood is {\"resume\":\"<seq>\"}"),
                None => self.close(1008, "messages are understood in the subprotocol hookcast.v1 only"),
            },
            Message::Close(code) => {
                self.peer = Peer::Closed;
                if self.stage == Stage::Open {
                    self.stage = Stage::Closing(code, "");
                }
            }
        }
    }

    fn fail(&mut self, violation: Violation) {
        self.peer = Peer::Unheard;
        self.close(violation.code(), violation.reason());
    }

    fn close(&mut self, code: u16, reason: &'static str) {
        if self.stage == Stage::Open {
            self.stage = Stage::Closing(Some(code), reason);
        }
    }

    /// The stream is over.
    pub(super) fn end(&mut self, ending: Ending) {
        let (code, reason) = ending.close();
        self.close(code, reason);
    }

    /// Whether nothing of the peer is waited for any more: it has said its last frame, or cannot be understood.
    pub(super) fn is_deaf(&self) -> bool {
        self.peer != Peer::Heard
    }

    /// Whether something was heard since this was last asked.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// Where the client wants to go on; it is told so before anything that stands there.
    pub(super) fn take_resume(&mut self) -> Option<Seq> {
        let resume = self.resume.take();
        self.resumed = resume.or(self.resumed);
        resume
    }

    /// The next frames that are not the stream's; nothing follows on a close.
    pub(super) fn next_frame(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        match self.stage {
            Stage::Closed => return None,
            Stage::Closing(code, reason) => {
                write_close(&mut out, code, reason);
                self.stage = Stage::Closed;
            }
            Stage::Open => {
                let (ping, resumed) = (self.ping.take(), self.resumed.take());
                if let Some(ping) = &ping {
                    write_frame(&mut out, Opcode::Pong, |out| out.extend_from_slice(ping));
                }
                if let Some(seq) = resumed {
                    write_frame(&mut out, Opcode::Text, |out| write_resumed(out, seq));
                }
            }
        }
        (!out.is_empty()).then(|| out.freeze())
    }

    /// Whether a close frame is on its way, so that no event may follow.
    pub(super) fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    /// Whether the peer may still be sending: a connection that is dropped then takes our close away from it.
    pub(super) fn is_lingering(&self) -> bool {
        self.peer != Peer::Closed
    }

    /// Ready when the peer had enough time to take and answer the close.
    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.stage == Stage::Open {
            return Poll::Pending;
        }
        self.late.get_or_insert_with(|| Box::pin(sleep(CLOSE_WAIT))).as_mut().poll(cx)
    }
}

/// The position in `{"resume":"<seq>"}`, or in the same with a number.
fn parse_resume(text: &str) -> Option<Seq> {
    let message: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let resume = message.get("resume").filter(|_| message.len() == 1)?;
    match resume.as_str() {
        Some(digits) => parse_seq(digits),
        None => resume.as_u64().map(Seq),
    }
}

/// Appends what tells a client that from here on its stream goes on behind the position that it asked for.
fn write_resumed(out: &mut BytesMut, seq: Seq) {
    let form = format!(
        "{{\"specversion\":\"1.0\",\"id\":\"resumed-{seq}\",\"source\":\"/hookcast\",\"type\":\"hookcast.resumed\",\
         \"topic\":\"hookcast.stream\",\"seq\":\"{seq}\",\"datacontenttype\":\"application/json\",\"data\":{{\"after\":{seq}}}}}"
    );
    out.extend_from_slice(form.as_bytes());
}

/// Answers a request for a stream by becoming a WebSocket.
///
/// # Errors
/// [`StreamError`] when no stream can begin now.
pub async fn upgrade(
    request: &HttpRequest,
    worker: &Worker,
    ask: Ask,
    handshake: Handshake,
) -> Result<HttpResponse, StreamError> {
    let mut permit = worker.0.egress.admit()?;
    permit.keep(request.extensions_mut().remove());
    let connection = request.conn_data::<Connection>().ok_or(StreamError::NoConnection)?;
    let (client, _) = open(worker, ask, permit).await?;
    let mut response = HttpResponse::SwitchingProtocols();
    response.upgrade("websocket").insert_header((SEC_WEBSOCKET_ACCEPT, handshake.accept));
    if handshake.is_ours {
        response.insert_header((SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL));
    }
    Ok(response.body(connection.give_to_socket(client, Session::new(handshake.is_ours))))
}

#[cfg(test)]
mod tests;
