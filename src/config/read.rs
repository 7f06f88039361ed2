//! Judges the tree of values, section by section.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::document::Document;
use super::error::ConfigError;
use super::{
    Auth, Config, Dedupe, Delivery, History, HistoryAttempts, Limits, Network, Retention, Server, Storage, limits, secrets,
    tokens, websub,
};
use hookcast_core::model::SourceSpec;
use hookcast_core::model::fields::{Errors, FieldError, Fields, child, quoted, text};
use hookcast_core::model::source::parse::{SourceRules, parse_source};
use hookcast_core::model::subscription::parse::{
    Definition, IN_FLIGHT_MAX, RATE_MAX, Rules, TIMEOUT_MAX, TIMEOUT_MIN, UrlJudge, parse_definition,
};
use hookcast_core::units::parse_size;
use hookcast_log::storage::{BACKENDS, Durability, RESERVE_PERCENT_MAX, Reserve};
use hookcast_net::{EgressRules, ResolverChoice, Target};

/// Sections and their keys.
pub(super) const KEYS: &[(&str, &[&str])] = &[
    ("server", &["listen", "tcp_listen", "hosts", "cors_origins"]),
    ("storage", &["url", "durability", "reserve"]),
    ("retention", &["max_age", "max_bytes", "dead_letters_max_age"]),
    ("history", &["attempts", "max_age", "max_bytes"]),
    ("dedupe", &["max_age", "max_ids"]),
    ("limits", &["event_bytes", "batch_events", "subscriptions", "streams", "connections"]),
    ("network", &["allow", "allow_http", "resolver"]),
    ("delivery", &["timeout", "max_in_flight", "lanes", "per_host_per_second", "per_host_burst", "per_host_in_flight"]),
    ("websub", &["topics", "lease_default", "lease_max", "public_url"]),
    ("auth", &["tokens"]),
    ("secrets", &["key", "key_file", "previous_keys", "any_permissions"]),
];

/// Most entries of any list in the configuration.
const LIST_MAX: usize = 10_000;
/// Bounds of ages: long enough for every purpose, short enough that no arithmetic on times overflows.
const AGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(100 * 365 * 24);
/// Bounds of sizes on the disk.
const DISK: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 50;

/// Reads every section; all mistakes at once.
pub(super) fn config(document: &Document, env: &[(String, String)], protocols: &[&str]) -> Result<Config, Vec<ConfigError>> {
    let errors = Errors::default();
    let config = read(&document.value, env, protocols, &errors);
    errors.finish(config).map_err(|errors| errors.into_iter().map(|error| document.locate(error)).collect())
}

fn read(value: &Value, env: &[(String, String)], protocols: &[&str], errors: &Errors) -> Option<Config> {
    let known: Vec<&str> = KEYS.iter().map(|(section, _)| *section).chain(["sources", "subscriptions", "limit_groups"]).collect();
    let root = Fields::open(value, "", &known, errors)?;
    let empty = Value::Object(serde_json::Map::new());
    let section = |name: &str| {
        let keys = KEYS.iter().find(|(section, _)| *section == name).map_or(&[][..], |(_, keys)| *keys);
        let value = root.get(name).unwrap_or(&empty);
        Fields::open(value, root.at(name), keys, errors).or_else(|| Fields::open(&empty, root.at(name), keys, errors))
    };
    let mut config = Config {
        server: server(&section("server")?),
        storage: storage(&section("storage")?),
        retention: retention(&section("retention")?),
        history: history(&section("history")?),
        dedupe: dedupe(&section("dedupe")?),
        limits: limits(&section("limits")?),
        network: network(&section("network")?),
        delivery: delivery(&section("delivery")?),
        limit_groups: limits::groups(&root),
        websub: websub::read(&section("websub")?, AGE),
        auth: Auth { tokens: tokens::read(&section("auth")?, env) },
        secrets: secrets::read(&section("secrets")?),
        sources: Vec::new(),
        subscriptions: Vec::new(),
    };
    let rules = config.egress_rules();
    let judge = Judge(&rules);
    let Delivery { timeout, max_in_flight, .. } = config.delivery;
    let texts = config.texts();
    config.sources = sources(&root, &SourceRules { urls: &judge, protocols, texts: &texts });
    config.subscriptions = subscriptions(&root, &Rules { timeout, max_in_flight, texts: &texts, ..Rules::new(&judge) });
    let doors = [("/server/listen", Some(config.server.listen)), ("/server/tcp_listen", config.server.tcp_listen)];
    for (pointer, address) in doors.iter().filter_map(|(pointer, address)| Some((*pointer, (*address)?))) {
        if !address.ip().is_loopback() && config.auth.tokens.is_empty() {
            let detail = format!(
                "{address} is open to other machines while there are no tokens; allowed: a loopback address, or tokens in [auth] or {}",
                super::ADMIN_TOKEN_VARIABLE
            );
            errors.push(pointer, "tokens_required", detail);
        }
    }
    Some(config)
}

/// Judges URLs by the `[network]` section.
struct Judge<'a>(&'a EgressRules);

