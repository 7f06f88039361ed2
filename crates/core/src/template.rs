//! Bodies written by subscribers, with an event filled in: templates in minijinja's language.
//!
//! [`Template`] is one of them, compiled once. Rendering does no I/O, loads nothing, and is bounded in instructions, in the
//! bytes that it makes and looks at, in time, and in its result: by an [`Allowance`] that all its parts take from. The same
//! event gives the same text every time.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use minijinja::{Environment, Error, ErrorKind, Value};

use crate::model::Event;
use crate::model::event::DataForm;
use crate::model::page::RecordFields;
use crate::panics::catch;

pub use meter::{Allowance, Stop};
pub use prepare::FILTERS_CHAINED_MAX;
use prepare::Problem;
pub use scan::{BRACKETS_NESTED_MAX, JOINS_MAX, LOOPS_NESTED_MAX, STATEMENTS_NESTED_MAX};
pub use values::OUTPUT_BYTES_MAX;

mod costs;
mod filters;
mod meter;
mod prepare;
mod scan;
mod texts;
mod values;

/// Instructions of one rendering.
pub const FUEL_MAX: u64 = 100_000;
/// Bytes that one rendering makes or looks at, all in all.
pub const WORK_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Of these, what is done at once where others wait for it: some 100 µs at most.
pub const SMALL_WORK_BYTES: u64 = 256 * 1024;
/// Longest time of one rendering, as its thread worked.
pub const TIME_MAX: Duration = Duration::from_millis(250);
/// Longest data that is filled in, in bytes.
pub const DATA_BYTES_MAX: usize = 256 * 1024;

/// What a part of a template costs each time it is done, besides what it works on.
const NODE_BYTES: u64 = 64;
/// What a byte of JSON may take as a value, and be charged for.
const DATA_FACTOR: u64 = 8;
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

/// Why an event was not filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The event and the template do not go together.
    #[error("{0}")]
    Failed(TemplateError),
    /// It would have been more work than it may be.
    #[error("makes or looks at more than {} KiB", .0 / 1024)]
    TooMuchWork(u64),
    /// It took longer than it may take.
    #[error("takes more than {} ms", .0.as_millis())]
    TooLong(Duration),
    /// Nobody waits for it any more.
    #[error("is not wanted any more")]
    Unwanted,
}

/// A compiled template.
#[derive(Debug)]
pub struct Template {
    engine: Environment<'static>,
    needs_data: bool,
    /// How much work what stands outside of loops is, in bytes.
    base_bytes: u64,
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
        let added = catch(|| {
            let metered = prepare::prepare(body)?;
            engine.add_template_owned(NAME, metered.text).map_err(Problem::Syntax)?;
            Ok((metered.nodes, metered.needs_data))
        });
        let (nodes, needs_data) = match added {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(Problem::Syntax(error))) => return Err(TemplateError(format!("is no template: {}", describe(&error)))),
            Ok(Err(Problem::Refused(problem))) => return Err(TemplateError(problem)),
            Err(_) => return Err(TemplateError("cannot be read".to_owned())),
        };
        let names = engine.get_template(NAME).map(|template| template.undeclared_variables(false)).unwrap_or_default();
        let mut unknown: Vec<&String> = names.iter().filter(|name| !VARIABLES.contains(&name.as_str())).collect();
        unknown.sort_unstable();
        if let Some(name) = unknown.first() {
            let allowed = VARIABLES.join(", ");
            return Err(TemplateError(format!("names {name:?}, which is not known; allowed: {allowed}")));
        }
        Ok(Self { engine, needs_data, base_bytes: nodes * NODE_BYTES })
    }

    /// Fills an event in.
    ///
    /// # Errors
    /// Why this event cannot be filled in.
    pub fn render(&self, event: &Event, allowance: &Allowance) -> Result<Bytes, RenderError> {
        let fields = event.fields();
        let data_bytes = if self.needs_data { fields.data.len() as u64 * DATA_FACTOR } else { 0 };
        meter::begin(allowance);
        let rendered = if meter::spend(self.base_bytes + data_bytes) {
            self.values(event, &fields).and_then(|values| render(&self.engine, values))
        } else {
            Ok(Bytes::new())
        };
        match meter::end().0 {
            Some(Stop::Bytes) => Err(RenderError::TooMuchWork(allowance.bytes)),
            Some(Stop::Time) => Err(RenderError::TooLong(allowance.time)),
            Some(Stop::Unwanted) => Err(RenderError::Unwanted),
            None => rendered.map_err(RenderError::Failed),
        }
    }

    /// Whether it reads what an event carries.
    #[must_use]
    pub fn needs_data(&self) -> bool {
        self.needs_data
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

fn render(engine: &Environment<'static>, values: Value) -> Result<Bytes, TemplateError> {
    let mut out = Output(Vec::new());
    let rendered = catch(|| {
        let template = engine.get_template(NAME)?;
        template.render_captured_to(values, &mut out).map(|_| ())
    });
    match rendered {
        Ok(Ok(())) => Ok(Bytes::from(out.0)),
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

/// Takes as much as a result may have, while the rendering may go on.
struct Output(Vec<u8>);

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if meter::is_over() || self.0.len() + bytes.len() > OUTPUT_BYTES_MAX {
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
