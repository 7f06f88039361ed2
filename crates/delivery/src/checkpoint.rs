//! The stored form of a partition's progress. Pure.
//!
//! Layout, all numbers LEB128: version `1`, the highest ordinal that the partition has taken in, then for each subscription
//! that is not simply at the frontier: its ordinal, its base, the number of holes, and the distance of each hole below the
//! one before (the first below `base + 1`). A subscription with no entry and an ordinal up to the highest is at the frontier;
//! one with a higher ordinal was made after the checkpoint and starts where its record says. Where endpoints fail, the
//! version is `2` and they come first. Where endpoints asked to be left alone, it is `3` and those come behind the failing.

use std::collections::HashMap;

use super::window::Progress;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::Seq;
use hookcast_core::model::subscription::Ordinal;
use hookcast_core::model::varint::{put, take};
use hookcast_log::storage::Checkpoint;

const VERSION: u64 = 1;
/// The same with a list of those that fail before the entries: how many, then ordinal and milliseconds since the epoch of each.
const VERSION_FAILING: u64 = 2;
/// The same with a list of those that asked to be left alone behind that: how many, then ordinal, milliseconds since the epoch and
/// mark of each.
const VERSION_HELD: u64 = 3;

/// Until when an endpoint is left alone, because it asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Nothing goes out before.
    pub until: Timestamp,
    /// Which endpoint asked, by a mark of its URL: another one asked for nothing.
    pub mark: u64,
}

/// A partition's progress as it was saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionProgress {
    /// Every subscription without an entry has settled everything up to here.
    pub frontier: Seq,
    /// Subscriptions made later are not covered.
    pub taken_in: u64,
    /// The others.
    pub entries: HashMap<Ordinal, Progress>,
    /// Since when endpoints have done nothing but fail.
    pub failing: HashMap<Ordinal, Timestamp>,
    /// Endpoints that asked to be left alone.
    pub holds: HashMap<Ordinal, Hold>,
}

impl PartitionProgress {
    /// Where a subscription goes on that starts after `starts_after` when nothing is known of it.
    #[must_use]
    pub fn of(&self, ordinal: Ordinal, starts_after: Seq) -> Progress {
        match self.entries.get(&ordinal) {
            Some(progress) => progress.clone(),
            None if ordinal.0 <= self.taken_in => Progress { base: self.frontier.max(starts_after), holes: Vec::new() },
            None => Progress { base: starts_after, holes: Vec::new() },
        }
    }

    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Checkpoint {
        let mut state = Vec::with_capacity(16 + 12 * self.entries.len());
        let version = match (self.failing.is_empty(), self.holds.is_empty()) {
            (_, false) => VERSION_HELD,
            (false, true) => VERSION_FAILING,
            (true, true) => VERSION,
        };
        put(&mut state, version);
        put(&mut state, self.taken_in);
        if version >= VERSION_FAILING {
            put(&mut state, self.failing.len() as u64);
            for (ordinal, since) in &self.failing {
                put(&mut state, ordinal.0);
                put(&mut state, u64::try_from(since.0).unwrap_or_default());
            }
        }
        if version >= VERSION_HELD {
            put(&mut state, self.holds.len() as u64);
            for (ordinal, hold) in &self.holds {
                put(&mut state, ordinal.0);
                put(&mut state, u64::try_from(hold.until.0).unwrap_or_default());
                put(&mut state, hold.mark);
            }
        }
        for (ordinal, progress) in &self.entries {
            put(&mut state, ordinal.0);
            put(&mut state, progress.base.0);
            put(&mut state, progress.holes.len() as u64);
            let mut above = progress.base.0 + 1;
            for hole in progress.holes.iter().rev() {
                put(&mut state, above - hole.0);
                above = hole.0;
            }
        }
        Checkpoint { frontier: self.frontier, state }
    }

    /// Reads the stored form; `None` when it is damaged or of a newer version.
    #[must_use]
    pub fn decode(checkpoint: &Checkpoint) -> Option<Self> {
        let mut rest = &checkpoint.state[..];
        if rest.is_empty() {
            return Some(Self { frontier: checkpoint.frontier, ..Self::default() });
        }
        let version = take(&mut rest)?;
        if !(VERSION..=VERSION_HELD).contains(&version) {
            return None;
        }
        let taken_in = take(&mut rest)?;
        let mut failing = HashMap::new();
        for _ in 0..if version >= VERSION_FAILING { take(&mut rest)? } else { 0 } {
            failing.insert(Ordinal(take(&mut rest)?), Timestamp(i64::try_from(take(&mut rest)?).ok()?));
        }
        let mut held = HashMap::new();
        for _ in 0..if version >= VERSION_HELD { take(&mut rest)? } else { 0 } {
            let ordinal = Ordinal(take(&mut rest)?);
            let until = Timestamp(i64::try_from(take(&mut rest)?).ok()?);
            held.insert(ordinal, Hold { until, mark: take(&mut rest)? });
        }
        let mut entries = HashMap::new();
        while !rest.is_empty() {
            let ordinal = Ordinal(take(&mut rest)?);
            let base = Seq(take(&mut rest)?);
            let count = take(&mut rest)?;
            let mut above = base.0.checked_add(1)?;
            let mut holes = Vec::new();
            for _ in 0..count {
                above = above.checked_sub(take(&mut rest)?)?;
                holes.push(Seq(above));
            }
            holes.reverse();
            entries.insert(ordinal, Progress { base, holes });
        }
        Some(Self { frontier: checkpoint.frontier, taken_in, entries, failing, holds: held })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn progress() -> impl Strategy<Value = Progress> {
        (0u64..1_000_000, prop::collection::btree_set(0u64..1_000_000, 0..20)).prop_map(|(base, holes)| Progress {
            base: Seq(base),
            holes: holes.into_iter().filter(|hole| *hole <= base).map(Seq).collect(),
        })
    }

    fn hold() -> impl Strategy<Value = Hold> {
        (0..i64::MAX, any::<u64>()).prop_map(|(until, mark)| Hold { until: Timestamp(until), mark })
    }

    proptest! {
        #[test]
        fn progress_survives_its_stored_form(
            frontier in any::<u32>(), taken_in in any::<u64>(),
            entries in prop::collection::hash_map(any::<u64>().prop_map(Ordinal), progress(), 0..20),
            failing in prop::collection::hash_map(any::<u64>().prop_map(Ordinal), (0..i64::MAX).prop_map(Timestamp), 0..4),
            holds in prop::collection::hash_map(any::<u64>().prop_map(Ordinal), hold(), 0..4),
        ) {
            let before = PartitionProgress { frontier: Seq(u64::from(frontier)), taken_in, entries, failing, holds };
            prop_assert_eq!(PartitionProgress::decode(&before.encode()), Some(before));
        }

        #[test]
        fn damaged_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = PartitionProgress::decode(&Checkpoint { frontier: Seq(9), state: bytes });
        }
    }

    #[test]
    fn a_subscription_made_after_the_checkpoint_starts_where_its_record_says() {
        let saved = PartitionProgress { frontier: Seq(100), taken_in: 7, ..PartitionProgress::default() };
        assert_eq!(saved.of(Ordinal(7), Seq(0)).base, Seq(100));
        assert_eq!(saved.of(Ordinal(8), Seq(0)).base, Seq(0));
    }
}
