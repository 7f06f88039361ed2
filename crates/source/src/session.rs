//! What a protocol works with: asks the upstream, reads chunks under the watch, gathers records and hands them on.
//!
//! The upstream's position moves only with events that were handed on. Stopping never interrupts a hand-over: it ends the
//! reading, and what was read is handed on first.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connection::{BodyFault, UpstreamBody};
use super::credentials::Credentials;
use super::reconnect::{Ending, EndingClass, Next, Reconnect};
use super::record::{EventMapper, Record};
use super::status::{SkippedSample, StatusCell};
use super::watch::Turn;
use super::{BATCH_BYTES_SOFT_MAX, BATCH_EVENTS_MAX, Emission, EmitError, Said, SourceContext, Taken, Upstream};
use hookcast_core::clock::Timestamp;
use hookcast_core::codec::SkipReason;
use hookcast_core::model::source::{SourceGap, SourceSpec};
use hookcast_core::model::{ResumeToken, Seq};
use hookcast_supervise::deadline::by;

mod asking;

/// Chunks that go into one batch without waiting for them.
const READY_CHUNKS_MAX: u32 = 64;

type Storing = Pin<Box<dyn Future<Output = Result<Taken, EmitError>> + Send>>;

/// A batch that is being stored.
struct UnderWay {
    /// The mutex is never locked; it makes the session one that threads may share.
    stored: Mutex<Storing>,
    events: usize,
    /// The upstream's position with it.
    position: Option<ResumeToken>,
    arrived_at: Timestamp,
}

impl std::fmt::Debug for UnderWay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnderWay").field("events", &self.events).finish_non_exhaustive()
    }
}

/// The working state of one source between start and stop.
#[derive(Debug)]
pub struct Session {
    upstream: Arc<Upstream>,
    context: SourceContext,
    status: Arc<StatusCell>,
    stop: CancellationToken,
    mapper: EventMapper,
    policy: Reconnect,
    /// The position of everything that was handed on.
    resume: Option<ResumeToken>,
    /// The position of everything that was read; becomes `resume` with the batch.
    position: Option<ResumeToken>,
    batch: Vec<Emission>,
    batch_bytes: usize,
    /// What was handed on and is being stored.
    under_way: Option<Box<UnderWay>>,
    /// Chunks that were taken since something was handed on, without waiting for them.
    ready_chunks: u32,
    /// When what is being gathered came in.
    arrived_at: Timestamp,
    /// Records seen on this connection.
    records: u64,
    connected: bool,
    credentials: Credentials,
}

impl Session {
    pub(super) fn new(
        upstream: Arc<Upstream>,
        mut context: SourceContext,
        status: Arc<StatusCell>,
        stop: CancellationToken,
        seed: [u8; 16],
    ) -> Self {
        let spec = &upstream.spec;
        Self {
            mapper: EventMapper::new(spec, seed),
            policy: Reconnect::of_profile(context.reconnect, spec.settings.own.profile()),
            resume: status.resume_token(),
            position: status.resume_token(),
            batch: Vec::new(),
            batch_bytes: 0,
            under_way: None,
            ready_chunks: 0,
            arrived_at: context.clock.now(),
            records: 0,
            connected: false,
            credentials: Credentials::of(spec, &mut context),
            upstream,
            context,
            status,
            stop,
        }
    }

    /// The definition of the source.
    #[must_use]
    pub fn spec(&self) -> &SourceSpec {
        &self.upstream.spec
    }

    /// The upstream's position after everything that was handed on.
    #[must_use]
    pub fn resume(&self) -> Option<&ResumeToken> {
        self.resume.as_ref()
    }

    /// The upstream is being read from now on; tells of the gap since the last time when it cannot be made good.
    pub async fn connected(&mut self) {
        let now = self.context.clock.now();
        self.connected = true;
        self.records = 0;
        self.policy.connected(now);
        let (from, turn) = self.status.connected();
        if let Some(turn) = turn {
            self.context.emitter.turned(&self.upstream.spec.name, turn).await;
        }
        let Some(from) = from else { return };
        if self.resume.is_none() {
            self.status.gap();
            let gap = SourceGap { source: self.upstream.spec.name.clone(), from, to: now, at_seq: Seq::ZERO };
            self.context.emitter.gap(&self.upstream.spec, gap).await;
        }
    }

