//! One tree of values out of the TOML file and the environment, which remembers where each value came from.
//!
//! The values are those of JSON, so that a `[[subscriptions]]` table is judged exactly like a REST body.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin};
use hookcast_core::model::fields::{FieldError, child, quoted};

/// Beginning of the environment variables that override keys.
const VARIABLE_PREFIX: &str = "HOOKCAST__";

/// The tree and the origin of its parts.
#[derive(Debug)]
pub(super) struct Document {
    /// Always an object.
    pub(super) value: Value,
    name: String,
    /// JSON pointer to line.
    lines: BTreeMap<String, usize>,
    /// JSON pointer to environment variable.
    variables: BTreeMap<String, String>,
}

impl Document {
    /// Parses `text` and lays the environment over it.
    pub(super) fn parse(text: &str, name: &str, env: &[(String, String)]) -> Result<Self, Vec<ConfigError>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let newlines: Vec<usize> = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
        let mut walk = Walk { newlines, lines: BTreeMap::new(), errors: Vec::new() };
        if !errors.is_empty() {
            let located = errors.iter().map(|error| {
                let line = walk.line(error.span().map_or(0, |span| span.start));
                let slug = if error.message().contains("duplicate key") { "duplicate_key" } else { "invalid_toml" };
                let detail = error.message().lines().collect::<Vec<_>>().join(", ");
                ConfigError { origin: Origin::Line(name.to_owned(), line), key: String::new(), slug, detail }
            });
            return Err(located.collect());
        }
        let value = walk.table(table.get_ref(), "");
        let mut document = Self { value, name: name.to_owned(), lines: walk.lines, variables: BTreeMap::new() };
        let mut errors: Vec<ConfigError> = walk.errors.into_iter().map(|error| document.locate(error)).collect();
        for (variable, text) in env.iter().filter(|(variable, _)| variable.starts_with(VARIABLE_PREFIX)) {
            if let Err(error) = document.lay_over(variable, text) {
                errors.push(error);
            }
        }
        if errors.is_empty() { Ok(document) } else { Err(errors) }
    }

    /// Puts a mistake where the value at its pointer, or the nearest enclosing one, was written.
    pub(super) fn locate(&self, error: FieldError) -> ConfigError {
        let FieldError { pointer, slug, detail, .. } = error;
        let mut at = pointer.as_str();
        let origin = loop {
            if let Some(variable) = self.variables.get(at) {
                break Origin::Variable(variable.clone());
            }
            if let Some(line) = self.lines.get(at) {
                break Origin::Line(self.name.clone(), *line);
            }
            match at.rfind('/') {
                Some(end) => at = &at[..end],
                None => break Origin::File(self.name.clone()),
            }
        };
        let slug = if slug == "unknown_field" { "unknown_key" } else { slug };
        ConfigError { origin, key: dotted(&pointer), slug, detail: detail.replace("is not a known field", "is not a known key") }
    }

    fn lay_over(&mut self, variable: &str, text: &str) -> Result<(), ConfigError> {
        let fail = |slug, detail: &str| {
            Err(ConfigError {
                origin: Origin::Variable(variable.to_owned()),
                key: String::new(),
                slug,
                detail: detail.to_owned(),
            })
        };
        let path = variable.strip_prefix(VARIABLE_PREFIX).unwrap_or_default().to_ascii_lowercase();
        let Some((section, key)) = path.split_once("__").filter(|(section, key)| !section.is_empty() && !key.is_empty()) else {
            return fail("unknown_key", "names no key; allowed: HOOKCAST__SECTION__KEY");
        };
        let Some(sections) = self.value.as_object_mut() else { return Ok(()) };
        let Some(members) = sections.entry(section).or_insert_with(|| Value::Object(Map::new())).as_object_mut() else {
            return fail("unknown_key", "names a key inside something that is no section");
        };
        let section_pointer = child("", section);
        let pointer = child(&section_pointer, key);
        // Of two keys one would be taken silently, and what the other had sealed could not be read.
        if pointer == "/secrets/key" && members.get(key).and_then(Value::as_str).is_some_and(|given| !given.is_empty()) {
            return fail("conflict", "is set, and `secrets.key` stands in the file too; allowed: one of them");
        }
        if !self.lines.contains_key(&section_pointer) {
            self.variables.insert(section_pointer, variable.to_owned());
        }
        // A text that is no TOML value, such as `127.0.0.1:0` or `7d`, is meant as it stands.
        let value = match DeValue::parse(text) {
            Ok(parsed) => {
                let mut walk = Walk { newlines: Vec::new(), lines: BTreeMap::new(), errors: Vec::new() };
                let value = walk.value(&parsed, &pointer);
                if let Some(error) = walk.errors.first() {
                    return fail(error.slug, &error.detail);
                }
                value
            }
            Err(_) => Value::String(text.to_owned()),
        };
        members.insert(key.to_owned(), value);
        self.lines.retain(|at, _| at != &pointer && !at.starts_with(&format!("{pointer}/")));
        self.variables.insert(pointer, variable.to_owned());
        Ok(())
    }
}

/// Turns TOML values into JSON values and notes their lines.
struct Walk {
    /// Offsets of line ends, rising.
    newlines: Vec<usize>,
    lines: BTreeMap<String, usize>,
    errors: Vec<FieldError>,
}

impl Walk {
    fn line(&self, offset: usize) -> usize {
        self.newlines.partition_point(|newline| *newline < offset) + 1
    }

    fn table(&mut self, table: &DeTable<'_>, pointer: &str) -> Value {
        let mut members = Map::new();
        for (key, value) in table {
            let at = child(pointer, key.get_ref());
            self.lines.insert(at.clone(), self.line(key.span().start));
            let value = self.value(value, &at);
            members.insert(key.get_ref().to_string(), value);
        }
        Value::Object(members)
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, pointer: &str) -> Value {
        match value.get_ref() {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Datetime(time) => Value::String(time.to_string()),
            DeValue::Table(table) => self.table(table, pointer),
            DeValue::Array(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    let at = child(pointer, &index.to_string());
                    self.lines.insert(at.clone(), self.line(item.span().start));
                    list.push(self.value(item, &at));
                }
                Value::Array(list)
            }
            DeValue::Integer(number) => {
                let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok().map(Value::from);
                parsed.unwrap_or_else(|| self.refuse(pointer, number.as_str()))
            }
            DeValue::Float(number) => {
                let parsed = number.as_str().parse::<f64>().ok().and_then(Number::from_f64);
                parsed.map_or_else(|| self.refuse(pointer, number.as_str()), Value::Number)
            }
        }
    }

    fn refuse(&mut self, pointer: &str, number: &str) -> Value {
        let detail = format!("{} is not a finite number of 64 bits", quoted(number));
        self.errors.push(FieldError { pointer: pointer.to_owned(), slug: "range", detail, status: 422 });
        Value::Null
    }
}

/// `/sources/0/url` as `sources[0].url`.
fn dotted(pointer: &str) -> String {
    let mut key = String::new();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
            key.extend(["[", part.as_str(), "]"]);
        } else {
            if !key.is_empty() {
                key.push('.');
            }
            key.push_str(&part);
        }
    }
    key
}
