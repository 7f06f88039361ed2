//! A URL we may be asked to dial, parsed once.
//!
//! Owns the grammar (stricter than the WHATWG parser: what that would repair is refused) and the checks at creation time.
//! Must not resolve names; those are judged again at every dial. The parsed form is what gets dialled, never the text.
//! Spec: API "Targets"; WHATWG URL for the canonical form, UTS 46 for names.

use super::address::AddressClass;
use super::rules::{EgressRules, is_foreign_port};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use url::Url;

/// Longest URL accepted, in bytes of the text as given.
pub const URL_BYTES_MAX: usize = 2048;
/// Longest URL with an upstream's position in it, in bytes.
pub const LONG_URL_BYTES_MAX: usize = 32 * 1024;

/// `http` or `https`; nothing else is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain text; only to listed addresses unless `allow_http`.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// The scheme as it stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The host of a target: an address, or a lower-case ASCII (punycode) name without its final dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A literal address; judged at creation.
    Ip(IpAddr),
    /// A name; judged at every dial.
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Why a URL is no target; one variant a problem slug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not a URL we would read the same way as everybody else.
    #[error("the URL is not valid: {reason}")]
    InvalidUrl {
        /// What is wrong, for a person.
        reason: &'static str,
    },
    /// Another scheme than http or https.
    #[error("the scheme `{scheme}` is not supported; use https")]
    Scheme {
        /// As given, in lower case.
        scheme: String,
    },
    /// A user name or password in the URL.
    #[error("the URL must not carry a user name or password; use `auth` or `headers`")]
    UserinfoNotAllowed,
    /// A fragment, which is never sent.
    #[error("the URL must not have a fragment (`#…`); it is never sent")]
    FragmentNotAllowed,
    /// A port of another protocol.
    #[error("port {port} belongs to another protocol; list it in `network.allow` as `address:{port}` to open it")]
    Port {
        /// The port asked for.
        port: u16,
    },
    /// More than [`URL_BYTES_MAX`] bytes.
    #[error("the URL is longer than {URL_BYTES_MAX} bytes")]
    UrlTooLong,
    /// Plain http to something not listed.
    #[error("plain http to `{host}` is not allowed; use https, list the address in `network.allow`, or set `network.allow_http`")]
    HttpsRequired {
        /// The host asked for.
        host: String,
    },
    /// The address is not public and not listed.
    #[error("the address {ip} is not public ({class}); list it in `network.allow` to open it")]
    BlockedAddress {
        /// The refused address.
        ip: IpAddr,
        /// Why it is not public.
        class: AddressClass,
    },
    /// A reserved or single-label name that is not listed.
    #[error("the host `{host}` is a reserved or local name; list it in `network.allow` to open it")]
    BlockedHost {
        /// The refused name.
        host: String,
    },
    /// The relay itself.
    #[error("the URL points to this relay itself")]
    SelfTarget,
}

impl TargetError {
    /// The last part of the problem's `type`.
    pub fn slug(&self) -> &'static str {
        match self {
            Self::InvalidUrl { .. } => "invalid_url",
            Self::Scheme { .. } => "scheme",
            Self::UserinfoNotAllowed => "userinfo_not_allowed",
            Self::FragmentNotAllowed => "fragment_not_allowed",
            Self::Port { .. } => "port",
            Self::UrlTooLong => "url_too_long",
            Self::HttpsRequired { .. } => "https_required",
            Self::BlockedAddress { .. } => "blocked_address",
            Self::BlockedHost { .. } => "blocked_host",
            Self::SelfTarget => "self_target",
        }
    }
}

/// A parsed http or https URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    url: Url,
    scheme: Scheme,
    host: Host,
    port: u16,
    had_fragment: bool,
}

