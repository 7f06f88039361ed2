//! A body cut into items: a JSON list, one JSON value, a feed, or one text. Pure.
//!
//! Items are slices of the body, in the body's order. What identifies an item is decided here: its own id, else its content and
//! how many equal ones stood before it; and what tells its states apart: its data.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::feed;
use hookcast_core::codec::json;
use hookcast_core::codec::pointer::Pointer;
use hookcast_core::model::event::ID_BYTES_MAX;
use hookcast_core::model::source::own::poll::{ListOrder, NextPage, PollSettings};

/// Most items of one body.
pub(super) const ITEMS_MAX: usize = 100_000;

/// The pointers of a source's settings.
#[derive(Debug)]
pub(super) struct Pointers {
    items: Option<Pointer>,
    cursor: Option<Pointer>,
    next: Option<Pointer>,
    id: Option<Pointer>,
    order: Option<ListOrder>,
}

/// One item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) data: Bytes,
    pub(super) is_json: bool,
    /// Its own id, when the settings do not find it in its data: that of a feed's entry.
    pub(super) id: Option<String>,
    /// What it is: its id, else its content.
    pub(super) hash: [u8; 32],
    /// What it says: the same as `hash` without an id, else id and data.
    pub(super) state: [u8; 32],
}

impl Item {
    /// Not identified yet.
    pub(super) fn new(data: Bytes, is_json: bool, id: Option<String>) -> Self {
        Self { data, is_json, id, hash: [0; 32], state: [0; 32] }
    }
}

/// What a body says.
#[derive(Debug, Default)]
pub(super) struct List {
    /// Oldest first.
    pub(super) items: Vec<Item>,
    /// Whether they are a list, of which some may have been there before; else one value.
    pub(super) is_many: bool,
    pub(super) cursor: Option<String>,
    pub(super) next: Option<String>,
    /// Minutes that a feed may be kept.
    pub(super) ttl_min: u32,
}

/// Why a body cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ListFault {
    /// Settings point into JSON, and this is none.
    #[error("the answer is {0}")]
    Json(json::JsonFault),
    /// Over [`ITEMS_MAX`].
    #[error("the answer has more than {ITEMS_MAX} items")]
    TooMany,
    /// It says to be a feed and cannot be read as one.
    #[error("the feed in the answer cannot be read")]
    Feed,
}

impl ListFault {
    pub(super) const fn slug(self) -> &'static str {
        match self {
            Self::Json(_) => "bad_json",
            Self::TooMany => "too_many_items",
            Self::Feed => "bad_feed",
        }
    }
}

impl Pointers {
    /// Those of checked settings; `id` is the one common to all sources.
    pub(super) fn of(settings: &PollSettings, id: Option<&str>) -> Self {
        let read = |text: Option<&str>| text.and_then(|text| Pointer::parse(text).ok());
        let next = match &settings.next {
            Some(NextPage::Body(pointer)) => Some(pointer.as_str()),
            _ => None,
        };
        Self {
            items: read(settings.items.as_deref()),
            cursor: read(settings.cursor.as_deref()),
            next: read(next),
            id: read(id),
            order: settings.order,
        }
    }

    /// Cuts a body; `media_type` is that of the answer.
    pub(super) fn read(&self, body: &Bytes, media_type: Option<&str>, reads_feeds: bool) -> Result<List, ListFault> {
        let body = body.strip_prefix(b"\xef\xbb\xbf").map_or_else(|| body.clone(), |rest| body.slice_ref(rest));
        let body = body.slice_ref(body.trim_ascii());
        if body.is_empty() {
            return Ok(List::default());
        }
        if reads_feeds && feed::is_feed(&body, media_type) {
            let mut list = feed::read(&body)?;
            self.put_in_order(&mut list.items, ListOrder::NewestFirst);
            self.identify(&mut list.items);
            return Ok(list);
        }
        let points = self.items.is_some() || self.cursor.is_some() || self.next.is_some();
        let text = match json::check(&body) {
            Ok(text) => text,
            Err(fault) if points => return Err(ListFault::Json(fault)),
            Err(_) => {
                let mut items = vec![Item::new(body, false, None)];
                self.identify(&mut items);
                return Ok(List { items, ..List::default() });
            }
        };
        let find = |pointer: &Option<Pointer>| Some(pointer.as_ref()?.text(text)?.into_owned());
        let (cursor, next) = (find(&self.cursor), find(&self.next));
        let whole = match &self.items {
            None => Some(text),
            Some(pointer) => pointer.find(text).map(RawValue::get).filter(|raw| *raw != "null"),
        };
        let is_many = whole.is_some_and(|whole| whole.starts_with('['));
        let slices = match whole {
            None => Vec::new(),
            Some(whole) if is_many => elements(whole)?,
            Some(whole) => vec![whole],
        };
        let item = |slice: &str| Item::new(body.slice_ref(slice.as_bytes()), true, None);
        let mut items: Vec<Item> = slices.into_iter().map(item).collect();
        self.put_in_order(&mut items, ListOrder::OldestFirst);
        self.identify(&mut items);
        Ok(List { items, is_many, cursor, next, ttl_min: 0 })
    }

