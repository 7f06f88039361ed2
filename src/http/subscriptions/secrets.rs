//! `POST …/secret/rotate`: a new signing key, with the old ones signing along for a while.

use std::time::Duration;

use actix_web::http::header;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};

use super::{contended, find, visible};
use crate::clock::Timestamp;
use crate::http::auth::Scope;
use crate::http::definition::{CHANGE_TRIES, Precondition, declared, random, read_optional_json, refuse};
use crate::http::problem::{self, Problem};
use crate::http::{HttpState, views};
use crate::model::fields::{Errors, Fields};
use crate::model::subscription::parse::form::scheme_name;
use crate::model::subscription::parse::{generate_secret, parse_secret};
use crate::model::subscription::{SIGNING_KEYS_MAX, Secret, Signature, SignatureScheme, SigningKey, SubscriptionRecord};
use crate::storage::StorageErrorKind;

const OVERLAP_DEFAULT: Duration = Duration::from_hours(24);
const OVERLAP_MAX: Duration = Duration::from_hours(30 * 24);

/// Puts a new key first; shows it this once.
pub(super) async fn rotate(state: Data<HttpState>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, Problem> {
    let (caller, found) = find(&state, &request, Scope::Manage)?;
    let precondition = Precondition::of(request.headers())?;
    let body = read_optional_json(&state, &request, payload).await?;
    let (overlap, secret) = read(&body)?;
    let secret = secret.unwrap_or_else(|| generate_secret(&mut random));
    for _ in 0..CHANGE_TRIES {
        let present = visible(&state, &caller, &found.spec.id)?.ok_or_else(Problem::not_found)?;
        precondition.check(Some(&super::tag(&present)))?;
        if present.declared {
            return Err(declared());
        }
        let now = state.clock.now();
        let signature = rotated(&present.spec.signature, &secret, now, overlap)?;
        let mut record = SubscriptionRecord::clone(&present);
        (record.spec.signature, record.updated_at) = (signature, now);
        match state.registry.put(record, present.revision).await {
            Ok(record) => {
                state.deliveries.caught_up(&record).await;
                let scheme = scheme_name(record.spec.signature.scheme);
                let body = json!({
                    "signature": { "scheme": scheme, "secret": secret.expose() },
                    "old_expires_at": views::time(now.plus(overlap)),
                });
                let mut response = HttpResponse::Ok();
                response.insert_header((header::CACHE_CONTROL, "no-store"));
                return Ok(response.insert_header((header::ETAG, super::tag(&record))).json(body));
            }
            Err(error) if error.kind == StorageErrorKind::Conflict && !precondition.is_given() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(contended())
}

fn read(body: &Value) -> Result<(Duration, Option<Secret>), Problem> {
    let errors = Errors::default();
    let wanted = Fields::open(body, "", &["overlap", "secret"], &errors).map(|fields| {
        let overlap = fields.duration("overlap", Duration::ZERO..=OVERLAP_MAX, "overlap").unwrap_or(OVERLAP_DEFAULT);
        let secret = fields.text("secret").and_then(|text| match parse_secret(text) {
            Ok(secret) => Some(secret),
            Err(what) => {
                fields.refuse("secret", "secret", format!("{what}; allowed: `whsec_` and base64 of 24 to 64 bytes"));
                None
            }
        });
        (overlap, secret)
    });
    errors.finish(wanted).map_err(refuse)
}

/// The new key first; each old one ends with the overlap, or before that if it already had an end.
fn rotated(present: &Signature, secret: &Secret, now: Timestamp, overlap: Duration) -> Result<Signature, Problem> {
    if present.scheme == SignatureScheme::None {
        return Err(Problem::of_slug("secret", 422, "deliveries are not signed; set `signature` first"));
    }
    let end = now.plus(overlap);
    let mut keys = vec![SigningKey { secret: secret.clone(), expires_at: None }];
    for key in &present.keys {
        let expires_at = key.expires_at.map_or(end, |given| given.min(end));
        if expires_at > now {
            keys.push(SigningKey { secret: key.secret.clone(), expires_at: Some(expires_at) });
        }
    }
    if keys[1..].iter().any(|key| key.secret == *secret) {
        return Err(Problem::of_slug("secret", 422, "the subscription signs with this secret already"));
    }
    if keys.len() > SIGNING_KEYS_MAX {
        let first_end = keys.iter().filter_map(|key| key.expires_at).min().unwrap_or(end);
        let wait_s = u32::try_from(first_end.since(now).as_secs() + 1).unwrap_or(u32::MAX);
        let detail = format!("{SIGNING_KEYS_MAX} keys sign already; wait until one ends or rotate with a shorter `overlap`");
        return Err(Problem::new(problem::TOO_MANY_KEYS, detail).retry_after(wait_s));
    }
    Ok(Signature { scheme: present.scheme, keys })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(n: u8) -> Secret {
        generate_secret(&mut |bytes| bytes.fill(n))
    }

    fn start() -> Signature {
        Signature { scheme: SignatureScheme::Standard, keys: vec![SigningKey { secret: secret(0), expires_at: None }] }
    }

    #[test]
    fn the_new_key_is_first_and_the_old_one_ends_with_the_overlap() {
        let signature = rotated(&start(), &secret(1), Timestamp(1000), Duration::from_mins(1)).unwrap();
        let ends: Vec<_> = signature.keys.iter().map(|key| key.expires_at).collect();
        assert_eq!(ends, [None, Some(Timestamp(61_000))]);
        assert_eq!(signature.keys[0].secret, secret(1));
        let next = rotated(&signature, &secret(2), Timestamp(61_000), Duration::ZERO).unwrap();
        assert_eq!(next.keys.len(), 1);
    }

    #[test]
    fn the_eleventh_key_in_use_is_refused() {
        let mut signature = start();
        for n in 1..u8::try_from(SIGNING_KEYS_MAX).unwrap() {
            signature = rotated(&signature, &secret(n), Timestamp(i64::from(n)), OVERLAP_DEFAULT).unwrap();
        }
        assert_eq!(signature.keys.len(), SIGNING_KEYS_MAX);
        assert_eq!(rotated(&signature, &secret(99), Timestamp(99), OVERLAP_DEFAULT).unwrap_err().slug(), "too_many_keys");
        assert_eq!(rotated(&signature, &secret(99), Timestamp(99), Duration::ZERO).unwrap().keys.len(), 1);
    }

    #[test]
    fn a_secret_in_use_or_a_weak_one_is_refused() {
        assert_eq!(rotated(&start(), &secret(0), Timestamp(1), OVERLAP_DEFAULT).unwrap_err().slug(), "secret");
        for weak in ["", "whsec_", "whsec_%%%", "whsec_AAAA"] {
            assert_eq!(read(&json!({ "secret": weak })).unwrap_err().slug(), "secret", "{weak}");
        }
    }
}
