//! A stored subscription written back in its REST form.
//!
//! Keys and header values are write-only: answers show the scheme and the header names. Only the answer that makes a key
//! shows it.

use serde_json::{Map, Value, json};

use super::keys::public_key_of;
use crate::model::subscription::{
    Activity, Auth, OnFull, Ordering, RateLimit, Signature, SignatureScheme, SigningKey, SubscriptionRecord, SubscriptionSpec,
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
    let shown = |signature: &Signature| {
        let mut form = json!({ "scheme": signature.scheme.word() });
        if let (Keys::Shown, Some(secret)) = (keys, signature.newest()) {
            form["secret"] = json!(secret.expose());
        }
        if signature.scheme == SignatureScheme::StandardEd25519 {
            add_public_keys(&mut form, &signature.keys);
        }
        form
    };
    members.insert("signature".to_owned(), one_or_list(&spec.signatures, shown));
    members.insert("auth".to_owned(), spec.auth.as_deref().map_or(Value::Null, auth_shown));
    let more = json!({
        "header_names": spec.headers.keys().collect::<Vec<_>>(),
        "enabled": !matches!(record.activity, Activity::Disabled(_)),
        "declared": record.declared,
        "made_by": record.made_by,
        "revision": record.revision,
        "created_at": record.created_at.to_string(),
        "updated_at": record.updated_at.to_string(),
    });
    if let Value::Object(more) = more {
        members.extend(more);
    }
    Value::Object(members)
}

/// The form that makes the same subscription elsewhere: as [`rest_form`], with the newest key of each scheme, header values
/// and credentials.
#[must_use]
pub fn whole_form(record: &SubscriptionRecord) -> Value {
    let mut form = rest_form(record, Keys::Shown);
    form["headers"] = json!(record.spec.headers);
    form["auth"] = record.spec.auth.as_deref().map_or(Value::Null, auth_whole);
    form
}

/// The form a merge patch acts on: everything settable, with header values and without keys and `enabled`, whose absence
/// keeps what is stored.
pub(super) fn document(record: &SubscriptionRecord) -> Value {
    let spec = &record.spec;
    let mut members = common(spec);
    let scheme = |signature: &Signature| json!({ "scheme": signature.scheme.word() });
    members.insert("signature".to_owned(), one_or_list(&spec.signatures, scheme));
    members.insert("headers".to_owned(), json!(spec.headers));
    if let Some(auth) = spec.auth.as_deref() {
        members.insert("auth".to_owned(), auth_whole(auth));
    }
    Value::Object(members)
}

/// `public_key` of the newest key; after a rotation also `public_keys`, each with the time until which it signs.
fn add_public_keys(form: &mut Value, keys: &[SigningKey]) {
    form["public_key"] = json!(keys.first().and_then(|key| public_key_of(&key.secret)));
    if keys.len() > 1 {
        let one = |key: &SigningKey| json!({ "public_key": public_key_of(&key.secret), "expires_at": key.expires_at.map(|at| at.to_string()) });
        form["public_keys"] = keys.iter().map(one).collect();
    }
}

/// One scheme as an object, several as a list.
fn one_or_list(signatures: &[Signature], form: impl Fn(&Signature) -> Value) -> Value {
    match signatures {
        [one] => form(one),
        several => several.iter().map(form).collect(),
    }
}

pub(in crate::model) fn auth_shown(auth: &Auth) -> Value {
    match auth {
        Auth::Basic { username, .. } => json!({ "basic": { "username": username } }),
        Auth::Oauth2 { token_url, client_id, scopes, .. } => {
            json!({ "oauth2": { "token_url": token_url, "client_id": client_id, "scopes": scopes } })
        }
        Auth::Mtls { cert_pem, .. } => json!({ "mtls": { "cert_pem": cert_pem } }),
        Auth::Bearer { .. } => json!({ "bearer": {} }),
    }
}

pub(in crate::model) fn auth_whole(auth: &Auth) -> Value {
    let mut form = auth_shown(auth);
    match auth {
        Auth::Basic { password, .. } => form["basic"]["password"] = json!(password.expose()),
        Auth::Oauth2 { client_secret, .. } => form["oauth2"]["client_secret"] = json!(client_secret.expose()),
        Auth::Mtls { key_pem, .. } => form["mtls"]["key_pem"] = json!(key_pem.expose()),
        Auth::Bearer { token } => form["bearer"] = json!(token.expose()),
    }
    form
}

fn common(spec: &SubscriptionSpec) -> Map<String, Value> {
    let value = json!({
        "id": spec.id,
        "url": spec.url,
        "topics": spec.topics,
        "types": spec.types,
        "filter": spec.filter,
        "payload": spec.payload.word(),
        "template": spec.template.as_deref().map(|template| json!({ "body": template.body, "content_type": template.content_type })),
        "batch": spec.batch.map(|batch| json!({
            "max_events": batch.max_events,
            "max_bytes": batch.max_bytes,
            "max_wait": format_duration(batch.max_wait),
            "format": batch.format.word(),
        })),
        "ordering": match &spec.ordering {
            Ordering::None => json!("none"),
            Ordering::Strict => json!("strict"),
            Ordering::Key(key) => json!({ "key": key.text() }),
        },
        "on_dead": spec.on_dead.word(),
        "verify": spec.verify.word(),
        "ca_pem": spec.ca_pem,
        "limit_group": spec.limit_group,
        "disable_after": format_duration(spec.disable_after),
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
