//! One line of an order: what holds it up. Pure; which line an event is of, and what follows, is not known here.

use std::collections::{BTreeSet, VecDeque};

use hookcast_core::model::Seq;

/// What holds a line up, and what stands behind it.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Attempts under way.
    pub(super) flying: u32,
    /// Whether those in flight belong to the batch that is being gathered.
    pub(super) gathers: bool,
    /// Those that wait for another attempt.
    pub(super) retries: BTreeSet<Seq>,
    /// Dead letters that hold it up.
    pub(super) dead: BTreeSet<Seq>,
    /// Those that stand aside, in order.
    pub(super) behind: VecDeque<Seq>,
}

impl State {
    pub(super) fn is_over(&self) -> bool {
        self.flying == 0 && self.retries.is_empty() && self.dead.is_empty() && self.behind.is_empty()
    }

    pub(super) fn has_runner(&self) -> bool {
        self.flying > 0 && !self.gathers
    }

    /// Whether a first attempt of `seq` may begin, as far as those before it go.
    pub(super) fn lets_pass(&self, seq: Seq) -> bool {
        !self.has_runner() && self.retries.is_empty() && self.dead.first().is_none_or(|dead| *dead >= seq)
    }
}
