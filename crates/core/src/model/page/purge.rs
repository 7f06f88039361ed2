//! Erasure: a page whose events all stay where they are, but for the data of one of them.

use std::sync::Arc;

use bytes::Bytes;

use super::{Page, PageBuilder, Record};
use crate::model::event::{DataForm, Event, NewEvent, Seq};

/// Name of the extension of an event whose data is gone.
pub const PURGED_EXTENSION: &str = "purged";

impl Page {
    /// The same page without the data of the event at `seq`, which becomes `null` where it was JSON and empty elsewhere;
    /// `None` when the page does not hold it or its data is gone already.
    #[must_use]
    pub fn purged(self: &Arc<Self>, seq: Seq) -> Option<Arc<Self>> {
        let event = self.get(seq).filter(|event| !is_purged(event))?;
        let mut builder = PageBuilder::starting_at(self.first);
        for other in self.events_after(self.first.prev()) {
            if other.seq() == seq {
                builder.push(&without_data(&event));
                continue;
            }
            let index = usize::try_from(other.seq().0 - self.first.0).unwrap_or(usize::MAX);
            let start = self.offsets[index] as usize;
            let end = self.offsets.get(index + 1).map_or(self.bytes.len(), |end| *end as usize);
            builder.push_record(Record { bytes: &self.bytes[start..end], topic: other.topic() });
        }
        Some(builder.finish())
    }
}

fn is_purged(event: &Event) -> bool {
    event.fields().extensions().any(|(name, _)| name == PURGED_EXTENSION)
}

fn without_data(event: &Event) -> NewEvent {
    let mut rest = event.to_new_event();
    rest.data = if rest.form == DataForm::Json { Bytes::from_static(b"null") } else { Bytes::new() };
    rest.extensions.push((PURGED_EXTENSION.to_owned(), "true".to_owned()));
    rest
}
