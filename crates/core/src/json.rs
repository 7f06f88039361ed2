//! Strict JSON for what operators and programs define: one reading or none.
//!
//! Refuses what parsers disagree about: a byte order mark, a name given twice in one object, invalid UTF-8, lone surrogates,
//! numbers beyond a double, and nesting deep enough to exhaust a stack. Event data does not pass through here; it is kept byte
//! for byte. Spec: RFC 8259, narrowed to I-JSON (RFC 7493) where that is stricter.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Deepest nesting of lists and objects; `serde_json` refuses what is deeper before it recurses.
pub const JSON_DEPTH_MAX: usize = 127;

/// Why bytes are not acceptable JSON; always status 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// A byte sequence that is not UTF-8.
    #[error("the body is not UTF-8 from byte {offset} on")]
    InvalidUtf8 {
        /// Bytes before it.
        offset: usize,
    },
    /// The body begins with U+FEFF.
    #[error("the body begins with a byte order mark; send plain UTF-8")]
    ByteOrderMark,
    /// An object names a member twice.
    #[error("the name {name} is there twice in one object, at line {line}, column {column}")]
    DuplicateKey {
        /// The name, quoted and cut.
        name: String,
        /// 1-based line of the second one.
        line: usize,
        /// 1-based column of the second one.
        column: usize,
    },
    /// Anything else that breaks the grammar or its limits.
    #[error("the body is not valid JSON: {0}")]
    Syntax(String),
}

impl JsonError {
    /// The last part of the problem's `type`.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::InvalidUtf8 { .. } => "invalid_utf8",
            Self::DuplicateKey { .. } => "duplicate_key",
            Self::ByteOrderMark | Self::Syntax(_) => "invalid_json",
        }
    }
}

/// Parses one JSON text.
///
/// # Errors
/// [`JsonError`] with the position of the first thing that is wrong.
pub fn parse_strict(bytes: &[u8]) -> Result<Value, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|error| JsonError::InvalidUtf8 { offset: error.valid_up_to() })?;
    if text.starts_with('\u{feff}') {
        return Err(JsonError::ByteOrderMark);
    }
    let twice = RefCell::new(None);
    let mut parser = serde_json::Deserializer::from_str(text);
    let parsed = OneValue { twice: &twice }.deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
    parsed.map_err(|error| match twice.into_inner() {
        Some(name) => JsonError::DuplicateKey { name, line: error.line(), column: error.column() },
        None => JsonError::Syntax(error.to_string()),
    })
}

/// Builds a [`Value`] and stops at the first name given twice, which it leaves in `twice`.
#[derive(Clone, Copy)]
struct OneValue<'t> {
    twice: &'t RefCell<Option<String>>,
}

impl<'de> DeserializeSeed<'de> for OneValue<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OneValue<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            if members.contains_key(&name) {
                *self.twice.borrow_mut() = Some(crate::model::fields::quoted(&name));
                return Err(A::Error::custom("name given twice"));
            }
            let value = entries.next_value_seed(self)?;
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn slug(bytes: impl AsRef<[u8]>) -> &'static str {
        parse_strict(bytes.as_ref()).expect_err("the input should be refused").slug()
    }

    #[test]
    fn bad_bodies_are_refused_with_their_slug() {
        for text in ["", " ", "{", r#"{"a":1,}"#, r#"{"a":NaN}"#, "\u{feff}{}", r#"{"rate":1e400}"#, r#"{"n":"\ud800"}"#] {
            assert_eq!(slug(text), "invalid_json", "{text:?}");
        }
        for text in
            [r#"{"n":"\udc00\ud800"}"#, "{}x", "{} {}", "01", "'a'", "[1,]", "// c\n1", "\"a\nb\"", "nul", "+1", ".5", "\0"]
        {
            assert_eq!(slug(text), "invalid_json", "{text:?}");
        }
        assert_eq!(slug(b"{\"name\":\"\xff\"}"), "invalid_utf8");
        assert_eq!(slug(b"{\"name\":\"\xed\xa0\x80\"}"), "invalid_utf8");
        assert_eq!(slug(r#"{"url":"a","url":"b"}"#), "duplicate_key");
        assert_eq!(slug(r#"{"a":[{"b":1,"b":2}]}"#), "duplicate_key");
        assert_eq!(slug(r#"{"url":"a","\u0075rl":"b"}"#), "duplicate_key");
    }

    #[test]
    fn deep_nesting_does_not_overflow_the_stack() {
        assert_eq!(slug("[".repeat(100_000)), "invalid_json");
        assert_eq!(slug(r#"{"a":"#.repeat(100_000)), "invalid_json");
        assert!(parse_strict(("[".repeat(JSON_DEPTH_MAX) + &"]".repeat(JSON_DEPTH_MAX)).as_bytes()).is_ok());
    }

    #[test]
    fn messages_name_the_place() {
        let error = parse_strict(b"{\n  \"a\": 1,\n  \"a\": 2\n}").unwrap_err();
        assert_eq!(error.to_string(), "the name \"a\" is there twice in one object, at line 3, column 5");
        assert!(parse_strict(b"{\n x").unwrap_err().to_string().contains("line 2 column 2"));
    }

    #[test]
    fn a_name_that_the_parser_uses_itself_is_an_ordinary_name() {
        let value = parse_strict(br#"{"$serde_json::private::RawValue": "{"}"#).unwrap();
        assert_eq!(value["$serde_json::private::RawValue"], "{");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse_strict(&bytes);
        }

        #[test]
        fn whatever_is_accepted_reads_as_the_plain_parser_reads_it(text in r#"[\[\]{}:,"a0-9.eE+\\ -]{0,24}"#) {
            if let Ok(value) = parse_strict(text.as_bytes()) {
                prop_assert_eq!(value, serde_json::from_str::<Value>(&text).unwrap());
            }
        }
    }

    #[test]
    fn ordinary_json_is_read() {
        let text = r#" {"a":[1,-2,3.5,"x\n\ud83d\ude00",true,null],"b":{}} "#;
        assert_eq!(parse_strict(text.as_bytes()).unwrap(), json!({"a": [1, -2, 3.5, "x\n😀", true, null], "b": {}}));
    }
}
