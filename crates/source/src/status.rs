//! What operators see of a source: written by its task, read by anybody at any time, never waited for.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::Taken;
use super::reconnect::{Ending, EndingClass, SourceState};
use super::watch::{Turn, Watch};
use hookcast_core::clock::Timestamp;
use hookcast_core::codec::SkipReason;
use hookcast_core::model::ResumeToken;

/// Skipped records that are kept for a look.
const SKIPPED_SAMPLES_MAX: usize = 16;
/// Kept of each of them, in bytes.
const SKIPPED_SAMPLE_BYTES_MAX: usize = 256;

/// One source at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceStatus {
    /// What it is doing.
    pub state: SourceState,
    /// A person should look: credentials, redirect, forbidden target, or told to stop.
    pub needs_attention: bool,
    /// When the next connection is tried, while in backoff.
    pub next_attempt_at: Option<Timestamp>,
    /// When the last event was handed on.
    pub last_event_at: Option<Timestamp>,
    /// The upstream's position as last handed on.
    pub resume_token: Option<ResumeToken>,
    /// Events stored.
    pub events: u64,
    /// Repeats of events, not stored again.
    pub repeats: u64,
    /// Other events under the id of one that was there.
    pub reused_ids: u64,
    /// Body bytes read, as they came over the wire.
    pub bytes: u64,
    /// Records left out, in the order of [`SkipReason::ALL`]; see [`SourceStatus::skipped`].
    pub skipped: [u64; SkipReason::ALL.len()],
    /// Attributes that no event may have and that were left out of one.
    pub attributes_dropped: u64,
    /// Attempts to connect after the first, successful or not.
    pub reconnects: u64,
    /// Stretches missed for good.
    pub gaps: u64,
    /// Why the last connection ended, unless we ended it.
    pub last_error: Option<LastError>,
    /// The last records left out, oldest first.
    pub skipped_samples: Vec<SkippedSample>,
}

impl SourceStatus {
    /// Counts of records left out, by reason.
    pub fn skipped(&self) -> impl Iterator<Item = (SkipReason, u64)> + '_ {
        SkipReason::ALL.into_iter().map(|reason| (reason, self.skipped[reason.index()]))
    }
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// When.
    pub at: Timestamp,
    /// The word for it.
    pub slug: &'static str,
    /// A sentence for a person.
    pub detail: String,
}

/// A record that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedSample {
    /// Why.
    pub reason: SkipReason,
    /// When.
    pub at: Timestamp,
    /// Which record of its connection it was, from 1, skipped ones counted.
    pub record: u64,
    /// How it begins.
    pub head: Bytes,
}

/// The shared cell behind a [`SourceStatus`].
#[derive(Debug, Default)]
pub(super) struct StatusCell {
    events: AtomicU64,
    repeats: AtomicU64,
    reused_ids: AtomicU64,
    bytes: AtomicU64,
    skipped: [AtomicU64; SkipReason::ALL.len()],
    attributes_dropped: AtomicU64,
    connections: AtomicU64,
    gaps: AtomicU64,
    rare: Mutex<Rare>,
}

#[derive(Debug, Default)]
struct Rare {
    state: SourceState,
    needs_attention: bool,
    next_attempt_at: Option<Timestamp>,
    last_event_at: Option<Timestamp>,
    resume_token: Option<ResumeToken>,
    disconnected_at: Option<Timestamp>,
    last_error: Option<LastError>,
    samples: VecDeque<SkippedSample>,
    watch: Watch,
}

impl StatusCell {
    /// A source that goes on at `resume` and was last read at `disconnected_at`.
    pub(super) fn new(resume: Option<ResumeToken>, disconnected_at: Option<Timestamp>) -> Self {
        let rare = Rare { resume_token: resume, disconnected_at, state: SourceState::Stopped, ..Rare::default() };
        Self { rare: Mutex::new(rare), ..Self::default() }
    }

    pub(super) fn snapshot(&self) -> SourceStatus {
        let rare = self.rare();
        SourceStatus {
            state: rare.state,
            needs_attention: rare.needs_attention,
            next_attempt_at: rare.next_attempt_at,
            last_event_at: rare.last_event_at,
            resume_token: rare.resume_token.clone(),
            events: read(&self.events),
            repeats: read(&self.repeats),
            reused_ids: read(&self.reused_ids),
            bytes: read(&self.bytes),
            skipped: std::array::from_fn(|index| read(&self.skipped[index])),
            attributes_dropped: read(&self.attributes_dropped),
            reconnects: read(&self.connections).saturating_sub(1),
            gaps: read(&self.gaps),
            last_error: rare.last_error.clone(),
            skipped_samples: rare.samples.iter().cloned().collect(),
        }
    }

