//! What the relay says about deliveries: events of its own, for the topic `hookcast.ops`. Never a loop: what concerns the
//! delivery of such an event makes no further one.

use serde_json::{Value, json};

use crate::model::subscription::SubscriptionRecord;
use crate::model::topic::OWN_TOKEN;
use crate::model::{Event, Seq, SubscriptionId};

/// Notices that may wait to be taken into the log; more are counted and left out.
pub const NOTICES_MAX: usize = 1024;

/// One notice.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// Its type, such as `delivery.expired`.
    pub kind: &'static str,
    /// Whom it is about.
    pub subscription: SubscriptionId,
    /// What happened.
    pub data: Value,
}

impl Notice {
    /// Retention took these positions before they were delivered, both inclusive.
    #[must_use]
    pub fn expired(record: &SubscriptionRecord, from: Seq, to: Seq) -> Option<Self> {
        Self::about(record, "delivery.expired", json!({ "from": from, "to": to }))
    }

    /// A delivery was given up.
    #[must_use]
    pub fn dead(record: &SubscriptionRecord, seq: Seq, event: Option<&Event>, reason: &str) -> Option<Self> {
        if event.is_some_and(|event| event.topic().is_own()) {
            return None;
        }
        Self::about(record, "delivery.dead", json!({ "seq": seq, "reason": reason }))
    }

    /// The receiver wants no more.
    #[must_use]
    pub fn disabled(record: &SubscriptionRecord, reason: &str) -> Option<Self> {
        Self::about(record, "subscription.disabled", json!({ "reason": reason }))
    }

    fn about(record: &SubscriptionRecord, kind: &'static str, mut data: Value) -> Option<Self> {
        let patterns = record.spec.topics.patterns();
        if patterns.iter().all(|pattern| pattern.as_str().split('.').next() == Some(OWN_TOKEN)) {
            return None;
        }
        let subscription = record.spec.id.clone();
        data["subscription"] = json!(subscription);
        Some(Self { kind, subscription, data })
    }
}
