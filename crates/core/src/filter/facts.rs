//! What a filter may know of one event: its attributes, and its data, read when somebody asks and once for all.

use std::sync::OnceLock;

use cel::ExecutionError;
use cel::common::traits::{Comparer, Subtractor};
use cel::common::types::{CelString, CelTimestamp, Type};
use cel::common::value::{CowVal, Val};

use super::json::{Document, Map, Node};
use super::library::ENVIRONMENT;
use crate::clock::Timestamp;
use crate::model::event::DataForm;
use crate::model::page::RecordFields;
use crate::model::{Event, Seq};

/// Longest data that is looked into, in bytes; a filter fails on longer ones.
pub const DATA_BYTES_MAX: usize = 256 * 1024;

/// Variables of an expression.
pub(super) const VARIABLES: &[&str] = &["data", "extensions", "id", "source", "subject", "time", "topic", "type"];

/// One event as filters see it. Cheap until its data is asked for.
#[derive(Debug)]
pub struct Facts<'e> {
    seq: Seq,
    topic: &'e str,
    arrived_at: Timestamp,
    fields: RecordFields<'e>,
    data: OnceLock<Result<Document<'e>, String>>,
}

impl<'e> Facts<'e> {
    /// The facts of an event.
    #[must_use]
    pub fn of(event: &'e Event) -> Self {
        Self {
            seq: event.seq(),
            topic: event.topic().as_str(),
            arrived_at: event.arrived_at(),
            fields: event.fields(),
            data: OnceLock::new(),
        }
    }

    /// Its position.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Whether its data was read.
    #[must_use]
    pub fn has_read_data(&self) -> bool {
        self.data.get().is_some()
    }

    /// The data: JSON as its values, text as a string, anything else as bytes are not looked into.
    pub(super) fn data(&self) -> Result<&Document<'e>, &str> {
        self.data.get_or_init(|| self.read()).as_ref().map_err(String::as_str)
    }

    /// Why the data could not be read, when somebody tried.
    pub(super) fn data_problem(&self) -> Option<&str> {
        self.data.get().and_then(|read| read.as_ref().err()).map(String::as_str)
    }

    fn read(&self) -> Result<Document<'e>, String> {
        let data = self.fields.data;
        if data.len() > DATA_BYTES_MAX {
            return Err(format!("the data has {} bytes; a filter looks into at most {DATA_BYTES_MAX}", data.len()));
        }
        match self.fields.form {
            DataForm::Json => Document::read(data),
            DataForm::Text => {
                let text = std::str::from_utf8(data).map_err(|_| "the data is no text".to_owned())?;
                Ok(Document { root: Node::text(text), longest_bytes: text.len() })
            }
            DataForm::Binary => Err("the data is neither JSON nor text".to_owned()),
        }
    }

    /// An attribute by the name that expressions use.
    pub(super) fn attribute<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let text = match name {
            "id" => self.fields.id,
            "type" => self.fields.kind,
            "topic" => self.topic,
            "source" => self.fields.source,
            // An attribute that is there is never empty.
            "subject" => self.fields.subject.unwrap_or_default(),
            "time" => return Some(self.time()),
            "extensions" => return Some(self.extensions()),
            _ => return None,
        };
        Some(CowVal::owned(CelString::from(text)))
    }

    fn time(&self) -> CowVal<'_, '_> {
        let text = self.fields.time.map_or_else(|| self.arrived_at.to_string(), str::to_owned);
        match stamp(&text) {
            Some(stamp) => CowVal::owned(Moment(stamp)),
            None => CowVal::owned(CelString::from(text)),
        }
    }

    fn extensions(&self) -> CowVal<'_, '_> {
        let entries = self.fields.extensions().map(|(name, value)| (CelString::from(name), Node::text(value)));
        CowVal::owned(Map::new(entries.collect()))
    }
}

/// A time by the library's own reading of RFC 3339.
fn stamp(text: &str) -> Option<CelTimestamp> {
    let args = vec![CowVal::owned(CelString::from(text.to_owned()))];
    let read = ENVIRONMENT.find_overload("timestamp", &args)?;
    read(args).ok()?.downcast_ref::<CelTimestamp>().cloned()
}

/// The event's time: a timestamp that may be compared with a text in RFC 3339 as well.
#[derive(Clone, Debug)]
struct Moment(CelTimestamp);

/// Judges a text by the time that it tells, anything else as it is.
fn with_stamp<T>(other: &dyn Val, judge: impl FnOnce(&dyn Val) -> T) -> T {
    match other.downcast_ref::<CelString<'_>>().and_then(|text| stamp(text.inner())) {
        Some(stamp) => judge(&stamp),
        None => judge(other),
    }
}

impl Val for Moment {
    fn get_type(&self) -> &Type {
        self.0.get_type()
    }

    fn cel_type() -> &'static Type {
        CelTimestamp::cel_type()
    }

    fn as_comparer(&self) -> Option<&dyn Comparer> {
        Some(self)
    }

    fn as_subtractor<'b, 'v>(&'b self) -> Option<&'b (dyn Subtractor + 'v)>
    where
        Self: 'v,
    {
        self.0.as_subtractor()
    }

    fn as_adder<'b, 'v>(&'b self) -> Option<&'b (dyn cel::common::traits::Adder + 'v)>
    where
        Self: 'v,
    {
        self.0.as_adder()
    }

    fn equals(&self, other: &dyn Val) -> bool {
        with_stamp(other, |other| self.0.equals(other))
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        self.0.as_any()
    }
}

impl Comparer for Moment {
    fn compare(&self, other: &dyn Val) -> Result<std::cmp::Ordering, ExecutionError> {
        with_stamp(other, |other| match self.0.as_comparer() {
            Some(comparer) => comparer.compare(other),
            None => Err(ExecutionError::missing_argument_or_target()),
        })
    }
}
