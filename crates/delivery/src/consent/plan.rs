//! Whom to ask for consent, and when: due times with growing distances, one question at a time for each. Pure.
//!
//! Holds only subscriptions that wait for an answer; one that agreed, stopped or went away leaves no trace.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::ask::HeldToken;
use crate::policy;
use crate::steps::Steps;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::subscription::{Activity, Ordinal, SubscriptionRecord};

/// Distance of the next question from a failed one; the last repeats, so that a day sees no more than [`ASKED_A_DAY_MAX`].
const DISTANCES_S: [u64; 6] = [10, 60, 300, 900, 3600, 7200];
/// Questions that an endpoint is asked in any day without being told to by a person.
pub const ASKED_A_DAY_MAX: u32 = 24;
/// Part of a distance that is random, both ways.
const JITTER: f64 = 0.2;

/// How the asking of one subscription stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Why the last question was not answered well.
    pub last_error: Option<String>,
    /// When it was asked last.
    pub last_attempt_at: Option<Timestamp>,
    /// When it is asked next.
    pub next_attempt_at: Option<Timestamp>,
}

/// One question to one endpoint.
#[derive(Clone, Debug)]
pub struct Round {
    /// Whom.
    pub record: Arc<SubscriptionRecord>,
    /// What is left of a round before that was postponed.
    pub token: Option<HeldToken>,
    number: u64,
    /// How often the clock had been moved when it began.
    moves: u64,
}

#[derive(Debug)]
struct Row {
    record: Arc<SubscriptionRecord>,
    /// The round that it is in, to tell a late answer to another question.
    number: u64,
    failures: u32,
    /// Of a round that was postponed; good for the definition as it was then.
    token: Option<HeldToken>,
    standing: Verification,
}

/// Everyone who waits for an answer.
#[derive(Debug, Default)]
pub struct Plan {
    rows: HashMap<Ordinal, Row>,
    due: BTreeSet<(Timestamp, Ordinal)>,
    rounds: u64,
    /// How often the clock was moved.
    moves: u64,
    steps: Steps,
}

impl Plan {
    /// Notices when the wall clock was moved, and moves with it; `steady` is the age of a clock that never is. Whoever takes or
    /// puts a time does this before.
    pub fn follow(&mut self, now: Timestamp, steady: Duration) {
        let by_ms = if self.steps.is_smooth(now) { 0 } else { self.steps.look(now, steady) };
        if by_ms != 0 {
            self.shift(by_ms);
        }
    }

    /// Takes in a definition as it is now. Who has to be asked is due at once, unless it waits already to be asked the same.
    pub fn see(&mut self, record: &Arc<SubscriptionRecord>, now: Timestamp) {
        if record.activity != Activity::Active || record.is_verified() {
            self.forget(record.ordinal);
            return;
        }
        if let Some(row) = self.rows.get_mut(&record.ordinal)
            && (row.record.spec.url == record.spec.url && row.record.spec.verify == record.spec.verify)
        {
            row.record = Arc::clone(record);
            row.token = None;
            return;
        }
        self.forget(record.ordinal);
        let standing = Verification { next_attempt_at: Some(now), ..Verification::default() };
        let row = Row { record: Arc::clone(record), number: 0, failures: 0, token: None, standing };
        self.rows.insert(record.ordinal, row);
        self.due.insert((now, record.ordinal));
    }

    /// Forgets a subscription.
    pub fn forget(&mut self, ordinal: Ordinal) {
        if let Some(row) = self.rows.remove(&ordinal)
            && let Some(at) = row.standing.next_attempt_at
        {
            self.due.remove(&(at, ordinal));
        }
    }

    /// Moves every time that is waited for by as much as the wall clock was moved.
    fn shift(&mut self, by_ms: i64) {
        self.moves += 1;
        let moved = |at: Timestamp| Timestamp(at.0.saturating_add(by_ms));
        self.due = std::mem::take(&mut self.due).into_iter().map(|(at, ordinal)| (moved(at), ordinal)).collect();
        for row in self.rows.values_mut() {
            row.standing.next_attempt_at = row.standing.next_attempt_at.map(moved);
            // Until when it is good was said in the time of before.
            row.token = None;
        }
    }

    /// When the next one is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes whoever is due first; it is not due again before [`Plan::settle`].
    pub fn take(&mut self, now: Timestamp) -> Option<Round> {
        let (at, ordinal) = self.due.first().copied().filter(|(at, _)| *at <= now)?;
        self.due.remove(&(at, ordinal));
        self.rounds += 1;
        let row = self.rows.get_mut(&ordinal)?;
        row.number = self.rounds;
        row.standing.next_attempt_at = None;
        Some(Round { record: Arc::clone(&row.record), token: row.token.take(), number: row.number, moves: self.moves })
    }

