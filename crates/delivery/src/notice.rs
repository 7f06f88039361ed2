//! What the relay says about deliveries: events of its own, for the topic `hookcast.ops`. Never a loop: what concerns the
//! delivery of such an event makes no further one.

use serde_json::{Value, json};

use super::desk::Desk;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::source::SourceGap;
use hookcast_core::model::subscription::SubscriptionRecord;
use hookcast_core::model::topic::OWN_TOKEN;
use hookcast_core::model::{Event, Outcome, Seq};

/// Notices that may wait to be taken into the log; more are counted and left out.
pub const NOTICES_MAX: usize = 1024;

/// One notice.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// Its type, such as `delivery.expired`.
    pub kind: &'static str,
    /// Whom it is about: the id of a subscription, the name of a source.
    pub subject: String,
    /// What happened.
    pub data: Value,
    /// Whether it is a line of the log and no event: it concerns the delivery of such events.
    pub is_for_the_log: bool,
}

impl Notice {
    /// Retention took these positions before they were delivered, both inclusive.
    #[must_use]
    pub fn expired(record: &SubscriptionRecord, from: Seq, to: Seq) -> Self {
        Self::about(record, "delivery.expired", json!({ "from": from, "to": to }))
    }

    /// So many positions between these, both inclusive, were skipped or passed over by a seek before they were delivered.
    #[must_use]
    pub fn skipped(record: &SubscriptionRecord, (from, to): (Seq, Seq), count: u64) -> Self {
        Self::about(record, "delivery.skipped", json!({ "from": from, "to": to, "count": count }))
    }

    /// So many dead letters between these positions, both inclusive, are no longer kept.
    #[must_use]
    pub fn buried(record: &SubscriptionRecord, (from, to): (Seq, Seq), count: u64) -> Self {
        Self::about(record, "delivery.no_longer_kept", json!({ "from": from, "to": to, "count": count }))
    }

    /// A delivery was given up.
    #[must_use]
    pub fn dead(record: &SubscriptionRecord, seq: Seq, event: Option<&Event>, reason: &str) -> Self {
        let notice = Self::about(record, "delivery.dead", json!({ "seq": seq, "reason": reason }));
        let is_for_the_log = notice.is_for_the_log || event.is_some_and(|event| event.topic().is_own());
        Self { is_for_the_log, ..notice }
    }

    /// The receiver wants no more.
    #[must_use]
    pub fn disabled(record: &SubscriptionRecord, reason: &str) -> Self {
        Self::about(record, "subscription.disabled", json!({ "reason": reason }))
    }

    /// The circuit of an endpoint opened, so that only probes go out, or closed again.
    #[must_use]
    pub fn turned(desk: &Desk, outcome: &Outcome) -> Self {
        if desk.circuit().is_closed() {
            return Self::about(&desk.record, "subscription.recovered", json!({}));
        }
        let since = desk.failing_since().map(|since| since.to_string());
        Self::about(&desk.record, "subscription.failing", json!({ "reason": outcome.describe(), "since": since }))
    }

    /// A change of a subscription closed its circuit: what is known of its endpoint was forgotten.
    #[must_use]
    pub fn begun_anew(record: &SubscriptionRecord) -> Self {
        Self::about(record, "subscription.recovered", json!({ "reason": "changed" }))
    }

    /// A stretch of an upstream was missed for good.
    #[must_use]
    pub fn source_gap(gap: &SourceGap) -> Self {
        let times = json!({ "from": gap.from.to_string(), "to": gap.to.to_string(), "at_seq": gap.at_seq });
        Self::of_source("source.gap", &gap.source, times)
    }

    /// An upstream cannot be read.
    #[must_use]
    pub fn source_down(source: &str, since: Timestamp, reason: &str, detail: &str) -> Self {
        Self::of_source("source.down", source, json!({ "since": since.to_string(), "reason": reason, "detail": detail }))
    }

    /// An upstream that could not be read is read again.
    #[must_use]
    pub fn source_up(source: &str, down_since: Timestamp) -> Self {
        Self::of_source("source.up", source, json!({ "down_since": down_since.to_string() }))
    }

    /// The cursor of an upstream went back; events that come again are known by their ids.
    #[must_use]
    pub fn source_cursor_went_back(source: &str, from: &str, to: &str) -> Self {
        Self::of_source("source.cursor_went_back", source, json!({ "from": from, "to": to }))
    }

    /// An upstream gave another event the id of one that was there; `seq` is where it stands now, if it was kept.
    #[must_use]
    pub fn source_id_reused(source: &str, id: &str, seq: Option<Seq>, earlier: Seq) -> Self {
        Self::of_source("source.id_reused", source, json!({ "id": id, "seq": seq, "earlier_seq": earlier }))
    }

    /// What an upstream said about its stream, and the position of the event that it had purged.
    #[must_use]
    pub fn source_said(kind: &'static str, source: &str, said: &Value, purged: Option<Seq>) -> Self {
        Self::of_source(kind, source, json!({ "said": said, "purged": purged }))
    }

    fn of_source(kind: &'static str, source: &str, mut data: Value) -> Self {
        data["source"] = json!(source);
        Self { kind, subject: source.to_owned(), data, is_for_the_log: false }
    }

    fn about(record: &SubscriptionRecord, kind: &'static str, mut data: Value) -> Self {
        let patterns = record.spec.topics.patterns();
        let is_for_the_log = patterns.iter().all(|pattern| pattern.as_str().split('.').next() == Some(OWN_TOKEN));
        data["subscription"] = json!(record.spec.id);
        Self { kind, subject: record.spec.id.to_string(), data, is_for_the_log }
    }
}
