//! A scripted upstream on loopback, and an emitter that remembers.

use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hookcast_core::clock::{SystemClock, Timestamp};
use hookcast_core::model::source::{Incarnation, SourceGap, SourceRecord, SourceSettings, SourceSpec};
use hookcast_core::model::{ResumeToken, Seq, Topic};
use hookcast_net::fetch::Fetcher;
use hookcast_net::tls::Tls;
use hookcast_source::{Emission, EmitError, Emitter, ReconnectSettings, Said, SourceContext, SourceStatus, Sources, Taken};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Waits until `check` gives something.
pub(crate) async fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    crate::support::eventually(what, || ready(check())).await
}

/// What one connection gets to see.
#[derive(Clone)]
pub(crate) enum Step {
    Send(Vec<u8>),
    /// Keeps the connection open until the test ends.
    Hold,
}

pub(crate) fn send(bytes: impl AsRef<[u8]>) -> Step {
    Step::Send(bytes.as_ref().to_vec())
}

/// Head of a response whose body ends with the connection.
pub(crate) fn head(status: &str, headers: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n")
}

pub(crate) fn ndjson_head() -> String {
    head("200 OK", "content-type: application/x-ndjson\r\n")
}

pub(crate) fn sse_head() -> String {
    head("200 OK", "content-type: text/event-stream\r\n")
}

/// A response that announces more than it sends.
pub(crate) fn cut_short(headers: &str, body: &[u8]) -> Step {
    send([head("200 OK", &format!("{headers}content-length: 1000000\r\n")).as_bytes(), body].concat())
}

/// Answers the n-th connection with the n-th script; later ones hang without an answer.
pub(crate) struct Upstream {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<String>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Upstream {
    pub(crate) async fn start(scripts: Vec<Vec<Step>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/stream?x=1", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let server = tokio::spawn(async move {
            let mut scripts = scripts.into_iter();
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let script = scripts.next().unwrap_or_else(|| vec![Step::Hold]);
                connections.spawn(play(stream, script, Arc::clone(&seen)));
            }
        });
        Self { url, requests, server }
    }

    /// Heads of the requests so far, in lower case.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) async fn request(&self, index: usize) -> String {
        eventually("a request", || self.requests().get(index).cloned()).await
    }
}

async fn play(mut stream: TcpStream, script: Vec<Step>, seen: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read_buf(&mut head).await {
            Ok(1..) => {}
            _ => return,
        }
    }
    seen.lock().unwrap().push(String::from_utf8_lossy(&head).to_ascii_lowercase());
    for step in script {
        match step {
            Step::Send(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Step::Hold => std::future::pending().await,
        }
    }
    let _ = stream.shutdown().await;
    // Reading to the end keeps the system from answering unread bytes with a reset.
    let _ = stream.read_to_end(&mut head).await;
}

/// Remembers everything; `intake` is how many batches it still takes before it makes sources wait.
pub(crate) struct Recorder {
    emissions: Mutex<Vec<Emission>>,
    gaps: Mutex<Vec<SourceGap>>,
    said: Mutex<Vec<Said>>,
    /// Whose each batch was, and which ids its reader left to others.
    readers: Mutex<Vec<(Incarnation, Seq)>>,
    largest_batch: AtomicUsize,
    pub(crate) intake: Semaphore,
}

impl Recorder {
    pub(crate) fn taking(batches: usize) -> Arc<Self> {
        Arc::new(Self {
            emissions: Mutex::default(),
            gaps: Mutex::default(),
            said: Mutex::default(),
            readers: Mutex::default(),
            largest_batch: AtomicUsize::new(0),
            intake: Semaphore::new(batches),
        })
    }

    pub(crate) fn emissions(&self) -> Vec<Emission> {
        self.emissions.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.emissions.lock().unwrap().len()
    }

    pub(crate) fn data(&self) -> Vec<String> {
        self.emissions().iter().map(|emission| String::from_utf8_lossy(&emission.event.data).into_owned()).collect()
    }

    pub(crate) fn gaps(&self) -> Vec<SourceGap> {
        self.gaps.lock().unwrap().clone()
    }

    /// What upstreams said of themselves.
    pub(crate) fn said(&self) -> Vec<Said> {
        self.said.lock().unwrap().clone()
    }

    pub(crate) fn readers(&self) -> Vec<(Incarnation, Seq)> {
        self.readers.lock().unwrap().clone()
    }

