//! A real HTTP edge on a free port over a store in memory, with scripted deliveries and sources behind it.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hookcast_core::clock::{SystemClock, Timestamp};
use hookcast_core::model::job::{JobKind, JobState, Selection};
use hookcast_core::model::source::SourceGap;
use hookcast_core::model::subscription::{Ordinal, SubscriptionRecord};
use hookcast_core::model::{Attempt, Exception, ExceptionState, JobId, RecoveryJob, Seq};
use hookcast_delivery::attempts::{AttemptsPage, AttemptsQuery};
use hookcast_delivery::question::{Stillness, SubscriptionStatus};
use hookcast_delivery::recovery::{Count, Recovering, Recovery};
use hookcast_delivery::telling::{DeliveryState, DeliveryView};
use hookcast_delivery::undelivered::UndeliveredPage;
use hookcast_http::audit::Audit;
use hookcast_http::auth::{Auth, AuthSettings};
use hookcast_http::ports::{Deliveries, SourceControl, SourceStatus};
use hookcast_http::tokens::Tokens;
use hookcast_http::{DefinitionDefaults, HttpLimits, HttpState, ServerSettings, serve};
use hookcast_log::follow::Follow;
use hookcast_log::ingest::{DedupeSettings, Ingest};
use hookcast_log::storage::{PageRequest, StorageError, Store, memory};
use hookcast_log::tail::{Tail, TailSettings};
use hookcast_registry::{Registry, SourceRegistry};
use hookcast_streams::{Egress, EgressSettings};
use hookcast_supervise::readiness::Readiness;
use tokio_util::sync::CancellationToken;

