//! `POST …/secret/rotate`: a new signing key, with the old ones signing along for a while.

use std::time::Duration;

use actix_web::http::header;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};

use super::{find, still_there};
use crate::auth::Scope;
use crate::definition::{CHANGE_TRIES, Precondition, contended, declared, random, read_optional_json, refuse};
use crate::problem::{self, Problem};
use crate::{HttpState, views};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::fields::{Errors, Fields};
use hookcast_core::model::subscription::parse::{generate_secret_of, parse_secret_of, read_scheme_word};
use hookcast_core::model::subscription::{SIGNING_KEYS_MAX, Secret, Signature, SignatureScheme, SigningKey, SubscriptionRecord};
use hookcast_log::storage::StorageErrorKind;

const OVERLAP_DEFAULT: Duration = Duration::from_hours(24);
const OVERLAP_MAX: Duration = Duration::from_hours(30 * 24);

/// Puts a new key first; shows it this once.
pub(super) async fn rotate(state: Data<HttpState>, request: HttpRequest, payload: Payload) -> Result<HttpResponse, Problem> {
    let (caller, found) = find(&state, &request, Scope::Manage)?;
    let precondition = Precondition::of(request.headers())?;
    let body = read_optional_json(&state, &request, payload).await?;
    let wanted = read(&body)?;
    for _ in 0..CHANGE_TRIES {
        let present = still_there(&state, &caller, &found)?;
        precondition.check(Some(&super::tag(&present)))?;
        if present.declared {
            return Err(declared());
        }
        let now = state.clock.now();
        let mut record = SubscriptionRecord::clone(&present);
        let signature = chosen(&mut record.spec.signatures, wanted.scheme)?;
        let scheme = signature.scheme;
        let secret = wanted.secret_of(scheme)?;
        *signature = rotated(signature, &secret, now, wanted.overlap)?;
        record.updated_at = now;
        match state.registry.put(record, present.revision).await {
            Ok(record) => {
                state.deliveries.caught_up(&record).await;
                let body = json!({
                    "signature": { "scheme": scheme.word(), "secret": secret.expose() },
                    "old_expires_at": views::time(now.plus(wanted.overlap)),
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

/// What a rotation asks for.
#[derive(Debug)]
struct Wanted {
    overlap: Duration,
    /// The scheme whose key is rotated; needed only where several sign.
    scheme: Option<SignatureScheme>,
    secret: Option<String>,
}

impl Wanted {
    /// The new key: the given one if it is one of the scheme.
    fn secret_of(&self, scheme: SignatureScheme) -> Result<Secret, Problem> {
        match &self.secret {
            None => Ok(generate_secret_of(scheme, &mut random)),
            Some(given) => parse_secret_of(scheme, given)
                .map_err(|problem| Problem::of_slug("secret", 422, problem.clone()).at("/secret", problem)),
        }
    }
}

fn read(body: &Value) -> Result<Wanted, Problem> {
    let errors = Errors::default();
    let wanted = Fields::open(body, "", &["overlap", "scheme", "secret"], &errors).map(|fields| {
        let overlap = fields.duration("overlap", Duration::ZERO..=OVERLAP_MAX, "overlap").unwrap_or(OVERLAP_DEFAULT);
        Wanted { overlap, scheme: read_scheme_word(&fields), secret: fields.text("secret").map(str::to_owned) }
    });
    errors.finish(wanted).map_err(refuse)
}

/// The signature whose key is rotated: the named one, or the only one there is.
fn chosen(signatures: &mut [Signature], scheme: Option<SignatureScheme>) -> Result<&mut Signature, Problem> {
    let refused = |detail: &str| Err(Problem::of_slug("secret", 422, detail.to_owned()));
    let count = signatures.len();
    let found = signatures.iter_mut().find(|signature| scheme.is_none_or(|scheme| scheme == signature.scheme));
    match found {
        Some(_) if scheme.is_none() && count > 1 => refused("several schemes sign; name the one to rotate in `scheme`"),
        Some(signature) => Ok(signature),
        None => refused("the subscription does not sign by this scheme"),
    }
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
        generate_secret_of(SignatureScheme::Standard, &mut |bytes| bytes.fill(n))
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
            let wanted = read(&json!({ "secret": weak })).unwrap();
            assert_eq!(wanted.secret_of(SignatureScheme::Standard).unwrap_err().slug(), "secret", "{weak}");
        }
    }

    #[test]
    fn where_several_schemes_sign_the_rotated_one_is_named() {
        let hub = Signature { scheme: SignatureScheme::Hub, ..start() };
        let mut both = vec![start(), hub];
        assert_eq!(chosen(&mut both[..1], None).unwrap().scheme, SignatureScheme::Standard);
        assert_eq!(chosen(&mut both, Some(SignatureScheme::Hub)).unwrap().scheme, SignatureScheme::Hub);
        assert!(chosen(&mut both, None).is_err() && chosen(&mut both, Some(SignatureScheme::Stripe)).is_err());
    }
}
