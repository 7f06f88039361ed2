//! Sources joined with intake, storage and the edge.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::telling::Teller;
use super::{AppError, Ground};
use hookcast_core::clock::{Clock, Timestamp};
use hookcast_core::model::event::DataForm;
use hookcast_core::model::source::{SourceGap, SourcePosition, SourceRecord, SourceSpec};
use hookcast_core::model::{NewEvent, ResumeToken, Seq, Topic};
use hookcast_delivery::notice::{NOTICES_MAX, Notice};
use hookcast_http::ports::{SourceControl, SourceStatus};
use hookcast_log::follow::Follow;
use hookcast_log::ingest::{FromSource, Ingest, Offer, Placed};
use hookcast_log::storage::{Catalog, StorageError};
use hookcast_registry::SourceRegistry;
use hookcast_source::Sources;
use hookcast_source::webhook::Door;
use hookcast_source::{Emission, EmitError, Emitter, ReconnectSettings, SOURCES, Said, SourceContext, Taken, Turn, Upstream};

/// Where the relay's own events go.
const NOTICE_TOPIC: &str = "hookcast.ops";

/// Type of the event that tells of a gap of its source.
const GAP_TYPE: &str = "hookcast.source.gap";
/// Shortest distance of two notices that one source gave an id away again.
const REUSED_TOLD_EVERY: Duration = Duration::from_mins(1);

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
        emitter: Arc::new(Intake {
            ingest,
            follow: ground.follow.clone(),
            notices,
            clock: Arc::clone(&ground.clock),
            told_reused: Mutex::default(),
        }),
        clock: Arc::clone(&ground.clock),
        reconnect: ReconnectSettings::default(),
        away_since: newest.map(|event| event.arrived_at()),
    };
    let sources = Arc::new(Sources::new(context));
    let (registry, running, closing) = (registry.clone(), Arc::clone(&sources), ground.closing.clone());
    let keep = async move || {
        let (_, mut changes) = registry.listen();
        loop {
            let desired = registry.list(None, usize::MAX).iter().map(|record| (**record).clone()).collect();
            running.reconcile(desired).await;
            tokio::select! {
                change = changes.recv() => if change.is_none() { return },
                () = closing.cancelled() => return,
            }
        }
    };
    ground.supervisor.restarted("sources", keep).spawn();
    Ok(sources)
}

/// Hands events of sources to the leader.
struct Intake {
    ingest: Ingest,
    follow: Follow,
    notices: mpsc::Sender<Notice>,
    clock: Arc<dyn Clock>,
    /// When it was said last of a source that it gave an id away again; only what still keeps the next word back.
    told_reused: Mutex<BTreeMap<String, Timestamp>>,
}

impl Intake {
    /// Whether it may be said now that a source gave an id away again.
    fn may_tell_reused(&self, source: &str) -> bool {
        let now = self.clock.now();
        let mut told = self.told_reused.lock().unwrap_or_else(PoisonError::into_inner);
        // Also a word from what is the future now, after a clock that was set back, keeps nothing back.
        told.retain(|_, at| *at <= now && now.since(*at) < REUSED_TOLD_EVERY);
        if told.contains_key(source) {
            return false;
        }
        told.insert(source.to_owned(), now);
        true
    }

    /// Says something of a source; nobody waits for that.
    fn say(&self, notice: Notice) {
        if self.notices.try_send(notice).is_err() {
            metrics::counter!("hookcast_notices_left_out_total").increment(1);
        }
    }

    /// Counts what became of a batch, and says it when an id was given away again.
    fn took(&self, source: &str, placed: &[Placed], offer: &Offer) -> Taken {
        let count = |is: fn(&&Placed) -> bool| placed.iter().filter(is).count();
        let taken = Taken {
            events: count(|placed| !placed.duplicate),
            repeats: count(|placed| placed.duplicate && placed.other.is_none()),
            reused_ids: count(|placed| placed.other.is_some()),
        };
        for (kind, count) in [("repeats", taken.repeats), ("reused_ids", taken.reused_ids)] {
            if count > 0 {
                metrics::counter!("hookcast_source_ids_known_total", "kind" => kind).increment(count as u64);
            }
        }
        let reused = placed.iter().zip(offer.ids()).find_map(|(placed, id)| Some((placed, id, placed.other?)));
        if let Some((placed, id, earlier)) = reused
            && self.may_tell_reused(source)
        {
            let seq = (!placed.duplicate).then_some(placed.seq);
            self.say(Notice::source_id_reused(source, id, seq, earlier));
        }
        taken
    }
}

impl Intake {
    /// Purges what a source wants forgotten; gives its position.
    async fn purge(&self, upstream: &Upstream, id: &str) -> Option<Seq> {
        let spec = &upstream.spec;
        let seq = self.ingest.position(spec.topic.as_str(), &format!("/sources/{}", spec.name), id)?;
        // Up to there, the id is that of an event of another upstream.
        if seq <= upstream.ids_after {
            return None;
        }
        match self.follow.purge(seq).await {
            Ok(is_known) => is_known.then_some(seq),
            Err(error) => {
                tracing::error!(%error, source.name = %spec.name, seq = seq.0, "an event could not be purged");
                None
            }
        }
    }
}

