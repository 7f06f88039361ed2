//! Tokens and acts in the database.

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::fault::{damaged, fault};
use super::job::Work;
use super::script::Script;
use super::{Sqlite, signed, unsigned};
use crate::storage::{ACTS_MAX, Administration, Result, StorageError, StorageErrorKind, StoredTokens};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::administration::{Act, TokenRecord};

/// Acts that are looked at for their age whenever one is noted.
const AGED_LOOKS_MAX: i64 = 64;

/// What is to be written.
#[derive(Clone)]
pub(super) enum Change {
    /// Ids and records to be stored, ids that go.
    Tokens(Vec<(String, String)>, Vec<String>),
    Note(Vec<Act>, Timestamp),
}

impl Change {
    /// Adds its statements.
    pub(super) fn write(&self, script: &mut Script) {
        match self {
            Self::Tokens(stored, gone) => {
                script.rows("INSERT OR REPLACE INTO tokens (id, record)", 2, stored, "", |script, (id, record)| {
                    script.bind(id.clone()).bind(record.clone());
                });
                if !stored.is_empty() {
                    script.statement("INSERT INTO meta (name, value) VALUES ('guarded', 1) ON CONFLICT DO NOTHING");
                }
                for id in gone {
                    script.statement("DELETE FROM tokens WHERE id = ?").bind(id.clone());
                }
            }
            Self::Note(acts, oldest) => {
                let head = "INSERT INTO audit (at, actor, peer, method, resource, target, action, outcome, fields)";
                script.rows(head, 9, acts, "", |script, act| {
                    script.bind(act.at.0).bind(act.actor.clone()).bind(act.peer.clone()).bind(act.method.clone());
                    script.bind(act.resource.clone()).bind(act.target.clone()).bind(act.action.clone());
                    script.bind(i64::from(act.outcome)).bind(act.fields.join("\n"));
                });
                script.statement("DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?").bind(signed(ACTS_MAX));
                script.statement("DELETE FROM audit WHERE id IN (SELECT id FROM audit ORDER BY id LIMIT ?) AND at < ?");
                script.bind(AGED_LOOKS_MAX).bind(oldest.0);
            }
        }
    }
}

#[async_trait]
impl Administration for Sqlite {
    async fn tokens(&self) -> Result<StoredTokens> {
        let mut reader = self.readers.take().await?;
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT id, record FROM tokens ORDER BY id").fetch_all(&mut *reader).await.map_err(reading)?;
        let guarded: i64 = sqlx::query_scalar("SELECT count(*) FROM meta WHERE name = 'guarded'")
            .fetch_one(&mut *reader)
            .await
            .map_err(reading)?;
        let read = |(id, json): (String, String)| {
            serde_json::from_str(&json).map_err(|error| damaged(format_args!("the token {id}: {error}")))
        };
        let tokens = rows.into_iter().map(read).collect::<Result<Vec<TokenRecord>>>()?;
        Ok(StoredTokens { is_guarded: guarded > 0 || !tokens.is_empty(), tokens })
    }

    async fn change_tokens(&self, stored: Vec<TokenRecord>, gone: Vec<String>) -> Result<()> {
        let text = |record: TokenRecord| serde_json::to_string(&record).map(|json| (record.id, json));
        let stored = stored.into_iter().map(text).collect::<std::result::Result<_, _>>().map_err(|error| StorageError {
            kind: StorageErrorKind::Unavailable,
            message: "a token cannot be written down".to_owned(),
            source: Some(Box::new(error)),
        })?;
        self.ask(Work::Administer(Change::Tokens(stored, gone))).await.map(drop)
    }

    async fn note(&self, acts: Vec<Act>, oldest: Timestamp) -> Result<()> {
        self.ask(Work::Administer(Change::Note(acts, oldest))).await.map(drop)
    }

    async fn acts(&self, after: u64, limit: u32) -> Result<Vec<Act>> {
        let mut reader = self.readers.take().await?;
        let sql = "SELECT id, at, actor, peer, method, resource, target, action, outcome, fields \
                   FROM audit WHERE id > ? ORDER BY id LIMIT ?";
        let query = sqlx::query(sql).bind(signed(after)).bind(signed(limit.into()));
        let rows = query.fetch_all(&mut *reader).await.map_err(reading)?;
        rows.iter().map(act).collect::<std::result::Result<_, _>>().map_err(reading)
    }
}

fn act(row: &SqliteRow) -> std::result::Result<Act, sqlx::Error> {
    let fields: String = row.try_get(9)?;
    Ok(Act {
        id: unsigned(row.try_get(0)?),
        at: Timestamp(row.try_get(1)?),
        actor: row.try_get(2)?,
        peer: row.try_get(3)?,
        method: row.try_get(4)?,
        resource: row.try_get(5)?,
        target: row.try_get(6)?,
        action: row.try_get(7)?,
        outcome: row.try_get(8)?,
        fields: fields.lines().map(str::to_owned).collect(),
    })
}

fn reading(error: sqlx::Error) -> StorageError {
    fault("reading tokens or acts", error)
}
