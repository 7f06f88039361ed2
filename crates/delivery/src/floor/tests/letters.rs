//! Dead letters that die again, are delivered, or both, before storage was asked about them.

use super::*;

/// A floor whose only desk was offered so many events and makes so many attempts of each.
fn offered(events: u64, max_attempts: u32) -> (Floor, Place) {
    let mut floor = Floor::new(Seq::ZERO, 64);
    let mut of_few_attempts = SubscriptionRecord::clone(&record(1));
    of_few_attempts.spec.retry.max_attempts = max_attempts;
    let place = floor.add(Arc::new(of_few_attempts), &Progress { base: Seq::ZERO, holes: Vec::new() });
    floor.scan(&page(1, events));
    (floor, place)
}

fn succeed(floor: &mut Floor, flight: &Assignment) {
    floor.settle(flight, None, &outcome(None), (NOW, NOW), 0.5);
}

fn fail(floor: &mut Floor, flight: &Assignment) {
    floor.settle(flight, None, &outcome(Some(ErrorKind::Connect)), (NOW, NOW), 0.5);
}

/// Forgets what is to be saved, as if it had been.
fn save(floor: &mut Floor) {
    let _ = floor.journal.take(|_| None);
}

/// Goes back to the first event, and offers those of `page` again.
fn seek_back(floor: &mut Floor, place: Place, page: &Arc<Page>) {
    floor.seek(Ordinal(1), Seq::ZERO);
    floor.feed(&mut vec![place], &[Arc::clone(page)], Seq::ZERO);
}

/// Gives the job of the desk what it posts.
fn fill(floor: &mut Floor, job: RecoveryJob, seq: u64, dead_after: Option<u32>) {
    let to = job.to;
    floor.recover(job);
    let want = floor.replay_wants().remove(0).1;
    let item = ReplayItem { seq: Seq(seq), parcel: None, dead_after, line: None };
    floor.fill_replay(Ordinal(1), &want, vec![item], to, true);
}

fn dead(floor: &Floor) -> u64 {
    floor.desk(Ordinal(1)).unwrap().totals.dead()
}

/// More deliveries than there is room for may have been dead letters.
#[test]
fn deliveries_that_there_is_no_room_to_look_up_are_counted() {
    const ROOM: u64 = 65_536;
    let (mut floor, _) = offered(1, 1);
    floor.change(Ordinal(1), |desk| desk.dead_to = Seq(u64::MAX));
    for first in (2..=ROOM + 100).step_by(100) {
        floor.scan(&page(first, 100));
        while let Some(flight) = floor.next(NOW) {
            succeed(&mut floor, &flight);
        }
    }
    let delivered = floor.desk(Ordinal(1)).unwrap().totals.delivered;
    assert_eq!((floor.recovered().len() as u64, floor.left_listed), (ROOM, delivered - ROOM));
}

/// All letters that are counted ended; one that died after a seek back is not counted yet.
#[test]
fn a_letter_that_is_delivered_before_it_is_counted_is_looked_up() {
    let (mut floor, place) = offered(2, 1);
    let (first, second) = (floor.next(NOW).unwrap(), floor.next(NOW).unwrap());
    succeed(&mut floor, &first);
    fail(&mut floor, &second);
    save(&mut floor);
    seek_back(&mut floor, place, &page(1, 2));
    let (first, _second) = (floor.next(NOW).unwrap(), floor.next(NOW).unwrap());
    fail(&mut floor, &first);
    assert!(floor.is_unsettled() && dead(&floor) == 1, "the first is dead as well, which may have been counted");
    fill(&mut floor, redrive(Seq(2), Seq(2)), 2, Some(1));
    let redriven = floor.next(NOW).unwrap();
    succeed(&mut floor, &redriven);
    assert_eq!(dead(&floor), 0);
    let again = RecoveryJob { id: JobId(2), kind: JobKind::Replay, selection: Selection::All, ..redrive(Seq(1), Seq(1)) };
    floor.note_jobs(NOW);
    fill(&mut floor, again, 1, None);
    let replayed = floor.next(NOW).unwrap();
    assert_eq!(replayed.job.seq, Seq(1));
    succeed(&mut floor, &replayed);
    assert!(floor.recovered().contains(&(Ordinal(1), Seq(1))), "{:?}", floor.recovered());
}

