//! A relay inside the test's process, whose clock and log panic for real where a test wants it.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hookcast::app::{App, Foundation};
use hookcast::config::Config;
use hookcast_core::clock::{Clock, SystemClock, Timestamp};
use hookcast_core::model::delivery::ExpiredRange;
use hookcast_core::model::subscription::Ordinal;
use hookcast_core::model::{Attempt, Event, Exception, ExceptionState, HistoryPage, Jumps, RecoveryJob, Seq};
use hookcast_log::storage::{
    Append, AttemptKey, BACKENDS, Bounds, Catalog, Checkpoint, EventLog, FingerprintChunk, HistoryQuery, LateAppend, Lease,
    Ledger, LedgerChange, LedgerTrim, LedgerTrimmed, LogRead, Marks, PageRequest, Result, Room, StorageSettings, Store,
};
use hookcast_supervise::readiness::{Ending, Readiness};
use serde_json::{Value, json};

use crate::support::{PATIENCE, SECRET, eventually};

/// Less than a relay gives what is in flight.
const WELL_BELOW_THE_GRACE: Duration = Duration::from_secs(20);

/// Panics in the code that calls a clock or a log from within a function of this name.
#[derive(Debug, Default)]
pub(crate) struct Trap {
    function: Mutex<Function>,
    times: AtomicU32,
}

impl Trap {
    /// Panics so often where `function` is on the stack.
    pub(crate) fn arm(&self, function: &str, times: u32) {
        *self.function.lock().unwrap() = Function { name: function.to_owned(), places: places_of(function) };
        self.times.store(times, Ordering::SeqCst);
    }

    pub(crate) fn is_sprung(&self) -> bool {
        self.times.load(Ordering::SeqCst) == 0
    }

    fn step_on(&self) {
        if self.is_sprung() {
            return;
        }
        let function = self.function.lock().unwrap().clone();
        if function.is_on_the_stack()
            && self.times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |times| times.checked_sub(1)).is_ok()
        {
            panic!("the trap in {}", function.name);
        }
    }
}

/// A function, as `module::name` or `Type::name`.
#[derive(Clone, Debug, Default)]
struct Function {
    name: String,
    places: Vec<(String, RangeInclusive<usize>)>,
}

impl Function {
    /// By its name, or by its lines where the compiler put it into its caller and its name is gone.
    fn is_on_the_stack(&self) -> bool {
        let stack = std::backtrace::Backtrace::force_capture().to_string();
        stack.contains(&self.name)
            || self.places.iter().any(|(file, lines)| {
                let place = format!("{file}:");
                let mut found = stack.split(place.as_str()).skip(1);
                found.any(|rest| {
                    rest.split(':').next().and_then(|line| line.parse::<usize>().ok()).is_some_and(|line| lines.contains(&line))
                })
            })
    }
}

/// Where functions of this name stand: files below the project's folder, and their lines.
fn places_of(function: &str) -> Vec<(String, RangeInclusive<usize>)> {
    let (owner, name) = function.rsplit_once("::").unwrap_or(("", function));
    let owner = owner.trim_end_matches('>').rsplit("::").next().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut places) = (vec![root.join("src"), root.join("crates")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let is_its_owner = |line: &str| line.starts_with("impl") && line.trim_end_matches(" {").ends_with(owner);
            if path.file_stem().is_none_or(|stem| stem != owner) && !text.lines().any(is_its_owner) {
                continue;
            }
            let lines: Vec<&str> = text.lines().collect();
            for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.contains(&format!("fn {name}("))) {
                let indent = line.len() - line.trim_start().len();
                let end = format!("{}}}", " ".repeat(indent));
                let length = lines[at..].iter().position(|line| *line == end).unwrap();
                let file = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                places.push((file, at + 1..=at + 1 + length));
            }
        }
    }
    places
}

#[derive(Debug)]
struct TrapClock(Arc<Trap>);

impl Clock for TrapClock {
    fn now(&self) -> Timestamp {
        self.0.step_on();
        SystemClock.now()
    }
}

struct TrapLog(Arc<dyn EventLog>, Arc<Trap>);

#[async_trait]
impl EventLog for TrapLog {
    fn log_id(&self) -> &str {
        self.0.log_id()
    }

