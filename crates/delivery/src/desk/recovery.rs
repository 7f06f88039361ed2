//! A desk's part in recovery: when a job may post, what its outcome means, what skipping settles, which retries wait.

use std::rc::Rc;

use super::flight::Flight;
use super::{Desk, Effect, Retry};
use crate::batch::Member;
use crate::job::{Errand, Job, Next};
use crate::order::{Fate, Line, Order};
use crate::parcel::Parcel;
use crate::policy::Before;
use crate::replays::{ReplayItem, Replays};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::job::JobKind;
use hookcast_core::model::subscription::{OnFull, Ordering};
use hookcast_core::model::{Exception, ExceptionState, JobId, Outcome, RecoveryJob, Seq};

impl Desk {
    /// The jobs of this subscription; made when there are none.
    pub fn replays_mut(&mut self) -> &mut Replays {
        self.replays.get_or_insert_default()
    }

    /// The jobs that run.
    #[must_use]
    pub fn jobs(&self) -> Vec<RecoveryJob> {
        self.replays.as_ref().map_or_else(Vec::new, |replays| replays.jobs())
    }

    /// Gives the memory of jobs back when there are none; `false` then.
    pub fn keep_replays(&mut self) -> bool {
        self.replays = self.replays.take().filter(|replays| !replays.is_empty());
        self.replays.is_some()
    }

    /// Attempts of jobs in flight.
    #[must_use]
    pub fn replays_in_flight(&self) -> u32 {
        self.replays.as_ref().map_or(0, |replays| replays.in_flight())
    }

    /// Whether the next attempt is one of a job. Jobs have at most half of what may be in flight, so that an event that comes
    /// up finds a place, and of the tokens every other one while something else waits. An ordered subscription's jobs post
    /// one event after the other. Failures become retries, for which there must be room.
    pub(super) fn replay_goes(&self, has_live: bool) -> bool {
        let Some(replays) = self.replays.as_deref() else { return false };
        let spec = &self.record.spec;
        let is_single = spec.ordering != Ordering::None || self.batching.is_some();
        let share = if is_single { 1 } else { self.in_flight_allowed().div_ceil(2) };
        let held = self.retrying() + u32::try_from(self.window.in_flight()).unwrap_or(u32::MAX) + replays.in_flight();
        replays.has_next()
            && !(has_live && replays.went_last)
            && replays.in_flight() < share
            && (spec.on_full == OnFull::Dead || held < spec.max_retrying)
            && !self.is_in_the_way(replays)
    }

    /// Whether the next event of a job must wait for one in flight that it is ordered with; a batch of them for everything.
    fn is_in_the_way(&self, replays: &Replays) -> bool {
        let Some(order) = self.order.as_deref().filter(|order| !order.is_free()) else { return false };
        if self.batching.is_some() {
            return self.flights > 0;
        }
        replays.next().and_then(|item| line_of(order, item)).is_some_and(|line| order.is_taken(line))
    }

    /// The next event of a job, in flight now and holding up what it is ordered with.
    fn take_item(&mut self) -> Option<(JobId, ReplayItem)> {
        let order = self.order.as_deref().filter(|order| !order.is_free());
        let (id, item) = self.replays.as_mut()?.take(|item| order.and_then(|order| line_of(order, item)))?;
        if let (Some(order), Some(line)) = (&mut self.order, item.line) {
            order.hold(line);
        }
        Some((id, item))
    }

    /// The flight of a job's event is over: what it held up goes on.
    pub(super) fn let_line_go(&mut self, line: Option<Line>) {
        let next = line.and_then(|line| self.order.as_mut()?.let_go(line));
        self.arm(next);
    }

    /// An event of a job was not posted after all: it waits as before.
    pub(super) fn put_replay_back(&mut self, id: JobId, seq: Seq, parcel: Option<&Rc<Parcel>>) {
        let line = self.replays_mut().put_back(id, seq, parcel);
        self.let_line_go(line);
    }

    /// Puts the event of a job back that the relay had no means to post, and lets the subscription rest; `false` for any other.
    pub(super) fn postpone_replay(&mut self, job: &Job, outcome: &Outcome, times: (Timestamp, Timestamp), chance: f64) -> bool {
        let Errand::Replay(id) = job.errand else { return false };
        if outcome.is_own_fault() {
            self.put_replay_back(id, job.seq, job.parcel.as_ref());
            self.judge(std::iter::empty(), outcome, Before { attempts: 0, since: times.1 }, times, chance);
        }
        outcome.is_own_fault()
    }