    pub(super) fn resume_token(&self) -> Option<ResumeToken> {
        self.rare().resume_token.clone()
    }

    pub(super) fn set_resume_token(&self, token: Option<ResumeToken>) {
        self.rare().resume_token = token;
    }

    /// It is another upstream from now on, read from `token`; nothing of it was missed yet.
    pub(super) fn begin_anew(&self, token: Option<ResumeToken>) {
        let mut rare = self.rare();
        rare.resume_token = token;
        rare.disconnected_at = None;
    }

    /// A task is about to read it.
    pub(super) fn starting(&self) {
        self.rare().state = SourceState::Connecting;
    }

    pub(super) fn connecting(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        let mut rare = self.rare();
        rare.state = SourceState::Connecting;
        rare.next_attempt_at = None;
    }

    /// The upstream is being read; gives when it last was, and forgets it.
    /// Gives also that it is up again, if it was told to be down.
    pub(super) fn connected(&self) -> (Option<Timestamp>, Option<Turn>) {
        let mut rare = self.rare();
        rare.state = SourceState::Connected;
        rare.needs_attention = false;
        (rare.disconnected_at.take(), rare.watch.connected())
    }

    /// A connection that was being read is gone.
    pub(super) fn disconnected(&self, at: Timestamp) {
        self.rare().disconnected_at = Some(at);
    }

    /// A connection ended or did not come about; `next` is the time of the next one, `None` for none.
    pub(super) fn ended(&self, ending: &Ending, at: Timestamp, next: Option<Timestamp>) {
        let mut rare = self.rare();
        rare.state = if next.is_some() { SourceState::Backoff } else { SourceState::Stopped };
        rare.next_attempt_at = next;
        if ending.class != EndingClass::Cancelled {
            rare.needs_attention = matches!(ending.class, EndingClass::Denied | EndingClass::Stop);
            rare.last_error = Some(LastError { at, slug: ending.slug, detail: ending.detail.clone() });
        }
    }

    /// Something of the upstream is wrong although it is being read.
    pub(super) fn alarm(&self, slug: &'static str, detail: String, at: Timestamp) {
        let mut rare = self.rare();
        rare.needs_attention = true;
        rare.last_error = Some(LastError { at, slug, detail });
    }

    /// Something went wrong that ends nothing.
    pub(super) fn complained(&self, about: &Ending, at: Timestamp) {
        self.rare().last_error = Some(LastError { at, slug: about.slug, detail: about.detail.clone() });
    }

    /// Whether an ending makes the source one that is down.
    pub(super) fn watch(&self, ending: &Ending, goes_on: bool, now: Timestamp) -> Option<Turn> {
        self.rare().watch.ended(ending, goes_on, now)
    }

    pub(super) fn handed_on(&self, taken: Taken, at: Timestamp) {
        let add = |counter: &AtomicU64, count: usize| counter.fetch_add(count as u64, Ordering::Relaxed);
        add(&self.events, taken.events);
        add(&self.repeats, taken.repeats);
        add(&self.reused_ids, taken.reused_ids);
        self.rare().last_event_at = Some(at);
    }

    pub(super) fn read(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn skipped(&self, mut sample: SkippedSample) {
        self.skipped[sample.reason.index()].fetch_add(1, Ordering::Relaxed);
        // A copy, so that a sample does not keep a whole chunk.
        sample.head = Bytes::copy_from_slice(&sample.head[..sample.head.len().min(SKIPPED_SAMPLE_BYTES_MAX)]);
        let mut rare = self.rare();
        if rare.samples.len() == SKIPPED_SAMPLES_MAX {
            rare.samples.pop_front();
        }
        rare.samples.push_back(sample);
    }

    pub(super) fn attributes_dropped(&self, count: u64) {
        self.attributes_dropped.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn gap(&self) {
        self.gaps.fetch_add(1, Ordering::Relaxed);
    }

    fn rare(&self) -> MutexGuard<'_, Rare> {
        // Every change is whole when it is made, so a panic elsewhere leaves nothing half done.
        self.rare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
