//! Lanes on a clock that is moved while they run: nothing that is waited for stands still, nothing else has to happen.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use hookcast_core::clock::{Clock, SystemClock, Timestamp};
use hookcast_core::model::event::DataForm;
use hookcast_core::model::subscription::{SubscriptionRecord, change, parse};
use hookcast_core::model::{NewEvent, Seq, SubscriptionId, Topic};
use hookcast_delivery::Lanes;
use hookcast_delivery::consent::ask::Identity;
use hookcast_delivery::lane::LaneContext;
use hookcast_delivery::limits::LimitBook;
use hookcast_delivery::renderings::Renderings;
use hookcast_log::follow::Follow;
use hookcast_log::ingest::{DedupeSettings, Ingest};
use hookcast_log::storage::{BACKENDS, Durability, StorageSettings};
use hookcast_log::tail::{Tail, TailSettings};
use hookcast_net::tls::Tls;
use hookcast_registry::Registry;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::net_wire::gate;
use crate::support::{Answer, Receiver, eventually};

const HOUR: i64 = 3_600_000;
const STEPS: [i64; 5] = [2_000, -2_000, HOUR, -HOUR, -24 * HOUR];

/// The clock of the machine, and by how much it was moved.
#[derive(Clone, Debug, Default)]
struct MovedClock(Arc<AtomicI64>);

