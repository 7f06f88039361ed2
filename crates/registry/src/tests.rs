//! Behaviour of the registry over a catalog in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;

use super::*;
use hookcast_core::model::source::SourceGap;
use hookcast_core::model::subscription::{
    DisabledReason, OnDead, OnFull, Ordering, PayloadForm, RetryPolicy, Revision, Signature, SubscriptionSpec, Verify,
};
use hookcast_log::storage::{StorageError, StorageErrorKind};

/// A catalog in memory with a switch for failing.
#[derive(Default)]
struct TestCatalog {
    records: Mutex<BTreeMap<String, SubscriptionRecord>>,
    ordinals: Mutex<u64>,
    fails: Mutex<bool>,
}

#[async_trait]
impl Catalog for TestCatalog {
    async fn subscriptions(&self) -> Result<Vec<SubscriptionRecord>> {
        Ok(self.records.lock().unwrap().values().cloned().collect())
    }

    async fn put_subscription(&self, mut record: SubscriptionRecord, expected: u64) -> Result<SubscriptionRecord> {
        tokio::task::yield_now().await;
        if *self.fails.lock().unwrap() {
            return Err(StorageError::new(StorageErrorKind::Unavailable, "switched off"));
        }
        let mut records = self.records.lock().unwrap();
        let stored = records.get(record.spec.id.as_str());
        let is_other = expected > 0 && stored.is_some_and(|stored| stored.ordinal != record.ordinal);
        if stored.map_or(0, |stored| stored.revision) != expected || is_other {
            return Err(StorageError::new(StorageErrorKind::Conflict, "another revision"));
        }
        record.ordinal = stored.map_or_else(
            || {
                *self.ordinals.lock().unwrap() += 1;
                Ordinal(*self.ordinals.lock().unwrap())
            },
            |stored| stored.ordinal,
        );
        record.revision = expected + 1;
        records.insert(record.spec.id.as_str().to_owned(), record.clone());
        Ok(record)
    }

    async fn delete_subscription(&self, id: &SubscriptionId) -> Result<bool> {
        tokio::task::yield_now().await;
        Ok(self.records.lock().unwrap().remove(id.as_str()).is_some())
    }

    async fn sources(&self) -> Result<Vec<SourceRecord>> {
        Ok(Vec::new())
    }

    async fn put_source(&self, mut record: SourceRecord, expected: u64) -> Result<SourceRecord> {
        record.revision = expected + 1;
        Ok(record)
    }

    async fn delete_source(&self, _name: &str) -> Result<bool> {
        Ok(true)
    }

    async fn gaps(&self, _source: &str, _limit: u32) -> Result<Vec<SourceGap>> {
        Ok(Vec::new())
    }
}

fn record(id: &str) -> SubscriptionRecord {
    let topics: hookcast_core::model::PatternList = "a.*".parse().unwrap();
    SubscriptionRecord {
        spec: SubscriptionSpec {
            id: SubscriptionId::parse(id).unwrap(),
            url: "https://example.com/hook".to_owned(),
            topics: topics.clone(),
            types: Vec::new(),
            filter: None,
            signatures: vec![Signature::none()],
            template: None,
            batch: None,
            ordering: Ordering::None,
            on_dead: OnDead::Skip,
            verify: Verify::None,
            auth: None,
            ca_pem: None,
            limit_group: None,
            disable_after: Duration::from_hours(120),
            headers: BTreeMap::new(),
            payload: PayloadForm::Binary,
            rate_limit: None,
            max_in_flight: 1,
            max_retrying: 1,
            on_full: OnFull::Wait,
            retry: RetryPolicy { max_attempts: 1, schedule: vec![Duration::from_secs(5)], jitter: 0.2 },
            timeout: Duration::from_secs(15),
            description: String::new(),
            metadata: BTreeMap::new(),
        },
        ordinal: Ordinal(0),
        revision: 0,
        activity: Activity::Active,
        starts_after: hookcast_core::model::Seq::ZERO,
        consent: None,
        websub: None,
        revisions: vec![Revision {
            from_seq: hookcast_core::model::Seq(1),
            topics,
            types: Vec::new(),
            filter: None,
            is_change: false,
        }],
        declared: false,
        made_by: None,
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
    }
}