    /// Takes in that a round, begun at `began`, brought no consent. `chance` is uniform in `0.0..1.0`.
    pub fn settle(&mut self, round: &Round, error: String, (began, now): (Timestamp, Timestamp), chance: f64) {
        let ordinal = round.record.ordinal;
        let Some(row) = self.rows.get_mut(&ordinal).filter(|row| row.number == round.number) else { return };
        let distance = DISTANCES_S[DISTANCES_S.len().min(row.failures as usize + 1) - 1];
        row.failures = row.failures.saturating_add(1);
        let at = now.plus(Duration::from_secs(distance).mul_f64(1.0 + JITTER * (2.0 * chance - 1.0)));
        row.standing = Verification { last_error: Some(error), last_attempt_at: Some(began), next_attempt_at: Some(at) };
        self.due.insert((at, ordinal));
    }

    /// Takes in that nothing was asked, because the relay lacked what it takes: that is no question, and is made up for soon, with
    /// the token that is there already.
    pub fn postpone(&mut self, round: &Round, token: Option<HeldToken>, now: Timestamp, chance: f64) {
        let ordinal = round.record.ordinal;
        let Some(row) = self.rows.get_mut(&ordinal).filter(|row| row.number == round.number) else { return };
        let at = now.plus(policy::own_fault_delay(chance));
        // A definition that changed meanwhile may name another token endpoint, and the time until when a token is good may have
        // been said in that of a clock that was moved since.
        row.token = token.filter(|_| Arc::ptr_eq(&row.record, &round.record) && self.moves == round.moves);
        row.standing.next_attempt_at = Some(at);
        self.due.insert((at, ordinal));
    }

    /// Notes that it was asked out of turn, and why that brought no consent.
    pub fn note(&mut self, ordinal: Ordinal, error: String, began: Timestamp) {
        if let Some(row) = self.rows.get_mut(&ordinal) {
            row.standing.last_error = Some(error);
            row.standing.last_attempt_at = Some(began);
        }
    }

