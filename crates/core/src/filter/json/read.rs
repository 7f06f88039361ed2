//! Reads JSON text into values.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use cel::common::types::{CelNull, CelString};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{List, Map, Node};

/// A JSON text read into values, and the length of its longest text.
#[derive(Debug)]
pub(in crate::filter) struct Document<'a> {
    pub(in crate::filter) root: Node<'a>,
    pub(in crate::filter) longest_bytes: usize,
}

impl<'a> Document<'a> {
    /// Reads JSON; the reader refuses what is nested deeper than 127 levels.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(in crate::filter) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let longest = Cell::new(0);
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let root = Seed(&longest).deserialize(&mut reader).and_then(|root| reader.end().map(|()| root));
        let root = root.map_err(|error| format!("the data cannot be read: {error}"))?;
        Ok(Self { root, longest_bytes: longest.get() })
    }
}

/// Reads one value and remembers the longest text.
#[derive(Clone, Copy)]
struct Seed<'s>(&'s Cell<usize>);

impl Seed<'_> {
    fn note<T: AsRef<str>>(self, text: T) -> T {
        self.0.set(self.0.get().max(text.as_ref().len()));
        text
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node<'de>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Node::Null(CelNull))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Node::Bool(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Node::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(value).map_or_else(|_| Node::UInt(value.into()), |value| Node::Int(value.into())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Node::Double(value.into()))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Node::text(self.note(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Node::Text(CelString::from(self.note(text).to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Node::List(List::new(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::with_capacity(8);
        while let Some(key) = members.next_key_seed(Key)? {
            let key = self.note(key);
            entries.push((CelString::from(key), members.next_value_seed(self)?));
        }
        Ok(Node::Map(Map::new(entries)))
    }
}

/// Reads a key, borrowed where it has no escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}
