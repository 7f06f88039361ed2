//! The newest encoded events of one kind of stream, shared by all its clients on a worker, and where those clients sleep.
//!
//! A ring covers every position behind `base` up to what its worker has scanned. It belongs to one thread: between two
//! awaits nobody else looks, so a client that finds nothing and then sleeps misses nothing. Knows nothing of the log.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

use bytes::BytesMut;

use super::chunk::Chunk;
use super::format::{Format, Style};
use super::history::Loads;
use super::segment::{Cut, Part, Segment, SegmentBuilder};
use super::sleepers::Sleepers;
use super::socket::{CHUNK_BYTES, SHARED_BYTES};
use hookcast_core::model::{Event, PatternList, Seq};

/// What makes two streams the same but for their position.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Selection {
    /// Which topics.
    pub(super) patterns: PatternList,
    /// Which event types, sorted; empty = all.
    pub(super) types: Rc<[String]>,
    /// Which of them, by their content.
    pub(super) filter: Option<Rc<str>>,
    /// Name of the format.
    pub(super) format: &'static str,
    /// How they are dressed.
    pub(super) style: Style,
}

/// How events are written: encoded once for all rings that share it.
#[derive(Clone, Debug)]
pub(super) struct Encoding {
    pub(super) format: &'static Format,
    pub(super) style: Style,
}

impl Encoding {
    pub(super) fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.format, other.format) && self.style == other.style
    }

    pub(super) fn write(&self, out: &mut BytesMut, event: &Event) {
        (self.format.event)(out, event, &self.style);
    }
}

/// The shared part of all streams of one selection on one worker.
pub(super) struct Ring {
    pub(super) selection: Selection,
    pub(super) encoding: Encoding,
    /// Its clients.
    pub(super) sleepers: Sleepers,
    /// What is being read from the log for clients that are further back.
    pub(super) loads: Loads,
    /// Everything behind this position is here.
    base: Cell<Seq>,
    segments: RefCell<VecDeque<Segment>>,
    open: RefCell<SegmentBuilder>,
    bytes: Cell<usize>,
    /// As many bytes as its worker has counted for it.
    pub(super) counted: Cell<usize>,
    /// Whether it got something since it was last settled.
    pub(super) touched: Cell<bool>,
    shared: RefCell<Option<Shared>>,
}

/// What was put together for clients that stand at the same place.
struct Shared {
    after: Seq,
    newest: Seq,
    part: Part,
}

impl Ring {
    /// An empty ring that covers what comes behind `base`.
    pub(super) fn new(selection: Selection, encoding: Encoding, base: Seq) -> Self {
        Self {
            selection,
            encoding,
            sleepers: Sleepers::default(),
            loads: Loads::default(),
            base: Cell::new(base),
            segments: RefCell::default(),
            open: RefCell::default(),
            bytes: Cell::new(0),
            counted: Cell::new(0),
            touched: Cell::new(false),
            shared: RefCell::default(),
        }
    }

    pub(super) fn wants_topic(&self, topic: &str) -> bool {
        self.selection.patterns.matches(topic)
    }

    pub(super) fn wants_type(&self, kind: &str) -> bool {
        let types = &self.selection.types;
        types.is_empty() || types.binary_search_by(|wanted| wanted.as_str().cmp(kind)).is_ok()
    }

