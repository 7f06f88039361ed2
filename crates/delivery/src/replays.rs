//! The recovery jobs of one subscription in memory: which events they post next, what is in flight, how far they came. Pure.
//!
//! Jobs run one after the other, in the order in which they were made. A job holds a bounded number of events; the lane
//! brings more of them as there is room ([`super::replaying`]).

use std::collections::VecDeque;
use std::rc::Rc;

use super::order::Line;
use super::parcel::Parcel;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::job::{JobKind, JobState, Selection};
use hookcast_core::model::{JobId, RecoveryJob, Seq};

/// Jobs of one subscription that run or wait for their turn.
pub const JOBS_RUNNING_MAX: usize = 4;
/// Events that wait for one subscription's jobs.
pub const REPLAY_QUEUE_MAX: usize = 128;
/// Bytes of the events that wait for one subscription's jobs, but for a single larger one.
pub const REPLAY_BYTES_MAX: usize = 1024 * 1024;

/// An event that a job posts.
#[derive(Clone, Debug)]
pub struct ReplayItem {
    /// Which event.
    pub seq: Seq,
    /// The event, when it was at hand.
    pub parcel: Option<Rc<Parcel>>,
    /// Attempts made of the dead letter that it is; absent when it is none.
    pub dead_after: Option<u32>,
    /// What it holds up while it is in flight, where order is kept.
    pub line: Option<Line>,
}

impl ReplayItem {
    fn bytes(&self) -> usize {
        self.parcel.as_ref().map_or(0, |parcel| parcel.weight())
    }
}

/// What the job whose turn it is needs.
#[derive(Clone, Debug)]
pub struct Want {
    /// Which job.
    pub id: JobId,
    /// Which events.
    pub selection: Selection,
    /// Everything up to here was looked at.
    pub after: Seq,
    /// The last position.
    pub to: Seq,
    /// Events that fit.
    pub room: usize,
    looks: u64,
}

/// The jobs of one subscription.
#[derive(Debug, Default)]
pub struct Replays {
    jobs: VecDeque<Running>,
    /// What is in flight, of jobs that were cancelled, too.
    in_flight: Vec<(JobId, JobKind, ReplayItem)>,
    /// Whether the last attempt of the subscription was of a job.
    pub went_last: bool,
}

#[derive(Debug)]
struct Running {
    job: RecoveryJob,
    /// Everything up to here was looked at.
    scanned: Seq,
    /// Rising.
    queue: VecDeque<ReplayItem>,
    queue_bytes: usize,
    is_exhausted: bool,
    is_changed: bool,
    /// Dead letters that ended since somebody began to look for events, while somebody does.
    ended: Option<Vec<Seq>>,
    /// How often it began to look anew.
    looks: u64,
}

impl Replays {
    /// Takes a job that runs; `false` when there are too many.
    pub fn add(&mut self, job: RecoveryJob) -> bool {
        if self.jobs.len() >= JOBS_RUNNING_MAX {
            return false;
        }
        let scanned = job.position;
        self.jobs.push_back(Running {
            job,
            scanned,
            queue: VecDeque::new(),
            queue_bytes: 0,
            is_exhausted: false,
            is_changed: true,
            ended: None,
            looks: 0,
        });
        true
    }

