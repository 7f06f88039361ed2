//! Filters on the way of deliveries: what a lane's desks want by the content of events, and what is counted of it.
//!
//! A filter judges an event once for all desks of the lane that share its text. A desk without one never comes here.

use metrics::counter;

use super::desk::Desk;
use hookcast_core::filter::{Facts, Filter, FilterError, Filters, Verdict};
use hookcast_core::model::subscription::{SubscriptionRecord, SubscriptionSpec};
use hookcast_core::model::{Event, PatternList, Seq};

/// What a desk's filter did since the start of the process.
#[derive(Clone, Debug, Default)]
pub struct Filtering {
    /// Events that it did not want.
    pub filtered: u64,
    /// Events that it could not judge, which were skipped.
    pub errors: u64,
    /// The newest of these, and why.
    pub last_error: Option<(Seq, String)>,
    /// The newest event that was counted; what is judged again after a seek or a rewind is not counted again.
    counted_to: Seq,
}

/// The filters of a lane.
#[derive(Debug, Default)]
pub struct Sieve {
    filters: Filters,
    filtered: u64,
    errors: u64,
}

impl Sieve {
    /// Whether a desk wants an event by its filter; what it does not want is counted.
    pub fn passes(&mut self, desk: &mut Desk, facts: &Facts<'_>) -> bool {
        let Some(filter) = desk.filter_at(facts.seq()) else { return true };
        let verdict = self.filters.judge(filter, facts);
        if *verdict == Verdict::Wanted {
            return true;
        }
        let counts = desk.filtering.get_or_insert_default();
        if facts.seq() <= counts.counted_to {
            return false;
        }
        counts.counted_to = facts.seq();
        if let Verdict::Failed(reason) = verdict {
            counts.errors += 1;
            self.errors += 1;
            if counts.last_error.is_none() {
                tracing::warn!(subscription.id = %desk.record.spec.id, event.seq = %facts.seq(), reason,
                    "a filter failed on an event, which is skipped; further failures are counted");
            }
            counts.last_error = Some((facts.seq(), reason.clone()));
        } else {
            counts.filtered += 1;
            self.filtered += 1;
        }
        false
    }

    /// Forgets filters that are no longer asked for and hands the counts over.
    pub fn sweep(&mut self) {
        self.filters.sweep();
        for (count, name) in [(&mut self.filtered, "hookcast_filtered_total"), (&mut self.errors, "hookcast_filter_errors_total")]
        {
            if *count > 0 {
                counter!(name).increment(std::mem::take(count));
            }
        }
    }
}

/// What a definition wants, where events are chosen beside the deliveries that come up by themselves. Nothing is counted.
#[derive(Debug)]
pub struct Choice<'a> {
    topics: &'a PatternList,
    types: &'a [String],
    /// One that does not compile wants nothing.
    filter: Option<Result<Filter, FilterError>>,
}

impl<'a> Choice<'a> {
    /// What this definition wants.
    #[must_use]
    pub fn of(spec: &'a SubscriptionSpec) -> Self {
        Self::new(&spec.topics, &spec.types, spec.filter.as_deref())
    }

    fn new(topics: &'a PatternList, types: &'a [String], filter: Option<&str>) -> Self {
        Self { topics, types, filter: filter.map(Filter::compile) }
    }

    /// Whether an event is wanted.
    #[must_use]
    pub fn takes(&self, event: &Event) -> bool {
        self.topics.matches(event.topic().as_str())
            && (self.types.is_empty() || self.types.iter().any(|wanted| wanted == event.fields().kind))
            && match &self.filter {
                None => true,
                Some(Err(_)) => false,
                Some(Ok(filter)) => filter.judge(&Facts::of(event)) == Verdict::Wanted,
            }
    }
}

/// What the revisions of a subscription want, each at the positions that it judges.
#[derive(Debug)]
pub struct Choices<'a> {
    record: &'a SubscriptionRecord,
    /// The one that was asked last, by its first position: events come in order.
    last: Option<(Seq, Choice<'a>)>,
}

impl<'a> Choices<'a> {
    /// What the revisions of this subscription want.
    #[must_use]
    pub fn of(record: &'a SubscriptionRecord) -> Self {
        Self { record, last: None }
    }

    /// Whether an event is wanted by the revision that judges it.
    pub fn takes(&mut self, event: &Event) -> bool {
        let revision = self.record.revision_at(event.seq()).or(self.record.revisions.first());
        let Some(revision) = revision else { return false };
        if self.last.as_ref().is_none_or(|(from, _)| *from != revision.from_seq) {
            let choice = Choice::new(&revision.topics, &revision.types, revision.filter.as_deref());
            self.last = Some((revision.from_seq, choice));
        }
        self.last.as_ref().is_some_and(|(_, choice)| choice.takes(event))
    }
}

/// Why an event is not for a subscription with this filter; `None` when it is.
#[must_use]
pub fn refusal(filter: &str, event: &Event) -> Option<String> {
    let verdict = match Filter::compile(filter) {
        Ok(filter) => filter.judge(&Facts::of(event)),
        Err(error) => Verdict::Failed(error.to_string()),
    };
    match verdict {
        Verdict::Wanted => None,
        Verdict::NotWanted => Some("the filter is false".to_owned()),
        Verdict::Failed(reason) => Some(format!("the filter failed: {reason}")),
    }
}
