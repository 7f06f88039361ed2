//! A stored subscription written back in its REST form.
//!
//! Keys and header values are write-only: answers show the scheme and the header names. Only the answer that makes a key
//! shows it.

use serde_json::{Map, Value, json};

use crate::model::subscription::{
    Activity, OnFull, PayloadForm, RateLimit, SignatureScheme, SubscriptionRecord, SubscriptionSpec,
};
use crate::units::format_duration;

/// Whether an answer shows the newest signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// `signature: {scheme}`.
    Hidden,
    /// `signature: {scheme, secret}`: the answer to the request that made the key.
    Shown,
}

/// What GET shows of a stored subscription; the observed `state` and `reason` are the caller's to add.
#[must_use]
pub fn rest_form(record: &SubscriptionRecord, keys: Keys) -> Value {
    let spec = &record.spec;
    let mut members = common(spec);
    let mut signature = json!({ "scheme": scheme_name(spec.signature.scheme) });
    if let (Keys::Shown, Some(key)) = (keys, spec.signature.keys.first()) {
        signature["secret"] = json!(key.secret.expose());
    }
    members.insert("signature".to_owned(), signature);
    let more = json!({
        "header_names": spec.headers.keys().collect::<Vec<_>>(),
        "ordering": "none",
        "batch": null,
        "enabled": !matches!(record.activity, Activity::Disabled(_)),
        "declared": record.declared,
        "revision": record.revision,
        "created_at": record.created_at.to_string(),
        "updated_at": record.updated_at.to_string(),
    });
    if let Value::Object(more) = more {
        members.extend(more);
    }
    Value::Object(members)
}

/// The form a merge patch acts on: everything settable, with header values and without keys and `enabled`, whose absence
/// keeps what is stored.
pub(super) fn document(record: &SubscriptionRecord) -> Value {
    let spec = &record.spec;
    let mut members = common(spec);
    members.insert("signature".to_owned(), json!({ "scheme": scheme_name(spec.signature.scheme) }));
    members.insert("headers".to_owned(), json!(spec.headers));
    Value::Object(members)
}

/// The scheme as definitions name it.
#[must_use]
pub fn scheme_name(scheme: SignatureScheme) -> &'static str {
    match scheme {
        SignatureScheme::Standard => "standard",
        SignatureScheme::None => "none",
    }
}

fn common(spec: &SubscriptionSpec) -> Map<String, Value> {
    let value = json!({
        "id": spec.id,
        "url": spec.url,
        "topics": spec.topics,
        "types": spec.types,
        "payload": match spec.payload {
            PayloadForm::Binary => "binary",
            PayloadForm::Structured => "structured",
        },
        "rate_limit": spec.rate_limit.map(|RateLimit { per_second, burst }| json!({ "per_second": number(per_second), "burst": burst })),
        "max_in_flight": spec.max_in_flight,
        "max_retrying": spec.max_retrying,
        "on_full": match spec.on_full {
            OnFull::Wait => "wait",
            OnFull::Dead => "dead",
        },
        "retry": {
            "max_attempts": spec.retry.max_attempts,
            "schedule": spec.retry.schedule.iter().map(|delay| format_duration(*delay)).collect::<Vec<_>>(),
            "jitter": number(spec.retry.jitter),
        },
        "timeout": format_duration(spec.timeout),
        "description": spec.description,
        "metadata": spec.metadata,
    });
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// A whole number without a fraction: `50`, not `50.0`.
fn number(value: f64) -> Value {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, not negative and far below 2^53")]
    if value.fract() == 0.0 && (0.0..1e15).contains(&value) { json!(value as u64) } else { json!(value) }
}
