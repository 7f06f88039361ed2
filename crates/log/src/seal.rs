//! Secrets at rest: texts sealed by XChaCha20-Poly1305 under a master key that is kept elsewhere.
//!
//! A sealed text names the key it was sealed with, so that keys can be changed one after the other, and is bound to the name
//! of what it belongs to, so that it cannot be moved to another place. Knows neither files nor databases nor what it seals.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, ZeroizeOnDrop, Zeroizing};

/// Length of a master key, in bytes.
pub const KEY_BYTES: usize = 32;
/// Most former keys that are known beside the present one.
pub const PREVIOUS_KEYS_MAX: usize = 8;

/// What every sealed text begins with; a stored definition begins with `{`.
const PREFIX: &str = "sealed:1:";
/// Length of the id of a key, in characters.
const ID_CHARS: usize = 16;
/// Length of a nonce, in bytes: long enough to be drawn at random for ever.
const NONCE_BYTES: usize = 24;

/// A master key. Its bytes are wiped when it is dropped and shown nowhere.
#[derive(Clone)]
pub struct MasterKey {
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    id: String,
}

impl MasterKey {
    /// Takes a key as base64 of 32 bytes, with or without padding.
    ///
    /// # Errors
    /// What is wrong with it, without repeating it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let decoded = STANDARD_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| "is not base64")?;
        let decoded = Zeroizing::new(decoded);
        let bytes: [u8; KEY_BYTES] = decoded.as_slice().try_into().map_err(|_| "does not hold 32 bytes")?;
        if bytes.iter().all(|byte| *byte == bytes[0]) {
            return Err("is one byte over and over");
        }
        Ok(Self::new(bytes))
    }

    /// Takes the bytes of a key.
    #[must_use]
    pub fn new(mut bytes: [u8; KEY_BYTES]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"hookcast master key id\0");
        hash.update(bytes);
        let mut id = <[u8; 32]>::from(hash.finalize()).map(|byte| format!("{byte:02x}")).concat();
        id.truncate(ID_CHARS);
        let key = Self { bytes: Zeroizing::new(bytes), id };
        bytes.zeroize();
        key
    }

    /// What names it in sealed texts and messages: 16 hexadecimal digits that say nothing about the key.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.bytes).into())
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id)
    }
}

impl PartialEq for MasterKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes.ct_eq(&*other.bytes).into()
    }
}

impl Eq for MasterKey {}

impl ZeroizeOnDrop for MasterKey {}

/// Why a sealed text cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It was sealed with a key that is not known here.
    #[error("it was sealed with the master key {0}, which is not configured")]
    UnknownKey(String),
    /// It was changed, cut, or belongs to something else.
    #[error("what was sealed there is damaged or belongs to something else")]
    Damaged,
}

/// The keys: one that seals, and former ones that still open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seals {
    current: MasterKey,
    previous: Vec<MasterKey>,
}

impl Seals {
    /// Seals with `current`, opens with all.
    #[must_use]
    pub fn new(current: MasterKey, previous: Vec<MasterKey>) -> Self {
        Self { current, previous }
    }

    /// Whether a key of this id is known.
    #[must_use]
    pub fn knows(&self, key_id: &str) -> bool {
        self.key(key_id).is_some()
    }

    /// What every text begins with that is sealed by the present key.
    #[must_use]
    pub fn present_prefix(&self) -> String {
        format!("{PREFIX}{}:", self.current.id)
    }

