//! What the configuration takes, what it refuses, and how it says so.

use proptest::prelude::*;

use super::*;
use hookcast_core::model::fields::nearest;

const PROTOCOLS: &[&str] = &["ndjson", "sse", "websocket", "webhook"];
const SHIPPED: &str = include_str!("../../config.toml");

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, "config.toml", &[], PROTOCOLS)
}

fn with_env(env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::parse("", "config.toml", &env, PROTOCOLS)
}

/// Line, key and slug of every mistake.
fn found(result: Result<Config, ConfigErrors>) -> Vec<(usize, String, &'static str)> {
    let line = |origin: &error::Origin| if let error::Origin::Line(_, line) = origin { *line } else { 0 };
    result.err().map(|errors| errors.0).unwrap_or_default().into_iter().map(|e| (line(&e.origin), e.key, e.slug)).collect()
}

#[test]
fn the_shipped_file_says_what_the_defaults_are() {
    assert_eq!(parse(SHIPPED).unwrap(), Config::default());
    assert_eq!(parse("").unwrap(), Config::default());
}

#[test]
fn the_shipped_file_holds_every_key_with_a_comment() {
    let mut section = "";
    let mut is_commented = false;
    let mut seen = Vec::new();
    for line in SHIPPED.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            assert!(is_commented, "{section}.{key} has no comment above it");
            seen.push(format!("{section}.{key}"));
        }
        // One comment may stand above a group of keys.
        is_commented =
            !line.is_empty() && (is_commented || line.starts_with('#') || (section == "history" && line.contains("max_")));
    }
    let known: Vec<String> =
        read::KEYS.iter().flat_map(|(section, keys)| keys.iter().map(move |key| format!("{section}.{key}"))).collect();
    assert_eq!(seen, known);
}