    fn put_in_order(&self, items: &mut [Item], usual: ListOrder) {
        if self.order.unwrap_or(usual) == ListOrder::NewestFirst {
            items.reverse();
        }
    }

    fn identify(&self, items: &mut [Item]) {
        let mut seen: HashMap<[u8; 32], u64> = HashMap::new();
        for item in items {
            let found = self.id.as_ref().filter(|_| item.is_json).and_then(|pointer| {
                let text = pointer.text(std::str::from_utf8(&item.data).ok()?)?;
                is_id(&text).then(|| text.into_owned())
            });
            if found.is_some() {
                item.id = None;
            }
            (item.hash, item.state) = if let Some(id) = found.as_deref().or(item.id.as_deref()) {
                let hash: [u8; 32] = Sha256::new_with_prefix(b"id:").chain_update(id).finalize().into();
                (hash, Sha256::new_with_prefix(hash).chain_update(&item.data).finalize().into())
            } else {
                let content: [u8; 32] = Sha256::new_with_prefix(b"data:").chain_update(&item.data).finalize().into();
                let before = seen.entry(content).or_default();
                *before += 1;
                let hash = Sha256::new_with_prefix(content).chain_update(before.to_be_bytes()).finalize().into();
                (hash, hash)
            };
        }
    }

    /// Whether the settings find an id in these data.
    pub(super) fn finds_id(&self, data: &[u8], is_json: bool) -> bool {
        let text = || {
            let pointer = self.id.as_ref().filter(|_| is_json)?;
            pointer.text(std::str::from_utf8(data).ok()?)
        };
        text().is_some_and(|text| is_id(&text))
    }
}

/// Whether a text can be the id of an event.
pub(super) fn is_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= ID_BYTES_MAX && !text.chars().any(char::is_control)
}

/// The hash of a whole body.
pub(super) fn body_hash(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}