/// A job waits to post a letter that became a retry because of a seek back, and that died again before it was saved.
#[test]
fn a_letter_that_died_again_before_it_was_counted_is_still_redriven() {
    let (mut floor, place) = offered(1, 2);
    let retry = |floor: &mut Floor| {
        let first = floor.next(NOW).unwrap();
        fail(floor, &first);
        floor.next(Timestamp(NOW.0 + 5_000)).unwrap()
    };
    let second = retry(&mut floor);
    fail(&mut floor, &second);
    assert_eq!(dead(&floor), 1);
    save(&mut floor);
    seek_back(&mut floor, place, &page(1, 1));
    let second = retry(&mut floor);
    fill(&mut floor, redrive(Seq(1), Seq(1)), 1, Some(7));
    fail(&mut floor, &second);
    let doubtful = floor.take_doubtful();
    assert_eq!(doubtful, BTreeMap::from([((Ordinal(1), Seq(1)), ExceptionState::Retry)]));
    floor.settle_doubt(Ordinal(1), Seq(1), true, ExceptionState::Retry);
    assert_eq!(dead(&floor), 1);
    let posted = floor.next(NOW).map(|flight| (flight.job.seq, flight.job.attempt));
    assert_eq!(posted, Some((Seq(1), 3)), "the job posts it, after the attempts of its last life");
}

/// Storage does not say what it has, before what became of letters after a seek back is saved; then it does.
#[test]
fn letters_that_could_not_be_looked_up_are_counted_anew() {
    let (mut floor, _) = offered(3, 1);
    floor.change(Ordinal(1), |desk| (desk.dead_to, desk.again_to) = (Seq(3), Seq(3)));
    let first = floor.next(NOW).unwrap();
    fail(&mut floor, &first);
    assert_eq!((floor.take_doubtful().len(), dead(&floor)), (1, 0), "it may have been counted");
    floor.miscount(Ordinal(1));
    save(&mut floor);
    assert!(floor.wants_save(), "to count");
    assert_eq!(floor.take_miscounted(), [Ordinal(1)]);
    let second = floor.next(NOW).unwrap();
    fail(&mut floor, &second);
    assert_eq!(floor.recount(Ordinal(1), 1, &BTreeMap::new()), [Seq(2)]);
    assert_eq!(floor.recount(Ordinal(1), 1, &BTreeMap::from([(Seq(2), false)])), [Seq(0); 0]);
    assert_eq!((dead(&floor), floor.is_unsettled()), (2, false));
}

/// All letters that were counted ended. One that died after a seek back is redriven before storage was asked about it.
#[test]
fn a_letter_that_ends_before_it_is_counted_is_not_counted_after_it() {
    let (mut floor, place) = offered(1, 1);
    let first = floor.next(NOW).unwrap();
    succeed(&mut floor, &first);
    floor.change(Ordinal(1), |desk| desk.dead_to = Seq(1));
    seek_back(&mut floor, place, &page(1, 1));
    let again = floor.next(NOW).unwrap();
    fail(&mut floor, &again);
    fill(&mut floor, redrive(Seq(1), Seq(1)), 1, Some(1));
    let redriven = floor.next(NOW).unwrap();
    succeed(&mut floor, &redriven);
    assert_eq!((floor.take_doubtful().len(), dead(&floor)), (1, 0));
    floor.settle_doubt(Ordinal(1), Seq(1), false, ExceptionState::Dead);
    assert_eq!(dead(&floor), 0);
}

/// A subscription is removed while it is to be looked up what became of its letters, and while a word about one is being saved.
#[test]
fn nothing_of_a_removed_subscription_is_looked_up_or_saved() {
    let (mut floor, _) = offered(3, 1);
    floor.hold(Lease { partition: 1, epoch: 1 }, 1);
    floor.change(Ordinal(1), |desk| (desk.dead_to, desk.again_to) = (Seq(3), Seq(3)));
    let first = floor.next(NOW).unwrap();
    fail(&mut floor, &first);
    let unsaved = floor.take_unsaved();
    assert_eq!((unsaved[0].put.len(), floor.is_unsettled()), (1, true));
    floor.remove(Ordinal(1));
    assert!(!floor.is_unsettled());
    // Somebody counted its letters meanwhile, and could not.
    floor.miscount(Ordinal(1));
    assert!(!floor.is_unsettled());
    floor.give_back(unsaved);
    assert!(floor.take_unsaved().iter().all(|change| change.put.is_empty() && change.failures.is_empty()));
}