impl Target {
    /// Parses `text`; grammar only, [`Target::judge`] decides whether it may be used.
    ///
    /// # Errors
    /// `UrlTooLong`, `InvalidUrl`, `Scheme` or `UserinfoNotAllowed`.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if text.len() > URL_BYTES_MAX {
            return Err(TargetError::UrlTooLong);
        }
        Self::parse_long(text)
    }

    /// The same for a URL that the relay itself made longer, or that an upstream gave; up to [`LONG_URL_BYTES_MAX`].
    ///
    /// # Errors
    /// Those of [`Target::parse`].
    pub fn parse_long(text: &str) -> Result<Self, TargetError> {
        if text.len() > LONG_URL_BYTES_MAX {
            return Err(TargetError::UrlTooLong);
        }
        let scheme = check_shape(text)?;
        let mut url = Url::parse(text).map_err(|_| invalid("its host or port cannot be read"))?;
        let host = match url.host() {
            Some(url::Host::Ipv4(ip)) => Host::Ip(IpAddr::V4(ip)),
            Some(url::Host::Ipv6(ip)) => Host::Ip(IpAddr::V6(ip)),
            Some(url::Host::Domain(name)) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                if !is_host_name(name) {
                    return Err(invalid("the host name has an empty, too long or malformed label"));
                }
                Host::Name(name.to_owned())
            }
            None => return Err(invalid("it has no host")),
        };
        if let Host::Name(name) = &host
            && url.host_str() != Some(name.as_str())
        {
            url.set_host(Some(name)).map_err(|_| invalid("its host cannot be read"))?;
        }
        let had_fragment = url.fragment().is_some();
        url.set_fragment(None);
        let port = url.port_or_known_default().unwrap_or(0);
        Ok(Self { url, scheme, host, port, had_fragment })
    }

    /// Decides, at creation, whether this target may be used under `rules`; names are judged again at every dial.
    ///
    /// # Errors
    /// Everything but the grammar errors of [`Target::parse`].
    pub fn judge(&self, rules: &EgressRules) -> Result<(), TargetError> {
        if rules.is_self(self) {
            return Err(TargetError::SelfTarget);
        }
        if self.port == 0 {
            return Err(TargetError::Port { port: 0 });
        }
        match &self.host {
            Host::Ip(ip) => rules.vet(self, *ip)?,
            Host::Name(name) => self.judge_name(name, rules)?,
        }
        // Last, so that a blocked address hidden before a `#` is reported as what it is.
        if self.had_fragment {
            return Err(TargetError::FragmentNotAllowed);
        }
        Ok(())
    }

    fn judge_name(&self, name: &str, rules: &EgressRules) -> Result<(), TargetError> {
        let listed = rules.lists_name(name, self.port);
        let local = is_localhost(name) && !rules.localhost(self.port).is_empty();
        if is_reserved(name) && !listed && !local {
            return Err(TargetError::BlockedHost { host: name.to_owned() });
        }
        if is_foreign_port(self.port) && !rules.opens_port_somewhere(self.port) {
            return Err(TargetError::Port { port: self.port });
        }
        if self.scheme == Scheme::Http && !rules.allow_http && !listed && !local {
            return Err(TargetError::HttpsRequired { host: name.to_owned() });
        }
        Ok(())
    }

    /// The same with more members in its query, behind those it has; may be longer than [`URL_BYTES_MAX`].
    #[must_use]
    pub fn with_query(&self, members: &[(&str, &str)]) -> Self {
        let mut target = self.clone();
        target.url.query_pairs_mut().extend_pairs(members);
        target
    }

    /// The canonical URL: punycode host, no default port, no fragment.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The canonical URL as text.
    pub fn as_str(&self) -> &str {
        self.url.as_str()
    }

    /// http or https.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The address or name.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, given or by default.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host` or `host:port` as it stands in a `Host` header and in a URL; IPv6 in brackets.
    pub fn authority(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        match self.url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// Path and query as they stand in the request line; never empty.
    pub fn path_and_query(&self) -> &str {
        &self.url[url::Position::BeforePath..url::Position::AfterQuery]
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn invalid(reason: &'static str) -> TargetError {
    TargetError::InvalidUrl { reason }
}

/// Refuses what parsers disagree on before the WHATWG parser can repair it.
fn check_shape(text: &str) -> Result<Scheme, TargetError> {
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err(invalid("it contains a space, control character or backslash"));
    }
    let (scheme, rest) = text.split_once(':').ok_or_else(|| invalid("it has no scheme"))?;
    let named = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    if !named {
        return Err(invalid("it has no scheme"));
    }
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        other => {
            return Err(TargetError::Scheme { scheme: other.to_owned() });
        }
    };
    let rest = rest.strip_prefix("//").ok_or_else(|| invalid("`//` must follow the scheme"))?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() {
        return Err(invalid("it has no host"));
    }
    if authority.contains('@') {
        return Err(TargetError::UserinfoNotAllowed);
    }
    check_authority(authority)?;
    Ok(scheme)
}

fn check_authority(authority: &str) -> Result<(), TargetError> {
    let (host, port) = if let Some(inside) = authority.strip_prefix('[') {
        let (address, after) = inside.split_once(']').ok_or_else(|| invalid("a bracket is not closed"))?;
        if address.parse::<Ipv6Addr>().is_err() {
            return Err(invalid("only an IPv6 address without a zone may stand in brackets"));
        }
        match after.strip_prefix(':') {
            Some(port) => (address, port),
            None if after.is_empty() => (address, ""),
            None => return Err(invalid("something follows the closing bracket")),
        }
    } else {
        let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
        (host, port)
    };
    if host.is_empty() {
        return Err(invalid("it has no host"));
    }
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(invalid("the port is not a number, or an IPv6 address is missing its brackets"));
    }
    Ok(())
}

/// Whether `name` is a plausible ASCII host name: labels of 1–63 letters, digits, `-` and `_`, at most 253 bytes.
pub(crate) fn is_host_name(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        })
}

/// Whether `name` means this machine by RFC 6761; never looked up.
pub(crate) fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// Names that mean something inside a machine, a cluster, a cloud or a home, and nothing outside.
fn is_reserved(name: &str) -> bool {
    const SUFFIXES: [&str; 8] = [".localhost", ".localdomain", ".local", ".internal", ".svc", ".home.arpa", ".invalid", ".onion"];
    !name.contains('.')
        || SUFFIXES.iter().any(|suffix| name.ends_with(suffix) || name == &suffix[1..])
        || name == "metadata.goog"
        || name == "instance-data.ec2.internal"
}

#[cfg(test)]
mod tests;