impl UrlJudge for Judge<'_> {
    fn check_url(&self, url: &str) -> Result<String, (&'static str, String)> {
        let judged = Target::parse(url).and_then(|target| target.judge(self.0).map(|()| target));
        judged.map(|target| target.as_str().to_owned()).map_err(|error| (error.slug(), error.to_string()))
    }
}

fn server(fields: &Fields<'_>) -> Server {
    let default = Server::default();
    let address = |name: &str, given: &str| {
        let parsed = given.parse().ok();
        if parsed.is_none() {
            let detail =
                format!("{} is no address; allowed: an IP address and a port, such as \"127.0.0.1:8080\"", quoted(given));
            fields.refuse(name, "address", detail);
        }
        parsed
    };
    let listen = fields.text("listen").and_then(|given| address("listen", given));
    let tcp_listen = fields.text("tcp_listen").filter(|given| !given.is_empty()).and_then(|given| address("tcp_listen", given));
    let hosts = texts(fields, "hosts", "host", "a host name, with or without a port", |given| {
        !given.is_empty() && given.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
    });
    let cors_origins = texts(fields, "cors_origins", "origin", "an origin such as \"https://app.example.com\"", |given| {
        let parsed = url::Url::parse(given).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        parsed.is_some_and(|url| url.origin().ascii_serialization() == *given)
    });
    Server { listen: listen.unwrap_or(default.listen), tcp_listen, hosts, cors_origins }
}

fn storage(fields: &Fields<'_>) -> Storage {
    let default = Storage::default();
    let url = fields.text("url").filter(|given| check_storage_url(fields, given));
    let durability = match fields.choice("durability", &["full", "normal"], "durability") {
        Some("normal") => Durability::Normal,
        _ => Durability::Full,
    };
    let reserve = reserve(fields).unwrap_or_default();
    Storage { url: url.map_or(default.url, str::to_owned), durability, reserve }
}

/// `"auto"`, a size, a part such as `"3%"`, or `0`.
fn reserve(fields: &Fields<'_>) -> Option<Reserve> {
    let given = fields.get("reserve")?;
    if given.as_u64() == Some(0) {
        return Some(Reserve::Bytes(0));
    }
    let read = |text: &str| match text {
        "auto" => Some(Reserve::Auto),
        "0" => Some(Reserve::Bytes(0)),
        _ => match text.strip_suffix('%') {
            Some(percent) if percent.bytes().all(|b| b.is_ascii_digit()) => {
                percent.parse().ok().filter(|percent| *percent <= RESERVE_PERCENT_MAX).map(Reserve::Percent)
            }
            Some(_) => None,
            None => parse_size(text).ok().filter(|bytes| bytes <= DISK.end()).map(Reserve::Bytes),
        },
    };
    let reserve = given.as_str().and_then(read);
    if reserve.is_none() {
        let detail = format!(
            "{} is no reserve; allowed: \"auto\", a size such as \"512MiB\", a part of the file system up to \
             \"{RESERVE_PERCENT_MAX}%\", or 0",
            quoted(given.as_str().unwrap_or(&given.to_string()))
        );
        fields.refuse("reserve", "reserve", detail);
    }
    reserve
}

fn check_storage_url(fields: &Fields<'_>, given: &str) -> bool {
    let schemes: Vec<&str> = BACKENDS.iter().map(|backend| backend.scheme).collect();
    let allowed = "allowed: \"sqlite://path/to/file.db\" or \"memory://\"";
    let problem = match given.split_once("://") {
        _ if given.contains(['?', '#']) => {
            let detail = "carries parameters, which could switch durability off; use `storage.durability`";
            fields.refuse("url", "durability", detail);
            return false;
        }
        Some((scheme, _)) if !schemes.contains(&scheme) => format!("names the unknown storage {}", quoted(scheme)),
        Some(("sqlite", path)) if path.is_empty() || path.ends_with('/') => "names no file".to_owned(),
        Some(("sqlite", ":memory:")) => "is not on disk".to_owned(),
        Some(("memory", path)) if !path.is_empty() => "has a path, but memory has none".to_owned(),
        Some(_) if !given.chars().any(char::is_control) => return true,
        _ => format!("{} is no storage URL", quoted(given)),
    };
    fields.refuse("url", "storage_url", format!("{problem}; {allowed}"));
    false
}

fn retention(fields: &Fields<'_>) -> Retention {
    let default = Retention::default();
    Retention {
        max_age: fields.duration("max_age", AGE, "range").unwrap_or(default.max_age),
        max_bytes: fields.size("max_bytes", DISK).unwrap_or(default.max_bytes),
        dead_letters_max_age: fields.duration("dead_letters_max_age", AGE, "range").unwrap_or(default.dead_letters_max_age),
    }
}

fn history(fields: &Fields<'_>) -> History {
    let default = History::default();
    History {
        attempts: match fields.choice("attempts", &["all", "failures"], "attempts") {
            Some("failures") => HistoryAttempts::Failures,
            _ => HistoryAttempts::All,
        },
        max_age: fields.duration("max_age", AGE, "range").unwrap_or(default.max_age),
        max_bytes: fields.size("max_bytes", DISK).unwrap_or(default.max_bytes),
    }
}

