//! JSON pointers over JSON text: finds one value without building the rest.
//!
//! Spec: RFC 6901. A key given twice counts the last time, as most JSON readers have it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Longest pointer, in bytes.
pub const POINTER_BYTES_MAX: usize = 1024;
/// Most steps in a pointer.
pub const POINTER_STEPS_MAX: usize = 32;

/// Why a text is not a JSON pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PointerError {
    /// Neither empty nor beginning with a slash.
    #[error("a JSON pointer is empty or begins with '/'")]
    Start,
    /// `~` that is not part of `~0` or `~1`.
    #[error("'~' in a JSON pointer is written '~0', and '/' inside a key '~1'")]
    Escape,
    /// Over [`POINTER_BYTES_MAX`] or [`POINTER_STEPS_MAX`].
    #[error("a JSON pointer has at most {POINTER_BYTES_MAX} bytes and {POINTER_STEPS_MAX} steps")]
    TooLong,
}

/// A way to one value inside a JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    steps: Vec<String>,
}

impl Pointer {
    /// Reads a pointer such as `/user/id`; the empty one is the whole text.
    ///
    /// # Errors
    /// [`PointerError`] saying how to write it.
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        if text.len() > POINTER_BYTES_MAX {
            return Err(PointerError::TooLong);
        }
        if text.is_empty() {
            return Ok(Self { steps: Vec::new() });
        }
        let rest = text.strip_prefix('/').ok_or(PointerError::Start)?;
        let steps = rest.split('/').map(unescape).collect::<Result<Vec<_>, _>>()?;
        if steps.len() > POINTER_STEPS_MAX { Err(PointerError::TooLong) } else { Ok(Self { steps }) }
    }

    /// The value it points at, as written; `None` when there is none or `json` is not JSON.
    #[must_use]
    pub fn find<'a>(&self, json: &'a str) -> Option<&'a RawValue> {
        let mut reader = serde_json::Deserializer::from_str(json);
        Walk(&self.steps).deserialize(&mut reader).ok().flatten()
    }

    /// The value it points at as text: a string's content, a number or truth value as written; `None` for anything else.
    #[must_use]
    pub fn text<'a>(&self, json: &'a str) -> Option<Cow<'a, str>> {
        let raw = self.find(json)?.get();
        match raw.as_bytes().first()? {
            b'"' if raw.contains('\\') => serde_json::from_str(raw).ok().map(Cow::Owned),
            b'"' => Some(Cow::Borrowed(&raw[1..raw.len() - 1])),
            b'{' | b'[' | b'n' => None,
            _ => Some(Cow::Borrowed(raw)),
        }
    }
}

fn unescape(step: &str) -> Result<String, PointerError> {
    let mut out = String::with_capacity(step.len());
    let mut chars = step.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '~' => match chars.next() {
                Some('0') => '~',
                Some('1') => '/',
                _ => return Err(PointerError::Escape),
            },
            other => other,
        });
    }
    Ok(out)
}

struct Walk<'p>(&'p [String]);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        if self.0.is_empty() { serde::Deserialize::deserialize(reader).map(Some) } else { reader.deserialize_any(self) }
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(wanted) = map.next_key_seed(KeyIs(&self.0[0]))? {
            if wanted {
                found = map.next_value_seed(Walk(&self.0[1..]))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let step = &self.0[0];
        let plain = step.bytes().all(|b| b.is_ascii_digit()) && (step == "0" || !step.starts_with('0'));
        let wanted = if plain { step.parse::<usize>().ok() } else { None };
        let mut found = None;
        for index in 0usize.. {
            if wanted == Some(index) {
                match seq.next_element_seed(Walk(&self.0[1..]))? {
                    Some(value) => found = value,
                    None => break,
                }
            } else if seq.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
        }
        Ok(found)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

struct KeyIs<'p>(&'p str);

impl<'de> DeserializeSeed<'de> for KeyIs<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<bool, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyIs<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(pointer: &str, json: &str) -> Option<String> {
        Pointer::parse(pointer).unwrap().text(json).map(Cow::into_owned)
    }

    #[test]
    fn values_are_found_at_any_depth() {
        let json = r#"{"a":{"b":[1,{"c":"x\ny"}],"~/":true},"n":12345678901234567890123,"z":null,"a/":1.50}"#;
        assert_eq!(text("/a/b/1/c", json).unwrap(), "x\ny");
        assert_eq!(text("/a/b/0", json).unwrap(), "1");
        assert_eq!(text("/a/~0~1", json).unwrap(), "true");
        assert_eq!(text("/n", json).unwrap(), "12345678901234567890123");
        assert_eq!(text("/a~1", json).unwrap(), "1.50");
        for missing in ["/z", "/a", "/a/b", "/a/b/01", "/a/b/-", "/a/b/9", "/q", "/n/x", "/a/b/0/c"] {
            assert_eq!(text(missing, json), None, "{missing}");
        }
        assert_eq!(text("", "\"whole\"").unwrap(), "whole");
    }

    #[test]
    fn malformed_pointers_are_refused() {
        assert_eq!(Pointer::parse("a"), Err(PointerError::Start));
        assert_eq!(Pointer::parse("/a~2"), Err(PointerError::Escape));
        assert_eq!(Pointer::parse("/~"), Err(PointerError::Escape));
        assert_eq!(Pointer::parse(&"/a".repeat(33)), Err(PointerError::TooLong));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_reader_that_builds_everything(
            json in r#"\{("[ab]":(1|"x"|\[1,\{"a":2\}\]|\{"b":"y"\}),){0,3}"c":\{"a":\{"b":5\}\}\}"#,
            pointer in "(/[abc01]){0,3}",
        ) {
            let value: serde_json::Value = serde_json::from_str(&json).unwrap();
            let found = Pointer::parse(&pointer).unwrap().find(&json).map(|raw| serde_json::from_str(raw.get()).unwrap());
            prop_assert_eq!(found.as_ref(), value.pointer(&pointer));
        }
    }
}
