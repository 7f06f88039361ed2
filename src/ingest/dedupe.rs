//! Which events were there before: fingerprints of (topic, source, id) in a bounded ring with an index.
//!
//! Only events whose id the publisher gave are noted. What a commit adds can be undone when it fails. The ring is stored in
//! chunks with the events, so that a start reads those and the little of the log that is newer, never the whole log.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashTable;
use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::model::{NewEvent, Seq};
use crate::storage::{EventLog, FingerprintChunk, StorageError};

/// A chunk is stored once it holds this many fingerprints,
pub const CHUNK_ENTRIES: usize = 4096;
/// or once this many positions went by since the last, so that the rest of the log to be read at a start stays short.
pub const CHUNK_POSITIONS: u64 = 16_384;
const ENTRY_BYTES: usize = 40;

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

/// What tells one event from another: its key, and its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    key: u128,
    body: u64,
}

impl Fingerprint {
    /// The fingerprint of an event whose publisher gave the id; others are never repeats.
    #[must_use]
    pub fn of(event: &NewEvent) -> Option<Self> {
        event.own_id.then(|| Self { key: key_of(event.topic.as_str(), &event.source, &event.id), body: body_of(&event.data) })
    }

    /// What stands for topic, source and id.
    #[must_use]
    pub fn key(self) -> u128 {
        self.key
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    key: u128,
    seq: Seq,
    body: u64,
    at_ms: i64,
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
    head: Seq,
    now: Timestamp,
}

#[derive(Clone, Copy, Debug, Default)]
struct Before {
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
        self.before = Before {
            entries: self.left + self.ring.len() as u64,
            stored_entries: self.stored_entries,
            stored_to: self.stored_to,
            head: self.head,
        };
    }

    /// What is known of this event's key, the commit in progress included.
    #[must_use]
    pub fn look_up(&self, fingerprint: Option<Fingerprint>) -> Verdict {
        let Some(Fingerprint { key, body }) = fingerprint else { return Verdict::New };
        match self.find(key) {
            None => Verdict::New,
            Some(entry) if entry.body == body => Verdict::Repeat(entry.seq),
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
        if let Some(Fingerprint { key, body }) = fingerprint {
            self.insert(Entry { key, seq, body, at_ms: arrived_at.0 });
        }
    }

    /// The chunk that this commit fills, to be stored with it.
    pub fn full_chunk(&mut self) -> Option<FingerprintChunk> {
        let unstored = (self.left + self.ring.len() as u64).saturating_sub(self.stored_entries);
        if unstored < CHUNK_ENTRIES as u64 && self.head.0 - self.stored_to.0 < CHUNK_POSITIONS {
            return None;
        }
        let skip = usize::try_from(self.stored_entries.saturating_sub(self.left)).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        for entry in self.ring.iter().skip(skip) {
            bytes.extend_from_slice(&entry.key.to_le_bytes());
            bytes.extend_from_slice(&entry.seq.0.to_le_bytes());
            bytes.extend_from_slice(&entry.body.to_le_bytes());
            bytes.extend_from_slice(&entry.at_ms.to_le_bytes());
        }
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
        self.stored_entries = self.before.stored_entries;
        self.stored_to = self.before.stored_to;
        self.head = self.before.head;
    }

    /// The oldest position whose key is known; chunks that end before it have nothing to say any more.
    #[must_use]
    pub fn oldest(&self) -> Seq {
        self.ring.front().map_or(self.stored_to, |entry| entry.seq)
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
        self.ring.get(usize::try_from(number.checked_sub(self.left)?).ok()?)
    }

    fn insert(&mut self, entry: Entry) {
        let number = self.left + self.ring.len() as u64;
        self.ring.push_back(entry);
        let (ring, left) = (&self.ring, self.left);
        let rehash = |number: &u64| {
            let index = usize::try_from(number.saturating_sub(left)).unwrap_or(usize::MAX);
            ring.get(index).map_or(0, |entry| hash_of(entry.key))
        };
        self.index.insert_unique(hash_of(entry.key), number, rehash);
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
        for bytes in chunk.bytes.chunks_exact(ENTRY_BYTES) {
            if let Some(entry) = decode(bytes).filter(|entry| entry.at_ms >= oldest.0) {
                known.insert(entry);
            }
        }
        known.begin(now);
        known.stored_to = known.stored_to.max(chunk.last);
    }
    known.stored_entries = known.left + known.ring.len() as u64;
    known.head = known.stored_to;
    loop {
        let pages = log.read(known.head, READ_BYTES).await?;
        let Some(last) = pages.last().map(|page| page.last()) else { break };
        for event in pages.iter().flat_map(|page| page.events_after(known.head)).collect::<Vec<_>>() {
            let fields = event.fields();
            if fields.own_id && event.arrived_at() >= oldest {
                let key = key_of(event.topic().as_str(), fields.source, fields.id);
                known.insert(Entry { key, seq: event.seq(), body: body_of(fields.data), at_ms: event.arrived_at().0 });
            }
        }
        known.head = last;
    }
    known.head = known.head.max(bounds.head);
    known.begin(now);
    Ok(known)
}

fn decode(bytes: &[u8]) -> Option<Entry> {
    Some(Entry {
        key: u128::from_le_bytes(bytes.get(..16)?.try_into().ok()?),
        seq: Seq(u64::from_le_bytes(bytes.get(16..24)?.try_into().ok()?)),
        body: u64::from_le_bytes(bytes.get(24..32)?.try_into().ok()?),
        at_ms: i64::from_le_bytes(bytes.get(32..40)?.try_into().ok()?),
    })
}

/// 128 bits of SHA-256: nobody can make two keys collide on purpose.
fn key_of(topic: &str, source: &str, id: &str) -> u128 {
    let mut hash = Sha256::new();
    for part in [topic, source, id] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    u128::from_le_bytes(hash.finalize()[..16].try_into().expect("invariant: SHA-256 has 32 bytes"))
}

fn body_of(data: &[u8]) -> u64 {
    u64::from_le_bytes(Sha256::digest(data)[..8].try_into().expect("invariant: SHA-256 has 32 bytes"))
}

#[allow(clippy::cast_possible_truncation, reason = "the lower half of a uniform number is uniform")]
fn hash_of(key: u128) -> u64 {
    key as u64
}

#[cfg(test)]
mod tests;
