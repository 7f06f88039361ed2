//! What every ledger does.

use hookcast_core::clock::Timestamp;
use hookcast_core::model::ExceptionState::{Dead, Retry};
use hookcast_core::model::delivery::ExpiredRange;
use hookcast_core::model::subscription::Ordinal;
use hookcast_core::model::{Exception, Seq};
use hookcast_log::storage::{Checkpoint, LedgerChange, LedgerTrim, PageRequest, StorageErrorKind, Store};

use super::make::{append, attempt, change, exception, page, put};

#[allow(clippy::unnecessary_wraps, reason = "as a change takes it")]
fn checkpoint(frontier: u64, state: &[u8]) -> Option<Checkpoint> {
    Some(Checkpoint { frontier: Seq(frontier), state: state.to_vec() })
}

pub(crate) async fn a_new_lease_fences_the_old_one(store: &Store) {
    let old = store.ledger.lease(3).await.unwrap();
    let new = store.ledger.lease(3).await.unwrap();
    assert!(new.epoch > old.epoch);
    let put = vec![exception(3, 9, Dead, 1)];
    let late = LedgerChange { checkpoint: checkpoint(9, b"late"), put, ..change(old) };
    assert_eq!(store.ledger.commit(vec![late]).await.unwrap_err().kind, StorageErrorKind::Fenced);
    assert_eq!(store.ledger.load(3).await.unwrap(), Checkpoint::default());
    assert_eq!(store.ledger.exception(Ordinal(3), Seq(9)).await.unwrap(), None);
    store.ledger.commit(vec![LedgerChange { checkpoint: checkpoint(4, b"new"), ..change(new) }]).await.unwrap();
    assert_eq!(store.ledger.load(3).await.unwrap().frontier, Seq(4));
}

pub(crate) async fn a_fenced_change_leaves_the_others_alone(store: &Store) {
    let old = store.ledger.lease(1).await.unwrap();
    store.ledger.lease(1).await.unwrap();
    let good = store.ledger.lease(2).await.unwrap();
    let both = vec![
        LedgerChange { checkpoint: checkpoint(5, b"a"), ..change(old) },
        LedgerChange { checkpoint: checkpoint(6, b"b"), ..change(good) },
    ];
    assert_eq!(store.ledger.commit(both).await.unwrap_err().kind, StorageErrorKind::Fenced);
    assert_eq!(store.ledger.load(1).await.unwrap().frontier, Seq(0));
    assert_eq!(store.ledger.load(2).await.unwrap().frontier, Seq(6));
}

pub(crate) async fn a_repeated_commit_changes_nothing(store: &Store) {
    let lease = store.ledger.lease(1).await.unwrap();
    let expired = vec![ExpiredRange { ordinal: Ordinal(1), from: Seq(1), to: Seq(4) }];
    let whole = LedgerChange {
        put: vec![exception(1, 5, Retry, 100), exception(1, 6, Dead, 100)],
        clear: vec![(Ordinal(1), Seq(7))],
        failures: vec![(Ordinal(1), attempt(5, 1, 50)), (Ordinal(1), attempt(6, 1, 50))],
        expired: expired.clone(),
        checkpoint: checkpoint(8, b"state"),
        ..change(lease)
    };
    for _ in 0..3 {
        store.ledger.commit(vec![whole.clone()]).await.unwrap();
    }
    store.ledger.commit(vec![whole.clone(), whole.clone()]).await.unwrap();
    let (waiting, dead) = store.ledger.exceptions(1).await.unwrap();
    assert_eq!(waiting, [whole.put[0].exception.clone()]);
    assert_eq!(dead, [(Ordinal(1), 1)]);
    assert_eq!(store.ledger.failures(Ordinal(1), None, 10).await.unwrap(), [attempt(5, 1, 50), attempt(6, 1, 50)]);
    assert_eq!(store.ledger.expired(Ordinal(1), 10).await.unwrap(), expired);
    assert_eq!(store.ledger.load(1).await.unwrap().state, b"state");
}

