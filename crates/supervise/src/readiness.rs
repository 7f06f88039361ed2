//! What is wrong with the relay as a whole right now, and whether it must end.
//!
//! Any task reports under a pointer (`/storage/writer`, `/task/lane-1`) and takes it back when it is well again; `/readyz`
//! shows what is there, and the program ends the process when somebody says that it must. A report and its end are each a
//! line in the log, at most one a minute for each pointer; what was told already is no error again. It must not know who reports.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// A pointer that turns again within this time is not told again.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// Something that keeps the relay from being ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Who has it, as a JSON pointer.
    pub pointer: String,
    /// What is wrong, in one sentence.
    pub detail: String,
}

/// Why the process must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The exit code that tells it.
    pub exit_code: u8,
    /// What is wrong, in one sentence.
    pub reason: String,
}

/// What is known of the whole. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    known: Mutex<BTreeMap<String, Known>>,
    ending: OnceLock<Ending>,
    ends: CancellationToken,
}

/// A pointer that was ever reported.
#[derive(Debug, Default)]
struct Known {
    /// Present while something is wrong.
    detail: Option<String>,
    told_at: Option<Instant>,
    /// Whether the trouble that is there was told.
    is_told: bool,
}

impl Readiness {
    /// Says that something is wrong; said again, the newer detail stands.
    pub fn report(&self, pointer: &str, detail: impl Into<String>) {
        self.report_at(pointer, detail.into(), Instant::now());
    }

    /// The same of what whoever reports has told the log already, which is not told as an error again.
    pub fn report_told(&self, pointer: &str, detail: impl Into<String>) {
        tracing::info!(pointer, "the relay is not ready");
        let mut known = self.known();
        let one = known.entry(pointer.to_owned()).or_default();
        (one.detail, one.is_told) = (Some(detail.into()), true);
    }

    /// Takes a report back; nothing happens when there is none.
    pub fn heal(&self, pointer: &str) {
        let mut known = self.known();
        let Some(one) = known.get_mut(pointer).filter(|one| one.detail.is_some()) else { return };
        one.detail = None;
        if std::mem::take(&mut one.is_told) {
            tracing::info!(pointer, "well again");
        }
    }

    /// Reports something after which the process must end; of several the first counts.
    pub fn end(&self, exit_code: u8, pointer: &str, detail: impl Into<String>) {
        let reason = detail.into();
        self.report(pointer, reason.clone());
        self.must_end(exit_code, reason);
    }

    /// The same of what whoever reports has told the log already.
    pub fn end_told(&self, exit_code: u8, pointer: &str, detail: impl Into<String>) {
        let reason = detail.into();
        self.report_told(pointer, reason.clone());
        self.must_end(exit_code, reason);
    }

    fn must_end(&self, exit_code: u8, reason: String) {
        let _ = self.0.ending.set(Ending { exit_code, reason });
        self.0.ends.cancel();
    }

    /// Everything that is wrong, by pointer.
    #[must_use]
    pub fn troubles(&self) -> Vec<Trouble> {
        let known = self.known();
        let troubles = known.iter().filter_map(|(pointer, one)| Some((pointer, one.detail.as_ref()?)));
        troubles.map(|(pointer, detail)| Trouble { pointer: pointer.clone(), detail: detail.clone() }).collect()
    }

    /// Waits until the process must end, and says why.
    pub async fn ended(&self) -> Ending {
        loop {
            self.0.ends.cancelled().await;
            if let Some(ending) = self.0.ending.get() {
                return ending.clone();
            }
        }
    }

    fn report_at(&self, pointer: &str, detail: String, now: Instant) {
        let mut known = self.known();
        if !known.contains_key(pointer) {
            known.insert(pointer.to_owned(), Known::default());
        }
        let Some(one) = known.get_mut(pointer) else { return };
        // What came back within the minute and stays is told when it is said again.
        if !one.is_told && one.told_at.is_none_or(|at| now.duration_since(at) >= TELL_EVERY) {
            tracing::error!(pointer, detail, "the relay is not ready");
            (one.told_at, one.is_told) = (Some(now), true);
        }
        one.detail = Some(detail);
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reported_stands_until_it_heals() {
        let readiness = Readiness::default();
        let other = readiness.clone();
        readiness.report("/b", "first");
        readiness.report("/b", "second");
        readiness.report("/a", "third");
        let trouble = |pointer: &str, detail: &str| Trouble { pointer: pointer.into(), detail: detail.into() };
        assert_eq!(other.troubles(), [trouble("/a", "third"), trouble("/b", "second")]);
        other.heal("/b");
        other.heal("/c");
        assert_eq!(readiness.troubles(), [trouble("/a", "third")]);
    }

    #[test]
    fn a_pointer_that_flaps_is_told_once_a_minute() {
        let readiness = Readiness::default();
        let begin = Instant::now();
        let is_told = |after: Duration| {
            readiness.report_at("/a", "again".into(), begin + after);
            let told = readiness.known()["/a"].is_told;
            readiness.heal("/a");
            told
        };
        let seconds = [0, 1, 30, 59, 60, 61, 121].map(|s| is_told(Duration::from_secs(s)));
        assert_eq!(seconds, [true, false, false, false, true, false, true]);
    }

    #[test]
    fn trouble_that_comes_back_at_once_and_stays_is_told_when_its_minute_is_over() {
        let readiness = Readiness::default();
        let begin = Instant::now();
        readiness.report_at("/a", "it fails".into(), begin);
        readiness.heal("/a");
        let is_told = [10, 59, 60, 61].map(|s| {
            readiness.report_at("/a", "it fails".into(), begin + Duration::from_secs(s));
            readiness.known()["/a"].is_told
        });
        assert_eq!(is_told, [false, false, true, true]);
    }

    #[tokio::test]
    async fn the_first_end_counts() {
        let readiness = Readiness::default();
        readiness.end(74, "/storage/wal", "it is gone");
        readiness.end(70, "/task/lane-1", "it ended");
        assert_eq!(readiness.ended().await, Ending { exit_code: 74, reason: "it is gone".into() });
        assert_eq!(readiness.troubles().len(), 2);
    }
}
