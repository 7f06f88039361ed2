//! What makes the key of an event.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;

use super::Line;
use hookcast_core::codec::pointer::Pointer;
use hookcast_core::model::Event;
use hookcast_core::model::subscription::{OrderKey, Ordering};

/// The only line of a subscription in strict order.
pub(super) const THE_LINE: Line = 0;

/// What makes the key of an event.
#[derive(Debug)]
pub(super) enum Rule {
    /// No order any more; what still stands aside goes first.
    Free,
    /// All are of one line.
    Strict,
    /// A value of the data.
    Pointer(Pointer),
    /// An attribute of the event.
    Attribute(String),
}

impl Rule {
    /// The rule of a definition; `None` when it asks for no order.
    pub(super) fn of(ordering: &Ordering) -> Option<Self> {
        match ordering {
            Ordering::None => None,
            Ordering::Strict => Some(Self::Strict),
            Ordering::Key(OrderKey::Attribute(name)) => Some(Self::Attribute(name.clone())),
            // A pointer that does not read cannot be stored; were it, nothing would have a key.
            Ordering::Key(OrderKey::Pointer(text)) => Some(Pointer::parse(text).map_or(Self::Free, Self::Pointer)),
        }
    }

    /// The line of an event; `None` when it has no key.
    pub(super) fn line_of(&self, event: &Event, hasher: &RandomState) -> Option<Line> {
        let hash = |text: &str| hasher.hash_one(text);
        let fields = event.fields();
        match self {
            Self::Free => None,
            Self::Strict => Some(THE_LINE),
            Self::Pointer(pointer) => pointer.text(std::str::from_utf8(fields.data).ok()?).map(|key| hash(&key)),
            Self::Attribute(name) => match name.as_str() {
                "id" => Some(hash(fields.id)),
                "source" => Some(hash(fields.source)),
                "type" => Some(hash(fields.kind)),
                "topic" => Some(hash(event.topic().as_str())),
                "time" => Some(fields.time.map_or_else(|| hash(&event.arrived_at().to_string()), hash)),
                "subject" => fields.subject.map(hash),
                "dataschema" => fields.data_schema.map(hash),
                other => fields.extensions().find(|(name, _)| *name == other).map(|(_, value)| hash(value)),
            },
        }
    }
}
