//! Recovery on a lane's floor: which desks have jobs, what of them is saved, what skipping settles.

use super::{Assignment, Floor, Place};
use crate::batch::Sent;
use crate::job::{Errand, success_of};
use crate::notice::Notice;
use crate::replays::{ReplayItem, Want};
use crate::window::Position;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::delivery::ExpiredRange;
use hookcast_core::model::subscription::Ordinal;
use hookcast_core::model::{JobId, Outcome, RecoveryJob, Seq};

/// Bytes of events that may wait for the jobs of one lane.
const LANE_REPLAY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Deliveries of which it may have to be looked up whether they were dead letters; of more the dead letters stay listed, which is
/// counted.
const RECOVERED_MAX: usize = 65_536;

impl Floor {
    /// Notes an attempt that succeeded, of each event that it was about.
    pub(super) fn note_success(&mut self, assignment: &Assignment, outcome: &Outcome, began: Timestamp) {
        if !outcome.is_success() {
            return;
        }
        match &assignment.job.batch {
            None => self.note_delivered(assignment, assignment.job.seq, outcome, began),
            Some(batch) => {
                for member in batch.with(Sent::Posted) {
                    self.note_delivered(assignment, member.seq, outcome, began);
                }
            }
        }
    }

    fn note_delivered(&mut self, assignment: &Assignment, seq: Seq, outcome: &Outcome, began: Timestamp) {
        let (ordinal, job) = (assignment.ordinal, &assignment.job);
        self.journal.success(|| success_of(ordinal, seq, job.attempt, outcome, began));
        // A retry is no dead letter, or it would not wait.
        if job.errand == Errand::Retry || !self.desks[assignment.place].as_deref().is_some_and(|desk| desk.may_be_dead(seq)) {
            return;
        }
        if self.recovered.len() < RECOVERED_MAX {
            self.recovered.insert((ordinal, seq));
        } else if !self.recovered.contains(&(ordinal, seq)) {
            self.left_listed += 1;
        }
    }

    /// Lets a desk do a job; `false` when it has too many, or there is none.
    pub fn recover(&mut self, job: RecoveryJob) -> bool {
        let ordinal = job.ordinal;
        let Some(desk) = self.desk_mut(ordinal) else { return false };
        if !desk.replays_mut().add(job) {
            return false;
        }
        if !self.replaying.contains(&ordinal) {
            self.replaying.push(ordinal);
        }
        self.journal.touch(ordinal);
        true
    }

    /// Ends a job before its end.
    pub fn cancel(&mut self, ordinal: Ordinal, id: JobId, now: Timestamp) -> Option<RecoveryJob> {
        let cancelled = self.change(ordinal, |desk| desk.replays_mut().cancel(id, now))??;
        self.journal.job(cancelled.clone());
        Some(cancelled)
    }

    /// What jobs need, those of each desk's turn; none when too much waits.
    #[must_use]
    pub fn replay_wants(&mut self) -> Vec<(Ordinal, Want)> {
        let replaying = std::mem::take(&mut self.replaying);
        let mut bytes = 0;
        let mut wants = Vec::new();
        for ordinal in &replaying {
            let Some(desk) = self.desk_mut(*ordinal) else { continue };
            bytes += desk.replays_mut().waiting_bytes();
            wants.extend(desk.replays_mut().want().map(|want| (*ordinal, want)));
        }
        self.replaying = replaying;
        if bytes >= LANE_REPLAY_BYTES_MAX {
            wants.clear();
        }
        wants
    }

    /// Brings events to a job; see [`crate::replays::Replays::fill`].
    pub fn fill_replay(&mut self, ordinal: Ordinal, want: &Want, items: Vec<ReplayItem>, scanned: Seq, is_exhausted: bool) {
        self.change(ordinal, |desk| {
            desk.replays_mut().fill(want, items, scanned, is_exhausted);
            desk.keep_replays();
        });
        self.journal.touch(ordinal);
    }

