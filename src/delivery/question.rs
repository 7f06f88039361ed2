//! What others may ask a lane about one subscription, and what it answers.

use std::rc::Rc;
use std::sync::Arc;

use actix_http::header::{CONTENT_TYPE, HeaderName};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::attempt;
use super::job::{Errand, Job, attempt_of};
use super::lane::Lane;
use super::parcel::Content;
use super::sieve::Filtering;
use crate::clock::Timestamp;
use crate::model::subscription::SubscriptionRecord;
use crate::model::{Attempt, ErrorKind, Exception, ExceptionState, Seq};
use crate::net::client::HeaderLines;

/// How a subscription is doing.
#[derive(Clone, Debug)]
pub struct SubscriptionStatus {
    /// Everything up to here is settled or an exception.
    pub cursor: Seq,
    /// The newest event of the log.
    pub head: Seq,
    /// Positions between the two.
    pub lag: u64,
    /// The oldest event that was not delivered, for its age.
    pub oldest_undelivered: Option<Seq>,
    /// Attempts in flight.
    pub in_flight: u32,
    /// Retries waiting or in flight.
    pub retrying: u32,
    /// Dead letters kept.
    pub dead: u64,
    /// Positions that retention took before they were delivered, since the start.
    pub expired: u64,
    /// `closed`, `open` or `half_open`.
    pub circuit: &'static str,
    /// Events delivered since the start.
    pub delivered_total: u64,
    /// Attempts that failed since the start.
    pub failed_attempts_total: u64,
    /// What its filter did since the start.
    pub filtering: Filtering,
    /// The newest attempt since the start.
    pub last_attempt: Option<Attempt>,
    /// Whether the cursor stands still because too many retries wait or the circuit is open.
    pub is_failing: bool,
}

/// Where one delivery stands in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not reached, waiting or in flight.
    Pending,
    /// Waits for another attempt, due then.
    Retrying(Timestamp),
    /// Passed by the cursor.
    Passed,
}

/// Where one delivery stands, with what storage may not know yet.
#[derive(Debug)]
pub struct Fresh {
    /// Where it stands.
    pub standing: Standing,
    /// The last word on its exception; the inner `None` means that it ended.
    pub last_word: Option<Option<Exception>>,
    /// Its newest failed attempts.
    pub failures: Vec<Attempt>,
}

/// A question to a lane.
#[derive(Debug)]
pub enum Question {
    /// Answer, nothing more.
    Nothing(oneshot::Sender<()>),
    /// How is it doing?
    Status(oneshot::Sender<SubscriptionStatus>),
    /// Where does this delivery stand?
    Standing(Seq, oneshot::Sender<Fresh>),
    /// Save what is not saved.
    Save(oneshot::Sender<()>),
    /// Post a test event now.
    Ping(oneshot::Sender<Attempt>),
    /// Go on behind this position.
    Seek(Seq, oneshot::Sender<()>),
    /// Try these dead letters again; answers how many it took, in order, until no more retries may wait.
    Redrive(Vec<Exception>, oneshot::Sender<usize>),
    /// These dead letters are gone.
    Buried(u64),
}

/// Answers a question. A subscription that the lane does not know is not answered.
pub fn answer(lane: &Rc<Lane>, record: &Arc<SubscriptionRecord>, question: Question) {
    match question {
        Question::Nothing(reply) => {
            let _ = reply.send(());
        }
        Question::Status(reply) => {
            if let Some(status) = status(lane, record) {
                let _ = reply.send(status);
            }
        }
        Question::Standing(seq, reply) => {
            if let Some(standing) = standing(lane, record, seq) {
                let _ = reply.send(standing);
            }
        }
        Question::Save(reply) => {
            let lane = Rc::clone(lane);
            actix_rt::spawn(async move {
                super::saving::save(&lane).await;
                let _ = reply.send(());
            });
        }
        Question::Ping(reply) => {
            let (lane, record) = (Rc::clone(lane), Arc::clone(record));
            actix_rt::spawn(async move {
                let _ = reply.send(ping(&lane, &record).await);
            });
        }
        Question::Seek(to, reply) => {
            lane.floor.borrow_mut().seek(record.ordinal, to);
            lane.stir();
            lane.hunger.notify_one();
            let lane = Rc::clone(lane);
            actix_rt::spawn(async move {
                super::saving::save(&lane).await;
                let _ = reply.send(());
            });
        }
        Question::Redrive(dead, reply) => {
            let taken = redrive(lane, record, &dead);
            let lane = Rc::clone(lane);
            actix_rt::spawn(async move {
                super::saving::save(&lane).await;
                let _ = reply.send(taken);
            });
        }
        Question::Buried(count) => {
            let mut floor = lane.floor.borrow_mut();
            if let Some(desk) = floor.desk(record.ordinal) {
                desk.totals.dead = desk.totals.dead.saturating_sub(count);
                if let Some(order) = desk.order() {
                    // A letter that nobody can redrive any more holds nothing up.
                    order.doubt_dead();
                    floor.nudge(record.ordinal);
                    drop(floor);
                    lane.stir();
                }
            }
        }
    }
}

