//! The words of the product as types: pure data, no I/O, no clock, nothing asynchronous.

pub mod administration;
pub mod delivery;
pub mod event;
pub mod fields;
#[doc(hidden)]
pub mod fixture;
pub mod headers;
pub mod history;
pub mod job;
pub mod jump;
pub mod outcome;
pub mod page;
pub mod source;
pub mod subscription;
pub mod topic;
pub mod varint;

pub use delivery::{Attempt, ErrorKind, Exception, ExceptionState};
pub use event::{Event, EventError, NewEvent, Seq};
pub use history::{HistoryPage, Success};
pub use job::{JobId, RecoveryJob};
pub use jump::Jumps;
pub use outcome::Outcome;
pub use page::{Page, PageBuilder, PageError, Record, Records};
pub use source::{ResumeToken, SourceSpec};
pub use subscription::{SubscriptionId, SubscriptionSpec};
pub use topic::{PatternList, Topic, TopicPattern};
