//! What others may ask a lane about one subscription, and what it answers.

use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use actix_http::header::{CONTENT_TYPE, HeaderName};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::attempt::{self, Mark};
use super::job::{Errand, Job, attempt_of};
use super::lane::Lane;
use super::notice::Notice;
use super::parcel::Content;
use super::sieve::Filtering;
use super::window::Ticket;
use hookcast_core::clock::Timestamp;
use hookcast_core::model::subscription::{Ordinal, SubscriptionRecord};
use hookcast_core::model::{Attempt, ErrorKind, Exception, JobId, Outcome, RecoveryJob, Seq};
use hookcast_log::storage::{Marks, Result};
use hookcast_net::client::HeaderLines;
use hookcast_supervise::{Panic, caught};

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
    /// Positions that were skipped or passed over by a seek, since the start.
    pub skipped: u64,
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
    /// Not looked at.
    Ahead,
    /// Wanted, and waiting or in flight.
    Open,
    /// Waits for another attempt, due then.
    Retrying(Timestamp),
    /// Passed by the cursor.
    Passed,
}

/// Where one delivery stands, with what storage may not know yet.
#[derive(Debug)]
pub struct Fresh {
    /// The definition in force, which may be another than that of whoever asks.
    pub record: Arc<SubscriptionRecord>,
    /// Where it stands.
    pub standing: Standing,
    /// The last word on its exception; the inner `None` means that it ended.
    pub last_word: Option<Option<Exception>>,
    /// Its newest attempts.
    pub attempts: Vec<Attempt>,
    /// What ranges say of it, and whether what storage says of its being skipped or buried is out of date.
    pub marks: (Marks, bool),
    /// How often a seek moved the cursor since the start.
    pub seeks: u64,
}

impl Fresh {
    /// Whether what was read by the one before may be of two times.
    pub(crate) fn moved_since(&self, before: &Self) -> bool {
        (self.seeks, &self.standing) != (before.seeks, &before.standing)
    }
}

/// What waits in memory behind a position.
#[derive(Debug)]
pub struct Waiting {
    /// Retries by position, at most as many as asked for.
    pub retries: Vec<Exception>,
    /// The last words on exceptions that storage may not know yet; `None` = ended.
    pub words: BTreeMap<Seq, Option<Exception>>,
    /// Events up to `base` that are not settled and no exceptions, rising.
    pub open: Vec<Seq>,
    /// Everything behind this is not tried yet.
    pub base: Seq,
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
    /// Which attempts are not saved yet?
    Attempts(oneshot::Sender<Vec<Attempt>>),
    /// What waits behind this position, at most so many retries?
    Waiting(Seq, usize, oneshot::Sender<Waiting>),
    /// Save what is not saved.
    Save(oneshot::Sender<Result<()>>),
    /// Post a test event now.
    Ping(oneshot::Sender<Attempt>),
    /// Look at no event more while what is answered lasts; from which position on is that?
    Freeze(oneshot::Sender<(Seq, Stillness)>),
    /// Go on behind this position.
    Seek(Seq, oneshot::Sender<Result<()>>),
    /// Settle everything up to this position.
    Skip(Seq, oneshot::Sender<Result<()>>),
    /// Do this job; answers whether there is room for it.
    Recover(Box<RecoveryJob>, oneshot::Sender<Result<bool>>),
    /// Which jobs run?
    Jobs(oneshot::Sender<Vec<RecoveryJob>>),
    /// End this job before its end.
    Cancel(JobId, oneshot::Sender<Result<Option<RecoveryJob>>>),
    /// Dead letters are gone, or may be; so many are to be told, between these positions.
    Buried(Option<Told>),
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
        Question::Attempts(reply) => {
            let _ = reply.send(lane.floor.borrow().journal.attempts(record.ordinal, None));
        }
        Question::Waiting(after, limit, reply) => {
            if let Some(waiting) = waiting(lane, record, after, limit) {
                let _ = reply.send(waiting);
            }
        }
        Question::Save(reply) => {
            let saving = Rc::clone(lane);
            lane.spawn("save", async move {
                let _ = reply.send(super::saving::save(&saving).await.stored());
            });
        }
        Question::Ping(reply) => {
            let (pinging, record) = (Rc::clone(lane), Arc::clone(record));
            lane.spawn("ping", async move {
                let attempt = caught(pin!(ping(&pinging, &record))).await;
                let _ = reply.send(attempt.unwrap_or_else(|panic| broken_ping(&pinging, &record, &panic)));
            });
        }
        Question::Freeze(reply) => freeze(lane, record, reply),
        Question::Jobs(reply) => {
            let floor = lane.floor.borrow();
            if let Some(desk) = floor.desk(record.ordinal) {
                let _ = reply.send(desk.jobs());
            }
        }
        Question::Buried(told) => buried(lane, record, told),
        Question::Seek(..) | Question::Skip(..) | Question::Recover(..) | Question::Cancel(..) => change(lane, record, question),
    }
}

