//! What the operator opened: `network.allow`, `allow_http`, the resolver and our own names.
//!
//! Owns the decision "may this address and port be dialled"; pure. Must not resolve, dial or read configuration files.

use super::address::{AddressClass, embedded_v4, special_purpose};
use super::target::{Host, Scheme, Target, TargetError};
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Ports that belong to other protocols; open only through an allow entry that names the port.
///
/// The list of the WHATWG Fetch standard ("bad ports") plus databases, caches and control planes that answer to HTTP-like bytes.
const FOREIGN_PORTS: &[u16] = &[
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111, 113,
    115, 117, 119, 123, 135, 137, 138, 139, 143, 161, 162, 179, 389, 427, 445, 465, 500, 512, 513, 514, 515, 526, 530, 531, 532,
    540, 548, 554, 556, 563, 587, 601, 623, 636, 873, 989, 990, 993, 995, 1099, 1433, 1521, 1719, 1720, 1723, 1883, 2049, 2181,
    2375, 2376, 2379, 2380, 3268, 3269, 3306, 3389, 3659, 4045, 4190, 4222, 4369, 5060, 5061, 5432, 5672, 5900, 6000, 6379, 6380,
    6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 9042, 9092, 9418, 10080, 10250, 11211, 27017, 27018, 27019,
];

/// Whether `port` belongs to another protocol than HTTP.
pub(crate) fn is_foreign_port(port: u16) -> bool {
    FOREIGN_PORTS.binary_search(&port).is_ok()
}

/// One entry of `network.allow`.
///
/// Shapes: `10.0.0.0/8`, `127.0.0.1`, `::1`, each optionally with a port (`127.0.0.1:6379`, `[fd00::/8]:8443`), or a host name
/// (`receiver`, `hooks.internal:8080`, `*.svc.cluster.local`). An entry with a port opens that port only, and is the only way
/// to open a port of another protocol. A name opens the name (reserved names, plain http); its addresses must still be public
/// or be listed themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowEntry {
    scope: Scope,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    Net(IpNet),
    Name(String),
    /// `.example.com`: every name below, not the name itself.
    Below(String),
}

/// What is wrong with an entry of `network.allow`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllowEntryError {
    /// Nothing is there.
    #[error("is empty; write a CIDR (10.0.0.0/8), an address, or a host name")]
    Empty,
    /// The part after the colon is no port.
    #[error("`{0}` is not a port between 1 and 65535")]
    Port(String),
    /// The prefix length or the address is wrong.
    #[error("`{0}` is not an address or CIDR such as 10.0.0.0/8 or fd00::/8")]
    Net(String),
    /// The network has bits set behind its prefix.
    #[error("`{given}` has host bits set; did you mean `{meant}`?")]
    HostBits {
        /// What was written.
        given: String,
        /// The network it lies in.
        meant: String,
    },
    /// Neither an address nor a host name.
    #[error("`{0}` is neither a CIDR, an address, nor a host name")]
    Name(String),
}

impl FromStr for AllowEntry {
    type Err = AllowEntryError;

    fn from_str(text: &str) -> Result<Self, AllowEntryError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(AllowEntryError::Empty);
        }
        let (host, port) = split_port(text)?;
        let looks_numeric = host.contains(':') || host.contains('/') || host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let scope = if looks_numeric { Scope::Net(parse_net(host)?) } else { parse_name(host)? };
        Ok(Self { scope, port })
    }
}

fn split_port(text: &str) -> Result<(&str, Option<u16>), AllowEntryError> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or_else(|| AllowEntryError::Net(text.into()))?;
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err(AllowEntryError::Net(text.into())),
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (text, None),
        }
    };
    let port = match port {
        None => None,
        Some(port) => match port.parse::<u16>() {
            Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => Some(number),
            _ => return Err(AllowEntryError::Port(port.into())),
        },
    };
    Ok((host, port))
}

fn parse_net(text: &str) -> Result<IpNet, AllowEntryError> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(ip));
    }
    let net: IpNet = text.parse().map_err(|_| AllowEntryError::Net(text.into()))?;
    // 10.1.2.3/8 may be meant as one host or as the network: opening the wider one by accident is the worse mistake.
    if net.trunc() != net {
        return Err(AllowEntryError::HostBits { given: text.into(), meant: net.trunc().to_string() });
    }
    Ok(net)
}

fn parse_name(text: &str) -> Result<Scope, AllowEntryError> {
    let (text, below) = match text.strip_prefix("*.") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    if !super::target::is_host_name(&name) {
        return Err(AllowEntryError::Name(text.into()));
    }
    Ok(if below { Scope::Below(format!(".{name}")) } else { Scope::Name(name) })
}

impl fmt::Display for AllowEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = match &self.scope {
            Scope::Net(net) if net.addr().is_ipv6() && self.port.is_some() => ("[", "]"),
            _ => ("", ""),
        };
        match &self.scope {
            Scope::Net(net) => write!(f, "{open}{net}{close}")?,
            Scope::Name(name) => f.write_str(name)?,
            Scope::Below(name) => write!(f, "*{name}")?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// Where names are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResolverChoice {
    /// The machine's own configuration: `/etc/resolv.conf` and `/etc/hosts`.
    #[default]
    System,
    /// One DNS server, over UDP and TCP.
    Server(SocketAddr),
}