/// A save of so much that nothing more may go out is refused after its subscription was removed.
#[test]
fn what_is_unsaved_of_a_removed_subscription_takes_no_room() {
    let (mut floor, _) = offered(1, 1);
    floor.hold(Lease { partition: 1, epoch: 1 }, 1);
    let flight = floor.next(NOW).unwrap();
    fail(&mut floor, &flight);
    let letter = floor.journal.words(Ordinal(1), Seq::ZERO)[&Seq(1)].clone().unwrap();
    for seq in 2.. {
        if floor.journal.is_full() {
            break;
        }
        floor.journal.put(Exception { seq: Seq(seq), ..letter.clone() }, None);
    }
    let unsaved = floor.take_unsaved();
    floor.remove(Ordinal(1));
    floor.give_back(unsaved);
    assert!(!floor.journal.is_full());
}

/// A job waits to post letters, one of which became a retry while storage did not say what it has.
#[test]
fn a_job_looks_anew_for_letters_that_were_counted_anew() {
    let (mut floor, _) = offered(2, 1);
    while let Some(flight) = floor.next(NOW) {
        fail(&mut floor, &flight);
    }
    save(&mut floor);
    let item = |seq: u64| ReplayItem { seq: Seq(seq), parcel: None, dead_after: Some(1), line: None };
    let mut paused = SubscriptionRecord::clone(&floor.desk(Ordinal(1)).unwrap().record);
    paused.activity = Activity::Paused;
    floor.redefine(&Arc::new(paused));
    let both = RecoveryJob { selection: Selection::Failed, ..redrive(Seq(1), Seq(2)) };
    floor.recover(both);
    let want = floor.replay_wants().remove(0).1;
    floor.fill_replay(Ordinal(1), &want, vec![item(1), item(2)], Seq(2), true);
    assert_eq!(floor.replay_wants().len(), 0, "it has all");
    floor.miscount(Ordinal(1));
    assert_eq!(floor.take_miscounted().len(), 1);
    assert_eq!(floor.recount(Ordinal(1), 1, &BTreeMap::new()), [Seq(0); 0]);
    assert_eq!(dead(&floor), 1);
    let want = floor.replay_wants().remove(0).1;
    assert_eq!((want.after, want.to), (Seq(0), Seq(2)), "it looks for both once more");
    floor.miscount(Ordinal(1));
    assert_eq!(floor.recount(Ordinal(1), 1, &BTreeMap::new()), [Seq(0); 0]);
    floor.fill_replay(Ordinal(1), &want, vec![item(1)], Seq(2), true);
    assert_eq!(floor.replay_wants().len(), 1, "what was found before that is not taken");
}

/// A redrive posts a letter that became a retry, and was delivered, while storage did not say what it has.
#[test]
fn a_letter_that_ended_in_flight_while_lists_failed_does_not_end_twice() {
    let (mut floor, _) = offered(3, 1);
    while let Some(flight) = floor.next(NOW) {
        fail(&mut floor, &flight);
    }
    save(&mut floor);
    fill(&mut floor, redrive(Seq(1), Seq(1)), 1, Some(1));
    let redriven = floor.next(NOW).unwrap();
    floor.miscount(Ordinal(1));
    assert_eq!(floor.take_miscounted().len(), 1);
    assert_eq!(floor.recount(Ordinal(1), 2, &BTreeMap::new()), [Seq(1)], "the one in flight is asked for, too");
    assert_eq!(floor.recount(Ordinal(1), 2, &BTreeMap::from([(Seq(1), false)])), [Seq(0); 0]);
    succeed(&mut floor, &redriven);
    assert_eq!(dead(&floor), 2, "2 and 3");
}

