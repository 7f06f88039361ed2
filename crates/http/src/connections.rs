//! What the server does with an accepted connection: refuses what there is no room for, hardens its socket, serves requests on it, gives it up when the head of a
//! request does not end, and lets a stream that took it over go on without the server.
//!
//! The connection counts as open for the server's limit and for its shutdown until both are done. Knows no endpoint.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_http::Protocol;
use actix_service::{Service, ServiceFactory};
use metrics::counter;
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::problem::{self, PROBLEM_TYPE};
use hookcast_streams::handover::{Connection, Wire};
use hookcast_streams::socket;
use hookcast_supervise::caught;

mod room;

pub(super) use room::{PARTING_MAX, Room, Seat};

/// What an HTTP service takes.
type Accepted = (Wire, Protocol, Option<SocketAddr>);
type Boxed<T> = Pin<Box<dyn Future<Output = T>>>;

/// Makes the service of each worker out of an HTTP service.
pub(super) struct Connections<F> {
    pub(super) http: F,
    /// Time for the head of a request behind the first; the server itself has it for the first.
    pub(super) head_timeout: Duration,
    pub(super) room: Room,
}

impl<F> ServiceFactory<TcpStream> for Connections<F>
where
    F: ServiceFactory<Accepted, Config = (), Response = ()>,
    F::Service: 'static,
    F::Future: 'static,
    F::Error: 'static,
{
    type Response = ();
    type Error = F::Error;
    type Config = ();
    type Service = Serving<F::Service>;
    type InitError = F::InitError;
    type Future = Boxed<Result<Self::Service, F::InitError>>;

    fn new_service(&self, (): ()) -> Self::Future {
        let (http, head_timeout, room) = (self.http.new_service(()), self.head_timeout, self.room.clone());
        Box::pin(async move { http.await.map(|http| Serving { http, head_timeout, room }) })
    }
}

/// The service of one worker.
pub(super) struct Serving<S> {
    http: S,
    head_timeout: Duration,
    room: Room,
}

impl<S> Service<TcpStream> for Serving<S>
where
    S: Service<Accepted, Response = ()>,
    S::Future: 'static,
    S::Error: 'static,
{
    type Response = ();
    type Error = S::Error;
    type Future = Boxed<Result<(), S::Error>>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.http.poll_ready(cx)
    }

    fn call(&self, stream: TcpStream) -> Self::Future {
        // The connection works without these options, too; a dead peer is only noticed later.
        let _ = socket::harden(&stream);
        let peer = stream.peer_addr().ok();
        let Some(seat) = self.room.enter(peer.map(|peer| peer.ip()), Instant::now()) else {
            let parting = self.room.clone().part(stream, no_room());
            return Box::pin(async move {
                parting.await;
                Ok(())
            });
        };
        let connection = Connection::new(stream);
        // In a box of its own, so that a stream does not keep the space of the server's part.
        let requests = Box::pin(self.http.call((connection.wire(), Protocol::Http1, peer)));
        let requests =
            Requests { served: requests, connection: connection.clone(), head_timeout: self.head_timeout, alarm: None };
        Box::pin(async move {
            let _seat: Seat = seat;
            match caught(requests).await {
                Ok(served) => served?,
                Err(panic) => {
                    panic.tell("connection", "this connection ends, no other does");
                    return Ok(());
                }
            }
            connection.stream().await;
            Ok(())
        })
    }
}

/// What is said when there is no room.
pub(super) const NO_ROOM: &str = "as many connections as allowed are open; come back in a moment";

fn no_room() -> String {
    let problem::Kind { slug, status, title } = problem::UNAVAILABLE;
    let body = format!("{{\"type\":\"/problems/{slug}\",\"title\":\"{title}\",\"status\":{status},\"detail\":\"{NO_ROOM}\"}}");
    format!(
        "HTTP/1.1 {status} Service Unavailable\r\ncontent-type: {PROBLEM_TYPE}\r\nretry-after: 5\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The requests of one connection, until it ends or a head is late. Sets a timer only while part of a head is there.
struct Requests<F> {
    served: Pin<Box<F>>,
    connection: Connection,
    head_timeout: Duration,
    /// Rings for the wait of this number.
    alarm: Option<(u32, Pin<Box<Sleep>>)>,
}

impl<F, E> Future for Requests<F>
where
    F: Future<Output = Result<(), E>>,
{
    type Output = Result<(), E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Poll::Ready(ended) = this.served.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        loop {
            let Some(wait) = this.connection.late_head() else {
                this.alarm = None;
                return Poll::Pending;
            };
            match &mut this.alarm {
                Some((number, alarm)) if *number == wait => {
                    std::task::ready!(alarm.as_mut().poll(cx));
                    // An answer that is still being read is not cut for what comes behind it.
                    if this.connection.give_up_head() {
                        counter!("hookcast_late_heads_total").increment(1);
                        return Poll::Ready(Ok(()));
                    }
                    this.alarm = None;
                }
                _ => this.alarm = Some((wait, Box::pin(tokio::time::sleep(this.head_timeout)))),
            }
        }
    }
}