    /// Whether there is nothing left, neither jobs nor flights.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.in_flight.is_empty()
    }

    /// Attempts in flight.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        u32::try_from(self.in_flight.len()).unwrap_or(u32::MAX)
    }

    /// Whether an event waits for its attempt.
    #[must_use]
    pub fn has_next(&self) -> bool {
        self.jobs.front().is_some_and(|running| !running.queue.is_empty())
    }

    /// Bytes of the events that wait.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.jobs.iter().map(|running| running.queue_bytes).sum()
    }

    /// What the job whose turn it is needs, when there is room for it; whoever takes it looks for events now.
    #[must_use]
    pub fn want(&mut self) -> Option<Want> {
        let running = self.jobs.front_mut().filter(|running| !running.is_exhausted)?;
        // What did not fit into a batch came back on top of what was brought meanwhile.
        let room = REPLAY_QUEUE_MAX.saturating_sub(running.queue.len());
        let has_room = room >= REPLAY_QUEUE_MAX / 2 && running.queue_bytes < REPLAY_BYTES_MAX / 2;
        running.ended = has_room.then(Vec::new);
        let (job, after, looks) = (&running.job, running.scanned, running.looks);
        has_room.then(|| Want { id: job.id, selection: job.selection.clone(), after, to: job.to, room, looks })
    }

    /// Brings what a job wanted: now it has looked at everything up to `scanned`, and that was all when `is_exhausted`. Without
    /// effect when the job is another by now, or looks anew.
    pub fn fill(&mut self, want: &Want, items: Vec<ReplayItem>, scanned: Seq, is_exhausted: bool) {
        let is_wanted = |running: &Running| (running.job.id, running.scanned, running.looks) == (want.id, want.after, want.looks);
        let front = self.jobs.front_mut().filter(|running| is_wanted(running));
        let Some(running) = front else { return };
        for item in items {
            // What it has already, in flight or put back, was found once more because it looked anew.
            let is_posted = self.in_flight.iter().any(|(job, _, posted)| *job == want.id && posted.seq == item.seq);
            let place = running.queue.partition_point(|other| other.seq < item.seq);
            if is_posted || running.queue.get(place).is_some_and(|other| other.seq == item.seq) {
                continue;
            }
            running.queue_bytes += item.bytes();
            running.queue.insert(place, item);
        }
        for seq in running.ended.take().unwrap_or_default() {
            running.revive(seq);
        }
        running.scanned = scanned;
        running.is_exhausted = is_exhausted;
        running.is_changed = true;
    }

    /// This is no dead letter any more: whoever has it as one forgets that, so that it does not end twice.
    pub fn revive(&mut self, seq: Seq) {
        for (.., item) in self.in_flight.iter_mut().filter(|(.., item)| item.seq == seq) {
            item.dead_after = None;
        }
        for running in &mut self.jobs {
            running.revive(seq);
        }
    }

    /// This dead letter died again, after so many attempts: whoever has it as one goes on counting from there.
    pub fn die_again(&mut self, seq: Seq, sent: u32) {
        let waiting = self.jobs.iter_mut().flat_map(|running| &mut running.queue);
        let items = waiting.chain(self.in_flight.iter_mut().map(|(.., item)| item));
        for item in items.filter(|item| item.seq == seq && item.dead_after.is_some()) {
            item.dead_after = Some(sent);
        }
    }

    /// Letters in flight, and those among the events of whoever posts all.
    #[must_use]
    pub fn letters(&self) -> Vec<Seq> {
        let waiting = self.jobs.iter().filter(|running| !running.wants_dead()).flat_map(|running| &running.queue);
        let items = waiting.chain(self.in_flight.iter().map(|(.., item)| item));
        items.filter(|item| item.dead_after.is_some()).map(|item| item.seq).collect()
    }

    /// What became of dead letters is not known one by one, but for those of [`Replays::letters`]: whoever waits to post some looks
    /// for them once more, and what is being looked for is looked for again.
    pub fn look_anew(&mut self) {
        for running in &mut self.jobs {
            running.looks += 1;
            if !running.wants_dead() {
                continue;
            }
            if let Some(first) = running.queue.front() {
                running.scanned = running.scanned.min(first.seq.prev());
                running.is_exhausted = false;
            }
            running.queue.clear();
            running.queue_bytes = 0;
        }
    }

    /// The event that waits for the next attempt.
    #[must_use]
    pub fn next(&self) -> Option<&ReplayItem> {
        self.jobs.front()?.queue.front()
    }

    /// The next event, now in flight; `line_of` gives what it holds up.
    pub fn take(&mut self, line_of: impl FnOnce(&ReplayItem) -> Option<Line>) -> Option<(JobId, ReplayItem)> {
        let running = self.jobs.front_mut()?;
        let mut item = running.queue.pop_front()?;
        running.queue_bytes -= item.bytes();
        item.line = line_of(&item);
        let taken = item.clone();
        // The event itself travels with the attempt.
        item.parcel = None;
        self.in_flight.push((running.job.id, running.job.kind, item));
        self.went_last = true;
        Some((running.job.id, taken))
    }

    /// Ends a flight; gives what asked for it, and the event.
    pub fn end(&mut self, id: JobId, seq: Seq, is_success: bool) -> Option<(JobKind, ReplayItem)> {
        let index = self.in_flight.iter().position(|(job, _, item)| *job == id && item.seq == seq)?;
        let (_, kind, item) = self.in_flight.swap_remove(index);
        if let Some(running) = self.jobs.iter_mut().find(|running| running.job.id == id) {
            running.job.done += 1;
            running.job.failed += u64::from(!is_success);
            running.is_changed = true;
        }
        Some((kind, item))
    }

    /// Puts an event back that was not posted after all, at its place among those that wait, with the event if it is at hand;
    /// gives what it held up. One that was to be posted because it was dead, and is not any more, does not wait again.
    pub fn put_back(&mut self, id: JobId, seq: Seq, parcel: Option<&Rc<Parcel>>) -> Option<Line> {
        let index = self.in_flight.iter().position(|(job, _, item)| *job == id && item.seq == seq)?;
        let (_, _, mut item) = self.in_flight.swap_remove(index);
        let line = item.line.take();
        let running = self.jobs.iter_mut().find(|running| running.job.id == id);
        if let Some(running) = running.filter(|running| !running.wants_dead() || item.dead_after.is_some()) {
            item.parcel = parcel.map(Rc::clone);
            running.queue_bytes += item.bytes();
            let place = running.queue.partition_point(|other| other.seq < seq);
            running.queue.insert(place, item);
        }
        line
    }

    /// Ends a job before its end.
    pub fn cancel(&mut self, id: JobId, now: Timestamp) -> Option<RecoveryJob> {
        let index = self.jobs.iter().position(|running| running.job.id == id)?;
        let position = self.position(&self.jobs[index]);
        let mut job = self.jobs.remove(index)?.job;
        job.position = position;
        Some(RecoveryJob { state: JobState::Cancelled, ended_at: Some(now), ..job })
    }

    /// The jobs that run.
    #[must_use]
    pub fn jobs(&self) -> Vec<RecoveryJob> {
        self.jobs.iter().map(|running| RecoveryJob { position: self.position(running), ..running.job.clone() }).collect()
    }

    /// Jobs that changed since they were asked for last, with those that are done, which go.
    pub fn take_changed(&mut self, now: Timestamp) -> Vec<RecoveryJob> {
        let mut changed = Vec::new();
        while let Some(running) = self.jobs.front() {
            let has_flight = self.in_flight.iter().any(|(job, ..)| *job == running.job.id);
            if !running.is_exhausted || !running.queue.is_empty() || has_flight {
                break;
            }
            let Some(Running { job, .. }) = self.jobs.pop_front() else { break };
            let (position, events) = (job.to, job.done);
            changed.push(RecoveryJob { state: JobState::Done, position, events, ended_at: Some(now), ..job });
        }
        for index in 0..self.jobs.len() {
            if std::mem::take(&mut self.jobs[index].is_changed) {
                let position = self.position(&self.jobs[index]);
                changed.push(RecoveryJob { position, ..self.jobs[index].job.clone() });
            }
        }
        changed
    }

    /// Everything up to here was posted.
    fn position(&self, running: &Running) -> Seq {
        let flights = self.in_flight.iter().filter(|(job, ..)| *job == running.job.id).map(|(.., item)| item.seq);
        let open = flights.chain(running.queue.front().map(|item| item.seq)).min();
        open.map_or(running.scanned, |open| open.prev().min(running.scanned))
    }
}

impl Running {
    /// Whether it posts events because they are dead letters.
    fn wants_dead(&self) -> bool {
        self.job.selection != Selection::All
    }

    /// What was to be posted because it was dead is not any more.
    fn revive(&mut self, seq: Seq) {
        if let Some(ended) = &mut self.ended {
            ended.push(seq);
        }
        let wants_dead = self.wants_dead();
        self.queue.retain_mut(|item| {
            if item.seq != seq || item.dead_after.is_none() {
                return true;
            }
            item.dead_after = None;
            self.queue_bytes -= if wants_dead { item.bytes() } else { 0 };
            !wants_dead
        });
    }
}

#[cfg(test)]
mod tests;