    fn home(&self) -> Option<tokio::runtime::Handle> {
        self.0.home()
    }

    fn jumps(&self) -> &Jumps {
        self.0.jumps()
    }

    fn room(&self) -> Option<Room> {
        self.0.room()
    }

    async fn append(&self, append: Append) -> Result<()> {
        self.0.append(append).await
    }

    async fn append_late(&self, make: LateAppend) -> Result<()> {
        self.1.step_on();
        self.0.append_late(make).await
    }

    async fn read(&self, after: Seq, bytes_max: usize) -> Result<LogRead> {
        self.1.step_on();
        self.0.read(after, bytes_max).await
    }

    async fn get(&self, seqs: &[Seq]) -> Result<Vec<Event>> {
        self.1.step_on();
        self.0.get(seqs).await
    }

    async fn purge(&self, seq: Seq) -> Result<bool> {
        self.0.purge(seq).await
    }

    async fn bounds(&self) -> Result<Bounds> {
        self.0.bounds().await
    }

    async fn before_time(&self, time: Timestamp) -> Result<Seq> {
        self.1.step_on();
        self.0.before_time(time).await
    }

    async fn trim(&self, older_than: Timestamp, bytes_max: u64, pages_max: u32) -> Result<(Bounds, bool)> {
        self.0.trim(older_than, bytes_max, pages_max).await
    }

    async fn fingerprints(&self) -> Result<Vec<FingerprintChunk>> {
        self.0.fingerprints().await
    }

    async fn drop_fingerprints(&self, first: Seq) -> Result<()> {
        self.0.drop_fingerprints(first).await
    }

    async fn writable(&self) -> Result<()> {
        self.0.writable().await
    }
}

struct TrapLedger(Arc<dyn Ledger>, Arc<Trap>);

/// The whole of it steps on the trap.
macro_rules! ledger {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl Ledger for TrapLedger {
            $(async fn $name(&self, $($argument: $kind),*) -> Result<$answer> {
                self.1.step_on();
                self.0.$name($($argument),*).await
            })*
        }
    };
}

ledger! {
    lease(partition: u16) -> Lease;
    load(partition: u16) -> Checkpoint;
    exceptions(partition: u16) -> (Vec<Exception>, Vec<(Ordinal, u64)>);
    commit(changes: Vec<LedgerChange>) -> ();
    exception(ordinal: Ordinal, seq: Seq) -> Option<Exception>;
    list(ordinal: Ordinal, state: ExceptionState, page: PageRequest) -> Vec<Exception>;
    failures(ordinal: Ordinal, seq: Option<Seq>, limit: u32) -> Vec<Attempt>;
    failures_before(ordinal: Ordinal, since: Timestamp, before: AttemptKey, limit: u32) -> Vec<Attempt>;
    history(query: HistoryQuery) -> Vec<HistoryPage>;
    count_dead(ordinal: Ordinal, from: Seq, to: Seq) -> u64;
    dead_among(ordinal: Ordinal, seqs: &[Seq]) -> Vec<Seq>;
    running_jobs(partition: u16) -> Vec<RecoveryJob>;
    jobs(ordinal: Ordinal) -> Vec<RecoveryJob>;
    marks(ordinal: Ordinal, seq: Seq) -> Marks;
    expired(ordinal: Ordinal, limit: u32) -> Vec<ExpiredRange>;
    trim(trim: LedgerTrim) -> LedgerTrimmed;
    forget(ordinal: Ordinal) -> ();
}

/// A relay in the directory that has this trap in it.
pub(crate) async fn trapped(config: &Config, directory: &Path, trap: &Arc<Trap>) -> (App, Arc<dyn Catalog>) {
    let readiness = Readiness::default();
    let settings = StorageSettings { readiness: readiness.clone(), ..crate::storage::settings(&directory.join("hookcast.db")) };
    let sqlite = BACKENDS.iter().find(|backend| backend.scheme == "sqlite").unwrap();
    let store = (sqlite.open)(settings).await.unwrap();
    let log = Arc::new(TrapLog(Arc::clone(&store.log), Arc::clone(trap)));
    let ledger = Arc::new(TrapLedger(Arc::clone(&store.ledger), Arc::clone(trap)));
    let (catalog, administration, below) = (Arc::clone(&store.catalog), Arc::clone(&store.administration), store);
    let store = Store::new(log, ledger, Arc::clone(&catalog), administration, move || {
        let below = below.clone();
        Box::pin(async move { below.close().await })
    });
    let clock = Arc::new(TrapClock(Arc::clone(trap)));
    (App::start_over(config, Foundation { store, clock, readiness }).await.unwrap(), catalog)
}

