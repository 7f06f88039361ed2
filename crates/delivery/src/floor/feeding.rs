//! Desks that lag: which want to be fed, and what a page of the log gives each of them.

use std::rc::Rc;
use std::sync::Arc;

use super::Floor;
use crate::matcher::Place;
use crate::notice::Notice;
use crate::parcel::Parcel;
use crate::window::Position;
use hookcast_core::filter::Facts;
use hookcast_core::model::delivery::ExpiredRange;
use hookcast_core::model::subscription::Ordinal;
use hookcast_core::model::{Event, Page, Seq};

/// What desks share of an event that is fed to them.
#[derive(Default)]
struct Shared<'e> {
    parcel: Option<Rc<Parcel>>,
    facts: Option<Facts<'e>>,
}

impl Floor {
    /// Notes that a desk may want to be fed; whoever changes what [`Desk::is_hungry`] looks at says so here.
    pub fn note_hunger(&mut self, place: Place) {
        if let Some(desk) = self.desks.get_mut(place).and_then(Option::as_deref_mut)
            && !desk.feeding.is_listed
            && desk.is_hungry()
        {
            desk.feeding.is_listed = true;
            self.hungry.push(place);
        }
    }

    /// Whether a desk may want to be fed.
    #[must_use]
    pub fn has_hungry(&self) -> bool {
        !self.hungry.is_empty()
    }

    /// Takes the desks that want to be fed from the log, and how far each has been matched: O(those), however many lag.
    /// [`Floor::note_hunger`] lists again whoever was not fed. Gives also whether one of them begins a way through the log.
    ///
    /// A desk that begins to lag before `remembered`, from where on memory serves, waits for a time at which newcomers board,
    /// so that those that come one by one go through the log together. Desks for which the lane has no room wait as well.
    pub fn hungry(&mut self, remembered: Seq, newcomers_board: bool) -> (Vec<(Place, Seq)>, bool) {
        let mut hungry = Vec::with_capacity(self.hungry.len());
        let mut has_newcomers = false;
        let (scanned, waiting_bytes) = (self.scanned, self.waiting_bytes);
        self.hungry.retain(|&place| {
            let Some(desk) = self.desks[place].as_deref_mut() else { return false };
            desk.feeding.is_listed = false;
            let Position::Lagging(at) = desk.window.position() else { return false };
            if !desk.is_hungry() {
                return false;
            }
            if at >= scanned {
                desk.window.set_position(Position::Riding { not_before: at });
                desk.feeding.has_boarded = false;
                // A batch that waits for company knows now that there is none.
                if !std::mem::replace(&mut desk.is_ready, true) {
                    self.ready.push_back(place);
                }
                return false;
            }
            let is_newcomer = !desk.feeding.has_boarded && at < remembered;
            desk.feeding.is_listed = !desk.has_room(waiting_bytes) || (is_newcomer && !newcomers_board);
            if !desk.feeding.is_listed {
                desk.feeding.has_boarded = true;
                has_newcomers |= is_newcomer;
                hungry.push((place, at));
            }
            desk.feeding.is_listed
        });
        (hungry, has_newcomers)
    }

    /// Feeds pages that follow each other, read behind `from`, to desks that lag, each from where it stands; those that are
    /// full stay behind and leave `riders`. O(riders) for all pages together, then O(matching) an event.
    ///
    /// A desk that stands before `from` was moved back while the pages were read; it is left for another pass, since what
    /// lies between is not gone.
    pub fn feed(&mut self, riders: &mut Vec<Place>, pages: &[Arc<Page>], from: Seq) {
        let (Some(first), Some(last)) = (pages.first().map(|page| page.first()), pages.last().map(|page| page.last())) else {
            return;
        };
        riders.retain(|&place| {
            let Some(desk) = self.desks[place].as_deref_mut() else { return false };
            let Position::Lagging(at) = desk.window.position() else { return false };
            desk.feeding.rides_along = (from..last).contains(&at) && desk.is_active() && desk.freezes == 0;
            desk.feeding.rides_along
        });
        for &place in riders.iter() {
            if let Some(Position::Lagging(at)) = self.desks[place].as_deref().map(|desk| desk.window.position()) {
                self.note_gap(place, at, first);
            }
        }
        riders.sort_unstable();
        let mut left = riders.len();
        for page in pages {
            if left == 0 {
                break;
            }
            self.feed_page(page, riders, &mut left);
        }
        riders.retain(|&place| {
            let Some(desk) = self.desks[place].as_deref_mut() else { return false };
            let rode_on = std::mem::take(&mut desk.feeding.rides_along);
            if rode_on {
                desk.window.set_position(Position::Lagging(last));
            }
            rode_on
        });
    }

