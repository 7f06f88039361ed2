//! What a receiver does with the signature headers, whatever scheme they are of: for `hookcast listen` and for tests.

use std::time::Duration;

use super::standard::{self, PreparedKey, Received};
use super::{KeyError, ed25519, hub, stripe};
use crate::clock::Timestamp;
use crate::model::subscription::SignatureScheme;
use crate::model::subscription::parse::{PRIVATE_KEY_PREFIX, PUBLIC_KEY_PREFIX, SECRET_PREFIX, parse_secret_of};

/// How far the clocks of sender and receiver may differ.
pub const TOLERANCE: Duration = Duration::from_mins(5);
/// Most signatures of one header that are looked at.
pub const SIGNATURES_MAX: usize = 32;

/// When a message is judged, and how far its time may be from that.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time of the receiver.
    pub now: Timestamp,
    /// How far the clocks may differ.
    pub tolerance: Duration,
}

impl From<Timestamp> for Moment {
    fn from(now: Timestamp) -> Self {
        Self { now, tolerance: TOLERANCE }
    }
}

/// Why a message is not to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// `webhook-id` is not there.
    #[error("the message has no id")]
    MissingId,
    /// The time is not a number.
    #[error("the timestamp is not a number of seconds")]
    MalformedTimestamp,
    /// Longer ago than the tolerance, [`TOLERANCE`] unless another one is asked for.
    #[error("the timestamp is too old")]
    TooOld,
    /// Farther ahead than the tolerance.
    #[error("the timestamp is too far in the future")]
    TooNew,
    /// No signature is there that the keys could be for.
    #[error("there is no signature for the secret")]
    NoSignature,
    /// None of them fits any key.
    #[error("no signature fits the secret")]
    Mismatch,
}

/// The keys of a receiver.
#[derive(Clone, Debug, Default)]
pub struct Verifier {
    symmetric: Vec<PreparedKey>,
    public: Vec<ed25519::PublicKey>,
    /// Secrets whose whole text is the key.
    text: Vec<PreparedKey>,
}

impl Verifier {
    /// Adds a secret of any scheme: `whsec_…`, `whsk_…`, `whpk_…`, or the text of `hub` and `stripe`.
    ///
    /// # Errors
    /// [`KeyError`] when it is a key of no scheme.
    pub fn add(&mut self, secret: &str) -> Result<(), KeyError> {
        if secret.starts_with(PUBLIC_KEY_PREFIX) {
            self.public.push(ed25519::PublicKey::parse(secret)?);
        } else if secret.starts_with(PRIVATE_KEY_PREFIX) {
            self.public.push(ed25519::PrivateKey::parse(secret)?.public());
        } else {
            let is_standard = secret.starts_with(SECRET_PREFIX);
            if is_standard {
                self.symmetric.push(PreparedKey::parse(secret)?);
            } else if parse_secret_of(SignatureScheme::Hub, secret).is_err() {
                return Err(KeyError("is neither whsec_…, whsk_…, whpk_… nor 16 to 199 visible characters"));
            }
            // The generated secrets of `hub` and `stripe` begin with `whsec_`, too.
            self.text.push(PreparedKey::from_bytes(secret.as_bytes()));
        }
        Ok(())
    }

    /// Whether there is no key, so that nothing can be verified.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.public.is_empty() && self.text.is_empty()
    }

    /// Verifies a received message by whatever header fits a key; `header` gives the value of a header, empty if it is absent.
    ///
    /// # Errors
    /// [`VerifyError`], of the first scheme that has a signature; do not tell the sender which.
    pub fn verify<'h>(&self, header: &impl Fn(&str) -> &'h str, body: &[u8], now: Timestamp) -> Result<(), VerifyError> {
        let received = Received {
            id: header("webhook-id"),
            timestamp: header("webhook-timestamp"),
            signatures: header(standard::HEADER),
            body,
        };
        let mut first = VerifyError::NoSignature;
        let mut judge = |verdict: Result<(), VerifyError>| {
            if let Err(error) = verdict
                && first == VerifyError::NoSignature
            {
                first = error;
            }
            verdict.is_ok()
        };
        let is_good = (!received.signatures.is_empty()
            && ((!self.symmetric.is_empty() && judge(standard::verify(&self.symmetric, &received, now)))
                || (!self.public.is_empty() && judge(ed25519::verify(&self.public, &received, now)))))
            || (!header(stripe::HEADER).is_empty() && judge(stripe::verify(&self.text, header(stripe::HEADER), body, now)))
            || (!header(hub::HEADER).is_empty() && judge(hub::verify(&self.text, header(hub::HEADER), body)));
        if is_good { Ok(()) } else { Err(first) }
    }
}

/// Refuses a time that is no plain number of seconds or too far from now.
pub(super) fn check_time(text: &str, moment: impl Into<Moment>) -> Result<(), VerifyError> {
    let Moment { now, tolerance } = moment.into();
    // Only plain digits: `+5`, ` 5` and the like would be signed as something else than they read.
    let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let seconds: i64 = text.parse().ok().filter(|_| is_plain).ok_or(VerifyError::MalformedTimestamp)?;
    let tolerance = i64::try_from(tolerance.as_secs()).unwrap_or(i64::MAX);
    if seconds < now.as_secs().saturating_sub(tolerance) {
        return Err(VerifyError::TooOld);
    }
    if seconds > now.as_secs().saturating_add(tolerance) {
        return Err(VerifyError::TooNew);
    }
    Ok(())
}

/// The bytes of a whole SHA-256 MAC in digits; a shortened one would be guessable.
pub(super) fn decode_hex(digits: &str) -> Option<[u8; 32]> {
    let digits = digits.as_bytes();
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        *byte = (value(pair[0])? << 4) | value(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