/// Events that are told of together: how many, the first and the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// How many.
    pub count: u64,
    /// The first.
    pub from: Seq,
    /// The last.
    pub to: Seq,
}

/// Dead letters went: which, storage says once nothing is being saved.
fn buried(lane: &Rc<Lane>, record: &SubscriptionRecord, told: Option<Told>) {
    let mut floor = lane.floor.borrow_mut();
    floor.notices.extend(told.map(|told| Notice::buried(record, (told.from, told.to), told.count)));
    floor.letters_went(record.ordinal);
    drop(floor);
    lane.stir();
}

/// While this is kept, its subscription looks at no event that it has not looked at.
#[derive(Debug, Default)]
pub struct Stillness {
    _lasts: Option<oneshot::Sender<()>>,
}

fn freeze(lane: &Rc<Lane>, record: &SubscriptionRecord, reply: oneshot::Sender<(Seq, Stillness)>) {
    let ordinal = record.ordinal;
    let Some(from) = lane.floor.borrow_mut().freeze(ordinal) else { return };
    let (lasts, ended) = oneshot::channel();
    let frozen = Rc::clone(lane);
    lane.spawn("stillness", async move {
        let lane = frozen;
        // Nothing is ever sent: it ends with whoever keeps it.
        let _ = ended.await;
        lane.floor.borrow_mut().thaw(ordinal);
        lane.stir();
        lane.hunger.notify_one();
    });
    let _ = reply.send((from, Stillness { _lasts: Some(lasts) }));
}

/// Changes something; it is stored when that is answered.
fn change(lane: &Rc<Lane>, record: &Arc<SubscriptionRecord>, question: Question) {
    let ordinal = record.ordinal;
    match question {
        Question::Seek(to, reply) => {
            promise(lane, ordinal, reply, move |lane| {
                lane.floor.borrow_mut().seek(ordinal, to);
                lane.stir();
                lane.hunger.notify_one();
            });
        }
        Question::Skip(to, reply) => {
            let (skipping, record) = (Rc::clone(lane), Arc::clone(record));
            lane.spawn("skip", async move {
                let lane = skipping;
                // Who is gone gets no answer.
                if let Some(answer) = super::replaying::skip(&lane, &record, to).await.transpose() {
                    let _ = reply.send(answer);
                }
            });
        }
        Question::Recover(job, reply) => {
            promise(lane, ordinal, reply, move |lane| {
                let is_taken = lane.floor.borrow_mut().recover(*job);
                lane.replays.notify_one();
                is_taken
            });
        }
        Question::Cancel(id, reply) => {
            promise(lane, ordinal, reply, move |lane| {
                let now = lane.now();
                let cancelled = lane.floor.borrow_mut().cancel(ordinal, id, now);
                lane.replays.notify_one();
                cancelled
            });
        }
        _ => {}
    }
}

/// Makes a change that is durable when it is answered; see [`super::saving::promise`].
fn promise<T: 'static>(
    lane: &Rc<Lane>,
    ordinal: Ordinal,
    reply: oneshot::Sender<Result<T>>,
    change: impl FnOnce(&Rc<Lane>) -> T + 'static,
) {
    let promising = Rc::clone(lane);
    lane.spawn("change", async move {
        let lane = promising;
        // Who is gone gets no answer.
        if let Some(answer) = super::saving::promise(&lane, ordinal, || change(&lane)).await.transpose() {
            let _ = reply.send(answer);
        }
    });
}

