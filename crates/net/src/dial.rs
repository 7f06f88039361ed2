//! The gate: resolve once, judge every address, connect to exactly what was judged.
//!
//! Owns the order of those three steps and the connect budget. Used by the delivery client, the upstream client and whatever
//! else dials. Must not speak HTTP, retry, or look a name up twice; ignores proxy settings of the environment.
//! Spec: RFC 8305 §5 (staggered connection attempts).

use super::peers::Peers;
use super::resolve::{DnsError, Resolver, ResolverError};
use super::rules::EgressRules;
use super::shortage::Shortage;
use super::target::{Host, Target, TargetError, is_localhost};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hookcast_supervise::deadline::within;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// All connection attempts of one dial together take no longer than this.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An address that has not answered by then gets company from the next one.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(300);
/// Addresses tried in one dial; the rest of a long answer is vetted but not used.
const ADDRESSES_TRIED_MAX: usize = 8;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no usable answer.
    #[error(transparent)]
    Dns(DnsError),
    /// The rules refuse an address, the port or plain http.
    #[error(transparent)]
    Refused(#[from] TargetError),
    /// The relay itself lacks what it takes to open a connection.
    #[error(transparent)]
    Own(Shortage),
    /// Refused, unreachable or prohibited.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The last address tried.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No answer within [`CONNECT_TIMEOUT`].
    #[error("no connection within {} s", CONNECT_TIMEOUT.as_secs())]
    ConnectTimeout,
    /// The peer accepted the connection and reset it before anything was said, or during the TLS handshake.
    #[error("the connection was reset: {0}")]
    Reset(io::Error),
    /// The TLS handshake failed: certificate, version, alert, or no TLS at all.
    #[error("the TLS handshake failed: {0}")]
    Tls(String),
    /// The TLS handshake did not end in time.
    #[error("the TLS handshake did not end in time")]
    TlsTimeout,
}

impl DialError {
    /// The word for this failure in attempts and metrics.
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Dns(error) => error.slug(),
            Self::Refused(error) => error.slug(),
            Self::Own(_) => "own_fault",
            Self::Connect { .. } => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Reset(_) => "reset",
            Self::Tls(_) => "tls",
            Self::TlsTimeout => "tls_timeout",
        }
    }
}

impl From<DnsError> for DialError {
    fn from(error: DnsError) -> Self {
        match error {
            DnsError::Own(shortage) => Self::Own(shortage),
            error => Self::Dns(error),
        }
    }
}

/// The one way out; cheap to clone, usable from every runtime.
#[derive(Debug, Clone)]
pub struct Gate {
    inner: Arc<Inner>,
    /// Who answers instead of whoever is at the other end of a wire.
    peers: Option<Arc<dyn Peers>>,
}

#[derive(Debug)]
struct Inner {
    rules: EgressRules,
    resolver: Resolver,
}

impl Gate {
    /// Opens the resolver the rules name.
    ///
    /// # Errors
    /// If the resolver cannot be set up.
    pub fn open(rules: EgressRules) -> Result<Self, ResolverError> {
        let resolver = Resolver::open(rules.resolver)?;
        Ok(Self { inner: Arc::new(Inner { rules, resolver }), peers: None })
    }

    /// The same, but deliveries and questions for consent go to `peers` and never reach a socket: for simulations of what stands above
    /// the wire. Whatever else is asked for, a token for a delivery say, is dialled as ever.
    #[must_use]
    pub fn to(self, peers: Arc<dyn Peers>) -> Self {
        Self { peers: Some(peers), ..self }
    }

    /// Who answers instead of the wire, if anybody does.
    #[must_use]
    pub fn peers(&self) -> Option<&Arc<dyn Peers>> {
        self.peers.as_ref()
    }

    /// The rules in force.
    pub fn rules(&self) -> &EgressRules {
        &self.inner.rules
    }

    /// Resolves and judges `target` without dialling: every address it stands for, all of them allowed.
    ///
    /// # Errors
    /// `Dns` or `Refused`; one refused address refuses the whole answer.
    pub async fn vet(&self, target: &Target) -> Result<Vec<SocketAddr>, DialError> {
        let rules = &self.inner.rules;
        let addresses: Vec<IpAddr> = match target.host() {
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) if is_localhost(name) => rules.localhost(target.port()),
            Host::Name(name) => self.inner.resolver.lookup(name).await?,
        };
        if addresses.is_empty() {
            return Err(TargetError::BlockedHost { host: target.host().to_string() }.into());
        }
        for ip in &addresses {
            rules.vet(target, *ip)?;
        }
        Ok(addresses.into_iter().map(|ip| SocketAddr::new(ip, target.port())).collect())
    }

    /// Connects to `target`; the socket has Nagle's algorithm off.
    ///
    /// # Errors
    /// Everything but the TLS variants of [`DialError`].
    ///
    /// # Cancellation
    /// Dropping the future closes whatever was being opened.
    pub async fn connect(&self, target: &Target) -> Result<TcpStream, DialError> {
        let dialled = self.dial(target).await;
        if let Err(DialError::Own(shortage)) = &dialled {
            shortage.tell();
        }
        dialled
    }

    async fn dial(&self, target: &Target) -> Result<TcpStream, DialError> {
        let addresses = self.vet(target).await?;
        within(CONNECT_TIMEOUT, connect_any(&addresses)).await.unwrap_or(Err(DialError::ConnectTimeout))
    }
}

/// Tries the addresses in order, each a little later than the one before; the first connection wins.
async fn connect_any(addresses: &[SocketAddr]) -> Result<TcpStream, DialError> {
    let mut waiting = addresses.iter().take(ADDRESSES_TRIED_MAX);
    let mut open = FuturesUnordered::new();
    let mut last = Err(DialError::ConnectTimeout);
    loop {
        if let Some(address) = waiting.next() {
            open.push(connect_one(*address));
        } else if open.is_empty() {
            return last;
        }
        let next = if waiting.len() == 0 {
            open.next().await
        } else {
            tokio::time::timeout(NEXT_ADDRESS_AFTER, open.next()).await.unwrap_or(None)
        };
        match next {
            Some(Ok(stream)) => return Ok(stream),
            // What we could not even try says nothing of the name.
            Some(failed) if !matches!(last, Err(DialError::Own(_))) => last = failed,
            Some(_) | None => {}
        }
    }
}

async fn connect_one(address: SocketAddr) -> Result<TcpStream, DialError> {
    let failed = |source: io::Error| match (Shortage::of_connecting(&source, address), source.kind()) {
        (Some(shortage), _) => DialError::Own(shortage),
        (None, io::ErrorKind::TimedOut) => DialError::ConnectTimeout,
        // It was accepted, and reset before we looked.
        (None, io::ErrorKind::ConnectionReset) => DialError::Reset(source),
        (None, _) => DialError::Connect { address, source },
    };
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}
