//! What every ledger does with the history of attempts, with jobs and with what was skipped.

use hookcast_core::clock::Timestamp;
use hookcast_core::model::ExceptionState::{Dead, Retry};
use hookcast_core::model::delivery::ExpiredRange;
use hookcast_core::model::job::{JobKind, JobState, Selection};
use hookcast_core::model::subscription::Ordinal;
use hookcast_core::model::{HistoryPage, JobId, RecoveryJob, Seq, Success};
use hookcast_log::storage::{HistoryQuery, JOBS_ENDED_MAX, LedgerChange, LedgerTrim, Store};

use super::make::{attempt, change, exception, put};

const ALL: HistoryQuery = HistoryQuery {
    partition: 1,
    seqs: (Seq::ZERO, Seq(u64::MAX)),
    from: Timestamp(0),
    to: Timestamp(i64::MAX),
    before: None,
    limit: 100,
};

/// A page of these successes: ordinal, position, time.
fn page(id: u64, successes: &[(u64, u64, i64)]) -> HistoryPage {
    let success = |&(ordinal, seq, at): &(u64, u64, i64)| Success {
        ordinal: Ordinal(ordinal),
        seq: Seq(seq),
        at: Timestamp(at),
        n: 1,
        latency_ms: 4,
        status: 200,
    };
    HistoryPage::encode(id, &successes.iter().map(success).collect::<Vec<_>>()).unwrap()
}

async fn write(store: &Store, history: Vec<HistoryPage>) {
    let lease = store.ledger.lease(1).await.unwrap();
    store.ledger.commit(vec![LedgerChange { history, ..change(lease) }]).await.unwrap();
}

async fn ids(store: &Store, query: HistoryQuery) -> Vec<u64> {
    store.ledger.history(query).await.unwrap().into_iter().map(|page| page.id).collect()
}

pub(crate) async fn pages_are_found_by_what_they_can_hold(store: &Store) {
    let pages = vec![
        page(1, &[(1, 10, 100), (1, 20, 200)]),
        page(2, &[(2, 15, 150), (63, 16, 250)]),
        page(3, &[(65, 30, 300)]),
        page(4, &[(1, 40, 260), (2, 50, 300)]),
    ];
    write(store, pages.clone()).await;
    assert_eq!(ids(store, ALL).await, [4, 3, 1], "newest first, by the partition");
    assert_eq!(ids(store, HistoryQuery { partition: 63, ..ALL }).await, [2]);
    assert_eq!(ids(store, HistoryQuery { partition: 9, ..ALL }).await, [0; 0]);
    assert_eq!(ids(store, HistoryQuery { seqs: (Seq(15), Seq(15)), ..ALL }).await, [1]);
    assert_eq!(ids(store, HistoryQuery { seqs: (Seq(21), Seq(21)), ..ALL }).await, [0; 0]);
    assert_eq!(ids(store, HistoryQuery { seqs: (Seq(21), Seq(u64::MAX)), ..ALL }).await, [4, 3]);
    assert_eq!(ids(store, HistoryQuery { seqs: (Seq(20), Seq(30)), ..ALL }).await, [3, 1]);
    assert_eq!(ids(store, HistoryQuery { from: Timestamp(201), ..ALL }).await, [4, 3]);
    assert_eq!(ids(store, HistoryQuery { to: Timestamp(260), ..ALL }).await, [4, 1]);
    assert_eq!(ids(store, HistoryQuery { limit: 1, ..ALL }).await, [4]);
    assert_eq!(ids(store, HistoryQuery { before: Some((Timestamp(300), 4)), ..ALL }).await, [3, 1]);
    assert_eq!(ids(store, HistoryQuery { before: Some((Timestamp(300), 3)), ..ALL }).await, [1]);
    assert_eq!(store.ledger.history(HistoryQuery { partition: 63, ..ALL }).await.unwrap(), pages[1..2]);
}

pub(crate) async fn a_page_of_a_known_key_replaces_it(store: &Store) {
    write(store, vec![page(7, &[(1, 10, 100)])]).await;
    let longer = page(7, &[(1, 10, 100), (1, 11, 110), (2, 5, 90)]);
    for _ in 0..2 {
        write(store, vec![longer.clone()]).await;
    }
    assert_eq!(store.ledger.history(ALL).await.unwrap(), [longer]);
}