fn status(lane: &Rc<Lane>, record: &SubscriptionRecord) -> Option<SubscriptionStatus> {
    let mut floor = lane.floor.borrow_mut();
    let (scanned, head) = (floor.scanned, lane.context.follow.head());
    let desk = floor.desk(record.ordinal)?;
    let cursor = desk.window.cursor(scanned);
    let lag = head.0.saturating_sub(cursor.0);
    let oldest_undelivered = desk.oldest_retry().into_iter().chain((lag > 0).then(|| cursor.next())).min();
    Some(SubscriptionStatus {
        cursor,
        head,
        lag,
        oldest_undelivered,
        in_flight: desk.in_flight(),
        retrying: desk.retrying(),
        dead: desk.totals.dead,
        expired: desk.totals.expired,
        circuit: desk.circuit().word(),
        delivered_total: desk.totals.delivered,
        failed_attempts_total: desk.totals.failed_attempts,
        filtering: desk.filtering.as_deref().cloned().unwrap_or_default(),
        last_attempt: desk.last_attempt.clone(),
        is_failing: desk.is_full() || desk.circuit().is_open(),
    })
}

fn standing(lane: &Rc<Lane>, record: &SubscriptionRecord, seq: Seq) -> Option<Fresh> {
    let mut floor = lane.floor.borrow_mut();
    let scanned = floor.scanned;
    let desk = floor.desk(record.ordinal)?;
    let standing = if let Some(retry) = desk.retry(seq) {
        Standing::Retrying(retry.due_at)
    } else if desk.window.holds(seq) || seq > desk.window.base(scanned) {
        Standing::Pending
    } else {
        Standing::Passed
    };
    let journal = &floor.journal;
    let (last_word, failures) = (journal.last_word(record.ordinal, seq), journal.failures(record.ordinal, seq));
    Some(Fresh { standing, last_word, failures })
}

fn redrive(lane: &Rc<Lane>, record: &SubscriptionRecord, dead: &[Exception]) -> usize {
    let now = lane.now();
    let mut floor = lane.floor.borrow_mut();
    let mut taken = 0;
    for exception in dead {
        let Some(desk) = floor.desk(record.ordinal) else { break };
        if desk.is_full() {
            break;
        }
        if desk.retry(exception.seq).is_some() {
            continue;
        }
        let mut again = exception.clone();
        again.state = ExceptionState::Retry;
        again.attempts = 0;
        again.due_at = now;
        again.since = now;
        desk.resume_retry(&again);
        desk.totals.dead = desk.totals.dead.saturating_sub(1);
        floor.journal.put(again, None);
        taken += 1;
    }
    floor.nudge(record.ordinal);
    drop(floor);
    lane.stir();
    taken
}

/// One signed test event, posted now, outside the log.
async fn ping(lane: &Rc<Lane>, record: &SubscriptionRecord) -> Attempt {
    let now = lane.now();
    let job = Job { seq: Seq::ZERO, parcel: None, attempt: 1, errand: Errand::First, batch: None };
    let id = format!("ping_{}", uuid::Uuid::now_v7().simple());
    let body = serde_json::json!({"type": "hookcast.ping", "subscription": record.spec.id, "time": now.to_string()});
    let mut headers = HeaderLines::default();
    headers.push(&CONTENT_TYPE, "application/json");
    headers.push(&HeaderName::from_static("webhook-id"), &id);
    let content = Content { body: Bytes::from(body.to_string()), headers, webhook_id: id };
    let outcome = match lane.address(record) {
        Some(address) => attempt::post(lane.client(), &address, &content, 1, now).await,
        None => attempt::failed(ErrorKind::Protocol, 0),
    };
    attempt_of(&job, &outcome, now)
}
