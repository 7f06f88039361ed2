//! Skips, seeks and redrives: what they pass over is marked, and what they post goes out once.

use super::*;
use hookcast_core::model::delivery::ExpiredRange;
use hookcast_core::model::subscription::OrderKey;

/// A cursor that is moved forward while somebody stores a change stays there when the change comes, and nothing behind it is
/// looked at before that.
#[test]
fn a_cursor_moved_while_a_change_is_stored_stays_where_it_was_put() {
    for is_skip in [false, true] {
        let mut floor = Floor::new(Seq::ZERO, 64);
        floor.add(record(1), &Progress { base: Seq::ZERO, holes: Vec::new() });
        let paused = SubscriptionRecord { activity: Activity::Paused, ..SubscriptionRecord::clone(&record(1)) };
        floor.redefine(&Arc::new(paused));
        floor.scan(&page(1, 20));
        let from_seq = floor.freeze(Ordinal(1)).unwrap();
        if is_skip {
            floor.skip(Ordinal(1), Seq(20));
        } else {
            floor.seek(Ordinal(1), Seq(20));
        }
        floor.scan(&page(21, 5));
        assert_eq!(floor.desk(Ordinal(1)).unwrap().window.waiting(), 0, "nothing is looked at before the change");
        let mut changed = SubscriptionRecord::clone(&record(1));
        let (topics, types) = (changed.spec.topics.clone(), vec!["message".to_owned()]);
        changed.spec.types.clone_from(&types);
        changed.revisions.retain(|revision| revision.from_seq < from_seq);
        changed.revisions.push(Revision { from_seq, topics, types, filter: None, is_change: true });
        floor.redefine(&Arc::new(changed));
        floor.thaw(Ordinal(1));
        for (place, at) in hungry(&mut floor) {
            assert_eq!(at, Seq(20));
            floor.feed(&mut vec![place], &[page(21, 5)], at);
        }
        let taken: Vec<u64> = std::iter::from_fn(|| floor.next(NOW)).map(|flight| flight.job.seq.0).collect();
        assert_eq!(taken, [21, 22, 23, 24, 25], "is_skip: {is_skip}");
    }
}

#[test]
fn a_dead_letter_that_dies_again_when_it_is_redriven_holds_up_what_is_behind_it() {
    let mut floor = Floor::new(Seq::ZERO, 64);
    let mut strict = SubscriptionRecord::clone(&record(1));
    (strict.spec.ordering, strict.spec.on_dead, strict.spec.retry.max_attempts) = (Ordering::Strict, OnDead::Block, 1);
    floor.add(Arc::new(strict), &Progress { base: Seq::ZERO, holes: Vec::new() });
    let events = page(1, 2);
    floor.scan(&events);
    let fail = |floor: &mut Floor, flight: &Assignment| {
        floor.settle(flight, None, &outcome(Some(ErrorKind::Connect)), (NOW, NOW), 0.5);
    };
    floor.change(Ordinal(1), |desk| {
        let order = desk.order().unwrap();
        order.letters.looked_up(&order.unread(0).1.unwrap(), true);
    });
    let first = floor.next(NOW).unwrap();
    assert_eq!(first.job.seq, Seq(1));
    fail(&mut floor, &first);
    assert!(floor.next(NOW).is_none(), "the dead letter holds it up");
    floor.recover(redrive(Seq(1), Seq(1)));
    let want = floor.replay_wants().remove(0).1;
    let parcel = events.get(Seq(1)).map(|event| Rc::new(Parcel::new(event)));
    let item = ReplayItem { seq: Seq(1), parcel, dead_after: Some(1), line: None };
    floor.fill_replay(Ordinal(1), &want, vec![item], Seq(1), true);
    let again = floor.next(NOW).unwrap();
    assert_eq!((again.job.seq, again.job.attempt), (Seq(1), 2));
    fail(&mut floor, &again);
    assert_eq!(floor.next(NOW).map(|flight| flight.job.seq), None, "it is dead once more");
    let order = floor.desk(Ordinal(1)).unwrap().order_in_force().unwrap();
    assert!(order.is_blocking(Seq(1)) && !order.is_unsorted(), "nothing has to be looked up for it");
    assert_eq!(floor.desk(Ordinal(1)).unwrap().totals.dead(), 1);
}

