//! `X-Hub-Signature-256`: `sha256=` and the hexadecimal HMAC-SHA256 over the body, as `WebSub` and GitHub have it.

use std::fmt;

use bytes::BufMut;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{KeyError, Signer};
use crate::model::subscription::Signature;

/// Name of the header.
pub const HEADER: &str = "x-hub-signature-256";
/// Name of the header in `WebSub`, with the same value.
pub const WEBSUB_HEADER: &str = "x-hub-signature";

/// The newest key of one subscription; the scheme has room for one signature.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// Appends the signature of `body`.
    pub fn sign(&self, body: &[u8], out: &mut impl BufMut) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut mac = self.0.clone();
        mac.update(body);
        out.put_slice(b"sha256=");
        for byte in mac.finalize().into_bytes() {
            out.put_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
}

/// Prepares the key of a subscription.
///
/// # Errors
/// [`KeyError`] when there is none.
///
/// # Panics
/// Never: HMAC takes a key of any length.
pub fn prepare(signature: &Signature) -> Result<Signer, KeyError> {
    let newest = signature.newest().ok_or(KeyError("is missing"))?;
    let key = Hmac::new_from_slice(newest.expose().as_bytes()).expect("invariant: HMAC takes a key of any length");
    Ok(Signer::Hub(Key(key)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::subscription::{Secret, SignatureScheme, SigningKey};

    #[test]
    fn the_body_alone_is_signed() {
        // RFC 4231, test case 2.
        let keys = vec![SigningKey { secret: Secret::trusted("Jefe".to_owned()), expires_at: None }];
        let Ok(Signer::Hub(key)) = prepare(&Signature { scheme: SignatureScheme::Hub, keys }) else { panic!("a key") };
        let mut out = Vec::new();
        key.sign(b"what do ya want for nothing?", &mut out);
        assert_eq!(out, b"sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