async fn trim(store: &Store, before: i64, bytes_max: u64, rows_max: u32) -> bool {
    let (dead_before, attempts_before) = (Timestamp(0), Timestamp(before));
    let trim = LedgerTrim { dead_before, attempts_before, attempts_bytes_max: bytes_max, rows_max };
    store.ledger.trim(trim).await.unwrap().more
}

pub(crate) async fn old_attempts_go_by_age_and_by_size(store: &Store) {
    let pages = (1..=10u64).map(|n| page(n, &[(1, n, i64::try_from(n).unwrap() * 10)])).collect();
    write(store, pages).await;
    let lease = store.ledger.lease(1).await.unwrap();
    let failures = (1..=10u32).map(|n| (Ordinal(1), attempt(1, n, i64::from(n) * 10 + 5))).collect();
    store.ledger.commit(vec![LedgerChange { failures, ..change(lease) }]).await.unwrap();
    let left = async || {
        let failures = store.ledger.failures(Ordinal(1), None, 100).await.unwrap();
        (ids(store, ALL).await.len(), failures.len())
    };
    assert!(!trim(store, 31, u64::MAX, 100).await);
    assert_eq!(left().await, (7, 8), "pages at 10 to 30, failures at 15 and 25");
    // A page takes 96 bytes and its data, a failure 160 and its response: some 2,000 are left, 600 may be.
    while trim(store, 0, 600, 2).await {}
    let (pages, failures) = left().await;
    assert!((1..=3).contains(&pages) && (1..=3).contains(&failures), "{pages} {failures}");
    let oldest = store.ledger.failures(Ordinal(1), None, 100).await.unwrap()[0].at;
    assert!(oldest >= Timestamp(85), "the oldest go, whichever they are: {oldest}");
    while trim(store, 0, 0, 100).await {}
    assert_eq!(left().await, (0, 0));
}

pub(crate) async fn failures_are_listed_behind_a_key(store: &Store) {
    let lease = store.ledger.lease(1).await.unwrap();
    let failures = [(5, 1, 100), (5, 2, 200), (6, 1, 200), (7, 1, 300)];
    let failures = failures.map(|(seq, n, at)| (Ordinal(1), attempt(seq, n, at))).to_vec();
    store.ledger.commit(vec![LedgerChange { failures, ..change(lease) }]).await.unwrap();
    let list = async |since, before, limit| {
        let found = store.ledger.failures_before(Ordinal(1), Timestamp(since), before, limit).await.unwrap();
        found.into_iter().map(|attempt| (attempt.seq.0, attempt.n)).collect::<Vec<_>>()
    };
    let newest = (Timestamp(i64::MAX), Seq(u64::MAX), u32::MAX);
    assert_eq!(list(0, newest, 9).await, [(7, 1), (6, 1), (5, 2), (5, 1)]);
    assert_eq!(list(200, newest, 9).await, [(7, 1), (6, 1), (5, 2)]);
    assert_eq!(list(0, (Timestamp(200), Seq(6), 1), 1).await, [(5, 2)]);
}

fn job(ordinal: u64, id: u64, state: JobState) -> RecoveryJob {
    RecoveryJob {
        ordinal: Ordinal(ordinal),
        id: JobId(id),
        kind: JobKind::Replay,
        selection: Selection::All,
        from: Seq(3),
        to: Seq(90),
        state,
        position: Seq(2),
        events: 50,
        done: 0,
        failed: 0,
        created_at: Timestamp(1000),
        ended_at: (state != JobState::Running).then_some(Timestamp(2000)),
    }
}

pub(crate) async fn jobs_come_back_and_only_so_many_that_ended_stay(store: &Store) {
    let lease = store.ledger.lease(1).await.unwrap();
    let write = async |jobs| store.ledger.commit(vec![LedgerChange { jobs, ..change(lease) }]).await.unwrap();
    let named = Selection::Seqs(vec![Seq(4), Seq(9), Seq(80)].into());
    let first = RecoveryJob { kind: JobKind::Redrive, selection: named, ..job(1, 5, JobState::Running) };
    let second = RecoveryJob { selection: Selection::Failed, ..job(1, 6, JobState::Running) };
    write(vec![first.clone(), second.clone(), job(65, 4, JobState::Running)]).await;
    assert_eq!(store.ledger.running_jobs(1).await.unwrap(), [job(65, 4, JobState::Running), first.clone(), second.clone()]);
    assert_eq!(store.ledger.jobs(Ordinal(1)).await.unwrap(), [second.clone(), first.clone()]);
    let moved = RecoveryJob { position: Seq(40), done: 12, failed: 2, ..second };
    let ended = RecoveryJob { state: JobState::Cancelled, ended_at: Some(Timestamp(9)), ..first };
    write(vec![moved.clone(), ended.clone()]).await;
    assert_eq!(store.ledger.jobs(Ordinal(1)).await.unwrap(), [moved.clone(), ended]);
    let many = u64::from(JOBS_ENDED_MAX) + 5;
    for id in 0..many {
        write(vec![job(1, 100 + id, JobState::Done)]).await;
    }
    let kept = store.ledger.jobs(Ordinal(1)).await.unwrap();
    assert_eq!(kept.len(), JOBS_ENDED_MAX as usize + 1, "one runs");
    assert_eq!((kept[0].id, kept.last().unwrap()), (JobId(99 + many), &moved));
    store.ledger.forget(Ordinal(1)).await.unwrap();
    assert!(store.ledger.jobs(Ordinal(1)).await.unwrap().is_empty());
    assert_eq!(store.ledger.running_jobs(1).await.unwrap().len(), 1);
}

