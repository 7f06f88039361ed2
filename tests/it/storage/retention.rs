//! What every backend does when the log is shortened.

use hookcast_core::clock::Timestamp;
use hookcast_core::model::ExceptionState::{Dead, Retry};
use hookcast_core::model::subscription::Ordinal;
use hookcast_core::model::{Event, Seq};
use hookcast_log::storage::{BURIED_MAX, Bounds, LedgerChange, LedgerTrim, StorageErrorKind, Store};

use super::make::{append, change, clear, exception, page, page_of, positions, put, seqs};

const NEVER: u64 = u64::MAX;

pub(crate) async fn old_pages_go_and_the_newest_stays(store: &Store) {
    append(store, vec![page(1, 2, 10), page(3, 2, 20), page(5, 2, 30)]).await;
    let size = |n, at| page(n, 2, at).bytes().len() as u64;
    let (bounds, more) = store.log.trim(Timestamp(20), NEVER, 10).await.unwrap();
    assert_eq!((bounds.first, bounds.head, bounds.bytes, more), (Seq(3), Seq(6), size(3, 20) + size(5, 30), false));
    assert_eq!(store.log.bounds().await.unwrap(), bounds);
    assert_eq!(positions(store).await, [3, 4, 5, 6]);
    let first = store.log.read(Seq(0), 1).await.unwrap().pages.remove(0);
    assert_eq!(first.first(), Seq(3));
    let (bounds, more) = store.log.trim(Timestamp(1000), NEVER, 10).await.unwrap();
    assert_eq!((bounds, more), (Bounds { first: Seq(5), head: Seq(6), bytes: size(5, 30) }, false));
    assert!(store.log.get(&[Seq(1), Seq(4)]).await.unwrap().is_empty());
}

pub(crate) async fn a_log_that_is_too_large_shrinks_from_the_old_end(store: &Store) {
    append(store, (0..60).map(|n| page_of(1 + n, 1, 10, 5000)).collect()).await;
    let ten: u64 = (51..=60).map(|n| page_of(n, 1, 10, 5000).bytes().len() as u64).sum();
    let (bounds, more) = store.log.trim(Timestamp(0), ten, 1000).await.unwrap();
    assert_eq!((bounds, more), (Bounds { first: Seq(51), head: Seq(60), bytes: ten }, false));
    assert_eq!(positions(store).await, (51..=60).collect::<Vec<_>>());
    let (bounds, _) = store.log.trim(Timestamp(0), 0, 1000).await.unwrap();
    assert_eq!(bounds.first, Seq(60));
}

pub(crate) async fn trimming_stops_at_its_page_limit(store: &Store) {
    append(store, (0..50).map(|n| page(1 + n, 1, 10)).collect()).await;
    let (bounds, more) = store.log.trim(Timestamp(11), NEVER, 20).await.unwrap();
    assert_eq!((bounds.first, more), (Seq(21), true));
    let (bounds, more) = store.log.trim(Timestamp(11), NEVER, 29).await.unwrap();
    assert_eq!((bounds.first, more), (Seq(50), false));
    assert_eq!(store.log.trim(Timestamp(11), NEVER, 0).await.unwrap(), (bounds, false));
}

pub(crate) async fn events_that_exceptions_need_outlive_the_log(store: &Store) {
    append(store, (0..40).map(|n| page(1 + n * 3, 3, 10)).collect()).await;
    put(store, vec![exception(1, 2, Retry, 5), exception(2, 2, Dead, 5), exception(65, 100, Dead, 5)]).await;
    store.log.trim(Timestamp(11), NEVER, 100).await.unwrap();
    assert_eq!(positions(store).await, [118, 119, 120]);
    let kept = store.log.get(&[Seq(1), Seq(2), Seq(3), Seq(100), Seq(119)]).await.unwrap();
    assert_eq!(seqs(&kept), [2, 100, 119]);
    assert_eq!(kept[0].fields().id, "event-2");
    assert_eq!(kept[0].topic().as_str(), "orders.even");
    assert_eq!(kept[0].page().len(), 1);
}

pub(crate) async fn what_is_kept_aside_can_be_purged(store: &Store) {
    append(store, vec![page(1, 3, 10), page(4, 3, 10)]).await;
    put(store, vec![exception(1, 2, Retry, 5)]).await;
    store.log.trim(Timestamp(11), NEVER, 100).await.unwrap();
    assert!(store.log.purge(Seq(2)).await.unwrap());
    assert!(!store.log.purge(Seq(1)).await.unwrap(), "retention took it");
    let kept = store.log.get(&[Seq(2)]).await.unwrap();
    assert_eq!(kept[0].fields().id, "event-2");
    assert!(matches!(kept[0].fields().data, b"" | b"null"));
}

