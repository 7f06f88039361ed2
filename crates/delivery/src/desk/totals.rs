//! What a subscription has come to since the process began. Owns the counters; must not know what counts.

/// Running totals since the start of the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Events delivered.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed_attempts: u64,
    /// Dead letters kept.
    pub dead: u64,
    /// Positions that retention took.
    pub expired: u64,
    /// Positions that were skipped or passed over by a seek.
    pub skipped: u64,
}
