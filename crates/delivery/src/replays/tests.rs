//! What a job has left to post: order, room, and events that come back.

use super::*;
use hookcast_core::model::subscription::Ordinal;

fn job(id: u64, to: u64) -> RecoveryJob {
    RecoveryJob {
        ordinal: Ordinal(1),
        id: JobId(id),
        kind: JobKind::Replay,
        selection: Selection::All,
        from: Seq(1),
        to: Seq(to),
        state: JobState::Running,
        position: Seq(0),
        events: to,
        done: 0,
        failed: 0,
        created_at: Timestamp(0),
        ended_at: None,
    }
}

fn items(seqs: std::ops::RangeInclusive<u64>) -> Vec<ReplayItem> {
    seqs.map(|seq| ReplayItem { seq: Seq(seq), parcel: None, dead_after: None, line: None }).collect()
}

/// Brings what job `id` wanted when it had looked at everything up to `after`.
fn fill(replays: &mut Replays, (id, after): (u64, u64), items: Vec<ReplayItem>, scanned: Seq, is_exhausted: bool) {
    let want = Want { id: JobId(id), selection: Selection::All, after: Seq(after), to: Seq::ZERO, room: 0, looks: 0 };
    replays.fill(&want, items, scanned, is_exhausted);
}

#[test]
fn a_position_stands_before_the_oldest_that_is_not_posted() {
    let mut replays = Replays::default();
    assert!(replays.add(job(1, 10)));
    assert_eq!(replays.want().unwrap().after, Seq(0));
    fill(&mut replays, (1, 0), items(1..=10), Seq(10), true);
    let taken: Vec<u64> = (0..3).filter_map(|_| replays.take(|_| None)).map(|(_, item)| item.seq.0).collect();
    assert_eq!(taken, [1, 2, 3]);
    replays.end(JobId(1), Seq(1), true);
    replays.end(JobId(1), Seq(3), false);
    let changed = replays.take_changed(Timestamp(9));
    assert_eq!((changed[0].position, changed[0].done, changed[0].failed), (Seq(1), 2, 1));
    replays.end(JobId(1), Seq(2), true);
    assert_eq!(replays.jobs()[0].position, Seq(3));
    while let Some((id, item)) = replays.take(|_| None) {
        replays.end(id, item.seq, true);
    }
    let done = replays.take_changed(Timestamp(9)).remove(0);
    assert_eq!((done.state, done.done, done.ended_at), (JobState::Done, 10, Some(Timestamp(9))));
    assert!(replays.is_empty());
}

#[test]
fn jobs_wait_for_their_turn_and_there_are_only_so_many() {
    let mut replays = Replays::default();
    for id in 0..JOBS_RUNNING_MAX as u64 {
        assert!(replays.add(job(id, 1)));
    }
    assert!(!replays.add(job(99, 1)));
    assert_eq!(replays.want().unwrap().id, JobId(0));
    // What comes for a job whose turn it is not is not taken.
    fill(&mut replays, (1, 0), items(1..=1), Seq(1), true);
    assert!(!replays.has_next());
    fill(&mut replays, (0, 0), Vec::new(), Seq(1), true);
    assert_eq!(replays.take_changed(Timestamp(1))[0].state, JobState::Done);
    assert_eq!(replays.want().unwrap().id, JobId(1));
}

#[test]
fn what_comes_back_on_top_of_a_full_queue_asks_for_nothing_more() {
    let mut replays = Replays::default();
    replays.add(job(1, 1000));
    fill(&mut replays, (1, 0), items(1..=100), Seq(100), false);
    let taken: Vec<Seq> = (0..100).filter_map(|_| replays.take(|_| None)).map(|(_, item)| item.seq).collect();
    fill(&mut replays, (1, 100), items(101..=228), Seq(228), false);
    for seq in taken.into_iter().rev() {
        replays.put_back(JobId(1), seq, None);
    }
    assert!(replays.want().is_none());
    assert_eq!(replays.next().unwrap().seq, Seq(1));
}

#[test]
fn what_comes_back_in_any_order_is_posted_in_its_own_and_none_is_passed_over() {
    let mut replays = Replays::default();
    replays.add(job(1, 9));
    fill(&mut replays, (1, 0), items(1..=9), Seq(9), true);
    for _ in 0..4 {
        replays.take(|_| None);
    }
    for seq in [1, 3, 2] {
        replays.put_back(JobId(1), Seq(seq), None);
    }
    replays.end(JobId(1), Seq(4), true);
    assert_eq!(replays.take_changed(Timestamp(9))[0].position, Seq(0), "a restart goes on behind this");
    let taken: Vec<u64> = std::iter::from_fn(|| replays.take(|_| None)).map(|(_, item)| item.seq.0).collect();
    assert_eq!(taken, [1, 2, 3, 5, 6, 7, 8, 9]);
}

