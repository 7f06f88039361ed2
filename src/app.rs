//! The composition root: opens storage, starts intake, lanes, sources, streams and the edge, and ends them in order.
//!
//! The only module that knows all others. [`App::start`] gives a running relay; `serve`, `demo` and the tests use the same.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use futures_core::future::LocalBoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, HistoryAttempts};
use hookcast_core::clock::{Clock, SystemClock};
use hookcast_core::model::administration::TokenLimits;
use hookcast_delivery::Lanes;
use hookcast_delivery::lane::LaneContext;
use hookcast_delivery::limits::LimitBook;
use hookcast_delivery::notice::{NOTICES_MAX, Notice};
use hookcast_delivery::renderings::Renderings;
use hookcast_http::audit::Audit;
use hookcast_http::auth::{Auth, AuthSettings, Scope, TokenEntry};
use hookcast_http::tokens::Tokens;
use hookcast_http::webhook::Senders;
use hookcast_http::websub::Door;
use hookcast_http::{DefinitionDefaults, HttpLimits, HttpState};
use hookcast_log::follow::Follow;
use hookcast_log::ingest::{DedupeSettings, Ingest};
use hookcast_log::retention::{Retention, RetentionSettings};
use hookcast_log::storage::Store;
use hookcast_log::tail::{Tail, TailSettings};
use hookcast_net::dial::Gate;
use hookcast_net::fetch::Fetcher;
use hookcast_net::target::Target;
use hookcast_net::tls::Tls;
use hookcast_registry::{Registry, SourceRegistry};
use hookcast_source::Sources;
use hookcast_streams::{Egress, EgressSettings};
use hookcast_supervise::Supervisor;
use hookcast_supervise::readiness::Readiness;

mod declared;
mod doors;
mod error;
mod feeds;
mod foundation;
mod hub;
mod numbers;
mod reload;
mod store;
mod telling;

use doors::Doors;
use store::open_store;

pub use error::{AppError, storage_exit_code};
pub use foundation::Foundation;
pub use reload::{ReloadError, Reloader};

/// Time for what is in flight when the relay stops.
const STOP_GRACE: Duration = Duration::from_secs(25);

/// A running relay.
pub struct App {
    address: SocketAddr,
    tcp_address: Option<SocketAddr>,
    server: ServerHandle,
    serving: tokio::task::JoinHandle<()>,
    sources: Arc<Sources>,
    lanes: Lanes,
    notices_end: CancellationToken,
    ingest: Ingest,
    leader: tokio::task::JoinHandle<()>,
    ground: Arc<Ground>,
    reloader: Reloader,
}

/// What the parts share while the relay is put together.
struct Ground {
    store: Store,
    clock: Arc<dyn Clock>,
    tail: Arc<Tail>,
    follow: Follow,
    gate: Gate,
    tls: Tls,
    readiness: Readiness,
    supervisor: Supervisor,
    closing: CancellationToken,
}

impl App {
    /// Starts a relay on the current actix system.
    ///
    /// # Errors
    /// [`AppError`] with the exit code that tells it; nothing is left running then.
    pub async fn start(config: &Config) -> Result<Self, AppError> {
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        // Storage first: a second relay on the same data is told so, whatever the address says.
        let readiness = Readiness::default();
        let store = open_store(config, readiness.clone()).await?;
        Self::start_over(config, Foundation { store, clock: Arc::new(SystemClock), readiness }).await
    }

    /// Starts a relay over a store that is open, with a clock; `[storage]` counts for nothing then.
    ///
    /// # Errors
    /// As [`App::start`]; the store is closed then.
    pub async fn start_over(config: &Config, foundation: Foundation) -> Result<Self, AppError> {
        let store = foundation.store.clone();
        let started = Self::putting_together(config, foundation).await;
        if started.is_err() {
            store.close().await;
        }
        started
    }

