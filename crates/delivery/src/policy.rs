//! What to do about the outcome of an attempt. Pure: time and chance come in as arguments.
//!
//! Follows the Standard Webhooks recommendations on retries and RFC 9110 §10.2.3 (`Retry-After`).

use std::time::Duration;

use hookcast_core::clock::{RETRY_AFTER_MAX, Timestamp, retry_after};
use hookcast_core::model::outcome::{Answer, Directive, Ending};
use hookcast_core::model::subscription::{DisabledReason, RetryPolicy};
use hookcast_core::model::{ErrorKind, Outcome};

/// Distance of attempts while the event cannot be read; none of them was made.
const STORAGE_AGAIN: Duration = Duration::from_secs(30);
/// Distance of attempts while the relay lacks what it takes to make one; nothing else goes out to the subscription meanwhile.
const OWN_FAULT_AGAIN: Duration = Duration::from_secs(1);
/// Why the delivery of an event is dead that is no longer kept.
pub const NO_LONGER_KEPT: &str = "the event is no longer kept";

/// What is decided about one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Delivered.
    Settled,
    /// Try again then.
    RetryAt {
        /// When.
        at: Timestamp,
        /// Whether this attempt counts against the schedule.
        counts: bool,
    },
    /// Given up.
    Dead(String),
    /// There is nothing to deliver any more.
    EventGone,
    /// The receiver wants no more; the event stays pending.
    Disable(DisabledReason),
}

/// A verdict, and how long the whole subscription must keep still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What becomes of the delivery.
    pub verdict: Verdict,
    /// Nothing goes out to this subscription before then.
    pub hold_until: Option<Timestamp>,
}

/// What is known of a delivery before the attempt that is judged.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    /// Attempts that counted.
    pub attempts: u32,
    /// When the first one failed; now, if none did.
    pub since: Timestamp,
}

/// Judges an outcome. `chance` is uniform in `0.0..1.0`.
#[must_use]
pub fn decide(outcome: &Outcome, before: Before, policy: &RetryPolicy, now: Timestamp, chance: f64) -> Decision {
    if outcome.is_own_fault() {
        let at = now.plus(own_fault_delay(chance));
        return Decision { verdict: Verdict::RetryAt { at, counts: false }, hold_until: Some(at) };
    }
    let held = asked_delay(outcome, now);
    let hold_until = held.map(|delay| now.plus(delay));
    let verdict = match &outcome.ending {
        Ending::Answered(_) if outcome.is_success() => Verdict::Settled,
        Ending::Answered(Answer { status: 410, .. }) => Verdict::Disable(DisabledReason::Gone),
        Ending::Answered(Answer { directive: Some(Directive::Disable), .. }) => Verdict::Disable(DisabledReason::Receiver),
        Ending::Answered(Answer { directive: Some(Directive::Abort), .. }) => Verdict::Dead("aborted by the receiver".to_owned()),
        // The next attempt would make the same text.
        Ending::Unmade(_) => Verdict::Dead(outcome.describe()),
        Ending::EventGone => Verdict::EventGone,
        Ending::Failed { kind: ErrorKind::Storage, .. } => {
            Verdict::RetryAt { at: now.plus(jittered(STORAGE_AGAIN, 0.2, chance)), counts: false }
        }
        Ending::Answered(_) | Ending::Failed { .. } => retry_or_give_up(outcome, before, policy, now, held, chance),
    };
    Decision { verdict, hold_until }
}

fn retry_or_give_up(
    outcome: &Outcome,
    before: Before,
    policy: &RetryPolicy,
    now: Timestamp,
    held: Option<Duration>,
    chance: f64,
) -> Verdict {
    // A receiver that says when it can take more has not failed; but it cannot say so for ever.
    let counts = !(outcome.status() == Some(429) && held.is_some() && now.since(before.since) < RETRY_AFTER_MAX);
    let made = before.attempts + u32::from(counts);
    if made >= policy.max_attempts {
        return Verdict::Dead(outcome.describe());
    }
    let step = (made.max(1) as usize - 1).min(policy.schedule.len() - 1);
    let delay = jittered(policy.schedule[step], policy.jitter, chance).max(held.unwrap_or_default());
    Verdict::RetryAt { at: now.plus(delay), counts }
}

