//! Retention over storage that drops letters and does not say so.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hookcast_core::clock::SystemClock;
use hookcast_core::model::Seq;
use hookcast_log::retention::{Buried, Retention, RetentionSettings};
use hookcast_log::storage::Store;
use hookcast_log::tail::{Tail, TailSettings};

use crate::storage::open;
use crate::support::faults::{FaultyLedger, Script};

#[tokio::test]
async fn letters_that_went_without_a_word_are_told_as_unknown() {
    let store = open("memory", Path::new("unused")).await;
    let script = Script::default();
    let ledger = Arc::new(FaultyLedger { inner: Arc::clone(&store.ledger), script: script.clone() });
    let (log, catalog, administration) = (Arc::clone(&store.log), Arc::clone(&store.catalog), Arc::clone(&store.administration));
    let faulty = Store::new(log, ledger, catalog, administration, || Box::pin(async {}));
    let day = Duration::from_hours(24);
    let settings = RetentionSettings {
        max_age: day,
        max_bytes: 1 << 30,
        dead_letters_max_age: day,
        attempts_max_age: day,
        attempts_max_bytes: 1 << 30,
    };
    let tail = Arc::new(Tail::new(TailSettings::default(), Seq(1), Seq::ZERO));
    let retention = Retention::new(faulty, tail, Arc::new(SystemClock), settings, Box::new(|| Seq(1)));
    let told = RefCell::new(Vec::new());
    let hear = async |buried: Buried| told.borrow_mut().push(buried);
    retention.turn(&hear).await.unwrap();
    script.lose_trims(1);
    retention.turn(&hear).await.unwrap_err();
    assert!(matches!(told.borrow()[..], [Buried::Unknown]), "at once, for storage may never answer again: {told:?}");
    for _ in 0..3 {
        retention.turn(&hear).await.unwrap();
    }
    store.close().await;
    let told = told.into_inner();
    assert!(matches!(told[..], [Buried::Unknown]), "once: {told:?}");
}
