//! Every row of the target tables, and the rules around them.

use super::{Host, Scheme, Target, TargetError, URL_BYTES_MAX};
use crate::rules::{EgressRules, ResolverChoice};
use proptest::prelude::*;
use serde_json::Value;

const OWN_HOST: &str = "relay.example.com";

fn rules(allow: &[&str], allow_http: bool) -> EgressRules {
    let allow = allow.iter().map(|entry| entry.parse().unwrap()).collect();
    EgressRules::new(allow, allow_http, ResolverChoice::System, vec![OWN_HOST.into()])
}

fn check(url: &str, rules: &EgressRules) -> Result<Target, TargetError> {
    let target = Target::parse(url)?;
    target.judge(rules)?;
    Ok(target)
}

fn slug(url: &str, rules: &EgressRules) -> &'static str {
    check(url, rules).map_or_else(|error| error.slug(), |_| "ok")
}

/// The table writes `\n`, `\r`, `\t`, `\0`, `\\` and `{{N*S}}` for what cannot stand in it.
fn unescape(text: &str) -> String {
    let mut out = text
        .replace("\\\\", "\u{1}")
        .replace("\\n", "\n")
        .replace("\\r", "\r")
        .replace("\\t", "\t")
        .replace("\\0", "\0")
        .replace('\u{1}', "\\")
        .replace("${OWN_PUBLIC_HOST}", OWN_HOST);
    while let Some(start) = out.find("{{") {
        let end = out[start..].find("}}").unwrap() + start;
        let (count, what) = out[start + 2..end].split_once('*').unwrap();
        let run = what.repeat(count.parse().unwrap());
        out.replace_range(start..end + 2, &run);
    }
    out
}

#[test]
fn every_row_of_the_table_is_judged_as_written() {
    let rows: Vec<Value> = serde_json::from_str(include_str!("../../../../tests/data/ssrf/targets.json")).unwrap();
    assert!(rows.len() > 130);
    let strict = rules(&[], false);
    for row in rows {
        let url = unescape(row["input"].as_str().unwrap());
        let expected = row["expected"].as_str().unwrap();
        let outcome = check(&url, &strict);
        if let Some(rest) = expected.strip_prefix("REJECT:422:") {
            let wanted = rest.split([' ', ';']).next().unwrap();
            assert_eq!(outcome.map_or_else(|e| e.slug(), |_| "ok"), wanted, "{row}");
        } else if let Some(rest) = expected.strip_prefix("ACCEPT_CANON:").filter(|rest| !rest.starts_with(' ')) {
            assert_eq!(outcome.unwrap().as_str(), rest.split(' ').next().unwrap(), "{row}");
        } else {
            let target = outcome.unwrap_or_else(|error| panic!("{row}: {error}"));
            assert!(target.as_str().is_ascii(), "{row}");
        }
    }
}

#[test]
fn the_usual_disguises_of_inner_addresses_are_refused() {
    let all: Value = serde_json::from_str(include_str!("../../../../tests/data/ssrf/urls.json")).unwrap();
    // Plain http is opened, so that the verdict is about the host and nothing else.
    let rules = rules(&[], true);
    for vector in all["vectors"].as_array().unwrap() {
        let url = vector["url"].as_str().unwrap();
        let reaches = vector["reaches"].as_str().unwrap_or_default();
        match check(url, &rules) {
            // Names are judged by what they resolve to; these resolve to nothing inner by themselves.
            Ok(target) => assert!(
                matches!(target.host(), Host::Name(_)) && target.host().to_string().contains('.'),
                "{url} was accepted, it reaches {reaches}"
            ),
            Err(error) => assert_ne!(reaches, "example.com", "{url}: {error}"),
        }
    }
}

#[test]
fn plain_http_needs_a_listed_address_or_the_switch() {
    let none = rules(&[], false);
    let loopback = rules(&["127.0.0.0/8"], false);
    assert_eq!(slug("http://hook.example.test/", &none), "https_required");
    assert_eq!(slug("http://hook.example.test/", &loopback), "https_required");
    assert_eq!(slug("http://8.8.8.8/", &none), "https_required");
    assert_eq!(slug("http://hook.example.test/", &rules(&[], true)), "ok");
    assert_eq!(slug("http://127.0.0.1:9000/", &none), "blocked_address");
    assert_eq!(slug("http://127.0.0.1:9000/", &rules(&[], true)), "blocked_address");
    assert_eq!(slug("http://127.0.0.1:9000/", &loopback), "ok");
    assert_eq!(slug("http://localhost:9000/", &loopback), "ok");
    assert_eq!(slug("https://localhost/", &loopback), "ok");
    assert_eq!(slug("http://localhost:9000/", &none), "blocked_host");
    assert_eq!(slug("http://[::1]:9000/", &loopback), "blocked_address");
    assert_eq!(slug("http://[::1]:9000/", &rules(&["::1"], false)), "ok");
}

