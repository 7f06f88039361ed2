//! Reads a request body under a size cap and a deadline.
//!
//! actix waits for a body as long as it takes; one that drips is ours to end. Must not know what the body means.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::web::Payload;
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use tokio::time::{Instant, Sleep};

use super::problem::{self, Problem};

/// Slowest body that is waited for, in bytes a second, once [`BodyLimits::timeout`] has passed.
pub const BODY_BYTES_PER_SECOND_MIN: u64 = 64 * 1024;
/// Room that is made at once for a body in several chunks; more only as it really arrives.
const RESERVE_BYTES_MAX: usize = 32 * 1024;

/// How large a body may be and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Most bytes.
    pub bytes_max: usize,
    /// Time for any body; a body faster than [`BODY_BYTES_PER_SECOND_MIN`] gets as much more as it needs.
    pub timeout: Duration,
}

/// Refuses a content encoding: bodies are kept and signed byte for byte.
///
/// # Errors
/// `content_encoding` when there is one other than `identity`.
pub fn refuse_encoding(request: &HttpRequest) -> Result<(), Problem> {
    match request.headers().get(header::CONTENT_ENCODING) {
        Some(value) if !value.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(Problem::new(problem::CONTENT_ENCODING, "send the body as it is, without Content-Encoding"))
        }
        _ => Ok(()),
    }
}

/// The whole body; a body of one chunk is not copied.
///
/// # Errors
/// `payload_too_large` (at once when the length is announced), `body_timeout`, `invalid_body`.
pub async fn read_body(request: &HttpRequest, payload: Payload, limits: BodyLimits) -> Result<Bytes, Problem> {
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limits.bytes_max as u64) {
        return Err(too_large(limits.bytes_max));
    }
    let mut payload = payload.into_inner();
    let started = Instant::now();
    // Most bodies come with their head: only one that is waited for needs a timer.
    let mut deadline: Option<Pin<Box<Sleep>>> = None;
    let mut body = Gathered { announced, ..Gathered::default() };
    loop {
        let next = poll_fn(|cx| match Pin::new(&mut payload).poll_next(cx) {
            Poll::Ready(item) => Poll::Ready(Some(item)),
            Poll::Pending => {
                let deadline = deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(started + limits.timeout)));
                deadline.as_mut().poll(cx).map(|()| None)
            }
        });
        match next.await {
            Some(Some(Ok(chunk))) if body.len() + chunk.len() > limits.bytes_max => return Err(too_large(limits.bytes_max)),
            Some(Some(Ok(chunk))) => body.push(chunk),
            Some(Some(Err(error))) => return Err(unreadable(&error)),
            Some(None) => return Ok(body.finish()),
            None => {
                let earned = Duration::from_secs(body.len() as u64 / BODY_BYTES_PER_SECOND_MIN);
                let end = started + limits.timeout + earned;
                if end <= Instant::now() {
                    return Err(Problem::new(problem::BODY_TIMEOUT, "send the whole body without long pauses"));
                }
                deadline = Some(Box::pin(tokio::time::sleep_until(end)));
            }
        }
    }
}

/// Chunks of a body: one as it came, several in one buffer.
#[derive(Default)]
struct Gathered {
    first: Bytes,
    rest: BytesMut,
    /// Length that the request says, if it says one.
    announced: Option<u64>,
}

impl Gathered {
    fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    fn push(&mut self, chunk: Bytes) {
        if self.first.is_empty() && self.rest.is_empty() {
            self.first = chunk;
            return;
        }
        if self.rest.is_empty() {
            self.rest.reserve((self.first.len() + chunk.len()).max(RESERVE_BYTES_MAX));
            self.rest.extend_from_slice(&self.first);
            self.first = Bytes::new();
        }
        if self.rest.capacity() - self.rest.len() < chunk.len() {
            // Four times what is there, but no more than was announced: few copies, and nothing for words alone.
            let missing = self.announced.and_then(|length| usize::try_from(length).ok()).unwrap_or(0).saturating_sub(self.len());
            self.rest.reserve(missing.min(3 * self.rest.len()).max(chunk.len()));
        }
        self.rest.extend_from_slice(&chunk);
    }

    fn finish(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.freeze() }
    }
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(problem::PAYLOAD_TOO_LARGE, format!("allowed here: at most {bytes_max} bytes (`limits` in the configuration)"))
}

fn unreadable(error: &PayloadError) -> Problem {
    let detail = match error {
        PayloadError::Incomplete(_) => "the body ended before its length",
        PayloadError::EncodingCorrupted => "the chunks of the body are malformed",
        PayloadError::Overflow => "a chunk head of the body is too long",
        _ => "the connection broke while the body was read",
    };
    Problem::new(problem::INVALID_BODY, detail).ending_connection()
}
