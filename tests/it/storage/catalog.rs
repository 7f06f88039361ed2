//! What every catalog does.

use std::path::Path;

use hookcast_core::clock::Timestamp;
use hookcast_core::model::source::{SourceGap, SourceRecord};
use hookcast_core::model::subscription::{Ordinal, SubscriptionRecord};
use hookcast_core::model::{ResumeToken, Seq, SubscriptionId};
use hookcast_log::storage::{Append, StorageErrorKind, Store};
use hookcast_registry::SourceRegistry;

use super::make::{position, source, subscription};
use super::open;

fn id(text: &str) -> SubscriptionId {
    SubscriptionId::parse(text).unwrap()
}

pub(crate) async fn a_subscription_comes_back_as_it_was_put(store: &Store) {
    let b = store.catalog.put_subscription(subscription("b"), 0).await.unwrap();
    let a = store.catalog.put_subscription(subscription("a"), 0).await.unwrap();
    assert_eq!((a.revision, b.revision), (1, 1));
    assert!(a.ordinal > b.ordinal);
    let expected =
        |id: &str, like: &SubscriptionRecord| SubscriptionRecord { ordinal: like.ordinal, revision: 1, ..subscription(id) };
    assert_eq!(store.catalog.subscriptions().await.unwrap(), [expected("a", &a), expected("b", &b)]);
}

pub(crate) async fn a_revision_must_match(store: &Store) {
    let made = store.catalog.put_subscription(subscription("a"), 0).await.unwrap();
    for wrong in [0, 2, u64::MAX] {
        let refused = store.catalog.put_subscription(subscription("a"), wrong).await.unwrap_err();
        assert_eq!(refused.kind, StorageErrorKind::Conflict);
    }
    let refused = store.catalog.put_subscription(subscription("new"), 1).await.unwrap_err();
    assert_eq!(refused.kind, StorageErrorKind::Conflict);
    // One that was made anew counts its revisions from the beginning, and is another one.
    let other = SubscriptionRecord { ordinal: Ordinal(made.ordinal.0 + 1), ..subscription("a") };
    assert_eq!(store.catalog.put_subscription(other, 1).await.unwrap_err().kind, StorageErrorKind::Conflict);
    let mut changed = SubscriptionRecord { ordinal: made.ordinal, ..subscription("a") };
    "changed".clone_into(&mut changed.spec.description);
    let changed = store.catalog.put_subscription(changed, 1).await.unwrap();
    assert_eq!((changed.revision, changed.ordinal), (2, made.ordinal));
    assert_eq!(store.catalog.subscriptions().await.unwrap(), [changed]);
    let source_made = store.catalog.put_source(source("up"), 0).await.unwrap();
    assert_eq!(source_made.revision, 1);
    assert_eq!(store.catalog.put_source(source("up"), 0).await.unwrap_err().kind, StorageErrorKind::Conflict);
    let other = SourceRecord { created_at: Timestamp(source_made.created_at.0 + 1), ..source("up") };
    assert_eq!(store.catalog.put_source(other, 1).await.unwrap_err().kind, StorageErrorKind::Conflict);
    assert_eq!(store.catalog.put_source(source("up"), 1).await.unwrap().revision, 2);
}

pub(crate) async fn ordinals_are_never_given_twice(store: &Store) {
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..5 {
        let record = store.catalog.put_subscription(subscription("a"), 0).await.unwrap();
        assert!(seen.insert(record.ordinal), "round {round}");
        assert!(store.catalog.delete_subscription(&id("a")).await.unwrap());
    }
    let names: Vec<_> = (0..50).map(|n| format!("s{n}")).collect();
    let puts = names.iter().map(|name| store.catalog.put_subscription(subscription(name), 0));
    for record in futures_util::future::join_all(puts).await {
        assert!(seen.insert(record.unwrap().ordinal));
    }
    assert_eq!(seen.len(), 55);
    // Two who make the same id at once: one wins.
    let twice = [0, 1].map(|_| store.catalog.put_subscription(subscription("twin"), 0));
    let won = futures_util::future::join_all(twice).await.into_iter().flatten().count();
    assert_eq!(won, 1);
}

