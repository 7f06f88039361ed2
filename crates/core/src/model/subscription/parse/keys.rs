//! Signing keys of a subscription: read, made, and joined with those it has.
//!
//! Spec: Standard Webhooks 1.0, "Signature scheme": `whsec_` and the base64 of 24 to 64 bytes, `whsk_` and the base64 of an
//! Ed25519 key. `hub` and `stripe` take any text, since a receiver that moves here brings its own. An empty or short key is
//! impossible from here on.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ed25519_dalek as ed25519;

use super::Definition;
use crate::model::fields::Fields;
use crate::model::subscription::{
    SIGNATURES_MAX, Secret, Signature, SignatureScheme, SigningKey, SubscriptionId, SubscriptionSpec,
};

/// What every secret of `standard` begins with.
pub const SECRET_PREFIX: &str = "whsec_";
/// What every secret of `standard-ed25519` begins with.
pub const PRIVATE_KEY_PREFIX: &str = "whsk_";
/// What the public key of such a secret begins with.
pub const PUBLIC_KEY_PREFIX: &str = "whpk_";
/// Length of an Ed25519 key, in bytes; what follows them in a text is the public key.
pub const PRIVATE_KEY_BYTES: usize = 32;
/// Shortest and longest secret of `hub` and `stripe`, in characters; the longest is that of WebSub.
pub const TEXT_SECRET_CHARS: std::ops::RangeInclusive<usize> = 16..=199;
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

/// One scheme of the member `signature` of a definition.
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

/// The 32 key bytes of a `whsk_` text, which holds them alone or before the public key.
///
/// # Errors
/// What is wrong with it, without repeating it.
pub fn decode_private_key(text: &str) -> Result<[u8; PRIVATE_KEY_BYTES], &'static str> {
    let encoded = text.strip_prefix(PRIVATE_KEY_PREFIX).ok_or("does not begin with `whsk_`")?;
    let key = BASE64.decode(encoded).map_err(|_| "is not base64 after `whsk_`")?;
    let Some((seed, public)) = key.split_first_chunk::<PRIVATE_KEY_BYTES>() else {
        return Err("does not hold 32 bytes, or 64 with the public key");
    };
    match public.len() {
        0 => Ok(*seed),
        PRIVATE_KEY_BYTES if ed25519::SigningKey::from_bytes(seed).verifying_key().as_bytes() == public => Ok(*seed),
        PRIVATE_KEY_BYTES => Err("holds a public key that is not its own"),
        _ => Err("does not hold 32 bytes, or 64 with the public key"),
    }
}

/// What receivers verify the signatures of a `whsk_` secret with: `whpk_` and the base64 of the public key.
#[must_use]
pub fn public_key_of(secret: &Secret) -> Option<String> {
    let seed = decode_private_key(secret.expose()).ok()?;
    let public = ed25519::SigningKey::from_bytes(&seed).verifying_key();
    Some(format!("{PUBLIC_KEY_PREFIX}{}", BASE64.encode(public.as_bytes())))
}

/// Whether a text is `whpk_` and the base64 of a public key, as [`public_key_of`] makes it.
#[must_use]
pub fn is_public_key(text: &str) -> bool {
    let bytes = text.strip_prefix(PUBLIC_KEY_PREFIX).and_then(|encoded| BASE64.decode(encoded).ok());
    let bytes = bytes.and_then(|bytes| <[u8; PRIVATE_KEY_BYTES]>::try_from(bytes).ok());
    bytes.is_some_and(|bytes| ed25519::VerifyingKey::from_bytes(&bytes).is_ok())
}

/// Checks and takes a secret of a scheme.
///
/// # Errors
/// What is wrong with it and what is allowed, without repeating it.
pub fn parse_secret_of(scheme: SignatureScheme, text: &str) -> Result<Secret, String> {
    let checked = match scheme {
        SignatureScheme::Standard => {
            decode_secret(text).map(drop).map_err(|problem| format!("{problem}; allowed: `whsec_` and base64 of 24 to 64 bytes"))
        }
        SignatureScheme::StandardEd25519 => decode_private_key(text)
            .map(drop)
            .map_err(|problem| format!("{problem}; allowed: `whsk_` and base64 of an Ed25519 key")),
        SignatureScheme::Hub | SignatureScheme::Stripe => {
            let (shortest, longest) = (TEXT_SECRET_CHARS.start(), TEXT_SECRET_CHARS.end());
            let sound = TEXT_SECRET_CHARS.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
            sound.then_some(()).ok_or_else(|| format!("is no key; allowed: {shortest} to {longest} visible ASCII characters"))
        }
        SignatureScheme::None => Err("is given, but the scheme `none` takes no secret".to_owned()),
    };
    checked.map(|()| Secret::trusted(text.to_owned()))
}

/// Makes a key of 32 random bytes.
pub fn generate_secret(random: Random<'_>) -> Secret {
    generate_secret_of(SignatureScheme::Standard, random)
}

