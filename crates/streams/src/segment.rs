//! Encoded events in a row: written once, cut anywhere between two events for as many readers as like.

use bytes::{Bytes, BytesMut};

use super::chunk::{Chunk, ChunkBuilder};
use hookcast_core::model::Seq;

/// Encoded events, each with its position and its end; together they are one chunk.
#[derive(Debug, Default)]
pub(super) struct Segment {
    chunk: Chunk,
    marks: Vec<Mark>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    seq: Seq,
    end: u32,
}

/// A part of a segment: whole events.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Their bytes.
    pub(super) bytes: Bytes,
    /// How many.
    pub(super) events: u64,
    /// Position of the last.
    pub(super) through: Seq,
}

/// The next events for all clients that stand at the same place, as one chunk.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Their bytes.
    pub(super) chunk: Chunk,
    /// How many.
    pub(super) events: u64,
    /// Position of the last.
    pub(super) through: Seq,
}

impl Segment {
    /// One event alone, its bytes shared.
    pub(super) fn of_one(seq: Seq, chunk: Chunk) -> Self {
        let end = length(chunk.len());
        Self { chunk, marks: vec![Mark { seq, end }] }
    }

    pub(super) fn len(&self) -> usize {
        self.chunk.len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.chunk.payload()
    }

    pub(super) fn events(&self) -> u64 {
        self.marks.len() as u64
    }

    /// All of it, if nothing of it lies before `after`.
    pub(super) fn whole(&self, after: Seq) -> Option<Part> {
        let is_whole = self.marks.first().is_some_and(|first| first.seq > after);
        is_whole.then(|| Part { chunk: self.chunk.clone(), events: self.events(), through: self.last() })
    }

    /// Position of the last event; zero when there is none.
    pub(super) fn last(&self) -> Seq {
        self.marks.last().map_or(Seq::ZERO, |mark| mark.seq)
    }

    /// The events after `after`, at most `events_max`, and as many as fit into `bytes_max` but at least one.
    pub(super) fn cut(&self, after: Seq, bytes_max: usize, events_max: u64) -> Option<Cut> {
        let first = self.marks.partition_point(|mark| mark.seq <= after);
        let rest = self.marks.get(first..).filter(|rest| !rest.is_empty())?;
        let start = if first == 0 { 0 } else { self.marks[first - 1].end as usize };
        let fitting = rest.partition_point(|mark| mark.end as usize - start <= bytes_max).max(1);
        let count = fitting.min(usize::try_from(events_max).unwrap_or(usize::MAX));
        let last = rest.get(count.checked_sub(1)?)?;
        Some(Cut { bytes: self.chunk.slice(start..last.end as usize), events: count as u64, through: last.seq })
    }
}

/// Collects encoded events into the next segment.
#[derive(Debug, Default)]
pub(super) struct SegmentBuilder {
    chunk: ChunkBuilder,
    marks: Vec<Mark>,
}

impl SegmentBuilder {
    pub(super) fn len(&self) -> usize {
        self.chunk.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Adds an event that is already encoded.
    pub(super) fn push(&mut self, seq: Seq, encoded: &[u8]) {
        self.chunk.room().extend_from_slice(encoded);
        self.mark(seq);
    }

    /// Adds an event that `encode` appends.
    pub(super) fn push_with(&mut self, seq: Seq, encode: impl FnOnce(&mut BytesMut)) {
        encode(self.chunk.room());
        self.mark(seq);
    }

    fn mark(&mut self, seq: Seq) {
        self.marks.push(Mark { seq, end: length(self.chunk.len()) });
    }

    /// Closes the segment and begins the next with nothing kept aside for it: there may be many builders.
    pub(super) fn finish(&mut self) -> Segment {
        Segment { chunk: self.chunk.finish(), marks: std::mem::take(&mut self.marks) }
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("invariant: a segment is far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segment(events: &[(u64, &str)]) -> Segment {
        let mut builder = SegmentBuilder::default();
        for (seq, text) in events {
            builder.push(Seq(*seq), text.as_bytes());
        }
        builder.finish()
    }

    #[test]
    fn a_cut_begins_behind_the_position_and_holds_whole_events() {
        let segment = segment(&[(2, "two"), (5, "five"), (9, "nine")]);
        let cut = |after, bytes, events| segment.cut(Seq(after), bytes, events).map(|cut| (cut.bytes, cut.events, cut.through.0));
        assert_eq!(cut(0, 100, 100), Some(("twofivenine".into(), 3, 9)));
        assert_eq!(cut(2, 100, 100), Some(("fivenine".into(), 2, 9)));
        assert_eq!(cut(3, 100, 1), Some(("five".into(), 1, 5)));
        assert_eq!(cut(0, 7, 100), Some(("twofive".into(), 2, 5)));
        assert_eq!(cut(0, 1, 100), Some(("two".into(), 1, 2)));
        assert_eq!(cut(9, 100, 100), None);
        assert_eq!(cut(0, 100, 0), None);
    }

    #[test]
    fn a_segment_is_one_chunk_for_whoever_stands_before_it() {
        let segment = segment(&[(2, "two"), (5, "five")]);
        let part = segment.whole(Seq(1)).unwrap();
        assert_eq!((part.events, part.through), (2, Seq(5)));
        assert_eq!(part.chunk.wrapped(crate::chunk::Wrapping::Chunked), "7\r\ntwofive\r\n");
        assert!(segment.whole(Seq(2)).is_none());
    }

    proptest! {
        #[test]
        fn cuts_of_any_size_give_everything_once(
            texts in prop::collection::vec("[a-z]{1,30}", 1..40),
            sizes in prop::collection::vec((1usize..80, 1u64..5), 1..10),
        ) {
            let events: Vec<_> = texts.iter().enumerate().map(|(at, text)| (at as u64 * 3 + 1, text.as_str())).collect();
            let segment = segment(&events);
            let (mut after, mut got, mut sizes) = (Seq::ZERO, Vec::new(), sizes.iter().cycle());
            while let Some(cut) = { let (bytes, count) = sizes.next().unwrap(); segment.cut(after, *bytes, *count) } {
                prop_assert!(cut.through > after);
                after = cut.through;
                got.extend_from_slice(&cut.bytes);
            }
            prop_assert_eq!(got, texts.concat().into_bytes());
        }
    }
}
