//! What the server does with an accepted connection: refuses what there is no room for, hardens its socket, serves requests on it,
//! gives it up when the head of a request does not end, no other comes or an answer is not taken, and lets a stream that took it
//! over go on without the server.
//!
//! actix can bound these times, too, but looks at the clock before it looks into the socket, and at a clock that may stand still
//! for as long as the process did: what was sent in time would be refused after a pause of ours. The connection counts as open
//! for the server's limit and for its shutdown until both parts are done. Knows no endpoint.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_http::Protocol;
use actix_service::{Service, ServiceFactory};
use metrics::counter;
use tokio::net::TcpStream;
use tokio::time::{Instant as Moment, Sleep};

use super::problem::{self, PROBLEM_TYPE};
use hookcast_streams::handover::{Connection, Wait, Wire};
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
    pub(super) times: Times,
    pub(super) room: Room,
}

/// How long a connection is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// For the head of a request.
    pub(super) head: Duration,
    /// For another request, and for the socket to take more of an answer.
    pub(super) keep_alive: Duration,
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
        let (http, times, room) = (self.http.new_service(()), self.times, self.room.clone());
        Box::pin(async move { http.await.map(|http| Serving { http, times, room }) })
    }
}

/// The service of one worker.
pub(super) struct Serving<S> {
    http: S,
    times: Times,
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
        let requests = Requests::new(requests, connection.clone(), self.times);
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

/// The requests of one connection, until it ends, a head is late, no other request comes or an answer is not taken.
struct Requests<F> {
    served: Pin<Box<F>>,
    connection: Connection,
    times: Times,
    /// What is waited for, and until when.
    wait: Option<(Wait, Moment)>,
    /// Never later than that; set anew when it rings too early, because most waits end before they are over.
    alarm: Pin<Box<Sleep>>,
}

impl<F> Requests<F> {
    fn new(served: Pin<Box<F>>, connection: Connection, times: Times) -> Self {
        Self { served, connection, times, wait: None, alarm: Box::pin(tokio::time::sleep(times.head.min(times.keep_alive))) }
    }

    /// Until when it is waited for this.
    fn until(&mut self, wait: Wait) -> Moment {
        match self.wait {
            Some((known, until)) if known == wait => until,
            _ => {
                let time = match wait {
                    Wait::Head(_) => self.times.head,
                    Wait::Request(_) | Wait::Taking(_) => self.times.keep_alive,
                };
                let until = Moment::now() + time;
                if until < self.alarm.deadline() {
                    self.alarm.as_mut().reset(until);
                }
                self.wait = Some((wait, until));
                until
            }
        }
    }
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
        if this.connection.reads_on() {
            cx.waker().wake_by_ref();
        }
        while let Some(wait) = this.connection.waits_for() {
            let until = this.until(wait);
            std::task::ready!(this.alarm.as_mut().poll(cx));
            if this.alarm.deadline() < until {
                this.alarm.as_mut().reset(until);
                continue;
            }
            if this.connection.asks(wait) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if this.connection.give_up(wait) {
                match wait {
                    Wait::Head(_) => counter!("hookcast_late_heads_total").increment(1),
                    Wait::Taking(_) => counter!("hookcast_untaken_answers_total").increment(1),
                    Wait::Request(_) => {}
                }
                return Poll::Ready(Ok(()));
            }
            this.wait = None;
        }
        Poll::Pending
    }
}
