//! What the server does with an accepted connection: hardens its socket, serves requests on it, and lets a stream that took it
//! over go on without the server.
//!
//! The connection counts as open for the server's limit and for its shutdown until both are done. Knows no endpoint.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_http::Protocol;
use actix_service::{Service, ServiceFactory};
use tokio::net::TcpStream;

use crate::egress::handover::{Connection, Wire};
use crate::egress::socket;

/// What an HTTP service takes.
type Accepted = (Wire, Protocol, Option<SocketAddr>);
type Boxed<T> = Pin<Box<dyn Future<Output = T>>>;

/// Makes the service of each worker out of an HTTP service.
pub(super) struct Connections<F>(pub(super) F);

impl<F> ServiceFactory<TcpStream> for Connections<F>
where
    F: ServiceFactory<Accepted, Config = (), Response = ()>,
    F::Service: 'static,
    F::Future: 'static,
{
    type Response = ();
    type Error = F::Error;
    type Config = ();
    type Service = Serving<F::Service>;
    type InitError = F::InitError;
    type Future = Boxed<Result<Self::Service, F::InitError>>;

    fn new_service(&self, (): ()) -> Self::Future {
        let http = self.0.new_service(());
        Box::pin(async move { http.await.map(Serving) })
    }
}

/// The service of one worker.
pub(super) struct Serving<S>(S);

impl<S> Service<TcpStream> for Serving<S>
where
    S: Service<Accepted, Response = ()>,
    S::Future: 'static,
{
    type Response = ();
    type Error = S::Error;
    type Future = Boxed<Result<(), S::Error>>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&self, stream: TcpStream) -> Self::Future {
        // The connection works without these options, too; a dead peer is only noticed later.
        let _ = socket::harden(&stream);
        let peer = stream.peer_addr().ok();
        let connection = Connection::new(stream);
        // In a box of its own, so that a stream does not keep the space of the server's part.
        let requests = Box::pin(self.0.call((connection.wire(), Protocol::Http1, peer)));
        Box::pin(async move {
            requests.await?;
            connection.stream().await;
            Ok(())
        })
    }
}
