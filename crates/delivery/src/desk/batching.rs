//! A desk that gathers: when a batch goes out, what it takes along, what comes back of it.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Desk, Effect};
use crate::batch::{Batching, Gathered, Member, Sent};
use crate::job::{Errand, Job, Next, attempt_of};
use crate::order::{Fate, Order};
use crate::policy::{Before, Verdict};
use crate::window::{Position, QUEUE_BYTES_MAX, QUEUE_MAX, Ticket};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::subscription::OnFull;
use hookcast_core::model::{Outcome, Seq};

/// Whether a first attempt may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NewWork {
    /// Yes.
    Now,
    /// When company does not come sooner.
    At(Timestamp),
    /// No.
    None,
}

impl Desk {
    /// Events and bytes that may wait in memory.
    pub(super) fn queue_max(&self) -> (usize, usize) {
        self.batching.as_ref().map_or((QUEUE_MAX, QUEUE_BYTES_MAX), |batching| batching.queue_max())
    }

    /// Whether a first attempt may begin.
    pub(super) fn new_work(&mut self, now: Timestamp, probing: bool) -> NewWork {
        let (room, flights) = (self.new_room(), self.flights);
        let waits = if self.order.is_none() {
            self.window.waiting() > 0
        } else {
            let is_free = self.pass_by().is_some();
            is_free || self.order.as_ref().is_some_and(|order| order.ready().is_some())
        };
        if !waits || room == 0 {
            return NewWork::None;
        }
        let Some(batching) = &mut self.batching else { return NewWork::Now };
        // In order, one batch at a time: what is behind it may be of the same keys.
        if self.order.as_ref().is_some_and(|order| !order.is_free()) && flights > 0 {
            return NewWork::None;
        }
        let has_come = matches!(self.window.position(), Position::Riding { .. });
        let counted = batching.count(self.window.waiting(), self.window.waiting_events(), has_come, now);
        let is_held_up = self.order.as_ref().is_some_and(|order| order.ready().is_some());
        match counted {
            Some((events, _)) if flights > 0 && events > room => NewWork::None,
            Some((_, due)) if due > now && !probing && !is_held_up => NewWork::At(due),
            _ => NewWork::Now,
        }
    }

    /// First attempts that may begin. Every attempt in flight may come back as a retry, so those count as if they had.
    fn new_room(&self) -> usize {
        let held = self.retries.len() + self.window.in_flight() + self.replays_in_flight() as usize;
        let retrying = match self.record.spec.on_full {
            OnFull::Dead => usize::MAX,
            OnFull::Wait => (self.record.spec.max_retrying as usize).saturating_sub(held),
        };
        if self.batching.is_some() { retrying.min(self.window.open_room()) } else { retrying }
    }

    /// The next batch, in flight now.
    pub(super) fn take_batch(&mut self) -> Next {
        let Some(terms) = self.batching.as_ref().map(|batching| batching.terms) else { return Next::Nothing };
        let ticket = self.ticket();
        let most = self.new_room().min(terms.max_events as usize);
        let (mut members, mut bytes) = (Vec::new(), 1);
        while members.len() < most {
            let aside = self.order.as_ref().and_then(|order| order.ready());
            let free = if aside.is_none() && self.order.is_some() { self.pass_by() } else { None };
            let next = match aside {
                Some(seq) => self.window.peek_aside(seq).map_or(0, |parcel| parcel.json().len()),
                None if self.order.is_some() && free.is_none() => break,
                None => match self.window.waiting_events().next() {
                    Some((_, parcel)) => parcel.json().len(),
                    None => break,
                },
            };
            bytes += next + 1;
            if !members.is_empty() && bytes > terms.max_bytes as usize {
                break;
            }
            members.extend(match (aside, &mut self.order) {
                (Some(seq), Some(order)) => {
                    order.take_ready(true);
                    Some(Member::new(seq, self.window.take_aside(seq, ticket)))
                }
                (_, order) => {
                    if let (Some((seq, line)), Some(order)) = (free, order) {
                        order.start(seq, line, true);
                    }
                    self.window.take(ticket).map(|(seq, parcel)| Member::new(seq, Some(parcel)))
                }
            });
        }
        members.sort_unstable_by_key(|member| member.seq);
        self.send(members, 1, Errand::First, false)
    }

