//! The configuration: every key with its default, read from a file and from `HOOKCAST__SECTION__KEY`.
//!
//! Plain data that the composition root maps onto the modules. A mistake stops the start before anything is opened, and all
//! mistakes are told at once. `document` turns TOML and environment into one tree that remembers where each value came from,
//! `read` judges the tree, `file` guards against what is no configuration file. The doc comments here are mirrored by
//! `config.toml`; a test holds the two together.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hookcast_core::model::SourceSpec;
use hookcast_core::model::subscription::parse::Definition;
use hookcast_core::model::topic::TopicPattern;
use hookcast_delivery::limits::{LimitSettings, SharedTerms};
use hookcast_log::seal::{MasterKey, Seals};
use hookcast_log::storage::{Durability, Reserve};
use hookcast_net::{AllowEntry, EgressRules, ResolverChoice};
use hookcast_registry::Texts;

pub use error::{ConfigError, ConfigErrors};
pub use restart::keys_that_differ;

mod document;
mod error;
mod file;
mod limits;
mod read;
mod restart;
mod secrets;
mod tokens;
mod websub;

/// Where the configuration is looked for when no path is given.
pub const CONFIG_PATH_DEFAULT: &str = "config.toml";
/// Environment variable that makes a first token with every scope.
pub const ADMIN_TOKEN_VARIABLE: &str = "HOOKCAST_ADMIN_TOKEN";
/// Shortest admin token, in characters.
pub const ADMIN_TOKEN_CHARS_MIN: usize = 32;
/// The scopes a token may have.
pub const SCOPES: &[&str] = &["read", "publish", "stream", "manage"];

/// Everything the relay is told at its start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[storage]`
    pub storage: Storage,
    /// `[retention]`
    pub retention: Retention,
    /// `[history]`
    pub history: History,
    /// `[dedupe]`
    pub dedupe: Dedupe,
    /// `[limits]`
    pub limits: Limits,
    /// `[network]`
    pub network: Network,
    /// `[delivery]`
    pub delivery: Delivery,
    /// `[limit_groups]`, by name.
    pub limit_groups: BTreeMap<String, SharedTerms>,
    /// `[websub]`
    pub websub: WebSub,
    /// `[auth]`
    pub auth: Auth,
    /// `[secrets]`
    pub secrets: Secrets,
    /// `[[sources]]`, names unique.
    pub sources: Vec<SourceSpec>,
    /// `[[subscriptions]]`, each with an id, ids unique.
    pub subscriptions: Vec<Definition>,
}

/// Where the relay listens and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Address and port; port 0 takes any free port. Beyond loopback only with tokens.
    pub listen: SocketAddr,
    /// Address and port of streams without HTTP, under the same rules; none = there is no such door.
    pub tcp_listen: Option<SocketAddr>,
    /// Names under which the relay is reached: without tokens the only ones a `Host` header may have besides the loopback
    /// ones; never a target of its own deliveries.
    pub hosts: Vec<String>,
    /// Origins whose pages may call the API, such as `https://app.example.com`.
    pub cors_origins: Vec<String>,
}

/// Where events are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// `sqlite://path` or `memory://`; a path without a leading `/` is relative to the working directory.
    pub url: String,
    /// `full`: an accepted event is on the disk. `normal`: a power failure may take the newest.
    pub durability: Durability,
    /// Intake stops (507) when less is free on the file system: `auto` (a tenth of it, 16 MiB to 256 MiB), a size, a part of
    /// it such as `3%`, or 0.
    pub reserve: Reserve,
}

/// How long events stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Age after which an event may go.
    pub max_age: Duration,
    /// Size of the log beyond which the oldest go.
    pub max_bytes: u64,
    /// Age after which a dead letter goes.
    pub dead_letters_max_age: Duration,
}

/// Which attempts are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryAttempts {
    /// Each one.
    All,
    /// Failed ones only.
    Failures,
}

