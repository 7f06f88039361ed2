//! Names to addresses: A and AAAA, asked once a dial.
//!
//! Owns the DNS client, the CNAME walk and the typed failures. Must not judge addresses; `dial` does that with the whole
//! answer. Answers are not cached here: what is vetted is what is dialled, and a resolver nearby caches better.
//! Spec: RFC 1034 §3.6.2 (CNAME), RFC 6761 (special names), RFC 8305 §3 (waiting for the second family).

use super::rules::ResolverChoice;
use super::shortage::Shortage;
use super::target::is_localhost;
use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as HickoryDnsError, DnsHandle as _, NetError, RetryDnsHandle};
use hickory_resolver::proto::op::{DnsRequestOptions, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{Hosts, NameServerPool, PoolContext, TlsConfig, system_conf};
use hookcast_supervise::deadline::within;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// The whole lookup, both families and every alias, takes no longer than this.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);
/// Once one family has answered, the other gets this much longer.
const SECOND_FAMILY_GRACE: Duration = Duration::from_millis(250);
/// One try at the DNS server; a lost datagram is asked again.
const TRY_TIMEOUT: Duration = Duration::from_millis(1_400);
const RETRIES: usize = 1;
/// Aliases followed before the answer is called broken.
const ALIASES_MAX: usize = 12;
/// Addresses of one name that are looked at; an answer with more is called broken.
const ADDRESSES_MAX: usize = 64;

/// Why a name has no addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// The name does not exist.
    #[error("the name does not exist")]
    Nxdomain,
    /// The DNS server could not answer.
    #[error("the DNS server failed ({0})")]
    Servfail(String),
    /// No answer within [`LOOKUP_TIMEOUT`].
    #[error("the DNS server did not answer in time")]
    Timeout,
    /// The name exists but has no address.
    #[error("the name has no address")]
    Empty,
    /// The relay could not ask.
    #[error(transparent)]
    Own(Shortage),
    /// The answer makes no sense: an alias loop, a foreign name, an unreadable message.
    #[error("the DNS answer is broken: {0}")]
    Broken(String),
}

impl DnsError {
    /// The word for this failure in attempts and metrics.
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Nxdomain => "dns_nxdomain",
            Self::Servfail(_) => "dns_servfail",
            Self::Timeout => "dns_timeout",
            Self::Empty => "dns_empty",
            Self::Own(_) => "own_fault",
            Self::Broken(_) => "dns_error",
        }
    }
}

/// The DNS client could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("the resolver cannot be set up: {reason}")]
pub struct ResolverError {
    reason: String,
}