/// Retention takes a letter that a job is about to post, while another one that was redriven is not saved.
#[test]
fn letters_that_retention_takes_are_counted_down_once() {
    let (mut floor, _) = offered(4, 1);
    while let Some(flight) = floor.next(NOW) {
        fail(&mut floor, &flight);
    }
    save(&mut floor);
    fill(&mut floor, redrive(Seq(2), Seq(2)), 2, Some(1));
    let redriven = floor.next(NOW).unwrap();
    succeed(&mut floor, &redriven);
    floor.note_jobs(NOW);
    assert_eq!(dead(&floor), 3);
    fill(&mut floor, redrive(Seq(1), Seq(1)), 1, Some(1));
    floor.miscount(Ordinal(1));
    assert!(floor.wants_save(), "to count");
    floor.take_miscounted();
    assert_eq!(floor.recount(Ordinal(1), 3, &BTreeMap::from([(Seq(2), true)])), [Seq(0); 0]);
    assert_eq!(dead(&floor), 2, "3 and 4; storage has 2 still");
    assert_eq!(floor.next(NOW).map(|flight| flight.job.seq), None, "the job looks whether 1 is still there");
}

/// A letter that a redrive posts became a retry after a seek back, and is in the way of others of its key.
#[test]
fn a_retry_keeps_its_line_although_it_is_no_letter_any_more() {
    let mut floor = Floor::new(Seq::ZERO, 64);
    let mut strict = SubscriptionRecord::clone(&record(1));
    strict.spec.ordering = Ordering::Strict;
    floor.add(Arc::new(strict), &Progress { base: Seq::ZERO, holes: Vec::new() });
    floor.scan(&page(1, 2));
    let first = floor.next(NOW).unwrap();
    fail(&mut floor, &first);
    fill(&mut floor, redrive(Seq(1), Seq(1)), 1, Some(9));
    let redriven = floor.next(NOW).unwrap();
    assert!(redriven.job.replay().is_some());
    assert_eq!(floor.recount(Ordinal(1), 0, &BTreeMap::from([(Seq(1), false)])), [Seq(0); 0]);
    floor.settle(&redriven, None, &outcome(Some(ErrorKind::OwnFault)), (NOW, NOW), 0.5);
    let late = Timestamp(NOW.0 + 3_600_000);
    assert_eq!(floor.next(late).map(|flight| flight.job.seq), Some(Seq(1)), "the retry");
    assert_eq!(floor.next(late).map(|flight| flight.job.seq), None, "2 waits for it");
}

/// Retention takes one letter while a replay has others among its events, and one that it posts.
#[test]
fn a_replay_knows_what_is_a_letter_after_all_were_counted() {
    let (mut floor, _) = offered(3, 1);
    while let Some(flight) = floor.next(NOW) {
        fail(&mut floor, &flight);
    }
    save(&mut floor);
    floor.recover(RecoveryJob { kind: JobKind::Replay, selection: Selection::All, ..redrive(Seq(1), Seq(3)) });
    let want = floor.replay_wants().remove(0).1;
    let items = (1..=2).map(|seq| ReplayItem { seq: Seq(seq), parcel: None, dead_after: Some(7), line: None }).collect();
    floor.fill_replay(Ordinal(1), &want, items, Seq(3), true);
    assert_eq!(floor.recount(Ordinal(1), 2, &BTreeMap::new()), [Seq(1), Seq(2)]);
    let says = BTreeMap::from([(Seq(1), false), (Seq(2), true)]);
    assert_eq!(floor.recount(Ordinal(1), 2, &says), [Seq(0); 0]);
    let attempts: Vec<u32> = std::iter::from_fn(|| floor.next(NOW)).map(|flight| flight.job.attempt).collect();
    assert_eq!(attempts, [1, 8], "1 is none any more, 2 is");
}