    /// As one object, so that the program and the tests do not compile the relay again, each for itself.
    #[inline(never)]
    fn putting_together(config: &Config, foundation: Foundation) -> LocalBoxFuture<'_, Result<Self, AppError>> {
        Box::pin(Self::put_together(config, foundation))
    }

    async fn put_together(config: &Config, foundation: Foundation) -> Result<Self, AppError> {
        let ground = Arc::new(Ground::over(config, foundation).await?);
        let doors = Doors::bind(config)?;
        let (address, tcp_address) = doors.addresses();
        let (registry, source_registry) =
            (declared::registry(config, &ground).await?, SourceRegistry::open(Arc::clone(&ground.store.catalog)).await?);
        let (log, tail, clock) = (Arc::clone(&ground.store.log), Arc::clone(&ground.tail), Arc::clone(&ground.clock));
        let (ingest, leader) = Ingest::start(log, tail, clock, dedupe_settings(config), &ground.supervisor).await?;
        declared::apply_early(config, &ground, &registry).await?;
        let (notices, heard) = mpsc::channel(NOTICES_MAX);
        let lanes =
            Lanes::start(lane_count(config), ground.lane_context(config, &registry, notices.clone()), &ground.gate).await?;
        let notices_end = CancellationToken::new();
        feeds::take_notices(&ground, ingest.clone(), heard, notices_end.clone());
        declared::apply(config, &ground, &registry, &source_registry, &lanes).await?;
        let sources = feeds::start(&ground, &source_registry, ingest.clone(), notices).await?;
        ground.start_retention(config, &lanes, ingest.clone());
        let egress = Egress::new(
            ground.follow.clone(),
            Arc::clone(&ground.clock),
            ground.closing.clone(),
            egress_settings(config),
            ground.supervisor.clone(),
        );
        let declared = auth_settings(config);
        let auth = Arc::new(Auth::new(declared.clone(), Arc::clone(&ground.clock)));
        let administration = &ground.store.administration;
        let tokens = Tokens::open(Arc::clone(administration), Arc::clone(&auth), declared.tokens).await?;
        let audit = Arc::new(Audit::new(Arc::clone(administration), Arc::clone(&ground.clock)));
        let metrics = numbers::recorder(egress.clone(), ground.follow.clone(), registry.clone());
        let reloader = Reloader {
            ground: Arc::clone(&ground),
            registry: registry.clone(),
            sources: source_registry.clone(),
            lanes: lanes.clone(),
            running: Arc::new(config.clone()),
        };
        let state = Arc::new(HttpState {
            auth,
            tokens,
            audit,
            hub: Some(Door::new(hub::start(config, &ground, &registry))),
            senders: Senders::default(),
            registry,
            sources: source_registry,
            follow: ground.follow.clone(),
            readiness: ground.readiness.clone(),
            log: Arc::clone(&ground.store.log),
            ingest: ingest.clone(),
            deliveries: Arc::new(lanes.clone()),
            source_control: Arc::new(feeds::Control {
                sources: Arc::clone(&sources),
                catalog: Arc::clone(&ground.store.catalog),
            }),
            urls: url_judge(config),
            texts: Arc::new(config.texts()),
            protocols: feeds::protocols(),
            defaults: DefinitionDefaults { timeout: config.delivery.timeout, max_in_flight: config.delivery.max_in_flight },
            metrics,
            limits: http_limits(config),
            cors_origins: config.server.cors_origins.clone(),
            clock: Arc::clone(&ground.clock),
        });
        let (server, serving) = ground.watch(doors.serve(state, &config.limits, cores(), &egress)?);
        Ok(Self { address, tcp_address, server, serving, sources, lanes, notices_end, ingest, leader, ground, reloader })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for clients without HTTP.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp_address
    }

    /// What applies the declared definitions of another configuration to it.
    #[must_use]
    pub fn reloader(&self) -> &Reloader {
        &self.reloader
    }

    /// What is wrong with it, and whether it must end.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.ground.readiness
    }

    /// Ends it in order: intake, what is in flight, progress, streams, storage.
    pub async fn stop(self) {
        self.ground.supervisor.stop();
        self.sources.shutdown().await;
        // Streams end cleanly now; the server takes no new request and lets those under way finish.
        self.ground.closing.cancel();
        self.server.stop(true).await;
        let _ = self.serving.await;
        self.lanes.stop(STOP_GRACE).await;
        self.notices_end.cancel();
        drop(self.sources);
        drop(self.ingest);
        // The leader ends when the last way in is gone; a way in that leaked must not hold the end up.
        let _ = tokio::time::timeout(Duration::from_secs(5), self.leader).await;
        self.ground.store.close().await;
    }
}

impl Ground {
    async fn over(config: &Config, Foundation { store, clock, readiness }: Foundation) -> Result<Self, AppError> {
        let gate = Gate::open(config.egress_rules()).map_err(|error| AppError::Setting(format!("network.resolver: {error}")))?;
        let tls = Tls::new(&[]).map_err(|error| AppError::Setting(format!("TLS roots of this machine: {error}")))?;
        let bounds = store.log.bounds().await?;
        let tail = Arc::new(Tail::new(TailSettings::default(), bounds.first, bounds.head));
        let follow = Follow::new(Arc::clone(&store.log), Arc::clone(&tail));
        let (supervisor, closing) = (Supervisor::over(readiness.clone()), CancellationToken::new());
        Ok(Self { store, clock, tail, follow, gate, tls, readiness, supervisor, closing })
    }

