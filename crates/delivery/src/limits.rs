//! Limits that several subscriptions share, over all lanes: by target host and by group. And what one desk holds of them.
//!
//! A desk asks for everything it needs one after the other: a token of its own limit, of its group and of its host, then places
//! at its host and in its group, both or none. Tokens are lines in time ([`Bucket`]); places are handed from whoever ends to whoever
//! waits longest, on whatever lane that is. Nothing here polls, and no lock is held but for a few instructions.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use tokio::sync::Notify;

use super::limiter::{Bucket, Tick, wait_until};
use hookcast_core::model::subscription::{Ordinal, RateLimit, SubscriptionRecord};
use hookcast_net::target::Target;

/// Hosts that are remembered before those that nobody posts to any more are forgotten.
const HOSTS_SWEPT_AT: usize = 256;

/// What is shared by a group or the subscriptions of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SharedTerms {
    /// Attempts a second; absent = no limit.
    pub rate: Option<RateLimit>,
    /// Attempts at the same time; absent = no limit.
    pub in_flight: Option<u32>,
}

/// All shared limits of a relay.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LimitSettings {
    /// For each target host.
    pub per_host: SharedTerms,
    /// By the name of the group.
    pub groups: BTreeMap<String, SharedTerms>,
}

/// The shared limits in force. One for all lanes.
#[derive(Debug)]
pub struct LimitBook {
    per_host: SharedTerms,
    groups: HashMap<String, Arc<SharedLimit>>,
    hosts: Mutex<HashMap<String, Weak<SharedLimit>>>,
    since: Instant,
}

impl Default for LimitBook {
    fn default() -> Self {
        Self::new(&LimitSettings::default())
    }
}

impl LimitBook {
    /// Full buckets and free places.
    #[must_use]
    pub fn new(settings: &LimitSettings) -> Self {
        let groups = settings.groups.iter().map(|(name, terms)| (name.clone(), Arc::new(SharedLimit::new(*terms))));
        Self { per_host: settings.per_host, groups: groups.collect(), hosts: Mutex::default(), since: Instant::now() }
    }

    /// What a subscription must ask before each attempt; `None` when nothing limits it.
    #[must_use]
    pub fn allowance(&self, record: &SubscriptionRecord, bell: &Arc<Bell>) -> Option<Box<Allowance>> {
        let own = own_rate(record).map(Bucket::new);
        let group = record.spec.limit_group.as_deref().and_then(|name| self.groups.get(name)).map(Arc::clone);
        let host = self.host_of(&record.spec.url);
        if own.is_none() && group.is_none() && host.is_none() {
            return None;
        }
        let (bell, since, ordinal) = (Arc::clone(bell), self.since, record.ordinal);
        Some(Box::new(Allowance {
            own,
            group,
            host,
            ordinal,
            bell,
            since,
            step: 0,
            token_at: None,
            place: Place::None,
            asks: false,
        }))
    }

    fn host_of(&self, url: &str) -> Option<Arc<SharedLimit>> {
        if self.per_host == SharedTerms::default() {
            return None;
        }
        let host = Target::parse(url).ok()?.host().to_string();
        let mut hosts = lock(&self.hosts);
        if let Some(limit) = hosts.get(&host).and_then(Weak::upgrade) {
            return Some(limit);
        }
        if hosts.len() >= HOSTS_SWEPT_AT && hosts.len().is_power_of_two() {
            hosts.retain(|_, limit| limit.strong_count() > 0);
        }
        let limit = Arc::new(SharedLimit::new(self.per_host));
        hosts.insert(host, Arc::downgrade(&limit));
        Some(limit)
    }
}

/// The rate that a subscription keeps by itself: its own, or the lower one that its endpoint allowed.
#[must_use]
pub fn own_rate(record: &SubscriptionRecord) -> Option<RateLimit> {
    record.effective_rate_limit()
}

/// One shared limit.
#[derive(Debug)]
pub struct SharedLimit {
    bucket: Option<Bucket>,
    places: Option<Places>,
}