    /// Is called instead of calling: counts as connected until it is stopped. There is no gap, because who calls tries again.
    pub async fn stand(&mut self) -> Ending {
        self.status.connected();
        self.stop.cancelled().await;
        Ending::cancelled()
    }

    /// The next bytes of a body; `None` at its clean end.
    ///
    /// # Errors
    /// The [`Ending`] that a broken body, silence or being stopped means.
    pub async fn next_chunk(&mut self, body: &mut dyn UpstreamBody) -> Result<Option<Bytes>, Ending> {
        self.next_chunk_by(body, Instant::now() + self.idle_timeout()).await
    }

    /// [`Session::next_chunk`] for readers that are woken by other things too: silence lasts until `deadline`.
    pub(super) async fn next_chunk_by(
        &mut self,
        body: &mut dyn UpstreamBody,
        deadline: Instant,
    ) -> Result<Option<Bytes>, Ending> {
        let next = by(deadline, body.next_chunk());
        let next = self.stop.run_until_cancelled(next).await.ok_or_else(Ending::cancelled)?;
        let next = next.ok_or_else(|| Ending::new(EndingClass::Lost, "idle", "nothing came within the idle timeout"))?;
        self.came(next)
    }

    /// The next bytes of a body if they are there already, while something waits to be handed on; for so long only that it
    /// does not wait much.
    pub fn ready_chunk(&mut self, body: &mut dyn UpstreamBody) -> Option<Result<Option<Bytes>, Ending>> {
        if self.batch.is_empty() || self.ready_chunks >= READY_CHUNKS_MAX || self.stop.is_cancelled() {
            return None;
        }
        let next = body.next_chunk().now_or_never()?;
        self.ready_chunks += 1;
        Some(self.came(next))
    }

    fn came(&mut self, next: Option<Result<Bytes, BodyFault>>) -> Result<Option<Bytes>, Ending> {
        self.arrived_at = self.context.clock.now();
        match next {
            None => Ok(None),
            Some(Ok(chunk)) => {
                self.status.read(chunk.len());
                Ok(Some(chunk))
            }
            Some(Err(fault)) => Err(Ending::new(EndingClass::Lost, fault.slug, fault.detail)),
        }
    }

    /// Gathers a record; [`Session::is_full`] says when to hand on.
    pub fn record(&mut self, record: Record) {
        self.records += 1;
        self.batch_bytes += record.data.len();
        let resume = record.resume.clone();
        if resume.is_some() {
            self.position.clone_from(&resume);
        }
        let event = self.mapper.event(record, self.arrived_at);
        self.batch.push(Emission { event, resume });
    }

    /// Counts a record that is left out.
    pub fn skipped(&mut self, reason: SkipReason, head: Bytes) {
        self.records += 1;
        self.status.skipped(SkippedSample { reason, at: self.arrived_at, record: self.records, head });
    }

    /// The upstream's position moved without an event.
    pub fn moved(&mut self, resume: Option<ResumeToken>) {
        self.position = resume;
    }

    /// Has the position stored that was handed on; for one that no event carries.
    pub async fn store_position(&self) {
        if let Some(position) = self.resume.clone() {
            self.context.emitter.moved(&self.upstream, position).await;
        }
    }

    /// Tells of something wrong with an upstream that is being read.
    pub async fn alarm(&self, slug: &'static str, detail: String, turn: Turn) {
        self.status.alarm(slug, detail, self.now());
        self.context.emitter.turned(&self.upstream.spec.name, turn).await;
    }

    /// Whether the upstream is being read.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    /// The upstream wants this delay between connections.
    pub fn retry(&mut self, delay: Duration) {
        self.policy.set_retry(delay);
    }

    /// Passes on what the upstream says about its stream, behind everything that came before.
    ///
    /// # Errors
    /// The [`Ending`] when the relay is going down.
    pub async fn said(&mut self, said: Said) -> Result<(), Ending> {
        self.flush().await?;
        self.context.emitter.said(&self.upstream, said).await;
        Ok(())
    }