/// The relay, in a directory that outlives its restarts.
pub(crate) struct House {
    directory: tempfile::TempDir,
    app: Option<App>,
    readiness: Readiness,
    pub(crate) url: String,
    pub(crate) tcp: Option<SocketAddr>,
    pub(crate) catalog: Option<Arc<dyn Catalog>>,
    pub(crate) trap: Arc<Trap>,
    pub(crate) client: reqwest::Client,
}

impl House {
    pub(crate) async fn start() -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut house = Self {
            directory: tempfile::tempdir().unwrap(),
            app: None,
            readiness: Readiness::default(),
            url: String::new(),
            tcp: None,
            catalog: None,
            trap: Arc::default(),
            client,
        };
        house.restart().await;
        house
    }

    pub(crate) async fn restart(&mut self) {
        assert!(self.app.is_none(), "it runs");
        let text = "[server]\nlisten = \"127.0.0.1:0\"\ntcp_listen = \"127.0.0.1:0\"\n[network]\nallow = [\"127.0.0.0/8\"]\n[delivery]\nlanes = 1\n\
            [websub]\ntopics = [\"offered.**\"]\nlease_max = \"1h\"\n[limit_groups.one]\nmax_in_flight = 1\n";
        let config = Config::parse(text, "test", &[], &["sse", "ndjson"]).unwrap();
        let (app, catalog) = trapped(&config, self.directory.path(), &self.trap).await;
        self.readiness = app.readiness().clone();
        self.url = format!("http://{}", app.address());
        self.tcp = app.tcp_address();
        (self.app, self.catalog) = (Some(app), Some(catalog));
    }

    /// Stops it; fails when that takes about as long as what is in flight may.
    pub(crate) async fn stop(&mut self) {
        let stopping = self.app.take().unwrap().stop();
        tokio::time::timeout(WELL_BELOW_THE_GRACE, stopping).await.expect("an end before the grace is over");
    }

    /// Waits until the process would have to end.
    pub(crate) async fn must_end(&self) -> Ending {
        tokio::time::timeout(PATIENCE, self.readiness.ended()).await.expect("an end in time")
    }

    pub(crate) fn must_not_end(&self) {
        assert_eq!(futures_util::FutureExt::now_or_never(self.readiness.ended()), None);
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let mut request = self.client.request(method.parse().unwrap(), format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.bytes().await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    pub(crate) async fn must(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, value) = self.ask(method, path, Some(&body)).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {value}");
        value
    }

    pub(crate) async fn subscribe(&self, id: &str, url: &str, more: Value) {
        let mut body = json!({"id": id, "url": url, "topics": ["t"], "signature": {"scheme": "standard", "secret": SECRET}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.must("POST", "/v1/subscriptions", body).await;
    }

    /// Publishes one event; its position, or the status of a refusal.
    pub(crate) async fn publish(&self, n: u64) -> std::result::Result<u64, u16> {
        let (status, answer) = self.ask("POST", "/v1/topics/t/events", Some(&json!({ "n": n }))).await;
        if status == 202 { Ok(answer["events"][0]["seq"].as_u64().unwrap()) } else { Err(status) }
    }

    pub(crate) async fn status_becomes(&self, id: &str, wanted: Value) -> Value {
        let path = format!("/v1/subscriptions/{id}/status");
        eventually(&format!("{id} {wanted}"), async || {
            let status = self.ask("GET", &path, None).await.1;
            wanted.as_object().unwrap().iter().all(|(name, value)| &status[name] == value).then_some(status)
        })
        .await
    }

    /// Pointers of what keeps it from being ready.
    pub(crate) async fn not_ready(&self) -> Vec<String> {
        let (status, answer) = self.ask("GET", "/readyz", None).await;
        let errors = answer["errors"].as_array().cloned().unwrap_or_default();
        assert_eq!(status == 200, errors.is_empty(), "{status} {answer}");
        errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
    }
}
