//! Which definition judges which positions: a change of topics, types or filter is a revision, and each position is judged by
//! the one that was in force when it was looked at. Pure.

use serde::{Deserialize, Serialize};

use super::{SubscriptionRecord, is_default};
use crate::model::event::Seq;
use crate::model::topic::PatternList;

/// Most revisions kept for one subscription; what older ones judged is not known any more.
pub const REVISIONS_MAX: usize = 1024;
/// Most bytes of all of them, but for a single larger one.
pub const REVISIONS_BYTES_MAX: usize = 1024 * 1024;

/// Which definition was in force from a position on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// The first position judged by it.
    pub from_seq: Seq,
    /// Topics then in force.
    pub topics: PatternList,
    /// Types then in force.
    pub types: Vec<String>,
    /// Filter then in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Box<str>>,
    /// Whether a change made it, not the creation.
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_change: bool,
}

impl Revision {
    fn bytes(&self) -> usize {
        let topics: usize = self.topics.patterns().iter().map(|pattern| pattern.as_str().len()).sum();
        topics + self.types.iter().map(String::len).sum::<usize>() + self.filter.as_deref().map_or(0, str::len)
    }

    /// Whether it wants events of this topic and type, by whatever else they hold.
    #[must_use]
    pub fn wants(&self, topic: &str, kind: &str) -> bool {
        self.topics.matches(topic) && (self.types.is_empty() || self.types.iter().any(|wanted| wanted == kind))
    }
}

impl SubscriptionRecord {
    /// The revision that judges a position; `None` when that is no longer known.
    #[must_use]
    pub fn revision_at(&self, seq: Seq) -> Option<&Revision> {
        let behind = self.revisions.partition_point(|revision| revision.from_seq <= seq);
        self.revisions.get(behind.checked_sub(1)?)
    }

    /// The first position that the present choice of events judges, when it is not the one it was made with.
    #[must_use]
    pub fn effective_from(&self) -> Option<Seq> {
        let newest = self.revisions.last()?;
        // Those of earlier builds do not say what made them.
        (newest.is_change || self.revisions.len() > 1).then_some(newest.from_seq)
    }

    /// Lets `newest` judge everything from its first position on. Revisions that judge nothing that is still in the log, which
    /// begins at `first_kept`, go; the oldest go as well when they are too many.
    pub(super) fn judge_by(&mut self, newest: Revision, first_kept: Seq) {
        let revisions = &mut self.revisions;
        revisions.truncate(revisions.partition_point(|revision| revision.from_seq < newest.from_seq));
        revisions.push(newest);
        let judge_nothing = revisions.windows(2).take_while(|pair| pair[1].from_seq <= first_kept).count();
        let mut bytes: usize = revisions.iter().map(Revision::bytes).sum();
        let mut too_many = judge_nothing;
        bytes -= revisions[..judge_nothing].iter().map(Revision::bytes).sum::<usize>();
        while revisions.len() - too_many > REVISIONS_MAX || (bytes > REVISIONS_BYTES_MAX && revisions.len() - too_many > 1) {
            bytes -= revisions[too_many].bytes();
            too_many += 1;
        }
        revisions.drain(..too_many);
    }

    /// What moving the cursor back to `after` makes of it: the present choice judges everything behind that. `None` when it does
    /// anyway.
    #[must_use]
    pub fn moved_back_to(&self, after: Seq) -> Option<Self> {
        let newest = self.revisions.last()?;
        if newest.from_seq <= after.next() {
            return None;
        }
        let is_change = newest.is_change || self.revisions.len() > 1;
        let mut moved = Self { starts_after: self.starts_after.min(after), ..self.clone() };
        moved.judge_by(Revision { from_seq: after.next(), is_change, ..newest.clone() }, Seq::ZERO);
        Some(moved)
    }
}
