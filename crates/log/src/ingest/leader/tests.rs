//! What the leader numbers, keeps together and answers.

use super::*;
use crate::ingest::{Bringer, DedupeSettings, FromSource, Ingest, Item, Offer};
use crate::storage::{BACKENDS, Durability, Reserve, StorageSettings, Store, memory};
use crate::tail::TailSettings;
use bytes::Bytes;
use hookcast_core::clock::{ManualClock, Timestamp};
use hookcast_core::model::event::DataForm;
use hookcast_core::model::source::{Incarnation, SourcePosition};
use hookcast_core::model::{NewEvent, ResumeToken, Topic};
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
    let (ingest, _leader) =
        Ingest::start(Arc::clone(&store.log), Arc::clone(&tail), clock, SETTINGS, &hookcast_supervise::Supervisor::default())
            .await
            .unwrap();
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

/// What became of these events of a source: position, whether it is a repeat, and the other event with its id.
async fn sourced(ingest: &Ingest, events: &[NewEvent], from: FromSource) -> Vec<(u64, bool, Option<u64>)> {
    let placed = ingest.publish_from_source(Arc::new(crate::ingest::Offer::of_source(events)), from).await.unwrap();
    placed.iter().map(|placed| (placed.seq.0, placed.duplicate, placed.other.map(|seq| seq.0))).collect()
}

/// The ids that the log holds.
async fn ids(store: &Store) -> Vec<String> {
    let pages = store.log.read(Seq::ZERO, 1 << 20).await.unwrap();
    pages.pages.iter().flat_map(|page| page.events_after(Seq::ZERO)).map(|event| event.fields().id.to_owned()).collect()
}

#[tokio::test]
async fn a_source_moves_its_position_with_its_events() {
    let store = memory::open().unwrap();
    let (ingest, _) = intake(&store).await;
    ingest.publish(vec![event(Some("a"), "1")]).await.unwrap();
    let resume = Some(SourcePosition {
        source: "feed".to_owned(),
        incarnation: Incarnation::default(),
        token: ResumeToken::parse("42").unwrap(),
    });
    let from = FromSource { resume, on_reused_id: OnReusedId::Drop, ..FromSource::default() };
    let placed = sourced(&ingest, &[event(Some("a"), "other"), event(None, "2")], from).await;
    assert_eq!(placed, [(1, true, Some(1)), (2, false, None)]);
}

#[tokio::test]
async fn another_event_of_a_source_under_a_known_id_gets_an_id_of_its_own() {
    let store = memory::open().unwrap();
    let (ingest, _) = intake(&store).await;
    let states = |texts: &[&str]| texts.iter().map(|text| event(Some("1"), text)).collect::<Vec<_>>();
    // In one commit, and over several.
    let placed = sourced(&ingest, &states(&["open", "closed", "closed"]), FromSource::default()).await;
    assert_eq!(placed, [(1, false, None), (2, false, Some(1)), (2, true, None)]);
    let placed = sourced(&ingest, &states(&["open"]), FromSource::default()).await;
    assert_eq!(placed, [(3, false, Some(2))]);
    // Its own id is known too, should the upstream ever give it away.
    let own = sourced(&ingest, &[event(Some("1~3"), "x"), event(Some("1~3"), "x")], FromSource::default()).await;
    assert_eq!(own, [(4, false, Some(3)), (4, true, None)]);
    assert_eq!(ids(&store).await, ["1", "1~2", "1~3", "1~3~4"]);
    drop(ingest);
    let (again, _) = intake(&store).await;
    let placed = sourced(&again, &states(&["open", "closed"]), FromSource::default()).await;
    assert_eq!(placed, [(3, true, None), (5, false, Some(3))]);
    assert_eq!(sourced(&again, &[event(Some("1~3"), "x")], FromSource::default()).await, [(4, true, None)]);
    // Of a publisher nothing of this is true.
    let refused = again.publish(vec![event(Some("1"), "open")]).await;
    assert_eq!(refused, Err(IngestError::Mismatch { index: 0 }));
}

#[tokio::test]
async fn an_upstream_that_says_everything_again_gives_repeats_only() {
    let store = memory::open().unwrap();
    let (ingest, _) = intake(&store).await;
    let run = |n: u32| (1..=3).map(|id| event(Some(&id.to_string()), &format!("{n}.{id}"))).collect::<Vec<_>>();
    for (run_number, wanted) in [(1, [1, 2, 3]), (2, [4, 5, 6])] {
        for is_again in [false, true, true] {
            let placed = sourced(&ingest, &run(run_number), FromSource::default()).await;
            assert_eq!(placed.iter().map(|placed| (placed.0, placed.1)).collect::<Vec<_>>(), wanted.map(|seq| (seq, is_again)));
        }
    }
}

#[tokio::test]
async fn a_sender_of_webhooks_is_known_by_its_id_whatever_the_bytes() {
    let store = memory::open().unwrap();
    let (ingest, _) = intake(&store).await;
    for (text, wanted) in [("1", Placed::new(Seq(1))), ("2", Placed::repeat(Seq(1)))] {
        let placed = ingest.publish_sent(Arc::new(crate::ingest::Offer::of(&[event(Some("a"), text)]))).await.unwrap();
        assert_eq!(placed, [wanted]);
    }
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

/// Whoever is woken by this breaks whoever wakes.
struct Breaks;

impl std::task::Wake for Breaks {
    fn wake(self: Arc<Self>) {
        panic!("woken");
    }
}

#[tokio::test]
async fn what_a_draft_noted_that_panicked_is_not_known_for_stored() {
    use std::task::{Context, Waker};
    // Storage with a thread of its own has drafts made there, and goes on after a panic.
    let directory = tempfile::tempdir().unwrap();
    let settings = StorageSettings {
        path: directory.path().join("hookcast.db"),
        durability: Durability::Normal,
        reserve: Reserve::Bytes(0),
        seals: None,
        readiness: hookcast_supervise::readiness::Readiness::default(),
    };
    let sqlite = BACKENDS.iter().find(|backend| backend.scheme == "sqlite").unwrap();
    let store = (sqlite.open)(settings).await.unwrap();
    let tail = Arc::new(Tail::new(TailSettings::default(), Seq(1), Seq::ZERO));
    let known = crate::ingest::dedupe::load(&*store.log, SETTINGS, Timestamp(0)).await.unwrap();
    let (queue, inbox) = mpsc::channel(8);
    let leader = Leader::new(Arc::clone(&store.log), Arc::clone(&tail), Arc::new(ManualClock::default()), known, inbox);
    let send = |events: &[NewEvent]| {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let room = Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap();
        let item = Item { offer: Arc::new(Offer::of(events)), bringer: Bringer::Publisher, reply, _room: room };
        assert!(queue.try_send(item).is_ok());
        answer
    };
    // Both go into one draft: the first is noted, and the answer to the other, which is refused, panics.
    let noted = send(&[event(Some("b"), "1")]);
    let mut refused = Box::pin(send(&[event(Some("c"), "1"), event(Some("c"), "2")]));
    assert!(refused.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::new(Breaks)))).is_pending());
    let running = tokio::spawn(leader.run());
    assert!(noted.await.is_err(), "nobody knows what became of it");
    let again = send(&[event(Some("b"), "1")]).await.unwrap().unwrap();
    assert_eq!((again[0].seq, again[0].duplicate), (Seq(1), false), "nobody has it yet");
    drop(queue);
    running.await.unwrap();
    assert_eq!((tail.head(), store.log.bounds().await.unwrap().head), (Seq(1), Seq(1)));
    store.close().await;
}