pub(crate) async fn checkpoints_come_back(store: &Store) {
    assert_eq!(store.ledger.load(7).await.unwrap(), Checkpoint::default());
    let leases = [store.ledger.lease(7).await.unwrap(), store.ledger.lease(63).await.unwrap()];
    for round in 1..=5u8 {
        let changes = leases
            .map(|lease| LedgerChange { checkpoint: checkpoint(u64::from(round) * 10, &vec![round; 12_000]), ..change(lease) });
        store.ledger.commit(changes.to_vec()).await.unwrap();
    }
    for partition in [7, 63] {
        let loaded = store.ledger.load(partition).await.unwrap();
        assert_eq!((loaded.frontier, loaded.state), (Seq(50), vec![5; 12_000]));
    }
    let again = store.ledger.lease(7).await.unwrap();
    assert!(again.epoch > leases[0].epoch);
    assert_eq!(store.ledger.load(7).await.unwrap().frontier, Seq(50));
}

pub(crate) async fn exceptions_are_listed_by_state_and_page(store: &Store) {
    let lease = store.ledger.lease(1).await.unwrap();
    let state_of = |seq: u64| if seq.is_multiple_of(3) { Retry } else { Dead };
    let put = (1..=30).map(|seq| exception(1, seq, state_of(seq), 5)).collect();
    store.ledger.commit(vec![LedgerChange { put, ..change(lease) }]).await.unwrap();
    super::make::put(store, vec![exception(2, 1, Dead, 5), exception(65, 2, Dead, 5)]).await;
    let mut listed = Vec::new();
    let mut after = Seq(0);
    loop {
        let page = store.ledger.list(Ordinal(1), Dead, PageRequest { after, limit: 7 }).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 7);
        after = last.seq;
        listed.extend(page.into_iter().map(|exception| exception.seq.0));
    }
    assert_eq!(listed, (1..=30u64).filter(|seq| !seq.is_multiple_of(3)).collect::<Vec<_>>());
    let waiting = store.ledger.list(Ordinal(1), Retry, PageRequest { after: Seq(6), limit: 2 }).await.unwrap();
    assert_eq!(waiting.iter().map(|e| e.seq.0).collect::<Vec<_>>(), [9, 12]);
    let none = PageRequest { after: Seq(u64::MAX), limit: 5 };
    assert!(store.ledger.list(Ordinal(1), Dead, none).await.unwrap().is_empty());
}

pub(crate) async fn a_start_sees_waiting_retries_and_counts_dead_letters(store: &Store) {
    let mut all = vec![exception(1, 4, Retry, 50), exception(1, 2, Retry, 60), exception(65, 3, Retry, 70)];
    all.extend((10..15).map(|seq| exception(1, seq, Dead, 5)));
    all.extend((20..22).map(|seq| exception(129, seq, Dead, 5)));
    all.push(exception(2, 1, Retry, 5));
    put(store, all).await;
    let (mut waiting, dead) = store.ledger.exceptions(1).await.unwrap();
    waiting.sort_by_key(|e| (e.ordinal, e.seq));
    let expected = [exception(1, 2, Retry, 60), exception(1, 4, Retry, 50), exception(65, 3, Retry, 70)];
    assert_eq!(waiting, expected.map(|kept| kept.exception));
    assert_eq!(dead, [(Ordinal(1), 5), (Ordinal(129), 2)]);
    // A retry that dies changes sides.
    put(store, vec![exception(1, 4, Dead, 99)]).await;
    let (waiting, dead) = store.ledger.exceptions(1).await.unwrap();
    assert_eq!((waiting.len(), dead[0]), (2, (Ordinal(1), 6)));
    assert_eq!(store.ledger.exceptions(9).await.unwrap(), (vec![], vec![]));
}

