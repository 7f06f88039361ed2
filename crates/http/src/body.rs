//! Reads a request body under a size cap and a deadline.
//!
//! actix waits for a body as long as it takes; one that drips is ours to end. Must not know what the body means.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::web::Payload;
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use hookcast_supervise::deadline::{LastLook, rings};
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
    let mut look = LastLook::default();
    let mut body = Gathered { announced, ..Gathered::default() };
    loop {
        let next = poll_fn(|cx| match Pin::new(&mut payload).poll_next(cx) {
            Poll::Ready(item) => Poll::Ready(Some(item)),
            Poll::Pending => {
                let deadline = deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(started + limits.timeout)));
                ready!(rings(deadline.as_mut(), cx));
                look.poll(deadline.deadline(), cx).map(|()| None)
            }
        });
        match next.await {
            Some(Some(Ok(chunk))) if body.len() + chunk.len() > limits.bytes_max => return Err(too_large(limits.bytes_max)),
            Some(Some(Ok(chunk))) => {
                body.push(chunk);
                look.again();
            }
            Some(Some(Err(error))) => return Err(unreadable(&error)),
            Some(None) => return Ok(body.finish()),
            None => {
                let earned = Duration::from_secs(body.len() as u64 / BODY_BYTES_PER_SECOND_MIN);
                let end = started + limits.timeout + earned;
                if end <= Instant::now() {
                    return Err(Problem::new(problem::BODY_TIMEOUT, "send the whole body without long pauses"));
                }
                deadline = Some(Box::pin(tokio::time::sleep_until(end)));
                look.rest();
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

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;
    use actix_web::{FromRequest as _, dev};
    use std::io::{self, Write as _};
    use std::os::unix::net::UnixStream as Far;
    use std::task::Context;
    use tokio::io::{AsyncRead as _, ReadBuf};
    use tokio::net::UnixStream;

    const TIMEOUT: Duration = Duration::from_millis(50);
    /// An alarm rings so much too late at most when the thread is free.
    const TICK: Duration = Duration::from_millis(2);

    /// The bytes of a body as they come out of a socket.
    struct Bytewise(UnixStream);

    impl Stream for Bytewise {
        type Item = Result<Bytes, PayloadError>;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            let mut byte = [0];
            let mut buf = ReadBuf::new(&mut byte);
            let read = ready!(Pin::new(&mut self.0).poll_read(cx, &mut buf));
            let read = read.map(|()| Bytes::copy_from_slice(buf.filled())).map_err(PayloadError::Io);
            Poll::Ready(read.map(|bytes| (!bytes.is_empty()).then_some(bytes)).transpose())
        }
    }

    fn pair() -> io::Result<(UnixStream, Far)> {
        let (near, far) = Far::pair()?;
        near.set_nonblocking(true)?;
        Ok((UnixStream::from_std(near)?, far))
    }

    async fn payload(stream: Bytewise) -> Payload {
        let mut payload = dev::Payload::Stream { payload: Box::pin(stream) as _ };
        Payload::from_request(&TestRequest::default().to_http_request(), &mut payload).await.unwrap()
    }

    #[test]
    fn a_body_that_came_while_the_thread_stood_still_is_taken() {
        // It takes one event from the system at a time, as every runtime takes only so many.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_io_events_per_tick(1).build().unwrap();
        let body = runtime.block_on(async {
            let (near, mut far) = pair().unwrap();
            let request = TestRequest::default().to_http_request();
            let limits = BodyLimits { bytes_max: 100, timeout: TIMEOUT };
            far.write_all(b"hello ").unwrap();
            let started = Instant::now();
            let mut read = Box::pin(read_body(&request, payload(Bytewise(near)).await, limits));
            for _ in 0..5 {
                // The system tells of the first bytes, the runtime itself of the alarm.
                assert!(poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await.is_pending());
                tokio::task::yield_now().await;
            }
            let _other = pair().unwrap();
            far.write_all(b"world").unwrap();
            drop(far);
            while started.elapsed() <= TIMEOUT + TICK {
                std::thread::yield_now();
            }
            read.await
        });
        assert_eq!(body.map_err(|problem| problem.detail().to_owned()).unwrap(), "hello world");
    }
}
