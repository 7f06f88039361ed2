//! What counts as a repeat, for how long, and over a restart.

use super::*;
use bytes::Bytes;
use hookcast_core::model::event::DataForm;
use hookcast_core::model::{NewEvent, Topic};
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

/// An event of a source: what it is like makes a difference too.
fn sourced(id: &str, data: &str, kind: &str, subject: Option<&str>) -> Option<Fingerprint> {
    let event = NewEvent {
        id: id.to_owned(),
        kind: kind.to_owned(),
        subject: subject.map(str::to_owned),
        ..event(0, data, Timestamp(0))
    };
    Fingerprint::of_sourced(&event)
}

#[test]
fn the_newest_stored_chunk_is_needed_however_old_its_keys_are() {
    let mut known = Known::new(SETTINGS, Seq::ZERO);
    known.begin(Timestamp(0));
    known.note(Fingerprint::of(&event(1, "1", Timestamp(0))), Seq(CHUNK_POSITIONS), Timestamp(0));
    assert_eq!(known.full_chunk().unwrap().last, Seq(CHUNK_POSITIONS));
    known.keep();
    let later = Timestamp(120_000);
    known.begin(later);
    known.note(Fingerprint::of(&event(2, "2", later)), Seq(CHUNK_POSITIONS + 1), later);
    assert_eq!(known.full_chunk(), None);
    known.keep();
    assert_eq!(known.len(), 1, "the first is too old");
    assert_eq!(known.oldest(), Seq(CHUNK_POSITIONS), "without its chunk the next start would read the whole log");
}

proptest! {
    /// Against a list of everything that was kept: the newest with the key decides, and failed commits leave no trace.
    #[test]
    fn the_newest_event_with_an_id_is_the_one_that_is_known(
        commits in prop::collection::vec((prop::collection::vec((0u8..6, 0u8..3), 1..12), any::<bool>()), 1..30),
    ) {
        let settings = DedupeSettings { max_ids: 20, ..SETTINGS };
        let mut known = Known::new(settings, Seq::ZERO);
        let (mut kept, mut head): (Vec<(u8, u8, Seq)>, _) = (Vec::new(), Seq::ZERO);
        for (events, goes_through) in commits {
            known.begin(Timestamp(0));
            kept.drain(..kept.len().saturating_sub(settings.max_ids));
            let before = (kept.clone(), head);
            for (id, data) in events {
                let fingerprint = sourced(&id.to_string(), &data.to_string(), "message", None);
                let expected = match kept.iter().rev().find(|(other, ..)| *other == id) {
                    None => Verdict::New,
                    Some((_, same, seq)) if *same == data => Verdict::Repeat(*seq),
                    Some((.., seq)) => Verdict::Mismatch(*seq),
                };
                prop_assert_eq!(known.look_up(fingerprint), expected);
                if !matches!(expected, Verdict::Repeat(_)) {
                    head = head.next();
                    known.note(fingerprint, head, Timestamp(0));
                    kept.push((id, data, head));
                }
            }
            if goes_through {
                known.keep();
            } else {
                known.undo();
                (kept, head) = before;
            }
            prop_assert_eq!(known.len(), kept.len());
            prop_assert!(known.index.len() <= 6);
        }
    }

    #[test]
    fn stored_entries_come_back(entries in prop::collection::vec((any::<u128>(), any::<[u64; 3]>(), any::<i64>()), 0..20)) {
        let entries: Vec<Entry> = entries
            .into_iter()
            .map(|(key, [seq, data, look], at_ms)| Entry { key, seq: Seq(seq), data, look, at_ms })
            .collect();
        let bytes = entry::encode(entries.iter());
        prop_assert_eq!(entry::decode(&bytes).collect::<Vec<_>>(), entries.clone());
        // As builds before this one stored them.
        let old: Vec<u8> = bytes[1..].chunks_exact(48).flat_map(|entry| entry[..40].to_vec()).collect();
        let without: Vec<Entry> = entries.into_iter().map(|entry| Entry { look: 0, ..entry }).collect();
        prop_assert_eq!(entry::decode(&old).collect::<Vec<_>>(), without);
    }

    #[test]
    fn an_id_behind_another_always_fits_and_tells_where_it_stands(id in "\\PC{1,255}", seq in 1u64..) {
        let id: String = id.chars().scan(0, |bytes, c| { *bytes += c.len_utf8(); (*bytes <= 255).then_some(c) }).collect();
        let (behind, is_cut) = id_behind(&id, Seq(seq));
        let number = format!("~{seq}");
        prop_assert!(behind.len() <= 255 && behind.ends_with(&number));
        let before = entry::id_before(&behind, Seq(seq));
        prop_assert_eq!(before.is_some_and(|before| before == id), !is_cut);
        prop_assert_eq!(is_cut, id.len() + number.len() > 255);
    }

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
    assert_eq!((chunk.first, chunk.last, chunk.bytes.len()), (Seq(1), Seq(4096), 1 + CHUNK_ENTRIES * 48));
    known.note(None, Seq(4096 + CHUNK_POSITIONS), Timestamp(0));
    let empty = known.full_chunk().unwrap();
    assert_eq!((empty.first, empty.bytes.len()), (Seq(4097), 1));
}

#[test]
fn type_and_subject_are_looked_at_where_they_are_known() {
    let mut known = Known::new(SETTINGS, Seq::ZERO);
    known.begin(Timestamp(0));
    known.note(sourced("1", "a", "made", Some("x")), Seq(1), Timestamp(0));
    assert_eq!(known.look_up(sourced("1", "a", "made", Some("x"))), Verdict::Repeat(Seq(1)));
    for other in [sourced("1", "a", "ended", Some("x")), sourced("1", "a", "made", Some("y")), sourced("1", "a", "made", None)] {
        assert_eq!(known.look_up(other), Verdict::Mismatch(Seq(1)));
    }
    // Of a key that an earlier build stored, and of what a publisher sends, the data alone is compared.
    let old = Entry { look: 0, ..Entry::new(sourced("2", "a", "made", None).unwrap(), Seq(2), Timestamp(0)) };
    known.insert(old);
    assert_eq!(known.look_up(sourced("2", "a", "ended", Some("x"))), Verdict::Repeat(Seq(2)));
    assert_eq!(known.look_up(sourced("2", "b", "made", None)), Verdict::Mismatch(Seq(2)));
    assert_eq!(known.look_up(Fingerprint::of(&event(1, "a", Timestamp(0)))), Verdict::Repeat(Seq(1)));
}

#[test]
fn an_id_that_is_too_long_to_be_told_by_the_log_is_stored_at_once() {
    let mut known = Known::new(SETTINGS, Seq::ZERO);
    for (is_cut, wanted) in [(false, None), (true, Some(1 + 4 * 48))] {
        known.begin(Timestamp(0));
        let came = sourced("1", "a", "made", None).unwrap();
        known.note_renamed(came, came.under("t", "/publish", "1~1"), Seq(1), Timestamp(0), is_cut);
        assert_eq!(known.full_chunk().map(|chunk| chunk.bytes.len()), wanted);
        known.keep();
    }
    known.begin(Timestamp(0));
    assert!(known.full_chunk().is_none());
}