pub(crate) async fn put_and_clear_in_one_commit_end_cleared(store: &Store) {
    let lease = store.ledger.lease(1).await.unwrap();
    let both = LedgerChange {
        put: vec![exception(1, 5, Retry, 5), exception(1, 6, Retry, 5)],
        clear: vec![(Ordinal(1), Seq(5))],
        ..change(lease)
    };
    let again = LedgerChange { put: vec![exception(1, 5, Dead, 8)], ..change(lease) };
    store.ledger.commit(vec![both.clone()]).await.unwrap();
    assert_eq!(store.ledger.exception(Ordinal(1), Seq(5)).await.unwrap(), None);
    assert!(store.ledger.exception(Ordinal(1), Seq(6)).await.unwrap().is_some());
    // In order: the later change of the same commit wins.
    store.ledger.commit(vec![both, again.clone()]).await.unwrap();
    assert_eq!(store.ledger.exception(Ordinal(1), Seq(5)).await.unwrap(), Some(again.put[0].exception.clone()));
}

pub(crate) async fn a_mark_changes_letters_that_are_kept_and_brings_none_back(store: &Store) {
    let lease = store.ledger.lease(1).await.unwrap();
    let marked = |seq| Exception { reason: "marked".into(), ..exception(1, seq, Dead, 5).exception };
    let reasons = async || {
        let all = PageRequest { after: Seq(0), limit: 100 };
        let dead = store.ledger.list(Ordinal(1), Dead, all).await.unwrap();
        dead.into_iter().map(|dead| (dead.seq.0, dead.reason == "marked")).collect::<Vec<_>>()
    };
    let put = vec![exception(1, 5, Dead, 5), exception(1, 6, Dead, 5), exception(1, 7, Retry, 5), exception(1, 8, Dead, 5)];
    store.ledger.commit(vec![LedgerChange { put, ..change(lease) }]).await.unwrap();
    // Of another subscription nothing changes; 4 is not kept, 7 is no dead letter.
    super::make::put(store, vec![exception(65, 5, Dead, 5)]).await;
    let lease = store.ledger.lease(1).await.unwrap();
    for _ in 0..2 {
        let marked = [4, 5, 7].map(marked).to_vec();
        store.ledger.commit(vec![LedgerChange { marked, ..change(lease) }]).await.unwrap();
        assert_eq!(reasons().await, [(5, true), (6, false), (8, false)]);
    }
    assert_ne!(store.ledger.exception(Ordinal(1), Seq(7)).await.unwrap().unwrap().reason, "marked");
    assert_ne!(store.ledger.exception(Ordinal(65), Seq(5)).await.unwrap().unwrap().reason, "marked");
    // In one commit the order counts.
    let changes = vec![
        LedgerChange { marked: vec![marked(6), marked(8)], ..change(lease) },
        LedgerChange {
            put: vec![exception(1, 6, Dead, 5), exception(1, 9, Dead, 5)],
            clear: vec![(Ordinal(1), Seq(8))],
            ..change(lease)
        },
        LedgerChange { marked: vec![marked(8), marked(9)], ..change(lease) },
    ];
    store.ledger.commit(changes).await.unwrap();
    assert_eq!(reasons().await, [(5, true), (6, false), (9, true)]);
}

pub(crate) async fn failures_are_listed_newest_last(store: &Store) {
    let lease = store.ledger.lease(1).await.unwrap();
    let of = |seq, n, at| (Ordinal(1), attempt(seq, n, at));
    let bare =
        hookcast_core::model::Attempt { status: None, error: Some("timeout".into()), response: None, ..attempt(9, 1, 300) };
    let failures = vec![of(5, 1, 100), of(6, 1, 90), of(5, 2, 200), (Ordinal(65), attempt(5, 1, 1)), (Ordinal(1), bare.clone())];
    store.ledger.commit(vec![LedgerChange { failures, ..change(lease) }]).await.unwrap();
    let one = store.ledger.failures(Ordinal(1), Some(Seq(5)), 10).await.unwrap();
    assert_eq!(one, [attempt(5, 1, 100), attempt(5, 2, 200)]);
    let all = store.ledger.failures(Ordinal(1), None, 3).await.unwrap();
    assert_eq!(all, [attempt(5, 1, 100), attempt(5, 2, 200), bare]);
    assert!(store.ledger.failures(Ordinal(1), Some(Seq(7)), 3).await.unwrap().is_empty());
}

