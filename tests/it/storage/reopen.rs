//! What survives the end of a process, which only the backend on disk can be asked.

use std::path::Path;

use hookcast_core::clock::Timestamp;
use hookcast_core::model::ExceptionState::{Dead, Retry};
use hookcast_core::model::subscription::Ordinal;
use hookcast_core::model::{Seq, SubscriptionId};
use hookcast_log::storage::{Append, Checkpoint, FingerprintChunk, LedgerChange, StorageErrorKind, Store};

use super::make::{append, attempt, change, exception, page, page_of, position, positions, put, seqs, source, subscription};
use super::{open, try_open};
use crate::support::eventually;

/// Puts something into every table.
async fn fill(store: &Store) {
    store.catalog.put_subscription(subscription("a"), 0).await.unwrap();
    store.catalog.put_subscription(subscription("b"), 0).await.unwrap();
    store.catalog.put_source(source("up"), 0).await.unwrap();
    let chunk = FingerprintChunk { first: Seq(1), last: Seq(9), last_at: Timestamp(5), bytes: vec![7; 100] };
    let whole = Append {
        pages: vec![page(1, 10, 10), page(11, 10, 20), page(21, 10, 30)],
        expected_head: Seq(0),
        resume_tokens: vec![position("up", "30")],
        fingerprints: vec![chunk],
        gaps: vec![],
    };
    store.log.append(whole).await.unwrap();
    put(store, vec![exception(1, 5, Retry, 50), exception(1, 15, Dead, 50)]).await;
    let lease = store.ledger.lease(1).await.unwrap();
    let checkpoint = Some(Checkpoint { frontier: Seq(30), state: vec![1, 2, 3] });
    let failures = vec![(Ordinal(1), attempt(5, 1, 40))];
    store.ledger.commit(vec![LedgerChange { failures, checkpoint, ..change(lease) }]).await.unwrap();
    store.log.trim(Timestamp(15), u64::MAX, 10).await.unwrap();
}

async fn assert_filled(store: &Store) {
    let bounds = store.log.bounds().await.unwrap();
    let bytes = (page(11, 10, 20).bytes().len() + page(21, 10, 30).bytes().len()) as u64;
    assert_eq!((bounds.first, bounds.head, bounds.bytes), (Seq(11), Seq(30), bytes));
    assert_eq!(positions(store).await, (11..=30).collect::<Vec<_>>());
    assert_eq!(seqs(&store.log.get(&[Seq(5), Seq(6), Seq(15)]).await.unwrap()), [5, 15]);
    assert_eq!(store.log.before_time(Timestamp(25)).await.unwrap(), Seq(20));
    assert_eq!(store.log.fingerprints().await.unwrap()[0].bytes, vec![7; 100]);
    assert_eq!(store.ledger.load(1).await.unwrap(), Checkpoint { frontier: Seq(30), state: vec![1, 2, 3] });
    let (waiting, dead) = store.ledger.exceptions(1).await.unwrap();
    assert_eq!((waiting, dead), (vec![exception(1, 5, Retry, 50).exception], vec![(Ordinal(1), 1)]));
    assert_eq!(store.ledger.failures(Ordinal(1), None, 9).await.unwrap(), [attempt(5, 1, 40)]);
    let sources = store.catalog.sources().await.unwrap();
    assert_eq!(sources[0].resume_token.as_ref().unwrap().as_str(), "30");
    assert_eq!(store.catalog.subscriptions().await.unwrap().len(), 2);
}

/// What the disk would hold had the process been killed now.
fn copy_as_killed(from: &Path, to: &Path) {
    for suffix in ["", "-wal"] {
        let name = |path: &Path| format!("{}{suffix}", path.display());
        std::fs::copy(name(from), name(to)).unwrap();
    }
}

/// Opens as soon as whoever held the place has let it go.
async fn open_soon(path: &Path) -> Store {
    eventually("a place that was let go", async || match try_open("sqlite", path).await {
        Ok(store) => Some(store),
        Err(error) => {
            assert_eq!(error.kind, StorageErrorKind::InUse);
            None
        }
    })
    .await
}

#[tokio::test]
async fn a_closed_store_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db");
    let store = open("sqlite", &path).await;
    fill(&store).await;
    let id = store.log.log_id().to_owned();
    store.close().await;
    assert!(!dir.path().join("hookcast.db-wal").exists(), "closing copies the whole WAL");
    for _ in 0..2 {
        let store = open("sqlite", &path).await;
        assert_eq!(store.log.log_id(), id);
        assert_filled(&store).await;
        store.close().await;
    }
    let copy = open("sqlite", &dir.path().join("other.db")).await;
    assert_ne!(copy.log.log_id(), id);
}