    /// How the asking of a subscription stands, if it waits for an answer.
    #[must_use]
    pub fn standing(&self, ordinal: Ordinal) -> Option<Verification> {
        self.rows.get(&ordinal).map(|row| row.standing.clone())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use hookcast_core::model::subscription::change::new_record;
    use hookcast_core::model::subscription::parse::{Rules, parse_definition};
    use hookcast_core::model::{Seq, SubscriptionId};

    fn record(ordinal: u64, url: &str) -> Arc<SubscriptionRecord> {
        let form = json!({"url": url, "topics": ["t"], "verify": "challenge"});
        let any = |url: &str| Ok(url.to_owned());
        let definition = parse_definition(&form, None, &Rules::new(&any)).unwrap();
        let id = SubscriptionId::parse("a").unwrap();
        let record = new_record(definition, id, Seq::ZERO, Timestamp(0), &mut |bytes| bytes.fill(7));
        Arc::new(SubscriptionRecord { ordinal: Ordinal(ordinal), ..record })
    }

    #[test]
    fn a_day_sees_a_bounded_number_of_questions() {
        for chance in [0.0, 0.5, 1.0] {
            let mut plan = Plan::default();
            plan.see(&record(1, "https://a.example/"), Timestamp(0));
            let mut asked = Vec::new();
            while let Some(at) = plan.next_due().filter(|at| at.0 < 3 * 86_400_000) {
                let round = plan.take(at).unwrap();
                assert!(plan.take(at).is_none(), "asked twice at once");
                asked.push(at.0);
                plan.settle(&round, "timeout".to_owned(), (at, at), chance);
            }
            let most = asked.iter().map(|from| asked.iter().filter(|at| (*from..from + 86_400_000).contains(at)).count()).max();
            assert!((5..=ASKED_A_DAY_MAX as usize).contains(&most.unwrap()), "{most:?}");
        }
    }

    #[test]
    fn what_was_not_asked_is_no_question_and_comes_soon() {
        let mut plan = Plan::default();
        plan.see(&record(1, "https://a.example/"), Timestamp(0));
        for second in 0..100 {
            let round = plan.take(Timestamp(second * 1000)).unwrap();
            plan.postpone(&round, None, Timestamp(second * 1000), 0.5);
            let next_attempt_at = Some(Timestamp((second + 1) * 1000));
            assert_eq!(plan.standing(Ordinal(1)), Some(Verification { next_attempt_at, ..Verification::default() }));
        }
        let round = plan.take(Timestamp(100_000)).unwrap();
        plan.settle(&round, "timeout".to_owned(), (Timestamp(100_000), Timestamp(100_000)), 0.5);
        assert_eq!(plan.next_due(), Some(Timestamp(110_000)), "the first distance");
    }

    #[test]
    fn a_token_is_not_kept_over_a_step_of_the_clock_during_its_round() {
        let token = || Some(HeldToken::of("Bearer a", Timestamp(900_000)));
        let mut plan = Plan::default();
        plan.see(&record(1, "https://a.example/"), Timestamp(0));
        let round = plan.take(Timestamp(0)).unwrap();
        plan.shift(-86_400_000);
        plan.postpone(&round, token(), Timestamp(-86_400_000), 0.5);
        let round = plan.take(Timestamp(0)).unwrap();
        assert_eq!(round.token, None, "its end was said in the time of before");
        plan.postpone(&round, token(), Timestamp(0), 0.5);
        assert_eq!(plan.take(Timestamp(2000)).unwrap().token, token());
    }

    #[test]
    fn a_token_is_kept_for_a_question_that_was_not_asked_and_for_no_other() {
        let token = || Some(HeldToken::of("Bearer a", Timestamp(900_000)));
        let mut plan = Plan::default();
        let first = record(1, "https://a.example/");
        plan.see(&first, Timestamp(0));
        let round = plan.take(Timestamp(0)).unwrap();
        assert_eq!(round.token, None);
        plan.postpone(&round, token(), Timestamp(0), 0.5);
        let round = plan.take(Timestamp(1000)).unwrap();
        assert_eq!(round.token, token());
        plan.postpone(&round, token(), Timestamp(1000), 0.5);
        // Whoever changes the definition may change what the token is for.
        let changed = Arc::new(SubscriptionRecord { revision: 2, ..SubscriptionRecord::clone(&first) });
        plan.see(&changed, Timestamp(1500));
        let round = plan.take(Timestamp(2000)).unwrap();
        assert_eq!(round.token, None);
        plan.see(&first, Timestamp(2000));
        plan.postpone(&round, token(), Timestamp(2000), 0.5);
        let round = plan.take(Timestamp(3000)).unwrap();
        assert_eq!(round.token, None);
        plan.settle(&round, "timeout".to_owned(), (Timestamp(3000), Timestamp(3000)), 0.5);
        let round = plan.take(Timestamp(13_000)).unwrap();
        assert_eq!(round.token, None);
        plan.postpone(&round, token(), Timestamp(13_000), 0.5);
        plan.shift(-3_600_000);
        assert_eq!(plan.take(Timestamp(14_000)).unwrap().token, None, "good for too long by the clock that was moved");
    }

    #[test]
    fn another_url_is_asked_at_once_and_an_answer_for_the_old_one_is_nothing() {
        let mut plan = Plan::default();
        plan.see(&record(1, "https://a.example/"), Timestamp(0));
        let old = plan.take(Timestamp(0)).unwrap();
        plan.see(&record(1, "https://b.example/"), Timestamp(5));
        plan.settle(&old, "status_404".to_owned(), (Timestamp(0), Timestamp(6)), 0.5);
        let next_attempt_at = Some(Timestamp(5));
        assert_eq!(plan.standing(Ordinal(1)), Some(Verification { next_attempt_at, ..Verification::default() }));
        assert_eq!(plan.take(Timestamp(5)).unwrap().record.spec.url, "https://b.example/");
    }

    #[test]
    fn a_change_of_something_else_does_not_ask_again() {
        let mut plan = Plan::default();
        plan.see(&record(1, "https://a.example/"), Timestamp(0));
        let round = plan.take(Timestamp(0)).unwrap();
        plan.settle(&round, "timeout".to_owned(), (Timestamp(0), Timestamp(9)), 0.5);
        plan.see(&record(1, "https://a.example/"), Timestamp(20));
        assert_eq!(plan.next_due(), Some(Timestamp(10_009)));
        assert_eq!(plan.standing(Ordinal(1)).unwrap().last_error.as_deref(), Some("timeout"));
    }

    #[test]
    fn a_clock_that_is_moved_moves_what_is_due_and_nobody_is_asked_twice() {
        for step in [-86_400_000, 3_600_000] {
            let mut plan = Plan::default();
            plan.see(&record(1, "https://a.example/"), Timestamp(0));
            let round = plan.take(Timestamp(0)).unwrap();
            plan.shift(step);
            assert_eq!(plan.next_due(), None, "it is being asked");
            plan.settle(&round, "timeout".to_owned(), (Timestamp(step), Timestamp(step)), 0.5);
            plan.shift(step);
            let due = Timestamp(2 * step + 10_000);
            assert_eq!((plan.next_due(), plan.standing(Ordinal(1)).unwrap().next_attempt_at), (Some(due), Some(due)));
            plan.forget(Ordinal(1));
            assert_eq!(plan.next_due(), None);
        }
    }

    #[test]
    fn who_is_not_active_or_has_agreed_is_not_asked() {
        let mut plan = Plan::default();
        let first = record(1, "https://a.example/");
        for activity in [Activity::Paused, Activity::Disabled(hookcast_core::model::subscription::DisabledReason::Manual)] {
            plan.see(&first, Timestamp(0));
            plan.see(&Arc::new(SubscriptionRecord { activity, ..SubscriptionRecord::clone(&first) }), Timestamp(1));
            assert_eq!((plan.next_due(), plan.standing(Ordinal(1))), (None, None));
        }
        plan.see(&first, Timestamp(2));
        assert_eq!(plan.next_due(), Some(Timestamp(2)));
        plan.forget(Ordinal(1));
        assert_eq!(plan.next_due(), None);
    }
}
