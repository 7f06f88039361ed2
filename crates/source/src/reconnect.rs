//! When to connect again: pure policy, time and randomness come in as arguments.
//!
//! The first loss is answered at once, and so is every loss of a connection that had held for a while; anything else waits
//! with full jitter between [`ReconnectSettings::delay_min`] and a ceiling that doubles up to
//! [`ReconnectSettings::delay_max`]. `Retry-After` and the `retry:` of an event stream are floors. Unlike a browser, a relay
//! goes on after a 5xx, a 404 or a wrong content type, because nobody is there to press reload; only a 204 on an event stream
//! stops it.

use std::time::Duration;

use hookcast_core::clock::{RETRY_AFTER_MAX, Timestamp};
use hookcast_core::model::source::own::profile::Profile;

mod twitter;

#[cfg(test)]
mod tests;

/// The delays; the default is the contract, other values are for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReconnectSettings {
    /// Shortest delay that is not none: 1 s.
    pub delay_min: Duration,
    /// Longest delay the relay chooses itself: 5 min.
    pub delay_max: Duration,
    /// Shortest delay after 401, 403 and redirects: 60 s.
    pub auth_delay_min: Duration,
    /// A connection that held this long may be replaced at once: 10 s.
    pub steady_after: Duration,
}

impl Default for ReconnectSettings {
    fn default() -> Self {
        Self {
            delay_min: Duration::from_secs(1),
            delay_max: Duration::from_mins(5),
            auth_delay_min: Duration::from_mins(1),
            steady_after: Duration::from_secs(10),
        }
    }
}

/// What a source is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceState {
    /// Dialling, or waiting for the answer.
    #[default]
    Connecting,
    /// Reading.
    Connected,
    /// Waiting for the next attempt.
    Backoff,
    /// Not read: told so by the upstream or by the operator.
    Stopped,
}

impl SourceState {
    /// The word used in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Backoff => "backoff",
            Self::Stopped => "stopped",
        }
    }
}

/// What follows from the way a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndingClass {
    /// It stood and is gone.
    Lost,
    /// It did not come about, or cannot be read.
    Failed,
    /// It was refused in a way only a person can mend.
    Denied,
    /// The upstream said not to come back.
    Stop,
    /// We wanted it to end.
    Cancelled,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What follows.
    pub class: EndingClass,
    /// The word for it: `eof`, `truncated`, `idle`, `content_type`, `auth`, …
    pub slug: &'static str,
    /// A sentence for a person.
    pub detail: String,
    /// The upstream's `Retry-After`.
    pub retry_after: Option<Duration>,
}

impl Ending {
    /// An ending of that class.
    #[must_use]
    pub fn new(class: EndingClass, slug: &'static str, detail: impl Into<String>) -> Self {
        Self { class, slug, detail: detail.into(), retry_after: None }
    }

    /// The same, to be waited for.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after = retry_after;
        self
    }

    /// We wanted it to end.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(EndingClass::Cancelled, "stopped", "stopped by the relay")
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Connect again after this long.
    After(Duration),
    /// Do not.
    Stop,
}

/// The policy's memory of one source.
#[derive(Debug)]
pub struct Reconnect {
    settings: ReconnectSettings,
    failures: u32,
    /// The upstream's `retry:`.
    retry: Option<Duration>,
    connected_at: Option<Timestamp>,
    /// Whether an unsteady connection may still be replaced at once.
    free_try: bool,
    /// The delays that a profile asks for instead.
    profile: Option<Box<twitter::Backoff>>,
}

impl Reconnect {
    /// A source that was never connected.
    #[must_use]
    pub fn new(settings: ReconnectSettings) -> Self {
        Self { settings, failures: 0, retry: None, connected_at: None, free_try: true, profile: None }
    }

    /// The same with the delays that its profile asks for.
    #[must_use]
    pub fn of_profile(settings: ReconnectSettings, profile: Option<Profile>) -> Self {
        let profile = profile.map(|Profile::Twitter| Box::default());
        Self { profile, ..Self::new(settings) }
    }

    /// The upstream wants this delay between connections; held between the shortest and the longest.
    pub fn set_retry(&mut self, delay: Duration) {
        self.retry = Some(delay.clamp(self.settings.delay_min, self.settings.delay_max));
    }

    /// The upstream answered and is being read.
    pub fn connected(&mut self, now: Timestamp) {
        self.connected_at = Some(now);
    }

    /// A connection ended, or did not come about. `productive` = at least one record came; `random` is uniform over all values.
    pub fn ended(&mut self, ending: &Ending, productive: bool, now: Timestamp, random: u64) -> Next {
        let held = self.connected_at.take().map(|at| now.since(at));
        let steady = held.is_some_and(|held| held >= self.settings.steady_after);
        if steady || productive {
            self.failures = 0;
        }
        if let Some(profile) = &mut self.profile {
            return profile.ended(ending, steady || productive, &self.settings);
        }
        match ending.class {
            EndingClass::Stop | EndingClass::Cancelled => return Next::Stop,
            // A floor, even of nothing, means: not at once.
            EndingClass::Lost if ending.retry_after.is_none() && (steady || std::mem::take(&mut self.free_try)) => {
                return Next::After(self.retry.map_or(Duration::ZERO, |retry| spread(retry, self.fifth_over(retry), random)));
            }
            _ => self.failures = self.failures.saturating_add(1),
        }
        let doubled = self.settings.delay_min.saturating_mul(1 << self.failures.min(20));
        let floor = match ending.class {
            EndingClass::Denied => self.settings.auth_delay_min,
            _ => self.retry.unwrap_or(self.settings.delay_min),
        };
        let ceiling = doubled.min(self.settings.delay_max).max(self.fifth_over(floor));
        let delay = spread(floor, ceiling, random);
        let asked = ending.retry_after.map_or(Duration::ZERO, |asked| {
            let asked = asked.min(RETRY_AFTER_MAX);
            spread(asked, asked + asked / 10, random)
        });
        Next::After(delay.max(asked))
    }

    /// A ceiling that leaves room for jitter over a floor without passing the longest delay.
    fn fifth_over(&self, floor: Duration) -> Duration {
        (floor + floor / 5).min(self.settings.delay_max).max(floor)
    }
}

/// A point between `low` and `high` as `random` says.
fn spread(low: Duration, high: Duration, random: u64) -> Duration {
    let span = u64::try_from(high.saturating_sub(low).as_micros()).unwrap_or(u64::MAX);
    low + Duration::from_micros(if span == u64::MAX { random } else { random % (span + 1) })
}
