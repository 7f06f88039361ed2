//! One origin: its pooled connections, and the few origins a lane keeps warm.
//!
//! Owns awc's connector (one an origin, so that dropping it closes the origin's sockets) and the bounded table of them.
//! awc pools and speaks HTTP/1.1; name, address, TLS and framing are ours, in the connector service, because a custom resolver
//! would not see IP literals. TLS happens inside that service, so awc always believes it speaks plain http.

use super::guarded::{Guarded, Touched};
use super::{BoxedResponse, PreparedTarget};
use crate::net::dial::{DialError, Gate};
use crate::net::socket::Socket;
use crate::net::target::{Scheme, Target};
use crate::net::tls::Tls;
use actix_http::{RequestHead, RequestHeadType, Uri};
use actix_service::Service;
use actix_tls::connect::{ConnectError, ConnectInfo, Connection};
use awc::{Connect, Connector};
use bytes::Bytes;
use futures_core::future::LocalBoxFuture;
use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Origins a lane keeps connections to.
pub(super) const ORIGINS_MAX: usize = 512;
/// An idle connection older than this is not used again; receivers close theirs after 5 s and more.
const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// awc's own limit on connecting; ours are shorter, this one only must not come first.
const CONNECTOR_TIMEOUT: Duration = Duration::from_mins(1);

/// What makes two targets share connections: scheme, host, port and certificates.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct OriginKey {
    authority: Arc<str>,
    tls: Option<usize>,
}

impl OriginKey {
    pub(super) fn new(target: &Target, tls: &Tls) -> Self {
        let tls = (target.scheme() == Scheme::Https).then(|| tls.key());
        Self { authority: format!("{}:{}", target.host(), target.port()).into(), tls }
    }
}

type Send = dyn Fn(Rc<RequestHead>, Bytes) -> BoxedResponse;

/// The warm connections to one origin.
pub(super) struct Origin {
    send: Box<Send>,
    pub(super) touched: Rc<Touched>,
    pub(super) in_flight: Cell<usize>,
    used: Cell<u64>,
}

impl Origin {
    fn new(gate: Gate, prepared: &PreparedTarget) -> Self {
        let touched = Rc::new(Touched::default());
        let dialer = Dialer(Rc::new(Route {
            gate,
            target: Arc::clone(&prepared.target),
            tls: prepared.tls.clone(),
            touched: Rc::clone(&touched),
        }));
        let connector = Rc::new(
            Connector::new()
                .connector(dialer)
                .timeout(CONNECTOR_TIMEOUT)
                .conn_keep_alive(KEEP_ALIVE)
                // The caller bounds its requests; awc would hold a permit until a body is read to its end.
                .limit(0)
                .finish(),
        );
        let send = Box::new(move |head: Rc<RequestHead>, body: Bytes| {
            let connector = Rc::clone(&connector);
            let response: BoxedResponse = Box::pin(async move {
                let connect = Connect { uri: head.uri.clone(), addr: None };
                let connection = connector.call(connect).await?;
                connection.send_request(RequestHeadType::Rc(head, None), body).await
            });
            response
        });
        Self { send, touched, in_flight: Cell::new(0), used: Cell::new(0) }
    }

    pub(super) fn send(&self, head: Rc<RequestHead>, body: Bytes) -> BoxedResponse {
        (self.send)(head, body)
    }
}

/// The origins of a lane, at most [`ORIGINS_MAX`]; the least recently used one makes room.
pub(super) struct Origins {
    gate: Gate,
    table: HashMap<OriginKey, Rc<Origin>>,
    tick: u64,
    /// Origins not used since this tick are idle at the next sweep.
    swept: u64,
}

impl Origins {
    pub(super) fn new(gate: Gate) -> Self {
        Self { gate, table: HashMap::new(), tick: 0, swept: 0 }
    }

    /// The connections to this target's origin, made on first use.
    pub(super) fn get(&mut self, target: &PreparedTarget) -> Rc<Origin> {
        self.tick += 1;
        if let Some(origin) = self.table.get(&target.key) {
            origin.used.set(self.tick);
            return Rc::clone(origin);
        }
        if self.table.len() >= ORIGINS_MAX {
            self.make_room();
        }
        let origin = Rc::new(Origin::new(self.gate.clone(), target));
        origin.used.set(self.tick);
        self.table.insert(target.key.clone(), Rc::clone(&origin));
        origin
    }

    /// Forgets the connections of `origin`; requests on the way end on their own.
    pub(super) fn forget(&mut self, key: &OriginKey, origin: &Rc<Origin>) {
        if self.table.get(key).is_some_and(|current| Rc::ptr_eq(current, origin)) {
            self.table.remove(key);
        }
    }

    /// Drops origins without a request since the last sweep.
    pub(super) fn sweep(&mut self) {
        let idle_before = self.swept;
        self.swept = self.tick;
        self.table.retain(|_, origin| origin.used.get() > idle_before || origin.in_flight.get() > 0);
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Drops the older half of the idle origins at once, so that a full table costs little a request.
    fn make_room(&mut self) {
        let mut ages: Vec<u64> = self.table.values().map(|origin| origin.used.get()).collect();
        ages.sort_unstable();
        let oldest = ages[ages.len() / 2];
        self.table.retain(|_, origin| origin.used.get() > oldest);
    }
}

/// What the connector service needs for one origin.
struct Route {
    gate: Gate,
    target: Arc<Target>,
    tls: Tls,
    touched: Rc<Touched>,
}

/// awc's connector service: the gate, then TLS, then the guarded socket.
#[derive(Clone)]
struct Dialer(Rc<Route>);

impl Service<ConnectInfo<Uri>> for Dialer {
    type Response = Connection<Uri, Guarded>;
    type Error = ConnectError;
    type Future = LocalBoxFuture<'static, Result<Self::Response, ConnectError>>;

    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&self, info: ConnectInfo<Uri>) -> Self::Future {
        let route = Rc::clone(&self.0);
        Box::pin(async move {
            // `Resolver` is the one variant that carries an error of ours through awc.
            let boxed = |error: DialError| ConnectError::Resolver(Box::new(error));
            let socket = Socket::open(&route.gate, &route.tls, &route.target).await.map_err(boxed)?;
            let guarded = Guarded::new(socket, Rc::clone(&route.touched));
            Ok(Connection::new(info.request().clone(), guarded))
        })
    }
}
