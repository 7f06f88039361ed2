//! The delivery client: one POST, its answer or the way it failed.
//!
//! Owns the attempt's deadline, the one free retry on a stale connection, and what is read of an answer. Hides awc. One
//! instance a lane, not `Send`; needs a `LocalSet` or an actix arbiter around it. Must not know subscriptions, signatures or
//! retry policy: a 3xx is an answer like any other and is never followed, cookies are never kept.
//! Spec: API "What the callback receives"; guarantees 4 and 5.

mod answer;
mod framing;
mod guarded;
mod origin;

pub use actix_http::header::{HeaderMap, HeaderName, HeaderValue};
pub use answer::{WireAnswer, WireFailure};

use super::dial::Gate;
use super::target::Target;
use super::tls::Tls;
use actix_http::{Method, Payload, RequestHead, ResponseHead, StatusCode, Uri, header};
use answer::{read_body, translate};
use awc::error::SendRequestError;
use bytes::Bytes;
use futures_core::future::LocalBoxFuture;
use guarded::Conn;
use origin::{Origin, OriginKey, Origins};
use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Kept of an answer's body.
pub const BODY_HEAD_BYTES_MAX: usize = 4 * 1024;
/// Read of an answer's body; a longer one costs the connection.
pub const BODY_READ_BYTES_MAX: usize = 64 * 1024;
/// Spent on an answer's body after the status is known.
pub const BODY_READ_TIMEOUT: Duration = Duration::from_secs(2);
/// Request heads kept for the next request.
const SPARE_HEADS_MAX: usize = 256;

type BoxedResponse = LocalBoxFuture<'static, Result<(ResponseHead, Payload), SendRequestError>>;

/// A target made ready for many requests: parsed URI, host header, certificates.
#[derive(Debug, Clone)]
pub struct PreparedTarget {
    target: Arc<Target>,
    tls: Tls,
    uri: Uri,
    host: HeaderValue,
    key: OriginKey,
}

/// A URL that the HTTP library cannot carry; not known to happen for a parsed [`Target`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the URL cannot be put into a request")]
pub struct UnusableTarget;

impl PreparedTarget {
    /// Prepares `target`; `tls` is used for https only.
    ///
    /// # Errors
    /// If the HTTP library refuses the canonical URL.
    pub fn new(target: Target, tls: &Tls) -> Result<Self, UnusableTarget> {
        let authority = target.authority();
        let host = HeaderValue::from_str(&authority).map_err(|_| UnusableTarget)?;
        let uri = Uri::builder()
            .scheme("http")
            .authority(authority)
            .path_and_query(target.path_and_query())
            .build()
            .map_err(|_| UnusableTarget)?;
        let key = OriginKey::new(&target, tls);
        Ok(Self { target: Arc::new(target), tls: tls.clone(), uri, host, key })
    }

    /// The URL this was made from.
    pub fn target(&self) -> &Target {
        &self.target
    }
}

/// One POST. `headers` and `extra` go out as they are, `extra` replacing equal names; `host` and `content-length` are set here.
#[derive(Debug)]
pub struct PostRequest<'a> {
    /// Where to.
    pub target: &'a PreparedTarget,
    /// Headers that do not change between attempts.
    pub headers: &'a HeaderMap,
    /// Headers of this attempt.
    pub extra: &'a [(HeaderName, HeaderValue)],
    /// The body, sent with its length.
    pub body: Bytes,
}

/// The POST client of one lane.
pub struct WireClient {
    origins: RefCell<Origins>,
    spare_heads: RefCell<Vec<Rc<RequestHead>>>,
}

impl std::fmt::Debug for WireClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WireClient").field("origins", &self.origins.borrow().len()).finish_non_exhaustive()
    }
}

impl WireClient {
    /// A client without connections.
    pub fn new(gate: Gate) -> Self {
        Self { origins: RefCell::new(Origins::new(gate)), spare_heads: RefCell::new(Vec::new()) }
    }

