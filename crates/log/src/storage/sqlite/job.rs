//! What the writer is asked to do and what it answers. Data only.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::administration;
use crate::storage::{Append, Bounds, LateAppend, Lease, LedgerChange, LedgerTrim, LedgerTrimmed, Result};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::source::SourceRecord;
use hookcast_core::model::subscription::{Ordinal, SubscriptionRecord};
use hookcast_core::model::{Page, Seq, SubscriptionId};

/// Something to be committed soon, together with whatever else waits.
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) reply: oneshot::Sender<Result<Answer>>,
}

/// What a job is about.
pub(super) enum Work {
    Append(Append),
    /// Turned into an append when its group is put together.
    Late(LateAppend),
    /// Put a page in the place of the one that begins where it does: in the log, or among what is kept aside.
    Rewrite {
        page: Arc<Page>,
        is_aside: bool,
    },
    DropFingerprints(Seq),
    Lease(u16),
    Commit(Vec<LedgerChange>),
    PutSubscription(Box<SubscriptionRecord>, u64),
    DeleteSubscription(SubscriptionId),
    PutSource(Box<SourceRecord>, u64),
    DeleteSource(String),
    Administer(administration::Change),
    /// Write something of no meaning if the last write failed.
    Probe,
    /// Finish what waits and close.
    Close,
}

/// A bounded piece of slow work, done when no job waits.
pub(super) struct SliceJob {
    pub(super) slice: Slice,
    pub(super) reply: oneshot::Sender<Result<Answer>>,
}

/// What a slice is about.
#[derive(Clone, Copy)]
pub(super) enum Slice {
    /// Drop old pages.
    Log { older_than: Timestamp, bytes_max: u64, pages_max: u32 },
    /// Drop old dead letters and attempts.
    Ledger(LedgerTrim),
    /// Drop what a subscription left.
    Forget(Ordinal),
}

/// What came of it.
pub(super) enum Answer {
    Done,
    /// All but the changes of this partition were made.
    Fenced(u16),
    Lease(Lease),
    Subscription(Box<SubscriptionRecord>),
    Source(Box<SourceRecord>),
    Removed(bool),
    /// Pages dropped, and whether more could be.
    Trimmed {
        bounds: Bounds,
        pages: u32,
        more: bool,
    },
    /// Dead letters dropped.
    Forgotten(LedgerTrimmed),
    /// Whether there is more of it.
    More(bool),
}