    /// Notes that the attempt made now is none of a job.
    pub(super) fn note_live(&mut self) {
        if let Some(replays) = &mut self.replays {
            replays.went_last = false;
        }
    }

    /// The next event of a job, in flight now; as many as a batch takes where the subscription gathers.
    pub(super) fn take_replay(&mut self) -> Next {
        let Some((id, item)) = self.take_item() else { return Next::Nothing };
        let attempt = item.dead_after.map_or(1, |sent| sent.saturating_add(1));
        let errand = Errand::Replay(id);
        let Some(terms) = self.batching.as_ref().map(|batching| batching.terms) else {
            return Next::Job(Job { seq: item.seq, parcel: item.parcel, attempt, ticket: self.ticket(), errand, batch: None });
        };
        let mut members = vec![Member::new(item.seq, item.parcel)];
        while members.len() < terms.max_events as usize {
            let Some((_, item)) = self.take_item() else { break };
            members.push(Member::new(item.seq, item.parcel));
        }
        self.send(members, attempt, errand, false)
    }

    /// Ends the flight of an event that a job posted. A retry that waits is ended by it; one that is in flight decides alone.
    /// A dead letter that a redrive posts becomes a delivery like any other; one that a replay posts in vain stays as it is.
    pub(super) fn end_replay(&mut self, id: JobId, seq: Seq, is_success: bool, now: Timestamp) -> Flight {
        let ended = self.replays.as_mut().and_then(|replays| replays.end(id, seq, is_success));
        let Some((kind, item)) = ended else { return Flight::CalledOff };
        self.let_line_go(item.line);
        if let Some(retry) = self.retries.get(&seq) {
            if retry.flight.is_some() {
                return Flight::CalledOff;
            }
            let before = Some(retry.clone());
            self.drop_retry(seq);
            return Flight::Recovered { before, is_kept: false, line: item.line };
        }
        let Some(sent) = item.dead_after else { return Flight::Recovered { before: None, is_kept: false, line: item.line } };
        let before = Some(Retry {
            attempts: 0,
            sent,
            since: now,
            due_at: now,
            reason: String::new(),
            flight: None,
            has_old_batch_id: false,
            group: Seq::ZERO,
        });
        if kind == JobKind::Replay && !is_success {
            return Flight::Recovered { before, is_kept: true, line: item.line };
        }
        self.exhume(&[seq]);
        Flight::Recovered { before, is_kept: false, line: item.line }
    }

    /// Takes in what became of an event that a job posted. Order knows nothing of it before it is a retry or dead.
    pub(super) fn apply_recovered(&mut self, is_kept: bool, line: Option<Line>, effect: &mut Effect) {
        if is_kept {
            effect.put = None;
        }
        match &effect.put {
            Some(exception) if exception.state == ExceptionState::Retry => {
                self.resume_retry(exception);
                // Its line is known, and names it in this order: another begins only when nothing is in flight. To look it up may
                // be too late, for retention may take the event before the retry is stored.
                if line.is_some() {
                    let next = self.order.as_mut().and_then(|order| order.sort(exception.seq, line));
                    self.arm(next);
                }
            }
            Some(exception) => {
                self.again_to = self.again_to.max(exception.seq);
                self.bury(exception.seq);
                if let Some(order) = &mut self.order {
                    order.died(exception.seq, line);
                }
            }
            None => {}
        }
    }

    /// The first attempt of an event ended that a job had posted in vain before: the retry that this left decides. A success ends one that
    /// waits; one that is in flight decides alone.
    pub(super) fn leave_to_retry(&mut self, seq: Seq, is_success: bool, effect: Effect) -> Effect {
        let next = self.order.as_mut().and_then(|order| order.settle(seq, Fate::Waits));
        self.arm(next);
        let waits = self.retries.get(&seq).is_some_and(|retry| retry.flight.is_none());
        let is_ended = is_success && waits && self.drop_retry(seq);
        Effect { put: None, expired: None, clear: is_ended.then_some(seq), ..effect }
    }

    /// Counts a dead letter.
    pub(super) fn bury(&mut self, seq: Seq) {
        self.totals.bury();
        self.dead_to = self.dead_to.max(seq);
    }

    /// Takes the dead letters and retries of which it has to be looked up whether they were dead letters before.
    pub fn take_doubtful(&mut self) -> Vec<(Seq, ExceptionState)> {
        std::mem::take(&mut self.doubtful)
    }

