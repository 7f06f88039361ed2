//! Processor time of processes, by the system's own accounting.
//!
//! The sum over `/proc/<pid>/task/*/schedstat` is in nanoseconds, but forgets threads that ended; user and system time out of
//! `/proc/<pid>/stat` forgets nothing and is in ticks of 10 ms. So the first counts, as long as the second does not know of more.

use std::collections::HashMap;

/// Ticks of the second account are this long.
const TICK_US: u64 = 10_000;
/// What the two accounts may differ by for no other reason than how they are kept: two ticks cut off at either end, and what a
/// running thread was not charged yet.
const ACCOUNTS_APART_US: f64 = 45_000.0;

/// What processes had used at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    threads_ns: HashMap<u32, u64>,
    ticks_us: u64,
}

impl Usage {
    /// What these processes have used so far.
    pub(crate) fn of(pids: &[u32]) -> Self {
        let mut usage = Self::default();
        for pid in pids {
            usage.ticks_us += ticks_us(&pid.to_string()).unwrap_or(0);
            for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let thread = task.file_name().to_string_lossy().parse().ok();
                let account = std::fs::read_to_string(task.path().join("schedstat")).ok();
                let ns = account.and_then(|account| account.split_whitespace().next()?.parse().ok());
                if let (Some(thread), Some(ns)) = (thread, ns) {
                    usage.threads_ns.insert(thread, ns);
                }
            }
        }
        usage
    }

    /// What this process has used so far.
    pub(crate) fn own() -> Self {
        Self::of(&[std::process::id()])
    }

    /// Microseconds that were used since `earlier`.
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53 nanoseconds")]
    pub(crate) fn since(&self, earlier: &Self) -> f64 {
        let used = |(thread, ns): (&u32, &u64)| ns.saturating_sub(earlier.threads_ns.get(thread).copied().unwrap_or(0));
        let by_thread_us = self.threads_ns.iter().map(used).sum::<u64>() as f64 / 1000.0;
        let by_ticks_us = self.ticks_us.saturating_sub(earlier.ticks_us) as f64;
        if by_ticks_us > by_thread_us + ACCOUNTS_APART_US { by_ticks_us } else { by_thread_us }
    }
}

/// User and system time out of `/proc/<pid>/stat`.
pub(crate) fn ticks_us(pid: &str) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * TICK_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(threads_ns: &[(u32, u64)], ticks_us: u64) -> Usage {
        Usage { threads_ns: threads_ns.iter().copied().collect(), ticks_us }
    }

    #[test]
    fn what_threads_used_is_counted_in_nanoseconds() {
        let (before, after) = (usage(&[(1, 5_000), (2, 7_000)], 0), usage(&[(1, 6_500), (2, 7_000), (3, 4_000)], 10_000));
        assert!((after.since(&before) - 5.5).abs() < 1e-9);
    }

    #[test]
    fn a_thread_that_ended_is_not_forgotten() {
        let (before, after) = (usage(&[(1, 0), (2, 0)], 0), usage(&[(1, 1_000)], 2_000_000));
        assert!((after.since(&before) - 2_000_000.0).abs() < 1e-9);
    }

    #[test]
    fn work_of_this_process_shows() {
        let before = Usage::own();
        let mut sum = 0u64;
        while Usage::own().since(&before) < 2_000.0 {
            sum = (0..100_000u64).fold(sum, |sum, number| std::hint::black_box(sum ^ number));
        }
        assert!(Usage::default().since(&before) < 1e-9, "time does not run backwards: {sum}");
    }
}
