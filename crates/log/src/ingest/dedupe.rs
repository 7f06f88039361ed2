//! Which events were there before: fingerprints of (topic, source, id) in a bounded ring with an index.
//!
//! Only events whose id the publisher gave are noted. Of several with one key, the newest is the one that is known. What a commit adds can be undone when it fails. The ring is stored in
//! chunks with the events, so that a start reads those and the little of the log that is newer, never the whole log.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::hash_table::{Entry as Slot, HashTable};

use crate::storage::{EventLog, FingerprintChunk, LogRead, StorageError, StorageErrorKind};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::Seq;

mod entry;

pub use entry::Fingerprint;
pub(super) use entry::id_behind;
use entry::{Entry, key_of};

/// A chunk is stored once it holds this many fingerprints,
pub const CHUNK_ENTRIES: usize = 4096;
/// or once this many positions went by since the last, so that the rest of the log to be read at a start stays short.
pub const CHUNK_POSITIONS: u64 = 16_384;

/// How long and how many keys are remembered.
#[derive(Clone, Copy, Debug)]
pub struct DedupeSettings {
    /// Older keys are forgotten.
    pub max_age: Duration,
    /// More keys than this are not kept.
    pub max_ids: usize,
}

/// What is known of an event's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    New,
    /// The same event stands there.
    Repeat(Seq),
    /// An event with the same key and other bytes stands there.
    Mismatch(Seq),
}

/// The keys of the newest events.
#[derive(Debug)]
pub struct Known {
    settings: DedupeSettings,
    ring: VecDeque<Entry>,
    /// Number of entries that ever left the ring: an entry's number less this is its index.
    left: u64,
    index: HashTable<u64>,
    /// Entries and positions that are in stored chunks.
    stored_entries: u64,
    stored_to: Seq,
    /// State before the commit in progress.
    before: Before,
    /// Whether something of it can be known after a restart only if it is stored as a fingerprint.
    is_urgent: bool,
    head: Seq,
    now: Timestamp,
}

#[derive(Clone, Debug, Default)]
struct Before {
    /// Entries that were the newest of their keys.
    newest: Vec<u64>,
    entries: u64,
    stored_entries: u64,
    stored_to: Seq,
    head: Seq,
}

impl Known {
    fn new(settings: DedupeSettings, head: Seq) -> Self {
        Self {
            settings,
            ring: VecDeque::new(),
            left: 0,
            index: HashTable::new(),
            stored_entries: 0,
            stored_to: head,
            before: Before::default(),
            is_urgent: false,
            head,
            now: Timestamp(0),
        }
    }

    /// Begins a commit: forgets what is too old or too much, and remembers where to go back to.
    pub fn begin(&mut self, now: Timestamp) {
        self.now = now;
        let oldest_ms = now.minus(self.settings.max_age).0;
        while let Some(oldest) = self.ring.front()
            && (oldest.at_ms < oldest_ms || self.ring.len() > self.settings.max_ids)
        {
            self.forget_oldest();
        }
        self.is_urgent = false;
        self.before = Before {
            newest: Vec::new(),
            entries: self.left + self.ring.len() as u64,
            stored_entries: self.stored_entries,
            stored_to: self.stored_to,
            head: self.head,
        };
    }

    /// What is known of this event's key, the commit in progress included.
    #[must_use]
    pub fn look_up(&self, fingerprint: Option<Fingerprint>) -> Verdict {
        self.look_up_behind(fingerprint, Seq::ZERO)
    }

    /// The same, but of events up to `after` nothing is known.
    #[must_use]
    pub fn look_up_behind(&self, fingerprint: Option<Fingerprint>, after: Seq) -> Verdict {
        let Some(fingerprint) = fingerprint else { return Verdict::New };
        match self.find(fingerprint.key()).filter(|entry| entry.seq > after) {
            None => Verdict::New,
            Some(entry) if entry.is_like(fingerprint) => Verdict::Repeat(entry.seq),
            Some(entry) => Verdict::Mismatch(entry.seq),
        }
    }

    /// Where the event with this key stands.
    #[must_use]
    pub fn position(&self, topic: &str, source: &str, id: &str) -> Option<Seq> {
        self.find(key_of(topic, source, id)).map(|entry| entry.seq)
    }

    /// Notes an event that goes into the commit.
    pub fn note(&mut self, fingerprint: Option<Fingerprint>, seq: Seq, arrived_at: Timestamp) {
        self.head = seq;
        if let Some(fingerprint) = fingerprint {
            self.insert(Entry::new(fingerprint, seq, arrived_at));
        }
    }

    /// Notes an event that goes into the commit under another id than it came with: it is known by both. `is_cut` = the log
    /// does not tell the one that it came with.
    pub fn note_renamed(&mut self, came: Fingerprint, stored: Fingerprint, seq: Seq, arrived_at: Timestamp, is_cut: bool) {
        self.note(Some(came), seq, arrived_at);
        self.note(Some(stored), seq, arrived_at);
        self.is_urgent |= is_cut;
    }

    /// The chunk that this commit fills, to be stored with it.
    pub fn full_chunk(&mut self) -> Option<FingerprintChunk> {
        let unstored = (self.left + self.ring.len() as u64).saturating_sub(self.stored_entries);
        if !self.is_urgent && unstored < CHUNK_ENTRIES as u64 && self.head.0 - self.stored_to.0 < CHUNK_POSITIONS {
            return None;
        }
        let skip = usize::try_from(self.stored_entries.saturating_sub(self.left)).unwrap_or(usize::MAX);
        let bytes = entry::encode(self.ring.iter().skip(skip));
        let chunk = FingerprintChunk { first: self.stored_to.next(), last: self.head, last_at: self.now, bytes };
        self.stored_entries = self.left + self.ring.len() as u64;
        self.stored_to = self.head;
        Some(chunk)
    }

