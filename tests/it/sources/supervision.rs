//! Starting, changing and stopping sources.

use std::sync::Arc;

use async_trait::async_trait;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::Seq;
use hookcast_core::model::source::{SourceRecord, SourceSettings, SourceSpec};
use hookcast_source::{ConnectFault, SourceState, Sources, UpstreamClient, UpstreamRequest, UpstreamResponse, check_settings};

use super::support::*;

#[test]
fn sources_follow_their_definitions() {
    run(async {
        let line = |text: &str| vec![send(ndjson_head()), send(text), Step::Hold];
        let bench = Bench::new("ndjson", vec![line("1\n"), line("2\n"), line("3\n"), line("4\n")]).await;
        bench.events(1).await;

        bench.sources.reconcile(vec![bench.record.clone()]).await;
        assert_eq!(bench.upstream.requests().len(), 1, "nothing changed");

        let mut changed = bench.record.clone();
        changed.spec.settings.kind = Some("/type".to_owned());
        bench.sources.reconcile(vec![changed.clone()]).await;
        assert_eq!(bench.events(2).await, ["1", "2"]);
        assert_eq!(bench.status().events, 2, "counters outlive a change");

        assert!(bench.sources.restart("up").await);
        assert_eq!(bench.events(3).await, ["1", "2", "3"]);
        assert!(!bench.sources.restart("other").await);

        changed.spec.enabled = false;
        bench.sources.reconcile(vec![changed.clone()]).await;
        assert_eq!(bench.status().state, SourceState::Stopped);
        assert!(!bench.sources.restart("up").await);

        changed.spec.enabled = true;
        bench.sources.reconcile(vec![changed]).await;
        assert_eq!(bench.events(4).await, ["1", "2", "3", "4"]);
        assert_eq!(bench.recorder.gaps().len(), 3, "each pause is a gap");

        let mut anew = bench.record.clone();
        anew.created_at = Timestamp(2);
        bench.sources.reconcile(vec![anew]).await;
        assert_eq!((bench.status().events, bench.recorder.gaps().len()), (0, 3), "one made again starts anew");

        bench.sources.reconcile(Vec::new()).await;
        assert!(bench.sources.status("up").is_none());
        assert!(bench.sources.statuses().is_empty());
    });
}

#[test]
fn a_restart_connects_a_stopped_source_again() {
    run(async {
        let scripts = vec![vec![send(head("204 No Content", ""))], vec![send(sse_head()), send("data: a\n\n"), Step::Hold]];
        let bench = Bench::new("sse", scripts).await;
        assert_eq!(bench.ending().await, "no_content");
        assert_eq!(bench.status().state, SourceState::Stopped);
        assert!(bench.sources.restart("up").await);
        assert_eq!(bench.events(1).await, ["a"]);
        assert!(!bench.status().needs_attention);
    });
}

#[test]
fn a_shutdown_hands_on_what_was_read_and_starts_nothing() {
    run(async {
        let scripts = vec![vec![send(ndjson_head()), send("1\n2\n"), Step::Hold]];
        let bench = Bench::with("ndjson", scripts, SourceSettings::default(), quick(), Recorder::taking(0)).await;
        eventually("bytes", || (bench.status().bytes > 0).then_some(())).await;
        let sources = Arc::clone(&bench.sources);
        let shutdown = tokio::spawn(async move { sources.shutdown().await });
        tokio::task::yield_now().await;
        assert!(!shutdown.is_finished(), "it waits for the hand-over");
        bench.recorder.intake.add_permits(10);
        shutdown.await.unwrap();
        assert_eq!(bench.recorder.data(), ["1", "2"]);
        assert_eq!(bench.status().state, SourceState::Stopped);
        assert_eq!(bench.skipped(), []);
        assert!(!bench.sources.restart("up").await);
        bench.sources.reconcile(vec![bench.record.clone()]).await;
        assert_eq!(bench.upstream.requests().len(), 1);
    });
}

