//! The prepared keys of one scheme of one subscription, and which of them sign at a time.

use super::KeyError;
use crate::clock::Timestamp;
use crate::model::subscription::{Secret, Signature};

/// Prepared keys, newest first, each with the time it stops signing; never none.
#[derive(Clone, Debug)]
pub struct Keys<K>(Vec<(K, Option<Timestamp>)>);

impl<K> Keys<K> {
    /// Prepares the keys of a stored signature.
    ///
    /// # Errors
    /// [`KeyError`] when there is no key, or a malformed one.
    pub(super) fn prepare(signature: &Signature, one: impl Fn(&Secret) -> Result<K, KeyError>) -> Result<Self, KeyError> {
        if signature.keys.is_empty() {
            return Err(KeyError("is missing"));
        }
        let prepared = signature.keys.iter().map(|key| Ok((one(&key.secret)?, key.expires_at)));
        Ok(Self(prepared.collect::<Result<_, KeyError>>()?))
    }

    /// The keys that sign at `at`, newest first. The newest signs whatever its end says: a delivery is never unsigned.
    pub fn in_force(&self, at: Timestamp) -> impl Iterator<Item = &K> {
        self.0
            .iter()
            .enumerate()
            .filter(move |(index, (_, expires_at))| *index == 0 || expires_at.is_none_or(|end| at < end))
            .map(|(_, (key, _))| key)
    }

    /// How many keys there are, in force or not.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}
