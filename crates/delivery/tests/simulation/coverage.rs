//! What the seeds came upon: how often each kind of step, change, crash and refusal occurred.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// Counts of all seeds that run.
#[derive(Debug, Default)]
pub(crate) struct Coverage(Mutex<BTreeMap<String, u64>>);

impl Coverage {
    pub(crate) fn note(&self, what: impl Into<String>) {
        *self.0.lock().unwrap().entry(what.into()).or_default() += 1;
    }

    pub(crate) fn join(&self, other: &Self) {
        for (what, count) in &*other.0.lock().unwrap() {
            *self.0.lock().unwrap().entry(what.clone()).or_default() += count;
        }
    }

    /// As a table, a line each.
    pub(crate) fn table(&self) -> String {
        let lines: Vec<String> = self.0.lock().unwrap().iter().map(|(what, count)| format!("{what:<40} {count:>9}")).collect();
        lines.join("\n")
    }

    /// What came up less often than that, of what came up at all and of what has to.
    pub(crate) fn rare(&self, least: u64, expected: &[String]) -> Vec<String> {
        for what in expected {
            self.0.lock().unwrap().entry(what.clone()).or_default();
        }
        self.0
            .lock()
            .unwrap()
            .iter()
            .filter(|(_, count)| **count < least)
            .map(|(what, count)| format!("{what}: {count}"))
            .collect()
    }
}
