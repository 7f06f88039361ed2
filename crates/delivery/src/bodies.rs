//! Finished bodies of batches, and those that a lane made lately: subscriptions that stand at the same place get the same bytes,
//! so that each costs its signature and nothing else of the body. Pure.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::batch::Member;
use super::parcel::{self, Content};
use hookcast_core::codec::cloudevents;
use hookcast_core::model::Seq;
use hookcast_core::model::subscription::{Batch, BatchFormat};

/// Most bodies that a lane keeps.
pub const BODIES_MAX: usize = 8;
/// Most bytes of the bodies that a lane keeps.
pub const BODIES_BYTES_MAX: usize = 1024 * 1024;
/// Letters of the hash in a `webhook-id`.
const HASH_CHARS: usize = 8;

/// The body of a batch; not empty.
#[derive(Debug)]
pub struct Body {
    /// What it is.
    pub format: BatchFormat,
    /// The events in it, in their order; a position names one event for good.
    pub seqs: Vec<Seq>,
    /// How many relays one of them went through at most.
    pub hops: u8,
    /// The bytes.
    pub bytes: Bytes,
    /// What tells it from the body of any other format or events.
    hash: [char; HASH_CHARS],
}

impl Body {
    /// The body of these events.
    #[must_use]
    pub fn new(format: BatchFormat, seqs: Vec<Seq>, hops: u8, bytes: Bytes) -> Self {
        let hash = hash_of(format, &seqs);
        Self { format, seqs, hops, bytes, hash }
    }

    /// The request's content for one subscription: `webhook-id` is `msg_<log>_<first>-<last>_<hash>_<subscription>`; without
    /// the hash for a batch that was posted so by a build before and keeps its id.
    #[must_use]
    pub fn content(&self, log_id: &str, subscription: &str, keeps_id: bool) -> Content {
        let content_type = match self.format {
            BatchFormat::JsonArray => "application/json",
            BatchFormat::Ndjson => "application/x-ndjson",
            BatchFormat::Cloudevents => cloudevents::BATCH_TYPE,
        };
        let first = self.seqs.iter().min().copied().unwrap_or_default();
        let last = self.seqs.iter().max().copied().unwrap_or_default();
        let webhook_id = if keeps_id {
            format!("msg_{log_id}_{first}-{last}_{subscription}")
        } else {
            let hash = String::from_iter(self.hash);
            format!("msg_{log_id}_{first}-{last}_{hash}_{subscription}")
        };
        let headers = parcel::common(self.hops, &webhook_id, content_type);
        Content { body: self.bytes.clone(), headers, webhook_id }
    }
}

/// The first 40 bits of the SHA-256 of the format and the positions in the order of the body, in base32 (RFC 4648 §6, small letters).
fn hash_of(format: BatchFormat, seqs: &[Seq]) -> [char; HASH_CHARS] {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut text = String::with_capacity(16 + 12 * seqs.len());
    text.push_str(format.word());
    for (index, seq) in seqs.iter().enumerate() {
        text.push(if index == 0 { '\n' } else { ',' });
        text.push_str(itoa::Buffer::new().format(seq.0));
    }
    let hash = Sha256::digest(text.as_bytes());
    let bit = |at: usize| usize::from(hash[at / 8] >> (7 - at % 8) & 1);
    std::array::from_fn(|at| char::from(LETTERS[(5 * at..5 * at + 5).fold(0, |number, at| number << 1 | bit(at))]))
}

/// The bodies that a lane made lately, newest last.
#[derive(Debug, Default)]
pub struct Bodies {
    recent: VecDeque<Rc<Body>>,
    bytes: usize,
}

impl Bodies {
    /// The body of exactly these events, if there is one that fits the terms.
    #[must_use]
    pub fn find(&self, terms: &Batch, members: &[Member]) -> Option<Rc<Body>> {
        let is_it = |body: &&Rc<Body>| {
            body.format == terms.format
                && body.bytes.len() <= terms.max_bytes as usize
                && body.seqs.len() == members.len()
                && body.seqs.iter().zip(members).all(|(seq, member)| *seq == member.seq)
        };
        self.recent.iter().rev().find(is_it).cloned()
    }