/// Retention takes a letter that holds others up, and one that was skipped and is not marked in storage yet.
#[test]
fn a_letter_that_retention_takes_holds_nothing_up_and_does_not_come_back_by_its_mark() {
    let mut floor = Floor::new(Seq::ZERO, 64);
    let mut strict = SubscriptionRecord::clone(&record(1));
    (strict.spec.ordering, strict.spec.on_dead, strict.spec.retry.max_attempts) = (Ordering::Strict, OnDead::Block, 1);
    floor.add(Arc::new(strict), &Progress { base: Seq::ZERO, holes: Vec::new() });
    floor.scan(&page(1, 3));
    floor.change(Ordinal(1), |desk| {
        let order = desk.order().unwrap();
        order.letters.looked_up(&order.unread(0).1.unwrap(), true);
    });
    let first = floor.next(NOW).unwrap();
    fail(&mut floor, &first);
    let letter = floor.journal.last_word(Ordinal(1), Seq(1)).flatten().unwrap();
    save(&mut floor);
    assert!(floor.next(NOW).is_none(), "1 holds the others up");
    assert_eq!(floor.recount(Ordinal(1), 1, &BTreeMap::new()), [Seq(1)], "whether storage has it still");
    assert_eq!(floor.recount(Ordinal(1), 1, &BTreeMap::from([(Seq(1), true)])), [Seq(0); 0]);
    assert!(floor.next(NOW).is_none() && dead(&floor) == 1, "it has");
    assert_eq!(floor.recount(Ordinal(1), 0, &BTreeMap::from([(Seq(1), false)])), [Seq(0); 0]);
    assert_eq!((dead(&floor), floor.next(NOW).map(|flight| flight.job.seq)), (0, Some(Seq(2))));
    floor.journal.mark(letter);
    assert_eq!(floor.recount(Ordinal(1), 0, &BTreeMap::from([(Seq(1), false)])), [Seq(0); 0]);
    assert_eq!(dead(&floor), 0, "what is only marked is none");
}

/// A delivery that was in flight when the process ended cannot be read at the start.
#[test]
fn a_delivery_that_cannot_be_read_does_not_replace_the_retry_that_it_is() {
    let (mut floor, _) = offered(2, 9);
    let first = floor.next(NOW).unwrap();
    fail(&mut floor, &first);
    let unread = |seq| Exception {
        ordinal: Ordinal(1),
        seq: Seq(seq),
        state: ExceptionState::Retry,
        attempts: 0,
        sent: 0,
        due_at: NOW,
        since: NOW,
        reason: "storage".to_owned(),
        has_old_batch_id: false,
    };
    floor.retry_unread(unread(1));
    floor.retry_unread(unread(2));
    let retries = floor.desk(Ordinal(1)).unwrap().retries_after(Seq::ZERO, 9);
    let attempts: Vec<(Seq, u32)> = retries.iter().map(|retry| (retry.seq, retry.attempts)).collect();
    assert_eq!(attempts, [(Seq(1), 1), (Seq(2), 0)]);
    assert_eq!(floor.take_doubtful().len(), 1, "the second may be a dead letter");
}

/// Retention tells of a letter after a list found that there is none.
#[test]
fn a_subscription_that_believes_in_letters_asks_for_them_although_there_can_be_none() {
    let (mut floor, _) = offered(1, 1);
    floor.letters_went(Ordinal(1));
    assert!(!floor.is_unsettled(), "it never had any");
    let first = floor.next(NOW).unwrap();
    fail(&mut floor, &first);
    floor.change(Ordinal(1), |desk| desk.dead_to = Seq::ZERO);
    floor.letters_went(Ordinal(1));
    assert!(floor.is_unsettled(), "it counts one");
}

/// Retention takes letters while those of the subscription are counted.
#[test]
fn letters_that_went_while_they_were_counted_are_counted_once_more() {
    let (mut floor, _) = offered(4, 1);
    while let Some(flight) = floor.next(NOW) {
        fail(&mut floor, &flight);
    }
    save(&mut floor);
    floor.miscount(Ordinal(1));
    assert_eq!(floor.take_miscounted().len(), 1);
    // Storage said 4 before one went.
    floor.miscount(Ordinal(1));
    floor.recount(Ordinal(1), 4, &BTreeMap::new());
    assert!(floor.wants_save(), "to count once more");
    floor.take_miscounted();
    floor.recount(Ordinal(1), 3, &BTreeMap::new());
    assert_eq!((dead(&floor), floor.wants_save()), (3, false));
}

/// What storage has is damaged, or the lane ends before it could be asked.
#[test]
fn deliveries_that_are_never_looked_up_are_counted() {
    let (mut floor, _) = offered(2, 1);
    floor.change(Ordinal(1), |desk| desk.dead_to = Seq(9));
    while let Some(flight) = floor.next(NOW) {
        succeed(&mut floor, &flight);
    }
    floor.leave_listed(Some(Ordinal(2)));
    assert_eq!((floor.recovered().len(), floor.left_listed), (2, 0));
    floor.leave_listed(Some(Ordinal(1)));
    assert_eq!((floor.recovered().len(), floor.left_listed, floor.is_unsettled()), (0, 2, false));
}
