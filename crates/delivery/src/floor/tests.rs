//! Desks that are moved, stopped and fed: nothing is lost, nothing is called expired that is still in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::job::Errand;
use crate::replays::ReplayItem;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::event::DataForm;
use hookcast_core::model::job::{JobKind, JobState, Selection};
use hookcast_core::model::outcome::Answer;
use hookcast_core::model::subscription::{
    Activity, OnDead, OnFull, Ordering, PayloadForm, RetryPolicy, Revision, Signature, SubscriptionSpec, Verify,
};
use hookcast_core::model::{ErrorKind, Exception, JobId, NewEvent, PageBuilder, RecoveryJob, SubscriptionId, Topic};

mod awake;
mod changing;
mod letters;
mod recovery;

const NOW: Timestamp = Timestamp(1_750_000_000_000);

fn record(ordinal: u64) -> Arc<SubscriptionRecord> {
    let topics: hookcast_core::model::PatternList = "t".parse().unwrap();
    let spec = SubscriptionSpec {
        id: SubscriptionId::parse(&format!("s{ordinal}")).unwrap(),
        url: "https://example.com/".to_owned(),
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
        max_in_flight: 16,
        max_retrying: 1000,
        on_full: OnFull::Wait,
        retry: RetryPolicy { max_attempts: 10, schedule: vec![Duration::from_secs(5)], jitter: 0.0 },
        timeout: Duration::from_secs(15),
        description: String::new(),
        metadata: BTreeMap::new(),
    };
    Arc::new(SubscriptionRecord {
        spec,
        ordinal: Ordinal(ordinal),
        revision: 1,
        activity: Activity::Active,
        starts_after: Seq::ZERO,
        consent: None,
        websub: None,
        revisions: vec![Revision { from_seq: Seq(1), topics, types: Vec::new(), filter: None, is_change: false }],
        declared: false,
        made_by: None,
        created_at: NOW,
        updated_at: NOW,
    })
}

fn page(first: u64, count: u64) -> Arc<Page> {
    page_of(first, (0..count).map(|_| "t"))
}

/// A page with one event for each topic.
fn page_of<'a>(first: u64, topics: impl Iterator<Item = &'a str>) -> Arc<Page> {
    let mut builder = PageBuilder::starting_at(Seq(first));
    for (index, topic) in topics.enumerate() {
        builder.push(&new_event(topic, index as u64));
    }
    builder.finish()
}

fn new_event(topic: &str, id: u64) -> NewEvent {
    NewEvent {
        topic: Topic::parse(topic).unwrap(),
        id: id.to_string(),
        own_id: false,
        source: "/publish".into(),
        kind: "message".into(),
        subject: None,
        time: None,
        arrived_at: NOW,
        content_type: "text/plain".into(),
        data_schema: None,
        extensions: Vec::new(),
        hops: 0,
        form: DataForm::Text,
        data: bytes::Bytes::from_static(b"hello"),
    }
}

fn outcome(error: Option<ErrorKind>) -> Outcome {
    error.map_or_else(|| Outcome::answered(Answer::of(200), 1), |kind| Outcome::failed(kind, 1))
}

fn redrive(from: Seq, to: Seq) -> RecoveryJob {
    RecoveryJob {
        ordinal: Ordinal(1),
        id: JobId(1),
        kind: JobKind::Redrive,
        selection: Selection::Failed,
        from,
        to,
        state: JobState::Running,
        position: from.prev(),
        events: 1,
        done: 0,
        failed: 0,
        created_at: NOW,
        ended_at: None,
    }
}

/// A floor whose reader is at 1000 and one desk that lags at 100.
fn lagging() -> (Floor, Place) {
    let mut floor = Floor::new(Seq(1000), 64);
    let place = floor.add(record(1), &Progress { base: Seq(100), holes: Vec::new() });
    (floor, place)
}

fn position(floor: &mut Floor) -> Position {
    floor.desk(Ordinal(1)).unwrap().window.position()
}

/// Whoever wants to be fed, newcomers too.
fn hungry(floor: &mut Floor) -> Vec<(Place, Seq)> {
    floor.hungry(Seq(u64::MAX), true).0
}

#[test]
fn newcomers_wait_for_each_other_and_are_then_never_held_up() {
    let (mut floor, place) = lagging();
    assert_eq!(floor.hungry(Seq(500), false), (Vec::new(), false), "it begins far behind and waits for others");
    assert!(floor.has_hungry());
    assert_eq!(floor.hungry(Seq(500), true), (vec![(place, Seq(100))], true));
    floor.feed(&mut vec![place], &[page(101, 10)], Seq(100));
    floor.note_hunger(place);
    assert_eq!(floor.hungry(Seq(500), false), (vec![(place, Seq(110))], false), "it is on its way");
    floor.seek(Ordinal(1), Seq(50));
    assert_eq!(floor.hungry(Seq(500), false).0, [], "it begins anew");
    assert_eq!(floor.hungry(Seq(50), false), (vec![(place, Seq(50))], false), "memory reaches back so far");
}