#[test]
fn what_a_reader_hands_on_at_its_end_is_of_the_upstream_that_it_read() {
    run(async {
        let scripts = vec![vec![send(ndjson_head()), send("1\n2\n"), Step::Hold]];
        let bench = Bench::with("ndjson", scripts, SourceSettings::default(), quick(), Recorder::taking(0)).await;
        eventually("bytes", || (bench.status().bytes > 0).then_some(())).await;
        let next = Upstream::start(vec![vec![send(ndjson_head()), send("3\n"), Step::Hold]]).await;
        let spec = SourceSpec { url: next.url.clone(), ..bench.record.spec.clone() };
        let record = bench.record.with_spec(spec, Seq(0), Timestamp(2));
        let (sources, changed) = (Arc::clone(&bench.sources), record.clone());
        let change = tokio::spawn(async move { sources.reconcile(vec![changed]).await });
        tokio::task::yield_now().await;
        bench.recorder.intake.add_permits(10);
        change.await.unwrap();
        assert_eq!(bench.events(3).await, ["1", "2", "3"]);
        let (before, after) = (bench.record.incarnation(), record.incarnation());
        assert_ne!(before, after);
        // The ids of what came at last of the one before are not known to the one behind it.
        assert_eq!(bench.recorder.readers(), [(before, Seq(0)), (after, Seq(2))]);
        // There and back, unnoticed in between, is another upstream as well.
        let spec = record.spec.clone();
        let back = record.with_spec(bench.record.spec.clone(), Seq(3), Timestamp(3));
        let again = SourceRecord { revision: 3, ..back }.with_spec(spec, Seq(3), Timestamp(4));
        assert_ne!(again.incarnation(), after);
        bench.sources.reconcile(vec![again]).await;
        next.request(1).await;
    });
}

#[test]
fn an_emitter_that_goes_down_stops_the_source() {
    run(async {
        let scripts = vec![vec![send(sse_head()), send("id: 1\ndata: a\n\n"), Step::Hold]];
        let recorder = Recorder::taking(0);
        recorder.intake.close();
        let bench = Bench::with("sse", scripts, SourceSettings::default(), quick(), recorder).await;
        eventually("stopped", || (bench.status().state == SourceState::Stopped).then_some(())).await;
        let status = bench.status();
        assert_eq!((status.events, status.resume_token, status.last_error), (0, None, None));
    });
}

#[test]
fn the_time_the_relay_was_down_is_a_gap_of_older_sources() {
    run(async {
        let upstream = Upstream::start(vec![vec![send(ndjson_head()), Step::Hold]]).await;
        let recorder = Recorder::taking(9);
        let mut context = context(&recorder, quick());
        context.away_since = Some(Timestamp(1000));
        let sources = Sources::new(context);
        sources.reconcile(vec![record("ndjson", &upstream.url, SourceSettings::default())]).await;
        let gaps = eventually("a gap", || Some(recorder.gaps()).filter(|gaps| !gaps.is_empty())).await;
        assert_eq!(gaps[0].from, Timestamp(1000));
    });
}

struct Forbidding;

#[async_trait]
impl UpstreamClient for Forbidding {
    async fn fetch(&self, _: UpstreamRequest) -> Result<UpstreamResponse, ConnectFault> {
        Err(ConnectFault { slug: "blocked_address", detail: "127.0.0.1 is not public".to_owned(), forbidden: true })
    }
}

#[test]
fn a_forbidden_target_waits_for_a_person() {
    run(async {
        let recorder = Recorder::taking(1);
        let mut context = context(&recorder, hookcast_source::ReconnectSettings::default());
        context.client = Arc::new(Forbidding);
        let sources = Sources::new(context);
        sources.reconcile(vec![record("sse", "http://127.0.0.1:9/", SourceSettings::default())]).await;
        let status = eventually("an ending", || sources.status("up").filter(|status| status.last_error.is_some())).await;
        assert!(status.needs_attention);
        let error = status.last_error.unwrap();
        assert_eq!((error.slug, error.detail.as_str()), ("blocked_address", "127.0.0.1 is not public"));
        assert!(status.next_attempt_at.unwrap().since(error.at).as_secs() >= 60);
    });
}

#[test]
fn settings_are_checked_before_anything_runs() {
    let settings = SourceSettings::default();
    let pointer_of = |protocol: &str, settings: &SourceSettings| {
        check_settings(&record(protocol, "https://example.com/", settings.clone()).spec).err().map(|error| error.pointer)
    };
    assert_eq!(pointer_of("sse", &settings), None);
    assert_eq!(pointer_of("ndjson", &settings), None);
    assert_eq!(pointer_of("carrier-pigeon", &settings), Some("/protocol"));
    let with = |change: fn(&mut SourceSettings)| {
        let mut changed = SourceSettings::default();
        change(&mut changed);
        pointer_of("sse", &changed)
    };
    assert_eq!(with(|s| s.id = Some("id".to_owned())), Some("/settings/id"));
    assert_eq!(with(|s| s.time = Some("/~2".to_owned())), Some("/settings/time"));
    assert_eq!(with(|s| s.method = "PUT".to_owned()), Some("/settings/method"));
    assert_eq!(with(|s| s.body = Some(String::new())), Some("/settings/body"));
}