pub(crate) async fn a_source_keeps_its_resume_token(store: &Store) {
    store.catalog.put_source(source("up"), 0).await.unwrap();
    let token = ResumeToken::parse("42").unwrap();
    let resume_tokens = vec![position("up", "42")];
    store.log.append(Append { resume_tokens, ..Append::default() }).await.unwrap();
    let put = SourceRecord { resume_token: ResumeToken::parse("7"), ..source("up") };
    let back = store.catalog.put_source(put, 1).await.unwrap();
    assert_eq!((back.revision, back.resume_token.as_ref()), (2, Some(&token)));
    assert_eq!(store.catalog.sources().await.unwrap(), std::slice::from_ref(&back));
    // Another upstream has a position of its own.
    let other = SourceRecord { ids_after: Seq(9), forgets_position: true, ..back };
    let back = store.catalog.put_source(other, 2).await.unwrap();
    assert_eq!((back.revision, back.resume_token.as_ref(), back.ids_after, back.forgets_position), (3, None, Seq(9), false));
    assert_eq!(store.catalog.sources().await.unwrap(), [back]);
    assert!(store.catalog.delete_source("up").await.unwrap());
    let fresh = store.catalog.put_source(source("up"), 0).await.unwrap();
    assert_eq!((fresh.revision, fresh.resume_token), (1, None));
}

pub(crate) async fn gaps_are_listed_newest_first(store: &Store) {
    let gap = |source: &str, from: i64| SourceGap {
        source: source.to_owned(),
        from: Timestamp(from),
        to: Timestamp(from + 5),
        at_seq: Seq(0),
    };
    store.catalog.put_source(source("a"), 0).await.unwrap();
    for gaps in [vec![gap("a", 1), gap("b", 2)], vec![gap("a", 3)], vec![gap("a", 2)]] {
        store.log.append(Append { gaps, ..Append::default() }).await.unwrap();
    }
    assert_eq!(store.catalog.gaps("a", 2).await.unwrap(), [gap("a", 2), gap("a", 3)]);
    assert_eq!(store.catalog.gaps("b", 9).await.unwrap(), [gap("b", 2)]);
    assert!(store.catalog.gaps("c", 9).await.unwrap().is_empty());
    store.catalog.delete_source("a").await.unwrap();
    assert!(store.catalog.gaps("a", 9).await.unwrap().is_empty());
    assert_eq!(store.catalog.gaps("b", 9).await.unwrap().len(), 1);
}

pub(crate) async fn deleting_twice_says_so(store: &Store) {
    store.catalog.put_subscription(subscription("a"), 0).await.unwrap();
    store.catalog.put_source(source("up"), 0).await.unwrap();
    for expected in [true, false] {
        assert_eq!(store.catalog.delete_subscription(&id("a")).await.unwrap(), expected);
        assert_eq!(store.catalog.delete_source("up").await.unwrap(), expected);
    }
    assert!(store.catalog.subscriptions().await.unwrap().is_empty());
    assert!(store.catalog.sources().await.unwrap().is_empty());
}

/// A source is removed and made anew after somebody read it, and before that is changed or removed by what was read.
#[tokio::test]
async fn what_was_meant_for_a_removed_source_changes_no_other_of_its_name() {
    let sources = SourceRegistry::open(open("memory", Path::new("unused")).await.catalog).await.unwrap();
    let first = sources.put(source("up"), 0).await.unwrap();
    assert_eq!(sources.delete(&first).await.unwrap().as_ref(), Some(&first));
    let made_anew = SourceRecord { created_at: Timestamp(first.created_at.0 + 1), ..source("up") };
    // Also where both are stored together.
    let (second, of_the_first) = tokio::join!(sources.put(made_anew, 0), sources.put(SourceRecord::clone(&first), 1));
    assert_eq!(of_the_first.unwrap_err().kind, StorageErrorKind::Conflict);
    let second = second.unwrap();
    assert_eq!((first.revision, second.revision), (1, 1));
    assert_eq!(sources.delete(&first).await.unwrap_err().kind, StorageErrorKind::Conflict);
    assert_eq!(sources.get("up"), Some(second));
}
