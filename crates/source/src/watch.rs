//! When a source counts as down, and when as up again. Pure.
//!
//! Down is told once: when it was lost for [`DOWN_AFTER`] and could not be read again, when [`DOWN_FAILURES`] connections in a
//! row did not come about, or when it is not tried again. Not more often than every [`TELL_EVERY`]; a source that comes and
//! goes faster than that is told once. Up is told after each down that was told.

use std::time::Duration;

use super::reconnect::{Ending, EndingClass};
use hookcast_core::clock::Timestamp;

/// Time that a source may be lost before it counts as down.
const DOWN_AFTER: Duration = Duration::from_secs(5);
/// Connections that fail in a row before it does.
const DOWN_FAILURES: u32 = 3;
/// Shortest distance of two words about one source.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// A change that somebody may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It cannot be read.
    Down {
        /// Since when.
        since: Timestamp,
        /// The word for why.
        reason: &'static str,
        /// A sentence for a person.
        detail: String,
    },
    /// The upstream's cursor went back.
    CursorWentBack {
        /// The one before.
        from: String,
        /// The one that is followed now.
        to: String,
    },
    /// It is read again.
    Up {
        /// Since when it was not.
        down_since: Timestamp,
    },
}

/// What is remembered of one source for that.
#[derive(Debug, Default)]
pub(super) struct Watch {
    lost_at: Option<Timestamp>,
    failures: u32,
    told_at: Option<Timestamp>,
    is_told: bool,
}

impl Watch {
    /// A connection ended or did not come about; `goes_on` = there will be another.
    pub(super) fn ended(&mut self, ending: &Ending, goes_on: bool, now: Timestamp) -> Option<Turn> {
        if ending.class == EndingClass::Cancelled {
            return None;
        }
        let since = *self.lost_at.get_or_insert(now);
        self.failures += u32::from(ending.class != EndingClass::Lost);
        let is_down = !goes_on || self.failures >= DOWN_FAILURES || now.since(since) >= DOWN_AFTER;
        let may_tell = self.told_at.is_none_or(|told| now.since(told) >= TELL_EVERY || now < told);
        if !is_down || self.is_told || !may_tell {
            return None;
        }
        self.is_told = true;
        self.told_at = Some(now);
        Some(Turn::Down { since, reason: ending.slug, detail: ending.detail.clone() })
    }

    /// The source is being read.
    pub(super) fn connected(&mut self) -> Option<Turn> {
        self.failures = 0;
        let down_since = self.lost_at.take()?;
        std::mem::take(&mut self.is_told).then_some(Turn::Up { down_since })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp(1_000_000 + seconds * 1000)
    }

    fn ends(watch: &mut Watch, class: EndingClass, seconds: i64) -> Option<Turn> {
        watch.ended(&Ending::new(class, "eof", "it ended"), class != EndingClass::Stop, at(seconds))
    }

    #[test]
    fn a_loss_that_is_made_good_at_once_is_not_told() {
        let mut watch = Watch::default();
        for round in 0..10 {
            assert_eq!(ends(&mut watch, EndingClass::Lost, round * 20), None);
            assert_eq!(watch.connected(), None);
        }
    }

    #[test]
    fn a_source_that_stays_away_is_told_once_and_again_when_it_is_back() {
        let mut watch = Watch::default();
        assert_eq!(ends(&mut watch, EndingClass::Lost, 0), None);
        assert_eq!(ends(&mut watch, EndingClass::Failed, 2), None);
        assert!(matches!(ends(&mut watch, EndingClass::Failed, 6), Some(Turn::Down { since, .. }) if since == at(0)));
        assert_eq!(ends(&mut watch, EndingClass::Failed, 90), None);
        assert_eq!(watch.connected(), Some(Turn::Up { down_since: at(0) }));
        assert_eq!(watch.connected(), None);
    }

    #[test]
    fn a_first_connection_that_fails_again_and_again_is_told() {
        let mut watch = Watch::default();
        assert_eq!(ends(&mut watch, EndingClass::Failed, 0), None);
        assert_eq!(ends(&mut watch, EndingClass::Failed, 1), None);
        assert!(ends(&mut watch, EndingClass::Failed, 2).is_some());
        assert!(ends(&mut Watch::default(), EndingClass::Stop, 0).is_some(), "nobody tries again");
        assert_eq!(ends(&mut Watch::default(), EndingClass::Cancelled, 0), None);
    }

    #[test]
    fn a_source_that_flaps_is_told_once_a_minute() {
        let mut watch = Watch::default();
        let mut told = 0;
        for second in (0..600).step_by(10) {
            told += u32::from(ends(&mut watch, EndingClass::Lost, second).is_some());
            told += u32::from(ends(&mut watch, EndingClass::Failed, second + 6).is_some());
            watch.connected();
        }
        assert!((9..=10).contains(&told), "{told}");
    }
}