#[async_trait]
impl Emitter for Intake {
    async fn emit(&self, upstream: &Upstream, batch: Vec<Emission>) -> Result<Taken, EmitError> {
        let spec = &upstream.spec;
        let (events, resume) = Emission::parts(batch);
        let resume = resume.map(|token| position_of(upstream, token));
        // As the reader knows them: by now the record may be one of another upstream.
        let from = FromSource { resume, gap: None, on_reused_id: spec.settings.on_reused_id, ids_after: upstream.ids_after };
        let offer = Arc::new(Offer::of_source(&events));
        drop(events);
        let placed = self.ingest.publish_from_source(Arc::clone(&offer), from).await.map_err(|_| EmitError::ShuttingDown)?;
        Ok(self.took(&spec.name, &placed, &offer))
    }

    async fn gap(&self, spec: &SourceSpec, gap: SourceGap) {
        metrics::counter!("hookcast_source_gaps_total", "source" => gap.source.clone()).increment(1);
        let gap = SourceGap { at_seq: self.follow.head(), ..gap };
        self.say(Notice::source_gap(&gap));
        let event = gap_event(spec, &gap);
        if let Err(error) = self
            .ingest
            .publish_from_source(Arc::new(Offer::of_source(&[event])), FromSource { gap: Some(gap), ..FromSource::default() })
            .await
        {
            tracing::error!(%error, "a gap could not be stored");
        }
    }

    async fn moved(&self, upstream: &Upstream, position: ResumeToken) {
        let from = FromSource { resume: Some(position_of(upstream, position)), ..FromSource::default() };
        if let Err(error) = self.ingest.publish_from_source(Arc::default(), from).await {
            tracing::warn!(source.name = %upstream.spec.name, %error, "the position of a source could not be stored");
        }
    }

    fn head(&self) -> Seq {
        self.follow.head()
    }

    async fn said(&self, upstream: &Upstream, said: Said) {
        let spec = &upstream.spec;
        metrics::counter!("hookcast_source_said_total", "source" => spec.name.clone(), "kind" => said.kind).increment(1);
        let purged = match &said.purge {
            Some(id) => self.purge(upstream, id).await,
            None => None,
        };
        self.say(Notice::source_said(said.kind, &spec.name, &said.data, purged));
    }

    async fn turned(&self, source: &str, turn: Turn) {
        self.say(match turn {
            Turn::Down { since, reason, detail } => Notice::source_down(source, since, reason, &detail),
            Turn::CursorWentBack { from, to } => Notice::source_cursor_went_back(source, &from, &to),
            Turn::Up { down_since } => Notice::source_up(source, down_since),
        });
    }
}

/// A position, as the one of this upstream and no other that its source may read by now.
fn position_of(upstream: &Upstream, token: ResumeToken) -> SourcePosition {
    SourcePosition { source: upstream.spec.name.clone(), incarnation: upstream.incarnation, token }
}

/// What readers of a source's topic see of a gap: an event between those before it and those behind it.
fn gap_event(spec: &SourceSpec, gap: &SourceGap) -> NewEvent {
    let data = serde_json::json!({ "source": gap.source, "from": gap.from.to_string(), "to": gap.to.to_string() });
    NewEvent {
        topic: spec.topic.clone(),
        id: uuid::Uuid::now_v7().to_string(),
        own_id: false,
        source: format!("/sources/{}", spec.name),
        kind: GAP_TYPE.to_owned(),
        subject: None,
        time: None,
        arrived_at: gap.to,
        content_type: "application/json".to_owned(),
        data_schema: None,
        extensions: Vec::new(),
        hops: 0,
        form: DataForm::Json,
        data: Bytes::from(data.to_string()),
    }
}

/// Takes notices: into the log, and into the log of events under [`NOTICE_TOPIC`]; once `end` is cancelled, those that wait are
/// the last.
pub(super) fn take_notices(ground: &Ground, ingest: Ingest, mut notices: mpsc::Receiver<Notice>, end: CancellationToken) {
    let (publish, mut told) = mpsc::channel(NOTICES_MAX);
    let clock = Arc::clone(&ground.clock);
    let tell = async move || tell_notices(&mut notices, &publish, &end).await;
    ground.supervisor.restarted("notices-log", tell).spawn();
    let publish = async move || publish_notices(&ingest, clock.as_ref(), &mut told).await;
    ground.supervisor.restarted("notices", publish).spawn();
}

/// Tells the log what notices say, and hands them on to be published as far as they are taken in time; once `end` is
/// cancelled, those that wait are the last.
async fn tell_notices(notices: &mut mpsc::Receiver<Notice>, publish: &mpsc::Sender<Notice>, end: &CancellationToken) {
    let mut teller = Teller::new(Instant::now());
    loop {
        let due_at = teller.due_at();
        let due = async {
            match due_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let notice = tokio::select! {
            biased;
            notice = notices.recv() => notice,
            () = end.cancelled() => None,
            () = due => {
                teller.catch_up(Instant::now(), false);
                continue;
            }
        };
        let Some(notice) = notice else { break };
        teller.hear(&notice, Instant::now());
        if !notice.is_for_the_log && publish.try_send(notice).is_err() {
            metrics::counter!("hookcast_notices_left_out_total").increment(1);
        }
    }
    teller.catch_up(Instant::now(), true);
}

/// Takes notices into the log of events under [`NOTICE_TOPIC`], until there are no more.
async fn publish_notices(ingest: &Ingest, clock: &dyn Clock, notices: &mut mpsc::Receiver<Notice>) {
    while let Some(notice) = notices.recv().await {
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
            repeats: status.repeats,
            reused_ids: status.reused_ids,
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
