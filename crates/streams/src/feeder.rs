//! Follows the log for all streams of a worker: encodes each event once a format and wakes those it is for.
//!
//! It reads memory only. When it cannot keep up with that, the rings begin anew at the head and their clients read the log
//! until they are there.

use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;

use super::chunk::Chunk;
use super::ring::{Encoding, Ring};
use super::socket::SHARED_BYTES;
use super::worker::State;
use hookcast_core::model::{Event, Page, Seq};
use hookcast_log::follow::TailRead;

/// Bytes of pages encoded before clients run.
const FEED_BYTES_MAX: usize = 128 * 1024;

/// Feeds the rings until no client is left or the relay closes.
pub(super) async fn run(worker: &State) {
    let mut head = worker.egress.follow().watch();
    let closing = worker.egress.closing().clone();
    let mut closed = pin!(closing.cancelled());
    let mut encoder = Encoder { purges: worker.egress.follow().purges(), ..Encoder::default() };
    while worker.has_clients() {
        // Register first, then look, then wait: whatever is committed in between wakes the wait.
        head.borrow_and_update();
        if feed(worker, &mut encoder).await {
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            biased;
            () = &mut closed => return close(worker).await,
            changed = head.changed() => if changed.is_err() { return close(worker).await },
        }
    }
    worker.feeder_stopped();
}

/// Leaves behind what was half fed when it panicked: every ring begins at the head, and its clients read the log up to there.
pub(super) async fn begin_anew(worker: &State) {
    worker.set_scanned(worker.egress.follow().head());
    let mut touched = Touched::default();
    for ring in worker.all_rings() {
        ring.touched.set(false);
    }
    touched.restart(worker, worker.scanned());
    tell(worker, touched).await;
}

/// Ends the streams with the relay, also when the feeder was not started again before that.
pub(super) async fn end(worker: &State) {
    if worker.has_clients() && !worker.is_closing() {
        worker.egress.closing().cancelled().await;
        close(worker).await;
    }
}

/// Lets every body see that it is over; no stream begins any more.
async fn close(worker: &State) {
    worker.close();
    for ring in worker.all_rings() {
        ring.sleepers.wake_all().await;
    }
}

/// Takes what memory has; `false` at the head.
async fn feed(worker: &State, encoder: &mut Encoder) -> bool {
    let follow = worker.egress.follow();
    let mut touched = Touched::default();
    let purges = follow.purges();
    if std::mem::replace(&mut encoder.purges, purges) != purges {
        // What was encoded may hold what is gone.
        touched.restart(worker, worker.scanned());
    }
    match follow.read_tail(worker.scanned(), FEED_BYTES_MAX) {
        TailRead::AtHead if touched.0.is_empty() => return false,
        TailRead::AtHead => {}
        TailRead::Behind => {
            worker.set_scanned(follow.head());
            touched.restart(worker, worker.scanned());
        }
        TailRead::Pages(pages) => {
            for page in &pages {
                if page.first() > worker.scanned().next() {
                    // The log jumped: what is missing is announced by whoever reads across it.
                    touched.restart(worker, page.first().prev());
                }
                encode(worker, encoder, page, &mut touched);
                worker.set_scanned(worker.scanned().max(page.last()));
            }
        }
    }
    tell(worker, touched).await;
    true
}

/// Has those who wait at these rings look.
async fn tell(worker: &State, touched: Touched) {
    for ring in &touched.0 {
        ring.touched.set(false);
        ring.seal();
        worker.settle(ring);
    }
    for ring in touched.0 {
        ring.sleepers.wake_all().await;
    }
}

/// The rings that got something, each once.
#[derive(Default)]
struct Touched(Vec<Rc<Ring>>);

impl Touched {
    fn add(&mut self, ring: &Rc<Ring>) {
        if !ring.touched.replace(true) {
            self.0.push(Rc::clone(ring));
        }
    }

    /// Begins all rings anew behind `base`.
    fn restart(&mut self, worker: &State, base: Seq) {
        for ring in worker.all_rings() {
            ring.restart(base);
            self.add(&ring);
        }
    }
}

fn encode(worker: &State, encoder: &mut Encoder, page: &Arc<Page>, touched: &mut Touched) {
    let wanted: Vec<_> = page.topics().iter().map(|topic| worker.rings_for(topic)).collect();
    if wanted.iter().all(|rings| rings.is_empty()) {
        return;
    }
    for event in page.events_after(worker.scanned()) {
        let index = u32::try_from(event.seq().0 - page.first().0).unwrap_or(u32::MAX);
        let rings = &wanted[page.topic_index_at(index)];
        if rings.is_empty() {
            continue;
        }
        let kind = event.fields().kind;
        encoder.begin();
        let mut facts = None;
        for ring in rings.iter().filter(|ring| ring.wants_type(kind)) {
            if !worker.passes(ring, &event, &mut facts) {
                continue;
            }
            touched.add(ring);
            match encoder.encode(&ring.encoding, &event) {
                Encoded::Small(bytes) => ring.append(event.seq(), bytes),
                Encoded::Large(shared) => ring.append_shared(event.seq(), shared),
            }
        }
    }
}

/// Encodes an event once for each encoding.
#[derive(Default)]
struct Encoder {
    /// How often something had been purged when the rings were fed last.
    purges: u64,
    scratch: BytesMut,
    done: Vec<(Encoding, Place)>,
}

#[derive(Clone)]
enum Place {
    Scratch(Range<usize>),
    Shared(Chunk),
}

enum Encoded<'a> {
    /// To be copied into a ring's own bytes.
    Small(&'a [u8]),
    /// To be shared by all rings.
    Large(Chunk),
}

impl Encoder {
    fn begin(&mut self) {
        self.scratch.clear();
        self.done.clear();
    }

    fn encode(&mut self, encoding: &Encoding, event: &Event) -> Encoded<'_> {
        let known = self.done.iter().find(|(known, _)| known.is(encoding)).map(|(_, place)| place.clone());
        let place = known.unwrap_or_else(|| {
            let start = self.scratch.len();
            encoding.write(&mut self.scratch, event);
            let place = if self.scratch.len() - start > SHARED_BYTES {
                Place::Shared(Chunk::around(std::iter::once(&*self.scratch.split_off(start))))
            } else {
                Place::Scratch(start..self.scratch.len())
            };
            self.done.push((encoding.clone(), place.clone()));
            place
        });
        match place {
            Place::Scratch(range) => Encoded::Small(&self.scratch[range]),
            Place::Shared(chunk) => Encoded::Large(chunk),
        }
    }
}
