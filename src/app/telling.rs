//! Notices as lines of the log, in plain words: the one place that has them, so that whoever makes a notice need not think of
//! the log. Of what can come in floods a subscription or source has one line a minute, with the number of those left out.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::telemetry::Foreign;
use hookcast_delivery::notice::Notice;

/// Shortest distance of two lines of one kind about one subscription or source.
const TELL_EVERY: Duration = Duration::from_mins(1);
/// Kinds and subjects that are remembered for that; of further ones nothing is told but their number.
const SUBJECTS_MAX: usize = 4096;
/// Kinds that turn a state, each of which is told: what makes them is slow enough.
const TURNS: [&str; 5] = ["subscription.failing", "subscription.recovered", "subscription.disabled", "source.down", "source.up"];

/// What is left out, and when it may be told.
#[derive(Debug)]
pub(super) struct Teller {
    told: HashMap<(&'static str, String), Told>,
    /// Of those that are not remembered.
    unknown: Told,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    left_out: u64,
    /// The newest that was left out.
    newest: Option<Notice>,
}

impl Teller {
    pub(super) fn new(now: Instant) -> Self {
        Self { told: HashMap::new(), unknown: Told { at: now, left_out: 0, newest: None } }
    }

    /// Tells of a notice, or remembers that it was left out.
    pub(super) fn hear(&mut self, notice: &Notice, now: Instant) {
        if self.may_tell(notice, now) {
            tell(notice, 0);
        }
    }

    /// When something that was left out is to be told; `None` = nothing was.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let left_out = self.told.values().chain([&self.unknown]).filter(|told| told.left_out > 0);
        left_out.map(|told| told.at + TELL_EVERY).min()
    }

    /// Tells what was left out and is due; all of it when nothing will be told any more.
    pub(super) fn catch_up(&mut self, now: Instant, is_end: bool) {
        let is_due = |told: &Told| is_end || now.saturating_duration_since(told.at) >= TELL_EVERY;
        self.told.retain(|_, told| {
            if !is_due(told) {
                return true;
            }
            let Some(newest) = told.newest.take() else { return false };
            tell(&newest, told.left_out - 1);
            *told = Told { at: now, left_out: 0, newest: None };
            true
        });
        if self.unknown.left_out > 0 && is_due(&self.unknown) {
            let notices = self.unknown.left_out;
            tracing::warn!(
                notices,
                "more happened to more subscriptions and sources than the log can tell; see the topic hookcast.ops"
            );
            self.unknown = Told { at: now, left_out: 0, newest: None };
        }
    }

    fn may_tell(&mut self, notice: &Notice, now: Instant) -> bool {
        if TURNS.contains(&notice.kind) {
            return true;
        }
        let is_full = self.told.len() >= SUBJECTS_MAX;
        let key = (notice.kind, notice.subject.clone());
        if let Some(told) = self.told.get_mut(&key) {
            if told.left_out == 0 && now.saturating_duration_since(told.at) >= TELL_EVERY {
                told.at = now;
                return true;
            }
            told.left_out += 1;
            told.newest = Some(notice.clone());
            return false;
        }
        if is_full {
            self.catch_up(now, false);
        }
        if self.told.len() >= SUBJECTS_MAX {
            if self.unknown.left_out == 0 {
                self.unknown.at = now;
            }
            self.unknown.left_out += 1;
            return false;
        }
        self.told.insert(key, Told { at: now, left_out: 0, newest: None });
        true
    }
}

/// Why a circuit is closed, in words.
fn what_closed(is_changed: bool) -> &'static str {
    if is_changed {
        "the subscription was changed, and how its endpoint failed is forgotten"
    } else {
        "the endpoint answers again, and what waited goes out"
    }
}

/// One line; `left_out` more of the kind were not told since the one before.
fn tell(notice: &Notice, left_out: u64) {
    let Notice { kind, subject, data, .. } = notice;
    let left_out = (left_out > 0).then_some(left_out);
    let text = |name: &str| data[name].as_str().map(|text| tracing::field::display(Foreign(text)));
    let number = |name: &str| data[name].as_u64();
    let (reason, since) = (text("reason"), text("since"));
    match *kind {
        "subscription.failing" => tracing::warn!(
            notice = kind,
            subscription.id = subject,
            reason,
            since,
            "circuit opened: the endpoint keeps failing; events wait and only probes go out until one succeeds; \
             GET /v1/subscriptions/{subject}/attempts shows what it answered"
        ),
        "subscription.recovered" => {
            tracing::info!(notice = kind, subscription.id = subject, reason, "circuit closed: {}", what_closed(reason.is_some()));
        }
        "subscription.disabled" => tracing::warn!(
            notice = kind,
            subscription.id = subject,
            reason,
            "subscription disabled: nothing is sent to it any more, its events wait until they expire; \
             once its endpoint is well, PATCH /v1/subscriptions/{subject} with {{\"enabled\": true}}"
        ),
        "delivery.dead" => tracing::warn!(
            notice = kind,
            subscription.id = subject,
            event.seq = number("seq"),
            reason,
            left_out,
            "dead letter: a delivery was given up; once its endpoint is well, \
             POST /v1/subscriptions/{subject}/dead-letters/redrive sends it again"
        ),
        "delivery.expired" => tracing::warn!(
            notice = kind,
            subscription.id = subject,
            from = number("from"),
            to = number("to"),
            left_out,
            "events expired before they were delivered: retention took them; raise `retention`, or mend what holds the \
             subscription up"
        ),
        "source.down" => tracing::warn!(
            notice = kind,
            source.name = subject,
            reason,
            since,
            detail = text("detail"),
            "source down: its upstream cannot be read; unless it is stopped it is tried again; GET /v1/sources/{subject} shows more"
        ),
        "source.up" => tracing::info!(
            notice = kind,
            source.name = subject,
            down_since = text("down_since"),
            "source up: its upstream is read again"
        ),
        "source.gap" => tracing::warn!(
            notice = kind,
            source.name = subject,
            from = text("from"),
            to = text("to"),
            left_out,
            "gap: what the upstream sent in this time was missed, and it cannot be asked for it again"
        ),
        _ => tell_rarer(notice, left_out),
    }
}