    /// As [`Floor::feed`], for positions behind `from` up to `to` that nobody can read any more.
    pub fn leave_behind(&mut self, riders: &mut Vec<Place>, from: Seq, to: Seq) {
        riders.retain(|&place| {
            let Some(desk) = self.desks[place].as_deref_mut().filter(|desk| desk.is_active()) else { return false };
            let Position::Lagging(at) = desk.window.position() else { return false };
            if desk.freezes > 0 || !(from..to).contains(&at) {
                return false;
            }
            desk.window.set_position(Position::Lagging(to));
            self.note_gap(place, at, to.next());
            true
        });
    }

    fn feed_page(&mut self, page: &Arc<Page>, riders: &[Place], left: &mut usize) {
        let matching: Vec<Rc<[Place]>> = page.topics().iter().map(|topic| self.matcher.matching(topic)).collect();
        if matching.iter().all(|places| places.is_empty()) {
            return;
        }
        for event in page.events_after(Seq::ZERO) {
            let index = u32::try_from(event.seq().0 - page.first().0).unwrap_or(u32::MAX);
            let places = &matching[page.topic_index_at(index)];
            let mut shared = Shared::default();
            // Whichever list is shorter is gone through.
            if places.len() <= riders.len() {
                for &place in places.iter() {
                    *left -= usize::from(!self.feed_event(&event, place, &mut shared));
                }
            } else {
                for place in riders.iter().filter(|place| places.binary_search(place).is_ok()) {
                    *left -= usize::from(!self.feed_event(&event, *place, &mut shared));
                }
            }
            if *left == 0 {
                return;
            }
        }
    }

    /// Offers an event to a desk if it rides along; `false` when the desk was full and got off.
    fn feed_event<'e>(&mut self, event: &'e Event, place: Place, shared: &mut Shared<'e>) -> bool {
        let seq = event.seq();
        let Some(desk) = self.desks[place].as_deref_mut().filter(|desk| desk.feeding.rides_along) else { return true };
        let is_behind = matches!(desk.window.position(), Position::Lagging(at) if seq <= at);
        if is_behind || !desk.wants(event, || event.fields().kind) {
            return true;
        }
        if desk.filter_at(seq).is_some() && !self.sieve.passes(desk, shared.facts.get_or_insert_with(|| Facts::of(event))) {
            return true;
        }
        if !desk.has_room(self.waiting_bytes) {
            desk.window.set_position(Position::Lagging(seq.prev()));
            desk.feeding.rides_along = false;
            return false;
        }
        let parcel = shared.parcel.get_or_insert_with(|| Rc::new(Parcel::new(event.clone())));
        desk.window.offer(seq, Rc::clone(parcel), parcel.weight());
        self.waiting_bytes += parcel.weight();
        self.make_ready(place);
        true
    }

    fn note_gap(&mut self, place: Place, at: Seq, first: Seq) {
        // Nothing stood in the hole that a restored log begins anew behind; around it retention may have taken some.
        for (from, to) in self.jumps.without(at.next(), first.prev()) {
            self.expire(place, from, to);
        }
    }

    /// Counts, announces and remembers that retention took a range, both ends inclusive, before it was delivered.
    pub fn expire(&mut self, place: Place, from: Seq, to: Seq) {
        if let Some(desk) = self.desks[place].as_deref_mut() {
            let range = ExpiredRange { ordinal: desk.ordinal(), from, to };
            desk.totals.expired += to.0 + 1 - from.0;
            self.notices.push(Notice::expired(&desk.record, range.from, range.to));
            self.journal.expired(range);
        }
    }

    /// The same of one event of a subscription that is here.
    pub fn expire_of(&mut self, ordinal: Ordinal, seq: Seq) {
        if let Some(place) = self.by_ordinal.get(&ordinal).copied() {
            self.expire(place, seq, seq);
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