    fn lane_context(&self, config: &Config, registry: &Registry, notices: mpsc::Sender<Notice>) -> LaneContext {
        let cancel = CancellationToken::new();
        LaneContext {
            renderings: Arc::new(Renderings::open(cores() / 2, renderings_path(config).as_deref(), cancel.clone())),
            follow: self.follow.clone(),
            ledger: Arc::clone(&self.store.ledger),
            registry: registry.clone(),
            clock: Arc::clone(&self.clock),
            tls: self.tls.clone(),
            remembers_successes: config.history.attempts == HistoryAttempts::All,
            limits: Arc::new(LimitBook::new(&config.limit_settings())),
            identity: hub::identity(config),
            notices,
            supervisor: self.supervisor.clone(),
            cancel,
        }
    }

    fn fetcher(&self) -> Fetcher {
        Fetcher::new(self.gate.clone(), self.tls.clone())
    }

    fn start_retention(&self, config: &Config, lanes: &Lanes, ingest: Ingest) {
        let settings = RetentionSettings {
            max_age: config.retention.max_age,
            max_bytes: config.retention.max_bytes,
            dead_letters_max_age: config.retention.dead_letters_max_age,
            attempts_max_age: config.history.max_age,
            attempts_max_bytes: config.history.max_bytes,
        };
        let retention = Retention::new(
            self.store.clone(),
            Arc::clone(&self.tail),
            Arc::clone(&self.clock),
            settings,
            Box::new(move || ingest.oldest_known()),
        );
        let (retention, lanes, closing) = (Arc::new(retention), lanes.clone(), self.closing.clone());
        let run = move || {
            let (retention, lanes) = (Arc::clone(&retention), lanes.clone());
            retention.run(closing.clone(), async move |buried| lanes.buried(buried).await)
        };
        self.supervisor.restarted("retention", run).spawn();
    }

    /// Watches the server, which must not end before the relay stops.
    fn watch(&self, server: actix_web::dev::Server) -> (ServerHandle, tokio::task::JoinHandle<()>) {
        let (handle, supervisor) = (server.handle(), self.supervisor.clone());
        let serve = async move {
            let ended = server.await.map_or_else(|error| error.to_string(), |()| "it takes no connection any more".to_owned());
            supervisor.ended("server", &ended);
        };
        (handle, self.supervisor.essential("server", serve).spawn_local())
    }
}

/// The file beside the database in which renderings are marked; memory has none.
fn renderings_path(config: &Config) -> Option<std::path::PathBuf> {
    (config.storage.scheme() != "memory").then(|| {
        let mut path = config.storage.path().into_os_string();
        path.push(".renderings");
        path.into()
    })
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn lane_count(config: &Config) -> usize {
    if config.delivery.lanes == 0 { cores() } else { config.delivery.lanes as usize }
}

fn auth_settings(config: &Config) -> AuthSettings {
    let tokens = config.auth.tokens.iter().map(|token| TokenEntry {
        id: None,
        limits: TokenLimits::default(),
        name: token.name.clone(),
        sha256: token.sha256,
        scopes: token.scopes.iter().filter_map(|scope| Scope::parse(scope)).collect(),
        topics: token.topics.clone(),
        expires_at: None,
    });
    AuthSettings { tokens: tokens.collect(), hosts: config.server.hosts.clone() }
}

fn dedupe_settings(config: &Config) -> DedupeSettings {
    let max_ids = usize::try_from(config.dedupe.max_ids).unwrap_or(usize::MAX);
    DedupeSettings { max_age: config.dedupe.max_age, max_ids }
}

fn egress_settings(config: &Config) -> EgressSettings {
    EgressSettings { streams_max: usize::try_from(config.limits.streams).unwrap_or(usize::MAX), ..EgressSettings::default() }
}

fn http_limits(config: &Config) -> HttpLimits {
    let bytes = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    HttpLimits {
        event_bytes: bytes(config.limits.event_bytes),
        batch_events: bytes(config.limits.batch_events),
        subscriptions: bytes(config.limits.subscriptions),
        ..HttpLimits::default()
    }
}

/// Judges callback and upstream URLs by the same rules as every dial.
fn url_judge(config: &Config) -> Arc<dyn hookcast_core::model::subscription::parse::UrlJudge + Send + Sync> {
    let rules = config.egress_rules();
    Arc::new(move |url: &str| -> Result<String, (&'static str, String)> {
        let target = Target::parse(url).map_err(|error| (error.slug(), error.to_string()))?;
        target.judge(&rules).map_err(|error| (error.slug(), error.to_string()))?;
        Ok(target.as_str().to_owned())
    })
}