    pub(crate) fn largest_batch(&self) -> usize {
        self.largest_batch.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Emitter for Recorder {
    async fn emit(&self, upstream: &hookcast_source::Upstream, batch: Vec<Emission>) -> Result<Taken, EmitError> {
        assert_eq!(upstream.spec.name, "up");
        assert!(!batch.is_empty());
        self.intake.acquire().await.map_err(|_| EmitError::ShuttingDown)?.forget();
        self.largest_batch.fetch_max(batch.len(), Ordering::SeqCst);
        for emission in &batch {
            assert_eq!(emission.event.check(), Ok(()));
        }
        self.readers.lock().unwrap().push((upstream.incarnation, upstream.ids_after));
        let taken = Taken { events: batch.len(), ..Taken::default() };
        self.emissions.lock().unwrap().extend(batch);
        Ok(taken)
    }

    async fn gap(&self, _: &SourceSpec, gap: SourceGap) {
        self.gaps.lock().unwrap().push(gap);
    }

    async fn said(&self, _: &hookcast_source::Upstream, said: Said) {
        self.said.lock().unwrap().push(said);
    }

    fn head(&self) -> Seq {
        Seq(self.count() as u64)
    }
}

pub(crate) fn record(protocol: &str, url: &str, settings: SourceSettings) -> SourceRecord {
    let spec = SourceSpec {
        name: "up".to_owned(),
        protocol: protocol.to_owned(),
        url: url.to_owned(),
        topic: Topic::parse("up.events").unwrap(),
        headers: BTreeMap::new(),
        settings,
        enabled: true,
    };
    SourceRecord { revision: 1, ..SourceRecord::new(spec, Timestamp(1)) }
}

/// A source named `up` that reads an upstream into a recorder, with delays of a few milliseconds.
pub(crate) struct Bench {
    pub(crate) sources: Arc<Sources>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) upstream: Upstream,
    pub(crate) record: SourceRecord,
}

pub(crate) fn quick() -> ReconnectSettings {
    ReconnectSettings {
        delay_min: Duration::from_millis(1),
        delay_max: Duration::from_millis(20),
        ..ReconnectSettings::default()
    }
}

pub(crate) fn context(recorder: &Arc<Recorder>, reconnect: ReconnectSettings) -> SourceContext {
    let emitter: Arc<dyn Emitter> = Arc::clone(recorder) as Arc<dyn Emitter>;
    let client = Arc::new(Fetcher::new(crate::net_wire::gate(), Tls::new(&[]).unwrap()));
    SourceContext { client, emitter, clock: Arc::new(SystemClock), reconnect, away_since: None }
}

impl Bench {
    pub(crate) async fn new(protocol: &str, scripts: Vec<Vec<Step>>) -> Self {
        Self::with(protocol, scripts, SourceSettings::default(), quick(), Recorder::taking(100_000)).await
    }

    pub(crate) async fn with(
        protocol: &str,
        scripts: Vec<Vec<Step>>,
        settings: SourceSettings,
        reconnect: ReconnectSettings,
        recorder: Arc<Recorder>,
    ) -> Self {
        let upstream = Upstream::start(scripts).await;
        let record = record(protocol, &upstream.url, settings);
        let sources = Arc::new(Sources::new(context(&recorder, reconnect)));
        sources.reconcile(vec![record.clone()]).await;
        Self { sources, recorder, upstream, record }
    }

    pub(crate) fn status(&self) -> SourceStatus {
        self.sources.status("up").unwrap()
    }

    pub(crate) fn skipped(&self) -> Vec<(&'static str, u64)> {
        self.status().skipped().filter(|(_, count)| *count > 0).map(|(reason, count)| (reason.as_str(), count)).collect()
    }

    /// Waits for the first connection to end and gives the word for it.
    pub(crate) async fn ending(&self) -> String {
        eventually("an ending", || self.status().last_error.map(|error| error.slug.to_owned())).await
    }

    pub(crate) async fn events(&self, count: usize) -> Vec<String> {
        eventually("events", || (self.recorder.count() >= count).then(|| self.recorder.data())).await
    }
}

/// Runs a scenario on a runtime of its own.
pub(crate) fn run(scenario: impl Future<Output = ()>) {
    let scenario: Pin<Box<dyn Future<Output = ()> + '_>> = Box::pin(scenario);
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(scenario);
}

pub(crate) fn token(text: &str) -> Option<ResumeToken> {
    ResumeToken::parse(text)
}