#[tokio::test]
async fn listeners_hear_every_change_in_the_order_it_became_visible() {
    let registry = Registry::open(Arc::new(TestCatalog::default())).await.unwrap();
    registry.put(record("a"), 0).await.unwrap();
    let (snapshot, mut changes, _) = registry.listen();
    assert_eq!(snapshot.len(), 1);
    // More than one turn stores, and they come all at once.
    let writers = (0..600).map(|n| {
        let registry = registry.clone();
        tokio::spawn(async move { registry.put(record(&format!("b{n}")), 0).await.unwrap().ordinal })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    registry.delete(&registry.get("a").unwrap()).await.unwrap();
    let mut last = Ordinal(1);
    for _ in 0..600 {
        let Some(RegistryChange::Put { record, created: true }) = changes.recv().await else { panic!("not a creation") };
        assert!(record.ordinal > last);
        last = record.ordinal;
    }
    let Some(RegistryChange::Removed { ordinal: Ordinal(1), id }) = changes.recv().await else { panic!("not a removal") };
    assert_eq!(id.as_str(), "a");
    assert_eq!(registry.len(), 600);
}

#[tokio::test]
async fn a_change_that_is_not_durable_is_neither_visible_nor_announced() {
    let catalog = Arc::new(TestCatalog::default());
    let registry = Registry::open(catalog.clone()).await.unwrap();
    let (_, mut changes, _) = registry.listen();
    *catalog.fails.lock().unwrap() = true;
    assert!(registry.put(record("a"), 0).await.is_err());
    assert!(registry.get("a").is_none());
    assert!(changes.try_recv().is_err());
}

#[tokio::test]
async fn who_waits_together_is_judged_one_by_one() {
    let registry = Registry::open(Arc::new(TestCatalog::default())).await.unwrap();
    let puts = ["a", "a", "b"].map(|id| registry.put(record(id), 0));
    let stored: Vec<bool> = futures_util::future::join_all(puts).await.iter().map(std::result::Result::is_ok).collect();
    assert_eq!(stored, [true, false, true]);
}

#[tokio::test]
async fn a_stale_revision_conflicts_and_activity_does_not() {
    let registry = Registry::open(Arc::new(TestCatalog::default())).await.unwrap();
    let first = registry.put(record("a"), 0).await.unwrap();
    let again = SubscriptionRecord::clone(&first);
    registry.put(again.clone(), first.revision).await.unwrap();
    let error = registry.put(again, first.revision).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Conflict);
    let gone = Activity::Disabled(DisabledReason::Gone);
    assert!(registry.disable(&first, DisabledReason::Gone, Timestamp(7)).await.unwrap());
    let disabled = registry.get("a").unwrap();
    assert_eq!((disabled.activity, disabled.revision, disabled.updated_at), (gone, 3, Timestamp(7)));
    // Neither another reason nor a pause replaces the first, nor does the end of a pause.
    assert!(!registry.disable(&first, DisabledReason::Failing, Timestamp(9)).await.unwrap());
    for is_paused in [true, false] {
        assert_eq!(registry.set_paused(&first, is_paused, Timestamp(11)).await.unwrap(), Pausing::Disabled);
    }
    assert_eq!(registry.get("a"), Some(disabled));
}

#[tokio::test]
async fn what_an_endpoint_said_disables_no_other_endpoint() {
    let registry = Registry::open(Arc::new(TestCatalog::default())).await.unwrap();
    let first = registry.put(record("a"), 0).await.unwrap();
    let mut moved = SubscriptionRecord::clone(&first);
    "https://example.com/moved".clone_into(&mut moved.spec.url);
    let moved = registry.put(moved, 1).await.unwrap();
    assert!(!registry.disable(&first, DisabledReason::Gone, Timestamp(7)).await.unwrap());
    assert_eq!(registry.get("a"), Some(moved));
}

/// A pause of one whose group of limits went is done, although it may not run behind it.
#[tokio::test]
async fn what_is_resumed_without_its_group_of_limits_is_disabled_by_that() {
    let registry = Registry::open(Arc::new(TestCatalog::default())).await.unwrap();
    let mut of_group = SubscriptionRecord { activity: Activity::Paused, ..record("a") };
    of_group.spec.limit_group = Some("few".into());
    let paused = registry.put(of_group, 0).await.unwrap();
    let registry = registry.with_limit_groups(BTreeSet::new());
    let resumed = registry.set_paused(&paused, false, Timestamp(7)).await.unwrap();
    assert!(matches!(resumed, Pausing::Done(record) if record.activity == Activity::Disabled(DisabledReason::LimitGroup)));
    assert_eq!(registry.set_paused(&paused, false, Timestamp(7)).await.unwrap(), Pausing::Disabled);
}

#[tokio::test]
async fn what_was_meant_for_a_removed_subscription_changes_no_other_of_its_id() {
    let registry = Registry::open(Arc::new(TestCatalog::default())).await.unwrap();
    let first = registry.put(record("a"), 0).await.unwrap();
    registry.delete(&first).await.unwrap();
    assert_eq!(registry.set_paused(&first, true, Timestamp(7)).await.unwrap(), Pausing::Gone);
    let second = registry.put(record("a"), 0).await.unwrap();
    assert_ne!(second.ordinal, first.ordinal);
    assert!(!registry.disable(&first, DisabledReason::Gone, Timestamp(7)).await.unwrap());
    assert_eq!(registry.set_paused(&first, true, Timestamp(7)).await.unwrap(), Pausing::Gone);
    assert_eq!(registry.delete(&first).await.unwrap_err().kind, StorageErrorKind::Conflict);
    let put = registry.put(SubscriptionRecord::clone(&first), 1).await;
    assert_eq!(put.unwrap_err().kind, StorageErrorKind::Conflict);
    assert_eq!(registry.get("a"), Some(second));
}

#[tokio::test]
async fn what_was_changed_since_it_was_read_is_not_removed() {
    let registry = Registry::open(Arc::new(TestCatalog::default())).await.unwrap();
    let first = registry.put(record("a"), 0).await.unwrap();
    let second = registry.put(SubscriptionRecord::clone(&first), 1).await.unwrap();
    assert_eq!(registry.delete(&first).await.unwrap_err().kind, StorageErrorKind::Conflict);
    assert_eq!(registry.delete(&second).await.unwrap(), Some(second));
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_leave_memory_behind_the_catalog() {
    let catalog = Arc::new(TestCatalog::default());
    let registry = Registry::open(catalog.clone()).await.unwrap();
    let (_, mut changes, _) = registry.listen();
    {
        let put = registry.put(record("a"), 0);
        tokio::pin!(put);
        assert!(futures_util::poll!(&mut put).is_pending());
    }
    assert!(changes.recv().await.is_some());
    assert!(registry.get("a").is_some());
}

#[tokio::test]
async fn lists_go_on_behind_the_last_id() {
    let registry = Registry::open(Arc::new(TestCatalog::default())).await.unwrap();
    for id in ["c", "a", "b"] {
        registry.put(record(id), 0).await.unwrap();
    }
    let ids = |after, limit| registry.list(after, limit).iter().map(|r| r.spec.id.as_str().to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(None, 2), ["a", "b"]);
    assert_eq!(ids(Some("b"), 2), ["c"]);
    assert_eq!(ids(Some("ab"), 9), ["b", "c"]);
}
