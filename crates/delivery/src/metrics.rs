//! A lane's counts: plain cells on the lane's thread, handed to the process's metrics now and then.

use std::cell::Cell;

use metrics::counter;

use hookcast_core::model::{ErrorKind, Outcome};

/// Counts of one lane since the last hand-over.
#[derive(Debug, Default)]
pub struct LaneCounts {
    delivered: Cell<u64>,
    refused: Cell<u64>,
    unanswered: Cell<u64>,
    unmade: Cell<u64>,
    broken: Cell<u64>,
}

impl LaneCounts {
    /// Counts an outcome.
    pub fn record(&self, outcome: &Outcome) {
        // Nothing was attempted; it is counted where it was noticed.
        if outcome.is_own_fault() {
            return;
        }
        let cell = match (outcome.is_success(), outcome.status()) {
            (true, _) => &self.delivered,
            (false, Some(_)) => &self.refused,
            (false, None) if outcome.error() == Some(ErrorKind::Template) => &self.unmade,
            (false, None) if outcome.error() == Some(ErrorKind::Internal) => &self.broken,
            (false, None) => &self.unanswered,
        };
        cell.set(cell.get() + 1);
    }

    /// Hands the counts over.
    pub fn flush(&self) {
        let cells = [
            (&self.delivered, "success"),
            (&self.refused, "status"),
            (&self.unanswered, "transport"),
            (&self.unmade, "template"),
            (&self.broken, "internal"),
        ];
        for (cell, outcome) in cells {
            let count = cell.replace(0);
            if count > 0 {
                counter!("hookcast_attempts_total", "outcome" => outcome).increment(count);
            }
        }
    }
}
