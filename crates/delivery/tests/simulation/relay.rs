//! One process of the simulated relay: log, intake, lanes, retention, from its start to its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hookcast_core::model::subscription::{RateLimit, SubscriptionRecord};
use hookcast_delivery::Lanes;
use hookcast_delivery::consent::ask::Identity;
use hookcast_delivery::lane::LaneContext;
use hookcast_delivery::limits::{LimitBook, LimitSettings, SharedTerms};
use hookcast_delivery::notice::Notice;
use hookcast_delivery::renderings::Renderings;
use hookcast_log::follow::Follow;
use hookcast_log::ingest::{DedupeSettings, Ingest};
use hookcast_log::retention::{Retention, RetentionSettings};
use hookcast_log::storage::Result;
use hookcast_log::tail::{Tail, TailSettings};
use hookcast_registry::Registry;
use hookcast_supervise::Supervisor;
use hookcast_supervise::readiness::Readiness;
use tokio_util::sync::CancellationToken;

use crate::definitions::GROUPS;
use crate::driver::Seats;
use crate::faults;
use crate::world::World;

/// A running process.
pub(crate) struct Relay {
    pub(crate) lanes: Lanes,
    pub(crate) registry: Registry,
    pub(crate) ingest: Ingest,
    pub(crate) follow: Follow,
    pub(crate) readiness: Readiness,
    cancel: CancellationToken,
}

/// Most events of the log that are kept, in bytes: some hundred.
const LOG_BYTES_MAX: u64 = 10_000;
/// How long dead letters are kept.
const LETTERS_MAX_AGE: Duration = Duration::from_secs(90);

fn limits() -> LimitBook {
    let narrow = SharedTerms { in_flight: Some(3), rate: None };
    let slow = SharedTerms { in_flight: None, rate: Some(RateLimit { per_second: 30.0, burst: 5 }) };
    let groups: BTreeMap<String, SharedTerms> = GROUPS.iter().map(|name| (*name).to_owned()).zip([narrow, slow]).collect();
    let per_host = SharedTerms { in_flight: Some(40), rate: None };
    LimitBook::new(&LimitSettings { per_host, groups })
}

impl Relay {
    /// Starts over what is stored.
    ///
    /// # Errors
    /// As storage fails.
    pub(crate) async fn start(world: &World, seats: &Seats) -> Result<Self> {
        let store = faults::over(&world.store, &world.faults);
        let (readiness, cancel) = (Readiness::default(), CancellationToken::new());
        let supervisor = Supervisor::over(readiness.clone());
        let bounds = store.log.bounds().await?;
        let tail = Arc::new(Tail::new(TailSettings { bytes_max: 4_000 }, bounds.first, bounds.head));
        let registry = Registry::open(Arc::clone(&store.catalog)).await?;
        let registry = registry.with_limit_groups(GROUPS.iter().map(|name| (*name).to_owned()).collect());
        let (notices, mut heard) = tokio::sync::mpsc::channel::<Notice>(64);
        let coverage = Arc::clone(&world.coverage);
        tokio::spawn(async move {
            while let Some(notice) = heard.recv().await {
                coverage.note(format!("notice/{}", notice.kind));
            }
        });
        let dedupe = DedupeSettings { max_age: Duration::from_hours(1), max_ids: 10_000 };
        let clock = Arc::clone(&world.clock) as Arc<dyn hookcast_core::clock::Clock>;
        let (ingest, _) =
            Ingest::start(Arc::clone(&store.log), Arc::clone(&tail), Arc::clone(&clock), dedupe, &supervisor).await?;
        let follow = Follow::new(Arc::clone(&store.log), Arc::clone(&tail));
        let context = LaneContext {
            follow: follow.clone(),
            ledger: Arc::clone(&store.ledger),
            registry: registry.clone(),
            clock: Arc::clone(&clock),
            tls: world.tls.clone(),
            remembers_successes: true,
            limits: Arc::new(limits()),
            identity: Identity { origin: "relay.example".into(), public_url: None },
            renderings: Arc::new(Renderings::open(1, None, cancel.clone())),
            notices,
            supervisor: supervisor.clone(),
            cancel: cancel.clone(),
        };
        let lanes = Lanes::start_by(world.lanes, context, &world.gate, |lane| seats.add(lane)).await?;
        let settings = RetentionSettings {
            max_age: Duration::from_hours(10),
            max_bytes: LOG_BYTES_MAX,
            dead_letters_max_age: LETTERS_MAX_AGE,
            attempts_max_age: Duration::from_hours(10),
            attempts_max_bytes: 1 << 30,
        };
        let known = ingest.clone();
        let retention = Retention::new(store, tail, clock, settings, Box::new(move || known.oldest_known()));
        let (told, ending) = (lanes.clone(), cancel.clone());
        let keeping = Arc::new(retention).run(ending, async move |buried| told.buried(buried).await);
        supervisor.essential("retention", keeping).spawn();
        Ok(Self { lanes, registry, ingest, follow, readiness, cancel })
    }

    /// Ends it in order.
    pub(crate) async fn stop(&self) {
        self.lanes.stop(Duration::from_secs(5)).await;
        self.cancel.cancel();
    }

    /// The subscriptions as they are defined.
    pub(crate) fn records(&self) -> Vec<Arc<SubscriptionRecord>> {
        self.registry.all()
    }
}
