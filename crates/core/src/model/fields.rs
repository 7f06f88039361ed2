//! Reading named fields of a JSON value and gathering every mistake at once.
//!
//! Used by the REST bodies and by the configuration file, which becomes the same JSON values before it is judged: one grammar,
//! one set of messages. Knows no field by name; `null` reads as absent everywhere.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::units::{UnitError, format_size, parse_size};

pub use values::{child, duration, nearest, quoted, short_text, text};

mod values;

/// Longest short text such as `description`, in characters.
pub const SHORT_TEXT_CHARS_MAX: usize = 256;
/// Most mistakes reported for one value; a body can be made of nothing but mistakes.
pub const FIELD_ERRORS_MAX: usize = 100;

/// One mistake in a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) to the field; empty for the whole value.
    pub pointer: String,
    /// Kind of mistake, stable: the last part of a problem's `type`.
    pub slug: &'static str,
    /// What is wrong and what is allowed, for a person.
    pub detail: String,
    /// HTTP status: 400 when the value is of a wrong JSON type or not a number we can hold, else 422.
    pub status: u16,
}

/// The mistakes found so far, at most [`FIELD_ERRORS_MAX`]; later ones are dropped.
#[derive(Debug, Default)]
pub struct Errors(RefCell<Vec<FieldError>>);

impl Errors {
    /// Notes a field whose value is not acceptable (422).
    pub fn push(&self, pointer: impl Into<String>, slug: &'static str, detail: impl Into<String>) {
        self.note(FieldError { pointer: pointer.into(), slug, detail: detail.into(), status: 422 });
    }

    /// Notes a field of a wrong JSON type (400).
    pub fn wrong_type(&self, pointer: impl Into<String>, got: &Value, wanted: &str) {
        let detail = format!("is {}; allowed: {wanted}", values::type_name(got));
        self.note(FieldError { pointer: pointer.into(), slug: "wrong_type", detail, status: 400 });
    }

    /// Notes a mistake that was found elsewhere.
    pub fn note(&self, error: FieldError) {
        let mut errors = self.0.borrow_mut();
        if errors.len() < FIELD_ERRORS_MAX {
            errors.push(error);
        }
    }

    /// How many mistakes there are so far.
    pub fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// Ends the reading: the value when nothing was wrong.
    ///
    /// # Errors
    /// Every mistake, in the order found.
    ///
    /// # Panics
    /// When a reader gives no value although it noted no mistake.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Vec<FieldError>> {
        let errors = self.0.into_inner();
        if errors.is_empty() { Ok(value.expect("invariant: a value is missing only after a noted mistake")) } else { Err(errors) }
    }
}

/// The members of one JSON object that is being read.
#[derive(Debug)]
pub struct Fields<'a> {
    members: &'a Map<String, Value>,
    pointer: String,
    errors: &'a Errors,
}

impl<'a> Fields<'a> {
    /// Opens an object; notes a wrong type, and every member that is not in `known`.
    pub fn open(value: &'a Value, pointer: impl Into<String>, known: &[&str], errors: &'a Errors) -> Option<Self> {
        let fields = Self::open_map(value, pointer, errors)?;
        for name in fields.members.keys().filter(|name| !known.contains(&name.as_str())) {
            let nearest = nearest(name, known).map(|other| format!("; did you mean `{other}`?")).unwrap_or_default();
            errors.push(fields.at(name), "unknown_field", format!("{} is not a known field{nearest}", quoted(name)));
        }
        Some(fields)
    }

    /// Opens an object with free names.
    pub fn open_map(value: &'a Value, pointer: impl Into<String>, errors: &'a Errors) -> Option<Self> {
        let pointer = pointer.into();
        if let Value::Object(members) = value {
            Some(Self { members, pointer, errors })
        } else {
            errors.wrong_type(pointer, value, "an object");
            None
        }
    }

    /// The JSON pointer of a member.
    pub fn at(&self, name: &str) -> String {
        child(&self.pointer, name)
    }

