//! What an incoming webhook must show: the signature schemes of senders that are not ours.
//!
//! Pure: header values, body and time come in. What can be told without the body is told before it ([`Lock::glance`]), so that
//! a flood of forgeries costs no reading.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::Mac as _;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::ed25519::{self, PublicKey};
use super::hub::put_hex;
use super::standard::{self, PreparedKey, Received};
use super::verify::{Moment, VerifyError, check_time, decode_hex};
use super::{KeyError, hub, slack, stripe};
use crate::clock::Timestamp;
use crate::model::source::own::webhook::{SenderProof, SenderScheme};
use crate::model::subscription::Secret;

const SHOPIFY_HEADER: &str = "x-shopify-hmac-sha256";
const GITLAB_HEADER: &str = "x-gitlab-token";
const AUTHORIZATION: &str = "authorization";
const MAC_BYTES: usize = 32;

/// The value of a header, empty if it is absent.
pub type HeaderOf<'a, 'h> = &'a dyn Fn(&str) -> &'h str;

/// What a sender must show, with its keys expanded.
#[derive(Debug)]
pub struct Lock {
    proof: SenderProof,
    keys: Keys,
}

#[derive(Debug)]
enum Keys {
    Symmetric(Vec<PreparedKey>),
    Public(Vec<PublicKey>),
    Itself,
}

impl Lock {
    /// Expands the keys.
    ///
    /// # Errors
    /// [`KeyError`] when one is malformed, which only a damaged store can bring about.
    pub fn new(proof: &SenderProof) -> Result<Self, KeyError> {
        let texts = || proof.secrets.iter().map(Secret::expose);
        let keys = match proof.scheme {
            SenderScheme::Standard => Keys::Symmetric(texts().map(PreparedKey::parse).collect::<Result<_, _>>()?),
            SenderScheme::StandardEd25519 => Keys::Public(texts().map(PublicKey::parse).collect::<Result<_, _>>()?),
            SenderScheme::Token | SenderScheme::Gitlab | SenderScheme::None => Keys::Itself,
            _ => Keys::Symmetric(texts().map(|text| PreparedKey::from_bytes(text.as_bytes())).collect()),
        };
        Ok(Self { proof: proof.clone(), keys })
    }

    /// Whether nothing is asked of a sender here, so that somebody else must ask.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.proof.scheme == SenderScheme::None
    }

    /// The scheme.
    #[must_use]
    pub fn scheme(&self) -> SenderScheme {
        self.proof.scheme
    }

    /// Judges what can be judged without the body: whether there is a signature, and its time.
    ///
    /// # Errors
    /// [`VerifyError`]; do not tell the sender which.
    pub fn glance(&self, header: HeaderOf<'_, '_>, now: Timestamp) -> Result<(), VerifyError> {
        let moment = self.moment(now);
        let is_there = |value: &str| if value.is_empty() { Err(VerifyError::NoSignature) } else { Ok(()) };
        match self.proof.scheme {
            SenderScheme::Standard | SenderScheme::StandardEd25519 => {
                is_there(header(standard::HEADER))?;
                is_there(header("webhook-id")).map_err(|_| VerifyError::MissingId)?;
                check_time(header("webhook-timestamp"), moment)
            }
            SenderScheme::Stripe => {
                is_there(header(stripe::HEADER))?;
                check_time(stripe::time_of(header(stripe::HEADER)), moment)
            }
            SenderScheme::Slack => {
                is_there(header(slack::HEADER))?;
                check_time(header(slack::TIME_HEADER), moment)
            }
            SenderScheme::Hub | SenderScheme::Github | SenderScheme::Shopify => is_there(header(self.header())),
            SenderScheme::Token | SenderScheme::Gitlab => self.is_token(header(self.header())),
            SenderScheme::None => Ok(()),
        }
    }

    /// Judges the whole; compares in constant time. One fitting pair of a signature and a key is enough.
    ///
    /// # Errors
    /// [`VerifyError`]; do not tell the sender which.
    pub fn open(&self, header: HeaderOf<'_, '_>, body: &[u8], now: Timestamp) -> Result<(), VerifyError> {
        let moment = self.moment(now);
        let received = || Received {
            id: header("webhook-id"),
            timestamp: header("webhook-timestamp"),
            signatures: header(standard::HEADER),
            body,
        };
        match (&self.keys, self.proof.scheme) {
            (Keys::Public(keys), _) => ed25519::verify(keys, &received(), moment),
            (Keys::Symmetric(keys), SenderScheme::Standard) => standard::verify(keys, &received(), moment),
            (Keys::Symmetric(keys), SenderScheme::Stripe) => stripe::verify(keys, header(stripe::HEADER), body, moment),
            (Keys::Symmetric(keys), SenderScheme::Slack) => {
                slack::verify(keys, header(slack::TIME_HEADER), header(slack::HEADER), body, moment)
            }
            (Keys::Symmetric(keys), scheme) => {
                let value = header(self.header()).trim();
                let mac = match scheme {
                    SenderScheme::Shopify => BASE64.decode(value).ok().and_then(|mac| <[u8; MAC_BYTES]>::try_from(mac).ok()),
                    _ => decode_hex(value.strip_prefix(hub::METHOD).unwrap_or(value)),
                };
                let mac = mac.ok_or(VerifyError::Mismatch)?;
                let fits = |key: &PreparedKey| key.mac_of(&[body]).verify_slice(&mac).is_ok();
                keys.iter().any(fits).then_some(()).ok_or(VerifyError::Mismatch)
            }
            (Keys::Itself, SenderScheme::None) => Ok(()),
            (Keys::Itself, _) => self.is_token(header(self.header())),
        }
    }

    /// A name of a message that its sender gave none, from what is signed: the time and the body. `None` where no time is
    /// signed, because then two messages may be alike in everything.
    #[must_use]
    pub fn name_of(&self, header: HeaderOf<'_, '_>, body: &[u8]) -> Option<String> {
        let time = match self.proof.scheme {
            SenderScheme::Stripe => stripe::time_of(header(stripe::HEADER)),
            SenderScheme::Slack => header(slack::TIME_HEADER),
            _ => return None,
        };
        let mut digest = Sha256::new();
        digest.update(time.as_bytes());
        digest.update(b".");
        digest.update(body);
        let mut name = b"sha256-".to_vec();
        put_hex(&digest.finalize(), &mut name);
        String::from_utf8(name).ok()
    }

    fn moment(&self, now: Timestamp) -> Moment {
        Moment { now, tolerance: self.proof.tolerance }
    }

    fn header(&self) -> &str {
        self.proof.header.as_deref().unwrap_or(match self.proof.scheme {
            SenderScheme::Shopify => SHOPIFY_HEADER,
            SenderScheme::Gitlab => GITLAB_HEADER,
            _ => hub::HEADER,
        })
    }

    /// Compares with every secret, so that the time taken does not tell which one it was.
    fn is_token(&self, given: &str) -> Result<(), VerifyError> {
        if given.is_empty() {
            return Err(VerifyError::NoSignature);
        }
        let bare = match given.split_at_checked(7) {
            Some((scheme, token)) if self.header() == AUTHORIZATION && scheme.eq_ignore_ascii_case("bearer ") => token.trim(),
            _ => given,
        };
        let is = |known: &Secret, given: &str| bool::from(known.expose().as_bytes().ct_eq(given.as_bytes()));
        let is_known = self.proof.secrets.iter().fold(false, |found, known| found | is(known, bare) | is(known, given));
        if is_known { Ok(()) } else { Err(VerifyError::Mismatch) }
    }
}

#[cfg(test)]
mod tests;