#[test]
fn who_was_not_fed_is_listed_once_more_and_who_is_full_is_not() {
    let (mut floor, place) = lagging();
    assert_eq!(hungry(&mut floor).len(), 1);
    assert!(!floor.has_hungry(), "it was taken");
    floor.note_hunger(place);
    floor.note_hunger(place);
    assert_eq!(hungry(&mut floor).len(), 1);
    let pages: Vec<Arc<Page>> = (0..5).map(|index| page(101 + index * 64, 64)).collect();
    let mut riders = vec![place];
    floor.feed(&mut riders, &pages, Seq(100));
    assert_eq!((riders.len(), position(&mut floor)), (0, Position::Lagging(Seq(356))), "its queue is full in the fourth page");
    floor.note_hunger(place);
    assert!(!floor.has_hungry());
}

#[test]
fn a_seek_in_the_middle_of_a_pass_expires_nothing() {
    let (mut floor, place) = lagging();
    let mut riders = vec![place];
    floor.feed(&mut riders, &[page(101, 10)], Seq(100));
    assert_eq!(position(&mut floor), Position::Lagging(Seq(110)));
    floor.seek(Ordinal(1), Seq::ZERO);
    floor.feed(&mut riders, &[page(111, 10)], Seq(110));
    assert!(riders.is_empty(), "another pass takes it from where it stands now");
    assert_eq!(position(&mut floor), Position::Lagging(Seq::ZERO));
    assert_eq!(floor.desk(Ordinal(1)).unwrap().totals.expired, 0);
    assert_eq!(hungry(&mut floor), [(place, Seq::ZERO)]);
}

#[test]
fn a_page_that_begins_later_than_it_was_asked_for_is_a_gap() {
    let (mut floor, place) = lagging();
    floor.feed(&mut vec![place], &[page(151, 10)], Seq(100));
    assert_eq!(floor.desk(Ordinal(1)).unwrap().totals.expired, 50);
    assert_eq!(floor.notices.len(), 1);
}

#[test]
fn an_endpoint_whose_circuit_opens_gives_its_memory_back_and_keeps_its_place() {
    let mut floor = Floor::new(Seq::ZERO, 64);
    floor.add(record(1), &Progress { base: Seq::ZERO, holes: Vec::new() });
    for first in [1, 65, 129] {
        floor.scan(&page(first, 64));
    }
    assert!(floor.waiting_bytes > 0);
    for _ in 0..10 {
        let assignment = floor.next(NOW).unwrap();
        floor.settle(&assignment, None, &outcome(Some(ErrorKind::Connect)), (NOW, NOW), 0.5);
    }
    assert_eq!(floor.waiting_bytes, 0);
    assert_eq!(position(&mut floor), Position::Lagging(Seq(10)), "the ten that failed wait as retries");
    assert!(floor.next(NOW).is_none(), "only a probe goes out, and not yet");
}

/// A probe takes no heed of when a retry is due; one that was not made must not be tried as fast as reading fails.
#[test]
fn a_probe_whose_event_cannot_be_read_waits_before_the_next() {
    for kind in [ErrorKind::Storage, ErrorKind::Internal] {
        let mut floor = Floor::new(Seq::ZERO, 64);
        floor.add(record(1), &Progress { base: Seq::ZERO, holes: Vec::new() });
        floor.scan(&page(1, 64));
        for _ in 0..10 {
            let assignment = floor.next(NOW).unwrap();
            floor.settle(&assignment, None, &outcome(Some(ErrorKind::Connect)), (NOW, NOW), 0.5);
        }
        let later = NOW.plus(Duration::from_hours(1));
        floor.fire_timers(later);
        let probe = floor.next(later).unwrap();
        floor.settle(&probe, None, &outcome(Some(kind)), (later, later), 0.5);
        assert!(floor.next(later).is_none(), "{kind:?}");
        // Each of the others has its turn before it, however far apart probes are, and then it has its own.
        let mut probes = vec![probe.job.seq.0];
        for round in 1..=20 {
            let then = later.plus(Duration::from_mins(10) * round);
            floor.fire_timers(then);
            let probe = floor.next(then).unwrap();
            floor.settle(&probe, None, &outcome(Some(kind)), (then, then), 0.5);
            probes.extend((probe.job.errand == Errand::Retry).then_some(probe.job.seq.0));
        }
        assert_eq!(probes[..10], (1..=10).collect::<Vec<u64>>(), "{kind:?}");
        assert_eq!(probes[10], 1, "{kind:?}");
        // One that was made and failed is the oldest again, and those that could not be made stay behind it until one succeeds.
        let mut made = Vec::new();
        for round in 30..=36 {
            let then = later.plus(Duration::from_mins(10) * round);
            floor.fire_timers(then);
            let probe = floor.next(then).unwrap();
            floor.settle(&probe, None, &outcome(Some(ErrorKind::Connect)), (then, then), 0.5);
            made.extend((probe.job.errand == Errand::Retry).then_some(probe.job.seq.0));
        }
        made.dedup();
        assert_eq!(made.len(), 1, "{kind:?}: {made:?}");
    }
}

