//! What every request passes before its handler: shape of the target, `Host` and origin, and a net under panics.
//!
//! Written out instead of wrapping a function, because it stands in front of the intake: no allocation, no span. Tokens are the
//! handlers' part, because each needs another scope. Knows no endpoint.

use std::cell::RefCell;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, EitherBody, MessageBody};
use actix_web::dev::{Payload, Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::error::PayloadError;
use actix_web::http::{Method, header};
use actix_web::{Error, HttpMessage as _};
use bytes::Bytes;
use futures_core::Stream;

use super::audit::{self, Audit};
use super::auth::Auth;
use super::problem::{self, Problem};
use hookcast_supervise::{Panic, catch};

/// Longest request target, in bytes; actix itself answers 400 from 65,535 on.
pub(super) const TARGET_BYTES_MAX: usize = 8 * 1024;

/// Makes the gate of one worker.
pub(super) struct Gate {
    pub(super) auth: Arc<Auth>,
    pub(super) audit: Arc<Audit>,
}

impl<S, B> Transform<S, ServiceRequest> for Gate
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    S::Future: Unpin + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B, BoxBody>>;
    type Error = Error;
    type Transform = Guarded<S>;
    type InitError = ();
    type Future = Ready<Result<Guarded<S>, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(Guarded { service, auth: Arc::clone(&self.auth), audit: Arc::clone(&self.audit) }))
    }
}

/// A service behind the gate.
pub(super) struct Guarded<S> {
    service: S,
    auth: Arc<Auth>,
    audit: Arc<Audit>,
}

/// A request on its way.
pub(super) enum Passage<F, B> {
    Refused(Option<ServiceResponse<BoxBody>>),
    Inside(F, Option<Held>),
    /// To be remembered before it is answered.
    Act(Pin<Box<dyn Future<Output = Result<Answer<B>, Error>>>>),
}

type Answer<B> = ServiceResponse<EitherBody<B, BoxBody>>;

impl<S, B> Service<ServiceRequest> for Guarded<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    S::Future: Unpin + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B, BoxBody>>;
    type Error = Error;
    type Future = Passage<S::Future, B>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&self, mut request: ServiceRequest) -> Self::Future {
        let held = Held::of(&mut request);
        match check(&request, &self.auth) {
            Ok(()) if audit::may_be_act(request.head()) => {
                let (inside, audit) = (Passage::Inside(self.service.call(request), held), Arc::clone(&self.audit));
                Passage::Act(Box::pin(async move {
                    let answer = inside.await?;
                    audit.answered(answer.request(), answer.status(), answer.headers()).await;
                    Ok(answer)
                }))
            }
            Ok(()) => Passage::Inside(self.service.call(request), held),
            Err(problem) => {
                let response = request.into_response(problem.response());
                Passage::Refused(Some(match held {
                    None => response,
                    Some(held) => response.map_body(|_, body| BoxBody::new(WithHeld { body: Box::pin(body), _held: held })),
                }))
            }
        }
    }
}

impl<F, B> Future for Passage<F, B>
where
    F: Future<Output = Result<ServiceResponse<B>, Error>> + Unpin,
    B: MessageBody + 'static,
{
    type Output = Result<ServiceResponse<EitherBody<B, BoxBody>>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Refused(response) => {
                let response = response.take().expect("invariant: a finished future is not polled");
                Poll::Ready(Ok(response.map_into_right_body()))
            }
            Self::Act(act) => catch(|| act.as_mut().poll(cx)).unwrap_or_else(|panic| Poll::Ready(Err(broken(&panic)))),
            Self::Inside(inner, held) => match catch(|| Pin::new(inner).poll(cx)) {
                Ok(poll) => poll.map_ok(|response| match held.take() {
                    None => response.map_into_left_body(),
                    Some(held) => response
                        .map_body(|_, body| EitherBody::right(BoxBody::new(WithHeld { body: Box::pin(body), _held: held }))),
                }),
                Err(panic) => Poll::Ready(Err(broken(&panic))),
            },
        }
    }
}

/// The answer to a request whose handler panicked.
fn broken(panic: &Panic) -> Error {
    panic.tell("request", "it is answered with 500");
    Problem::new(problem::INTERNAL, "the relay's log says what broke").into()
}

/// A chunked request body that lives as long as the answer.
///
/// When a handler answers before the end of a chunked body and drops it, actix goes on reading it for ever, without any
/// timer: a client that never ends the body keeps the connection. While somebody still holds the body, actix closes the
/// connection behind the answer instead.
#[derive(Clone)]
pub(super) struct Held(Rc<RefCell<Payload>>);

impl Held {
    fn of(request: &mut ServiceRequest) -> Option<Self> {
        if !request.headers().contains_key(header::TRANSFER_ENCODING) {
            return None;
        }
        let held = Self(Rc::new(RefCell::new(request.take_payload())));
        request.set_payload(Payload::Stream { payload: Box::pin(held.clone()) });
        Some(held)
    }
}

impl Stream for Held {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_next(cx)
    }
}

/// An answer that holds the body of its request.
struct WithHeld<B> {
    body: Pin<Box<B>>,
    _held: Held,
}

impl<B: MessageBody> MessageBody for WithHeld<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, B::Error>>> {
        self.body.as_mut().poll_next(cx)
    }
}

fn check(request: &ServiceRequest, auth: &Auth) -> Result<(), Problem> {
    let method = request.method();
    if *method == Method::CONNECT || *method == Method::TRACE {
        return Err(problem::wrong_method("GET, HEAD, POST, PUT, PATCH, DELETE"));
    }
    let uri = request.uri();
    if uri.authority().is_some() {
        return Err(Problem::new(problem::INVALID_TARGET, "this is no proxy; send the path only"));
    }
    if uri.path_and_query().is_some_and(|target| target.as_str().len() > TARGET_BYTES_MAX) {
        return Err(Problem::new(problem::TARGET_TOO_LONG, format!("allowed: at most {TARGET_BYTES_MAX} bytes")));
    }
    let is_navigation_allowed = matches!(*method, Method::GET | Method::HEAD);
    auth.admit(request.headers(), is_navigation_allowed)
}
