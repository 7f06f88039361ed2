//! What intake and lanes make of a storage that refuses, or does not know, at one certain write.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hookcast_core::clock::{Clock as _, SystemClock};
use hookcast_core::model::event::DataForm;
use hookcast_core::model::job::{JobKind, JobState, Selection};
use hookcast_core::model::subscription::{Activity, SubscriptionRecord};
use hookcast_core::model::{JobId, NewEvent, ResumeToken, Seq, Topic};
use hookcast_delivery::Lanes;
use hookcast_delivery::consent::ask::Identity;
use hookcast_delivery::lane::LaneContext;
use hookcast_delivery::limits::{LimitBook, LimitSettings};
use hookcast_delivery::recovery::{Recovering, Recovery};
use hookcast_delivery::renderings::Renderings;
use hookcast_log::follow::Follow;
use hookcast_log::ingest::{DedupeSettings, FromSource, Ingest, IngestError, Offer, Placed};
use hookcast_log::storage::{PageRequest, StorageErrorKind, Store};
use hookcast_log::tail::{Tail, TailSettings};
use hookcast_net::dial::Gate;
use hookcast_net::tls::Tls;
use hookcast_net::{EgressRules, ResolverChoice};
use hookcast_registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::storage::{make, open};
use crate::support::faults::{FaultyLedger, FaultyLog, Point, Script};
use crate::support::{Answer, Receiver, eventually, for_a_while};

mod answers;
mod endings;
pub(crate) mod letters;
mod lookups;
mod retention;

fn event(id: &str) -> NewEvent {
    NewEvent {
        topic: Topic::parse("t").unwrap(),
        id: id.to_owned(),
        own_id: true,
        source: "/publish".into(),
        kind: "message".into(),
        subject: None,
        time: None,
        arrived_at: SystemClock.now(),
        content_type: "text/plain".into(),
        data_schema: None,
        extensions: Vec::new(),
        hops: 0,
        form: DataForm::Text,
        data: bytes::Bytes::from(id.to_owned()),
    }
}

async fn intake() -> (Store, Ingest, Script) {
    let store = open("memory", Path::new("unused")).await;
    let script = Script::default();
    let log = Arc::new(FaultyLog { inner: store.log.clone(), script: script.clone() });
    let tail = Arc::new(Tail::new(TailSettings::default(), Seq(1), Seq::ZERO));
    let dedupe = DedupeSettings { max_age: Duration::from_hours(1), max_ids: 10_000 };
    let (ingest, _) =
        Ingest::start(log, tail, Arc::new(SystemClock), dedupe, &hookcast_supervise::Supervisor::default()).await.unwrap();
    (store, ingest, script)
}

/// A store with so many events.
pub(crate) async fn holding(events: u64) -> Store {
    let store = open("memory", Path::new("unused")).await;
    make::append(&store, vec![make::page(1, events, 1)]).await;
    store
}

fn new(seq: u64) -> Vec<Placed> {
    vec![Placed::new(Seq(seq))]
}

#[tokio::test]
async fn intake_tells_a_refusal_from_an_outcome_that_nobody_knows_and_takes_the_repeat_once() {
    let (store, ingest, script) = intake().await;
    script.then(&[Some(StorageErrorKind::Unknown), Some(StorageErrorKind::Unavailable), Some(StorageErrorKind::Full)]);
    assert_eq!(ingest.publish(vec![event("a")]).await, Err(IngestError::Unknown));
    assert_eq!(ingest.publish(vec![event("a")]).await, Err(IngestError::Unavailable));
    assert_eq!(ingest.publish(vec![event("a")]).await, Err(IngestError::Full(None)));
    assert_eq!(ingest.publish(vec![event("a")]).await, Ok(new(1)));
    assert_eq!(ingest.publish(vec![event("a")]).await, Ok(vec![Placed::repeat(Seq(1))]));
    assert_eq!(make::positions(&store).await, [1]);
}

#[tokio::test]
async fn a_source_hands_the_same_events_over_until_they_are_stored_once() {
    let (store, ingest, script) = intake().await;
    store.catalog.put_source(make::source("up"), 0).await.unwrap();
    script.then(&[Some(StorageErrorKind::Unknown)]);
    let from = FromSource { resume: Some(make::position("up", "7")), ..FromSource::default() };
    assert_eq!(ingest.publish_from_source(Arc::new(Offer::of(&[event("a")])), from).await, Ok(new(1)));
    assert!(script.is_played());
    assert_eq!(make::positions(&store).await, [1]);
    assert_eq!(store.catalog.sources().await.unwrap()[0].resume_token, ResumeToken::parse("7"));
}

