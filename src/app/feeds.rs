//! Sources joined with intake, storage and the edge.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{AppError, Ground};
use crate::clock::Clock;
use crate::delivery::notice::Notice;
use crate::follow::Follow;
use crate::http::ports::{SourceControl, SourceStatus};
use crate::ingest::{FromSource, Ingest};
use crate::model::event::DataForm;
use crate::model::source::{SourceGap, SourceRecord};
use crate::model::{NewEvent, Topic};
use crate::registry::SourceRegistry;
use crate::source::Sources;
use crate::source::webhook::Door;
use crate::source::{Emission, EmitError, Emitter, ReconnectSettings, SOURCES, SourceContext, Turn};
use crate::storage::{Catalog, StorageError};

/// Where the relay's own events go.
const NOTICE_TOPIC: &str = "hookcast.ops";

/// Names of the protocols that sources may have.
pub(super) fn protocols() -> &'static [&'static str] {
    static NAMES: std::sync::OnceLock<Vec<&'static str>> = std::sync::OnceLock::new();
    NAMES.get_or_init(|| SOURCES.iter().map(|protocol| protocol.name).collect())
}

/// Starts every source and keeps them in line with their definitions.
pub(super) async fn start(
    ground: &Ground,
    registry: &SourceRegistry,
    ingest: Ingest,
    notices: mpsc::Sender<Notice>,
) -> Result<Arc<Sources>, AppError> {
    // Nothing is known of when the last process ended, but it was at work when the newest event came in.
    let newest = ground.follow.get(ground.follow.head()).await?;
    let context = SourceContext {
        client: Arc::new(ground.fetcher()),
        emitter: Arc::new(Intake { ingest, follow: ground.follow.clone(), notices }),
        clock: Arc::clone(&ground.clock),
        reconnect: ReconnectSettings::default(),
        away_since: newest.map(|event| event.arrived_at()),
    };
    let sources = Arc::new(Sources::new(context));
    let (_, mut changes) = registry.listen();
    let (registry, running, closing) = (registry.clone(), Arc::clone(&sources), ground.closing.clone());
    tokio::spawn(async move {
        loop {
            let desired = registry.list(None, usize::MAX).iter().map(|record| (**record).clone()).collect();
            running.reconcile(desired).await;
            tokio::select! {
                change = changes.recv() => if change.is_none() { return },
                () = closing.cancelled() => return,
            }
        }
    });
    Ok(sources)
}

/// Hands events of sources to the leader.
struct Intake {
    ingest: Ingest,
    follow: Follow,
    notices: mpsc::Sender<Notice>,
}

impl Intake {
    /// Says something of a source; nobody waits for that.
    fn say(&self, notice: Notice) {
        if self.notices.try_send(notice).is_err() {
            metrics::counter!("hookcast_notices_left_out_total").increment(1);
        }
    }
}

#[async_trait]
impl Emitter for Intake {
    async fn emit(&self, source: &str, batch: Vec<Emission>) -> Result<(), EmitError> {
        let resume = batch.iter().rev().find_map(|emission| emission.resume.clone()).map(|token| (source.to_owned(), token));
        let events = batch.into_iter().map(|emission| emission.event).collect();
        let stored = self.ingest.publish_from_source(events, FromSource { resume, gap: None }).await;
        stored.map(|_| ()).map_err(|_| EmitError::ShuttingDown)
    }

    async fn gap(&self, gap: SourceGap) {
        tracing::warn!(source.name = gap.source, from = %gap.from, to = %gap.to, "the upstream was missed for a while");
        let gap = SourceGap { at_seq: self.follow.head(), ..gap };
        self.say(Notice::source_gap(&gap));
        if let Err(error) = self.ingest.publish_from_source(Vec::new(), FromSource { resume: None, gap: Some(gap) }).await {
            tracing::error!(%error, "a gap could not be stored");
        }
    }

    async fn turned(&self, source: &str, turn: Turn) {
        self.say(match turn {
            Turn::Down { since, reason, detail } => Notice::source_down(source, since, reason, &detail),
            Turn::Up { down_since } => Notice::source_up(source, down_since),
        });
    }
}

/// Takes notices into the log under [`NOTICE_TOPIC`]; once `end` is cancelled, those that wait are the last.
pub(super) async fn take_notices(
    ingest: Ingest,
    clock: Arc<dyn Clock>,
    mut notices: mpsc::Receiver<Notice>,
    end: CancellationToken,
) {
    loop {
        let notice = tokio::select! {
            biased;
            notice = notices.recv() => notice,
            () = end.cancelled() => None,
        };
        let Some(notice) = notice else { return };
        let now = clock.now();
        let mut data = notice.data;
        data["at"] = now.to_string().into();
        let event = NewEvent {
            topic: Topic::parse(NOTICE_TOPIC).expect("invariant: a well-formed topic"),
            id: uuid::Uuid::now_v7().to_string(),
            own_id: false,
            source: "/hookcast".to_owned(),
            kind: notice.kind.to_owned(),
            subject: Some(notice.subject.clone()),
            time: None,
            arrived_at: now,
            content_type: "application/json".to_owned(),
            data_schema: None,
            extensions: Vec::new(),
            hops: 0,
            form: DataForm::Json,
            data: Bytes::from(data.to_string()),
        };
        if let Err(error) = ingest.publish(vec![event]).await {
            tracing::warn!(%error, notice.kind, notice.subject, "a notice was not taken into the log");
        }
    }
}

/// What the edge sees of sources.
pub(super) struct Control {
    pub(super) sources: Arc<Sources>,
    pub(super) catalog: Arc<dyn Catalog>,
}

#[async_trait]
impl SourceControl for Control {
    async fn status(&self, name: &str) -> Option<SourceStatus> {
        let status = self.sources.status(name)?;
        Some(SourceStatus {
            state: status.state.as_str(),
            last_event_at: status.last_event_at,
            resume_token: status.resume_token.clone(),
            events: status.events,
            bytes: status.bytes,
            skipped: status
                .skipped()
                .filter(|(_, count)| *count > 0)
                .map(|(reason, count)| (reason.as_str().to_owned(), count))
                .collect(),
            reconnects: status.reconnects,
            gaps: status.gaps,
            last_error: status.last_error.as_ref().map(|error| format!("{}: {}", error.slug, error.detail)),
        })
    }

    async fn restart(&self, name: &str) {
        self.sources.restart(name).await;
    }

    fn door(&self, record: &SourceRecord) -> Option<Arc<Door>> {
        self.sources.door(record)
    }

    async fn gaps(&self, name: &str, limit: u32) -> Result<Vec<SourceGap>, StorageError> {
        self.catalog.gaps(name, limit).await
    }
}
