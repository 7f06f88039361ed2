//! Desks that lag: which want to be fed, and what a page of the log gives each of them.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::Floor;
use crate::delivery::matcher::Place;
use crate::delivery::notice::Notice;
use crate::delivery::parcel::Parcel;
use crate::delivery::window::Position;
use crate::model::delivery::ExpiredRange;
use crate::model::{Event, Page, Seq};

impl Floor {
    /// Desks that want to be fed from the log, and how far each has been matched.
    #[must_use]
    pub fn hungry(&mut self) -> Vec<(Place, Seq)> {
        let mut hungry = Vec::new();
        let scanned = self.scanned;
        for places in self.busy.values() {
            for &place in places {
                let Some(desk) = self.desks[place].as_deref_mut() else { continue };
                if let Position::Lagging(at) = desk.window.position()
                    && desk.is_hungry()
                {
                    if at >= scanned {
                        desk.window.set_position(Position::Riding { not_before: at });
                    } else if desk.has_room(self.waiting_bytes) {
                        hungry.push((place, at));
                    }
                }
            }
        }
        hungry
    }

    /// Feeds a page, read behind `from`, to desks that lag, each from where it stands; those that are full stay behind.
    ///
    /// A desk that stands before `from` was moved back while the page was read; it is left for another pass, since what lies
    /// between is not gone.
    pub fn feed(&mut self, riders: &mut Vec<Place>, page: &Arc<Page>, from: Seq) {
        let last = page.last();
        let mut on: HashMap<Place, Seq> = HashMap::with_capacity(riders.len());
        for &place in riders.iter() {
            let Some(desk) = self.desks[place].as_deref_mut() else { continue };
            let Position::Lagging(at) = desk.window.position() else { continue };
            if (from..last).contains(&at) && desk.is_active() {
                on.insert(place, at);
                self.note_gap(place, at, page.first());
            }
        }
        let matching: Vec<Rc<[Place]>> = page.topics().iter().map(|topic| self.matcher.matching(topic)).collect();
        for event in page.events_after(Seq::ZERO) {
            let index = u32::try_from(event.seq().0 - page.first().0).unwrap_or(u32::MAX);
            let places = &matching[page.topic_index_at(index)];
            if places.len() <= on.len() {
                let wanted: Vec<Place> = places.iter().copied().filter(|place| on.contains_key(place)).collect();
                self.feed_event(&event, &wanted, &mut on);
            } else {
                let wanted: Vec<Place> = on.keys().copied().filter(|place| places.binary_search(place).is_ok()).collect();
                self.feed_event(&event, &wanted, &mut on);
            }
        }
        for place in on.keys() {
            if let Some(desk) = self.desks[*place].as_deref_mut() {
                desk.window.set_position(Position::Lagging(last));
            }
        }
        riders.retain(|place| on.contains_key(place));
    }

    fn feed_event(&mut self, event: &Event, wanted: &[Place], on: &mut HashMap<Place, Seq>) {
        let seq = event.seq();
        let mut parcel: Option<Rc<Parcel>> = None;
        for &place in wanted {
            let Some(desk) = self.desks[place].as_deref_mut() else { continue };
            if on.get(&place).is_none_or(|at| seq <= *at) || !desk.wants_type(event.fields().kind) {
                continue;
            }
            if !desk.has_room(self.waiting_bytes) {
                desk.window.set_position(Position::Lagging(seq.prev()));
                on.remove(&place);
                continue;
            }
            let parcel = parcel.get_or_insert_with(|| Rc::new(Parcel::new(event.clone())));
            desk.window.offer(seq, Rc::clone(parcel), parcel.weight());
            self.waiting_bytes += parcel.weight();
            self.make_ready(place);
        }
    }

    fn note_gap(&mut self, place: Place, at: Seq, first: Seq) {
        if first > at.next() {
            self.expire(place, at.next(), first.prev());
        }
    }

    /// Counts, announces and remembers that retention took a range, both ends inclusive, before it was delivered.
    pub fn expire(&mut self, place: Place, from: Seq, to: Seq) {
        if let Some(desk) = self.desks[place].as_deref_mut() {
            let range = ExpiredRange { ordinal: desk.ordinal(), from, to };
            desk.totals.expired += to.0 + 1 - from.0;
            tracing::warn!(subscription.id = %desk.record.spec.id, from = %range.from, to = %range.to,
                "events expired before they were delivered");
            self.notices.extend(Notice::expired(&desk.record, range.from, range.to));
            self.journal.expired(range);
        }
    }

    /// Notes that retention took everything up to `to` from desks that ride with the reader.
    pub fn note_gap_at_head(&mut self, to: Seq) {
        for place in 0..self.desks.len() {
            let Some(desk) = self.desks[place].as_deref() else { continue };
            if let Position::Riding { not_before } = desk.window.position() {
                self.note_gap(place, self.scanned.max(not_before), to.next());
            }
        }
        self.scanned = to;
    }
}