fn tell_rarer(notice: &Notice, left_out: Option<u64>) {
    let Notice { kind, subject, data, .. } = notice;
    let number = |name: &str| data[name].as_u64();
    match *kind {
        "delivery.skipped" => tracing::info!(
            notice = kind,
            subscription.id = subject,
            from = number("from"),
            to = number("to"),
            events = number("count"),
            left_out,
            "skipped: these events were passed over by a skip or a seek and are not delivered"
        ),
        "delivery.no_longer_kept" => tracing::warn!(
            notice = kind,
            subscription.id = subject,
            from = number("from"),
            to = number("to"),
            dead_letters = number("count"),
            left_out,
            "dead letters are no longer kept and cannot be sent again: they are older than `retention.dead_letters_max_age`"
        ),
        "source.id_reused" => tracing::warn!(
            notice = kind,
            source.name = subject,
            id = data["id"].as_str().map(|id| tracing::field::display(Foreign(id))),
            event.seq = number("seq"),
            earlier_seq = number("earlier_seq"),
            left_out,
            "the upstream gave one id to two events; both are kept, the later under an id of its own, unless `on_reused_id` is drop"
        ),
        _ => tell_other(notice, left_out),
    }
}

/// A kind that has no words of its own: its data say what happened.
fn tell_other(Notice { kind, subject, data, .. }: &Notice, left_out: Option<u64>) {
    let is_said = data.get("said").is_some();
    let text = data.to_string();
    let data = Foreign(&text);
    if kind.starts_with("delivery.") || kind.starts_with("subscription.") {
        tracing::warn!(notice = kind, subscription.id = subject, %data, left_out, "notice about a subscription");
    } else if is_said {
        tracing::info!(notice = kind, source.name = subject, %data, left_out, "the upstream says something about its stream");
    } else {
        tracing::warn!(notice = kind, source.name = subject, %data, left_out, "notice about a source");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(kind: &'static str, subject: &str) -> Notice {
        Notice { kind, subject: subject.to_owned(), data: serde_json::json!({"seq": 1}), is_for_the_log: false }
    }

    /// A teller, and a clock that starts at zero.
    fn teller() -> (Teller, impl Fn(u64) -> Instant) {
        let begin = Instant::now();
        (Teller::new(begin), move |seconds| begin + Duration::from_secs(seconds))
    }

    #[test]
    fn each_turn_is_told_and_of_a_flood_one_a_minute() {
        let (mut teller, at) = teller();
        for second in 0..3 {
            assert!(teller.may_tell(&notice("subscription.failing", "a"), at(second)));
        }
        let told: Vec<bool> = [0, 1, 59].map(|second| teller.may_tell(&notice("delivery.dead", "a"), at(second))).into();
        assert_eq!(told, [true, false, false]);
        assert!(teller.may_tell(&notice("delivery.dead", "b"), at(2)), "another subscription has its own line");
        assert!(teller.may_tell(&notice("delivery.expired", "a"), at(2)), "another kind, too");
        assert_eq!(teller.due_at(), Some(at(60)));
        teller.catch_up(at(59), false);
        assert_eq!(teller.told[&("delivery.dead", "a".to_owned())].left_out, 2);
        teller.catch_up(at(60), false);
        assert_eq!(teller.due_at(), None, "what was left out was told");
        assert!(!teller.may_tell(&notice("delivery.dead", "a"), at(61)), "and that was a line, too");
        assert_eq!(teller.due_at(), Some(at(120)));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten() {
        let (mut teller, at) = teller();
        for n in 0..SUBJECTS_MAX {
            assert!(teller.may_tell(&notice("delivery.dead", &n.to_string()), at(0)));
        }
        assert!(!teller.may_tell(&notice("delivery.dead", "one more"), at(30)));
        assert_eq!((teller.told.len(), teller.due_at()), (SUBJECTS_MAX, Some(at(90))));
        assert!(teller.may_tell(&notice("delivery.dead", "later"), at(60)), "the old ones were forgotten");
        assert_eq!(teller.told.len(), 1);
        teller.catch_up(at(61), true);
        assert_eq!(teller.due_at(), None);
    }
}