pub(crate) async fn expired_ranges_that_touch_become_one(store: &Store) {
    let range = |from, to| ExpiredRange { ordinal: Ordinal(1), from: Seq(from), to: Seq(to) };
    let mut lease = store.ledger.lease(1).await.unwrap();
    for expired in [vec![range(1, 4)], vec![range(10, 12), range(20, 22)], vec![range(5, 6)], vec![range(11, 14)]] {
        store.ledger.commit(vec![LedgerChange { expired, ..change(lease) }]).await.unwrap();
    }
    assert_eq!(store.ledger.expired(Ordinal(1), 10).await.unwrap(), [range(1, 6), range(10, 14), range(20, 22)]);
    assert_eq!(store.ledger.expired(Ordinal(1), 1).await.unwrap(), [range(1, 6)]);
    lease = store.ledger.lease(1).await.unwrap();
    let all = vec![range(6, 21)];
    store.ledger.commit(vec![LedgerChange { expired: all, ..change(lease) }]).await.unwrap();
    assert_eq!(store.ledger.expired(Ordinal(1), 10).await.unwrap(), [range(1, 22)]);
    assert!(store.ledger.expired(Ordinal(2), 10).await.unwrap().is_empty());
}

pub(crate) async fn each_of_thousands_of_ranges_is_found(store: &Store) {
    let range = |from: u64| ExpiredRange { ordinal: Ordinal(1), from: Seq(from), to: Seq(from + 1) };
    let lease = store.ledger.lease(1).await.unwrap();
    let (expired, skipped) = ((1..=2500).map(|n| range(n * 10)).collect(), (1..=2500).map(|n| range(n * 10 + 5)).collect());
    store.ledger.commit(vec![LedgerChange { expired, skipped, ..change(lease) }]).await.unwrap();
    for n in [1, 2, 1000, 1001, 2499, 2500] {
        for (offset, is_expired, is_skipped) in
            [(0, true, false), (1, true, false), (2, false, false), (5, false, true), (7, false, false)]
        {
            let marks = store.ledger.marks(Ordinal(1), Seq(n * 10 + offset)).await.unwrap();
            assert_eq!((marks.is_expired, marks.is_skipped), (is_expired, is_skipped), "{n} {offset}");
        }
    }
    assert_eq!(store.ledger.marks(Ordinal(2), Seq(10)).await.unwrap(), hookcast_log::storage::Marks::default());
    assert_eq!(store.ledger.marks(Ordinal(1), Seq(9)).await.unwrap(), hookcast_log::storage::Marks::default());
}

async fn trim(store: &Store, dead_before: i64, attempts_before: i64, rows_max: u32) -> Vec<(Ordinal, Seq)> {
    let (dead_before, attempts_before) = (Timestamp(dead_before), Timestamp(attempts_before));
    store.ledger.trim(LedgerTrim { dead_before, attempts_before, attempts_bytes_max: u64::MAX, rows_max }).await.unwrap().dead
}