/// Everything is dead, or waits behind what is, and the circuit is open: what is redriven is the probe, or nothing would ever go out.
#[test]
fn a_redrive_probes_where_nothing_else_can() {
    for (ordering, attempts) in [(Ordering::None, 1), (Ordering::Strict, 10)] {
        let mut floor = Floor::new(Seq::ZERO, 64);
        let mut dying = SubscriptionRecord::clone(&record(1));
        dying.spec.retry.max_attempts = attempts;
        (dying.spec.ordering, dying.spec.on_dead) = (ordering.clone(), OnDead::Block);
        floor.add(Arc::new(dying), &Progress { base: Seq::ZERO, holes: Vec::new() });
        let events = page(1, 10);
        floor.scan(&events);
        floor.change(Ordinal(1), |desk| {
            if let Some(order) = desk.order() {
                order.letters.looked_up(&order.unread(0).1.unwrap(), true);
            }
        });
        let mut now = NOW;
        for _ in 0..10 {
            floor.fire_timers(now);
            let assignment = floor.next(now).unwrap();
            floor.settle(&assignment, None, &outcome(Some(ErrorKind::Connect)), (now, now), 0.5);
            now = now.plus(Duration::from_secs(6));
        }
        let is_open = |floor: &Floor| floor.desk(Ordinal(1)).unwrap().circuit().is_open();
        assert!(is_open(&floor));
        let letters = if ordering == Ordering::None { [1, 2].as_slice() } else { &[1] };
        floor.recover(redrive(Seq(1), Seq(2)));
        let want = floor.replay_wants().remove(0).1;
        let item = |seq: &u64| {
            let parcel = events.get(Seq(*seq)).map(|event| Rc::new(Parcel::new(event)));
            ReplayItem { seq: Seq(*seq), parcel, dead_after: Some(attempts), line: None }
        };
        floor.fill_replay(Ordinal(1), &want, letters.iter().map(item).collect(), Seq(2), true);
        floor.fire_timers(now);
        assert!(floor.next(now).is_none(), "{ordering:?}: a probe is not due");
        let later = now.plus(Duration::from_hours(1));
        floor.fire_timers(later);
        let probe = floor.next(later).unwrap();
        assert_eq!((probe.job.seq, probe.job.attempt), (Seq(1), attempts + 1));
        assert!(floor.next(later).is_none(), "{ordering:?}: one probe at a time");
        floor.settle(&probe, None, &outcome(None), (later, later), 0.5);
        assert!(!is_open(&floor));
        assert_eq!(floor.next(later).map(|next| next.job.seq), Some(Seq(2)), "{ordering:?}: the next letter, or what it held up");
    }
}

/// A job posts events far behind the cursor; one that fails waits there as a retry.
#[test]
fn a_skip_over_a_retry_that_is_ahead_of_the_cursor_marks_everything_before_it_too() {
    let (mut floor, _) = lagging();
    let lease = Lease { partition: 1, epoch: 1 };
    floor.hold(lease, 1);
    floor.retry_unread(retry_at(150));
    floor.skip(Ordinal(1), Seq(180));
    let skipped: Vec<_> = floor.take_unsaved().into_iter().flat_map(|change| change.skipped).collect();
    assert_eq!(skipped, [ExpiredRange { ordinal: Ordinal(1), from: Seq(101), to: Seq(180) }]);
    assert_eq!(floor.desk(Ordinal(1)).unwrap().totals.skipped, 80);
}

/// It is not passed over: it goes out all the same.
#[test]
fn a_seek_forward_over_a_retry_that_is_ahead_of_the_cursor_leaves_that_out() {
    let (mut floor, _) = lagging();
    floor.hold(Lease { partition: 1, epoch: 1 }, 1);
    floor.retry_unread(retry_at(150));
    floor.seek(Ordinal(1), Seq(180));
    let skipped: Vec<_> = floor.take_unsaved().into_iter().flat_map(|change| change.skipped).collect();
    let range = |from, to| ExpiredRange { ordinal: Ordinal(1), from: Seq(from), to: Seq(to) };
    assert_eq!(skipped, [range(101, 149), range(151, 180)]);
    assert!(floor.desk(Ordinal(1)).unwrap().retry(Seq(150)).is_some());
}

