//! What a subscription has come to since the process began. Owns the counters; must not know what counts.

/// Running totals since the start of the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Events delivered.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed_attempts: u64,
    /// Dead letters kept. Below zero for a moment, when one ended that is counted only before the next save.
    pub(super) dead: i64,
    /// Positions that retention took.
    pub expired: u64,
    /// Positions that were skipped or passed over by a seek.
    pub skipped: u64,
}

impl Totals {
    /// Dead letters kept.
    #[must_use]
    pub fn dead(&self) -> u64 {
        self.dead.max(0).unsigned_abs()
    }

    /// So many are kept, whatever was counted before.
    pub fn set_dead(&mut self, count: u64) {
        self.dead = i64::try_from(count).unwrap_or(i64::MAX);
    }

    /// One more is kept.
    pub fn bury(&mut self) {
        self.dead += 1;
    }

    /// So many are not kept any more.
    pub fn exhume(&mut self, count: u64) {
        self.dead = self.dead.saturating_sub_unsigned(count);
    }
}