#[test]
fn a_listed_name_opens_the_name() {
    let named = rules(&["receiver", "*.svc.cluster.local:8080", "172.16.0.0/12"], false);
    assert_eq!(slug("http://receiver:9000/hook", &named), "ok");
    assert_eq!(slug("http://other:9000/hook", &named), "blocked_host");
    assert_eq!(slug("http://a.svc.cluster.local:8080/", &named), "ok");
    assert_eq!(slug("http://a.svc.cluster.local:8081/", &named), "blocked_host");
}

#[test]
fn ports_of_other_protocols_open_only_by_number() {
    let net = rules(&["127.0.0.0/8"], false);
    let exact = rules(&["127.0.0.1:6379"], false);
    assert_eq!(slug("http://127.0.0.1:6379/", &net), "port");
    assert_eq!(slug("http://127.0.0.1:6379/", &exact), "ok");
    assert_eq!(slug("http://127.0.0.2:6379/", &exact), "blocked_address");
    assert_eq!(slug("http://127.0.0.1:9000/", &exact), "blocked_address");
    assert_eq!(slug("https://hook.example.test:0/", &net), "port");
}

#[test]
fn metadata_opens_by_its_exact_address_only() {
    for wide in ["169.254.0.0/16", "0.0.0.0/0", "169.254.169.254/31"] {
        assert_eq!(slug("http://169.254.169.254/", &rules(&[wide], false)), "blocked_address", "{wide}");
    }
    assert_eq!(slug("http://169.254.169.254/", &rules(&["169.254.169.254/32"], false)), "ok");
    assert_eq!(slug("http://[::ffff:169.254.169.254]/", &rules(&["::/0", "169.254.169.254"], false)), "blocked_address");
}

#[test]
fn a_translation_prefix_does_not_open_the_addresses_inside() {
    let nat64 = rules(&["64:ff9b::/96"], false);
    assert_eq!(slug("https://[64:ff9b::808:808]/", &nat64), "ok");
    assert_eq!(slug("https://[64:ff9b::a00:1]/", &nat64), "blocked_address");
}

#[test]
fn our_own_name_is_no_target_on_any_port_unless_one_is_named() {
    assert_eq!(slug("https://RELAY.example.com.:8443/", &rules(&[], false)), "self_target");
    let own = EgressRules { own_hosts: vec!["relay.example.com:8443".into()], ..EgressRules::default() };
    assert_eq!(slug("https://relay.example.com:8443/", &own), "self_target");
    assert_eq!(slug("https://relay.example.com/", &own), "ok");
}

#[test]
fn the_parts_are_what_goes_on_the_wire() {
    let target = Target::parse("https://Bücher.Example.test.:8443/a/../b?q=ü#x").unwrap();
    assert_eq!(target.scheme(), Scheme::Https);
    assert_eq!(target.authority(), "xn--bcher-kva.example.test:8443");
    assert_eq!(target.path_and_query(), "/b?q=%C3%BC");
    assert_eq!(target.port(), 8443);
    let v6 = Target::parse("http://[::1]:80").unwrap();
    assert_eq!((v6.authority().as_str(), v6.path_and_query(), v6.port()), ("[::1]", "/", 80));
}

#[test]
fn errors_tell_what_to_do() {
    let error = check("http://10.0.0.1/", &rules(&[], false)).unwrap_err();
    assert_eq!(error.to_string(), "the address 10.0.0.1 is not public (private); list it in `network.allow` to open it");
    assert!(check("ftp://x.example/", &rules(&[], false)).unwrap_err().to_string().contains("use https"));
}

proptest! {
    #[test]
    fn whatever_is_accepted_reads_the_same_the_second_time(text in "\\PC{0,40}", host in "[a-zA-Z0-9.@:\\[\\]%-]{1,20}") {
        for url in [text.clone(), format!("https://{host}/{text}"), format!("https://{text}")] {
            if let Ok(target) = Target::parse(&url) {
                let again = Target::parse(target.as_str());
                prop_assert_eq!(again.as_ref().map(Target::host), Ok(target.host()), "{}", url);
                prop_assert!(target.as_str().is_ascii());
                prop_assert!(target.path_and_query().starts_with('/'));
            }
        }
    }

    #[test]
    fn no_url_is_longer_than_the_limit(extra in 1_usize..50) {
        let url = format!("https://a.example/{}", "a".repeat(URL_BYTES_MAX - 18 + extra));
        prop_assert_eq!(Target::parse(&url), Err(TargetError::UrlTooLong));
    }
}