/// The one that was in flight when the job posted it is both: not settled, and a retry.
#[test]
fn a_seek_forward_leaves_out_what_a_job_posted_in_vain() {
    let (mut floor, _first) = with_one_twice();
    floor.seek(Ordinal(1), Seq(3));
    let skipped: Vec<_> = floor.take_unsaved().into_iter().flat_map(|change| change.skipped).collect();
    assert_eq!(skipped, [ExpiredRange { ordinal: Ordinal(1), from: Seq(2), to: Seq(3) }]);
    assert_eq!(floor.desk(Ordinal(1)).unwrap().totals.skipped, 2);
    assert!(floor.desk(Ordinal(1)).unwrap().retry(Seq(1)).is_some());
}

/// A floor whose first event is in flight, and waits as a retry besides: a job posted it in vain meanwhile.
fn with_one_twice() -> (Floor, Assignment) {
    let mut floor = Floor::new(Seq::ZERO, 64);
    floor.hold(Lease { partition: 1, epoch: 1 }, 1);
    let mut record = SubscriptionRecord::clone(&record(1));
    (record.spec.max_retrying, record.spec.on_full, record.spec.retry.max_attempts) = (1, OnFull::Dead, 2);
    floor.add(Arc::new(record), &Progress { base: Seq::ZERO, holes: Vec::new() });
    let events = page(1, 3);
    floor.scan(&events);
    let first = floor.next(NOW).unwrap();
    floor.recover(RecoveryJob { kind: JobKind::Replay, selection: Selection::All, ..redrive(Seq(1), Seq(1)) });
    let want = floor.replay_wants().remove(0).1;
    let parcel = events.get(Seq(1)).map(|event| Rc::new(Parcel::new(event)));
    floor.fill_replay(Ordinal(1), &want, vec![ReplayItem { seq: Seq(1), parcel, dead_after: None, line: None }], Seq(1), true);
    let again = floor.next(NOW).unwrap();
    assert_eq!((first.job.seq, again.job.seq), (Seq(1), Seq(1)));
    floor.settle(&again, None, &outcome(Some(ErrorKind::Connect)), (NOW, NOW), 0.5);
    assert!(floor.desk(Ordinal(1)).unwrap().retry(Seq(1)).is_some());
    (floor, first)
}

#[test]
fn a_first_attempt_leaves_what_is_left_to_do_to_the_retry_of_a_job() {
    let (mut floor, first) = with_one_twice();
    floor.settle(&first, None, &outcome(Some(ErrorKind::Connect)), (NOW, NOW), 0.5);
    let desk = floor.desk(Ordinal(1)).unwrap();
    assert_eq!((desk.totals.dead(), desk.retry(Seq(1)).is_some()), (0, true), "one of the two decides");

    let (mut floor, first) = with_one_twice();
    floor.settle(&first, None, &outcome(None), (NOW, NOW), 0.5);
    let desk = floor.desk(Ordinal(1)).unwrap();
    assert_eq!((desk.totals.dead(), desk.retry(Seq(1)).is_some()), (0, false), "nothing is left to do");
    assert!(floor.take_unsaved().iter().all(|change| change.put.is_empty()), "and nothing is stored of it");
}

#[test]
fn an_event_that_died_by_a_job_and_dies_again_at_the_cursor_is_one_dead_letter() {
    let (mut floor, first) = with_one_twice();
    let later = NOW.plus(Duration::from_secs(6));
    floor.fire_timers(later);
    let retry = floor.next(later).unwrap();
    assert_eq!(retry.job.seq, Seq(1));
    floor.settle(&retry, None, &outcome(Some(ErrorKind::Connect)), (later, later), 0.5);
    assert_eq!(floor.desk(Ordinal(1)).unwrap().totals.dead(), 1);
    floor.take_unsaved();
    floor.change(Ordinal(1), |desk| {
        let mut full = SubscriptionRecord::clone(&desk.record);
        full.spec.retry.max_attempts = 1;
        desk.redefine(Arc::new(full));
    });
    floor.settle(&first, None, &outcome(Some(ErrorKind::Connect)), (later, later), 0.5);
    assert_eq!(floor.desk(Ordinal(1)).unwrap().totals.dead(), 1, "storage has to be asked first");
    let doubtful: Vec<_> = floor.take_doubtful().into_iter().collect();
    assert_eq!(doubtful, [((Ordinal(1), Seq(1)), ExceptionState::Dead)]);
}

