//! The upstream client: one request, then its body chunk by chunk, and how it ended.
//!
//! Owns the head's time limit and the difference between a body that ended and one that was cut. A connection serves one
//! request. Must not know protocols of sources, and never follows redirects. The futures are `Send`.
//! Spec: RFC 9112 §6.3, §8 (message length, incomplete messages); guarantee 4.

use super::dial::{DialError, Gate};
use super::shortage::Shortage;
use super::socket::Socket;
use super::target::Target;
use super::tls::{Tls, TlsError};
use super::token::{TokenEndpoint, TokenError};
use asking::Asking;
use bytes::Bytes;
use futures_core::future::BoxFuture;
use hookcast_supervise::deadline::within;
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

pub use hyper::http::{HeaderMap, HeaderName, HeaderValue, Method};
pub use upgrade::{Pipe, Upgrade};

mod asking;
mod upgrade;

/// Largest response head, and the size of the read buffer.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// One request to an upstream.
#[derive(Debug, Clone)]
pub struct FetchRequest<'a> {
    /// `GET`, `POST`, …
    pub method: Method,
    /// Where to.
    pub target: &'a Target,
    /// All headers; `host` and `content-length` are added.
    pub headers: HeaderMap,
    /// May be empty.
    pub body: Bytes,
    /// Covers DNS, connecting, TLS, sending and the response's head.
    pub head_timeout: Duration,
}

/// The head of a response, and its body to come.
#[derive(Debug)]
pub struct FetchResponse {
    /// 200–999; redirects are not followed.
    pub status: u16,
    /// All headers, at most 64 KiB.
    pub headers: HeaderMap,
    /// The body; dropping it closes the connection.
    pub body: FetchBody,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection: DNS, rules, TCP or TLS.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The head did not come in time.
    #[error("no answer in time")]
    Timeout,
    /// The connection was closed before the head was complete.
    #[error("the connection was closed without an answer")]
    Eof,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Reset(String),
    /// What came is no HTTP/1.1 response, or not one to this request.
    #[error("the answer is not usable: {0}")]
    Protocol(String),
}

impl FetchError {
    /// The shortage of the relay's own for which nothing was sent, if that is why.
    #[must_use]
    pub fn own(&self) -> Option<Shortage> {
        match self {
            Self::Dial(DialError::Own(shortage)) => Some(*shortage),
            _ => None,
        }
    }

    /// The word for this failure in a source's state and in metrics.
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Dial(error) => error.slug(),
            Self::Timeout => "timeout",
            Self::Eof => "eof",
            Self::Reset(_) => "reset",
            Self::Protocol(_) => "protocol",
        }
    }
}

/// How a body ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEnd {
    /// The framing (length or chunks) says that this was all.
    Complete,
    /// The connection ended, and nothing says whether this was all.
    Eof,
}

/// How a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection ended before the length was reached or the last chunk came.
    #[error("the body was cut off")]
    Truncated,
    /// The chunks make no sense.
    #[error("the body is broken: {0}")]
    Protocol(String),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(String),
}

impl BodyError {
    /// The word for this failure in a source's state and in metrics.
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Protocol(_) => "protocol",
            Self::Io(_) => "reset",
        }
    }
}

/// The upstream client; cheap to clone.
#[derive(Debug, Clone)]
pub struct Fetcher {
    gate: Gate,
    tls: Tls,
}

type Sender = http1::SendRequest<Full<Bytes>>;
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

impl Fetcher {
    /// A client that goes out through `gate`.
    pub fn new(gate: Gate, tls: Tls) -> Self {
        Self { gate, tls }
    }

    /// The gate it goes out through.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The same with trust and identity of its own; see [`Tls::with`].
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn trusting(&self, ca_pem: Option<&str>, identity: Option<(&str, &str)>) -> Result<Self, TlsError> {
        Ok(Self { gate: self.gate.clone(), tls: self.tls.with(ca_pem, identity)? })
    }

    /// A token endpoint behind the same gate, which may also have a certificate of `ca_pem`.
    ///
    /// # Errors
    /// `Unusable` when the stored URL or certificate is no longer one.
    pub fn token_endpoint(
        &self,
        url: &str,
        client: (&str, &str),
        scopes: &[String],
        ca_pem: Option<&str>,
    ) -> Result<TokenEndpoint, TokenError> {
        let tls = ca_pem.map_or_else(|| Ok(self.tls.clone()), |pem| self.tls.also(pem));
        let tls = tls.map_err(|_| TokenError::Unusable("has a certificate that cannot be read"))?;
        TokenEndpoint::new(url, tls, client, scopes).map_err(|_| TokenError::Unusable("has a URL that cannot be used"))
    }

    /// Opens a bare vetted connection, for protocols that leave HTTP behind (WebSocket).
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn open(&self, target: &Target) -> Result<Socket, DialError> {
        Socket::open(&self.gate, &self.tls, target).await
    }

    /// Sends one request and waits for the head of its response.
    ///
    /// # Errors
    /// See [`FetchError`]; every error is worth a later try.
    ///
    /// # Cancellation
    /// Dropping the future closes the connection.
    pub async fn fetch(&self, request: FetchRequest<'_>) -> Result<FetchResponse, FetchError> {
        let limit = request.head_timeout;
        within(limit, self.exchanging(request)).await.unwrap_or(Err(FetchError::Timeout))
    }

