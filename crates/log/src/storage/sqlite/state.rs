//! What the writer knows without asking the database: both ends of the log, leases, revisions.
//!
//! Loaded once; only the writer changes the database, so it stays true. [`Ahead`] is what becomes of it when the batch that
//! is being put together is committed.

use std::collections::HashMap;

use futures_util::TryStreamExt as _;
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::connect::scalar;
use super::fault::{damaged, fault};
use super::sealing::{Kind, Sealing};
use super::{signed, unsigned};
use crate::storage::{Bounds, Result, fresh_log_id};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::source::{Incarnation, SourceRecord};
use hookcast_core::model::subscription::Ordinal;
use hookcast_core::model::{ResumeToken, Seq};

/// A clock that went back by more than this was corrected: times begin anew instead of standing still.
const CLOCK_STEP_MS_MAX: i64 = 60_000;

/// A stored subscription, as far as conflicts need it.
#[derive(Clone, Copy)]
pub(super) struct KnownSubscription {
    pub(super) revision: u64,
    pub(super) ordinal: Ordinal,
}

/// A stored source, as far as conflicts need it.
#[derive(Clone)]
pub(super) struct KnownSource {
    pub(super) revision: u64,
    /// `None` for a definition that cannot be read, of which reading the definitions tells.
    pub(super) incarnation: Option<Incarnation>,
    pub(super) resume_token: Option<ResumeToken>,
}

/// The committed state.
pub(super) struct State {
    pub(super) log_id: String,
    pub(super) sealing: Sealing,
    pub(super) bounds: Bounds,
    /// Bytes of all pages ever appended.
    total: u64,
    t_last: Option<Timestamp>,
    ordinal: u64,
    epochs: HashMap<u16, u64>,
    subscriptions: HashMap<String, KnownSubscription>,
    sources: HashMap<String, KnownSource>,
}

/// The state as it will be.
pub(super) struct Ahead {
    pub(super) bounds: Bounds,
    pub(super) total: u64,
    pub(super) t_last: Option<Timestamp>,
    pub(super) ordinal: u64,
    pub(super) epochs: HashMap<u16, u64>,
    pub(super) subscriptions: HashMap<String, Option<KnownSubscription>>,
    pub(super) sources: HashMap<String, Option<KnownSource>>,
}

impl State {
    /// Loads it; touches the two ends of the log only.
    ///
    /// # Errors
    /// As the database fails; `Corrupt` when what it says cannot be.
    pub(super) async fn load(conn: &mut SqliteConnection, sealing: Sealing) -> Result<Self> {
        let sql = "INSERT INTO meta (name, value) VALUES ('log_id', ?), ('ordinal', 0) ON CONFLICT DO NOTHING";
        let made = sqlx::query(sql).bind(fresh_log_id()?).execute(&mut *conn).await;
        made.map_err(|error| fault("naming the log", error))?;
        let log_id: String = scalar(conn, "SELECT value FROM meta WHERE name = 'log_id'").await?;
        let ordinal: i64 = scalar(conn, "SELECT value FROM meta WHERE name = 'ordinal'").await?;
        let mut state = Self {
            log_id,
            sealing,
            bounds: Bounds { first: Seq(1), head: Seq::ZERO, bytes: 0 },
            total: 0,
            t_last: None,
            ordinal: unsigned(ordinal),
            epochs: HashMap::new(),
            subscriptions: HashMap::new(),
            sources: HashMap::new(),
        };
        state.load_log(conn).await.map_err(|error| fault("reading the ends of the log", error))?;
        state.load_rest(conn).await.map_err(|error| fault("reading leases and definitions", error))?;
        let highest = state.subscriptions.values().map(|known| known.ordinal.0).max().unwrap_or(0);
        if state.bounds.first > state.bounds.head.next() || highest > state.ordinal {
            return Err(damaged("the ends of the log or the ordinals contradict each other"));
        }
        Ok(state)
    }

    async fn load_log(&mut self, conn: &mut SqliteConnection) -> std::result::Result<(), sqlx::Error> {
        let newest = "SELECT first, n, t_last, total FROM log ORDER BY first DESC LIMIT 1";
        let Some(newest) = sqlx::query(newest).fetch_optional(&mut *conn).await? else { return Ok(()) };
        let oldest = "SELECT first, total - length(data) FROM log ORDER BY first LIMIT 1";
        let oldest = sqlx::query(oldest).fetch_one(conn).await?;
        let (first, n): (i64, i64) = (newest.try_get(0)?, newest.try_get(1)?);
        self.t_last = Some(Timestamp(newest.try_get(2)?));
        self.total = unsigned(newest.try_get(3)?);
        self.bounds = Bounds {
            first: Seq(unsigned(oldest.try_get(0)?)),
            head: Seq(unsigned(first + n - 1)),
            bytes: self.total.saturating_sub(unsigned(oldest.try_get(1)?)),
        };
        Ok(())
    }

