//! What came of one POST: the answer's head and the start of its body, or the way it failed.
//!
//! Owns how much of a body is read and how the wire client's errors are named. Must not send anything.

use super::guarded::Conn;
use super::{BODY_HEAD_BYTES_MAX, BODY_READ_BYTES_MAX, BODY_READ_TIMEOUT, HeaderMap};
use crate::net::dial::DialError;
use actix_http::error::{ParseError, PayloadError};
use actix_http::{Payload, header};
use awc::error::{ConnectError, SendRequestError};
use bytes::{Bytes, BytesMut};
use futures_core::Stream as _;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

/// What the endpoint answered; the status decides, whatever became of the body.
#[derive(Debug)]
pub struct WireAnswer {
    /// 200–999; never 1xx.
    pub status: u16,
    /// All headers of the answer, at most 64 KiB.
    pub headers: HeaderMap,
    /// The first [`BODY_HEAD_BYTES_MAX`] bytes of the body, as sent (never decompressed).
    pub body_head: Bytes,
}

impl WireAnswer {
    /// The `retry-after` header, if it is text.
    pub fn retry_after(&self) -> Option<&str> {
        self.headers.get(header::RETRY_AFTER)?.to_str().ok()
    }

    /// The `webhook-delivery` header (`abort` or `disable`), if it is text.
    pub fn webhook_delivery(&self) -> Option<&str> {
        self.headers.get("webhook-delivery")?.to_str().ok()
    }
}

/// How an attempt ended without an answer.
#[derive(Debug, thiserror::Error)]
pub enum WireFailure {
    /// No connection: DNS, rules, TCP or TLS.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection was reset.
    #[error("the connection was reset")]
    Reset,
    /// The connection was closed without an answer; the request may have been handled.
    #[error("the connection was closed without an answer")]
    Eof,
    /// The deadline of the attempt passed.
    #[error("no answer in time")]
    Timeout,
    /// What came is no answer; the connection is gone.
    #[error("{0}")]
    Protocol(String),
}

impl WireFailure {
    /// The word for this failure in attempts and metrics.
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Dial(error) => error.slug(),
            Self::Reset => "reset",
            Self::Eof => "eof",
            Self::Timeout => "timeout",
            Self::Protocol(_) => "protocol",
        }
    }
}

/// Reads what is worth reading of a body; dropping the rest closes the connection.
pub(super) async fn read_body(payload: Payload) -> Bytes {
    let mut payload = pin!(payload);
    let mut kept = Kept::default();
    // Nearly always the whole body came with the head: no timer is set up for that.
    let waits = poll_fn(|cx| Poll::Ready(kept.drain(payload.as_mut(), cx).is_pending())).await;
    if waits {
        let rest = poll_fn(|cx| kept.drain(payload.as_mut(), cx));
        // A slow body is no failure: the status has decided.
        let _ = tokio::time::timeout(BODY_READ_TIMEOUT, rest).await;
    }
    kept.into_bytes()
}

#[derive(Default)]
struct Kept {
    first: Bytes,
    more: BytesMut,
    read_bytes: usize,
}

impl Kept {
    fn drain(&mut self, mut payload: Pin<&mut Payload>, cx: &mut Context<'_>) -> Poll<()> {
        while self.read_bytes < BODY_READ_BYTES_MAX {
            match payload.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(chunk))) => self.add(chunk),
                Poll::Ready(Some(Err::<_, PayloadError>(_)) | None) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    fn add(&mut self, mut chunk: Bytes) {
        let room = BODY_HEAD_BYTES_MAX.saturating_sub(self.read_bytes);
        self.read_bytes += chunk.len();
        chunk.truncate(room);
        if chunk.is_empty() {
        } else if self.first.is_empty() {
            self.first = chunk;
        } else {
            if self.more.is_empty() {
                self.more.extend_from_slice(&self.first);
            }
            self.more.extend_from_slice(&chunk);
        }
    }

    fn into_bytes(self) -> Bytes {
        if self.more.is_empty() { self.first } else { self.more.freeze() }
    }
}

pub(super) fn translate(error: SendRequestError, conn: Option<&Conn>) -> WireFailure {
    if let Some(fault) = conn.and_then(|conn| conn.fault.get()) {
        return WireFailure::Protocol(fault.to_string());
    }
    match error {
        SendRequestError::Connect(ConnectError::Resolver(error)) => match error.downcast::<DialError>() {
            Ok(error) => WireFailure::Dial(*error),
            Err(error) => WireFailure::Protocol(error.to_string()),
        },
        SendRequestError::Connect(ConnectError::Timeout) => WireFailure::Dial(DialError::ConnectTimeout),
        SendRequestError::Connect(ConnectError::Disconnected) => WireFailure::Eof,
        SendRequestError::Connect(ConnectError::Io(error))
        | SendRequestError::Send(error)
        | SendRequestError::Response(ParseError::Io(error)) => match error.kind() {
            io::ErrorKind::UnexpectedEof => WireFailure::Eof,
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => WireFailure::Protocol(error.to_string()),
            _ => WireFailure::Reset,
        },
        SendRequestError::Timeout => WireFailure::Timeout,
        other => WireFailure::Protocol(other.to_string()),
    }
}