/// An id made of a hash and what it belongs to.
pub(super) fn hash_id(hash: &[u8; 32], scope: &str) -> String {
    use fmt::Write as _;
    let digest: [u8; 32] = Sha256::new_with_prefix(hash).chain_update(scope).finalize().into();
    digest[..16].iter().fold("sha-".to_owned(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The elements of a JSON list as they are written.
fn elements(list: &str) -> Result<Vec<&str>, ListFault> {
    struct Elements;

    impl<'de> Visitor<'de> for Elements {
        type Value = Vec<&'de str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut slices = Vec::new();
            while let Some(element) = seq.next_element::<&'de RawValue>()? {
                if slices.len() == ITEMS_MAX {
                    return Err(serde::de::Error::custom("too many"));
                }
                slices.push(element.get());
            }
            Ok(slices)
        }
    }

    // The text was judged to be JSON before, so that only the number of elements can be wrong.
    serde_json::Deserializer::from_str(list).deserialize_seq(Elements).map_err(|_| ListFault::TooMany)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pointers(change: impl FnOnce(&mut PollSettings), id: Option<&str>) -> Pointers {
        let mut settings = PollSettings::new(true);
        change(&mut settings);
        Pointers::of(&settings, id)
    }

    fn read(pointers: &Pointers, body: &str) -> Result<List, ListFault> {
        pointers.read(&Bytes::copy_from_slice(body.as_bytes()), None, true)
    }

    fn data(list: &List) -> Vec<&str> {
        list.items.iter().map(|item| std::str::from_utf8(&item.data).unwrap()).collect()
    }

    #[test]
    fn items_are_slices_of_the_body() {
        let whole = pointers(|_| {}, None);
        assert_eq!(data(&read(&whole, " [1, {\"a\" : 2},\n\"x\"] ").unwrap()), ["1", "{\"a\" : 2}", "\"x\""]);
        assert_eq!(data(&read(&whole, "\u{feff}{\"a\":1}").unwrap()), ["{\"a\":1}"]);
        assert_eq!(data(&read(&whole, "not json").unwrap()), ["not json"]);
        assert!(read(&whole, " ").unwrap().items.is_empty() && read(&whole, "[]").unwrap().items.is_empty());
        let inside = pointers(|s| (s.items, s.cursor) = (Some("/r/items".to_owned()), Some("/next".to_owned())), None);
        let list = read(&inside, r#"{"r":{"items":[{"n":1}]},"next":17}"#).unwrap();
        assert_eq!((data(&list), list.cursor.as_deref(), list.is_many), (vec!["{\"n\":1}"], Some("17"), true));
        let list = read(&inside, r#"{"r":{"items":null},"next":null}"#).unwrap();
        assert!(list.items.is_empty() && list.cursor.is_none());
        assert_eq!(data(&read(&inside, r#"{"r":{"items":{"n":1}}}"#).unwrap()), ["{\"n\":1}"]);
        assert_eq!(read(&inside, "{").unwrap_err().slug(), "bad_json");
        assert_eq!(read(&inside, &"[".repeat(500)).unwrap_err().slug(), "bad_json");
    }

    #[test]
    fn the_order_is_turned_as_the_settings_say() {
        let newest = pointers(|s| s.order = Some(ListOrder::NewestFirst), None);
        assert_eq!(data(&read(&newest, "[3,2,1]").unwrap()), ["1", "2", "3"]);
    }

    #[test]
    fn equal_items_differ_and_the_same_list_gives_the_same_hashes() {
        let whole = pointers(|_| {}, None);
        let hashes = |body: &str| read(&whole, body).unwrap().items.iter().map(|item| item.hash).collect::<Vec<_>>();
        let twice = hashes("[1,1,2]");
        assert!(twice[0] != twice[1] && twice[1] != twice[2]);
        assert_eq!(twice, hashes("[1, 1, 2]"));
        let by_id = pointers(|_| {}, Some("/id"));
        let state = |body: &str| read(&by_id, body).unwrap().items[0].state;
        assert_eq!(state(r#"[{"id":"a","n":1}]"#), state(r#"[ {"id":"a","n":1}]"#));
        assert_ne!(state(r#"[{"id":"a","n":1}]"#), state(r#"[{"id":"a","n":2}]"#));
        let hash = |body: &str| read(&by_id, body).unwrap().items[0].hash;
        assert_eq!(hash(r#"[{"id":"a","n":1}]"#), hash(r#"[{"id":"a","n":2}]"#));
        assert_ne!(hash(r#"[{"id":"","n":1}]"#), hash(r#"[{"id":"","n":2}]"#));
    }

    #[test]
    fn more_items_than_the_maximum_are_refused() {
        let whole = pointers(|_| {}, None);
        let many = |n: usize| format!("[{}0]", "0,".repeat(n - 1));
        assert_eq!(read(&whole, &many(ITEMS_MAX)).unwrap().items.len(), ITEMS_MAX);
        assert_eq!(read(&whole, &many(ITEMS_MAX + 1)).unwrap_err(), ListFault::TooMany);
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(body in r#"[\[\]{}",:a1<> /]{0,60}"#) {
            let inside = pointers(|s| s.items = Some("/a".to_owned()), Some("/1"));
            let _ = read(&inside, &body);
            let list = read(&pointers(|_| {}, None), &body).unwrap_or_default();
            for item in &list.items {
                let bytes: &[u8] = &item.data;
                prop_assert!(body.as_bytes().windows(bytes.len().max(1)).any(|window| window == bytes));
            }
        }
    }
}