    /// A member that is there and not `null`.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    /// All members that are not `null`.
    pub fn members(&self) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
        self.members.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.as_str(), value))
    }

    /// Where mistakes go.
    pub fn errors(&self) -> &'a Errors {
        self.errors
    }

    /// Notes a mistake in a member.
    pub fn refuse(&self, name: &str, slug: &'static str, detail: impl Into<String>) {
        self.errors.push(self.at(name), slug, detail);
    }

    /// Notes a required member that is not there.
    pub fn require(&self, name: &str) {
        if self.get(name).is_none() {
            self.refuse(name, "missing_field", "is required");
        }
    }

    /// Opens a member that is an object.
    pub fn object(&self, name: &str, known: &[&str]) -> Option<Self> {
        Self::open(self.get(name)?, self.at(name), known, self.errors)
    }

    /// Opens a member that is an object with free names.
    pub fn map(&self, name: &str) -> Option<Self> {
        Self::open_map(self.get(name)?, self.at(name), self.errors)
    }

    /// A text.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        text(self.get(name)?, self.at(name), self.errors)
    }

    /// A text of at most [`SHORT_TEXT_CHARS_MAX`] characters without control characters.
    pub fn short_text(&self, name: &str) -> Option<&'a str> {
        short_text(self.get(name)?, self.at(name), self.errors)
    }

    /// `true` or `false`.
    pub fn flag(&self, name: &str) -> Option<bool> {
        let value = self.get(name)?;
        if !value.is_boolean() {
            self.errors.wrong_type(self.at(name), value, "true or false");
        }
        value.as_bool()
    }

    /// A list of at most `count_max` entries.
    pub fn list(&self, name: &str, count_max: usize) -> Option<&'a [Value]> {
        match self.get(name)? {
            Value::Array(items) if items.len() > count_max => {
                self.refuse(name, "too_many", format!("has {} entries; allowed: at most {count_max}", items.len()));
                None
            }
            Value::Array(items) => Some(items),
            other => {
                self.errors.wrong_type(self.at(name), other, "a list");
                None
            }
        }
    }

    /// A whole number in `range`.
    pub fn integer(&self, name: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let value = self.get(name)?;
        match value.as_u64() {
            Some(number) if range.contains(&number) => Some(number),
            Some(number) => {
                self.refuse(name, "range", format!("is {number}; allowed: {wanted}"));
                None
            }
            None => {
                if let Some(number) = self.number(name) {
                    self.refuse(name, "range", format!("is {number}; allowed: {wanted}"));
                }
                None
            }
        }
    }

    /// [`Fields::integer`] for counts that fit 32 bits.
    pub fn count(&self, name: &str, range: RangeInclusive<u32>) -> Option<u32> {
        self.integer(name, u64::from(*range.start())..=u64::from(*range.end())).and_then(|number| u32::try_from(number).ok())
    }

    /// A number below 2^64 in size; a larger one is noted as `out_of_range`, because it may have lost digits already.
    pub fn number(&self, name: &str) -> Option<f64> {
        /// 2^64, the first number beyond every integer we hold.
        const LIMIT: f64 = 18_446_744_073_709_551_616.0;
        let value = self.get(name)?;
        let Some(number) = value.as_f64() else {
            self.errors.wrong_type(self.at(name), value, "a number");
            return None;
        };
        if number.abs() < LIMIT {
            return Some(number);
        }
        let detail = format!("is {number:e}, too large for any number here");
        self.errors.note(FieldError { pointer: self.at(name), slug: "out_of_range", detail, status: 400 });
        None
    }

    /// A duration text inside `range`, whose breach is noted as `slug`.
    pub fn duration(&self, name: &str, range: RangeInclusive<Duration>, slug: &'static str) -> Option<Duration> {
        duration(self.get(name)?, self.at(name), &range, slug, self.errors)
    }

    /// A size text, or a whole number of bytes, inside `range`.
    pub fn size(&self, name: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let wanted = format!(
            "a size from {} to {}, such as \"64KiB\" or \"10GiB\"",
            format_size(*range.start()),
            format_size(*range.end())
        );
        let value = self.get(name)?;
        let parsed = match value {
            Value::String(text) => parse_size(text).map_err(|error| (error, quoted(text))),
            Value::Number(number) => number.as_u64().ok_or((UnitError::Malformed, number.to_string())),
            other => {
                self.errors.wrong_type(self.at(name), other, &wanted);
                return None;
            }
        };
        match parsed {
            Ok(bytes) if range.contains(&bytes) => return Some(bytes),
            Ok(bytes) => self.refuse(name, "range", format!("is {}; allowed: {wanted}", format_size(bytes))),
            Err((UnitError::NeedsUnit, given)) => {
                self.refuse(name, "size_needs_unit", format!("{given} needs a unit; allowed: {wanted}"));
            }
            Err((UnitError::Malformed, given)) => self.refuse(name, "size", format!("{given} is not a size; allowed: {wanted}")),
            Err((UnitError::TooLarge, given)) => self.refuse(name, "range", format!("{given} is too large; allowed: {wanted}")),
        }
        None
    }

    /// One of a few words; any other text is noted as `slug`.
    pub fn choice(&self, name: &str, words: &[&'static str], slug: &'static str) -> Option<&'static str> {
        let given = self.text(name)?;
        let found = words.iter().copied().find(|word| *word == given);
        if found.is_none() {
            let hint = nearest(given, words).map(|word| format!("; did you mean `{word}`?")).unwrap_or_default();
            self.refuse(name, slug, format!("{} is not known; allowed: {}{hint}", quoted(given), words.join(", ")));
        }
        found
    }
}

#[cfg(test)]
mod tests;
