//! Signing keys of a subscription: read, made, and joined with those it has.
//!
//! Spec: Standard Webhooks 1.0, "Signature scheme": `whsec_` and the base64 of 24 to 64 bytes. An empty or short key is
//! impossible from here on.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::Definition;
use crate::model::fields::Fields;
use crate::model::subscription::{Secret, Signature, SignatureScheme, SigningKey, SubscriptionId, SubscriptionSpec};

/// What every secret begins with.
pub const SECRET_PREFIX: &str = "whsec_";
/// Shortest and longest key, in bytes.
pub const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Length of a generated key, in bytes.
const SECRET_BYTES_GENERATED: usize = 32;
/// Length of a generated id, in characters of five random bits each.
const ID_CHARS_GENERATED: usize = 20;

/// Standard alphabet; senders differ about the padding, so both ways are read.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Fills a buffer with random bytes.
pub type Random<'a> = &'a mut dyn FnMut(&mut [u8]);

/// The member `signature` of a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureInput {
    /// The scheme.
    pub scheme: SignatureScheme,
    /// The key, when given.
    pub secret: Option<Secret>,
}

/// Checks and takes a `whsec_` text.
///
/// # Errors
/// What is wrong with it, without repeating it.
pub fn parse_secret(text: &str) -> Result<Secret, &'static str> {
    decode_secret(text).map(|_| Secret::trusted(text.to_owned()))
}

/// The key bytes of a `whsec_` text, 24 to 64 of them.
///
/// # Errors
/// What is wrong with it, without repeating it.
pub fn decode_secret(text: &str) -> Result<Vec<u8>, &'static str> {
    let encoded = text.strip_prefix(SECRET_PREFIX).ok_or("does not begin with `whsec_`")?;
    let key = BASE64.decode(encoded).map_err(|_| "is not base64 after `whsec_`")?;
    if SECRET_BYTES.contains(&key.len()) { Ok(key) } else { Err("does not hold 24 to 64 bytes") }
}

/// Makes a key of 32 random bytes.
pub fn generate_secret(random: Random<'_>) -> Secret {
    let mut key = [0; SECRET_BYTES_GENERATED];
    random(&mut key);
    Secret::trusted(format!("{SECRET_PREFIX}{}", BASE64.encode(key)))
}

/// Makes an id of 100 random bits for a subscription or source that came without one.
///
/// # Panics
/// Never: letters and digits make an id.
pub fn generate_id(random: Random<'_>) -> SubscriptionId {
    let mut bits = [0; ID_CHARS_GENERATED];
    random(&mut bits);
    let text: String = bits.iter().map(|byte| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[usize::from(byte & 31)])).collect();
    SubscriptionId::parse(&text).expect("invariant: lower-case letters and digits make an id")
}

/// Reads the member `signature`.
pub(super) fn read_signature(fields: &Fields<'_>) -> Option<SignatureInput> {
    if fields.get("signature")?.is_array() {
        fields.refuse("signature", "unsupported", "a list is not supported by this version; allowed: one object");
        return None;
    }
    let signature = fields.object("signature", &["scheme", "secret"])?;
    let scheme = match signature.text("scheme") {
        Some("standard") | None => SignatureScheme::Standard,
        Some("none") => SignatureScheme::None,
        Some(_) => {
            signature.refuse("scheme", "unsupported", "this scheme is not supported by this version; allowed: standard, none");
            SignatureScheme::Standard
        }
    };
    let secret = signature.text("secret").and_then(|text| {
        let parsed = parse_secret(text);
        parsed
            .map_err(|problem| {
                signature.refuse("secret", "secret", format!("{problem}; allowed: `whsec_` and base64 of 24 to 64 bytes"))
            })
            .ok()
    });
    if scheme == SignatureScheme::None && signature.get("secret").is_some() {
        signature.refuse("secret", "secret", "the scheme `none` takes no secret");
    }
    Some(SignatureInput { scheme, secret })
}

impl Definition {
    /// Joins the definition with the keys stored for this subscription (`None` when it is new).
    ///
    /// Also says whether the newest key is new, so that the answer must show it: it is never shown again. A given secret that
    /// is the newest key already keeps the other keys; any other given secret replaces them all (a rotation with overlap is
    /// an operation of its own).
    pub fn into_spec(self, id: SubscriptionId, current: Option<&Signature>, random: Random<'_>) -> (SubscriptionSpec, bool) {
        let (signature, is_new) = match (self.signature, current) {
            (None, Some(current)) => (current.clone(), false),
            (Some(SignatureInput { scheme: SignatureScheme::None, .. }), _) => {
                (Signature { scheme: SignatureScheme::None, keys: Vec::new() }, false)
            }
            (Some(SignatureInput { secret: Some(given), .. }), Some(current)) if newest(current) == Some(&given) => {
                (current.clone(), false)
            }
            (Some(SignatureInput { secret: Some(given), .. }), _) => (single(given), true),
            (Some(_), Some(current)) if newest(current).is_some() => (current.clone(), false),
            (_, _) => (single(generate_secret(random)), true),
        };
        let spec = SubscriptionSpec {
            id,
            url: self.url,
            topics: self.topics,
            types: self.types,
            signature,
            headers: self.headers,
            payload: self.payload,
            rate_limit: self.rate_limit,
            max_in_flight: self.max_in_flight,
            max_retrying: self.max_retrying,
            on_full: self.on_full,
            retry: self.retry,
            timeout: self.timeout,
            description: self.description,
            metadata: self.metadata,
        };
        (spec, is_new)
    }
}

fn newest(signature: &Signature) -> Option<&Secret> {
    signature.keys.first().map(|key| &key.secret)
}

fn single(secret: Secret) -> Signature {
    Signature { scheme: SignatureScheme::Standard, keys: vec![SigningKey { secret, expires_at: None }] }
}