    /// One object for what stands below: the crates that fetch need not compile dialling, TLS and HTTP again, each for itself.
    #[inline(never)]
    fn exchanging<'a>(&'a self, request: FetchRequest<'a>) -> BoxFuture<'a, Result<FetchResponse, FetchError>> {
        Box::pin(self.exchange(request))
    }

    async fn exchange(&self, request: FetchRequest<'_>) -> Result<FetchResponse, FetchError> {
        let message = message(&request)?;
        let socket = self.open(request.target).await?;
        let (mut sender, connection) = handshake(socket).await?;
        let mut driver: Option<Driver> = Some(Box::pin(connection));
        let response = {
            let mut response = std::pin::pin!(sender.send_request(message));
            poll_fn(|cx| {
                // The connection has no task of its own: whoever waits for the response drives it.
                drive(&mut driver, cx);
                response.as_mut().poll(cx)
            })
            .await
        };
        let response = response.map_err(|error| translate(&error))?;
        let (head, incoming) = response.into_parts();
        if head.status.is_informational() {
            return Err(FetchError::Protocol(format!("unexpected status {}", head.status)));
        }
        let framed = incoming.size_hint().exact().is_some() || head.headers.contains_key("transfer-encoding");
        let end = if framed { BodyEnd::Complete } else { BodyEnd::Eof };
        let body = FetchBody { incoming, driver, _sender: sender, framing: end, end: None };
        Ok(FetchResponse { status: head.status.as_u16(), headers: head.headers, body })
    }
}

/// The two ends of HTTP on a connection: what asks, and what must be driven.
async fn handshake(socket: Socket) -> Result<(Sender, http1::Connection<TokioIo<Asking>, Full<Bytes>>), FetchError> {
    let builder = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(Asking::new(socket)));
    builder.await.map_err(|error| translate(&error))
}

fn message(request: &FetchRequest<'_>) -> Result<hyper::Request<Full<Bytes>>, FetchError> {
    let unusable = |_| FetchError::Protocol("the request cannot be put into HTTP".into());
    let mut message = hyper::Request::builder()
        .method(request.method.clone())
        .uri(request.target.path_and_query())
        .body(Full::new(request.body.clone()))
        .map_err(unusable)?;
    *message.headers_mut() = request.headers.clone();
    let host = HeaderValue::from_str(&request.target.authority())
        .map_err(|_| FetchError::Protocol("the host cannot be put into HTTP".into()))?;
    message.headers_mut().insert("host", host);
    Ok(message)
}

/// The body of a response; not `Sync`, read by one owner.
pub struct FetchBody {
    incoming: Incoming,
    driver: Option<Driver>,
    /// Kept while the body is read: without it the connection counts as given up.
    _sender: Sender,
    framing: BodyEnd,
    end: Option<BodyEnd>,
}

impl std::fmt::Debug for FetchBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FetchBody").field("framing", &self.framing).field("end", &self.end).finish_non_exhaustive()
    }
}

impl FetchBody {
    /// The next bytes as they arrive; `None` after a clean end, see [`FetchBody::end`].
    ///
    /// There is no time limit here; the caller has an idle time-out of its own.
    ///
    /// # Errors
    /// See [`BodyError`]; nothing follows an error.
    ///
    /// # Cancellation
    /// Nothing is lost if the future is dropped.
    pub async fn next_chunk(&mut self) -> Option<Result<Bytes, BodyError>> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// Reads the body to its end, or until it has more than `bytes_max` bytes; what came is in `gathered` whatever happens.
    /// Gives whether it ended within them. There is no time limit here.
    ///
    /// # Errors
    /// See [`BodyError`].
    pub async fn gather(&mut self, bytes_max: usize, gathered: &mut Vec<u8>) -> Result<bool, BodyError> {
        while let Some(chunk) = self.next_chunk().await {
            let chunk = chunk?;
            let room = bytes_max - gathered.len();
            gathered.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() > room {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How the body ended; `None` before the end and after an error.
    pub fn end(&self) -> Option<BodyEnd> {
        self.end
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.end.is_some() {
            return Poll::Ready(None);
        }
        loop {
            drive(&mut self.driver, cx);
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Poll::Ready(Some(Ok(data))),
                    // Trailers; nobody uses them.
                    Err(_) => {}
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(broken(&error)))),
                Poll::Ready(None) => {
                    self.end = Some(self.framing);
                    return Poll::Ready(None);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Moves the connection on; its errors also reach whoever waits for the response or the body.
fn drive(driver: &mut Option<Driver>, cx: &mut Context<'_>) {
    if driver.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
        *driver = None;
    }
}

/// The I/O error somewhere under an error of the HTTP library.
fn io_kind(error: &hyper::Error) -> Option<io::ErrorKind> {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        source = inner.source();
    }
    None
}

fn translate(error: &hyper::Error) -> FetchError {
    if error.is_parse() {
        return FetchError::Protocol(error.to_string());
    }
    match io_kind(error) {
        Some(io::ErrorKind::UnexpectedEof) => FetchError::Eof,
        _ if error.is_incomplete_message() => FetchError::Eof,
        Some(_) => FetchError::Reset(error.to_string()),
        None if error.is_canceled() || error.is_closed() => FetchError::Eof,
        None => FetchError::Protocol(error.to_string()),
    }
}

fn broken(error: &hyper::Error) -> BodyError {
    match io_kind(error) {
        _ if error.is_incomplete_message() => BodyError::Truncated,
        Some(io::ErrorKind::UnexpectedEof) => BodyError::Truncated,
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => BodyError::Protocol(error.to_string()),
        _ => BodyError::Io(error.to_string()),
    }
}
