//! Which IP addresses are not public, and why.
//!
//! Owns the ranges: both IANA special-purpose registries (every block, also those marked globally reachable), multicast,
//! the IPv6 forms that carry an IPv4 address inside, and the addresses where clouds serve credentials.
//! Must not know rules, configuration or names; it is a pure function of the address.
//! Spec: RFC 6890 (registries), RFC 4291, RFC 6052 (NAT64), RFC 3056 (6to4), RFC 4380 (Teredo), RFC 5214 (ISATAP).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is not public.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// `0.0.0.0`, `::` and the rest of `0.0.0.0/8`.
    Unspecified,
    /// `127.0.0.0/8`, `::1`.
    Loopback,
    /// RFC 1918, unique local (`fc00::/7`) and site-local (`fec0::/10`) networks.
    Private,
    /// `100.64.0.0/10`, shared by carriers (RFC 6598).
    Shared,
    /// `169.254.0.0/16`, `fe80::/10`.
    LinkLocal,
    /// A cloud's metadata or credential service; stays shut unless named exactly.
    Metadata,
    /// `224.0.0.0/4`, `ff00::/8`.
    Multicast,
    /// Documentation and benchmarking networks.
    Documentation,
    /// An IPv6 form with an IPv4 address inside: mapped, compatible, translated, 6to4, Teredo, ISATAP.
    Embedded,
    /// Every other special-purpose, reserved or unallocated block.
    Reserved,
}

impl AddressClass {
    /// The short word used in messages and problems.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::Shared => "shared",
            Self::LinkLocal => "link_local",
            Self::Metadata => "metadata",
            Self::Multicast => "multicast",
            Self::Documentation => "documentation",
            Self::Embedded => "embedded_ipv4",
            Self::Reserved => "reserved",
        }
    }
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Says why `ip` is not a public address; `None` means it is public.
pub fn special_purpose(ip: IpAddr) -> Option<AddressClass> {
    match ip {
        IpAddr::V4(ip) => special_v4(ip),
        IpAddr::V6(ip) => special_v6(ip),
    }
}

/// The IPv4 address an IPv6 address is a spelling of, if it is one.
///
/// Covers mapped, compatible, SIIT, NAT64 (both prefixes), 6to4, Teredo and ISATAP.
pub fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = ip.segments();
    let low = v4_of(s[6], s[7]);
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, _, _]
        | [0, 0, 0, 0, 0xffff, 0, _, _]
        | [0x64, 0xff9b, 0, 0, 0, 0, _, _]
        | [_, _, _, _, 0 | 0x200, 0x5efe, _, _] => Some(low),
        // RFC 6052 §2.2: a /48 prefix puts bits 64..72 ("u") in the middle of the address.
        [0x64, 0xff9b, 1, high, middle, ..] if s[3..6] != [0, 0, 0] => {
            let ([first, second], [_, third]) = (high.to_be_bytes(), middle.to_be_bytes());
            let [fourth, _] = s[5].to_be_bytes();
            Some(Ipv4Addr::new(first, second, third, fourth))
        }
        [0x64, 0xff9b, 1, ..] => Some(low),
        [0x2002, a, b, ..] => Some(v4_of(a, b)),
        // Teredo hides the client's address with all its bits turned over.
        [0x2001, 0, ..] => Some(v4_of(!s[6], !s[7])),
        _ => None,
    }
}

fn v4_of(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))
}

fn special_v4(ip: Ipv4Addr) -> Option<AddressClass> {
    use AddressClass as C;
    Some(match ip.octets() {
        // AWS, Google, Azure and most others; ECS and EKS credentials; Scaleway; Tencent; Azure's wire server; Alibaba; Oracle.
        [169, 254, 169, 254]
        | [169, 254, 170, 2 | 23]
        | [169, 254, 42, 42]
        | [169, 254, 0, 23]
        | [168, 63, 129, 16]
        | [100, 100, 100, 200]
        | [192, 0, 0, 192] => C::Metadata,
        [0, ..] => C::Unspecified,
        [127, ..] => C::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => C::Private,
        [100, 64..=127, ..] => C::Shared,
        [169, 254, ..] => C::LinkLocal,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] | [198, 18 | 19, ..] => C::Documentation,
        // IETF assignments, AS112, AMT, 6to4 relays, AS112 direct delegation, class E.
        [192, 0, 0, _] | [192, 31, 196, _] | [192, 52, 193, _] | [192, 88, 99, _] | [192, 175, 48, _] | [240..=255, ..] => {
            C::Reserved
        }
        [224..=239, ..] => C::Multicast,
        _ => return None,
    })
}

/// AWS (instances and EKS), Google and Scaleway over IPv6.
const METADATA_V6: [Ipv6Addr; 4] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

fn special_v6(ip: Ipv6Addr) -> Option<AddressClass> {
    use AddressClass as C;
    if METADATA_V6.contains(&ip) {
        return Some(C::Metadata);
    }
    if let Some(inner) = embedded_v4(ip) {
        // A disguise of the metadata service keeps its stricter class, so that no CIDR opens it.
        let metadata = special_v4(inner) == Some(C::Metadata);
        return Some(if metadata { C::Metadata } else { C::Embedded });
    }
    Some(match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => C::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => C::Loopback,
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => C::Private,
        [0xfe80..=0xfebf, ..] => C::LinkLocal,
        [0xff00..=0xffff, ..] => C::Multicast,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] | [0x2001, 2, 0, ..] => C::Documentation,
        // IETF assignments 2001::/23 and AS112; whatever lies outside 2000::/3 is not allocated to anybody.
        [0x2001, 0..=0x1ff, ..] | [0x2620, 0x4f, 0x8000, ..] => C::Reserved,
        [0x2000..=0x3fff, ..] => return None,
        _ => C::Reserved,
    })
}

#[cfg(test)]
mod tests;