fn status(lane: &Rc<Lane>, record: &SubscriptionRecord) -> Option<SubscriptionStatus> {
    let floor = lane.floor.borrow();
    let (scanned, head) = (floor.scanned, lane.context.follow.head());
    let desk = floor.desk(record.ordinal)?;
    let cursor = desk.window.cursor(scanned);
    let jumps = lane.context.follow.jumps();
    let lag = jumps.distance(cursor, head);
    let oldest_undelivered = desk.oldest_retry().into_iter().chain((lag > 0).then(|| jumps.past(cursor.next()))).min();
    Some(SubscriptionStatus {
        cursor,
        head,
        lag,
        oldest_undelivered,
        in_flight: desk.in_flight(),
        retrying: desk.retrying(),
        dead: desk.totals.dead(),
        expired: desk.totals.expired,
        skipped: desk.totals.skipped,
        circuit: desk.circuit().word(),
        delivered_total: desk.totals.delivered,
        failed_attempts_total: desk.totals.failed_attempts,
        filtering: desk.filtering.as_deref().cloned().unwrap_or_default(),
        last_attempt: desk.last_attempt.clone(),
        is_failing: desk.is_failing(),
    })
}

fn standing(lane: &Rc<Lane>, record: &SubscriptionRecord, seq: Seq) -> Option<Fresh> {
    let floor = lane.floor.borrow();
    let scanned = floor.scanned;
    let desk = floor.desk(record.ordinal)?;
    let standing = if let Some(retry) = desk.retry(seq) {
        Standing::Retrying(retry.due_at)
    } else if desk.window.holds(seq) {
        Standing::Open
    } else if seq > desk.window.base(scanned) {
        Standing::Ahead
    } else {
        Standing::Passed
    };
    let journal = &floor.journal;
    let (last_word, attempts) = (floor.last_word(record.ordinal, seq), journal.attempts(record.ordinal, Some(seq)));
    let (record, marks) = (Arc::clone(&desk.record), journal.marks(record.ordinal, seq));
    Some(Fresh { record, standing, last_word, attempts, marks, seeks: desk.seeks })
}

fn waiting(lane: &Rc<Lane>, record: &SubscriptionRecord, after: Seq, limit: usize) -> Option<Waiting> {
    let floor = lane.floor.borrow();
    let scanned = floor.scanned;
    let words = floor.words(record.ordinal, after);
    let desk = floor.desk(record.ordinal)?;
    let (retries, base) = (desk.retries_after(after, limit), desk.window.base(scanned));
    let open = desk.window.progress(scanned).map_or_else(Vec::new, |progress| progress.holes);
    Some(Waiting { retries, words, open: open.into_iter().filter(|seq| *seq > after).collect(), base })
}

/// One signed test event, posted now, outside the log.
async fn ping(lane: &Rc<Lane>, record: &SubscriptionRecord) -> Attempt {
    let now = lane.now();
    let id = format!("ping_{}", uuid::Uuid::now_v7().simple());
    let body = serde_json::json!({"type": "hookcast.ping", "subscription": record.spec.id, "time": now.to_string()});
    let mut headers = HeaderLines::default();
    headers.push(&CONTENT_TYPE, "application/json");
    headers.push(&HeaderName::from_static("webhook-id"), &id);
    let content = Content { body: Bytes::from(body.to_string()), headers, webhook_id: id };
    let outcome = match lane.address(record) {
        Some(address) => attempt::post(lane.client(), &address, &content, Mark { attempt: 1, replay: None }, now).await,
        None => Outcome::failed(ErrorKind::Protocol, 0),
    };
    attempt_of(&ping_job(), &outcome, now)
}

/// A ping that panicked failed as an attempt of a delivery would.
fn broken_ping(lane: &Rc<Lane>, record: &SubscriptionRecord, panic: &Panic) -> Attempt {
    Panic::count("ping");
    tracing::error!(subscription.id = %record.spec.id, %panic, "a ping panicked; it counts as one that failed");
    attempt_of(&ping_job(), &Outcome::failed(ErrorKind::Internal, 0), lane.now())
}

/// A ping as an attempt: of no event.
fn ping_job() -> Job {
    Job { seq: Seq::ZERO, parcel: None, attempt: 1, ticket: Ticket::default(), errand: Errand::First, batch: None }
}
