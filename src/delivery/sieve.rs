//! Filters on the way of deliveries: what a lane's desks want by the content of events, and what is counted of it.
//!
//! A filter judges an event once for all desks of the lane that share its text. A desk without one never comes here.

use metrics::counter;

use super::desk::Desk;
use crate::filter::{Facts, Filter, FilterError, Filters, Verdict};
use crate::model::subscription::SubscriptionSpec;
use crate::model::{Event, Seq};

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
        let Some(filter) = desk.record.spec.filter.as_deref() else { return true };
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
    spec: &'a SubscriptionSpec,
    /// One that does not compile wants nothing.
    filter: Option<Result<Filter, FilterError>>,
}

impl<'a> Choice<'a> {
    /// What this definition wants.
    #[must_use]
    pub fn of(spec: &'a SubscriptionSpec) -> Self {
        Self { spec, filter: spec.filter.as_deref().map(Filter::compile) }
    }

    /// Whether an event is wanted.
    #[must_use]
    pub fn takes(&self, event: &Event) -> bool {
        self.spec.wants(event.topic().as_str(), event.fields().kind)
            && match &self.filter {
                None => true,
                Some(Err(_)) => false,
                Some(Ok(filter)) => filter.judge(&Facts::of(event)) == Verdict::Wanted,
            }
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