    /// A dead letter is none any more, for the counts and for jobs.
    pub fn uncount_dead(&mut self, seq: Seq) {
        self.totals.exhume(1);
        if let Some(replays) = &mut self.replays {
            replays.revive(seq);
        }
    }

    /// A letter that jobs have as one died again after so many attempts.
    pub fn die_again(&mut self, seq: Seq, sent: u32) {
        if let Some(replays) = &mut self.replays {
            replays.die_again(seq, sent);
        }
    }

    /// Letters that jobs post, and those that hold others up, as far as is known; but for those that jobs look for once more.
    #[must_use]
    pub fn letters_in_use(&self) -> Vec<Seq> {
        let mut letters = self.replays.as_ref().map_or_else(Vec::new, |replays| replays.letters());
        letters.extend(self.order.iter().flat_map(|order| order.blocking()));
        letters
    }

    /// Whether there may be dead letters, or some are believed to be there: they may be gone from storage, but not from here.
    #[must_use]
    pub fn may_have_letters(&self) -> bool {
        self.dead_to > Seq::ZERO || self.totals.dead != 0 || !self.letters_in_use().is_empty()
    }

    /// So many dead letters there are, whatever was counted before. These, of those in use, `ended`; what else jobs have of letters
    /// is not known to be true.
    pub fn recount_dead(&mut self, dead: u64, ended: &[Seq]) {
        self.totals.set_dead(dead);
        if let Some(replays) = &mut self.replays {
            for seq in ended {
                replays.revive(*seq);
            }
            replays.look_anew();
        }
        // What a job posts may be a retry by now, and one that waits holds others up.
        for seq in ended {
            if self.retries.contains_key(seq) {
                continue;
            }
            let next = self.order.as_mut().and_then(|order| order.forget(*seq));
            self.arm(next);
        }
    }

    /// Dead letters are dead no longer; what they held up goes on.
    pub fn exhume(&mut self, seqs: &[Seq]) {
        for seq in seqs {
            self.uncount_dead(*seq);
            let next = self.order.as_mut().and_then(|order| order.forget(*seq));
            self.arm(next);
        }
    }

    /// Whether a success at this position may end a dead letter of before: after a seek back, or a replay. How many are counted
    /// does not tell, for some are counted only when they are saved.
    #[must_use]
    pub fn may_be_dead(&self, seq: Seq) -> bool {
        seq <= self.dead_to
    }

    /// The parts of a stretch, both ends inclusive, in which no retry waits.
    #[must_use]
    pub fn without_retries(&self, from: Seq, to: Seq) -> Vec<(Seq, Seq)> {
        let (mut parts, mut from) = (Vec::new(), from);
        for seq in self.retries.range(from..=to).map(|(seq, _)| *seq).chain([to.next()]) {
            if from < seq {
                parts.push((from, seq.prev()));
            }
            from = seq.next();
        }
        parts
    }

    /// Settles everything up to `to`; gives the retries that end, the other single positions that were not settled, and the
    /// stretch that nobody looked at.
    pub fn skip(&mut self, to: Seq, lane: Seq) -> (Vec<Seq>, Vec<Seq>, Option<(Seq, Seq)>) {
        let retries: Vec<Seq> = self.retries.range(..=to).map(|(seq, _)| *seq).collect();
        for seq in &retries {
            self.drop_retry(*seq);
        }
        self.release(to);
        let base = self.window.base(lane);
        let open = self.window.skip(to, lane).into_iter().filter(|seq| *seq <= base).collect();
        if self.order.is_some() {
            self.begin_rule();
        }
        (retries, open, (to > base).then_some((base.next(), to)))
    }

    /// Retries behind `after`, by position, at most `limit`.
    #[must_use]
    pub fn retries_after(&self, after: Seq, limit: usize) -> Vec<Exception> {
        let behind = self.retries.range(after.next()..).take(limit);
        let exception = |(seq, retry): (&Seq, &Retry)| Exception {
            ordinal: self.record.ordinal,
            seq: *seq,
            state: ExceptionState::Retry,
            attempts: retry.attempts,
            sent: retry.sent,
            due_at: retry.due_at,
            since: retry.since,
            reason: retry.reason.clone(),
            has_old_batch_id: retry.has_old_batch_id,
        };
        behind.map(exception).collect()
    }
}

/// The line of an event that a job posts. What is not at hand is not kept any more, and nothing is posted of it.
fn line_of(order: &Order, item: &ReplayItem) -> Option<Line> {
    order.line_of(item.parcel.as_ref()?.event())
}
