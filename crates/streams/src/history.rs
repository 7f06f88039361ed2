//! Reads the log for clients whose position their ring no longer covers, through `follow` and nothing else.
//!
//! Clients that stand at the same position share one read and its encoding; what was read lives as long as a client uses
//! it. A client has no future of its own: the reading task hands the result to its place and wakes it.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use super::ring::Ring;
use super::segment::{Segment, SegmentBuilder};
use super::worker::State;
use hookcast_core::model::{Page, Seq};
use hookcast_log::follow::StorageErrorKind;
use hookcast_supervise::caught;

/// Reads of the log in a row before a client hears how far the search has come.
const READS_MAX: usize = 16;
/// Finished reads that are remembered while somebody uses them.
const RECENT_MAX: usize = 16;
/// Pause before a read that failed is repeated.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What the log has behind a position.
#[derive(Debug)]
pub(super) enum Loaded {
    /// Events, or none of interest up to `through`.
    Events {
        /// What retention took in front of them.
        gap: Option<(Seq, Seq)>,
        /// The events, encoded.
        segment: Segment,
        /// Everything up to here was looked at.
        through: Seq,
    },
    /// The log is damaged; the stream cannot go on.
    Broken,
}

/// The reads of one ring.
#[derive(Default)]
pub(super) struct Loads {
    waiting: RefCell<HashMap<Seq, Vec<(usize, u64)>>>,
    recent: RefCell<VecDeque<(Seq, Weak<Loaded>)>>,
}

/// Asks for what stands behind `after`: at once when another client just had it read, else later by waking the client.
pub(super) fn ask(worker: &Rc<State>, ring: &Rc<Ring>, place: usize, after: Seq) -> Option<Rc<Loaded>> {
    let known = ring.loads.recent.borrow().iter().find(|(at, _)| *at == after).and_then(|(_, loaded)| loaded.upgrade());
    if known.is_some() {
        return known;
    }
    begin(worker, ring, place, after);
    None
}

/// Has read what a quick reader will want next, while it takes what it has.
pub(super) fn ahead(worker: &Rc<State>, ring: &Rc<Ring>, place: usize, after: Seq) {
    let is_known = ring.loads.recent.borrow().iter().any(|(at, loaded)| *at == after && loaded.strong_count() > 0);
    if !is_known && !ring.covers(after) && after < worker.egress.follow().head() {
        begin(worker, ring, place, after);
    }
}

fn begin(worker: &Rc<State>, ring: &Rc<Ring>, place: usize, after: Seq) {
    let holder = ring.sleepers.await_load(place);
    let mut waiting = ring.loads.waiting.borrow_mut();
    let clients = waiting.entry(after).or_default();
    clients.push((place, holder));
    if clients.len() == 1 {
        worker.egress.supervisor().single("stream-history", run(Rc::clone(worker), Rc::clone(ring), after)).spawn_local();
    }
}

async fn run(worker: Rc<State>, ring: Rc<Ring>, after: Seq) {
    let loaded = {
        let _turn = worker.loads.acquire().await;
        caught(pin!(load(&worker, &ring, after))).await.unwrap_or_else(|panic| {
            panic.tell("stream-history", "the streams at this position end");
            Some(Loaded::Broken)
        })
    };
    let clients = ring.loads.waiting.borrow_mut().remove(&after).unwrap_or_default();
    let Some(loaded) = loaded.map(Rc::new) else { return };
    {
        let mut recent = ring.loads.recent.borrow_mut();
        recent.retain(|(_, known)| known.strong_count() > 0);
        recent.truncate(RECENT_MAX - 1);
        recent.push_front((after, Rc::downgrade(&loaded)));
    }
    for (place, holder) in clients {
        ring.sleepers.deliver(place, holder, after, &loaded);
    }
}

/// Reads until something matches, the head is reached or it has gone on for long; `None` when nobody waits any more.
async fn load(worker: &State, ring: &Ring, after: Seq) -> Option<Loaded> {
    let (follow, settings) = (worker.egress.follow(), worker.egress.settings());
    let mut found = Found { gap: None, events: SegmentBuilder::default(), through: after };
    for _ in 0..READS_MAX {
        let batch = match follow.read(found.through, settings.load_bytes_max).await {
            Ok(batch) => batch,
            Err(error) if error.kind == StorageErrorKind::Corrupt => {
                tracing::error!(%error, %after, "the log cannot be read; the streams at this position end");
                return Some(Loaded::Broken);
            }
            Err(error) => {
                tracing::warn!(%error, %after, "the log could not be read for streams; trying again");
                tokio::time::sleep(RETRY_PAUSE).await;
                if !ring.loads.is_awaited(ring, after) || worker.is_closing() {
                    return None;
                }
                continue;
            }
        };
        if let Some(gap) = batch.gap {
            if found.through > after {
                break;
            }
            found.gap = Some(gap);
            found.through = gap.1;
        }
        let goes_on = batch.pages.iter().all(|page| found.take(worker, ring, page));
        if batch.end().is_none() && found.through < follow.head() {
            // Committed, but whoever wrote it has not been told yet.
            tokio::time::sleep(settings.tick).await;
        }
        if batch.pages.is_empty() || !goes_on || found.gap.is_some() || !found.events.is_empty() {
            break;
        }
        // Pages that are still in memory come without waiting.
        tokio::task::yield_now().await;
    }
    Some(Loaded::Events { gap: found.gap, segment: found.events.finish(), through: found.through })
}

impl Loads {
    fn is_awaited(&self, ring: &Ring, after: Seq) -> bool {
        let waiting = self.waiting.borrow();
        waiting.get(&after).is_some_and(|clients| clients.iter().any(|(at, holder)| ring.sleepers.is_held_by(*at, *holder)))
    }
}

struct Found {
    gap: Option<(Seq, Seq)>,
    events: SegmentBuilder,
    through: Seq,
}

impl Found {
    /// Encodes what matches; `false` when the page does not follow on what came before.
    fn take(&mut self, worker: &State, ring: &Ring, page: &Arc<Page>) -> bool {
        if page.first() > self.through.next() {
            return false;
        }
        if page.topics().iter().any(|topic| ring.wants_topic(topic.as_str())) {
            for event in page.events_after(self.through) {
                let chosen = ring.wants_topic(event.topic().as_str()) && ring.wants_type(event.fields().kind);
                if chosen && worker.passes(ring, &event, &mut None) {
                    self.events.push_with(event.seq(), |out| ring.encoding.write(out, &event));
                }
            }
        }
        self.through = self.through.max(page.last());
        true
    }
}
