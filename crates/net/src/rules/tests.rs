//! Entries of `network.allow`: what is read, what is refused, what they print.

use super::{AllowEntry, AllowEntryError, FOREIGN_PORTS, ResolverChoice, is_foreign_port};

fn parse(text: &str) -> Result<AllowEntry, AllowEntryError> {
    text.parse()
}

#[test]
fn entries_print_as_they_are_read() {
    for text in [
        "10.0.0.0/8",
        "127.0.0.1/32",
        "127.0.0.1/32:6379",
        "::1/128",
        "[fd00::/8]:8443",
        "receiver",
        "hooks.internal:8080",
        "*.svc.cluster.local",
    ] {
        assert_eq!(parse(text).unwrap().to_string(), text);
    }
    assert_eq!(parse(" 127.0.0.1 ").unwrap(), parse("127.0.0.1/32").unwrap());
    assert_eq!(parse("[::1]:80").unwrap(), parse("[::1/128]:80").unwrap());
    assert_eq!(parse("Receiver.").unwrap(), parse("receiver").unwrap());
}

#[test]
fn bad_entries_say_what_is_wrong() {
    assert_eq!(parse(""), Err(AllowEntryError::Empty));
    assert_eq!(parse("10.0.0.1:0"), Err(AllowEntryError::Port("0".into())));
    assert_eq!(parse("10.0.0.1:http"), Err(AllowEntryError::Port("http".into())));
    assert_eq!(parse("10.0.0.0/33"), Err(AllowEntryError::Net("10.0.0.0/33".into())));
    assert_eq!(parse("10.0.0"), Err(AllowEntryError::Net("10.0.0".into())));
    assert_eq!(parse("[::1"), Err(AllowEntryError::Net("[::1".into())));
    assert_eq!(parse("-x"), Err(AllowEntryError::Name("-x".into())));
    assert_eq!(parse("10.1.2.3/8").unwrap_err().to_string(), "`10.1.2.3/8` has host bits set; did you mean `10.0.0.0/8`?");
}

#[test]
fn the_port_list_is_sorted_and_leaves_http_alone() {
    assert!(FOREIGN_PORTS.is_sorted());
    for port in [22, 25, 6379, 5432, 27017, 11211] {
        assert!(is_foreign_port(port), "{port}");
    }
    for port in [80, 443, 3000, 4000, 5000, 8000, 8080, 8443, 9000, 9090, 49152] {
        assert!(!is_foreign_port(port), "{port}");
    }
}

#[test]
fn the_resolver_is_the_system_or_an_address_with_a_port() {
    assert_eq!("system".parse(), Ok(ResolverChoice::System));
    assert_eq!("127.0.0.1:53".parse(), Ok(ResolverChoice::Server("127.0.0.1:53".parse().unwrap())));
    assert!("127.0.0.1".parse::<ResolverChoice>().unwrap_err().contains("with a port"));
}