/// Makes a key of 32 random bytes for a scheme.
pub fn generate_secret_of(scheme: SignatureScheme, random: Random<'_>) -> Secret {
    let mut key = [0; SECRET_BYTES_GENERATED];
    random(&mut key);
    let prefix = if scheme == SignatureScheme::StandardEd25519 { PRIVATE_KEY_PREFIX } else { SECRET_PREFIX };
    Secret::trusted(format!("{prefix}{}", BASE64.encode(key)))
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

/// Reads the member `signature`: one scheme, or a list of different ones.
pub(super) fn read_signature(fields: &Fields<'_>) -> Option<Vec<SignatureInput>> {
    let value = fields.get("signature")?;
    let Some(items) = value.as_array() else {
        let members = fields.object("signature", &["scheme", "secret", "public_key", "public_keys"])?;
        return Some(vec![read_scheme(&members)]);
    };
    if !(1..=SIGNATURES_MAX).contains(&items.len()) {
        fields.refuse("signature", "signature", format!("lists {} schemes; allowed: 1 to {SIGNATURES_MAX}", items.len()));
        return None;
    }
    let mut inputs: Vec<SignatureInput> = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let pointer = format!("{}/{index}", fields.at("signature"));
        let Some(members) = Fields::open(item, pointer, &["scheme", "secret", "public_key", "public_keys"], fields.errors())
        else {
            continue;
        };
        let input = read_scheme(&members);
        if inputs.iter().any(|other| other.scheme == input.scheme) {
            members.refuse("scheme", "signature", "is listed twice");
        } else if input.scheme == SignatureScheme::None {
            members.refuse("scheme", "signature", "`none` stands alone, not in a list");
        }
        inputs.push(input);
    }
    Some(inputs)
}

/// Reads the member `scheme`. A wrong word is not repeated: it may be a secret that slipped into the wrong member.
pub fn read_scheme_word(members: &Fields<'_>) -> Option<SignatureScheme> {
    let given = members.text("scheme")?;
    let found = SignatureScheme::ALL.into_iter().find(|scheme| scheme.word() == given);
    if found.is_none() {
        let words = SignatureScheme::ALL.map(SignatureScheme::word).join(", ");
        members.refuse("scheme", "signature", format!("is not known; allowed: {words}"));
    }
    found
}

fn read_scheme(members: &Fields<'_>) -> SignatureInput {
    let scheme = read_scheme_word(members).unwrap_or(SignatureScheme::Standard);
    for shown in ["public_key", "public_keys"] {
        if members.get(shown).is_some() {
            members.refuse(shown, "read_only", "is shown in answers only and cannot be set");
        }
    }
    let secret = members
        .text("secret")
        .and_then(|text| parse_secret_of(scheme, text).map_err(|problem| members.refuse("secret", "secret", problem)).ok());
    SignatureInput { scheme, secret }
}

impl Definition {
    /// Joins the definition with the keys stored for this subscription (`None` when it is new).
    ///
    /// Also says whether a newest key is new, so that the answer must show it: it is never shown again. A given secret that
    /// is the newest key of its scheme already keeps the other keys; any other given secret replaces them all (a rotation with
    /// overlap is an operation of its own).
    pub fn into_spec(self, id: SubscriptionId, current: Option<&[Signature]>, random: Random<'_>) -> (SubscriptionSpec, bool) {
        let (signatures, is_new) = match (self.signature, current) {
            (None, Some(current)) => (current.to_vec(), false),
            (inputs, current) => {
                let default = || vec![SignatureInput { scheme: SignatureScheme::Standard, secret: None }];
                join(inputs.unwrap_or_else(default), current.unwrap_or_default(), random)
            }
        };
        let spec = SubscriptionSpec {
            id,
            url: self.url,
            topics: self.topics,
            types: self.types,
            filter: self.filter,
            signatures,
            headers: self.headers,
            payload: self.payload,
            template: self.template,
            batch: self.batch,
            ordering: self.ordering,
            on_dead: self.on_dead,
            verify: self.verify,
            auth: self.auth,
            ca_pem: self.ca_pem,
            limit_group: self.limit_group,
            disable_after: self.disable_after,
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

/// What is asked for, with the keys that are there already; also whether a key is new.
fn join(inputs: Vec<SignatureInput>, current: &[Signature], random: Random<'_>) -> (Vec<Signature>, bool) {
    let mut has_new = false;
    let mut joined = |input: SignatureInput| {
        let scheme = input.scheme;
        if scheme == SignatureScheme::None {
            return Signature::none();
        }
        let present = current.iter().find(|signature| signature.scheme == scheme && !signature.keys.is_empty());
        match (present, input.secret) {
            (Some(present), None) => present.clone(),
            (Some(present), Some(given)) if present.newest() == Some(&given) => present.clone(),
            (_, given) => {
                has_new = true;
                let secret = given.unwrap_or_else(|| generate_secret_of(scheme, &mut *random));
                Signature { scheme, keys: vec![SigningKey { secret, expires_at: None }] }
            }
        }
    };
    let signatures = inputs.into_iter().map(&mut joined).collect();
    (signatures, has_new)
}
