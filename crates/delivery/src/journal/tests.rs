//! What is kept until it is saved, and what becomes of it when a save is refused.

use super::*;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::event::DataForm;
use hookcast_core::model::{ExceptionState, NewEvent, PageBuilder, Topic};

fn exception(seq: u64, attempts: u32) -> Exception {
    Exception {
        ordinal: Ordinal(1),
        seq: Seq(seq),
        state: ExceptionState::Retry,
        attempts,
        sent: attempts,
        due_at: Timestamp(0),
        since: Timestamp(0),
        reason: "status_500".into(),
        has_old_batch_id: false,
    }
}

#[allow(clippy::unnecessary_wraps, reason = "the shape that the journal asks for")]
fn progress(partition: u16) -> Option<(Lease, Checkpoint)> {
    Some((Lease { partition, epoch: 1 }, Checkpoint::default()))
}

#[test]
fn only_the_last_word_on_a_delivery_is_saved() {
    let mut journal = Journal::default();
    journal.put(exception(5, 1), None);
    journal.put(exception(5, 2), None);
    journal.put(exception(6, 1), None);
    journal.clear(Ordinal(1), Seq(6));
    let changes = journal.take(progress);
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].put.iter().map(|kept| kept.exception.attempts).collect::<Vec<_>>(), [2]);
    assert_eq!(changes[0].clear, [(Ordinal(1), Seq(6))]);
    assert!(!journal.is_dirty());
}

#[test]
fn a_failed_save_comes_back_under_newer_words() {
    let mut journal = Journal::default();
    journal.put(exception(5, 1), None);
    journal.put(exception(6, 1), None);
    let lost = journal.take(progress);
    journal.clear(Ordinal(1), Seq(5));
    journal.give_back(lost);
    let changes = journal.take(progress);
    assert_eq!(changes[0].clear, [(Ordinal(1), Seq(5))]);
    assert_eq!(changes[0].put.len(), 1);
    assert_eq!(changes[0].put[0].exception.seq, Seq(6));
}

fn event() -> Option<Event> {
    let mut builder = PageBuilder::starting_at(Seq(5));
    builder.push(&NewEvent {
        topic: Topic::parse("t").unwrap(),
        id: "1".into(),
        own_id: false,
        source: "/publish".into(),
        kind: "message".into(),
        subject: None,
        time: None,
        arrived_at: Timestamp(0),
        content_type: "text/plain".into(),
        data_schema: None,
        extensions: Vec::new(),
        hops: 0,
        form: DataForm::Text,
        data: bytes::Bytes::from_static(b"hello"),
    });
    builder.finish().get(Seq(5))
}

#[test]
fn an_event_that_nobody_saved_stays_with_the_newer_word() {
    let mut journal = Journal::default();
    journal.put(exception(5, 1), event());
    journal.put(exception(5, 2), None);
    let lost = journal.take(progress);
    assert!(lost[0].put[0].event.is_some());
    journal.put(exception(5, 3), None);
    journal.give_back(lost);
    let changes = journal.take(progress);
    assert_eq!((changes[0].put[0].exception.attempts, changes[0].put[0].event.is_some()), (3, true));
}

#[test]
fn touching_ranges_are_joined() {
    let mut journal = Journal::default();
    let range = |from, to| ExpiredRange { ordinal: Ordinal(1), from: Seq(from), to: Seq(to) };
    journal.expired(range(1, 5));
    journal.expired(range(6, 9));
    journal.expired(range(20, 21));
    let taken = Rc::new(journal.take(progress));
    assert_eq!(taken[0].expired, [range(1, 9), range(20, 21)]);
    // They are known while they are being saved, and beside those that come meanwhile.
    journal.begin(&taken);
    journal.expired(range(30, 31));
    journal.skipped(range(40, 41));
    let marks = |seq| journal.marks(Ordinal(1), Seq(seq)).0;
    assert!([5, 20, 31].map(marks).iter().all(|marks| marks.is_expired && !marks.is_skipped));
    assert_eq!((marks(10), marks(41)), (Marks::default(), Marks { is_skipped: true, ..Marks::default() }));
    assert_eq!(journal.marks(Ordinal(65), Seq(5)), (Marks::default(), false));
}

#[test]
fn what_is_passed_once_more_is_not_skipped_also_when_saves_fail() {
    let mut journal = Journal::default();
    let range = |from, to| ExpiredRange { ordinal: Ordinal(1), from: Seq(from), to: Seq(to) };
    let marks = |journal: &Journal, seq| {
        let (marks, is_reopened) = journal.marks(Ordinal(1), Seq(seq));
        (marks.is_skipped, is_reopened)
    };
    journal.skipped(range(1, 100));
    journal.reopen(Ordinal(1), Seq(50));
    journal.skipped(range(60, 70));
    assert_eq!([50, 55, 65].map(|seq| marks(&journal, seq)), [(true, false), (false, true), (true, true)]);
    let lost = Rc::new(journal.take(progress));
    journal.begin(&lost);
    journal.reopen(Ordinal(1), Seq(63));
    assert_eq!([50, 55, 61, 65].map(|seq| marks(&journal, seq)), [(true, false), (false, true), (true, true), (false, true)]);
    journal.end(&lost);
    journal.give_back(Rc::unwrap_or_clone(lost));
    let changes = journal.take(progress);
    assert_eq!(changes[0].reopened, [(Ordinal(1), Seq(50))]);
    assert_eq!(changes[0].skipped, [range(1, 50), range(60, 63)]);
}

#[test]
fn a_mark_is_put_only_with_what_nobody_saved() {
    let mut journal = Journal::default();
    let marked = |seq| Exception { state: ExceptionState::Dead, reason: "skipped".into(), ..exception(seq, 1) };
    journal.put(exception(5, 1), event());
    journal.put(exception(7, 1), event());
    let lost = journal.take(progress);
    journal.put(exception(6, 1), event());
    for seq in 5..=9 {
        journal.mark(marked(seq));
    }
    journal.clear(Ordinal(1), Seq(9));
    assert_eq!(journal.last_word(Ordinal(1), Seq(8)), Some(Some(marked(8))));
    journal.give_back(lost);
    let taken = Rc::new(journal.take(progress));
    let put: Vec<_> = taken[0].put.iter().map(|kept| (kept.exception.clone(), kept.event.is_some())).collect();
    assert_eq!(put, [5, 6, 7].map(|seq| (marked(seq), true)));
    assert_eq!((&taken[0].marked, &taken[0].clear), (&vec![marked(8)], &vec![(Ordinal(1), Seq(9))]));
    journal.begin(&taken);
    assert_eq!(journal.words(Ordinal(1), Seq(7)), BTreeMap::from([(Seq(8), Some(marked(8))), (Seq(9), None)]));
    journal.end(&taken);
    journal.give_back(Rc::unwrap_or_clone(taken));
    assert_eq!(journal.take(progress)[0].marked, [marked(8)]);
}