    /// Ends a commit that went through.
    pub fn keep(&mut self) {
        self.before = Before::default();
    }

    /// Takes back what the failed commit added.
    pub fn undo(&mut self) {
        while self.left + self.ring.len() as u64 > self.before.entries {
            let Some(entry) = self.ring.pop_back() else { break };
            let number = self.left + self.ring.len() as u64;
            if let Ok(slot) = self.index.find_entry(hash_of(entry.key), |other| *other == number) {
                slot.remove();
            }
        }
        for number in std::mem::take(&mut self.before.newest) {
            let Some(key) = self.entry(number).map(|entry| entry.key) else { continue };
            if let Slot::Vacant(free) = slot(&mut self.index, &self.ring, self.left, key) {
                free.insert(number);
            }
        }
        self.stored_entries = self.before.stored_entries;
        self.stored_to = self.before.stored_to;
        self.head = self.before.head;
    }

    /// Chunks that end before this position have nothing to say any more: no key is known from before it, and it is not behind
    /// the newest chunk, which says where the next start reads on.
    #[must_use]
    pub fn oldest(&self) -> Seq {
        self.ring.front().map_or(self.stored_to, |entry| entry.seq.min(self.stored_to))
    }

    /// Keys in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether no key is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    fn find(&self, key: u128) -> Option<&Entry> {
        let number = self.index.find(hash_of(key), |number| self.entry(*number).is_some_and(|entry| entry.key == key))?;
        self.entry(*number)
    }

    fn entry(&self, number: u64) -> Option<&Entry> {
        at(&self.ring, self.left, number)
    }

    /// Adds an entry, the newest of its key from now on.
    fn insert(&mut self, entry: Entry) {
        let number = self.left + self.ring.len() as u64;
        match slot(&mut self.index, &self.ring, self.left, entry.key) {
            Slot::Occupied(mut newest) => {
                let before = std::mem::replace(newest.get_mut(), number);
                // One that this very commit brought would go with it.
                if before < self.before.entries {
                    self.before.newest.push(before);
                }
            }
            Slot::Vacant(free) => drop(free.insert(number)),
        }
        self.ring.push_back(entry);
    }

    fn forget_oldest(&mut self) {
        let number = self.left;
        if let Some(entry) = self.ring.pop_front() {
            self.left += 1;
            if let Ok(slot) = self.index.find_entry(hash_of(entry.key), |other| *other == number) {
                slot.remove();
            }
        }
    }
}

/// Reads what earlier processes knew: the stored chunks, then the log behind them.
///
/// # Errors
/// As storage fails.
pub async fn load(log: &dyn EventLog, settings: DedupeSettings, now: Timestamp) -> Result<Known, StorageError> {
    const READ_BYTES: usize = 1024 * 1024;
    let bounds = log.bounds().await?;
    let mut known = Known::new(settings, bounds.first.prev());
    let oldest = now.minus(settings.max_age);
    for chunk in log.fingerprints().await? {
        entry::decode(&chunk.bytes).filter(|entry| entry.at_ms >= oldest.0).for_each(|entry| known.insert(entry));
        known.begin(now);
        known.stored_to = known.stored_to.max(chunk.last);
    }
    known.stored_entries = known.left + known.ring.len() as u64;
    known.head = known.stored_to;
    loop {
        let LogRead { damaged, pages } = match log.read(known.head, READ_BYTES).await {
            Err(error) if error.kind == StorageErrorKind::Corrupt => {
                tracing::error!(%error, from = %known.head.next(), "the log does not read; repeats of its events are not known");
                break;
            }
            read => read?,
        };
        if let Some((from, to)) = damaged {
            tracing::error!(%from, %to, "events are damaged; repeats of them are not known");
        }
        let Some(last) = pages.last().map(|page| page.last()).or(damaged.map(|(_, to)| to)) else { break };
        for event in pages.iter().flat_map(|page| page.events_after(known.head)).collect::<Vec<_>>() {
            let fields = event.fields();
            if fields.own_id && event.arrived_at() >= oldest {
                let (topic, seq, at) = (event.topic().as_str(), event.seq(), event.arrived_at());
                let logged = Fingerprint::of_logged(topic, &fields);
                if let Some(came_with) = entry::id_before(fields.id, seq) {
                    known.insert(Entry::new(logged.under(topic, fields.source, came_with), seq, at));
                }
                known.insert(Entry::new(logged, seq, at));
            }
        }
        known.head = last;
    }
    known.head = known.head.max(bounds.head);
    known.begin(now);
    Ok(known)
}

fn at(ring: &VecDeque<Entry>, left: u64, number: u64) -> Option<&Entry> {
    ring.get(usize::try_from(number.checked_sub(left)?).ok()?)
}

/// Where the number of the newest entry of a key stands, or would.
fn slot<'a>(index: &'a mut HashTable<u64>, ring: &VecDeque<Entry>, left: u64, key: u128) -> Slot<'a, u64> {
    let is_key = |number: &u64| at(ring, left, *number).is_some_and(|entry| entry.key == key);
    index.entry(hash_of(key), is_key, |number| at(ring, left, *number).map_or(0, |entry| hash_of(entry.key)))
}

#[allow(clippy::cast_possible_truncation, reason = "the lower half of a uniform number is uniform")]
fn hash_of(key: u128) -> u64 {
    key as u64
}

#[cfg(test)]
mod tests;
