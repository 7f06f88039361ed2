//! Definitions that change: from which position on the new one judges, and who is asked about which topics until then.
//!
//! A change takes effect behind the newest position that was looked at: delivered, open, or passed over on the way; what waits
//! behind that is forgotten and judged anew. So that this is still so when the change is stored, the
//! desk looks at nothing from the moment in which that position is given until the lane hears of the change; the record names
//! the position, and whatever a crash leaves undone is read again and judged by whoever it names.

use std::sync::Arc;

use super::Floor;
use crate::matcher::Place;
use crate::notice::Notice;
use crate::window::Position;
use hookcast_core::model::subscription::{Activity, Ordinal, SubscriptionRecord};
use hookcast_core::model::{PatternList, Seq};

impl Floor {
    /// Looks at no event more for a subscription, until [`Floor::thaw`]; gives the first position that it has not looked at.
    pub fn freeze(&mut self, ordinal: Ordinal) -> Option<Seq> {
        let place = self.by_ordinal.get(&ordinal).copied()?;
        let scanned = self.scanned;
        let desk = self.desks[place].as_deref_mut()?;
        // What was looked at before an earlier change counts, though a restart may have gone back before it.
        let changed_at = desk.record.revisions.last().map_or(Seq::ZERO, |newest| newest.from_seq.prev());
        let looked_to = desk.window.base(scanned).max(changed_at);
        desk.freezes += 1;
        self.stand_at(place, looked_to);
        Some(looked_to.next())
    }

    /// Goes on once everybody has who asked it to stand still.
    pub fn thaw(&mut self, ordinal: Ordinal) {
        let Some(place) = self.by_ordinal.get(&ordinal).copied() else { return };
        let scanned = self.scanned;
        let Some(desk) = self.desks[place].as_deref_mut() else { return };
        desk.freezes = desk.freezes.saturating_sub(1);
        match desk.window.position() {
            Position::Lagging(at) if desk.freezes == 0 && at >= scanned => {
                desk.window.set_position(Position::Riding { not_before: at });
            }
            _ => {}
        }
        self.rouse(place);
    }

    /// Takes a changed definition.
    pub fn redefine(&mut self, record: &Arc<SubscriptionRecord>) {
        let Some(place) = self.by_ordinal.get(&record.ordinal).copied() else { return };
        let Some(desk) = self.desks[place].as_deref_mut() else { return };
        let (was_active, was_closed) = (desk.is_active(), desk.circuit().is_closed());
        let (old, patterns) = (Arc::clone(&desk.record), desk.patterns().clone());
        desk.redefine(Arc::clone(record));
        desk.limit(&self.book, &self.bell, Some(&old));
        let is_active = desk.is_active();
        // Where the endpoint ends it, that is said instead.
        let is_ended = record.activity.is_ended_by_endpoint() && record.activity != old.activity;
        if !was_closed && desk.circuit().is_closed() && !is_ended {
            self.notices.push(Notice::begun_anew(record));
        }
        if old.revisions != record.revisions {
            let from = record.revisions.last().map_or(Seq::ZERO, |newest| newest.from_seq);
            // Whoever stored this made the desk stand still there; should it have gone on, nothing is passed over but by hand.
            let at = from.prev().max(desk.put_at);
            self.stand_at(place, at);
            self.ask_anew(place, &patterns);
        }
        if was_active && !is_active {
            self.rewind(place);
        }
        self.rouse(place);
    }

    /// Gives the definition of a subscription as it is when it is stopped; `None` when it is disabled already: of many answers
    /// that want no more the first counts.
    #[must_use]
    pub fn stopped(&self, ordinal: Ordinal, activity: Activity) -> Option<SubscriptionRecord> {
        let desk = self.desk(ordinal).filter(|desk| !matches!(desk.record.activity, Activity::Disabled(_)))?;
        Some(SubscriptionRecord { activity, ..SubscriptionRecord::clone(&desk.record) })
    }

    /// Finds out anew which topics a desk has to be asked about, which were `before`.
    pub(super) fn ask_anew(&mut self, place: Place, before: &PatternList) {
        let Some(desk) = self.desks[place].as_deref_mut() else { return };
        desk.look_back(self.scanned);
        if desk.patterns() != before {
            self.matcher.remove(place, before);
            self.matcher.insert(place, desk.patterns());
        }
    }

    fn stand_at(&mut self, place: Place, at: Seq) {
        let Some(desk) = self.desks[place].as_deref_mut() else { return };
        let bytes_before = desk.window.waiting_bytes();
        desk.window.stand_at(at, self.scanned);
        self.waiting_bytes -= bytes_before - desk.window.waiting_bytes();
        self.mark_busy(place);
    }

    pub(super) fn rewind(&mut self, place: Place) {
        let scanned = self.scanned;
        if let Some(desk) = self.desks[place].as_deref_mut() {
            self.waiting_bytes -= desk.window.waiting_bytes();
            desk.rewind(scanned);
        }
    }
}