    /// Sends one POST; `deadline` covers DNS, connecting, TLS, sending and the answer's head.
    ///
    /// The body is then read for at most [`BODY_READ_TIMEOUT`]. A request on a kept connection that dies before the first
    /// byte of an answer is sent once more on a new connection, inside the same deadline.
    ///
    /// # Errors
    /// See [`WireFailure`].
    ///
    /// # Cancellation
    /// Dropping the future closes the connection in use.
    pub async fn post(&self, request: PostRequest<'_>, deadline: Duration) -> Result<WireAnswer, WireFailure> {
        let (head, payload) = match tokio::time::timeout(deadline, self.exchange(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(failure)) => return Err(failure),
            Err(_) => return Err(WireFailure::Timeout),
        };
        let status = head.status;
        // Neither has a body, whatever its headers say; a payload left unread costs the connection.
        let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let body_head = match payload {
            Payload::None => Bytes::new(),
            _ if bodiless => Bytes::new(),
            payload => read_body(payload).await,
        };
        Ok(WireAnswer { status: status.as_u16(), headers: head.headers, body_head })
    }

    /// Drops the connections of origins without a request since the last sweep; call it every few seconds.
    pub fn sweep(&self) {
        self.origins.borrow_mut().sweep();
    }

    /// How many origins are kept warm.
    pub fn origins(&self) -> usize {
        self.origins.borrow().len()
    }

    async fn exchange(&self, request: PostRequest<'_>) -> Result<(ResponseHead, Payload), WireFailure> {
        let target = request.target;
        let head = self.fill_head(&request);
        let mut second_try = false;
        let outcome = loop {
            let origin = self.origins.borrow_mut().get(target);
            let (outcome, conn) = run(&origin, Rc::clone(&head), request.body.clone()).await;
            match outcome {
                Ok(response) => {
                    if let Some(conn) = conn.filter(|_| matches!(response.1, Payload::None))
                        && !conn.done.get()
                    {
                        conn.closed.set(true);
                    }
                    break Ok(response);
                }
                Err(error) => {
                    let stale = conn.as_ref().is_some_and(|conn| conn.reused.get() && !conn.answered.get());
                    let failure = translate(error, conn.as_deref());
                    let broken = matches!(failure, WireFailure::Protocol(_));
                    if stale || broken {
                        self.origins.borrow_mut().forget(&target.key, &origin);
                    }
                    if stale && !broken && !second_try {
                        second_try = true;
                        continue;
                    }
                    break Err(failure);
                }
            }
        };
        self.keep_head(head);
        outcome
    }

    fn fill_head(&self, request: &PostRequest<'_>) -> Rc<RequestHead> {
        let mut head = self.spare_heads.borrow_mut().pop().unwrap_or_default();
        if let Some(filled) = Rc::get_mut(&mut head) {
            filled.method = Method::POST;
            filled.uri = request.target.uri.clone();
            filled.headers.insert(header::HOST, request.target.host.clone());
            for (name, value) in request.headers {
                filled.headers.append(name.clone(), value.clone());
            }
            for (name, value) in request.extra {
                filled.headers.insert(name.clone(), value.clone());
            }
        }
        head
    }

    fn keep_head(&self, mut head: Rc<RequestHead>) {
        let mut spare = self.spare_heads.borrow_mut();
        if spare.len() < SPARE_HEADS_MAX
            && let Some(used) = Rc::get_mut(&mut head)
        {
            used.headers.clear();
            spare.push(head);
        }
    }
}

/// Sends once; also tells which connection the request went out on.
async fn run(
    origin: &Rc<Origin>,
    head: Rc<RequestHead>,
    body: Bytes,
) -> (Result<(ResponseHead, Payload), SendRequestError>, Option<Rc<Conn>>) {
    let _counted = InFlight::new(origin);
    let mut response = origin.send(head, body);
    let mut conn = None;
    let outcome = poll_fn(|cx| {
        let polled = response.as_mut().poll(cx);
        // Whatever connection was written to during this poll is ours: nobody else is polled in between.
        if let Some(touched) = origin.touched.take() {
            conn = Some(touched);
        }
        polled
    })
    .await;
    (outcome, conn)
}

/// Keeps an origin from being swept while a request is on its way.
struct InFlight<'a>(&'a Origin);

impl<'a> InFlight<'a> {
    fn new(origin: &'a Origin) -> Self {
        origin.in_flight.set(origin.in_flight.get() + 1);
        Self(origin)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}