#[test]
fn the_examples_of_the_shipped_file_are_good() {
    let mut text = String::new();
    let mut is_example = false;
    for line in SHIPPED.lines() {
        is_example = (is_example && line.starts_with("# ")) || line.starts_with("# [[");
        if is_example {
            text.push_str(line.trim_start_matches("# "));
            text.push('\n');
        }
    }
    let text = text.replace("whsec_<base64 of 24 to 64 bytes>", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let config = parse(&text).unwrap();
    assert_eq!(
        (config.sources[0].name.as_str(), config.subscriptions[0].url.as_str()),
        ("wikipedia", "https://example.com/hook")
    );
}

#[test]
fn each_mistake_is_told_with_its_line_and_key() {
    for (text, line, key, slug) in [
        ("[delivery]\n\nretires = 3", 3, "delivery.retires", "unknown_key"),
        ("[delivery]\ntimeout = 10", 2, "delivery.timeout", "duration_needs_unit"),
        ("[delivery]\ntimeout = \"10\"", 2, "delivery.timeout", "duration_needs_unit"),
        ("[delivery]\ntimeout = \"99999999999h\"", 2, "delivery.timeout", "range"),
        ("[delivery]\ntimeout = \"61s\"", 2, "delivery.timeout", "range"),
        ("[delivery]\nmax_in_flight = 0", 2, "delivery.max_in_flight", "range"),
        ("[delivery]\nlanes = -1", 2, "delivery.lanes", "range"),
        ("[delivery]\nlanes = 1.5", 2, "delivery.lanes", "range"),
        ("[delivery]\nlanes = nan", 2, "delivery.lanes", "range"),
        ("[delivery]\nlanes = 99999999999999999999", 2, "delivery.lanes", "range"),
        ("[limits]\nstreams = \"many\"", 2, "limits.streams", "wrong_type"),
        ("[limits]\nevent_bytes = \"1000000\"", 2, "limits.event_bytes", "size_needs_unit"),
        ("[limits]\nevent_bytes = \"1GiB\"", 2, "limits.event_bytes", "range"),
        ("[retention]\nmax_bytes = \"10GB\"", 2, "retention.max_bytes", "size"),
        ("[retention]\nmax_age = \"0s\"", 2, "retention.max_age", "range"),
        ("[history]\nattempts = \"none\"", 2, "history.attempts", "attempts"),
        ("[servr]\nlisten = \"127.0.0.1:1\"", 1, "servr", "unknown_key"),
        ("server = 3", 1, "server", "wrong_type"),
        ("[server]\nlisten = \"localhost\"", 2, "server.listen", "address"),
        ("[server]\nlisten = \"0.0.0.0:8080\"", 2, "server.listen", "tokens_required"),
        ("[server]\nhosts = [\"ok\",\n\"https://x\"]", 3, "server.hosts[1]", "host"),
        ("[server]\ncors_origins = [\"https://x/\"]", 2, "server.cors_origins[0]", "origin"),
        ("[storage]\nurl = \"sqlite://a.db?synchronous=OFF\"", 2, "storage.url", "durability"),
        ("[storage]\nurl = \"postgres://x\"", 2, "storage.url", "storage_url"),
        ("[storage]\nurl = \"sqlite://\"", 2, "storage.url", "storage_url"),
        ("[storage]\nurl = \"sqlite://:memory:\"", 2, "storage.url", "storage_url"),
        ("[storage]\nurl = \"data.db\"", 2, "storage.url", "storage_url"),
        ("[storage]\ndurability = \"off\"", 2, "storage.durability", "durability"),
        ("[storage]\nreserve = \"some\"", 2, "storage.reserve", "reserve"),
        ("[storage]\nreserve = \"91%\"", 2, "storage.reserve", "reserve"),
        ("[storage]\nreserve = \"-3%\"", 2, "storage.reserve", "reserve"),
        ("[storage]\nreserve = \"256\"", 2, "storage.reserve", "reserve"),
        ("[storage]\nreserve = 5", 2, "storage.reserve", "reserve"),
        ("[storage]\nreserve = [\"3%\"]", 2, "storage.reserve", "reserve"),
        ("[network]\nallow = [\"10.0.0.0/8\", \"10.1.2.3/8\"]", 2, "network.allow[1]", "allow"),
        ("[network]\nresolver = \"dns\"", 2, "network.resolver", "resolver"),
        (
            "[auth]\ntokens = [{ name = \"a\", sha256 = \"changeme\", scopes = [\"read\"] }]",
            2,
            "auth.tokens[0].sha256",
            "weak_token",
        ),
        ("[auth]\ntokens = [{ name = \"a\", sha256 = \"x\", scopes = [\"read\"] }]", 2, "auth.tokens[0].sha256", "token_sha256"),
        ("[[auth.tokens]]\nname = \"a\"\nscopes = [\"all\"]", 3, "auth.tokens[0].scopes[0]", "scope"),
    ] {
        let mistakes = found(parse(text));
        assert!(mistakes.contains(&(line, key.to_owned(), slug)), "{text:?} gives {mistakes:?}");
    }
}

#[test]
fn sources_and_subscriptions_are_judged_like_rest_bodies() {
    let source = "[[sources]]\nname = \"a\"\nprotocol = \"sse\"\nurl = \"https://example.com/\"\ntopic = \"t\"\n";
    let subscription = "[[subscriptions]]\nid = \"b\"\nurl = \"https://example.com/\"\ntopics = [\"t\"]\n";
    assert_eq!(found(parse(&source.repeat(2))), [(7, "sources[1].name".to_owned(), "duplicate_source")]);
    assert_eq!(found(parse(&subscription.repeat(2))), [(6, "subscriptions[1].id".to_owned(), "duplicate_subscription")]);
    let unnamed = found(parse(&source.replace("name = \"a\"\n", "")));
    assert_eq!(unnamed, [(1, "sources[0].name".to_owned(), "missing_field")]);
    let blocked = found(parse(&source.replace("https://example.com", "http://169.254.169.254")));
    assert_eq!(blocked, [(4, "sources[0].url".to_owned(), "blocked_address")]);
    let allowed =
        format!("[network]\nallow = [\"169.254.169.254\"]\n{}", source.replace("https://example.com", "http://169.254.169.254"));
    assert_eq!(parse(&allowed).unwrap().sources[0].url, "http://169.254.169.254/");
    let bad = format!("{subscription}retry = {{ schedule = [] }}\n[subscriptions.headers]\nhost = \"x\"");
    let wanted = [
        (7, "subscriptions[0].headers.host".to_owned(), "forbidden_header"),
        (5, "subscriptions[0].retry.schedule".to_owned(), "retry_schedule"),
    ];
    assert_eq!(found(parse(&bad)), wanted);
    let defaults =
        format!("[delivery]\ntimeout = \"5s\"\nmax_in_flight = 3\n{subscription}from = {{ time = 2026-01-01T00:00:00Z }}");
    let config = parse(&defaults).unwrap();
    assert_eq!((config.subscriptions[0].timeout, config.subscriptions[0].max_in_flight), (Duration::from_secs(5), 3));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "retires = 3\n[server]\nlisten = 8080\n[delivery]\ntimeout = 10\n[[sources]]\nname = \"a.b\"";
    assert_eq!(found(parse(text)).len(), 7, "{:?}", found(parse(text)));
}

#[test]
fn messages_say_where_what_and_what_may_have_been_meant() {
    let shown = parse("[server]\nlissten = \"127.0.0.1:1\"").unwrap_err().to_string();
    assert_eq!(shown, "config.toml:2: server.lissten: \"lissten\" is not a known key; did you mean `listen`? [unknown_key]");
    assert_eq!(nearest("tiemout", &["timeout", "lanes"]), Some("timeout"));
}

#[test]
fn broken_toml_is_told_with_its_line() {
    assert_eq!(found(parse("[server]\nlisten = ")), [(2, String::new(), "invalid_toml")]);
    assert_eq!(
        found(parse("[server]\nlisten = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"")),
        [(3, String::new(), "duplicate_key")]
    );
    assert!(found(parse(&"[".repeat(100_000))).iter().all(|(_, _, slug)| *slug == "invalid_toml"));
}

#[test]
fn the_environment_lies_over_the_file() {
    let config = with_env(&[
        ("HOOKCAST__SERVER__LISTEN", "127.0.0.1:0"),
        ("HOOKCAST__DELIVERY__TIMEOUT", "5s"),
        ("HOOKCAST__DELIVERY__LANES", "2"),
        ("HOOKCAST__NETWORK__ALLOW_HTTP", "true"),
        ("HOOKCAST__NETWORK__ALLOW", "[\"127.0.0.1\"]"),
        ("HOOKCAST__STORAGE__URL", "memory://"),
        ("HOOKCAST_LOG", "debug"),
        ("PATH", "/bin"),
    ])
    .unwrap();
    assert_eq!(config.server.listen.port(), 0);
    assert_eq!((config.delivery.timeout, config.delivery.lanes), (Duration::from_secs(5), 2));
    assert_eq!((config.network.allow.len(), config.network.allow_http, config.storage.scheme()), (1, true, "memory"));
    assert_eq!(config.warnings().len(), 2);
}

#[test]
fn mistakes_in_the_environment_name_the_variable() {
    for (name, value, slug) in [
        ("HOOKCAST__DELIVERY__TIMEOUT", "10", "duration_needs_unit"),
        ("HOOKCAST__DELIVERY__TIMEOT", "10s", "unknown_key"),
        ("HOOKCAST__DELIVRY__TIMEOUT", "10s", "unknown_key"),
        ("HOOKCAST__DELIVERY", "10s", "unknown_key"),
        ("HOOKCAST__SERVER__LISTEN__PORT", "1", "unknown_key"),
    ] {
        let errors = with_env(&[(name, value)]).unwrap_err();
        assert_eq!((errors.0.len(), errors.0[0].slug), (1, slug), "{name}");
        assert!(errors.to_string().starts_with(&format!("{name}: ")), "{errors}");
    }
}

#[test]
fn an_admin_token_opens_the_relay() {
    let token = "correct-horse-battery-staple-0123456789";
    let config = with_env(&[(ADMIN_TOKEN_VARIABLE, token), ("HOOKCAST__SERVER__LISTEN", "0.0.0.0:8080")]).unwrap();
    assert_eq!((config.auth.tokens[0].name.as_str(), &config.auth.tokens[0].scopes[..]), ("admin", SCOPES));
    for weak in ["short", &"a".repeat(40), "correct horse battery staple 0123456789"] {
        let errors = with_env(&[(ADMIN_TOKEN_VARIABLE, weak)]).unwrap_err();
        assert_eq!(errors.0[0].slug, "weak_token");
        assert!(!errors.to_string().contains(weak), "a message repeats a token");
    }
}

#[test]
fn tokens_are_read_by_digest() {
    let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let token = |digest: &str| {
        format!("[[auth.tokens]]\nname = \"acme\"\nsha256 = \"{digest}\"\nscopes = [\"publish\"]\ntopics = [\"acme.**\"]\n")
    };
    // That is the digest of `test`.
    assert_eq!(found(parse(&token(digest))), [(3, "auth.tokens[0].sha256".to_owned(), "weak_token")]);
    let strong = token(&digest.replace('9', "8"));
    let config = parse(&strong).unwrap();
    assert_eq!(config.auth.tokens[0].sha256[0], 0x8f);
    assert_eq!(config.auth.tokens[0].topics[0].as_str(), "acme.**");
    assert_eq!(found(parse(&strong.repeat(2))), [(7, "auth.tokens[1].name".to_owned(), "duplicate_token")]);
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in "[a-z\\[\\]={}\"\n.0-9, _]{0,60}") {
        let _ = parse(&text);
    }

    #[test]
    fn any_value_in_any_section_is_read_without_panic(section in 0_usize..9, value in "[a-z\\[\\]{}\"0-9, ]{0,20}") {
        let (section, keys) = read::KEYS[section];
        let text: Vec<String> = keys.iter().map(|key| format!("{key} = {value}")).collect();
        let _ = parse(&format!("[{section}]\n{}", text.join("\n")));
    }
}

#[test]
fn a_hub_has_topics_leases_and_a_base() {
    let good =
        parse("[websub]\ntopics = [\"orders.*\"]\nlease_max = \"2s\"\npublic_url = \"https://a.example/relay/\"").unwrap().websub;
    assert_eq!((good.topics.len(), good.lease_default, good.lease_max), (1, Duration::from_secs(2), Duration::from_secs(2)));
    assert_eq!(good.public_url, "https://a.example/relay");
    for (text, slug) in [
        ("topics = [\"a..b\"]", "topics"),
        ("lease_max = \"100ms\"", "range"),
        ("lease_default = \"31d\"", "range"),
        ("public_url = \"relay.example\"", "public_url"),
        ("public_url = \"https://a.example/?x=1\"", "public_url"),
        ("public_url = \"ftp://a.example\"", "public_url"),
    ] {
        let slugs: Vec<_> = found(parse(&format!("[websub]\n{text}"))).into_iter().map(|(_, _, slug)| slug).collect();
        assert_eq!(slugs, [slug], "{text}");
    }
}