#[tokio::test]
async fn a_killed_store_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("hookcast.db"), dir.path().join("killed.db"));
    let store = open("sqlite", &path).await;
    fill(&store).await;
    copy_as_killed(&path, &copy);
    assert_filled(&open("sqlite", &copy).await).await;
}

#[tokio::test]
async fn every_answered_append_is_there_after_a_kill_at_any_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db");
    let store = open("sqlite", &path).await;
    for round in 0..12 {
        append(&store, (0..20).map(|n| page_of(1 + round * 20 + n, 1, 10, 9000)).collect()).await;
        let copy = dir.path().join(format!("killed-{round}.db"));
        copy_as_killed(&path, &copy);
        let killed = open("sqlite", &copy).await;
        assert_eq!(positions(&killed).await.len() as u64, (round + 1) * 20);
    }
}

#[tokio::test]
async fn a_dropped_store_lets_its_place_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db");
    let store = open("sqlite", &path).await;
    fill(&store).await;
    drop(store);
    let store = open_soon(&path).await;
    assert_filled(&store).await;
}

#[tokio::test]
async fn what_was_queued_is_done_before_a_store_closes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db");
    let store = open("sqlite", &path).await;
    let appends = (1..=50)
        .map(|seq| store.log.append(Append { pages: vec![page(seq, 1, 1)], expected_head: Seq(seq - 1), ..Append::default() }));
    let (appended, ()) = futures_util::future::join(futures_util::future::join_all(appends), store.close()).await;
    let done = appended.into_iter().flatten().count();
    assert_eq!(done, 50);
    assert_eq!(store.log.append(Append::default()).await.unwrap_err().kind, StorageErrorKind::Unavailable);
    assert_eq!(store.log.read(Seq(0), 1).await.unwrap_err().kind, StorageErrorKind::Unavailable);
    store.close().await;
    let store = open("sqlite", &path).await;
    assert_eq!(positions(&store).await.len(), done);
}

#[tokio::test]
async fn ordinals_leases_and_positions_go_on_rising() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db");
    let (mut ordinal, mut epoch, mut head) = (Ordinal(0), 0, Seq(0));
    for round in 0..4_u64 {
        let store = open("sqlite", &path).await;
        let record = store.catalog.put_subscription(subscription("a"), 0).await.unwrap();
        assert!(record.ordinal > ordinal);
        ordinal = record.ordinal;
        store.catalog.delete_subscription(&SubscriptionId::parse("a").unwrap()).await.unwrap();
        let lease = store.ledger.lease(5).await.unwrap();
        assert!(lease.epoch > epoch);
        epoch = lease.epoch;
        assert_eq!(store.log.bounds().await.unwrap().head, head);
        append(&store, vec![page(head.0 + 1, 2, 1), page(head.0 + 3, 2, 1)]).await;
        head = Seq((round + 1) * 4);
        store.log.trim(Timestamp(i64::MAX), 0, 100).await.unwrap();
        store.close().await;
    }
}

#[tokio::test]
async fn a_lease_from_before_a_restart_is_fenced_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db");
    let store = open("sqlite", &path).await;
    let old = store.ledger.lease(1).await.unwrap();
    store.close().await;
    let store = open("sqlite", &path).await;
    store.ledger.lease(1).await.unwrap();
    let late = LedgerChange { checkpoint: Some(Checkpoint::default()), ..change(old) };
    assert_eq!(store.ledger.commit(vec![late]).await.unwrap_err().kind, StorageErrorKind::Fenced);
}

#[tokio::test]
async fn the_wal_stays_small_under_a_long_burst() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db");
    let store = open("sqlite", &path).await;
    let mut largest = 0;
    for n in 0..300 {
        append(&store, (0..4).map(|k| page_of(1 + n * 4 + k, 1, 10, 30_000)).collect()).await;
        largest = largest.max(std::fs::metadata(dir.path().join("hookcast.db-wal")).unwrap().len());
    }
    // 36 MB went through it.
    assert!(largest < 10_000_000, "{largest}");
    store.close().await;
    assert!(std::fs::metadata(&path).unwrap().len() > 36_000_000);
}

#[tokio::test]
async fn dropped_pages_make_room_for_new_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db");
    let store = open("sqlite", &path).await;
    for n in 0..200 {
        append(&store, (0..4).map(|k| page_of(1 + n * 4 + k, 1, 10, 20_000)).collect()).await;
        store.log.trim(Timestamp(0), 400_000, 100).await.unwrap();
    }
    store.close().await;
    let size = std::fs::metadata(&path).unwrap().len();
    assert!(size < 2_000_000, "16 MB went through a log of 400 KB, the file has {size}");
}
