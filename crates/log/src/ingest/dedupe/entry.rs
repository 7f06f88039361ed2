//! What is kept of one event to know it again: its key, what it was like, where it stands; and how a chunk of that is stored.
//!
//! A chunk of today is a version byte and 48 bytes an entry. Chunks of earlier builds are 40 bytes an entry and nothing else, so
//! their length is even; of what an event was like they know its data only, and by that it is compared then.

use sha2::{Digest, Sha256};

use hookcast_core::clock::Timestamp;
use hookcast_core::model::event::ID_BYTES_MAX;
use hookcast_core::model::page::RecordFields;
use hookcast_core::model::{NewEvent, Seq};

/// First byte of a chunk.
const VERSION: u8 = 2;
const ENTRY_BYTES: usize = 48;
/// Bytes of an entry of earlier builds.
const OLD_ENTRY_BYTES: usize = 40;

/// What tells one event from another: its key, and what it is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    key: u128,
    pub(super) data: u64,
    /// Of type and subject; 0 = not to be looked at, or not known.
    pub(super) look: u64,
}

impl Fingerprint {
    /// The fingerprint of an event whose publisher gave the id; others are never repeats. Only its data is compared.
    #[must_use]
    pub fn of(event: &NewEvent) -> Option<Self> {
        let key = || key_of(event.topic.as_str(), &event.source, &event.id);
        event.own_id.then(|| Self { key: key(), data: hash_of_data(&event.data), look: 0 })
    }

    /// The same of an event of a source: type and subject are compared, too.
    #[must_use]
    pub fn of_sourced(event: &NewEvent) -> Option<Self> {
        let whole = |known: Self| Self { look: hash_of_look(&event.kind, event.subject.as_deref()), ..known };
        Self::of(event).map(whole)
    }

    /// The fingerprint of an event of the log whose publisher gave the id.
    pub(super) fn of_logged(topic: &str, fields: &RecordFields<'_>) -> Self {
        let look = hash_of_look(fields.kind, fields.subject);
        Self { key: key_of(topic, fields.source, fields.id), data: hash_of_data(fields.data), look }
    }

    /// What stands for topic, source and id.
    #[must_use]
    pub fn key(self) -> u128 {
        self.key
    }

    /// The same event under another id.
    #[must_use]
    pub(in crate::ingest) fn under(self, topic: &str, source: &str, id: &str) -> Self {
        Self { key: key_of(topic, source, id), ..self }
    }
}

/// A fingerprint and where its event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: u128,
    pub(super) seq: Seq,
    pub(super) data: u64,
    pub(super) look: u64,
    pub(super) at_ms: i64,
}

impl Entry {
    pub(super) fn new(fingerprint: Fingerprint, seq: Seq, at: Timestamp) -> Self {
        Self { key: fingerprint.key, seq, data: fingerprint.data, look: fingerprint.look, at_ms: at.0 }
    }

    /// Whether an event was like this one, as far as is known of both.
    pub(super) fn is_like(&self, fingerprint: Fingerprint) -> bool {
        self.data == fingerprint.data && (self.look == 0 || fingerprint.look == 0 || self.look == fingerprint.look)
    }
}

/// Entries as they are stored.
pub(super) fn encode<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    for entry in entries {
        bytes.extend_from_slice(&entry.key.to_le_bytes());
        bytes.extend_from_slice(&entry.seq.0.to_le_bytes());
        bytes.extend_from_slice(&entry.data.to_le_bytes());
        bytes.extend_from_slice(&entry.at_ms.to_le_bytes());
        bytes.extend_from_slice(&entry.look.to_le_bytes());
    }
    bytes
}

/// Entries out of a stored chunk, of this build or an earlier one.
pub(super) fn decode(chunk: &[u8]) -> impl Iterator<Item = Entry> + '_ {
    let (entries, entry_bytes) = match chunk {
        [VERSION, entries @ ..] if entries.len() % ENTRY_BYTES == 0 => (entries, ENTRY_BYTES),
        old => (old, OLD_ENTRY_BYTES),
    };
    entries.chunks_exact(entry_bytes).filter_map(decode_one)
}

fn decode_one(bytes: &[u8]) -> Option<Entry> {
    let number = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    Some(Entry {
        key: u128::from_le_bytes(bytes.get(..16)?.try_into().ok()?),
        seq: Seq(number(16)?),
        data: number(24)?,
        at_ms: number(32)?.cast_signed(),
        look: number(40).unwrap_or(0),
    })
}

/// The id that an event at `seq` is stored under when the one that it came with is another event's, and whether that one was
/// cut for it.
pub(in crate::ingest) fn id_behind(id: &str, seq: Seq) -> (String, bool) {
    let behind = format!("~{seq}");
    let mut end = id.len().min(ID_BYTES_MAX - behind.len());
    while !id.is_char_boundary(end) {
        end -= 1;
    }
    (format!("{}{behind}", &id[..end]), end < id.len())
}

/// The id that an event at `seq` came with, when this one looks as if it was stored under another.
pub(super) fn id_before(id: &str, seq: Seq) -> Option<&str> {
    let (before, number) = id.rsplit_once('~')?;
    (!before.is_empty() && number.parse() == Ok(seq.0)).then_some(before)
}

/// 128 bits of SHA-256: nobody can make two keys collide on purpose.
pub(super) fn key_of(topic: &str, source: &str, id: &str) -> u128 {
    let mut hash = Sha256::new();
    for part in [topic, source, id] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    u128::from_le_bytes(hash.finalize()[..16].try_into().expect("invariant: SHA-256 has 32 bytes"))
}

pub(super) fn hash_of_data(data: &[u8]) -> u64 {
    first_of(&Sha256::digest(data))
}

/// Never 0, which stands for what is not known.
pub(super) fn hash_of_look(kind: &str, subject: Option<&str>) -> u64 {
    let mut hash = Sha256::new_with_prefix(kind);
    if let Some(subject) = subject {
        hash.update([0]);
        hash.update(subject);
    }
    first_of(&hash.finalize()).max(1)
}

fn first_of(hash: &[u8]) -> u64 {
    u64::from_le_bytes(hash[..8].try_into().expect("invariant: SHA-256 has 32 bytes"))
}
