//! What a protocol works with: asks the upstream, reads chunks under the watch, gathers records and hands them on.
//!
//! The upstream's position moves only with events that were handed on. Stopping never interrupts a hand-over: it ends the
//! reading, and what was read is handed on first.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::connection::{self, UpstreamBody, UpstreamResponse};
use super::reconnect::{Ending, EndingClass, Next, Reconnect};
use super::record::{EventMapper, Record};
use super::status::{SkippedSample, StatusCell};
use super::{BATCH_BYTES_SOFT_MAX, BATCH_EVENTS_MAX, Emission, SourceContext};
use crate::clock::Timestamp;
use crate::codec::SkipReason;
use crate::model::source::{SourceGap, SourceSpec};
use crate::model::{ResumeToken, Seq};

/// The working state of one source between start and stop.
#[derive(Debug)]
pub struct Session {
    spec: Arc<SourceSpec>,
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
    /// When what is being gathered came in.
    arrived_at: Timestamp,
    /// Records seen on this connection.
    records: u64,
    connected: bool,
}

impl Session {
    pub(super) fn new(
        spec: Arc<SourceSpec>,
        context: SourceContext,
        status: Arc<StatusCell>,
        stop: CancellationToken,
        seed: [u8; 16],
    ) -> Self {
        Self {
            mapper: EventMapper::new(&spec, seed),
            policy: Reconnect::new(context.reconnect),
            resume: status.resume_token(),
            position: status.resume_token(),
            batch: Vec::new(),
            batch_bytes: 0,
            arrived_at: context.clock.now(),
            records: 0,
            connected: false,
            spec,
            context,
            status,
            stop,
        }
    }

    /// The definition of the source.
    #[must_use]
    pub fn spec(&self) -> &SourceSpec {
        &self.spec
    }

    /// The upstream's position after everything that was handed on.
    #[must_use]
    pub fn resume(&self) -> Option<&ResumeToken> {
        self.resume.as_ref()
    }

    /// Sends the source's request and waits for a 200 or 204.
    ///
    /// # Errors
    /// The [`Ending`] that any other answer, none within the idle timeout, or being stopped means.
    pub async fn request(&mut self, accept: &'static str) -> Result<UpstreamResponse, Ending> {
        let request = connection::request(&self.spec, accept, self.resume.as_ref());
        let answer = tokio::time::timeout(self.idle_timeout(), self.context.client.fetch(request));
        let answer = self.stop.run_until_cancelled(answer).await.ok_or_else(Ending::cancelled)?;
        let answer = answer.map_err(|_| Ending::new(EndingClass::Failed, "timeout", "the upstream does not answer"))?;
        let response = answer.map_err(|fault| {
            let class = if fault.forbidden { EndingClass::Denied } else { EndingClass::Failed };
            Ending::new(class, fault.slug, fault.detail)
        })?;
        match connection::refusal(response.status, &response.headers, self.context.clock.now()) {
            Some(ending) => Err(ending),
            None => Ok(response),
        }
    }

    /// The upstream is being read from now on; tells of the gap since the last time when it cannot be made good.
    pub async fn connected(&mut self) {
        let now = self.context.clock.now();
        self.connected = true;
        self.records = 0;
        self.policy.connected(now);
        let (from, turn) = self.status.connected();
        if let Some(turn) = turn {
            self.context.emitter.turned(&self.spec.name, turn).await;
        }
        let Some(from) = from else { return };
        if self.resume.is_none() {
            self.status.gap();
            let gap = SourceGap { source: self.spec.name.clone(), from, to: now, at_seq: Seq::ZERO };
            self.context.emitter.gap(gap).await;
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
        let next = tokio::time::timeout(self.idle_timeout(), body.next_chunk());
        let next = self.stop.run_until_cancelled(next).await.ok_or_else(Ending::cancelled)?;
        let next = next.map_err(|_| Ending::new(EndingClass::Lost, "idle", "nothing came within the idle timeout"))?;
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

    /// The upstream wants this delay between connections.
    pub fn retry(&mut self, delay: Duration) {
        self.policy.set_retry(delay);
    }

    /// Whether as much was gathered as is handed on at once.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.batch.len() >= BATCH_EVENTS_MAX || self.batch_bytes >= BATCH_BYTES_SOFT_MAX
    }

    /// Hands on what was gathered; waits while the relay is busy.
    ///
    /// # Errors
    /// The [`Ending`] when the relay is going down.
    pub async fn flush(&mut self) -> Result<(), Ending> {
        if !self.batch.is_empty() {
            let events = self.batch.len();
            let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(events));
            self.batch_bytes = 0;
            if self.context.emitter.emit(&self.spec.name, batch).await.is_err() {
                self.position.clone_from(&self.resume);
                return Err(Ending::cancelled());
            }
            self.status.handed_on(events, self.arrived_at);
            let dropped = self.mapper.take_dropped();
            if dropped > 0 {
                self.status.attributes_dropped(dropped);
            }
        }
        if self.resume != self.position {
            self.resume.clone_from(&self.position);
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
            self.context.emitter.turned(&self.spec.name, turn).await;
        }
    }

    /// Waits; `false` when the source is stopped meanwhile.
    pub(super) async fn wait(&self, delay: Duration) -> bool {
        if delay.is_zero() {
            return !self.stop.is_cancelled();
        }
        self.stop.run_until_cancelled(tokio::time::sleep(delay)).await.is_some()
    }

    fn idle_timeout(&self) -> Duration {
        self.spec.settings.idle_timeout
    }
}