/// How long attempts are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// `all` or `failures`.
    pub attempts: HistoryAttempts,
    /// Age after which an attempt is forgotten.
    pub max_age: Duration,
    /// Size beyond which the oldest are forgotten.
    pub max_bytes: u64,
}

/// The window in which a repeated id is noticed; whichever limit is hit first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dedupe {
    /// Age after which an id is forgotten.
    pub max_age: Duration,
    /// Ids remembered; a million take 27 MB of memory.
    pub max_ids: u64,
}

/// Upper bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest event.
    pub event_bytes: u64,
    /// Most events in one publish request.
    pub batch_events: u64,
    /// Most subscriptions.
    pub subscriptions: u64,
    /// Most open streams.
    pub streams: u64,
    /// Most open connections from outside, streams among them; 0 = as many as the limit of open files leaves room for.
    pub connections: u64,
}

/// What may be dialled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Addresses that are not public but may be dialled: CIDRs, addresses or names, each with or without a port.
    pub allow: Vec<AllowEntry>,
    /// Whether plain http to public addresses is allowed.
    pub allow_http: bool,
    /// `system` or the `ip:port` of a DNS server.
    pub resolver: ResolverChoice,
}

/// Defaults of subscriptions and the threads that serve them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delivery {
    /// Longest whole attempt of a subscription that names no `timeout`.
    pub timeout: Duration,
    /// Attempts at the same time of a subscription that names no `max_in_flight`.
    pub max_in_flight: u32,
    /// Threads that deliver; 0 = one a core.
    pub lanes: u32,
    /// Attempts a second to one host, over all subscriptions; 0 = no limit.
    pub per_host_per_second: f64,
    /// Attempts to one host that may begin at once; 0 = one second's worth.
    pub per_host_burst: u32,
    /// Attempts at the same time to one host, over all subscriptions; 0 = no limit.
    pub per_host_in_flight: u32,
}

/// What callbacks may subscribe themselves to, by the `WebSub` hub at `POST /websub`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSub {
    /// Patterns of the topics; none = no hub.
    pub topics: Vec<TopicPattern>,
    /// Lease of a subscriber that names none.
    pub lease_default: Duration,
    /// Longest lease; a longer one is cut to it.
    pub lease_max: Duration,
    /// URL under which the relay is reached from outside, without a slash at its end; empty = as each request says.
    pub public_url: String,
}

/// Who may do what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Auth {
    /// The tokens; none = no token is asked for, and the relay stays on loopback.
    pub tokens: Vec<Token>,
}

/// The master keys that definitions are sealed with in the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    /// The present key, out of `key` or `key_file`; none = definitions are stored in the clear.
    pub key: Option<MasterKey>,
    /// Former keys, which still open what was sealed with them.
    pub previous_keys: Vec<MasterKey>,
}

impl Secrets {
    /// What seals and opens; `None` without a key.
    #[must_use]
    pub fn seals(&self) -> Option<Arc<Seals>> {
        self.key.clone().map(|key| Arc::new(Seals::new(key, self.previous_keys.clone())))
    }
}

/// A token as the relay knows it: never the token itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// For people and logs.
    pub name: String,
    /// SHA-256 of the token, 64 hexadecimal digits in the file.
    pub sha256: [u8; 32],
    /// Some of [`SCOPES`], at least one.
    pub scopes: Vec<&'static str>,
    /// The only topics it sees and touches; empty = all.
    pub topics: Vec<TopicPattern>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            tcp_listen: None,
            hosts: Vec::new(),
            cors_origins: Vec::new(),
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self { url: "sqlite://data/hookcast.db".to_owned(), durability: Durability::Full, reserve: Reserve::Auto }
    }
}

impl Default for Retention {
    fn default() -> Self {
        let days = |days: u64| Duration::from_hours(24 * days);
        Self { max_age: days(7), max_bytes: 10 << 30, dead_letters_max_age: days(30) }
    }
}

impl Default for History {
    fn default() -> Self {
        Self { attempts: HistoryAttempts::All, max_age: Duration::from_hours(7 * 24), max_bytes: 1 << 30 }
    }
}

