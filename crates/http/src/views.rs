//! How records and states are shown: words of the API, times as RFC 3339.

use serde_json::{Value, json};

use super::ports::SourceStatus;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::job::Selection;
use hookcast_core::model::source::parse::source_form;
use hookcast_core::model::source::{SourceGap, SourceRecord};
use hookcast_core::model::subscription::parse::form::Keys;
use hookcast_core::model::subscription::parse::{rest_form, whole_form};
use hookcast_core::model::subscription::{Activity, SubscriptionRecord, Verify};
use hookcast_core::model::{Attempt, Exception, ExceptionState, RecoveryJob, Seq};
use hookcast_delivery::consent::Verification;
use hookcast_delivery::question::SubscriptionStatus;
use hookcast_delivery::telling::DeliveryView;

/// `state` and `reason` of a subscription.
pub(super) fn state(record: &SubscriptionRecord, is_failing: bool) -> (&'static str, Option<&'static str>) {
    match record.activity {
        Activity::Active if !record.is_verified() => ("unverified", None),
        Activity::Active if is_failing => ("failing", None),
        Activity::Active => ("active", None),
        Activity::Paused => ("paused", None),
        Activity::Disabled(reason) => ("disabled", Some(reason.word())),
    }
}

/// A subscription; `is_failing` is observed, not stored.
pub(super) fn subscription(record: &SubscriptionRecord, keys: Keys, is_failing: bool) -> Value {
    let mut value = rest_form(record, keys);
    let (state, reason) = state(record, is_failing);
    value["state"] = json!(state);
    value["reason"] = json!(reason);
    if let Some(from) = record.effective_from() {
        value["effective_from"] = json!(from);
    }
    if let Some(websub) = record.websub.as_deref() {
        value["websub"] = json!({ "topic": websub.topic, "lease_ends_at": time(websub.lease_ends_at) });
    }
    value
}

/// A subscription with everything that a definition needs to make it again, secrets included.
pub(super) fn with_secrets(record: &SubscriptionRecord, is_failing: bool) -> Value {
    let mut value = whole_form(record);
    let (state, reason) = state(record, is_failing);
    value["state"] = json!(state);
    value["reason"] = json!(reason);
    value
}

/// `GET …/status`; `oldest_age_s` is the age of the oldest undelivered event.
pub(super) fn status(
    record: &SubscriptionRecord,
    status: &SubscriptionStatus,
    oldest_age_s: Option<u64>,
    asked: &Verification,
) -> Value {
    let (state, reason) = state(record, status.is_failing);
    json!({
        "state": state,
        "reason": reason,
        "cursor": status.cursor,
        "head": status.head,
        "lag": status.lag,
        "oldest_undelivered_age_s": oldest_age_s,
        "in_flight": status.in_flight,
        "retrying": status.retrying,
        "dead": status.dead,
        "expired": status.expired,
        "skipped": status.skipped,
        "circuit": status.circuit,
        "delivered_total": status.delivered_total,
        "failed_attempts_total": status.failed_attempts_total,
        "filtered_total": status.filtering.filtered,
        "filter_errors_total": status.filtering.errors,
        "last_filter_error": status.filtering.last_error.as_ref().map(|(seq, reason)| format!("event {seq}: {reason}")),
        "last_attempt": status.last_attempt.as_ref().map(attempt),
        "verification": (record.spec.verify != Verify::None).then(|| verification(record, asked)),
    })
}

/// How the asking for an endpoint's consent stands, and what it agreed to.
fn verification(record: &SubscriptionRecord, asked: &Verification) -> Value {
    let consent = record.consent.as_deref().filter(|consent| consent.is_for(&record.spec));
    json!({
        "last_error": asked.last_error,
        "last_attempt_at": asked.last_attempt_at.map(time),
        "next_attempt_at": asked.next_attempt_at.map(time),
        "verified_at": consent.map(|consent| time(consent.at)),
        "allowed_per_minute": consent.and_then(|consent| consent.per_minute),
    })
}

/// One attempt.
pub(super) fn attempt(attempt: &Attempt) -> Value {
    json!({
        "seq": attempt.seq,
        "n": attempt.n,
        "at": time(attempt.at),
        "outcome": attempt.outcome,
        "status": attempt.status,
        "error": attempt.error,
        "latency_ms": attempt.latency_ms,
        "response": attempt.response,
    })
}

/// `GET …/deliveries/{seq}`.
pub(super) fn delivery(view: &DeliveryView) -> Value {
    json!({
        "state": view.state.word(),
        "reason": view.reason,
        "attempts": view.attempts.iter().map(attempt).collect::<Vec<_>>(),
        "next_attempt_at": view.next_attempt_at.map(time),
    })
}

/// One dead letter.
pub(super) fn dead_letter(exception: &Exception) -> Value {
    json!({
        "seq": exception.seq,
        "reason": exception.reason,
        "attempts": exception.sent,
        "first_failed_at": time(exception.since),
        "dead_at": time(exception.due_at),
    })
}

/// One event that is not delivered; without an exception it waits for its first attempt.
pub(super) fn undelivered(seq: Seq, exception: Option<&Exception>) -> Value {
    let Some(exception) = exception else {
        return json!({
            "seq": seq,
            "state": "pending",
            "reason": null,
            "attempts": 0,
            "first_failed_at": null,
            "next_attempt_at": null,
        });
    };
    let (state, next) = match exception.state {
        ExceptionState::Retry => ("retrying", Some(time(exception.due_at))),
        ExceptionState::Dead => ("dead", None),
    };
    json!({
        "seq": exception.seq,
        "state": state,
        "reason": exception.reason,
        "attempts": exception.sent,
        "first_failed_at": time(exception.since),
        "next_attempt_at": next,
    })
}

/// A recovery job.
pub(super) fn job(job: &RecoveryJob) -> Value {
    json!({
        "id": job.id.to_string(),
        "kind": job.kind.word(),
        "state": job.state.word(),
        "only": if job.selection == Selection::All { "all" } else { "failed" },
        "from": job.from,
        "to": job.to,
        "position": job.position,
        "events": job.events,
        "done": job.done,
        "failed": job.failed,
        "created_at": time(job.created_at),
        "ended_at": job.ended_at.map(time),
    })
}

/// A source; one that is not running is `stopped`, its resume token the stored one.
pub(super) fn source(record: &SourceRecord, status: Option<&SourceStatus>, gaps: &[SourceGap]) -> Value {
    let mut value = source_form(record);
    let stopped = SourceStatus { state: "stopped", resume_token: record.resume_token.clone(), ..SourceStatus::default() };
    let status = status.unwrap_or(&stopped);
    value["state"] = json!(status.state);
    value["last_event_at"] = json!(status.last_event_at.map(time));
    value["resume_token"] = json!(status.resume_token);
    value["counts"] = json!({
        "events": status.events,
        "repeats": status.repeats,
        "reused_ids": status.reused_ids,
        "bytes": status.bytes,
        "skipped": status.skipped,
        "reconnects": status.reconnects,
        "gaps": status.gaps,
    });
    value["last_error"] = json!(status.last_error);
    value["gaps"] = gaps.iter().map(|gap| json!({ "from": time(gap.from), "to": time(gap.to), "at_seq": gap.at_seq })).collect();
    value
}

/// A page of a list.
pub(super) fn page(items: Vec<Value>, next: Option<Value>) -> Value {
    let (items, next) = (Value::from(items), next.unwrap_or_default());
    json!({ "items": items, "next": next })
}

/// RFC 3339.
pub(super) fn time(at: Timestamp) -> String {
    at.to_string()
}