    async fn load_rest(&mut self, conn: &mut SqliteConnection) -> std::result::Result<(), sqlx::Error> {
        for (part, epoch) in sqlx::query_as::<_, (u16, i64)>("SELECT part, epoch FROM checkpoints").fetch_all(&mut *conn).await? {
            self.epochs.insert(part, unsigned(epoch));
        }
        let sql = "SELECT id, revision, ordinal FROM subscriptions";
        let mut rows = sqlx::query_as::<_, (String, i64, i64)>(sql).fetch(&mut *conn);
        while let Some((id, revision, ordinal)) = rows.try_next().await? {
            let known = KnownSubscription { revision: unsigned(revision), ordinal: Ordinal(unsigned(ordinal)) };
            self.subscriptions.insert(id, known);
        }
        drop(rows);
        let sql = "SELECT name, revision, resume_token, record FROM sources";
        let mut rows = sqlx::query_as::<_, (String, i64, Option<String>, String)>(sql).fetch(conn);
        while let Some((name, revision, token, json)) = rows.try_next().await? {
            let resume_token = token.and_then(|token| ResumeToken::parse(&token));
            let json = self.sealing.decode(Kind::Source, &name, &json).ok();
            let record = json.and_then(|json| serde_json::from_str::<SourceRecord>(&json).ok());
            let incarnation = record.map(|record| record.incarnation());
            self.sources.insert(name, KnownSource { revision: unsigned(revision), incarnation, resume_token });
        }
        Ok(())
    }

    /// The state ahead, still the same.
    pub(super) fn ahead(&self) -> Ahead {
        Ahead {
            bounds: self.bounds,
            total: self.total,
            t_last: self.t_last,
            ordinal: self.ordinal,
            epochs: HashMap::new(),
            subscriptions: HashMap::new(),
            sources: HashMap::new(),
        }
    }

    /// Makes it what it was going to be.
    pub(super) fn reach(&mut self, ahead: Ahead) {
        (self.bounds, self.total, self.t_last, self.ordinal) = (ahead.bounds, ahead.total, ahead.t_last, ahead.ordinal);
        self.epochs.extend(ahead.epochs);
        for (id, known) in ahead.subscriptions {
            match known {
                Some(known) => self.subscriptions.insert(id, known),
                None => self.subscriptions.remove(&id),
            };
        }
        for (name, known) in ahead.sources {
            match known {
                Some(known) => self.sources.insert(name, known),
                None => self.sources.remove(&name),
            };
        }
    }

    /// Takes the pages before `first` off the log; `total` is what was appended before it.
    pub(super) fn shorten(&mut self, first: Seq, total: i64) {
        self.bounds.first = first;
        self.bounds.bytes = self.total.saturating_sub(unsigned(total));
    }

    /// Bytes of the log from the page whose predecessor has this `total`.
    pub(super) fn bytes_after(&self, total: i64) -> u64 {
        unsigned(signed(self.total) - total)
    }
}

impl Ahead {
    /// The present holder's epoch.
    pub(super) fn epoch(&self, state: &State, partition: u16) -> u64 {
        self.epochs.get(&partition).or_else(|| state.epochs.get(&partition)).copied().unwrap_or(0)
    }

    /// A subscription as it will stand.
    pub(super) fn subscription(&self, state: &State, id: &str) -> Option<KnownSubscription> {
        self.subscriptions.get(id).copied().unwrap_or_else(|| state.subscriptions.get(id).copied())
    }

    /// A source as it will stand.
    pub(super) fn source<'a>(&'a self, state: &'a State, name: &str) -> Option<&'a KnownSource> {
        match self.sources.get(name) {
            Some(changed) => changed.as_ref(),
            None => state.sources.get(name),
        }
    }

    /// Moves on by a page; gives its `t_last` and `total`.
    pub(super) fn advance(&mut self, last: Seq, bytes: u64, arrived: Timestamp) -> (Timestamp, u64) {
        let slipped = self.t_last.filter(|known| arrived < *known && known.0.saturating_sub(arrived.0) <= CLOCK_STEP_MS_MAX);
        let t_last = slipped.unwrap_or(arrived);
        self.t_last = Some(t_last);
        self.total += bytes;
        self.bounds.head = last;
        self.bounds.bytes += bytes;
        (t_last, self.total)
    }
}
