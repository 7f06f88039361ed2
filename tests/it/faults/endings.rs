//! What becomes of a subscription whose endpoint wants no more, in the last moment of a lane.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hookcast_core::model::subscription::{Activity, DisabledReason, SubscriptionRecord};
use hookcast_delivery::lane::LaneContext;
use hookcast_registry::Registry;

use super::letters::dying;
use super::{context, holding, start};
use crate::support::faults::Script;
use crate::support::faults::catalog::FaultyCatalog;
use crate::support::{Answer, Receiver, counted, eventually, in_time};

/// How it stands, and whether it was told, when an endpoint answers 410 to a lane that stops; `refusals` times that is not stored.
async fn ended(refusals: u32, is_left: bool) -> (SubscriptionRecord, Option<String>) {
    let store = holding(1).await;
    let receiver = Receiver::with(|_, _| Answer::status(410).when_released()).await;
    store.catalog.put_subscription(dying("s", &receiver), 0).await.unwrap();
    let catalog = Arc::new(FaultyCatalog { inner: Arc::clone(&store.catalog), refusals: AtomicU32::new(0) });
    let (notices, mut told) = tokio::sync::mpsc::channel(8);
    let registry = Registry::open(Arc::clone(&catalog) as _).await.unwrap();
    let record = registry.get("s").unwrap();
    let context = LaneContext { notices, registry: registry.clone(), ..context(&store, &Script::default()).await };
    let lanes = start(context).await;
    eventually("an open request", async || (receiver.open() == 1).then_some(())).await;
    let meanwhile = async {
        // A lane that stops hears of nothing more.
        lanes.cancelled().cancelled().await;
        if is_left {
            let mut moved = SubscriptionRecord::clone(&record);
            "http://127.0.0.1:9/".clone_into(&mut moved.spec.url);
            registry.put(moved, record.revision).await.unwrap();
        }
        catalog.refusals.store(refusals, Ordering::Relaxed);
        receiver.release(1);
    };
    // Long before its time is over.
    in_time(async { tokio::join!(lanes.stop(Duration::from_hours(1)), meanwhile) }).await;
    let ended = registry.get("s").unwrap();
    (SubscriptionRecord::clone(&ended), told.try_recv().ok().map(|notice| notice.kind.to_string()))
}

#[actix_rt::test(system = "crate::support::System")]
async fn the_end_of_an_endpoint_is_stored_and_told_before_the_lane_ends() {
    for refusals in [0, 1] {
        let (record, told) = ended(refusals, false).await;
        assert_eq!(record.activity, Activity::Disabled(DisabledReason::Gone), "after {refusals} refusals");
        assert_eq!(told.as_deref(), Some("subscription.disabled"));
    }
}

/// A stop does not wait its whole time for what will never be stored.
#[actix_rt::test(system = "crate::support::System")]
async fn the_end_of_an_endpoint_that_is_never_stored_is_not_told() {
    let counted = counted();
    let (record, told) = ended(u32::MAX, false).await;
    assert_eq!((record.activity, told), (Activity::Active, None));
    let counted = counted.render();
    let refusals = counted.lines().find_map(|line| line.strip_prefix("hookcast_disablings_refused_total "));
    assert!(refusals.is_some_and(|count| count != "0"), "{refusals:?} refusals are counted");
}

#[actix_rt::test(system = "crate::support::System")]
async fn the_end_of_an_endpoint_that_was_left_is_not_told() {
    let (record, told) = ended(0, true).await;
    assert_eq!((record.activity, told), (Activity::Active, None));
}