/// Retention may take its event before the retry is stored: its line is known from the job.
#[test]
fn a_retry_of_a_job_keeps_its_line_without_its_event_being_read_again() {
    let keyed = |seq: u64| {
        let mut builder = PageBuilder::starting_at(Seq(seq));
        let data = bytes::Bytes::from_static(b"{\"k\":1}");
        builder.push(&NewEvent { content_type: "application/json".into(), form: DataForm::Json, data, ..new_event("t", seq) });
        builder.finish()
    };
    let mut floor = Floor::new(Seq(1), 64);
    let mut ordered = SubscriptionRecord::clone(&record(1));
    ordered.spec.ordering = Ordering::Key(OrderKey::Pointer("/k".to_owned()));
    floor.add(Arc::new(ordered), &Progress { base: Seq(1), holes: Vec::new() });
    floor.recover(RecoveryJob { kind: JobKind::Replay, selection: Selection::All, ..redrive(Seq(1), Seq(1)) });
    let want = floor.replay_wants().remove(0).1;
    let parcel = keyed(1).get(Seq(1)).map(|event| Rc::new(Parcel::new(event)));
    floor.fill_replay(Ordinal(1), &want, vec![ReplayItem { seq: Seq(1), parcel, dead_after: None, line: None }], Seq(1), true);
    let posted = floor.next(NOW).unwrap();
    floor.settle(&posted, None, &outcome(Some(ErrorKind::Connect)), (NOW, NOW), 0.5);
    assert!(!floor.desk(Ordinal(1)).unwrap().order_in_force().unwrap().is_unsorted(), "nothing has to be read for it");
    floor.scan(&keyed(2));
    assert!(floor.next(NOW).is_none(), "the next of its key waits for it");
    let later = NOW.plus(Duration::from_secs(6));
    floor.fire_timers(later);
    assert_eq!(floor.next(later).map(|retry| retry.job.seq), Some(Seq(1)));
}

/// The same where the retry is of an earlier process.
#[test]
fn an_event_that_died_as_a_stored_retry_and_dies_again_at_the_cursor_is_one_dead_letter() {
    let mut floor = Floor::new(Seq::ZERO, 64);
    floor.hold(Lease { partition: 1, epoch: 1 }, 1);
    let mut record = SubscriptionRecord::clone(&record(1));
    record.spec.retry.max_attempts = 1;
    let place = floor.add(Arc::new(record), &Progress { base: Seq::ZERO, holes: Vec::new() });
    floor.desks[place].as_deref_mut().unwrap().resume_stored(&retry_at(1), NOW);
    floor.rouse(place);
    floor.fire_timers(NOW);
    let fail = |floor: &mut Floor, flight: &Assignment| {
        assert_eq!(flight.job.seq, Seq(1));
        floor.settle(flight, None, &outcome(Some(ErrorKind::Connect)), (NOW, NOW), 0.5);
        floor.take_unsaved();
    };
    let retry = floor.next(NOW).unwrap();
    fail(&mut floor, &retry);
    assert_eq!(floor.desk(Ordinal(1)).unwrap().totals.dead(), 1);
    floor.scan(&page(1, 1));
    let first = floor.next(NOW).unwrap();
    fail(&mut floor, &first);
    assert_eq!(floor.desk(Ordinal(1)).unwrap().totals.dead(), 1);
    assert_eq!(floor.take_doubtful().into_keys().collect::<Vec<_>>(), [(Ordinal(1), Seq(1))]);
}

fn retry_at(seq: u64) -> Exception {
    Exception {
        ordinal: Ordinal(1),
        seq: Seq(seq),
        state: ExceptionState::Retry,
        attempts: 1,
        sent: 1,
        due_at: NOW,
        since: NOW,
        reason: "status_500".to_owned(),
        has_old_batch_id: false,
    }
}