    /// Notes how jobs stand, so that it is saved with what they did; `true` while there are any.
    pub fn note_jobs(&mut self, now: Timestamp) -> bool {
        let mut replaying = std::mem::take(&mut self.replaying);
        replaying.retain(|ordinal| {
            let Some(desk) = self.desk_mut(*ordinal) else { return false };
            let changed = desk.replays_mut().take_changed(now);
            let goes_on = desk.keep_replays();
            for job in changed {
                self.journal.job(job);
            }
            goes_on
        });
        self.replaying = replaying;
        !self.replaying.is_empty()
    }

    /// Moves a subscription's cursor.
    pub fn seek(&mut self, ordinal: Ordinal, to: Seq) {
        let Some(place) = self.by_ordinal.get(&ordinal).copied() else { return };
        let scanned = self.scanned;
        let patterns = self.desks[place].as_deref().map(|desk| desk.patterns().clone());
        if let Some(desk) = self.desks[place].as_deref_mut() {
            let (mut open, base) = (desk.window.holes_to(to), desk.window.base(scanned));
            // A job can have posted one in vain that was in flight or stood aside.
            open.retain(|seq| desk.retry(*seq).is_none());
            self.note_skipped(place, open, (to > base).then_some((base.next(), to)));
            // Everything behind is to be delivered, whatever became of it before.
            self.journal.reopen(ordinal, to);
        }
        if let Some(desk) = self.desks[place].as_deref_mut() {
            desk.again_to = desk.again_to.max(desk.window.base(scanned));
            self.waiting_bytes -= desk.window.waiting_bytes();
            desk.window.jump(to);
            desk.put_at = to;
            desk.seeks += 1;
            desk.feeding.has_boarded = false;
            for seq in desk.forget_retries_after(to) {
                self.journal.clear(ordinal, seq);
            }
            if to >= self.scanned && desk.freezes == 0 {
                desk.window.set_position(Position::Riding { not_before: to });
            }
        }
        if let Some(patterns) = patterns {
            self.ask_anew(place, &patterns);
        }
        self.rouse(place);
    }

    /// Settles everything up to `to`: the cursor goes there, retries up to it end.
    pub fn skip(&mut self, ordinal: Ordinal, to: Seq) {
        let Some(place) = self.by_ordinal.get(&ordinal).copied() else { return };
        let scanned = self.scanned;
        let Some(desk) = self.desks[place].as_deref_mut() else { return };
        let bytes_before = desk.window.waiting_bytes();
        let (retries, open, rest) = desk.skip(to, scanned);
        self.waiting_bytes -= bytes_before - desk.window.waiting_bytes();
        desk.put_at = desk.put_at.max(to);
        if let Position::Riding { not_before } = desk.window.position()
            && desk.freezes > 0
        {
            desk.window.set_position(Position::Lagging(not_before));
        }
        let singles = retries.iter().copied().chain(open).collect();
        for seq in retries {
            self.journal.clear(ordinal, seq);
        }
        self.note_skipped(place, singles, rest);
        self.journal.touch(ordinal);
        self.rouse(place);
    }

    /// Counts, announces and remembers what was passed over by hand: single positions and a stretch, but for the retries in that: a job
    /// can have left some ahead of the cursor, and they still go out.
    fn note_skipped(&mut self, place: Place, singles: Vec<Seq>, stretch: Option<(Seq, Seq)>) {
        let Some(desk) = self.desks[place].as_deref_mut() else { return };
        let ordinal = desk.ordinal();
        let mut ranges: Vec<ExpiredRange> = Vec::new();
        // Nothing stood in what a restore jumped over.
        let stretches = stretch.map_or_else(Vec::new, |(from, to)| self.jumps.without(from, to));
        let stretches = stretches.into_iter().flat_map(|(from, to)| desk.without_retries(from, to));
        let mut passed: Vec<(Seq, Seq)> = singles.into_iter().map(|seq| (seq, seq)).chain(stretches).collect();
        passed.sort_unstable();
        for (from, to) in passed {
            match ranges.last_mut() {
                Some(last) if last.to.next() >= from => last.to = last.to.max(to),
                _ => ranges.push(ExpiredRange { ordinal, from, to }),
            }
        }
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return };
        let count = ranges.iter().map(|range| range.to.0 - range.from.0 + 1).sum();
        desk.totals.skipped += count;
        self.notices.push(Notice::skipped(&desk.record, (first.from, last.to), count));
        for range in ranges {
            self.journal.skipped(range);
        }
    }
}