    /// The failed batch of a retry, in flight now.
    pub(super) fn take_failed_batch(&mut self, seq: Seq) -> Next {
        let group = self.retries.get(&seq).map_or(Seq::ZERO, |retry| retry.group);
        let Some(batching) = &mut self.batching else { return Next::Nothing };
        batching.close();
        let (mut members, mut left, mut attempt) = (Vec::new(), Vec::new(), 1);
        let failed = batching.take(group, seq);
        let together = failed.len();
        for other in failed {
            let waits =
                self.retries.get(&other).is_some_and(|retry| retry.flight.is_none() && (retry.group == group || other == seq));
            if !waits {
                continue;
            }
            if self.order.as_ref().is_some_and(|order| !order.lets_retry(other)) {
                left.push(other);
            } else if let Some(number) = self.lift_off(other, true) {
                attempt = if members.is_empty() { number } else { attempt };
                members.push(Member::new(other, None));
            }
        }
        self.regroup(left);
        let keeps_id = members.len() == together && self.had_old_batch_id(&members);
        if !keeps_id {
            self.forget_old_batch_id(&members);
        }
        self.send(members, attempt, Errand::Retry, keeps_id)
    }

    /// Gathers by the definition in force. Failed batches that wait stay as they were cut, as far as they are not too large now.
    pub(super) fn gather_anew(&mut self) {
        let before = self.batching.take();
        let format = before.as_ref().map(|batching| batching.terms.format);
        if format != self.record.spec.batch.map(|terms| terms.format) {
            // What goes out now is written in another way.
            self.retries.values_mut().for_each(|retry| retry.has_old_batch_id = false);
        }
        let groups: BTreeMap<Seq, Vec<Seq>> =
            before.map(|batching| batching.into_groups().into_iter().collect()).unwrap_or_default();
        let Some(terms) = self.record.spec.batch else { return };
        self.batching = Some(Batching::new(terms));
        for (name, mut members) in groups {
            members.retain(|seq| self.retries.get(seq).is_some_and(|retry| retry.group == name));
            members.sort_unstable();
            for some in members.chunks(terms.max_events.max(1) as usize) {
                self.regroup(some.to_vec());
            }
        }
    }

    fn regroup(&mut self, left: Vec<Seq>) {
        let Some(batching) = &mut self.batching else { return };
        let Some(name) = batching.keep(left.clone()) else { return };
        for seq in left {
            if let Some(retry) = self.retries.get_mut(&seq) {
                retry.group = name;
            }
        }
    }

    /// Whether the batch of all of these was posted under an id as builds before had it.
    fn had_old_batch_id(&self, members: &[Member]) -> bool {
        members.iter().all(|member| self.retries.get(&member.seq).is_some_and(|retry| retry.has_old_batch_id))
    }

    /// These do not go together as they did: an id that says first and last only would name another body.
    fn forget_old_batch_id(&mut self, members: &[Member]) {
        for member in members {
            if let Some(retry) = self.retries.get_mut(&member.seq) {
                retry.has_old_batch_id = false;
            }
        }
    }

    pub(super) fn send(&mut self, members: Vec<Member>, attempt: u32, errand: Errand, has_old_id: bool) -> Next {
        if let Some(order) = &mut self.order {
            order.close_batch(members.iter().map(|member| member.seq));
        }
        let (Some(batching), Some(seq)) = (&self.batching, members.first().map(|member| member.seq)) else {
            return Next::Nothing;
        };
        let batch = Some(Rc::new(Gathered { terms: batching.terms, members, has_old_id }));
        Next::Job(Job { seq, parcel: None, attempt, ticket: self.ticket(), errand, batch })
    }