    /// Whether what stands behind `after` is here and need not be read from the log.
    pub(super) fn covers(&self, after: Seq) -> bool {
        after >= self.base.get()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Adds the next event, copied.
    pub(super) fn append(&self, seq: Seq, encoded: &[u8]) {
        let mut open = self.open.borrow_mut();
        if !open.is_empty() && open.len() + encoded.len() > SHARED_BYTES {
            self.keep(open.finish());
        }
        open.push(seq, encoded);
    }

    /// Adds the next event, its bytes shared with other rings.
    pub(super) fn append_shared(&self, seq: Seq, encoded: Chunk) {
        self.seal();
        self.keep(Segment::of_one(seq, encoded));
    }

    /// Shows clients what was added.
    pub(super) fn seal(&self) {
        let mut open = self.open.borrow_mut();
        if !open.is_empty() {
            self.keep(open.finish());
        }
    }

    fn keep(&self, segment: Segment) {
        self.bytes.set(self.bytes.get() + segment.len());
        self.segments.borrow_mut().push_back(segment);
    }

    /// Drops the oldest segments until at most `bytes_max` are left; the newest one always stays.
    pub(super) fn shrink(&self, bytes_max: usize) {
        let mut segments = self.segments.borrow_mut();
        while self.bytes.get() > bytes_max && segments.len() > 1 {
            if let Some(oldest) = segments.pop_front() {
                self.bytes.set(self.bytes.get() - oldest.len());
                self.base.set(oldest.last());
            }
        }
    }

    /// Forgets everything and covers what comes behind `base`: the log jumped, or nobody followed it for too long.
    pub(super) fn restart(&self, base: Seq) {
        *self.open.borrow_mut() = SegmentBuilder::default();
        self.segments.borrow_mut().clear();
        self.shared.borrow_mut().take();
        self.bytes.set(0);
        self.base.set(base);
    }

    /// The next whole events behind `after`: about [`CHUNK_BYTES`], at least one, at most `events_max`.
    pub(super) fn read(&self, after: Seq, events_max: u64) -> Option<Cut> {
        let segments = self.segments.borrow();
        let at = segments.partition_point(|segment| segment.last() <= after);
        segments.get(at)?.cut(after, CHUNK_BYTES, events_max)
    }

    /// The next whole events behind `after` as one chunk: about [`SHARED_BYTES`], at least one.
    ///
    /// Clients mostly stand at the same place, so what was put together for one is kept for the next.
    pub(super) fn share(&self, after: Seq) -> Option<Part> {
        let segments = self.segments.borrow();
        let newest = segments.back().filter(|newest| newest.last() > after)?.last();
        let at = segments.partition_point(|segment| segment.last() <= after);
        let first = segments.get(at)?;
        let next_fits = segments.get(at + 1).is_some_and(|next| first.len() + next.len() <= SHARED_BYTES);
        if !next_fits && let Some(part) = first.whole(after) {
            return Some(part);
        }
        let mut shared = self.shared.borrow_mut();
        if let Some(known) = shared.as_ref().filter(|known| known.after == after && known.newest == newest) {
            return Some(known.part.clone());
        }
        let Cut { bytes, mut events, mut through } = first.cut(after, SHARED_BYTES, u64::MAX)?;
        let mut length = bytes.len();
        let rest = segments.range(at + 1..).take_while(|segment| {
            length += segment.len();
            through == first.last() && length <= SHARED_BYTES
        });
        let rest: Vec<_> = rest.collect();
        if let Some(last) = rest.last() {
            events += rest.iter().map(|segment| segment.events()).sum::<u64>();
            through = last.last();
        }
        let chunk = Chunk::around(std::iter::once(&*bytes).chain(rest.iter().map(|segment| segment.bytes())));
        let part = Part { chunk, events, through };
        *shared = Some(Shared { after, newest, part: part.clone() });
        Some(part)
    }

    /// Remembers who to wake.
    pub(super) fn park(&self, place: usize, waker: &Waker) {
        self.sleepers.park(place, waker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::FORMATS;

    fn ring() -> Ring {
        let selection = Selection {
            patterns: "**".parse().unwrap(),
            types: Rc::from(vec!["a".to_owned(), "b".to_owned()]),
            filter: None,
            format: FORMATS[0].name,
            style: Style::default(),
        };
        Ring::new(selection, Encoding { format: &FORMATS[0], style: Style::default() }, Seq(10))
    }

    fn add(ring: &Ring, seq: u64, text: &str) {
        ring.append(Seq(seq), text.as_bytes());
        ring.seal();
    }

    #[test]
    fn small_segments_are_handed_out_as_one_piece() {
        let ring = ring();
        add(&ring, 11, "a");
        add(&ring, 13, "b");
        add(&ring, 14, "c");
        let whole = ring.share(Seq(10)).unwrap();
        assert_eq!((whole.chunk.payload(), whole.events, whole.through), (&b"abc"[..], 3, Seq(14)));
        let again = ring.share(Seq(10)).unwrap();
        assert_eq!(whole.chunk.payload().as_ptr(), again.chunk.payload().as_ptr(), "put together once, shared");
        assert_eq!(ring.share(Seq(12)).unwrap().chunk.payload(), b"bc");
        assert_eq!(ring.read(Seq(10), 2).unwrap().bytes, "a", "a limited client takes segment by segment");
        assert!(ring.share(Seq(14)).is_none() && ring.read(Seq(14), u64::MAX).is_none());
        assert_eq!(ring.share(Seq(10)).unwrap().chunk.payload(), b"abc");
        add(&ring, 20, "d");
        assert_eq!(ring.share(Seq(10)).unwrap().chunk.payload(), b"abcd");
    }

    #[test]
    fn the_middle_of_a_segment_is_shared_with_what_follows() {
        let ring = ring();
        ring.append(Seq(11), b"a");
        ring.append(Seq(12), b"b");
        ring.seal();
        add(&ring, 13, "c");
        let part = ring.share(Seq(11)).unwrap();
        assert_eq!((part.chunk.payload(), part.events, part.through), (&b"bc"[..], 2, Seq(13)));
    }

    #[test]
    fn a_piece_stays_below_its_size_unless_one_event_is_larger() {
        let ring = ring();
        let text = "x".repeat(SHARED_BYTES / 4);
        for seq in 11..=16 {
            ring.append(Seq(seq), text.as_bytes());
        }
        let large = "y".repeat(SHARED_BYTES * 3);
        ring.append_shared(Seq(17), Chunk::around(std::iter::once(large.as_bytes())));
        ring.seal();
        let (mut after, mut sizes) = (Seq(10), Vec::new());
        while let Some(part) = ring.share(after) {
            after = part.through;
            sizes.push(part.chunk.len());
        }
        assert_eq!(sizes, [SHARED_BYTES, SHARED_BYTES / 2, SHARED_BYTES * 3]);
        let (mut after, mut sizes) = (Seq(14), Vec::new());
        while let Some(cut) = ring.read(after, u64::MAX) {
            after = cut.through;
            sizes.push(cut.bytes.len());
        }
        assert_eq!(sizes, [SHARED_BYTES / 4, SHARED_BYTES / 4, SHARED_BYTES * 3], "bodies take smaller pieces");
    }

    #[test]
    fn a_full_ring_forgets_its_oldest_events_and_says_so() {
        let ring = ring();
        for seq in 11..=20 {
            add(&ring, seq, "0123456789");
        }
        ring.shrink(45);
        assert_eq!(ring.bytes(), 40);
        assert!(!ring.covers(Seq(15)));
        assert!(ring.covers(Seq(16)));
        assert_eq!(ring.read(Seq(16), 1).unwrap().through, Seq(17));
        ring.shrink(0);
        assert_eq!(ring.bytes(), 10, "the newest stays");
        ring.restart(Seq(30));
        assert!(ring.read(Seq(30), 1).is_none());
        assert!(!ring.covers(Seq(29)));
    }

    #[test]
    fn types_are_chosen_exactly() {
        let ring = ring();
        assert!(ring.wants_type("a") && ring.wants_type("b"));
        assert!(!ring.wants_type("ab"));
    }
}