fn dedupe(fields: &Fields<'_>) -> Dedupe {
    let default = Dedupe::default();
    Dedupe {
        max_age: fields.duration("max_age", AGE, "range").unwrap_or(default.max_age),
        max_ids: fields.integer("max_ids", 1..=20_000_000).unwrap_or(default.max_ids),
    }
}

fn limits(fields: &Fields<'_>) -> Limits {
    let default = Limits::default();
    Limits {
        event_bytes: fields.size("event_bytes", 1 << 10..=64 << 20).unwrap_or(default.event_bytes),
        batch_events: fields.integer("batch_events", 1..=100_000).unwrap_or(default.batch_events),
        subscriptions: fields.integer("subscriptions", 1..=10_000_000).unwrap_or(default.subscriptions),
        streams: fields.integer("streams", 0..=1_000_000).unwrap_or(default.streams),
        connections: fields.integer("connections", 0..=1_000_000).unwrap_or(default.connections),
    }
}

fn network(fields: &Fields<'_>) -> Network {
    let mut allow = Vec::new();
    for (index, item) in fields.list("allow", LIST_MAX).unwrap_or_default().iter().enumerate() {
        let pointer = child(&fields.at("allow"), &index.to_string());
        let Some(given) = text(item, pointer.clone(), fields.errors()) else { continue };
        match given.parse() {
            Ok(entry) => allow.push(entry),
            Err(error) => fields.errors().push(pointer, "allow", format!("{error}")),
        }
    }
    let resolver = fields
        .text("resolver")
        .and_then(|given| given.parse::<ResolverChoice>().map_err(|detail| fields.refuse("resolver", "resolver", detail)).ok());
    Network { allow, allow_http: fields.flag("allow_http").unwrap_or_default(), resolver: resolver.unwrap_or_default() }
}

fn delivery(fields: &Fields<'_>) -> Delivery {
    let default = Delivery::default();
    Delivery {
        timeout: fields.duration("timeout", TIMEOUT_MIN..=TIMEOUT_MAX, "range").unwrap_or(default.timeout),
        max_in_flight: fields.count("max_in_flight", 1..=IN_FLIGHT_MAX).unwrap_or(default.max_in_flight),
        lanes: fields.count("lanes", 0..=64).unwrap_or(default.lanes),
        per_host_per_second: limits::rate(fields, "per_host_per_second").unwrap_or(default.per_host_per_second),
        per_host_burst: fields.count("per_host_burst", 0..=RATE_MAX).unwrap_or(default.per_host_burst),
        per_host_in_flight: fields.count("per_host_in_flight", 0..=IN_FLIGHT_MAX).unwrap_or(default.per_host_in_flight),
    }
}

fn sources(root: &Fields<'_>, rules: &SourceRules<'_>) -> Vec<SourceSpec> {
    let read = |value: &Value| parse_source(value, None, rules, &mut |_| {});
    each(root, "sources", ("name", "duplicate_source"), read)
}

fn subscriptions(root: &Fields<'_>, rules: &Rules<'_>) -> Vec<Definition> {
    let read = |value: &Value| parse_definition(value, None, rules);
    each(root, "subscriptions", ("id", "duplicate_subscription"), read)
}

/// Reads a list of definitions, each with a name of its own.
fn each<T>(
    root: &Fields<'_>,
    list: &str,
    (name, duplicate): (&str, &'static str),
    read: impl Fn(&Value) -> Result<T, Vec<FieldError>>,
) -> Vec<T> {
    let errors = root.errors();
    let mut taken = BTreeSet::new();
    let mut definitions = Vec::new();
    for (index, value) in root.list(list, LIST_MAX).unwrap_or_default().iter().enumerate() {
        let at = child(&root.at(list), &index.to_string());
        match value.get(name).and_then(Value::as_str) {
            Some(given) if !taken.insert(given) => {
                errors.push(child(&at, name), duplicate, format!("{} is there twice", quoted(given)));
            }
            None if value.get(name).is_none() && value.is_object() => {
                errors.push(child(&at, name), "missing_field", "is required in the configuration");
            }
            _ => {}
        }
        match read(value) {
            Ok(definition) => definitions.push(definition),
            Err(found) => {
                for error in found {
                    errors.note(FieldError { pointer: format!("{at}{}", error.pointer), ..error });
                }
            }
        }
    }
    definitions
}

/// Reads a list of texts, each judged by `is_sound`; others are noted as `slug`.
fn texts(fields: &Fields<'_>, name: &str, slug: &'static str, wanted: &str, is_sound: impl Fn(&str) -> bool) -> Vec<String> {
    let mut list = Vec::new();
    for (index, item) in fields.list(name, LIST_MAX).unwrap_or_default().iter().enumerate() {
        let pointer = child(&fields.at(name), &index.to_string());
        let Some(given) = text(item, pointer.clone(), fields.errors()) else { continue };
        if is_sound(given) {
            list.push(given.to_owned());
        } else {
            fields.errors().push(pointer, slug, format!("{} is not allowed; allowed: {wanted}", quoted(given)));
        }
    }
    list
}