#[test]
fn a_letter_that_ended_on_its_way_does_not_come_back() {
    for (selection, waits) in [(Selection::Failed, false), (Selection::All, true)] {
        let mut replays = Replays::default();
        replays.add(RecoveryJob { selection, ..job(1, 1) });
        let dead = items(1..=1).into_iter().map(|item| ReplayItem { dead_after: Some(1), ..item }).collect();
        fill(&mut replays, (1, 0), dead, Seq(1), true);
        replays.take(|_| None);
        replays.revive(Seq(1));
        replays.put_back(JobId(1), Seq(1), None);
        assert_eq!((replays.has_next(), replays.waiting_bytes()), (waits, 0));
    }
}

#[test]
fn a_letter_that_ended_waits_for_no_job_whether_it_was_brought_or_is_looked_for() {
    for (selection, wanted) in [(Selection::Failed, vec![1, 3, 4, 6]), (Selection::All, vec![1, 2, 3, 4, 5, 6])] {
        let mut replays = Replays::default();
        replays.add(RecoveryJob { selection, ..job(1, 6) });
        let dead = |seqs| items(seqs).into_iter().map(|item| ReplayItem { dead_after: Some(1), ..item }).collect();
        assert_eq!(replays.want().unwrap().after, Seq(0));
        fill(&mut replays, (1, 0), dead(1..=3), Seq(3), false);
        replays.revive(Seq(2));
        assert_eq!(replays.want().unwrap().after, Seq(3));
        replays.revive(Seq(5));
        fill(&mut replays, (1, 3), dead(4..=6), Seq(6), true);
        let taken: Vec<_> = std::iter::from_fn(|| replays.take(|_| None)).map(|(_, item)| item).collect();
        assert_eq!(taken.iter().map(|item| item.seq.0).collect::<Vec<_>>(), wanted);
        assert!(taken.iter().all(|item| item.dead_after.is_none() == matches!(item.seq.0, 2 | 5)));
        assert_eq!(replays.waiting_bytes(), 0);
    }
}

#[test]
fn what_is_in_flight_when_a_job_is_cancelled_still_ends() {
    let mut replays = Replays::default();
    replays.add(job(1, 5));
    fill(&mut replays, (1, 0), items(1..=5), Seq(5), true);
    replays.take(|_| None);
    let cancelled = replays.cancel(JobId(1), Timestamp(3)).unwrap();
    assert_eq!((cancelled.state, cancelled.position), (JobState::Cancelled, Seq(0)));
    assert!(!replays.is_empty() && !replays.has_next());
    assert!(replays.end(JobId(1), Seq(1), true).is_some());
    assert!(replays.end(JobId(1), Seq(1), true).is_none());
    assert!(replays.is_empty());
}

#[test]
fn who_looks_anew_passes_over_nothing_and_posts_nothing_twice() {
    let mut replays = Replays::default();
    assert!(replays.add(RecoveryJob { kind: JobKind::Redrive, selection: Selection::Failed, ..job(1, 6) }));
    let letters = |seqs: std::ops::RangeInclusive<u64>| -> Vec<ReplayItem> {
        items(seqs).into_iter().map(|item| ReplayItem { dead_after: Some(1), ..item }).collect()
    };
    fill(&mut replays, (1, 0), letters(1..=4), Seq(6), true);
    for _ in 0..3 {
        replays.take(|_| None);
    }
    replays.put_back(JobId(1), Seq(1), None);
    replays.look_anew();
    assert_eq!(replays.jobs()[0].position, Seq(0), "1 was not posted");
    let want = replays.want().unwrap();
    assert_eq!((want.after, want.to), (Seq(0), Seq(6)));
    replays.put_back(JobId(1), Seq(3), None);
    replays.fill(&want, letters(1..=4), Seq(6), true);
    replays.end(JobId(1), Seq(2), true);
    let posted: Vec<u64> = std::iter::from_fn(|| replays.take(|_| None)).map(|(_, item)| item.seq.0).collect();
    assert_eq!(posted, [1, 3, 4]);
}
