//! What every request passes before its handler: shape of the target, `Host` and origin, and a net under panics.
//!
//! Written out instead of wrapping a function, because it stands in front of the intake: no allocation, no span. Tokens are the
//! handlers' part, because each needs another scope. Knows no endpoint.

use std::future::{Future, Ready, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::Error;
use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::http::Method;

use super::auth::Auth;
use super::problem::{self, Problem};

/// Longest request target, in bytes; actix itself answers 400 from 65,535 on.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;

/// Makes the gate of one worker.
pub(super) struct Gate(pub(super) Arc<Auth>);

impl<S, B> Transform<S, ServiceRequest> for Gate
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    S::Future: Unpin,
    B: MessageBody,
{
    type Response = ServiceResponse<EitherBody<B, BoxBody>>;
    type Error = Error;
    type Transform = Guarded<S>;
    type InitError = ();
    type Future = Ready<Result<Guarded<S>, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(Guarded { service, auth: Arc::clone(&self.0) }))
    }
}

/// A service behind the gate.
pub(super) struct Guarded<S> {
    service: S,
    auth: Arc<Auth>,
}

/// A request on its way.
pub(super) enum Passage<F> {
    Refused(Option<ServiceResponse<BoxBody>>),
    Inside(F),
}

impl<S, B> Service<ServiceRequest> for Guarded<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    S::Future: Unpin,
    B: MessageBody,
{
    type Response = ServiceResponse<EitherBody<B, BoxBody>>;
    type Error = Error;
    type Future = Passage<S::Future>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&self, request: ServiceRequest) -> Self::Future {
        match check(&request, &self.auth) {
            Ok(()) => Passage::Inside(self.service.call(request)),
            Err(problem) => Passage::Refused(Some(request.into_response(problem.response()))),
        }
    }
}

impl<F, B> Future for Passage<F>
where
    F: Future<Output = Result<ServiceResponse<B>, Error>> + Unpin,
    B: MessageBody,
{
    type Output = Result<ServiceResponse<EitherBody<B, BoxBody>>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Refused(response) => {
                let response = response.take().expect("invariant: a finished future is not polled");
                Poll::Ready(Ok(response.map_into_right_body()))
            }
            Self::Inside(inner) => match catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll(cx))) {
                Ok(poll) => poll.map_ok(ServiceResponse::map_into_left_body),
                Err(_) => {
                    tracing::error!("a request handler panicked");
                    Poll::Ready(Err(Problem::new(problem::INTERNAL, "the relay's log says what broke").into()))
                }
            },
        }
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