    /// Seals a text that belongs to `name`.
    ///
    /// # Panics
    /// Never: the system has random bytes, and no text is too long.
    #[must_use]
    pub fn seal(&self, name: &str, plain: &str) -> String {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).expect("invariant: the system has random bytes");
        let payload = Payload { msg: plain.as_bytes(), aad: name.as_bytes() };
        let sealed = self.current.cipher().encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.expect("invariant: a definition is far shorter than the cipher allows");
        let mut bytes = Vec::with_capacity(NONCE_BYTES + sealed.len());
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&sealed);
        let mut text = self.present_prefix();
        STANDARD.encode_string(bytes, &mut text);
        text
    }

    /// Opens a text that was sealed for `name`.
    ///
    /// # Errors
    /// [`SealError`]
    pub fn open(&self, name: &str, sealed: &str) -> Result<Zeroizing<String>, SealError> {
        let key_id = key_id(sealed).ok_or(SealError::Damaged)?;
        let key = self.key(key_id).ok_or_else(|| SealError::UnknownKey(key_id.to_owned()))?;
        let bytes = STANDARD.decode(&sealed[PREFIX.len() + ID_CHARS + 1..]).map_err(|_| SealError::Damaged)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Damaged)?;
        let payload = Payload { msg: sealed, aad: name.as_bytes() };
        let plain = key.cipher().decrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::Damaged)?;
        String::from_utf8(plain).map(Zeroizing::new).map_err(|_| SealError::Damaged)
    }

    fn key(&self, key_id: &str) -> Option<&MasterKey> {
        std::iter::once(&self.current).chain(&self.previous).find(|key| key.id == key_id)
    }
}

/// The id of the key that a text was sealed with; `None` when it is not sealed.
#[must_use]
pub fn key_id(text: &str) -> Option<&str> {
    let (id, _) = text.strip_prefix(PREFIX)?.split_at_checked(ID_CHARS)?;
    let is_id = id.bytes().all(|byte| byte.is_ascii_hexdigit()) && text.as_bytes().get(PREFIX.len() + ID_CHARS) == Some(&b':');
    is_id.then_some(id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> MasterKey {
        let mut bytes = [n; KEY_BYTES];
        bytes[0] = n.wrapping_add(1);
        MasterKey::new(bytes)
    }

    #[test]
    fn what_is_sealed_is_read_under_its_name_and_key_only() {
        let seals = Seals::new(key(1), Vec::new());
        let sealed = seals.seal("subscription/a", "{\"secret\":1}");
        assert!(!sealed.contains("secret") && key_id(&sealed) == Some(key(1).id()));
        assert_eq!(&**seals.open("subscription/a", &sealed).unwrap(), "{\"secret\":1}");
        assert_eq!(seals.open("subscription/b", &sealed), Err(SealError::Damaged));
        let other = Seals::new(key(2), Vec::new());
        assert_eq!(other.open("subscription/a", &sealed), Err(SealError::UnknownKey(key(1).id().to_owned())));
        let both = Seals::new(key(2), vec![key(1)]);
        assert_eq!(&**both.open("subscription/a", &sealed).unwrap(), "{\"secret\":1}");
        assert_ne!(seals.seal("a", "x"), seals.seal("a", "x"), "a nonce is used once");
    }

    #[test]
    fn a_key_is_32_bytes_of_base64() {
        let text = STANDARD.encode((0..32).collect::<Vec<u8>>());
        assert_eq!(MasterKey::parse(&text).unwrap().id().len(), ID_CHARS);
        assert_eq!(MasterKey::parse(text.trim_end_matches('=')).unwrap(), MasterKey::parse(&text).unwrap());
        for bad in [STANDARD.encode([7; 31]), STANDARD.encode([7; 33]), STANDARD.encode([7; 32]), "?".repeat(44), String::new()] {
            assert!(MasterKey::parse(&bad).is_err(), "{bad}");
        }
        assert!(!format!("{:?}", MasterKey::parse(&text)).contains(&text));
    }

    proptest! {
        #[test]
        fn any_text_comes_back(name in ".{0,40}", plain in ".{0,400}") {
            let seals = Seals::new(key(9), Vec::new());
            let opened = seals.open(&name, &seals.seal(&name, &plain)).unwrap();
            prop_assert_eq!(opened.as_str(), plain);
        }

        #[test]
        fn a_changed_text_is_refused(at in 0usize..400, plain in ".{0,100}") {
            let seals = Seals::new(key(9), Vec::new());
            let mut bytes = seals.seal("n", &plain).into_bytes();
            let at = at % bytes.len();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            prop_assert!(seals.open("n", &String::from_utf8(bytes).unwrap()).is_err());
        }

        #[test]
        fn foreign_texts_never_panic(text in ".{0,60}") {
            let _ = key_id(&text);
            let _ = Seals::new(key(9), Vec::new()).open("n", &format!("{PREFIX}{text}"));
        }
    }
}