/// What a test may choose.
pub(crate) struct Options {
    pub(crate) auth: AuthSettings,
    pub(crate) limits: HttpLimits,
    pub(crate) server: ServerSettings,
    /// Called for `/metrics`, on the thread of the worker.
    pub(crate) metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

impl Default for Options {
    fn default() -> Self {
        let server = ServerSettings { shutdown_timeout: Duration::ZERO, ..ServerSettings::default() };
        Self {
            auth: AuthSettings::default(),
            limits: HttpLimits::default(),
            server,
            metrics: Arc::new(|| "hookcast_up 1\n".to_owned()),
        }
    }
}

/// A running edge; it ends with the test's runtime.
pub(crate) struct Edge {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<HttpState>,
    pub(crate) behind: Arc<Behind>,
    pub(crate) client: reqwest::Client,
}

impl Edge {
    pub(crate) async fn start(options: Options) -> Self {
        let store = memory::open().unwrap();
        let tail = Arc::new(Tail::new(TailSettings::default(), Seq(1), Seq::ZERO));
        let behind = Arc::new(Behind::default());
        let mut state = state_over(&store, tail, &behind, options.auth, options.limits).await;
        Arc::get_mut(&mut state).unwrap().metrics = Some(options.metrics);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let egress = Egress::new(
            state.follow.clone(),
            state.clock.clone(),
            CancellationToken::new(),
            EgressSettings::default(),
            hookcast_supervise::Supervisor::default(),
        );
        tokio::spawn(serve(listener, state.clone(), options.server, &egress).unwrap());
        Self { address, state, behind, client: reqwest::Client::new() }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// What handlers work with, over a store in memory.
pub(crate) async fn state_over(
    store: &Store,
    tail: Arc<Tail>,
    behind: &Arc<Behind>,
    auth: AuthSettings,
    limits: HttpLimits,
) -> Arc<HttpState> {
    let clock = Arc::new(SystemClock);
    let dedupe = DedupeSettings { max_age: Duration::from_hours(1), max_ids: 10_000 };
    let (ingest, _) =
        Ingest::start(store.log.clone(), tail.clone(), clock.clone(), dedupe, &hookcast_supervise::Supervisor::default())
            .await
            .unwrap();
    let declared = auth.tokens.clone();
    let auth = Arc::new(Auth::new(auth, clock.clone()));
    Arc::new(HttpState {
        tokens: Tokens::open(store.administration.clone(), auth.clone(), declared).await.unwrap(),
        audit: Arc::new(Audit::new(store.administration.clone(), clock.clone())),
        auth,
        registry: Registry::open(store.catalog.clone()).await.unwrap(),
        sources: SourceRegistry::open(store.catalog.clone()).await.unwrap(),
        follow: Follow::new(store.log.clone(), tail),
        readiness: Readiness::default(),
        log: store.log.clone(),
        ingest,
        deliveries: behind.clone(),
        source_control: behind.clone(),
        hub: None,
        senders: hookcast_http::webhook::Senders::default(),
        urls: Arc::new(|url: &str| {
            if url.starts_with("https://") { Ok(url.to_owned()) } else { Err(("https_required", "use https".to_owned())) }
        }),
        texts: Arc::new(hookcast_registry::Texts::default()),
        protocols: &["ndjson", "sse"],
        defaults: DefinitionDefaults { timeout: Duration::from_secs(15), max_in_flight: 16 },
        metrics: None,
        limits,
        cors_origins: vec!["https://pages.example".to_owned()],
        clock,
    })
}

/// Deliveries and sources that do what the test says and remember what they were asked.
#[derive(Default)]
pub(crate) struct Behind {
    pub(crate) calls: Mutex<Vec<String>>,
    pub(crate) exceptions: Mutex<Vec<Exception>>,
    pub(crate) cursor: Mutex<Seq>,
}

impl Behind {
    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

pub(crate) fn attempt(seq: u64) -> Attempt {
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

/// A job that is half done.
fn job(ordinal: Ordinal, kind: JobKind) -> RecoveryJob {
    RecoveryJob {
        ordinal,
        id: JobId(0x1234),
        kind,
        selection: Selection::Failed,
        from: Seq(1),
        to: Seq(9),
        state: JobState::Running,
        position: Seq(4),
        events: 2,
        done: 1,
        failed: 0,
        created_at: Timestamp(1_700_000_000_000),
        ended_at: None,
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
            skipped: 0,
            circuit: "half_open",
            delivered_total: 6,
            failed_attempts_total: 7,
            filtering: hookcast_delivery::sieve::Filtering::default(),
            last_attempt: Some(attempt(7)),
            is_failing: true,
        };
        Ok(Some((status, Some(Timestamp(0)))))
    }

    async fn failing(&self, records: &[Arc<SubscriptionRecord>]) -> Option<HashSet<Ordinal>> {
        Some(records.iter().map(|record| record.ordinal).collect())
    }

    async fn ping(&self, record: &Arc<SubscriptionRecord>) -> Option<Attempt> {
        assert_ne!(record.spec.id.as_str(), "panics", "a secret of the inside");
        self.note(format!("ping {}", record.spec.id));
        Some(attempt(0))
    }

    async fn freeze(&self, _: &Arc<SubscriptionRecord>) -> Option<(Seq, Stillness)> {
        Some((self.cursor.lock().unwrap().next(), Stillness::default()))
    }

    async fn seek(&self, record: &Arc<SubscriptionRecord>, after: Seq) -> Result<bool, StorageError> {
        self.note(format!("seek {} {after}", record.spec.id));
        Ok(true)
    }

    async fn recover(&self, record: &Arc<SubscriptionRecord>, what: Recovery) -> Result<Recovering, StorageError> {
        let Recovery { kind, selection, from, to } = what;
        self.note(format!("{} {} {selection:?} {from}-{to}", kind.word(), record.spec.id));
        Ok(if selection == Selection::All { Recovering::TooMany } else { Recovering::Job(Box::new(job(record.ordinal, kind))) })
    }

    async fn count(&self, _: &Arc<SubscriptionRecord>, what: &Recovery) -> Result<Count, StorageError> {
        self.note(format!("count {:?} {}-{}", what.selection, what.from, what.to));
        Ok(Count { events: 7, is_exact: true })
    }

    async fn jobs(&self, record: &Arc<SubscriptionRecord>) -> Result<Option<Vec<RecoveryJob>>, StorageError> {
        Ok(Some(vec![job(record.ordinal, JobKind::Redrive)]))
    }

    async fn cancel(&self, record: &Arc<SubscriptionRecord>, id: JobId) -> Result<Option<RecoveryJob>, StorageError> {
        self.note(format!("cancel {} {id}", record.spec.id));
        Ok(None)
    }

    async fn skip(&self, record: &Arc<SubscriptionRecord>, to: Seq) -> Result<bool, StorageError> {
        self.note(format!("skip {} {to}", record.spec.id));
        Ok(true)
    }

    async fn attempts(&self, _: &Arc<SubscriptionRecord>, query: AttemptsQuery) -> Result<Option<AttemptsPage>, StorageError> {
        self.note(format!(
            "attempts {:?} since {} before {:?} limit {}",
            query.is_success, query.since.0, query.before, query.limit
        ));
        Ok(Some(AttemptsPage { items: vec![attempt(7)], next: Some((Timestamp(5), Seq(7), 2, true)) }))
    }

    async fn undelivered(&self, _: &Arc<SubscriptionRecord>, page: PageRequest) -> Result<Option<UndeliveredPage>, StorageError> {
        let all = self.exceptions.lock().unwrap();
        let mut items: Vec<_> = all.iter().map(|exception| (exception.seq, Some(exception.clone()))).collect();
        items.push((Seq(9), None));
        items.truncate(page.limit as usize);
        let next = items.last().map(|(seq, _)| *seq);
        Ok(Some(UndeliveredPage { items, next }))
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

    async fn dead_letters(&self, _: &Arc<SubscriptionRecord>, page: PageRequest) -> Result<Option<Vec<Exception>>, StorageError> {
        let all = self.exceptions.lock().unwrap();
        let wanted = all.iter().filter(|exception| exception.state == ExceptionState::Dead && exception.seq > page.after);
        Ok(Some(wanted.take(page.limit as usize).cloned().collect()))
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
