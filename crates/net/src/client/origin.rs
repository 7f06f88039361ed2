//! One origin: its idle connections, and the few origins a lane keeps warm.
//!
//! Owns awc's connector (one an origin), the idle connections and the bounded table of origins. awc opens connections; name,
//! address and TLS are ours, in the connector service, because a custom resolver would not see IP literals. TLS happens inside
//! that service, so awc always believes it connects in plain.

use super::PreparedTarget;
use super::answer::{WireFailure, undialled};
use super::link::Link;
use crate::dial::{DialError, Gate};
use crate::socket::Socket;
use crate::target::{Scheme, Target};
use crate::tls::Tls;
use actix_http::Uri;
use actix_rt::net::{ActixStream, Ready};
use actix_service::Service;
use actix_tls::connect::{ConnectError, ConnectInfo, Connection};
use awc::{BoxedSocket, Connect, Connector};
use foldhash::{HashMap, HashMapExt as _};
use futures_core::future::LocalBoxFuture;
use sha2::{Digest as _, Sha256};
use std::cell::{Cell, RefCell};
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use std::{fmt, io};

/// Origins a lane keeps connections to.
pub(super) const ORIGINS_MAX: usize = 512;
/// Idle connections to one origin.
const IDLE_MAX: usize = 4096;
/// An idle connection older than this is not used again; receivers close theirs after 5 s and more.
const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// awc's own limit on connecting; ours are shorter, this one only must not come first.
const CONNECTOR_TIMEOUT: Duration = Duration::from_mins(1);

/// What makes two targets share connections: scheme, host, port, certificates and credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OriginKey {
    authority: Arc<str>,
    tls: Option<u64>,
    pub(super) auth: Option<Box<AuthKey>>,
}

/// Credentials are compared and not hashed: nearly always there are none.
impl Hash for OriginKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.authority.hash(state);
        self.tls.hash(state);
    }
}

/// Which credentials a connection is for; equal ones share connections, different ones never do.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct AuthKey([u8; 32]);

impl AuthKey {
    /// The key of credentials, as the texts that they are made of.
    #[must_use]
    pub fn of(parts: &[&str]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        Self(digest.finalize().into())
    }
}

/// Somebody could try out passwords on it.
impl fmt::Debug for AuthKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthKey(…)")
    }
}

impl OriginKey {
    pub(super) fn new(target: &Target, tls: &Tls) -> Self {
        let tls = (target.scheme() == Scheme::Https).then(|| tls.number());
        Self { authority: format!("{}:{}", target.host(), target.port()).into(), tls, auth: None }
    }
}

type Dial = dyn Fn() -> LocalBoxFuture<'static, Result<BoxedSocket, WireFailure>>;

/// The warm connections to one origin.
pub(super) struct Origin {
    dial: Box<Dial>,
    /// The one that was idle for the shortest time comes last, and is used first.
    idle: RefCell<Vec<Link>>,
    pub(super) in_flight: Cell<usize>,
    used: Cell<u64>,
}

impl Origin {
    fn new(gate: Gate, prepared: &PreparedTarget) -> Self {
        let route = Route { gate, target: Arc::clone(&prepared.target), tls: prepared.tls.clone() };
        let connector = Connector::new().connector(Dialer(Rc::new(route))).timeout(CONNECTOR_TIMEOUT);
        // The caller bounds its requests; awc would hold a permit as long as the connection lives.
        let connector = Rc::new(connector.limit(0).finish());
        let uri = prepared.uri.clone();
        let dial = Box::new(move || {
            let (connector, connect) = (Rc::clone(&connector), Connect { uri: uri.clone(), addr: None });
            let socket: LocalBoxFuture<'static, _> = Box::pin(async move {
                let connection = connector.call(connect).await.map_err(undialled)?;
                Ok(Box::new(connection) as BoxedSocket)
            });
            socket
        });
        Self { dial, idle: RefCell::default(), in_flight: Cell::new(0), used: Cell::new(0) }
    }

    /// An idle connection that is good, as far as anybody can tell.
    pub(super) fn take(&self, cx: &mut Context<'_>, now: Instant) -> Option<Link> {
        let mut idle = self.idle.borrow_mut();
        loop {
            let mut link = idle.pop()?;
            if now.saturating_duration_since(link.idle_since) < KEEP_ALIVE && link.is_quiet(cx) {
                return Some(link);
            }
        }
    }

    /// Keeps a connection for the next request.
    pub(super) fn keep(&self, link: Link) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_MAX {
            idle.push(link);
        }
    }

    /// Opens a connection.
    pub(super) async fn dial(&self) -> Result<Link, WireFailure> {
        let socket = (self.dial)().await?;
        Ok(Link::new(socket, Instant::now()))
    }
}

/// The origins of a lane, at most [`ORIGINS_MAX`]; the least recently used one makes room.
pub(super) struct Origins {
    pub(super) gate: Gate,
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

    /// Drops origins without a request since the last sweep, and connections that were idle for too long.
    pub(super) fn sweep(&mut self) {
        let idle_before = self.swept;
        self.swept = self.tick;
        self.table.retain(|_, origin| origin.used.get() > idle_before || origin.in_flight.get() > 0);
        let now = Instant::now();
        for origin in self.table.values() {
            origin.idle.borrow_mut().retain(|link| now.saturating_duration_since(link.idle_since) < KEEP_ALIVE);
        }
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
}

/// awc's connector service: the gate, then TLS.
#[derive(Clone)]
struct Dialer(Rc<Route>);

impl Service<ConnectInfo<Uri>> for Dialer {
    type Response = Connection<Uri, Socket>;
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
            Ok(Connection::new(info.request().clone(), socket))
        })
    }
}

/// What awc asks of a socket.
impl ActixStream for Socket {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_read_ready(self.tcp(), cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_write_ready(self.tcp(), cx)
    }
}
