//! What counts as a repeat, for how long, and over a restart.

use super::*;
use crate::model::Topic;
use crate::model::event::DataForm;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::HashMap;

const SETTINGS: DedupeSettings = DedupeSettings { max_age: Duration::from_mins(1), max_ids: 50 };

fn event(id: u64, data: &str, at: Timestamp) -> NewEvent {
    NewEvent {
        topic: Topic::parse("t").unwrap(),
        id: id.to_string(),
        own_id: true,
        source: "/publish".into(),
        kind: "message".into(),
        subject: None,
        time: None,
        arrived_at: at,
        content_type: "text/plain".into(),
        data_schema: None,
        extensions: Vec::new(),
        hops: 0,
        form: DataForm::Text,
        data: Bytes::copy_from_slice(data.as_bytes()),
    }
}

proptest! {
    /// Against a plain map: what is inside both limits is known, failed commits leave no trace.
    #[test]
    fn it_knows_what_was_kept_and_nothing_of_what_was_undone(
        commits in prop::collection::vec((prop::collection::vec(0u64..80, 1..20), any::<bool>()), 1..30),
    ) {
        let mut known = Known::new(SETTINGS, Seq::ZERO);
        let mut model: HashMap<u64, Seq> = HashMap::new();
        let mut order: Vec<u64> = Vec::new();
        let mut head = Seq::ZERO;
        for (ids, goes_through) in commits {
            known.begin(Timestamp(0));
            while order.len() > SETTINGS.max_ids {
                model.remove(&order.remove(0));
            }
            let before = (model.clone(), order.clone(), head);
            for id in ids {
                let event = event(id, "x", Timestamp(0));
                let fingerprint = Fingerprint::of(&event);
                match known.look_up(fingerprint) {
                    Verdict::New => {
                        prop_assert!(!model.contains_key(&id));
                        head = head.next();
                        known.note(fingerprint, head, Timestamp(0));
                        model.insert(id, head);
                        order.push(id);
                    }
                    Verdict::Repeat(seq) => prop_assert_eq!(model.get(&id), Some(&seq)),
                    Verdict::Mismatch(_) => prop_assert!(false, "the bytes are the same"),
                }
            }
            if goes_through {
                known.keep();
            } else {
                known.undo();
                (model, order, head) = before;
            }
            prop_assert_eq!(known.len(), order.len());
        }
    }
}

#[test]
fn the_same_key_with_other_bytes_is_a_mismatch() {
    let mut known = Known::new(SETTINGS, Seq::ZERO);
    known.begin(Timestamp(0));
    known.note(Fingerprint::of(&event(1, "a", Timestamp(0))), Seq(1), Timestamp(0));
    assert_eq!(known.look_up(Fingerprint::of(&event(1, "b", Timestamp(0)))), Verdict::Mismatch(Seq(1)));
    assert_eq!(known.look_up(Fingerprint::of(&event(2, "a", Timestamp(0)))), Verdict::New);
}

#[test]
fn keys_are_forgotten_after_their_time() {
    let mut known = Known::new(SETTINGS, Seq::ZERO);
    known.begin(Timestamp(0));
    known.note(Fingerprint::of(&event(1, "a", Timestamp(0))), Seq(1), Timestamp(0));
    known.keep();
    known.begin(Timestamp(60_000));
    assert_eq!(known.len(), 1);
    known.begin(Timestamp(60_001));
    assert!(known.is_empty());
}

#[test]
fn a_chunk_is_filled_by_entries_or_by_positions() {
    let settings = DedupeSettings { max_age: Duration::from_mins(1), max_ids: 100_000 };
    let mut known = Known::new(settings, Seq::ZERO);
    known.begin(Timestamp(0));
    for id in 1..=CHUNK_ENTRIES as u64 {
        assert!(known.full_chunk().is_none());
        known.note(Fingerprint::of(&event(id, "a", Timestamp(0))), Seq(id), Timestamp(0));
    }
    let chunk = known.full_chunk().unwrap();
    assert_eq!((chunk.first, chunk.last, chunk.bytes.len()), (Seq(1), Seq(4096), CHUNK_ENTRIES * ENTRY_BYTES));
    known.note(None, Seq(4096 + CHUNK_POSITIONS), Timestamp(0));
    let empty = known.full_chunk().unwrap();
    assert_eq!((empty.first, empty.bytes.len()), (Seq(4097), 0));
}
