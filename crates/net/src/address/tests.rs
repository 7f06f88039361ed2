//! The registries' borders and other projects' verdicts, as vectors.

use super::{AddressClass, embedded_v4, special_purpose};
use proptest::prelude::*;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn vectors(text: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(text).unwrap();
    all["vectors"].as_array().unwrap().clone()
}

/// Addresses outside `2000::/3` belong to no allocated block; the registries do not list that space, we refuse it.
fn is_unallocated(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.segments()[0] & 0xe000 != 0x2000)
}

#[test]
fn both_edges_of_every_registry_block_are_judged() {
    let all = vectors(include_str!("../../../../tests/data/ssrf/iana-boundaries.json"));
    assert!(all.len() > 100);
    for vector in all {
        let ip: IpAddr = vector["address"].as_str().unwrap().parse().unwrap();
        let special = vector["block"].is_string() || vector["multicast"] == true || is_unallocated(ip);
        assert_eq!(special_purpose(ip).is_some(), special, "{ip}: {vector}");
    }
}

/// Where origins disagree we take the stricter side:
/// `::ffff:8.8.8.8` is a second spelling of an IPv4 address (svix lets it pass); `::2`, `64:ff9c::1`, `100::2:0:0:0:0`
/// and `fec0::1` are in no registry (boulder, smokescreen let them pass) but nothing public can live there.
const STRICTER_HERE: [&str; 5] = ["::ffff:8.8.8.8", "::2", "64:ff9c::1", "100::2:0:0:0:0", "fec0::1"];

#[test]
fn verdicts_of_other_projects_are_met_or_exceeded() {
    for vector in vectors(include_str!("../../../../tests/data/ssrf/addresses.json")) {
        let text = vector["address"].as_str().unwrap();
        // A zone id is no address at all: refused by the parser.
        let Ok(ip) = text.parse::<IpAddr>() else {
            assert!(text.contains('%'));
            continue;
        };
        let denied = vector["expected"] == "deny" || STRICTER_HERE.contains(&text);
        assert_eq!(special_purpose(ip).is_some(), denied, "{vector}");
    }
}

#[test]
fn metadata_services_have_their_own_class() {
    for text in [
        "169.254.169.254",
        "169.254.170.2",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
    ] {
        assert_eq!(special_purpose(text.parse().unwrap()), Some(AddressClass::Metadata), "{text}");
    }
}

#[test]
fn classes_have_the_words_of_the_messages() {
    for (text, word) in [
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("10.0.0.1", "private"),
        ("fd12::1", "private"),
        ("169.254.1.1", "link_local"),
        ("100.64.0.1", "shared"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("ff02::1", "multicast"),
        ("240.0.0.1", "reserved"),
        ("3fff::1", "documentation"),
        ("::ffff:8.8.8.8", "embedded_ipv4"),
    ] {
        assert_eq!(special_purpose(text.parse().unwrap()).map(AddressClass::word), Some(word), "{text}");
    }
}

proptest! {
    #[test]
    fn no_disguise_of_an_ipv4_address_is_public(raw in any::<u32>(), prefix in any::<u64>()) {
        let v4 = Ipv4Addr::from(raw);
        let low = u128::from(raw);
        let prefix = u128::from(prefix | 0x2000_0000_0000_0000) & !(0xc000_u128 << 48);
        for bits in [
            low,
            0xffff_0000_0000 | low,
            0xffff_0000_0000_0000 | low,
            (0x0064_ff9b_u128 << 96) | low,
            (0x2002_u128 << 112) | (low << 80) | 1,
            (0x2001_0000_u128 << 96) | u128::from(!raw),
            (prefix << 64) | (0x5efe_u128 << 32) | low,
            (prefix << 64) | (0x0200_5efe_u128 << 32) | low,
        ] {
            let v6 = Ipv6Addr::from(bits);
            prop_assert!(special_purpose(IpAddr::V6(v6)).is_some(), "{}", v6);
            if raw > 1 {
                prop_assert!(embedded_v4(v6).is_some(), "{} hides {}", v6, v4);
            }
        }
    }
}