/// What lanes over this store work with, whose commits follow the script.
pub(crate) async fn context(store: &Store, script: &Script) -> LaneContext {
    let bounds = store.log.bounds().await.unwrap();
    let tail = Arc::new(Tail::new(TailSettings::default(), bounds.first, bounds.head));
    LaneContext {
        supervisor: hookcast_supervise::Supervisor::default(),
        follow: Follow::new(store.log.clone(), tail),
        ledger: Arc::new(FaultyLedger { inner: store.ledger.clone(), script: script.clone() }),
        registry: Registry::open(store.catalog.clone()).await.unwrap(),
        clock: Arc::new(SystemClock),
        tls: Tls::new(&[]).unwrap(),
        remembers_successes: false,
        renderings: Arc::new(Renderings::open(1, None, CancellationToken::new())),
        limits: Arc::new(LimitBook::new(&LimitSettings::default())),
        identity: Identity { origin: "localhost".into(), public_url: None },
        notices: tokio::sync::mpsc::channel(8).0,
        cancel: CancellationToken::new(),
    }
}

/// One lane.
pub(crate) async fn start(context: LaneContext) -> Lanes {
    let rules = EgressRules::new(vec!["127.0.0.0/8".parse().unwrap()], true, ResolverChoice::System, Vec::new());
    Lanes::start(1, context, &Gate::open(rules).unwrap()).await.unwrap()
}

/// A lane over this store that delivers one subscription.
async fn lanes(store: &Store, script: &Script) -> (Lanes, Arc<SubscriptionRecord>) {
    let context = context(store, script).await;
    let record = context.registry.get("s").unwrap();
    (start(context).await, record)
}

/// A store of nine events and a paused subscription behind them, and the lane over it.
async fn paused_behind_nine() -> (Store, Script, Lanes, Arc<SubscriptionRecord>) {
    let store = holding(9).await;
    store.catalog.put_subscription(paused_at("s", 9), 0).await.unwrap();
    let script = Script::default();
    let (lanes, record) = lanes(&store, &script).await;
    (store, script, lanes, record)
}

/// A subscription that is paused, behind this position.
fn paused_at(id: &str, position: u64) -> SubscriptionRecord {
    SubscriptionRecord { activity: Activity::Paused, starts_after: Seq(position), ..make::subscription(id) }
}

/// A subscription is removed while storage takes what a change of it begins with.
#[actix_rt::test(system = "crate::support::System")]
async fn what_is_changed_of_a_subscription_that_is_removed_meanwhile_is_said_to_be_gone() {
    let store = holding(9).await;
    let script = Script::default();
    let context = context(&store, &script).await;
    let registry = context.registry.clone();
    let lanes = start(context).await;
    for (number, what) in ["seek", "skip", "redrive", "cancel"].into_iter().enumerate() {
        let record = registry.put(paused_at(what, 9), 0).await.unwrap();
        let is_there = async || lanes.status(&record).await.is_some();
        assert!(is_there().await, "{what}");
        let held = script.hold(Point::Proof);
        let changed = async {
            match number {
                0 => !lanes.seek(&record, Seq(4)).await.unwrap(),
                1 => !lanes.skip(&record, Seq(9)).await.unwrap(),
                2 => matches!(lanes.recover(&record, letters::redrive(4)).await.unwrap(), Recovering::Gone),
                _ => lanes.cancel(&record, JobId(1)).await.unwrap().is_none(),
            }
        };
        let removed = async {
            eventually("the change held", async || held.has_come().then_some(())).await;
            registry.delete(&record).await.unwrap();
            eventually("nobody there", async || (!is_there().await).then_some(())).await;
            held.let_go();
        };
        assert!(tokio::join!(changed, removed).0, "{what}");
    }
    lanes.stop(Duration::from_secs(5)).await;
}

/// A subscription is removed while somebody asks what became of an event that was skipped, or which are not delivered.
#[actix_rt::test(system = "crate::support::System")]
async fn nothing_is_told_of_a_subscription_that_is_removed_meanwhile() {
    let page = PageRequest { after: Seq::ZERO, limit: 9 };
    for (what, point) in [("delivery", Point::Marks), ("undelivered", Point::Listed), ("dead letters", Point::Listed)] {
        let store = holding(9).await;
        store.catalog.put_subscription(paused_at("s", 0), 0).await.unwrap();
        let script = Script::default();
        let context = context(&store, &script).await;
        let (registry, record) = (context.registry.clone(), context.registry.get("s").unwrap());
        let lanes = start(context).await;
        assert!(lanes.skip(&record, Seq(5)).await.unwrap());
        let is_told = async || match what {
            "delivery" => lanes.delivery(&record, Seq(3)).await.unwrap().is_some(),
            "undelivered" => lanes.undelivered(&record, page).await.unwrap().is_some(),
            _ => lanes.dead_letters(&record, page).await.unwrap().is_some(),
        };
        assert!(is_told().await, "{what}");
        let held = script.hold(point);
        let removed = async {
            eventually("the question held", async || held.has_come().then_some(())).await;
            registry.delete(&record).await.unwrap();
            let is_skipped = async || store.ledger.marks(record.ordinal, Seq(3)).await.unwrap().is_skipped;
            eventually("its ranges gone", async || (!is_skipped().await).then_some(())).await;
            held.let_go();
        };
        assert!(!tokio::join!(is_told(), removed).0, "{what}");
        lanes.stop(Duration::from_secs(5)).await;
    }
}