impl FromStr for ResolverChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "system" => Ok(Self::System),
            other => other
                .parse()
                .map(Self::Server)
                .map_err(|_| format!("`{other}` must be \"system\" or an address with a port such as 127.0.0.1:53")),
        }
    }
}

/// What may be dialled.
#[derive(Debug, Clone, Default)]
pub struct EgressRules {
    /// `network.allow`.
    pub allow: Vec<AllowEntry>,
    /// `network.allow_http`: plain http to public addresses too.
    pub allow_http: bool,
    /// `network.resolver`.
    pub resolver: ResolverChoice,
    /// The relay's own outside names, `host` or `host:port`; they are refused as targets.
    pub own_hosts: Vec<String>,
}

impl EgressRules {
    /// Puts the four settings together.
    pub fn new(allow: Vec<AllowEntry>, allow_http: bool, resolver: ResolverChoice, own_hosts: Vec<String>) -> Self {
        Self { allow, allow_http, resolver, own_hosts }
    }

    /// Decides whether `target` may be reached at `ip`; asked for literals at creation and for every address at each dial.
    ///
    /// # Errors
    /// `BlockedAddress`, `Port` or `HttpsRequired`, with the entry that would open it in the message.
    pub fn vet(&self, target: &Target, ip: IpAddr) -> Result<(), TargetError> {
        let port = target.port();
        let listed = self.lists(ip, port);
        if let Some(class) = special_purpose(ip)
            && !listed
        {
            return Err(TargetError::BlockedAddress { ip, class });
        }
        if is_foreign_port(port) && !self.names_port(ip, port) {
            return Err(TargetError::Port { port });
        }
        if target.scheme() == Scheme::Http && !self.allow_http && !listed {
            return Err(TargetError::HttpsRequired { host: target.host().to_string() });
        }
        Ok(())
    }

    /// The loopback addresses `localhost` stands for under these rules; empty if none is listed.
    pub fn localhost(&self, port: u16) -> Vec<IpAddr> {
        [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
            .into_iter()
            .filter(|ip| self.lists(*ip, port))
            .collect()
    }

    /// Whether an address entry covers `ip` on `port`.
    pub(crate) fn lists(&self, ip: IpAddr, port: u16) -> bool {
        let exact_only = special_purpose(ip) == Some(AddressClass::Metadata);
        let direct =
            self.nets(port).any(|(net, _)| net.contains(&ip) && (!exact_only || net.prefix_len() == net.max_prefix_len()));
        // An opened NAT64 or 6to4 prefix must not become a way around the rules for the IPv4 address inside.
        let inside = match ip {
            IpAddr::V6(v6) => embedded_v4(v6).map(IpAddr::V4),
            IpAddr::V4(_) => None,
        };
        direct && inside.is_none_or(|v4| special_purpose(v4).is_none() || self.lists(v4, port))
    }

    fn names_port(&self, ip: IpAddr, port: u16) -> bool {
        self.nets(port).any(|(net, own_port)| own_port && net.contains(&ip))
    }

    fn nets(&self, port: u16) -> impl Iterator<Item = (&IpNet, bool)> {
        self.allow.iter().filter_map(move |entry| match &entry.scope {
            Scope::Net(net) if entry.port.is_none_or(|p| p == port) => Some((net, entry.port.is_some())),
            _ => None,
        })
    }

    /// Whether a name entry covers `name` on `port`.
    pub(crate) fn lists_name(&self, name: &str, port: u16) -> bool {
        self.allow.iter().any(|entry| {
            entry.port.is_none_or(|p| p == port)
                && match &entry.scope {
                    Scope::Name(own) => own == name,
                    Scope::Below(suffix) => name.ends_with(suffix.as_str()),
                    Scope::Net(_) => false,
                }
        })
    }

    /// Whether any entry opens this port of another protocol, for whatever host.
    pub(crate) fn opens_port_somewhere(&self, port: u16) -> bool {
        self.allow.iter().any(|entry| entry.port == Some(port))
    }

    /// Whether `target` is the relay itself.
    pub(crate) fn is_self(&self, target: &Target) -> bool {
        let host = match target.host() {
            Host::Ip(ip) => ip.to_string(),
            Host::Name(name) => name.clone(),
        };
        self.own_hosts.iter().any(|own| {
            let (own_host, own_port) = split_own(own);
            own_host.eq_ignore_ascii_case(&host) && own_port.is_none_or(|port| port == target.port())
        })
    }
}

fn split_own(own: &str) -> (&str, Option<u16>) {
    let (host, port) = if own.parse::<Ipv6Addr>().is_ok() {
        (own, None)
    } else {
        match own.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => (host, port.parse().ok()),
            _ => (own, None),
        }
    };
    (host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.'), port)
}

#[cfg(test)]
mod tests;