/// A handle to the DNS client; cheap to clone, usable from every runtime.
#[derive(Clone)]
pub struct Resolver {
    pool: RetryDnsHandle<NameServerPool<TokioRuntimeProvider>>,
    hosts: Arc<Hosts>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Resolver {
    /// Sets the client up; `System` reads `/etc/resolv.conf` and `/etc/hosts` once.
    ///
    /// # Errors
    /// If the system's configuration cannot be read.
    pub fn open(choice: ResolverChoice) -> Result<Self, ResolverError> {
        let broken = |error: NetError| ResolverError { reason: error.to_string() };
        let mut options = ResolverOpts::default();
        let (servers, hosts) = match choice {
            ResolverChoice::System => {
                let (config, from_system) = system_conf::read_system_conf().map_err(broken)?;
                options = from_system;
                (config.into_parts().2, Hosts::from_system().unwrap_or_default())
            }
            ResolverChoice::Server(address) => {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = address.port();
                    connection
                });
                (vec![NameServerConfig::new(address.ip(), true, connections.to_vec())], Hosts::default())
            }
        };
        options.timeout = TRY_TIMEOUT;
        let context = Arc::new(PoolContext::new(options, TlsConfig::new().map_err(broken)?));
        let pool = NameServerPool::from_config(servers, context, TokioRuntimeProvider::default());
        Ok(Self { pool: RetryDnsHandle::new(pool, RETRIES), hosts: Arc::new(hosts) })
    }

    /// Looks `name` (lower case, no final dot) up: every A and AAAA record, IPv4 first, never empty.
    ///
    /// The name is taken as complete: search domains are not tried.
    ///
    /// # Errors
    /// See [`DnsError`]; an error of one family is only reported if the other has no address.
    pub async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, DnsError> {
        within(LOOKUP_TIMEOUT, self.both_families(name)).await.unwrap_or(Err(DnsError::Timeout))
    }

    async fn both_families(&self, name: &str) -> Result<Vec<IpAddr>, DnsError> {
        let mut name = Name::from_ascii(name).map_err(|error| DnsError::Broken(error.to_string()))?;
        name.set_fqdn(true);
        let v4 = pin!(self.family(name.clone(), RecordType::A));
        let v6 = pin!(self.family(name, RecordType::AAAA));
        let (first, second) = match select(v4, v6).await {
            Either::Left((v4, v6)) => (v4.clone(), with_grace(&v4, v6).await),
            Either::Right((v6, v4)) => (with_grace(&v6, v4).await, v6),
        };
        let addresses: Vec<IpAddr> = [&first, &second].into_iter().flatten().flatten().copied().collect();
        if addresses.len() > ADDRESSES_MAX {
            return Err(DnsError::Broken(format!("more than {ADDRESSES_MAX} addresses")));
        }
        if !addresses.is_empty() {
            return Ok(addresses);
        }
        // A name that exists for one family only answers "empty" for the other: the other's trouble is the reason.
        Err([first, second].into_iter().filter_map(Result::err).max_by_key(weight).unwrap_or(DnsError::Empty))
    }

    /// One record type, following aliases.
    async fn family(&self, mut name: Name, kind: RecordType) -> Result<Vec<IpAddr>, DnsError> {
        let mut aliases = 0;
        loop {
            if let Some(loopback) = loopback_name(&name, kind) {
                return Ok(vec![loopback]);
            }
            let query = Query::query(name.clone(), kind);
            if let Some(lookup) = self.hosts.lookup_static_host(&query) {
                return Ok(lookup.answers().iter().filter_map(address).collect());
            }
            let mut answers = self.pool.lookup(query, DnsRequestOptions::default());
            let message = match answers.next().await {
                Some(answer) => answer.map_err(|error| translate(&error))?,
                None => return Err(DnsError::Timeout),
            };
            let before = name.clone();
            loop {
                let found: Vec<IpAddr> =
                    message.answers.iter().filter(|r| r.name == name && r.record_type() == kind).filter_map(address).collect();
                if !found.is_empty() {
                    return Ok(found);
                }
                let Some(next) = alias_of(&message.answers, &name) else {
                    break;
                };
                aliases += 1;
                if aliases > ALIASES_MAX {
                    return Err(DnsError::Broken("too many aliases, or a loop of them".into()));
                }
                name = next;
            }
            if name == before {
                return match message.response_code {
                    ResponseCode::NXDomain => Err(DnsError::Nxdomain),
                    _ if message.answers.is_empty() => Err(DnsError::Empty),
                    _ => Err(DnsError::Broken("it is about another name".into())),
                };
            }
        }
    }
}

/// Waits for the slower family: to its end if the faster one failed, else only a moment.
async fn with_grace<F>(first: &Result<Vec<IpAddr>, DnsError>, second: F) -> Result<Vec<IpAddr>, DnsError>
where
    F: Future<Output = Result<Vec<IpAddr>, DnsError>>,
{
    if first.is_ok() { within(SECOND_FAMILY_GRACE, second).await.unwrap_or(Err(DnsError::Timeout)) } else { second.await }
}

fn weight(error: &DnsError) -> u8 {
    match error {
        DnsError::Empty => 0,
        DnsError::Timeout => 1,
        DnsError::Servfail(_) => 2,
        DnsError::Nxdomain => 3,
        DnsError::Broken(_) => 4,
        DnsError::Own(_) => 5,
    }
}

/// An alias may lead to `localhost`, which no DNS server is to be asked about.
fn loopback_name(name: &Name, kind: RecordType) -> Option<IpAddr> {
    let text = name.to_ascii().to_ascii_lowercase();
    is_localhost(text.trim_end_matches('.')).then_some(match kind {
        RecordType::AAAA => IpAddr::V6(Ipv6Addr::LOCALHOST),
        _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
    })
}

fn address(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(ip) => Some(IpAddr::V4(ip.0)),
        RData::AAAA(ip) => Some(IpAddr::V6(ip.0)),
        _ => None,
    }
}

fn alias_of(answers: &[Record], name: &Name) -> Option<Name> {
    answers.iter().filter(|record| &record.name == name).find_map(|record| match &record.data {
        RData::CNAME(alias) => Some(alias.0.clone()),
        _ => None,
    })
}

fn translate(error: &NetError) -> DnsError {
    match error {
        NetError::Timeout => DnsError::Timeout,
        NetError::Dns(HickoryDnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NXDomain => {
            DnsError::Nxdomain
        }
        NetError::Dns(HickoryDnsError::NoRecordsFound(_)) => DnsError::Empty,
        NetError::Dns(HickoryDnsError::ResponseCode(code)) => DnsError::Servfail(code.to_string()),
        // Which socket could not be opened, and why, is often lost on the way.
        NetError::Io(_) | NetError::NoConnections | NetError::Busy => {
            Shortage::now().map_or_else(|| DnsError::Servfail(error.to_string()), DnsError::Own)
        }
        other => DnsError::Broken(other.to_string()),
    }
}
