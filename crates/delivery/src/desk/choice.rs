//! Which events a desk wants: by its definition in force, and below the position where that takes effect by those before.

use super::Desk;
use hookcast_core::model::subscription::SubscriptionRecord;
use hookcast_core::model::{Event, PatternList, Seq};

/// Definitions before the one in force judge what the desk has not passed yet.
#[derive(Debug)]
pub(super) struct Earlier {
    /// From here on the one in force judges.
    until: Seq,
    /// Topics of all that judge.
    patterns: PatternList,
}

impl Earlier {
    fn of(record: &SubscriptionRecord, base: Seq) -> Option<Box<Self>> {
        let until = record.revisions.last()?.from_seq;
        if until <= base.next() {
            return None;
        }
        let first = record.revisions.partition_point(|revision| revision.from_seq <= base.next()).saturating_sub(1);
        let patterns = PatternList::joined(record.revisions[first..].iter().map(|revision| &revision.topics));
        Some(Box::new(Self { until, patterns }))
    }
}

impl Desk {
    /// The topics it has to be asked about.
    #[must_use]
    pub fn patterns(&self) -> &PatternList {
        self.earlier.as_ref().map_or(&self.record.spec.topics, |earlier| &earlier.patterns)
    }

    /// Finds out which definitions judge what is not behind it; `lane` is where the lane's reader stands.
    pub fn look_back(&mut self, lane: Seq) {
        self.earlier = Earlier::of(&self.record, self.window.base(lane));
    }

    /// Whether definitions before the one in force are kept that judge nothing any more.
    #[must_use]
    pub fn has_outgrown(&self, lane: Seq) -> bool {
        self.earlier.as_ref().is_some_and(|earlier| self.window.base(lane).next() >= earlier.until)
    }

    /// Whether definitions before the one in force still judge.
    #[must_use]
    pub fn looks_back(&self) -> bool {
        self.earlier.is_some()
    }

    /// Whether an event of a topic of [`Desk::patterns`] is wanted by topic and type; `kind` gives the type.
    #[must_use]
    pub fn wants<'e>(&self, event: &'e Event, kind: impl FnOnce() -> &'e str) -> bool {
        let Some(earlier) = &self.earlier else {
            let types = &self.record.spec.types;
            return types.is_empty() || {
                let kind = kind();
                types.iter().any(|wanted| wanted == kind)
            };
        };
        let topic = event.topic();
        if event.seq() >= earlier.until {
            return self.record.spec.wants(topic.as_str(), kind());
        }
        let judge = self.record.revision_at(event.seq()).or(self.record.revisions.first());
        judge.is_some_and(|revision| revision.wants(topic.as_str(), kind()))
    }

    /// The filter that judges this position.
    #[must_use]
    pub fn filter_at(&self, seq: Seq) -> Option<&str> {
        match &self.earlier {
            Some(earlier) if seq < earlier.until => {
                self.record.revision_at(seq).or(self.record.revisions.first())?.filter.as_deref()
            }
            _ => self.record.spec.filter.as_deref(),
        }
    }
}