pub(crate) async fn old_dead_letters_and_failures_are_forgotten_in_bounds(store: &Store) {
    append(store, vec![page(1, 20, 1), page(21, 1, 1)]).await;
    put(store, (1..=10).map(|seq| exception(1, seq, Dead, i64::try_from(seq).unwrap())).collect()).await;
    put(store, vec![exception(1, 11, Retry, 0)]).await;
    store.log.trim(Timestamp(2), u64::MAX, 10).await.unwrap();
    let lease = store.ledger.lease(1).await.unwrap();
    let failures = (1..=10).map(|n| (Ordinal(1), attempt(1, n, i64::from(n)))).collect();
    store.ledger.commit(vec![LedgerChange { failures, ..change(lease) }]).await.unwrap();
    let keys = |seqs: &[u64]| seqs.iter().map(|seq| (Ordinal(1), Seq(*seq))).collect::<Vec<_>>();
    assert_eq!(trim(store, 8, 5, 3).await, keys(&[1, 2, 3]));
    let left = store.ledger.failures(Ordinal(1), None, 100).await.unwrap();
    assert_eq!(left.iter().map(|a| a.n).collect::<Vec<_>>(), [4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(trim(store, 8, 5, 100).await, keys(&[4, 5, 6, 7]));
    assert_eq!(trim(store, 8, 5, 100).await, []);
    assert_eq!(store.ledger.failures(Ordinal(1), None, 100).await.unwrap().len(), 6);
    // Their events went with them, those of the others stayed.
    let all: Vec<Seq> = (1..=20).map(Seq).collect();
    assert_eq!(super::make::seqs(&store.log.get(&all).await.unwrap()), [8, 9, 10, 11]);
}

pub(crate) async fn forgetting_a_subscription_takes_all_of_it(store: &Store) {
    append(store, vec![page(1, 20, 1), page(21, 1, 1)]).await;
    let lease = store.ledger.lease(1).await.unwrap();
    let of = |ordinal: u64| LedgerChange {
        put: (1..=9).map(|seq| exception(ordinal, seq, if seq == 3 { Retry } else { Dead }, 5)).collect(),
        failures: vec![(Ordinal(ordinal), attempt(1, 1, 1))],
        expired: vec![ExpiredRange { ordinal: Ordinal(ordinal), from: Seq(1), to: Seq(2) }],
        ..change(lease)
    };
    store.ledger.commit(vec![of(1), of(65)]).await.unwrap();
    put(store, vec![exception(1, 12, Dead, 5)]).await;
    store.log.trim(Timestamp(2), u64::MAX, 10).await.unwrap();
    for _ in 0..2 {
        store.ledger.forget(Ordinal(1)).await.unwrap();
        assert_eq!(store.ledger.exception(Ordinal(1), Seq(3)).await.unwrap(), None);
        assert!(store.ledger.failures(Ordinal(1), None, 9).await.unwrap().is_empty());
        assert!(store.ledger.expired(Ordinal(1), 9).await.unwrap().is_empty());
    }
    let (waiting, dead) = store.ledger.exceptions(1).await.unwrap();
    assert_eq!((waiting.len(), dead), (1, vec![(Ordinal(65), 8)]));
    assert_eq!(store.ledger.failures(Ordinal(65), None, 9).await.unwrap().len(), 1);
    assert_eq!(store.ledger.expired(Ordinal(65), 9).await.unwrap().len(), 1);
    assert_eq!(store.log.get(&[Seq(9), Seq(12)]).await.unwrap().len(), 1, "the event only the forgotten one needed is gone");
}

pub(crate) async fn thousands_of_exceptions_are_counted_right(store: &Store) {
    append(store, (0..50).map(|n| page(1 + n * 64, 64, 1)).collect()).await;
    let lease = store.ledger.lease(1).await.unwrap();
    let put = (1..=3000).map(|seq| exception(1, seq, Dead, 5)).collect();
    let others = (1..=3000).step_by(3).map(|seq| exception(65, seq, Retry, 5)).collect();
    let changes = vec![LedgerChange { put, ..change(lease) }, LedgerChange { put: others, ..change(lease) }];
    store.ledger.commit(changes).await.unwrap();
    store.log.trim(Timestamp(2), u64::MAX, 1000).await.unwrap();
    let all: Vec<Seq> = (1..=3100).map(Seq).collect();
    assert_eq!(store.log.get(&all).await.unwrap().len(), 3000);
    let (waiting, dead) = store.ledger.exceptions(1).await.unwrap();
    assert_eq!((waiting.len(), dead), (1000, vec![(Ordinal(1), 3000)]));
    assert_eq!(trim(store, 6, 6, 2500).await.len(), 2500);
    assert_eq!(store.ledger.exceptions(1).await.unwrap().1, [(Ordinal(1), 500)]);
    store.ledger.forget(Ordinal(1)).await.unwrap();
    assert_eq!(store.log.get(&all).await.unwrap().len(), 1000);
    store.ledger.forget(Ordinal(65)).await.unwrap();
    assert!(store.log.get(&all).await.unwrap().is_empty());
}
