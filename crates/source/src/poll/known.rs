//! Which items of a list were there the last time: short hashes, so that many of them fit into a resume token. Pure.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::list::Item;

/// Bytes of an item's hash that are kept: two of 100,000 items meet once in 60,000 lists.
const HASH_BYTES: usize = 6;
/// Characters of one hash in a token.
const HASH_CHARS: usize = 8;

/// Hashes in the order of their items, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    order: Vec<u64>,
    set: HashSet<u64>,
}

/// What is kept of a longer hash.
fn short(hash: &[u8; 32]) -> u64 {
    let mut bytes = [0; 8];
    bytes[8 - HASH_BYTES..].copy_from_slice(&hash[..HASH_BYTES]);
    u64::from_be_bytes(bytes)
}

impl FromIterator<u64> for Known {
    fn from_iter<I: IntoIterator<Item = u64>>(hashes: I) -> Self {
        let order: Vec<u64> = hashes.into_iter().collect();
        Self { set: order.iter().copied().collect(), order }
    }
}

impl Known {
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub(super) fn holds(&self, hash: u64) -> bool {
        self.set.contains(&hash)
    }

    /// The items of a list, by what they say, or only by what they are.
    pub(super) fn of(items: &[Item], is_by_state: bool) -> Self {
        items.iter().map(|item| short(if is_by_state { &item.state } else { &item.hash })).collect()
    }

    /// Whether an item was there, however that was written down: earlier builds knew items with an id by that alone, and a
    /// definition may have said otherwise before.
    pub(super) fn holds_item(&self, item: &Item) -> bool {
        self.holds(short(&item.state)) || self.holds(short(&item.hash))
    }

    /// The newest ones, as many as `bytes` of a token hold.
    pub(super) fn newest(&self, bytes: usize) -> Self {
        self.order[self.order.len().saturating_sub(bytes / HASH_CHARS)..].iter().copied().collect()
    }
}

impl Serialize for Known {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self.order.iter().flat_map(|hash| hash.to_be_bytes()[8 - HASH_BYTES..].to_vec()).collect();
        serializer.serialize_str(&BASE64.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Known {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = BASE64.decode(String::deserialize(deserializer)?).unwrap_or_default();
        let hash = |chunk: &[u8]| chunk.iter().fold(0, |hash, byte| hash << 8 | u64::from(*byte));
        Ok(bytes.chunks_exact(HASH_BYTES).map(hash).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::list::Pointers;
    use hookcast_core::model::source::own::poll::PollSettings;

    fn items(body: &'static str) -> Vec<Item> {
        let pointers = Pointers::of(&PollSettings::new(false), Some("/id"));
        pointers.read(&bytes::Bytes::from_static(body.as_bytes()), None, true).unwrap().items
    }

    #[test]
    fn an_item_that_says_something_else_is_known_by_its_id_alone_or_not_at_all() {
        let before = items(r#"[{"id":"a","n":1},{"n":1}]"#);
        let after = items(r#"[{"id":"a","n":2},{"n":1}]"#);
        let held = |known: &Known, items: &[Item]| items.iter().map(|item| known.holds_item(item)).collect::<Vec<_>>();
        for is_by_state in [true, false] {
            let known = Known::of(&before, is_by_state);
            assert_eq!((held(&known, &before), held(&known, &after)), (vec![true, true], vec![!is_by_state, true]));
        }
    }

    #[test]
    fn what_earlier_builds_wrote_down_is_known() {
        // The first six bytes of SHA-256 of "id:a".
        let known: Known = serde_json::from_str("\"haCq84lC\"").unwrap();
        assert!(known.holds_item(&items(r#"[{"id":"a","n":1}]"#)[0]));
        assert!(!known.holds_item(&items(r#"[{"id":"b","n":1}]"#)[0]));
    }

    #[test]
    fn hashes_come_back_from_a_token() {
        let known: Known = [short(&[1; 32]), 0, (1 << 48) - 1].into_iter().collect();
        let text = serde_json::to_string(&known).unwrap();
        assert_eq!(text.len(), 3 * HASH_CHARS + 2);
        assert_eq!(serde_json::from_str::<Known>(&text).unwrap(), known);
        assert_eq!(serde_json::from_str::<Known>("\"?\"").unwrap(), Known::default());
        assert!(known.newest(2 * HASH_CHARS + 7).holds(0) && !known.newest(2 * HASH_CHARS).holds(short(&[1; 32])));
    }
}