impl Default for Dedupe {
    fn default() -> Self {
        Self { max_age: Duration::from_hours(24), max_ids: 1_000_000 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { event_bytes: 1 << 20, batch_events: 1000, subscriptions: 200_000, streams: 15_000, connections: 0 }
    }
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(15),
            max_in_flight: 16,
            lanes: 0,
            per_host_per_second: 0.0,
            per_host_burst: 0,
            per_host_in_flight: 0,
        }
    }
}

impl Default for WebSub {
    fn default() -> Self {
        let days = |days: u64| Duration::from_hours(24 * days);
        Self { topics: Vec::new(), lease_default: days(10), lease_max: days(30), public_url: String::new() }
    }
}

impl Storage {
    /// The scheme of the URL: the name of a backend.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.url.split_once("://").unwrap_or_default().0
    }

    /// What follows the scheme; empty for `memory://`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(self.url.split_once("://").unwrap_or_default().1)
    }
}

impl Config {
    /// Reads the configuration.
    ///
    /// `path` absent = [`CONFIG_PATH_DEFAULT`] if it is there, else the defaults. `env` is the whole environment; other
    /// variables than `HOOKCAST__…` and [`ADMIN_TOKEN_VARIABLE`] are passed over. `protocols` are those a source may name.
    ///
    /// # Errors
    /// Every mistake, each with where it is; exit code 78.
    pub fn load(path: Option<&Path>, env: &[(String, String)], protocols: &[&str]) -> Result<Self, ConfigErrors> {
        let name = path.unwrap_or(Path::new(CONFIG_PATH_DEFAULT));
        let text = file::read(name, path.is_some()).map_err(|error| ConfigErrors(vec![error]))?;
        Self::parse(&text, &name.display().to_string(), env, protocols)
    }

    /// Reads the configuration from a text; `name` stands for the file in messages.
    ///
    /// # Errors
    /// Every mistake, each with where it is.
    pub fn parse(text: &str, name: &str, env: &[(String, String)], protocols: &[&str]) -> Result<Self, ConfigErrors> {
        let document = document::Document::parse(text, name, env).map_err(ConfigErrors)?;
        read::config(&document, env, protocols).map_err(ConfigErrors)
    }

    /// What may be dialled, with the relay's own names shut.
    #[must_use]
    pub fn egress_rules(&self) -> EgressRules {
        let mut own = self.server.hosts.clone();
        let doors = std::iter::once(self.server.listen).chain(self.server.tcp_listen);
        own.extend(doors.filter(|address| address.port() != 0).map(|address| address.to_string()));
        EgressRules::new(self.network.allow.clone(), self.network.allow_http, self.network.resolver, own)
    }

    /// Limits that subscriptions share.
    #[must_use]
    pub fn limit_settings(&self) -> LimitSettings {
        LimitSettings { per_host: limits::per_host(&self.delivery), groups: self.limit_groups.clone() }
    }

    /// What judges the texts of definitions; it knows the groups of limits.
    #[must_use]
    pub fn texts(&self) -> Texts {
        Texts::new(self.limit_groups.keys().cloned().collect())
    }

    /// Settings that weaken a promise; to be said at every start.
    #[must_use]
    pub fn warnings(&self) -> Vec<&'static str> {
        let warnings = [
            (self.storage.scheme() == "memory", "storage.url is memory://: everything is lost when the relay stops"),
            (
                self.storage.scheme() != "memory" && self.storage.durability == Durability::Normal,
                "storage.durability is \"normal\": a power failure may lose events that were accepted",
            ),
            (
                self.storage.scheme() != "memory" && self.secrets.key.is_none(),
                "secrets.key is not set: signing keys and header values are stored in the clear",
            ),
            (self.network.allow_http, "network.allow_http is true: deliveries to http URLs can be read and changed on their way"),
        ];
        warnings.into_iter().filter(|(is_so, _)| *is_so).map(|(_, text)| text).collect()
    }
}

#[cfg(test)]
mod tests;