/// Retries of before an order that must wait for each other in it: those that were passed by are made when no order is kept again.
#[test]
fn retries_that_an_order_held_up_go_when_it_is_given_up() {
    let mut floor = Floor::new(Seq::ZERO, 64);
    floor.add(record(1), &Progress { base: Seq::ZERO, holes: Vec::new() });
    floor.scan(&page(1, 2));
    let flights: Vec<Assignment> = (0..2).map(|_| floor.next(NOW).unwrap()).collect();
    let failed_at = |ms| Timestamp(NOW.0 + ms);
    let fail = |floor: &mut Floor, flight: &Assignment, at| {
        floor.settle(flight, None, &outcome(Some(ErrorKind::Connect)), (NOW, at), 0.5);
    };
    fail(&mut floor, &flights[1], failed_at(0));
    fail(&mut floor, &flights[0], failed_at(60_000));
    let ordered = |ordering| {
        let mut changed = SubscriptionRecord::clone(&record(1));
        changed.spec.ordering = ordering;
        Arc::new(changed)
    };
    floor.redefine(&ordered(Ordering::Strict));
    floor.fire_timers(failed_at(30_000));
    assert!(floor.next(failed_at(30_000)).is_none(), "the second is due, and the first is not");
    floor.redefine(&ordered(Ordering::None));
    let second = floor.next(failed_at(30_000)).map(|flight| flight.job.seq);
    assert_eq!(second, Some(Seq(2)));
}

#[test]
fn who_stands_still_for_a_change_is_not_moved_over_what_cannot_be_read() {
    let (mut floor, place) = lagging();
    let mut riders: Vec<Place> = hungry(&mut floor).into_iter().map(|(place, _)| place).collect();
    assert_eq!(floor.freeze(Ordinal(1)), Some(Seq(101)));
    floor.leave_behind(&mut riders, Seq(100), Seq(150));
    assert_eq!((position(&mut floor), riders), (Position::Lagging(Seq(100)), Vec::new()));
    floor.thaw(Ordinal(1));
    assert_eq!(hungry(&mut floor), [(place, Seq(100))]);
}

#[test]
fn one_timer_a_desk() {
    let (mut floor, place) = lagging();
    for wait in [5000, 50, 500, 20] {
        floor.wake_at(place, Timestamp(NOW.0 + wait));
    }
    assert_eq!(floor.next_timer(), Some(Timestamp(NOW.0 + 20)));
    floor.fire_timers(Timestamp(NOW.0 + 20));
    assert_eq!(floor.next_timer(), None);
}

/// Against the plain rule "every matching event is offered once, in order": however a desk is moved between riding, lagging,
/// paused and fed, it takes 1, 2, 3, … without a hole or a repeat.
#[test]
fn riding_lagging_and_pausing_take_every_event_once() {
    let mut floor = Floor::new(Seq::ZERO, 64);
    floor.add(record(1), &Progress { base: Seq::ZERO, holes: Vec::new() });
    let pages: Vec<Arc<Page>> = (0..40).map(|index| page(index * 50 + 1, 50)).collect();
    let mut random = fastrand::Rng::with_seed(7);
    let (mut taken, mut published, mut paused) = (Vec::new(), 0, false);
    while taken.len() < 2000 {
        match random.u8(0..4) {
            0 if published < pages.len() => {
                floor.scan(&pages[published]);
                published += 1;
            }
            1 => {
                paused = !paused;
                let activity = if paused { Activity::Paused } else { Activity::Active };
                let changed = SubscriptionRecord { activity, ..SubscriptionRecord::clone(&record(1)) };
                floor.redefine(&Arc::new(changed));
            }
            2 => {
                for (place, at) in hungry(&mut floor) {
                    let next = pages.iter().position(|page| page.last() > at).unwrap();
                    let to = pages.len().min(next + random.usize(1..4));
                    floor.feed(&mut vec![place], &pages[next..to], at);
                    floor.note_hunger(place);
                }
            }
            _ => {
                for _ in 0..random.u8(1..60) {
                    let Some(assignment) = floor.next(NOW) else { break };
                    taken.push(assignment.job.seq.0);
                    floor.settle(&assignment, None, &outcome(None), (NOW, NOW), 0.5);
                }
            }
        }
    }
    assert_eq!(taken, (1..=2000).collect::<Vec<u64>>());
}
