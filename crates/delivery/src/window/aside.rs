//! Events of a window that stand aside: open positions that others pass, with their items as far as memory allows.

use std::collections::BTreeMap;

use super::{OPEN_MAX, QUEUE_BYTES_MAX, QUEUE_MAX, Ticket, Window};
use hookcast_core::model::Seq;

/// Events that wait for others of their key; those that do not fit into memory are read again.
#[derive(Debug)]
pub(super) struct Aside<T> {
    pub(super) events: BTreeMap<Seq, Option<(T, usize)>>,
    kept: usize,
    pub(super) bytes: usize,
}

impl<T> Default for Aside<T> {
    fn default() -> Self {
        Self { events: BTreeMap::new(), kept: 0, bytes: 0 }
    }
}

impl<T> Window<T> {
    /// Positions that may still be opened past the cursor.
    #[must_use]
    pub fn open_room(&self) -> usize {
        OPEN_MAX.saturating_sub(self.open.len() + self.reopened.len() + self.standing_aside())
    }

    /// Events that stand aside.
    #[must_use]
    pub fn standing_aside(&self) -> usize {
        self.aside.as_ref().map_or(0, |aside| aside.events.len())
    }

    /// Their positions, rising.
    pub fn aside(&self) -> impl Iterator<Item = Seq> + '_ {
        self.aside.iter().flat_map(|aside| aside.events.keys().copied())
    }

    /// Lets the oldest waiting event stand aside: a hole that others pass.
    pub fn set_aside(&mut self) {
        let (seq, item) = if let Some((seq, _)) = self.reopened.pop_front() {
            (seq, None)
        } else if let Some((seq, item, bytes)) = self.queue.pop_front() {
            self.queue_bytes -= bytes;
            (seq, Some((item, bytes)))
        } else {
            return;
        };
        let kept_before = self.queue_bytes;
        let aside = self.aside.get_or_insert_default();
        let item = item.filter(|(_, bytes)| aside.kept < QUEUE_MAX && kept_before + aside.bytes + bytes <= QUEUE_BYTES_MAX);
        if let Some((_, bytes)) = &item {
            aside.kept += 1;
            aside.bytes += bytes;
        }
        aside.events.insert(seq, item);
    }

    /// Lets positions stand aside whose events are to be read when their time comes.
    pub fn stand_aside(&mut self, seqs: impl IntoIterator<Item = Seq>) {
        let aside = self.aside.get_or_insert_default();
        aside.events.extend(seqs.into_iter().map(|seq| (seq, None)));
    }

    /// The item of an event that stands aside, when it was kept.
    #[must_use]
    pub fn peek_aside(&self, seq: Seq) -> Option<&T> {
        let (item, _) = self.aside.as_ref()?.events.get(&seq)?.as_ref()?;
        Some(item)
    }

    /// An event that stood aside is in flight now; its item, when it was kept.
    pub fn take_aside(&mut self, seq: Seq, ticket: Ticket) -> Option<T> {
        let item = self.leave_aside(seq);
        self.open.push((seq, ticket));
        item
    }

    /// An event does not stand aside any more; its item, when it was kept.
    pub fn leave_aside(&mut self, seq: Seq) -> Option<T> {
        let aside = self.aside.as_mut()?;
        let item = aside.events.remove(&seq).flatten();
        if let Some((_, bytes)) = &item {
            aside.kept -= 1;
            aside.bytes -= bytes;
        }
        if aside.events.is_empty() {
            self.aside = None;
        }
        item.map(|(item, _)| item)
    }

    /// An event in flight was not sent after all and stands aside again.
    ///
    /// `false` when it was not in flight by this attempt.
    pub fn put_back(&mut self, seq: Seq, ticket: Ticket) -> bool {
        let was_open = self.settle(seq, ticket);
        if was_open {
            self.stand_aside([seq]);
        }
        was_open
    }

    /// Gives the memory of what stands aside back; its positions stay.
    pub(super) fn drop_aside_items(&mut self) {
        if let Some(aside) = &mut self.aside {
            aside.events.values_mut().for_each(|item| *item = None);
            (aside.kept, aside.bytes) = (0, 0);
        }
    }
}