pub(crate) async fn skipped_ranges_are_joined_and_forgotten(store: &Store) {
    let lease = store.ledger.lease(1).await.unwrap();
    let range = |from, to| ExpiredRange { ordinal: Ordinal(1), from: Seq(from), to: Seq(to) };
    store.ledger.commit(vec![LedgerChange { skipped: vec![range(5, 6), range(9, 20)], ..change(lease) }]).await.unwrap();
    store.ledger.commit(vec![LedgerChange { skipped: vec![range(7, 7)], ..change(lease) }]).await.unwrap();
    let mut found = Vec::new();
    for seq in 1..=25 {
        if store.ledger.marks(Ordinal(1), Seq(seq)).await.unwrap().is_skipped {
            found.push(seq);
        }
    }
    assert_eq!(found, (5..=7).chain(9..=20).collect::<Vec<_>>());
    // What is passed once more is not skipped, until it is skipped again.
    let again = LedgerChange { reopened: vec![(Ordinal(1), Seq(6))], skipped: vec![range(12, 13)], ..change(lease) };
    let is_skipped = async |seq| store.ledger.marks(Ordinal(1), Seq(seq)).await.unwrap().is_skipped;
    for _ in 0..2 {
        store.ledger.commit(vec![again.clone()]).await.unwrap();
        for (seq, expected) in [(5, true), (6, true), (7, false), (9, false), (12, true), (13, true), (14, false), (20, false)] {
            assert_eq!(is_skipped(seq).await, expected, "{seq}");
        }
    }
    let other = LedgerChange { reopened: vec![(Ordinal(2), Seq(0))], ..change(lease) };
    let both = LedgerChange { skipped: vec![range(14, 30)], ..change(lease) };
    let last = LedgerChange { reopened: vec![(Ordinal(1), Seq(15))], ..change(lease) };
    store.ledger.commit(vec![other, both, last]).await.unwrap();
    assert!(is_skipped(15).await && !is_skipped(16).await, "in the order of the changes");
    assert!(!store.ledger.marks(Ordinal(2), Seq(5)).await.unwrap().is_skipped);
    assert!(store.ledger.expired(Ordinal(1), 9).await.unwrap().is_empty(), "skipped is not expired");
    store.ledger.forget(Ordinal(1)).await.unwrap();
    assert!(!store.ledger.marks(Ordinal(1), Seq(5)).await.unwrap().is_skipped);
}

pub(crate) async fn dead_letters_are_counted_in_a_range(store: &Store) {
    let state_of = |seq: u64| if seq.is_multiple_of(3) { Retry } else { Dead };
    put(store, (1..=9).map(|seq| exception(1, seq, state_of(seq), 5)).collect()).await;
    put(store, vec![exception(65, 4, Dead, 5)]).await;
    let count = async |from, to| store.ledger.count_dead(Ordinal(1), Seq(from), Seq(to)).await.unwrap();
    assert_eq!((count(1, 9).await, count(2, 5).await, count(4, 4).await, count(5, 4).await), (6, 3, 1, 0));
    let among = async |seqs: &[u64]| {
        let seqs: Vec<Seq> = seqs.iter().copied().map(Seq).collect();
        store.ledger.dead_among(Ordinal(1), &seqs).await.unwrap().into_iter().map(|seq| seq.0).collect::<Vec<u64>>()
    };
    assert_eq!(among(&[1, 2, 3, 8, 9, 10]).await, [1, 2, 8]);
    assert_eq!(among(&[]).await, [0; 0]);
}