    /// Keeps a body for others; the oldest go when there are too many, and what is too large is not kept.
    pub fn keep(&mut self, body: &Rc<Body>) {
        if body.bytes.len() > BODIES_BYTES_MAX / BODIES_MAX {
            return;
        }
        self.bytes += body.bytes.len();
        self.recent.push_back(Rc::clone(body));
        while self.recent.len() > BODIES_MAX {
            if let Some(oldest) = self.recent.pop_front() {
                self.bytes -= oldest.bytes.len();
            }
        }
        debug_assert!(self.bytes <= BODIES_BYTES_MAX);
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn body(seqs: &[u64], size: usize) -> Rc<Body> {
        let seqs = seqs.iter().copied().map(Seq).collect();
        Rc::new(Body::new(BatchFormat::Ndjson, seqs, 1, vec![b'x'; size].into()))
    }

    fn found(bodies: &Bodies, max_bytes: u32, format: BatchFormat, seqs: &[u64]) -> bool {
        let terms = Batch { max_events: 9, max_bytes, max_wait: Duration::ZERO, format };
        let members: Vec<Member> = seqs.iter().map(|seq| Member::new(Seq(*seq), None)).collect();
        bodies.find(&terms, &members).is_some()
    }

    #[test]
    fn only_the_very_same_batch_is_found() {
        let mut bodies = Bodies::default();
        bodies.keep(&body(&[3, 5, 6], 100));
        assert!(found(&bodies, 100, BatchFormat::Ndjson, &[3, 5, 6]));
        for (max_bytes, format, seqs) in [
            (100, BatchFormat::Ndjson, &[3, 5][..]),
            (100, BatchFormat::Ndjson, &[3, 4, 6]),
            (100, BatchFormat::Ndjson, &[3, 5, 6, 7]),
            (100, BatchFormat::JsonArray, &[3, 5, 6]),
            (99, BatchFormat::Ndjson, &[3, 5, 6]),
        ] {
            assert!(!found(&bodies, max_bytes, format, seqs), "{max_bytes} {format:?} {seqs:?}");
        }
    }

    #[test]
    fn the_id_names_the_format_and_each_event_in_its_place() {
        let id = |format, seqs: &[u64], keeps_id| {
            let body = Body::new(format, seqs.iter().copied().map(Seq).collect(), 1, Bytes::from_static(b"x"));
            body.content("abcdefgh", "s", keeps_id).webhook_id
        };
        // printf 'json-array\n1,2,3' | sha256sum | cut -c1-10 | xxd -r -p | base32 | tr A-Z a-z
        let rows: [(_, &[u64], _); 6] = [
            (BatchFormat::JsonArray, &[1, 2, 3], "msg_abcdefgh_1-3_zrattaa7_s"),
            (BatchFormat::JsonArray, &[1, 3], "msg_abcdefgh_1-3_b7z65fbx_s"),
            (BatchFormat::Ndjson, &[1, 2, 3], "msg_abcdefgh_1-3_fb7r4x65_s"),
            (BatchFormat::Cloudevents, &[1, 2, 3], "msg_abcdefgh_1-3_bmi673e5_s"),
            (BatchFormat::Ndjson, &[3, 2, 1], "msg_abcdefgh_1-3_l5zgcjx6_s"),
            (BatchFormat::Ndjson, &[u64::MAX], "msg_abcdefgh_18446744073709551615-18446744073709551615_573cic5z_s"),
        ];
        for (format, seqs, wanted) in rows {
            assert_eq!(id(format, seqs, false), wanted);
        }
        assert_eq!(id(BatchFormat::Ndjson, &[6, 3, 5], true), "msg_abcdefgh_3-6_s");
    }

    #[test]
    fn a_few_small_ones_are_kept() {
        let mut bodies = Bodies::default();
        bodies.keep(&body(&[1], BODIES_BYTES_MAX / BODIES_MAX + 1));
        assert!(!found(&bodies, u32::MAX, BatchFormat::Ndjson, &[1]));
        for seq in 2..=BODIES_MAX as u64 + 2 {
            bodies.keep(&body(&[seq], BODIES_BYTES_MAX / BODIES_MAX));
        }
        assert!(!found(&bodies, u32::MAX, BatchFormat::Ndjson, &[2]) && found(&bodies, u32::MAX, BatchFormat::Ndjson, &[3]));
        bodies.clear();
        assert!(!found(&bodies, u32::MAX, BatchFormat::Ndjson, &[3]));
    }
}