impl MovedClock {
    fn step(&self, by_ms: i64) {
        self.0.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for MovedClock {
    fn now(&self) -> Timestamp {
        Timestamp(SystemClock.now().0 + self.0.load(Ordering::SeqCst))
    }
}

/// One lane on a database of its own; it is told nothing but what a test tells it.
struct World {
    _directory: tempfile::TempDir,
    clock: MovedClock,
    registry: Registry,
    ingest: Ingest,
    lanes: Lanes,
}

impl World {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = StorageSettings {
            path: directory.path().join("hookcast.db"),
            durability: Durability::Normal,
            reserve: hookcast_log::storage::Reserve::Bytes(0),
            seals: None,
            readiness: hookcast_supervise::readiness::Readiness::default(),
        };
        let backend = BACKENDS.iter().find(|backend| backend.scheme == "sqlite").unwrap();
        let store = (backend.open)(settings).await.unwrap();
        let clock = MovedClock::default();
        let bounds = store.log.bounds().await.unwrap();
        let tail = Arc::new(Tail::new(TailSettings::default(), bounds.first, bounds.head));
        let registry = Registry::open(Arc::clone(&store.catalog)).await.unwrap();
        let dedupe = DedupeSettings { max_age: Duration::from_hours(24), max_ids: 1000 };
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let (ingest, _) = Ingest::start(
            Arc::clone(&store.log),
            Arc::clone(&tail),
            Arc::clone(&shared),
            dedupe,
            &hookcast_supervise::Supervisor::default(),
        )
        .await
        .unwrap();
        let context = LaneContext {
            supervisor: hookcast_supervise::Supervisor::default(),
            follow: Follow::new(Arc::clone(&store.log), tail),
            ledger: Arc::clone(&store.ledger),
            registry: registry.clone(),
            clock: shared,
            tls: Tls::new(&[]).unwrap(),
            remembers_successes: false,
            renderings: Arc::new(Renderings::open(1, None, CancellationToken::new())),
            limits: Arc::new(LimitBook::default()),
            identity: Identity { origin: "test".into(), public_url: None },
            notices: mpsc::channel(64).0,
            cancel: CancellationToken::new(),
        };
        let lanes = Lanes::start(1, context, &gate()).await.unwrap();
        Self { _directory: directory, clock, registry, ingest, lanes }
    }

    async fn subscribe(&self, id: &str, url: &str, fields: Value) -> Arc<SubscriptionRecord> {
        let any = |url: &str| -> Result<String, (&'static str, String)> { Ok(url.to_owned()) };
        let mut body = json!({"id": id, "url": url, "topics": ["t"]});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let definition = parse::parse_definition(&body, None, &parse::Rules::new(&any)).unwrap();
        let id = SubscriptionId::parse(id).unwrap();
        let mut random = |bytes: &mut [u8]| bytes.fill(7);
        let record = change::new_record(definition, id, Seq::ZERO, self.clock.now(), &mut random);
        self.registry.put(record, 0).await.unwrap()
    }

    async fn publish(&self) {
        let event = NewEvent {
            topic: Topic::parse("t").unwrap(),
            id: "1".to_owned(),
            own_id: false,
            source: "/publish".into(),
            kind: "message".into(),
            subject: None,
            time: None,
            arrived_at: self.clock.now(),
            content_type: "application/json".into(),
            data_schema: None,
            extensions: Vec::new(),
            hops: 0,
            form: DataForm::Json,
            data: bytes::Bytes::from_static(b"{}"),
        };
        self.ingest.publish(vec![event]).await.unwrap();
    }
}

async fn retries_go_on(step: i64, ordering: Value) {
    let world = World::start().await;
    let receiver = Receiver::with(|_, _| Answer::status(500)).await;
    let fields = json!({"ordering": ordering, "retry": {"max_attempts": 50, "schedule": ["3s"], "jitter": 0.0}});
    let record = world.subscribe("a", receiver.url(), fields).await;
    world.publish().await;
    eventually("a retry that waits", async || {
        let status = world.lanes.status(&record).await?;
        (status.retrying == 1 && status.in_flight == 0).then_some(())
    })
    .await;
    world.clock.step(step);
    receiver.sees(receiver.count() + 1).await;
    world.lanes.stop(Duration::ZERO).await;
}

async fn a_hold_ends(step: i64) {
    let world = World::start().await;
    let receiver = Receiver::with(|_, n| match n {
        0 => Answer::status(503).header("retry-after", "3"),
        _ => Answer::ok(),
    })
    .await;
    let record = world.subscribe("a", receiver.url(), json!({"retry": {"schedule": ["1s"], "jitter": 0.0}})).await;
    world.publish().await;
    eventually("a hold", async || {
        let status = world.lanes.status(&record).await?;
        (status.retrying == 1 && status.in_flight == 0).then_some(())
    })
    .await;
    world.clock.step(step);
    receiver.sees(2).await;
    world.lanes.stop(Duration::ZERO).await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn retries_go_on_after_a_step_of_the_clock() {
    let unordered = STEPS.map(|step| retries_go_on(step, json!("none")));
    let strict = STEPS.map(|step| retries_go_on(step, json!("strict")));
    futures_util::future::join_all(unordered.into_iter().chain(strict)).await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn what_a_receiver_asked_to_hold_goes_on_after_a_step_of_the_clock() {
    futures_util::future::join_all(STEPS.map(a_hold_ends)).await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn an_endpoint_is_asked_for_its_consent_again_after_a_step_of_the_clock() {
    for step in [-HOUR, -24 * HOUR, HOUR] {
        let world = World::start().await;
        let receiver = Receiver::with(|_, _| Answer::status(500)).await;
        let record = world.subscribe("a", receiver.url(), json!({"verify": "challenge"})).await;
        let due = eventually("a question that was not answered well", async || {
            let standing = world.lanes.consents().verification(&record);
            standing.last_error.and(standing.next_attempt_at)
        })
        .await;
        world.clock.step(step);
        let moved = eventually("another time for the next question", async || {
            let next = world.lanes.consents().verification(&record).next_attempt_at?;
            (next != due).then_some(next)
        })
        .await;
        assert!((moved.0 - due.0 - step).abs() < 5_000, "{step} moved it from {due} to {moved}");
        assert_eq!(receiver.count(), 1, "nobody is asked at once because of it");
        world.lanes.stop(Duration::ZERO).await;
    }
}
