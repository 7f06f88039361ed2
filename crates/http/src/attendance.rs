//! Tells the connection of a request when it begins and when its answer is written: the outermost of what a request passes.
//!
//! Also says the end of a connection whose client offered to speak something else: the server reads no further request from it.
//! The server says neither, and the time for heads ([`super::connections`]) is to be counted between the two only. No
//! allocation but for a body in chunks, which says when it is waited for: it stands in front of the intake. Knows no endpoint.

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{Payload, Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::error::PayloadError;
use actix_web::http::{ConnectionType, StatusCode, header};
use actix_web::{Error, HttpMessage as _};
use bytes::Bytes;
use futures_core::Stream;
use pin_project_lite::pin_project;

use hookcast_streams::handover::{BodyEnd, Connection, UnderWay};

/// Makes the attendance of one worker.
pub(super) struct Attendance;

impl<S, B> Transform<S, ServiceRequest> for Attendance
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    B: MessageBody,
{
    type Response = ServiceResponse<Attended<B>>;
    type Error = Error;
    type Transform = Attending<S>;
    type InitError = ();
    type Future = Ready<Result<Attending<S>, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(Attending(service)))
    }
}

/// A service whose requests are attended to.
pub(super) struct Attending<S>(S);

impl<S, B> Service<ServiceRequest> for Attending<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    B: MessageBody,
{
    type Response = ServiceResponse<Attended<B>>;
    type Error = Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&self, mut request: ServiceRequest) -> Self::Future {
        let body = body_end(&request);
        let under_way = request.conn_data::<Connection>().map(|connection| connection.begin(body, || head_bytes(&request)));
        if body == BodyEnd::Chunked
            && let Some(connection) = request.conn_data::<Connection>().cloned()
        {
            let payload = request.take_payload();
            request.set_payload(Payload::Stream { payload: Box::pin(Wanted { payload, connection }) });
        }
        let offers = request.head().upgrade();
        Answering { answer: self.0.call(request), under_way, offers }
    }
}

/// How the body of a request ends; the server refuses requests that say it in two ways.
fn body_end(request: &ServiceRequest) -> BodyEnd {
    let headers = request.headers();
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return BodyEnd::Chunked;
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    length.map_or(BodyEnd::None, BodyEnd::After)
}

/// How many bytes the head of a request has at least, however it was written.
fn head_bytes(request: &ServiceRequest) -> u64 {
    let line = request.method().as_str().len() + request.uri().path().len() + "  HTTP/1.1\n\n".len();
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + ":\n".len());
    headers.fold(line, |sum, header| sum + header) as u64
}

/// A body of unknown length, which is read from the connection as long as a handler waits for it: where it ended, more may follow.
struct Wanted {
    payload: Payload,
    connection: Connection,
}

impl Stream for Wanted {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = Pin::new(&mut self.payload).poll_next(cx);
        match &next {
            Poll::Pending => self.connection.want_body(true),
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(_)) | None) => self.connection.want_body(false),
        }
        next
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.connection.want_body(false);
    }
}

pin_project! {
    /// An answer on its way.
    pub(super) struct Answering<F> {
        #[pin]
        answer: F,
        under_way: Option<UnderWay>,
        // Whether the client offers another protocol.
        offers: bool,
    }
}

impl<F, B> Future for Answering<F>
where
    F: Future<Output = Result<ServiceResponse<B>, Error>>,
{
    type Output = Result<ServiceResponse<Attended<B>>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = std::task::ready!(this.answer.poll(cx));
        let (under_way, offers) = (this.under_way.take(), *this.offers);
        Poll::Ready(answer.map(|answer| {
            answer.map_body(|head, body| {
                if offers && head.status != StatusCode::SWITCHING_PROTOCOLS {
                    head.set_connection_type(ConnectionType::Close);
                }
                Attended { body, under_way }
            })
        }))
    }
}

pin_project! {
    /// A body that ends the attendance when it is dropped, which is when the last of it is in the server's write buffer.
    pub(super) struct Attended<B> {
        #[pin]
        body: B,
        under_way: Option<UnderWay>,
    }
}

impl<B: MessageBody> MessageBody for Attended<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, B::Error>>> {
        self.project().body.poll_next(cx)
    }
}
