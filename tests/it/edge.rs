//! A real HTTP edge on a free port over a store in memory, with scripted deliveries and sources behind it.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hookcast::clock::{SystemClock, Timestamp};
use hookcast::delivery::inspect::{DeliveryState, DeliveryView, Redrive};
use hookcast::delivery::question::SubscriptionStatus;
use hookcast::egress::{Egress, EgressSettings};
use hookcast::follow::Follow;
use hookcast::http::auth::{Auth, AuthSettings};
use hookcast::http::ports::{Deliveries, SourceControl, SourceStatus};
use hookcast::http::{DefinitionDefaults, HttpLimits, HttpState, ServerSettings, serve};
use hookcast::ingest::{DedupeSettings, Ingest};
use hookcast::model::source::SourceGap;
use hookcast::model::subscription::SubscriptionRecord;
use hookcast::model::{Attempt, Exception, ExceptionState, Seq};
use hookcast::registry::{Registry, SourceRegistry};
use hookcast::storage::{PageRequest, StorageError, memory};
use hookcast::tail::{Tail, TailSettings};
use tokio_util::sync::CancellationToken;

/// What a test may choose.
pub struct Options {
    pub auth: AuthSettings,
    pub limits: HttpLimits,
    pub server: ServerSettings,
}

impl Default for Options {
    fn default() -> Self {
        let server = ServerSettings { shutdown_timeout: Duration::ZERO, ..ServerSettings::default() };
        Self { auth: AuthSettings::default(), limits: HttpLimits::default(), server }
    }
}

/// A running edge; it ends with the test's runtime.
pub struct Edge {
    pub address: SocketAddr,
    pub state: Arc<HttpState>,
    pub behind: Arc<Behind>,
    pub client: reqwest::Client,
}

impl Edge {
    pub async fn start(options: Options) -> Self {
        let store = memory::open().unwrap();
        let tail = Arc::new(Tail::new(TailSettings::default(), Seq(1), Seq::ZERO));
        let clock = Arc::new(SystemClock);
        let dedupe = DedupeSettings { max_age: Duration::from_hours(1), max_ids: 10_000 };
        let (ingest, _) = Ingest::start(store.log.clone(), tail.clone(), clock.clone(), dedupe).await.unwrap();
        let behind = Arc::new(Behind::default());
        let state = Arc::new(HttpState {
            auth: Arc::new(Auth::new(options.auth, clock.clone())),
            registry: Registry::open(store.catalog.clone()).await.unwrap(),
            sources: SourceRegistry::open(store.catalog.clone()).await.unwrap(),
            follow: Follow::new(store.log.clone(), tail),
            readiness: store.log.clone(),
            ingest,
            deliveries: behind.clone(),
            source_control: behind.clone(),
            urls: Arc::new(|url: &str| {
                if url.starts_with("https://") { Ok(url.to_owned()) } else { Err(("https_required", "use https".to_owned())) }
            }),
            protocols: &["ndjson", "sse"],
            defaults: DefinitionDefaults { timeout: Duration::from_secs(15), max_in_flight: 16 },
            metrics: Some(Arc::new(|| "hookcast_up 1\n".to_owned())),
            limits: options.limits,
            clock,
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let egress = Egress::new(state.follow.clone(), state.clock.clone(), CancellationToken::new(), EgressSettings::default());
        tokio::spawn(serve(listener, state.clone(), options.server, &egress).unwrap());
        Self { address, state, behind, client: reqwest::Client::new() }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// Deliveries and sources that do what the test says and remember what they were asked.
#[derive(Default)]
pub struct Behind {
    pub calls: Mutex<Vec<String>>,
    pub exceptions: Mutex<Vec<Exception>>,
    pub cursor: Mutex<Seq>,
}

impl Behind {
    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

pub fn attempt(seq: u64) -> Attempt {
    Attempt {
        seq: Seq(seq),
        n: 1,
        at: Timestamp(1_700_000_000_123),
        outcome: "failure".to_owned(),
        status: Some(500),
        error: Some("status".to_owned()),
        latency_ms: 12,
        response: Some("oops".to_owned()),
    }
}

#[async_trait]
impl Deliveries for Behind {
    async fn status(&self, _: &Arc<SubscriptionRecord>) -> Result<Option<(SubscriptionStatus, Option<Timestamp>)>, StorageError> {
        let status = SubscriptionStatus {
            cursor: *self.cursor.lock().unwrap(),
            head: Seq(9),
            lag: 2,
            oldest_undelivered: Some(Seq(8)),
            in_flight: 1,
            retrying: 3,
            dead: 4,
            expired: 5,
            circuit: "half_open",
            delivered_total: 6,
            failed_attempts_total: 7,
            last_attempt: Some(attempt(7)),
            is_failing: true,
        };
        Ok(Some((status, Some(Timestamp(0)))))
    }

    async fn ping(&self, record: &Arc<SubscriptionRecord>) -> Option<Attempt> {
        assert_ne!(record.spec.id.as_str(), "panics", "a secret of the inside");
        self.note(format!("ping {}", record.spec.id));
        Some(attempt(0))
    }

    async fn seek(&self, record: &Arc<SubscriptionRecord>, after: Seq) -> bool {
        self.note(format!("seek {} {after}", record.spec.id));
        true
    }

    async fn redrive(&self, record: &Arc<SubscriptionRecord>, which: Redrive) -> Result<u64, StorageError> {
        self.note(format!("redrive {} {which:?}", record.spec.id));
        Ok(2)
    }

    async fn delivery(&self, _: &Arc<SubscriptionRecord>, seq: Seq) -> Result<Option<DeliveryView>, StorageError> {
        let view = DeliveryView {
            state: DeliveryState::Retrying,
            reason: Some("status_500".to_owned()),
            attempts: vec![attempt(seq.0)],
            next_attempt_at: Some(Timestamp(1_700_000_005_000)),
        };
        Ok((seq == Seq(7)).then_some(view))
    }

    async fn exceptions(
        &self,
        _: &SubscriptionRecord,
        state: ExceptionState,
        page: PageRequest,
    ) -> Result<Vec<Exception>, StorageError> {
        let all = self.exceptions.lock().unwrap();
        let wanted = all.iter().filter(|exception| exception.state == state && exception.seq > page.after);
        Ok(wanted.take(page.limit as usize).cloned().collect())
    }
}

#[async_trait]
impl SourceControl for Behind {
    async fn status(&self, name: &str) -> Option<SourceStatus> {
        (name == "running").then(|| SourceStatus { state: "connected", events: 3, ..SourceStatus::default() })
    }

    async fn restart(&self, name: &str) {
        self.note(format!("restart {name}"));
    }

    async fn gaps(&self, name: &str, _: u32) -> Result<Vec<SourceGap>, StorageError> {
        Ok(vec![SourceGap { source: name.to_owned(), from: Timestamp(0), to: Timestamp(1000), at_seq: Seq(2) }])
    }
}