    /// Takes in the outcome of a batch: one word for all events of it that were sent.
    pub(super) fn settle_batch(
        &mut self,
        job: &Job,
        batch: &Gathered,
        outcome: &Outcome,
        (began, now): (Timestamp, Timestamp),
        chance: f64,
    ) -> Effect {
        if batch.has_old_id && !(batch.is_whole() && self.had_old_batch_id(&batch.members)) {
            self.forget_old_batch_id(&batch.members);
        }
        let by = (job.errand, job.ticket);
        let is_put_back = outcome.is_own_fault() && matches!(job.errand, Errand::Replay(_));
        self.take_back(by, batch, is_put_back);
        if is_put_back {
            self.judge(std::iter::empty(), outcome, Before { attempts: 0, since: now }, (began, now), chance);
        }
        let mut flights = Vec::with_capacity(batch.members.len());
        for member in batch.with(Sent::Posted) {
            flights.push((member, self.end_flight(by, member.seq, outcome, now)));
        }
        let (mut effects, mut disable) = (Vec::new(), None);
        if let Some(history) = flights.iter().find_map(|(_, flight)| flight.history(now)) {
            let attempt = attempt_of(job, outcome, began);
            let decision = self.judge(flights.iter().map(|(member, _)| member.seq), outcome, history, (began, now), chance);
            for (member, flight) in flights {
                if flight.history(now).is_none() {
                    continue;
                }
                let mut effect = self.conclude((member.seq, job.attempt), &flight, outcome, &decision.verdict, now);
                if !outcome.is_success() && !outcome.is_own_fault() {
                    // What was answered is kept once.
                    let response = attempt.response.clone().filter(|_| effects.is_empty());
                    effect.failure = Some(hookcast_core::model::Attempt { seq: member.seq, response, ..attempt.clone() });
                }
                disable = disable.or(effect.disable);
                // Most events of most batches are simply delivered: nothing of them is carried on.
                if !effect.is_nothing() {
                    effects.push((effect, (!outcome.is_success()).then(|| member.event()).flatten()));
                }
            }
            if !outcome.is_own_fault() {
                self.last_attempt = Some(attempt);
            }
        }
        let gone = Outcome::event_gone();
        for member in batch.with(Sent::Gone) {
            let flight = self.end_flight(by, member.seq, &gone, now);
            effects.push((self.conclude((member.seq, job.attempt), &flight, &gone, &Verdict::EventGone, now), None));
        }
        if let Some(batching) = &mut self.batching {
            batching.close();
        }
        Effect { disable, rest: effects, ..Effect::default() }
    }

    /// Events that did not fit go on waiting, as if they had not been taken; so do all of a job when it was
    /// `unposted`.
    fn take_back(&mut self, (errand, ticket): (Errand, Ticket), batch: &Gathered, unposted: bool) {
        if let Some(batching) = &mut self.batching {
            batching.close();
        }
        let mut left = Vec::new();
        let waits = |member: &&Member| member.sent() == Sent::Left || (unposted && member.sent() == Sent::Posted);
        for member in batch.members.iter().filter(waits).rev() {
            if let Errand::Replay(id) = errand {
                self.put_replay_back(id, member.seq, member.parcel());
                continue;
            }
            if errand == Errand::First {
                if self.window.put_back(member.seq, ticket) {
                    self.order.get_or_insert_with(Order::free).settle(member.seq, Fate::Back);
                }
                continue;
            }
            let Some(retry) = self.retries.get_mut(&member.seq).filter(|retry| retry.flight == Some(ticket)) else {
                continue;
            };
            retry.flight = None;
            self.due.insert((retry.due_at, member.seq));
            left.push(member.seq);
            if let Some(order) = &mut self.order {
                order.settle(member.seq, Fate::Waits);
            }
        }
        left.reverse();
        self.regroup(left);
    }
}