    /// Whether as much was gathered as is handed on at once.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.batch.len() >= BATCH_EVENTS_MAX || self.batch_bytes >= BATCH_BYTES_SOFT_MAX
    }

    /// Hands on what was gathered, once what was handed on before is stored; goes on while it is being stored.
    ///
    /// # Errors
    /// The [`Ending`] when the relay is going down.
    pub async fn hand_on(&mut self) -> Result<(), Ending> {
        self.settle().await?;
        self.ready_chunks = 0;
        if self.batch.is_empty() {
            return Ok(());
        }
        let events = self.batch.len();
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(events));
        self.batch_bytes = 0;
        let (emitter, upstream) = (Arc::clone(&self.context.emitter), Arc::clone(&self.upstream));
        let mut stored: Storing = Box::pin(async move { emitter.emit(&upstream, batch).await });
        // Asked once, so that it stands in the queue; whoever waits for it asks again.
        let early = (&mut stored).now_or_never();
        let under_way =
            UnderWay { stored: Mutex::new(stored), events, position: self.position.clone(), arrived_at: self.arrived_at };
        match early {
            None => self.under_way = Some(Box::new(under_way)),
            Some(outcome) => self.settled(&under_way, outcome)?,
        }
        Ok(())
    }

    /// Hands on what was gathered and waits until it is stored.
    ///
    /// # Errors
    /// The [`Ending`] when the relay is going down.
    pub async fn flush(&mut self) -> Result<(), Ending> {
        self.hand_on().await?;
        self.settle().await?;
        if self.resume != self.position {
            self.resume.clone_from(&self.position);
            self.status.set_resume_token(self.resume.clone());
        }
        Ok(())
    }

    /// Waits until what was handed on is stored.
    async fn settle(&mut self) -> Result<(), Ending> {
        let Some(mut under_way) = self.under_way.take() else { return Ok(()) };
        let outcome = under_way.stored.get_mut().unwrap_or_else(PoisonError::into_inner).await;
        self.settled(&under_way, outcome)
    }

    fn settled(&mut self, under_way: &UnderWay, outcome: Result<Taken, EmitError>) -> Result<(), Ending> {
        let Ok(taken) = outcome else {
            self.batch.clear();
            self.position.clone_from(&self.resume);
            return Err(Ending::cancelled());
        };
        self.status.handed_on(taken, under_way.arrived_at);
        let dropped = self.mapper.take_dropped();
        if dropped > 0 {
            self.status.attributes_dropped(dropped);
        }
        if self.resume != under_way.position {
            self.resume.clone_from(&under_way.position);
            self.status.set_resume_token(self.resume.clone());
        }
        Ok(())
    }

    pub(super) fn connecting(&mut self) {
        self.records = 0;
        self.status.connecting();
    }

    /// Judges an ending: how long to wait before the next connection, or `None` to stop.
    pub(super) fn ended(&mut self, ending: &Ending, random: u64) -> Option<Duration> {
        let now = self.context.clock.now();
        if std::mem::take(&mut self.connected) {
            self.status.disconnected(now);
        }
        self.batch.clear();
        self.batch_bytes = 0;
        self.position.clone_from(&self.resume);
        let next = match self.policy.ended(ending, self.records > 0, now, random) {
            Next::After(delay) => Some(delay),
            Next::Stop => None,
        };
        self.status.ended(ending, now, next.map(|delay| now.plus(delay)));
        next
    }

    /// Tells that the source is down, once that is so.
    pub(super) async fn tell(&self, ending: &Ending, goes_on: bool) {
        if let Some(turn) = self.status.watch(ending, goes_on, self.context.clock.now()) {
            self.context.emitter.turned(&self.upstream.spec.name, turn).await;
        }
    }

    /// Waits; `false` when the source is stopped meanwhile.
    pub(super) async fn wait(&self, delay: Duration) -> bool {
        if delay.is_zero() {
            return !self.stop.is_cancelled();
        }
        self.stop.run_until_cancelled(tokio::time::sleep(delay)).await.is_some()
    }

    pub(super) fn idle_timeout(&self) -> Duration {
        self.upstream.spec.settings.idle_timeout
    }
}
