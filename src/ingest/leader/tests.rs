//! What the leader numbers, keeps together and answers.

use super::*;
use crate::clock::{ManualClock, Timestamp};
use crate::ingest::{DedupeSettings, FromSource, Ingest};
use crate::model::event::DataForm;
use crate::model::{NewEvent, ResumeToken, Topic};
use crate::storage::{Store, memory};
use crate::tail::TailSettings;
use bytes::Bytes;
use std::time::Duration;

const SETTINGS: DedupeSettings = DedupeSettings { max_age: Duration::from_hours(1), max_ids: 1_000_000 };

fn event(id: Option<&str>, data: &str) -> NewEvent {
    NewEvent {
        topic: Topic::parse("t").unwrap(),
        id: id.unwrap_or("generated").to_owned(),
        own_id: id.is_some(),
        source: "/publish".into(),
        kind: "message".into(),
        subject: None,
        time: None,
        arrived_at: Timestamp(0),
        content_type: "text/plain".into(),
        data_schema: None,
        extensions: Vec::new(),
        hops: 0,
        form: DataForm::Text,
        data: Bytes::copy_from_slice(data.as_bytes()),
    }
}

async fn intake(store: &Store) -> (Ingest, Arc<Tail>) {
    let bounds = store.log.bounds().await.unwrap();
    let tail = Arc::new(Tail::new(TailSettings::default(), bounds.first, bounds.head));
    let clock = Arc::new(ManualClock::default());
    let (ingest, _leader) = Ingest::start(Arc::clone(&store.log), Arc::clone(&tail), clock, SETTINGS).await.unwrap();
    (ingest, tail)
}

#[tokio::test]
async fn repeats_are_answered_with_the_first_position_even_after_a_restart() {
    let store = memory::open().unwrap();
    let (ingest, tail) = intake(&store).await;
    let first = ingest.publish(vec![event(Some("a"), "1"), event(None, "1"), event(Some("a"), "1")]).await.unwrap();
    let places = |placed: &[Placed]| placed.iter().map(|p| (p.seq.0, p.duplicate)).collect::<Vec<_>>();
    assert_eq!(places(&first), [(1, false), (2, false), (1, true)]);
    assert_eq!(tail.head(), Seq(2));
    drop(ingest);
    let (again, _) = intake(&store).await;
    let repeat = again.publish(vec![event(Some("a"), "1"), event(None, "1")]).await.unwrap();
    assert_eq!(places(&repeat), [(1, true), (3, false)]);
}

#[tokio::test]
async fn a_key_with_other_bytes_refuses_the_whole_request() {
    let store = memory::open().unwrap();
    let (ingest, tail) = intake(&store).await;
    ingest.publish(vec![event(Some("a"), "1")]).await.unwrap();
    let refused = ingest.publish(vec![event(Some("b"), "1"), event(Some("a"), "2")]).await;
    assert_eq!(refused, Err(IngestError::Mismatch { index: 1 }));
    let inside = ingest.publish(vec![event(Some("c"), "1"), event(Some("c"), "2")]).await;
    assert_eq!(inside, Err(IngestError::Mismatch { index: 1 }));
    assert_eq!(tail.head(), Seq(1));
}

#[tokio::test]
async fn events_without_an_id_beside_others_are_never_repeats() {
    let store = memory::open().unwrap();
    let (ingest, _) = intake(&store).await;
    let events = vec![event(None, "1"), event(None, "1"), event(Some("a"), "1"), event(None, "1")];
    for positions in [[1, 2, 3, 4], [5, 6, 3, 7]] {
        let placed = ingest.publish(events.clone()).await.unwrap();
        assert_eq!(placed.iter().map(|placed| placed.seq.0).collect::<Vec<_>>(), positions);
    }
}

#[tokio::test]
async fn a_source_moves_its_position_with_its_events() {
    let store = memory::open().unwrap();
    let (ingest, _) = intake(&store).await;
    ingest.publish(vec![event(Some("a"), "1")]).await.unwrap();
    let from = FromSource { resume: Some(("feed".to_owned(), ResumeToken::parse("42").unwrap())), gap: None };
    let placed = ingest.publish_from_source(vec![event(Some("a"), "other"), event(None, "2")], from).await.unwrap();
    assert_eq!(placed.iter().map(|p| p.duplicate).collect::<Vec<_>>(), [true, false]);
}

#[tokio::test]
async fn many_publishers_get_positions_of_their_own() {
    let store = memory::open().unwrap();
    let (ingest, tail) = intake(&store).await;
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let ingest = ingest.clone();
            tokio::spawn(async move { ingest.publish(vec![event(None, "x"), event(None, "y")]).await.unwrap() })
        })
        .collect();
    let mut seqs = Vec::new();
    for task in tasks {
        seqs.extend(task.await.unwrap().into_iter().map(|placed| placed.seq));
    }
    seqs.sort_unstable();
    seqs.dedup();
    assert_eq!(seqs.len(), 128);
    assert_eq!(tail.head(), Seq(128));
}
