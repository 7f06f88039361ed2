//! Which desks are looked at, and when again; what of their progress is saved.

use std::collections::BTreeSet;

use super::Floor;
use crate::checkpoint::PartitionProgress;
use crate::matcher::Place;
use crate::window::Position;
use hookcast_core::clock::Timestamp;
use hookcast_log::storage::{Checkpoint, Lease, LedgerChange};

impl Floor {
    /// Puts a desk into the ready queue.
    pub fn make_ready(&mut self, place: Place) {
        if let Some(desk) = self.desks.get_mut(place).and_then(Option::as_deref_mut)
            && !desk.is_ready
        {
            desk.is_ready = true;
            self.ready.push_back(place);
        }
    }

    /// Sees to it that a desk is asked for work, fed if it lags, and saved.
    pub(super) fn rouse(&mut self, place: Place) {
        self.mark_busy(place);
        self.make_ready(place);
        self.note_hunger(place);
    }

    /// Whether a desk waits to be asked.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn mark_busy(&mut self, place: Place) {
        if let Some(desk) = self.desks[place].as_deref_mut()
            && !desk.is_busy
        {
            desk.is_busy = true;
            let ordinal = desk.ordinal();
            self.busy.entry(ordinal.partition()).or_default().push(place);
            self.journal.touch(ordinal);
        }
    }

    pub(super) fn wake_at(&mut self, place: Place, at: Timestamp) {
        if let Some(desk) = self.desks[place].as_deref_mut()
            && desk.wakes_at.is_none_or(|earlier| at < earlier)
        {
            if let Some(later) = desk.wakes_at.replace(at) {
                self.timers.remove(&(later, place));
            }
            self.timers.insert((at, place));
        }
    }

    /// When the next timer is due.
    #[must_use]
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Makes every desk ready whose time has come.
    pub fn fire_timers(&mut self, now: Timestamp) {
        while let Some((at, place)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, place));
            if let Some(desk) = self.desks[place].as_deref_mut() {
                desk.wakes_at = None;
                self.make_ready(place);
                self.note_hunger(place);
            }
        }
    }

    /// Marks every partition that has subscriptions, so that its frontier is saved.
    pub fn touch_all(&mut self) {
        let partitions: BTreeSet<u16> = self.by_ordinal.keys().map(|ordinal| ordinal.partition()).collect();
        for partition in partitions {
            self.journal.touch_partition(partition);
        }
    }

    /// The right to change a partition, when it belongs to this lane.
    #[must_use]
    pub fn lease(&self, partition: u16) -> Option<Lease> {
        self.leases.get(&partition).map(|(lease, _)| *lease)
    }

    /// Takes everything that is to be saved, a change a partition.
    pub fn take_unsaved(&mut self) -> Vec<LedgerChange> {
        let mut journal = std::mem::take(&mut self.journal);
        let changes = journal.take(|partition| self.progress(partition));
        self.journal = journal;
        changes
    }

    /// Takes back what could not be saved, but for what concerns subscriptions that were removed meanwhile.
    pub fn give_back(&mut self, mut changes: Vec<LedgerChange>) {
        for change in &mut changes {
            change.keep(|ordinal| self.by_ordinal.contains_key(&ordinal));
        }
        self.journal.give_back(changes);
    }

    /// The progress of one partition, to be saved; desks that are at the frontier again are no longer listed.
    pub(super) fn progress(&mut self, partition: u16) -> Option<(Lease, Checkpoint)> {
        let (lease, taken_in) = *self.leases.get(&partition)?;
        let mut progress = PartitionProgress { frontier: self.scanned, taken_in, ..PartitionProgress::default() };
        if let Some(places) = self.busy.get_mut(&partition) {
            places.retain(|place| {
                let Some(desk) = self.desks[*place].as_deref_mut() else { return false };
                if desk.has_outgrown(progress.frontier) {
                    self.matcher.remove(*place, desk.patterns());
                    desk.look_back(progress.frontier);
                    self.matcher.insert(*place, desk.patterns());
                }
                let entry = desk.window.progress(progress.frontier);
                let failing = desk.failing_since();
                progress.failing.extend(failing.map(|since| (desk.ordinal(), since)));
                let is_behind = desk.looks_back() || matches!(desk.window.position(), Position::Lagging(_));
                let hold = desk.hold();
                progress.holds.extend(hold.map(|hold| (desk.ordinal(), hold)));
                desk.is_busy = entry.is_some() || failing.is_some() || hold.is_some() || is_behind;
                if let Some(entry) = entry {
                    progress.entries.insert(desk.ordinal(), entry);
                } else {
                    desk.window.rest();
                }
                desk.is_busy
            });
        }
        Some((lease, progress.encode()))
    }
}