#[derive(Debug)]
struct Places {
    count: u32,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    taken: u32,
    /// Who waits, longest first; each desk at most once.
    waiting: VecDeque<(Ordinal, Arc<Bell>)>,
}

impl SharedLimit {
    fn new(terms: SharedTerms) -> Self {
        let places = terms.in_flight.map(|count| Places { count: count.max(1), line: Mutex::default() });
        Self { bucket: terms.rate.map(Bucket::new), places }
    }

    /// Takes a place, or gets in line for one.
    fn take_place(&self, who: Ordinal, bell: &Arc<Bell>) -> bool {
        let Some(places) = &self.places else { return true };
        let mut line = lock(&places.line);
        if line.taken < places.count && line.waiting.is_empty() {
            line.taken += 1;
            return true;
        }
        line.waiting.push_back((who, Arc::clone(bell)));
        false
    }

    /// Leaves the line; `false` when a place is already on its way.
    fn leave_line(&self, who: Ordinal) -> bool {
        let Some(places) = &self.places else { return true };
        let mut line = lock(&places.line);
        let before = line.waiting.len();
        line.waiting.retain(|(other, _)| *other != who);
        line.waiting.len() < before
    }

    /// Hands a place to whoever waits longest.
    pub fn return_place(self: &Arc<Self>) {
        let Some(places) = &self.places else { return };
        let mut line = lock(&places.line);
        match line.waiting.pop_front() {
            Some((who, bell)) => {
                drop(line);
                bell.ring(who, Arc::clone(self));
            }
            None => line.taken = line.taken.saturating_sub(1),
        }
    }
}

/// How a lane hears that desks of it were handed a place.
#[derive(Debug, Default)]
pub struct Bell {
    handed: Mutex<Vec<(Ordinal, Arc<SharedLimit>)>>,
    rung: Notify,
}

impl Bell {
    fn ring(&self, who: Ordinal, limit: Arc<SharedLimit>) {
        lock(&self.handed).push((who, limit));
        self.rung.notify_one();
    }

    /// Waits until a place was handed over; gives whom, and whose place. Who does not want it must return it.
    pub async fn heard(&self) -> Vec<(Ordinal, Arc<SharedLimit>)> {
        loop {
            let handed = std::mem::take(&mut *lock(&self.handed));
            if !handed.is_empty() {
                return handed;
            }
            self.rung.notified().await;
        }
    }
}

/// Places that an attempt in flight holds; dropping it returns them.
#[derive(Debug)]
pub struct Pass {
    host: Option<Arc<SharedLimit>>,
    group: Option<Arc<SharedLimit>>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        for limit in [self.host.take(), self.group.take()].into_iter().flatten() {
            limit.return_place();
        }
    }
}

/// What an attempt that wants to begin is told.
#[derive(Debug)]
pub enum Leave {
    /// It may, and holds this while it is in flight.
    Go(Option<Box<Pass>>),
    /// Not before this time.
    In(Duration),
    /// Not before a place is handed over.
    WhenCalled,
}

/// How it stands with the place that is being waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    None,
    InLine(Which),
    Handed(Which),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Host,
    Group,
}

impl Which {
    fn other(self) -> Self {
        match self {
            Self::Host => Self::Group,
            Self::Group => Self::Host,
        }
    }
}

/// What one desk holds of its limits while it gathers them for its next attempt.
#[derive(Debug)]
pub struct Allowance {
    own: Option<Bucket>,
    group: Option<Arc<SharedLimit>>,
    host: Option<Arc<SharedLimit>>,
    ordinal: Ordinal,
    bell: Arc<Bell>,
    since: Instant,
    /// Tokens it has, of its own limit, its group and its host.
    step: u8,
    /// When the token of this step is there, once it was given.
    token_at: Option<Tick>,
    place: Place,
    /// Whether the desk asked when it was looked at last.
    asks: bool,
}

const TOKENS: u8 = 3;

