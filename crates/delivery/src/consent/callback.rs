//! The URL by which an endpoint may agree later: `WebHook-Request-Callback` of CloudEvents web hooks, section 4.1.3. Pure.
//!
//! Whoever knows it may agree, so it ends in a key that only the relay can make: from the newest secrets that sign for the
//! endpoint. Nothing is stored for it, and it stays good over restarts until these secrets or the URL of the endpoint change.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use hookcast_core::model::subscription::{SigningKey, SubscriptionRecord};

/// Where the relay takes consent of a subscription, below its public URL.
#[must_use]
pub fn path(record: &SubscriptionRecord) -> Option<String> {
    let newest = record.spec.signatures.iter().find_map(|signature| signature.keys.first())?;
    Some(format!("/v1/subscriptions/{}/consent/{}", record.spec.id, key(record, newest)))
}

/// Whether a key was made for this endpoint; compares in constant time.
#[must_use]
pub fn is_key(record: &SubscriptionRecord, given: &str) -> bool {
    let keys = record.spec.signatures.iter().flat_map(|signature| &signature.keys);
    keys.fold(false, |found, secret| found | bool::from(key(record, secret).as_bytes().ct_eq(given.as_bytes())))
}

fn key(record: &SubscriptionRecord, secret: &SigningKey) -> String {
    let mut mac: Hmac<Sha256> =
        Hmac::new_from_slice(secret.secret.expose().as_bytes()).expect("invariant: HMAC takes a key of any length");
    mac.update(format!("consent\n{}\n{}\n{}", record.spec.id, record.ordinal.0, record.spec.url).as_bytes());
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use hookcast_core::clock::Timestamp;
    use hookcast_core::model::subscription::change::new_record;
    use hookcast_core::model::subscription::parse::{Rules, parse_definition};
    use hookcast_core::model::subscription::{Ordinal, Signature};
    use hookcast_core::model::{Seq, SubscriptionId};

    #[test]
    fn a_key_is_good_for_one_endpoint_of_one_incarnation() {
        let form = json!({"url": "https://a.example/", "topics": ["t"], "verify": "cloudevents"});
        let any = |url: &str| Ok(url.to_owned());
        let definition = parse_definition(&form, None, &Rules::new(&any)).unwrap();
        let id = SubscriptionId::parse("a").unwrap();
        let record = new_record(definition, id, Seq::ZERO, Timestamp(0), &mut |bytes| bytes.fill(7));
        let path = path(&record).unwrap();
        let key = path.strip_prefix("/v1/subscriptions/a/consent/").unwrap();
        assert!(is_key(&record, key) && !is_key(&record, "") && !is_key(&record, &key[1..]));
        let again = SubscriptionRecord { ordinal: Ordinal(9), ..record.clone() };
        let mut moved = record.clone();
        moved.spec.url = "https://b.example/".to_owned();
        assert!(!is_key(&again, key) && !is_key(&moved, key));
        let mut unsigned = record;
        unsigned.spec.signatures = vec![Signature::none()];
        assert!(super::path(&unsigned).is_none() && !is_key(&unsigned, key));
    }
}