/// A save of a dead letter is refused after its subscription was removed.
#[actix_rt::test(system = "crate::support::System")]
async fn a_refused_save_brings_nothing_of_a_removed_subscription_back() {
    let store = holding(1).await;
    let receiver = Receiver::with(|_, _| Answer::status(400)).await;
    store.catalog.put_subscription(letters::dying("s", &receiver), 0).await.unwrap();
    let script = Script::default();
    let context = context(&store, &script).await;
    let (registry, record) = (context.registry.clone(), context.registry.get("s").unwrap());
    let held = script.hold(Point::Exceptions);
    let lanes = start(context).await;
    eventually("the save held", async || held.has_come().then_some(())).await;
    registry.delete(&record).await.unwrap();
    eventually("nobody there", async || lanes.status(&record).await.is_none().then_some(())).await;
    script.then(&[Some(StorageErrorKind::Unavailable)]);
    held.let_go();
    eventually("the refusal", async || script.is_played().then_some(())).await;
    lanes.stop(Duration::from_secs(5)).await;
    assert_eq!(letters::listed(&store, &record).await, [0; 0]);
    assert!(store.ledger.failures(record.ordinal, None, 10).await.unwrap().is_empty());
}

/// A job is cancelled while storage refuses to store that, and nothing else happens behind it.
#[actix_rt::test(system = "crate::support::System")]
async fn a_cancel_that_is_not_stored_at_once_is_stored_later() {
    let (store, script, lanes, record) = paused_behind_nine().await;
    let replay = Recovery { kind: JobKind::Replay, selection: Selection::All, from: Seq(1), to: Seq(9) };
    let Recovering::Job(job) = lanes.recover(&record, replay).await.unwrap() else { panic!("it runs") };
    // Whoever still saves what the job began with would hide that nobody is woken.
    for_a_while(Duration::from_millis(500)).await;
    let (proofs, saving) = (script.proofs(), script.hold(Point::Save));
    let meanwhile = async {
        eventually("the proof that storage writes", async || (script.proofs() > proofs).then_some(())).await;
        eventually("the save held", async || saving.has_come().then_some(())).await;
        // Two: the first may be of such a save.
        script.then(&[Some(StorageErrorKind::Unavailable); 2]);
        saving.let_go();
    };
    let (refused, ()) = tokio::join!(lanes.cancel(&record, job.id), meanwhile);
    assert_eq!(refused.unwrap_err().kind, StorageErrorKind::Unknown);
    eventually("the end of the job stored", async || {
        let jobs = store.ledger.jobs(record.ordinal).await.unwrap();
        (jobs.len() == 1 && jobs[0].state == JobState::Cancelled).then_some(())
    })
    .await;
    lanes.stop(Duration::from_secs(5)).await;
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_seek_is_refused_before_it_is_in_force_or_its_outcome_is_unknown_and_it_stands() {
    let (store, script, lanes, record) = paused_behind_nine().await;
    let cursor = async || lanes.status(&record).await.unwrap().cursor;
    for (refused, seen) in [
        (StorageErrorKind::Unavailable, StorageErrorKind::Unavailable),
        (StorageErrorKind::Full, StorageErrorKind::Full),
        // What was not known to be stored was the progress before.
        (StorageErrorKind::Unknown, StorageErrorKind::Unavailable),
    ] {
        script.then(&[Some(refused)]);
        assert_eq!(lanes.seek(&record, Seq(3)).await.unwrap_err().kind, seen);
        assert!(script.is_played());
        assert_eq!(cursor().await, Seq(9));
    }
    for (refused, position) in [(StorageErrorKind::Unavailable, 4), (StorageErrorKind::Unknown, 5)] {
        script.then(&[None, Some(refused)]);
        assert_eq!(lanes.seek(&record, Seq(position)).await.unwrap_err().kind, StorageErrorKind::Unknown);
        assert_eq!(cursor().await, Seq(position), "it is in force");
    }
    lanes.stop(Duration::from_secs(5)).await;
    let (lanes, record) = self::lanes(&store, &script).await;
    assert_eq!(lanes.status(&record).await.unwrap().cursor, Seq(5), "and it was stored as soon as that worked");
}