pub(crate) async fn an_event_needed_twice_goes_with_the_last_exception(store: &Store) {
    append(store, vec![page(1, 3, 10), page(4, 3, 10)]).await;
    put(store, vec![exception(1, 2, Retry, 5), exception(2, 2, Dead, 5)]).await;
    store.log.trim(Timestamp(11), NEVER, 100).await.unwrap();
    let is_kept = || async { !store.log.get(&[Seq(2)]).await.unwrap().is_empty() };
    clear(store, 1, 2).await;
    assert!(is_kept().await);
    clear(store, 2, 2).await;
    assert!(!is_kept().await);
    clear(store, 2, 2).await;
}

pub(crate) async fn an_exception_made_after_the_trim_brings_its_event(store: &Store) {
    append(store, vec![page(1, 3, 10), page(4, 3, 10)]).await;
    let events: Vec<Event> = store.log.get(&[Seq(2), Seq(5)]).await.unwrap();
    store.log.trim(Timestamp(11), NEVER, 100).await.unwrap();
    let mut late = exception(1, 2, Retry, 5);
    late.event = Some(events[0].clone());
    let mut still_there = exception(1, 5, Retry, 5);
    still_there.event = Some(events[1].clone());
    put(store, vec![late.clone(), still_there]).await;
    // The same again without the event, as a retry that failed once more: the event must stay.
    put(store, vec![exception(1, 2, Dead, 5)]).await;
    assert_eq!(seqs(&store.log.get(&[Seq(1), Seq(2), Seq(3)]).await.unwrap()), [2]);
    clear(store, 1, 2).await;
    assert!(store.log.get(&[Seq(2)]).await.unwrap().is_empty());
    clear(store, 1, 5).await;
    assert_eq!(seqs(&store.log.get(&[Seq(5)]).await.unwrap()), [5]);
}

pub(crate) async fn positions_are_never_given_twice(store: &Store) {
    append(store, vec![page(1, 3, 10)]).await;
    append(store, vec![page(4, 1, 10)]).await;
    let (bounds, _) = store.log.trim(Timestamp(i64::MAX), 0, 100).await.unwrap();
    assert_eq!((bounds.first, bounds.head), (Seq(4), Seq(4)));
    let again = hookcast_log::storage::Append { pages: vec![page(1, 1, 1)], ..Default::default() };
    assert_eq!(store.log.append(again).await.unwrap_err().kind, StorageErrorKind::Conflict);
}

pub(crate) async fn letters_that_went_are_remembered_in_bounds(store: &Store) {
    let trim = async |dead_before| {
        let bounds = LedgerTrim {
            dead_before: Timestamp(dead_before),
            attempts_before: Timestamp(0),
            attempts_bytes_max: u64::MAX,
            rows_max: 100_000,
        };
        store.ledger.trim(bounds).await.unwrap().dead.len()
    };
    let is_buried = async |of, seq| store.ledger.marks(Ordinal(of), Seq(seq)).await.unwrap().is_buried;
    put(store, (1..=5).map(|seq| exception(1, seq, Dead, 10)).collect()).await;
    put(store, vec![exception(1, 7, Dead, 99), exception(2, 3, Dead, 10), exception(1, 8, Retry, 10)]).await;
    assert_eq!(trim(50).await, 6);
    for (ordinal, seq, expected) in
        [(1, 1, true), (1, 5, true), (1, 6, false), (1, 7, false), (1, 8, false), (2, 3, true), (3, 3, false)]
    {
        assert_eq!(is_buried(ordinal, seq).await, expected, "{ordinal} {seq}");
    }
    // What is to be delivered once more is not over.
    let lease = store.ledger.lease(1).await.unwrap();
    store.ledger.commit(vec![LedgerChange { reopened: vec![(Ordinal(1), Seq(3))], ..change(lease) }]).await.unwrap();
    assert!(is_buried(1, 3).await && !is_buried(1, 4).await);
    store.ledger.forget(Ordinal(1)).await.unwrap();
    assert!(!is_buried(1, 3).await);
    // One range each: the oldest go.
    let many = u64::from(BURIED_MAX) + 10;
    put(store, (1..=many).map(|n| exception(65, n * 2, Dead, 10)).collect()).await;
    assert_eq!(trim(50).await as u64, many);
    assert!(!is_buried(65, 2).await && !is_buried(65, 20).await);
    assert!(is_buried(65, 22).await && is_buried(65, many * 2).await);
}
