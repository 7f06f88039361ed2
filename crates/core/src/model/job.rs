//! Recovery jobs: which events of a subscription are posted once more, and how far that has come. Pure data.

use std::fmt;
use std::sync::Arc;

use super::event::Seq;
use super::subscription::Ordinal;
use super::varint::{put, take};
use crate::clock::Timestamp;

/// Name of a job, unique in its subscription and rising with time: `job_` and 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

impl JobId {
    /// A name for a job that is made now; `chance` tells jobs of one millisecond apart.
    #[must_use]
    pub fn new(now: Timestamp, chance: u64) -> Self {
        Self((now.0.cast_unsigned() << 20 | (chance & 0xf_ffff)) & u64::MAX >> 1)
    }

    /// Reads what `Display` writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("job_").filter(|digits| digits.len() == 16)?;
        digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).then_some(())?;
        u64::from_str_radix(digits, 16).ok().map(Self)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job_{:016x}", self.0)
    }
}

/// What asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobKind {
    /// `dead-letters/redrive`.
    Redrive,
    /// `replay`.
    Replay,
}

impl JobKind {
    /// The word of the API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Redrive => "redrive",
            Self::Replay => "replay",
        }
    }
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Events are posted, or wait for their turn.
    Running,
    /// Every event was posted.
    Done,
    /// Ended before that.
    Cancelled,
}

impl JobState {
    /// The word of the API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Which events of the range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All that match the definition.
    All,
    /// Dead letters.
    Failed,
    /// Dead letters at these positions, rising.
    Seqs(Arc<[Seq]>),
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryJob {
    /// Whose.
    pub ordinal: Ordinal,
    /// Its name.
    pub id: JobId,
    /// What asked for it.
    pub kind: JobKind,
    /// Which events.
    pub selection: Selection,
    /// First position, inclusive.
    pub from: Seq,
    /// Last position, inclusive.
    pub to: Seq,
    /// Where it stands.
    pub state: JobState,
    /// Everything up to here was posted; a restart goes on behind it.
    pub position: Seq,
    /// Events it is about, as counted when it was made.
    pub events: u64,
    /// Events posted.
    pub done: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was done or cancelled.
    pub ended_at: Option<Timestamp>,
}

/// The stored form of a list of rising positions: LEB128 distances.
#[must_use]
pub fn encode_seqs(seqs: &[Seq]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 * seqs.len());
    let mut before = 0;
    for seq in seqs {
        put(&mut bytes, seq.0.saturating_sub(before));
        before = seq.0;
    }
    bytes
}

/// Reads [`encode_seqs`]; `None` when the bytes are damaged.
#[must_use]
pub fn decode_seqs(mut bytes: &[u8]) -> Option<Vec<Seq>> {
    let (mut seqs, mut seq) = (Vec::new(), 0u64);
    while !bytes.is_empty() {
        seq = seq.checked_add(take(&mut bytes)?)?;
        seqs.push(Seq(seq));
    }
    Some(seqs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_rise_with_time() {
        let (old, new) = (JobId::new(Timestamp(1_700_000_000_000), u64::MAX), JobId::new(Timestamp(1_700_000_000_001), 0));
        assert!(old < new);
        assert_eq!(JobId::parse(&old.to_string()), Some(old));
        for wrong in ["", "job_", "job_12", "job_000000000000000G", "JOB_0000000000000000", "job_+000000000000001"] {
            assert_eq!(JobId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn positions_survive_their_stored_form() {
        let seqs = [1, 2, 900, 1_000_000].map(Seq);
        assert_eq!(decode_seqs(&encode_seqs(&seqs)), Some(seqs.to_vec()));
        assert_eq!(decode_seqs(&[0x80]), None);
    }
}
