//! What came of one POST: the answer's head and the start of its body, or the way it failed.
//!
//! Owns what is kept of an answer and how failures are named. Must not send anything.

use super::BODY_HEAD_BYTES_MAX;
use super::framing::{Fault, Taker};
use crate::dial::DialError;
use awc::error::ConnectError;
use httparse::{Header, ParserConfig, Response};
use std::io;
use std::mem::MaybeUninit;

/// Headers of one answer.
const HEADERS_MAX: usize = 96;

/// What the endpoint answered; the status decides, whatever became of the body.
#[derive(Debug)]
pub struct WireAnswer {
    /// 200–999; never 1xx.
    pub status: u16,
    /// The `retry-after` header, if it is text.
    pub retry_after: Option<String>,
    /// The `webhook-delivery` header (`abort` or `disable`), if it is text.
    pub webhook_delivery: Option<String>,
    /// The first [`BODY_HEAD_BYTES_MAX`] bytes of the body, as sent (never decompressed).
    pub body_head: Vec<u8>,
}

/// An answer as it arrives.
#[derive(Debug, Default)]
pub(super) struct Reply(Option<WireAnswer>);

impl Reply {
    /// Whether the status is known.
    pub(super) fn has_head(&self) -> bool {
        self.0.is_some()
    }

    /// The answer, if its head has come.
    pub(super) fn into_answer(self) -> Option<WireAnswer> {
        self.0
    }
}

impl Taker for Reply {
    fn head(&mut self, head: &[u8]) -> Result<(), Fault> {
        let mut headers = [const { MaybeUninit::<Header<'_>>::uninit() }; HEADERS_MAX];
        let mut response = Response::new(&mut []);
        let mut rules = ParserConfig::default();
        rules.allow_spaces_after_header_name_in_responses(true);
        rules.parse_response_with_uninit_headers(&mut response, head, &mut headers).map_err(Fault::Head)?;
        // The first one counts, should a header be there twice.
        let text = |name: &str| {
            let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
            header.value.iter().all(|byte| *byte == b'\t' || (b' '..=b'~').contains(byte)).then_some(())?;
            std::str::from_utf8(header.value).ok().map(str::to_owned)
        };
        self.0 = Some(WireAnswer {
            status: response.code.ok_or(Fault::StatusLine)?,
            retry_after: text("retry-after"),
            webhook_delivery: text("webhook-delivery"),
            body_head: Vec::new(),
        });
        Ok(())
    }

    fn body(&mut self, data: &[u8]) {
        if let Some(answer) = &mut self.0 {
            let room = BODY_HEAD_BYTES_MAX - answer.body_head.len();
            answer.body_head.extend_from_slice(&data[..data.len().min(room)]);
        }
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

/// A failure of the connection after it was made.
pub(super) fn named(error: &io::Error) -> WireFailure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => WireFailure::Eof,
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => WireFailure::Protocol(error.to_string()),
        _ => WireFailure::Reset,
    }
}

/// A failure to connect, out of the form in which the connector hands it on.
pub(super) fn undialled(error: ConnectError) -> WireFailure {
    match error {
        ConnectError::Resolver(error) => match error.downcast::<DialError>() {
            Ok(error) => WireFailure::Dial(*error),
            Err(error) => WireFailure::Protocol(error.to_string()),
        },
        ConnectError::Timeout => WireFailure::Dial(DialError::ConnectTimeout),
        ConnectError::Io(error) => named(&error),
        other => WireFailure::Protocol(other.to_string()),
    }
}
