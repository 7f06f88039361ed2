//! Bodies written by subscribers, with an event filled in: templates in minijinja's language.
//!
//! [`Template`] is one of them, compiled once. Rendering does no I/O, loads nothing, and is bounded in instructions, in what
//! a text can grow to, and in its result. The same event gives the same text every time.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use minijinja::{Environment, Error, ErrorKind, Value};

use crate::model::Event;
use crate::model::event::DataForm;
use crate::model::page::RecordFields;

pub use filters::OUTPUT_BYTES_MAX;
pub use scan::{JOINS_MAX, LOOPS_NESTED_MAX};

mod filters;
mod scan;

/// Instructions of one rendering.
pub const FUEL_MAX: u64 = 50_000;
/// The least that an event with much data leaves of them.
const FUEL_MIN: u64 = 5_000;
/// Bytes that all instructions of a rendering may look at together, at one look at the whole data each.
const BYTES_LOOKED_AT_MAX: u64 = 64 * 1024 * 1024;
/// Longest data that is filled in, in bytes.
pub const DATA_BYTES_MAX: usize = 256 * 1024;
/// Data from which on a rendering is better done where nobody waits for it.
pub const HEAVY_BYTES: usize = 4096;

/// Characters of a reason that are kept.
const REASON_CHARS_MAX: usize = 200;
/// The name that the engine knows the text by.
const NAME: &str = "template";
/// Variables of a template.
const VARIABLES: &[&str] = &[
    "data",
    "data_base64",
    "datacontenttype",
    "dataschema",
    "extensions",
    "id",
    "range",
    "seq",
    "source",
    "subject",
    "time",
    "topic",
    "type",
];

/// Why a text is no template, or why it could not be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(String);

/// A compiled template.
#[derive(Debug)]
pub struct Template {
    engine: Environment<'static>,
    needs_data: bool,
}

impl Template {
    /// Compiles a text.
    ///
    /// # Errors
    /// What is wrong with it, in words that somebody who wrote it can act on.
    pub fn compile(body: &str) -> Result<Self, TemplateError> {
        scan::check(body).map_err(TemplateError)?;
        let mut engine = filters::ENGINE.clone();
        engine.set_fuel(Some(FUEL_MAX));
        let added = catch_unwind(AssertUnwindSafe(|| engine.add_template_owned(NAME, body.to_owned())));
        match added {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(TemplateError(format!("is no template: {}", describe(&error)))),
            Err(_) => return Err(TemplateError("cannot be read".to_owned())),
        }
        let names = engine.get_template(NAME).map(|template| template.undeclared_variables(false)).unwrap_or_default();
        let mut unknown: Vec<&String> = names.iter().filter(|name| !VARIABLES.contains(&name.as_str())).collect();
        unknown.sort_unstable();
        if let Some(name) = unknown.first() {
            let allowed = VARIABLES.join(", ");
            return Err(TemplateError(format!("names {name:?}, which is not known; allowed: {allowed}")));
        }
        let needs_data = names.contains("data") || names.contains("data_base64");
        Ok(Self { engine, needs_data })
    }

    /// Fills an event in.
    ///
    /// # Errors
    /// Why this event cannot be filled in.
    pub fn render(&self, event: &Event) -> Result<Bytes, TemplateError> {
        let fields = event.fields();
        let values = self.values(event, &fields)?;
        let fuel = (BYTES_LOOKED_AT_MAX / (fields.data.len() as u64).max(1)).clamp(FUEL_MIN, FUEL_MAX);
        let mut out = Capped(Vec::new());
        let rendered = if fuel == FUEL_MAX || !self.needs_data {
            render(&self.engine, values, &mut out)
        } else {
            let mut engine = self.engine.clone();
            engine.set_fuel(Some(fuel));
            render(&engine, values, &mut out)
        };
        rendered.map(|()| Bytes::from(out.0))
    }

    /// Whether rendering this event may take long.
    #[must_use]
    pub fn is_heavy(&self, event: &Event) -> bool {
        self.needs_data && event.fields().data.len() > HEAVY_BYTES
    }

    fn values(&self, event: &Event, fields: &RecordFields<'_>) -> Result<Value, TemplateError> {
        let mut values: BTreeMap<&'static str, Value> = BTreeMap::new();
        values.insert("id", Value::from(fields.id));
        values.insert("type", Value::from(fields.kind));
        values.insert("source", Value::from(fields.source));
        values.insert("topic", Value::from(event.topic().as_str()));
        values.insert("seq", Value::from(event.seq().0));
        values.insert("datacontenttype", Value::from(fields.content_type));
        let time = fields.time.map_or_else(|| event.arrived_at().to_string(), str::to_owned);
        values.insert("time", Value::from(time));
        for (name, text) in [("subject", fields.subject), ("dataschema", fields.data_schema)] {
            // What is not there is undefined, and prints as nothing.
            if let Some(text) = text {
                values.insert(name, Value::from(text));
            }
        }
        values.insert("extensions", Value::from_pairs(fields.extensions()));
        if self.needs_data {
            let (name, data) = data(fields)?;
            values.insert(name, data);
        }
        Ok(Value::from(values))
    }
}

/// JSON as its values, text as a text, anything else in base64 under another name.
fn data(fields: &RecordFields<'_>) -> Result<(&'static str, Value), TemplateError> {
    let data = fields.data;
    if data.len() > DATA_BYTES_MAX {
        let bytes = data.len();
        return Err(TemplateError(format!("the data has {bytes} bytes; a template takes at most {DATA_BYTES_MAX}")));
    }
    match (fields.form, std::str::from_utf8(data)) {
        (DataForm::Json, _) => {
            let read = serde_json::from_slice::<Value>(data);
            Ok(("data", read.map_err(|error| TemplateError(cut(&format!("the data cannot be read: {error}"))))?))
        }
        (DataForm::Text, Ok(text)) => Ok(("data", Value::from(text))),
        _ => Ok(("data_base64", Value::from(BASE64.encode(data)))),
    }
}

fn render(engine: &Environment<'static>, values: Value, out: &mut Capped) -> Result<(), TemplateError> {
    let rendered = catch_unwind(AssertUnwindSafe(|| {
        let template = engine.get_template(NAME)?;
        template.render_captured_to(values, &mut *out).map(|_| ())
    }));
    match rendered {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(TemplateError(describe(&error))),
        Err(_) => Err(TemplateError("cannot be filled in with this event".to_owned())),
    }
}

fn describe(error: &Error) -> String {
    let what = match error.kind() {
        ErrorKind::OutOfFuel => "takes too many steps".to_owned(),
        ErrorKind::WriteFailure => format!("the result has more than {OUTPUT_BYTES_MAX} bytes"),
        kind => error.detail().map_or_else(|| kind.to_string(), |detail| format!("{kind}: {detail}")),
    };
    cut(&error.line().map_or_else(|| what.clone(), |line| format!("{what} (line {line})")))
}

fn cut(reason: &str) -> String {
    reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_CHARS_MAX).collect()
}

/// Takes as much as a result may have.
struct Capped(Vec<u8>);

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(io::Error::other("too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
