//! History and jobs in memory.

use super::State;
use crate::storage::{HistoryQuery, JOBS_ENDED_MAX, LedgerTrim, limit_of};
use hookcast_core::model::history::partition_bit;
use hookcast_core::model::job::JobState;
use hookcast_core::model::{HistoryPage, RecoveryJob};

impl State {
    pub(super) fn history_pages(&self, query: HistoryQuery) -> Vec<HistoryPage> {
        let wanted = |page: &&HistoryPage| {
            page.partitions & partition_bit(query.partition) != 0
                && page.last_at >= query.from
                && page.first_at <= query.to
                && query.before.is_none_or(|before| (page.last_at, page.id) < before)
                && page.first_seq <= query.seqs.1
                && page.last_seq >= query.seqs.0
        };
        let mut found: Vec<&HistoryPage> = self.history.values().filter(wanted).collect();
        found.sort_by_key(|page| std::cmp::Reverse((page.last_at, page.id)));
        found.into_iter().take(limit_of(query.limit)).cloned().collect()
    }

    /// Drops old attempts, at most so many of each kind; `true` when there may be more.
    pub(super) fn trim_attempts(&mut self, trim: LedgerTrim) -> bool {
        let failure = |response: Option<&String>| 160 + response.map_or(0, |text| text.len() as u64);
        let failures: u64 = self.failures.iter().map(|(_, attempt)| failure(attempt.response.as_ref())).sum();
        let pages: u64 = self.history.values().map(|page| 96 + page.bytes.len() as u64).sum();
        let mut over = (failures + pages).saturating_sub(trim.attempts_bytes_max);
        // The time, the size, and a page's key or else the failure's place.
        let mut oldest: Vec<_> =
            self.history.values().map(|page| (page.last_at, Some(page.id), 96 + page.bytes.len() as u64)).collect();
        oldest.extend(self.failures.iter().map(|(_, attempt)| (attempt.at, None, failure(attempt.response.as_ref()))));
        oldest.sort_unstable();
        let (mut pages_left, mut failures_left) = (limit_of(trim.rows_max), limit_of(trim.rows_max));
        let mut failures_gone = 0;
        for (at, page, bytes) in oldest {
            if at >= trim.attempts_before && over == 0 {
                break;
            }
            over = over.saturating_sub(bytes);
            if let Some(id) = page {
                self.history.remove(&id);
                pages_left -= 1;
            } else {
                failures_gone += 1;
                failures_left -= 1;
            }
            if pages_left == 0 || failures_left == 0 {
                break;
            }
        }
        self.failures.sort_by_key(|(_, attempt)| attempt.at);
        self.failures.drain(..failures_gone);
        pages_left == 0 || failures_left == 0
    }

    pub(super) fn put_job(&mut self, job: RecoveryJob) {
        let ordinal = job.ordinal;
        self.jobs.insert((ordinal, job.id), job);
        let ended = self.jobs.values().filter(|job| job.ordinal == ordinal && job.state != JobState::Running);
        let ended: Vec<_> = ended.map(|job| (ordinal, job.id)).collect();
        for key in &ended[..ended.len().saturating_sub(limit_of(JOBS_ENDED_MAX))] {
            self.jobs.remove(key);
        }
    }
}