/// What a receiver that took a delivery wants besides: with `webhook-delivery: disable` it was the last one. `abort` has nothing
/// left to abort then.
#[must_use]
pub fn farewell(outcome: &Outcome) -> Option<DisabledReason> {
    (outcome.directive() == Some(Directive::Disable)).then_some(DisabledReason::Receiver)
}

/// How long to wait after a shortage of the relay's own. `chance` is uniform in `0.0..1.0`.
#[must_use]
pub fn own_fault_delay(chance: f64) -> Duration {
    jittered(OWN_FAULT_AGAIN, 0.5, chance)
}

/// `delay` made longer or shorter by up to `jitter` of itself.
fn jittered(delay: Duration, jitter: f64, chance: f64) -> Duration {
    delay.mul_f64((1.0 + jitter * (2.0 * chance - 1.0)).max(0.0))
}

/// What `Retry-After` asks for on 429 and 503: seconds or a date in the future. Anything else is no word.
#[must_use]
pub fn asked_delay(outcome: &Outcome, now: Timestamp) -> Option<Duration> {
    let answer = outcome.answer().filter(|answer| matches!(answer.status, 429 | 503))?;
    retry_after(answer.retry_after.as_deref()?, now).filter(|delay| !delay.is_zero())
}

/// Whether an outcome speaks against the endpoint itself rather than against one event.
#[must_use]
pub fn blames_endpoint(outcome: &Outcome) -> bool {
    match (outcome.error(), outcome.status()) {
        (
            None
            | Some(
                ErrorKind::RedirectNotFollowed
                | ErrorKind::Storage
                | ErrorKind::OwnFault
                | ErrorKind::Template
                | ErrorKind::Internal,
            ),
            _,
        ) => false,
        (Some(ErrorKind::Status), Some(status)) => matches!(status, 401 | 403 | 404 | 408 | 429 | 500..),
        (Some(_), _) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_750_000_000_000);

    fn policy() -> RetryPolicy {
        RetryPolicy { max_attempts: 4, schedule: vec![Duration::from_secs(5), Duration::from_mins(5)], jitter: 0.2 }
    }

    fn status(status: u16) -> Outcome {
        Outcome::answered(Answer::of(status), 1)
    }

    fn saying(code: u16, directive: Directive) -> Outcome {
        Outcome::answered(Answer { directive: Some(directive), ..Answer::of(code) }, 1)
    }

    fn asking(code: u16, retry_after: &str) -> Outcome {
        Outcome::answered(Answer { retry_after: Some(retry_after.to_owned()), ..Answer::of(code) }, 1)
    }

    fn decide_first(outcome: &Outcome) -> Decision {
        decide(outcome, Before { attempts: 0, since: NOW }, &policy(), NOW, 0.5)
    }

    #[test]
    fn every_2xx_settles_and_410_disables() {
        for code in [200, 201, 202, 204, 206] {
            assert_eq!(decide_first(&status(code)).verdict, Verdict::Settled);
        }
        assert_eq!(decide_first(&status(410)).verdict, Verdict::Disable(DisabledReason::Gone));
    }

    #[test]
    fn the_schedule_is_walked_to_its_end_and_its_last_entry_repeats() {
        let delay = |attempts| match decide(&status(500), Before { attempts, since: NOW }, &policy(), NOW, 0.5).verdict {
            Verdict::RetryAt { at, counts: true } => Some(at.since(NOW).as_secs()),
            Verdict::Dead(reason) => {
                assert_eq!(reason, "status_500");
                None
            }
            other => panic!("{other:?}"),
        };
        assert_eq!([delay(0), delay(1), delay(2), delay(3)], [Some(5), Some(300), Some(300), None]);
    }

    #[test]
    fn an_event_that_cannot_be_read_costs_no_attempt_and_one_that_is_gone_ends() {
        let unread = Outcome::failed(ErrorKind::Storage, 0);
        let before = Before { attempts: 3, since: NOW };
        let verdict = |outcome: &Outcome| decide(outcome, before, &policy(), NOW, 0.5).verdict;
        assert!(matches!(verdict(&unread), Verdict::RetryAt { counts: false, .. }));
        assert_eq!(verdict(&Outcome::event_gone()), Verdict::EventGone);
    }

    #[test]
    fn a_shortage_of_our_own_costs_no_attempt_and_holds_the_subscription_for_a_moment() {
        let short = Outcome::failed(ErrorKind::OwnFault, 0);
        for attempts in [0, 3, 99] {
            for (chance, wait_ms) in [(0.0, 500), (0.5, 1000), (1.0, 1500)] {
                let decision = decide(&short, Before { attempts, since: NOW }, &policy(), NOW, chance);
                let at = NOW.plus(Duration::from_millis(wait_ms));
                assert_eq!(decision, Decision { verdict: Verdict::RetryAt { at, counts: false }, hold_until: Some(at) });
            }
        }
        assert!(!blames_endpoint(&short));
    }

    #[test]
    fn a_template_that_fails_is_a_dead_letter_at_once_and_nobodys_fault() {
        let failed = Outcome::unmade("template: x".to_owned());
        assert_eq!(decide_first(&failed).verdict, Verdict::Dead("template: x".to_owned()));
        assert!(!blames_endpoint(&failed));
    }

    #[test]
    fn the_receivers_word_is_followed() {
        assert!(matches!(decide_first(&saying(500, Directive::Abort)).verdict, Verdict::Dead(_)));
        let last = saying(200, Directive::Disable);
        assert_eq!((decide_first(&last).verdict, farewell(&last)), (Verdict::Settled, Some(DisabledReason::Receiver)));
        let late = saying(200, Directive::Abort);
        assert_eq!((decide_first(&late).verdict, farewell(&late)), (Verdict::Settled, None));
        assert_eq!(decide_first(&saying(500, Directive::Disable)).verdict, Verdict::Disable(DisabledReason::Receiver));
    }

    #[test]
    fn retry_after_rows_of_the_contract() {
        let at = |code, text: &str| match decide_first(&asking(code, text)).verdict {
            Verdict::RetryAt { at, .. } => at.since(NOW).as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!(at(429, "120"), 120);
        assert_eq!(at(503, "-5"), 5);
        assert_eq!(at(503, "Wed, 21 Oct 2015 07:28:00 GMT"), 5);
        assert_eq!(at(503, "Fri, 31 Dec 2099 23:59:59 GMT"), 24 * 3600);
        assert_eq!(at(503, "soon"), 5);
        assert_eq!(at(503, "120.5"), 5);
        assert_eq!(at(500, "120"), 5, "only 429 and 503 may ask");
        assert_eq!(at(429, "99999999999999999999999"), 24 * 3600);
        // 2025-06-15T15:06:40Z it is.
        assert_eq!(at(429, "Sunday, 15-Jun-25 15:07:40 GMT"), 60);
        assert_eq!(at(503, "Sun Jun 15 15:07:40 2025"), 60);
    }

    #[test]
    fn a_429_with_retry_after_costs_no_attempt_for_a_day() {
        let asked = asking(429, "1");
        let before = |since| Before { attempts: 3, since };
        let fresh = decide(&asked, before(NOW), &policy(), NOW, 0.5);
        assert!(matches!(fresh.verdict, Verdict::RetryAt { counts: false, .. }));
        assert_eq!(fresh.hold_until, Some(NOW.plus(Duration::from_secs(1))));
        let old = decide(&asked, before(NOW.minus(RETRY_AFTER_MAX)), &policy(), NOW, 0.5);
        assert!(matches!(old.verdict, Verdict::Dead(_)));
    }

    proptest! {
        #[test]
        fn delays_stay_within_the_jitter(attempts in 0u32..3, chance in 0.0f64..1.0) {
            let Verdict::RetryAt { at, .. } =
                decide(&status(500), Before { attempts, since: NOW }, &policy(), NOW, chance).verdict
            else { panic!("attempts are left") };
            let base = if attempts == 0 { 5.0 } else { 300.0 };
            let delay = at.since(NOW).as_secs_f64();
            prop_assert!(delay >= base * 0.8 - 0.001 && delay <= base * 1.2 + 0.001);
        }
    }
}