impl Allowance {
    /// Asks for one attempt, now.
    pub fn ask(&mut self) -> Leave {
        self.ask_at(u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn ask_at(&mut self, now: Tick) -> Leave {
        self.asks = true;
        while self.step < TOKENS {
            if let Some(bucket) = self.bucket(self.step) {
                let at = self.token_at.unwrap_or_else(|| bucket.give(now));
                self.token_at = Some(at);
                if at > now {
                    return Leave::In(wait_until(at, now));
                }
            }
            self.token_at = None;
            self.step += 1;
        }
        if !self.take_places() {
            return Leave::WhenCalled;
        }
        for bucket in (0..TOKENS).filter_map(|step| self.bucket(step)) {
            bucket.use_token(now);
        }
        self.step = 0;
        let with_places =
            |limit: &Option<Arc<SharedLimit>>| limit.as_ref().filter(|limit| limit.places.is_some()).map(Arc::clone);
        let (host, group) = (with_places(&self.host), with_places(&self.group));
        Leave::Go((host.is_some() || group.is_some()).then(|| Box::new(Pass { host, group })))
    }

    /// Goes on with the bucket of its own limit, where that is still in force.
    pub fn inherit(&mut self, old: &mut Self) {
        if let (Some(own), true) = (old.own.take(), self.own.is_some()) {
            if old.step > 0 || old.token_at.is_some() {
                own.give_up();
            }
            self.own = Some(own);
        }
    }

    /// Takes the places that an attempt needs, or none and stands in the line of the one that is missing: who waits for one
    /// limit holds nobody up at the other.
    fn take_places(&mut self) -> bool {
        let first = match self.place {
            Place::InLine(_) => return false,
            Place::Handed(which) => which,
            Place::None => Which::Host,
        };
        if self.place == Place::None && !self.take_place(first) {
            return false;
        }
        let second = first.other();
        if !self.take_place(second) {
            if let Some(limit) = self.limit_of(first) {
                limit.return_place();
            }
            return false;
        }
        self.place = Place::None;
        true
    }

    fn take_place(&mut self, which: Which) -> bool {
        let has_place = self.limit_of(which).is_none_or(|limit| limit.take_place(self.ordinal, &self.bell));
        if !has_place {
            self.place = Place::InLine(which);
        }
        has_place
    }

    /// Takes a place that was handed over; `false` when it is not waited for (any more).
    pub fn take_handed(&mut self, limit: &Arc<SharedLimit>) -> bool {
        let Place::InLine(which) = self.place else { return false };
        let waits = self.limit_of(which).is_some_and(|other| Arc::ptr_eq(other, limit));
        if waits {
            self.place = Place::Handed(which);
        }
        waits
    }

    /// The desk was looked at: if it wanted nothing, others get the place that it has or waits for. Tokens stay.
    pub fn step_aside(&mut self) {
        if !std::mem::take(&mut self.asks) {
            self.return_place();
        }
    }

    fn return_place(&mut self) {
        match std::mem::replace(&mut self.place, Place::None) {
            // A place on its way comes back when the lane finds that it is no longer waited for.
            Place::InLine(which) => drop(self.limit_of(which).map(|limit| limit.leave_line(self.ordinal))),
            Place::Handed(which) => drop(self.limit_of(which).map(SharedLimit::return_place)),
            Place::None => {}
        }
    }

    fn bucket(&self, step: u8) -> Option<&Bucket> {
        match step {
            0 => self.own.as_ref(),
            1 => self.group.as_deref().and_then(|limit| limit.bucket.as_ref()),
            _ => self.host.as_deref().and_then(|limit| limit.bucket.as_ref()),
        }
    }

    fn limit_of(&self, which: Which) -> Option<&Arc<SharedLimit>> {
        match which {
            Which::Host => self.host.as_ref(),
            Which::Group => self.group.as_ref(),
        }
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        self.return_place();
        let given = self.step.min(TOKENS) + u8::from(self.token_at.is_some());
        for bucket in (0..given).filter_map(|step| self.bucket(step)) {
            bucket.give_up();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
