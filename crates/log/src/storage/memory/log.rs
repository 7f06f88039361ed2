//! The log in memory: a queue of pages. It knows nothing of who reads it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;

use super::{Memory, State, conflict};
use crate::storage::{
    Append, Bounds, EventLog, FingerprintChunk, LogRead, Result, kept_apart, leave_out, page_time, pages_follow,
};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::{Event, Page, Seq};

#[async_trait]
impl EventLog for Memory {
    fn log_id(&self) -> &str {
        &self.log_id
    }

    async fn append(&self, append: Append) -> Result<()> {
        let state = &mut *self.state();
        let mut bounds = state.bounds();
        if append.expected_head != bounds.head || !pages_follow(&append.pages, bounds.head) {
            return Err(conflict(format!("the log stands at {}, not at {}", bounds.head, append.expected_head)));
        }
        for page in append.pages {
            bounds.head = page.last();
            bounds.bytes += page.bytes().len() as u64;
            state.pages.push_back(page);
        }
        state.bounds = Some(bounds);
        for position in append.resume_tokens {
            match state.sources.get_mut(&position.source) {
                Some(source) if source.incarnation() == position.incarnation => source.resume_token = Some(position.token),
                _ => leave_out(&position),
            }
        }
        state.fingerprints.extend(append.fingerprints.into_iter().map(|chunk| (chunk.first, chunk)));
        state.gaps.extend(append.gaps);
        Ok(())
    }

    async fn read(&self, after: Seq, bytes_max: usize) -> Result<LogRead> {
        let state = self.state();
        let start = state.pages.partition_point(|page| page.last() <= after);
        let mut bytes = 0;
        let fits = |page: &&Arc<Page>| {
            let first = bytes == 0;
            bytes += page.bytes().len();
            first || bytes <= bytes_max
        };
        Ok(LogRead { damaged: None, pages: state.pages.range(start..).take_while(fits).cloned().collect() })
    }

    async fn get(&self, seqs: &[Seq]) -> Result<Vec<Event>> {
        let state = self.state();
        let wanted: BTreeSet<Seq> = seqs.iter().copied().collect();
        Ok(wanted.into_iter().filter_map(|seq| state.event(seq)).collect())
    }

    async fn purge(&self, seq: Seq) -> Result<bool> {
        let state = &mut *self.state();
        let at = state.pages.partition_point(|page| page.last() < seq);
        if let Some(page) = state.pages.get_mut(at)
            && let Some(purged) = page.purged(seq)
        {
            let bounds = state.bounds.as_mut().expect("invariant: a log with pages has bounds");
            bounds.bytes = bounds.bytes - page.bytes().len() as u64 + purged.bytes().len() as u64;
            *page = purged;
        }
        if let Some(event) = state.kept.get_mut(&seq)
            && let Some(purged) = event.page().purged(seq).and_then(|page| page.get(seq))
        {
            *event = purged;
        }
        Ok(state.event(seq).is_some())
    }

    async fn bounds(&self) -> Result<Bounds> {
        Ok(self.state().bounds())
    }

    async fn before_time(&self, time: Timestamp) -> Result<Seq> {
        let state = self.state();
        let page = state.pages.iter().find(|page| page_time(page) >= time);
        Ok(page.map_or(state.bounds().head, |page| page.first().prev()))
    }

    async fn trim(&self, older_than: Timestamp, bytes_max: u64, pages_max: u32) -> Result<(Bounds, bool)> {
        let state = &mut *self.state();
        for _ in 0..pages_max {
            if !state.can_drop(older_than, bytes_max) {
                break;
            }
            state.drop_oldest();
        }
        Ok((state.bounds(), state.can_drop(older_than, bytes_max)))
    }

    async fn fingerprints(&self) -> Result<Vec<FingerprintChunk>> {
        Ok(self.state().fingerprints.values().cloned().collect())
    }

    async fn drop_fingerprints(&self, oldest: Seq) -> Result<()> {
        self.state().fingerprints.retain(|_, chunk| chunk.last >= oldest);
        Ok(())
    }

    async fn writable(&self) -> Result<()> {
        Ok(())
    }
}

impl State {
    fn event(&self, seq: Seq) -> Option<Event> {
        let at = self.pages.partition_point(|page| page.last() < seq);
        self.pages.get(at).and_then(|page| page.get(seq)).or_else(|| self.kept.get(&seq).cloned())
    }

    fn can_drop(&self, older_than: Timestamp, bytes_max: u64) -> bool {
        let old = |page: &Arc<Page>| page_time(page) < older_than;
        self.pages.len() > 1 && (self.bounds().bytes > bytes_max || self.pages.front().is_some_and(old))
    }

    fn drop_oldest(&mut self) {
        let Some(page) = self.pages.pop_front() else { return };
        let needed: HashMap<Seq, Event> =
            self.exceptions.keys().filter_map(|(_, seq)| page.get(*seq).map(|event| (*seq, kept_apart(&event)))).collect();
        self.kept.extend(needed);
        let bounds = self.bounds();
        let bytes = bounds.bytes - page.bytes().len() as u64;
        self.bounds = Some(Bounds { first: page.last().next(), bytes, ..bounds });
    }
}
