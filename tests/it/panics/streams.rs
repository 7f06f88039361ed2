//! The tasks of streams, with formats and allowances that panic for real.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use actix_web::rt;
use hookcast_core::clock::{SystemClock, Timestamp};
use hookcast_core::model::{PageBuilder, Seq};
use hookcast_log::follow::Follow;
use hookcast_log::storage::{Append, Store, memory};
use hookcast_log::tail::{Tail, TailSettings};
use hookcast_streams::format::{FORMATS, Format, Style};
use hookcast_streams::start::Start;
use hookcast_streams::{Allowance, Ask, Egress, EgressSettings, Worker, plain};
use hookcast_supervise::Supervisor;
use hookcast_supervise::readiness::Readiness;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::streams::relay::event;
use crate::support::{eventually, in_time};

/// How many calls panic.
struct Fuse(AtomicU32);

impl Fuse {
    fn light(&self) {
        self.0.store(1, Ordering::SeqCst);
    }

    fn burn(&self, what: &str) {
        let is_lit = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        assert!(!is_lit, "the fuse of {what}");
    }
}

static EVENT: Fuse = Fuse(AtomicU32::new(0));
static HEARTBEAT: Fuse = Fuse(AtomicU32::new(0));
static ALLOWED: Fuse = Fuse(AtomicU32::new(0));

/// The first format, whose events may panic.
static BREAKS_ON_EVENTS: Format = Format {
    name: "breaks-on-events",
    event: |out, event, style| {
        EVENT.burn("an event");
        (FORMATS[0].event)(out, event, style);
    },
    ..FORMATS[0]
};

/// The first format, whose heartbeat may panic.
static BREAKS_ON_SILENCE: Format = Format {
    name: "breaks-on-silence",
    heartbeat: |out, seq| {
        HEARTBEAT.burn("a heartbeat");
        (FORMATS[0].heartbeat)(out, seq);
    },
    ..FORMATS[0]
};

#[derive(Debug)]
struct Allowed;

impl Allowance for Allowed {
    fn is_over(&self, _: Timestamp) -> bool {
        ALLOWED.burn("an allowance");
        false
    }
}

/// Streams of one worker over a log in memory.
struct Streams {
    store: Store,
    tail: Arc<Tail>,
    worker: Worker,
    readiness: Readiness,
    closing: CancellationToken,
}

impl Streams {
    fn start() -> Self {
        let (store, readiness, closing) = (memory::open().unwrap(), Readiness::default(), CancellationToken::new());
        let tail = Arc::new(Tail::new(TailSettings::default(), Seq(1), Seq::ZERO));
        let follow = Follow::new(Arc::clone(&store.log), Arc::clone(&tail));
        let settings = EgressSettings { tick: Duration::from_millis(10), ..EgressSettings::default() };
        let supervisor = Supervisor::over(readiness.clone());
        let egress = Egress::new(follow, Arc::new(SystemClock), closing.clone(), settings, supervisor);
        Self { store, tail, worker: egress.worker(), readiness, closing }
    }

    async fn publish(&self) {
        let head = self.tail.head();
        let mut page = PageBuilder::starting_at(head.next());
        page.push(&event("t", "message", "{}"));
        let pages = vec![page.finish()];
        self.store.log.append(Append { pages: pages.clone(), expected_head: head, ..Append::default() }).await.unwrap();
        self.tail.publish(&pages);
    }

    /// A client from the head on, that is never silent for longer than `heartbeat`.
    async fn listen(&self, format: &'static Format, heartbeat: Duration, allowance: Option<Rc<dyn Allowance>>) -> Heard {
        let ask = Ask {
            patterns: "t".parse().unwrap(),
            types: Vec::new(),
            filter: None,
            format,
            style: Style::default(),
            padding: false,
            start: Start::Latest,
            limit: None,
            max_duration: None,
            heartbeat: Some(heartbeat),
            origins: Vec::new(),
        };
        let stream = plain::open(&self.worker, ask, allowance).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        rt::spawn(stream.write_to(listener.accept().await.unwrap().0));
        Heard(BufReader::new(client))
    }

    async fn not_ready_becomes(&self, task: Option<&str>) {
        eventually(&format!("not ready: {task:?}"), async || {
            let pointers: Vec<_> = self.readiness.troubles().into_iter().map(|trouble| trouble.pointer).collect();
            (pointers == task.map(|task| format!("/task/{task}")).into_iter().collect::<Vec<_>>()).then_some(())
        })
        .await;
    }
}

struct Heard(BufReader<TcpStream>);

impl Heard {
    /// The next line, silence included; `None` at the end.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = in_time(self.0.read_line(&mut line)).await.unwrap();
        (read > 0).then_some(line)
    }

    async fn seq(&mut self) -> u64 {
        loop {
            let line = self.line().await.expect("it goes on");
            if line.trim().is_empty() {
                continue;
            }
            let event: serde_json::Value = serde_json::from_str(&line).unwrap();
            return event["seq"].as_str().unwrap().parse().unwrap();
        }
    }
}

const QUIET: Duration = Duration::from_hours(1);
const RESTLESS: Duration = Duration::from_millis(10);

#[actix_rt::test(system = "crate::support::System")]
async fn a_feeder_that_panics_is_started_again_and_no_stream_misses_anything() {
    let streams = Streams::start();
    let mut broken = streams.listen(&BREAKS_ON_EVENTS, QUIET, None).await;
    let mut other = streams.listen(&FORMATS[0], QUIET, None).await;
    streams.publish().await;
    assert_eq!((broken.seq().await, other.seq().await), (1, 1));
    EVENT.light();
    streams.publish().await;
    streams.not_ready_becomes(Some("stream-feeder-1")).await;
    streams.publish().await;
    for heard in [&mut broken, &mut other] {
        assert_eq!((heard.seq().await, heard.seq().await), (2, 3));
    }
    streams.not_ready_becomes(None).await;
    streams.publish().await;
    assert_eq!((broken.seq().await, other.seq().await), (4, 4));
    streams.closing.cancel();
    assert_eq!((broken.line().await, other.line().await), (None, None));
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_clock_of_streams_that_panics_is_started_again_and_goes_on_to_beat() {
    let streams = Streams::start();
    let allowance: Rc<dyn Allowance> = Rc::new(Allowed);
    let mut heard = streams.listen(&FORMATS[0], RESTLESS, Some(Rc::clone(&allowance))).await;
    assert_eq!(heard.line().await.as_deref(), Some("\n"));
    ALLOWED.light();
    streams.not_ready_becomes(Some("stream-clock-1")).await;
    streams.not_ready_becomes(None).await;
    let late = streams.listen(&FORMATS[0], RESTLESS, None).await;
    for mut heard in [heard, late] {
        assert_eq!(heard.line().await.as_deref(), Some("\n"));
    }
    streams.closing.cancel();
}

#[actix_rt::test(system = "crate::support::System")]
async fn a_stream_whose_writing_panics_ends_and_no_other_does() {
    let streams = Streams::start();
    let mut other = streams.listen(&BREAKS_ON_SILENCE, QUIET, None).await;
    let mut broken = streams.listen(&BREAKS_ON_SILENCE, RESTLESS, None).await;
    assert_eq!(broken.line().await.as_deref(), Some("\n"));
    HEARTBEAT.light();
    while broken.line().await.is_some() {}
    assert_eq!(HEARTBEAT.0.load(Ordering::SeqCst), 0);
    streams.publish().await;
    assert_eq!(other.seq().await, 1);
    streams.not_ready_becomes(None).await;
    streams.closing.cancel();
    assert_eq!(other.line().await, None);
}
