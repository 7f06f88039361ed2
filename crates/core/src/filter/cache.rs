//! Compiled filters by their text, kept while they are asked for. Those that share a text share the program and, for one
//! event, the verdict.

use std::collections::HashMap;
use std::fmt;

use foldhash::fast::RandomState;

use super::{Facts, Filter, FilterError, Verdict};
use crate::model::Seq;

/// Most filters that are remembered; beyond, all are forgotten and compiled again when they are needed.
pub const FILTERS_MAX: usize = 4_096;

struct Known {
    filter: Result<Filter, FilterError>,
    /// The newest verdict, and of which event.
    last: (Seq, Verdict),
    /// Whether it was asked for since the last sweep.
    used: bool,
}

/// The filters of one thread.
#[derive(Default)]
pub struct Filters(HashMap<Box<str>, Known, RandomState>);

impl Filters {
    /// What the filter of this text says of an event. The same event must not come with other facts.
    ///
    /// # Panics
    /// Never: what is looked up was put there before.
    pub fn judge(&mut self, text: &str, facts: &Facts<'_>) -> &Verdict {
        if !self.0.contains_key(text) {
            if self.0.len() >= FILTERS_MAX {
                self.0.clear();
            }
            let known = Known { filter: Filter::compile(text), last: (Seq::ZERO, Verdict::NotWanted), used: true };
            self.0.insert(text.into(), known);
        }
        let known = self.0.get_mut(text).expect("invariant: it is there or was just put there");
        known.used = true;
        if known.last.0 != facts.seq() {
            let verdict = match &known.filter {
                Ok(filter) => filter.judge(facts),
                Err(error) => Verdict::Failed(format!("the filter {error}")),
            };
            known.last = (facts.seq(), verdict);
        }
        &known.last.1
    }

    /// Forgets what was not asked for since the last sweep.
    pub fn sweep(&mut self) {
        self.0.retain(|_, known| std::mem::take(&mut known.used));
        if self.0.capacity() > 4 * self.0.len().max(16) {
            self.0.shrink_to_fit();
        }
    }

    /// Filters remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filters({})", self.0.len())
    }
}
