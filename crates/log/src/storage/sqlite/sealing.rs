//! Definitions sealed on their way into the database and opened on their way out, and all of them at once when keys change.
//!
//! A whole record is sealed, not only its keys: addresses and templates are secrets of their owners as well.

use std::borrow::Cow;
use std::sync::Arc;

use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;
use zeroize::Zeroize as _;

use super::connect::scalar;
use super::fault::{damaged, fault};
use crate::seal::{SealError, Seals, key_id};
use crate::storage::{Result, StorageError, StorageErrorKind};

/// Tables with a sealed `record`, their key column, and what their rows are called.
const TABLES: [(&str, &str, Kind); 2] = [("subscriptions", "id", Kind::Subscription), ("sources", "name", Kind::Source)];
/// Records that are sealed in one go.
const SOME_RECORDS: usize = 256;
/// A database up to this size is rewritten as soon as definitions in it were sealed for the first time, in pages.
const REWRITTEN_PAGES_MAX: i64 = 65_536;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Subscription,
    Source,
}

impl Kind {
    fn name(self, id: &str) -> String {
        match self {
            Self::Subscription => format!("subscription/{id}"),
            Self::Source => format!("source/{id}"),
        }
    }
}

/// The keys, if there are any.
#[derive(Clone, Debug, Default)]
pub(super) struct Sealing(Option<Arc<Seals>>);

impl Sealing {
    pub(super) fn new(seals: Option<Arc<Seals>>) -> Self {
        Self(seals)
    }

    /// A record as it is stored.
    pub(super) fn encode(&self, kind: Kind, id: &str, mut json: String) -> String {
        let Some(seals) = &self.0 else { return json };
        let sealed = seals.seal(&kind.name(id), &json);
        json.zeroize();
        sealed
    }

    /// A stored record as it was.
    ///
    /// # Errors
    /// `Sealed` when its key is not known, `Corrupt` when it was changed.
    pub(super) fn decode<'a>(&self, kind: Kind, id: &str, stored: &'a str) -> Result<Cow<'a, str>> {
        let Some(key) = key_id(stored) else { return Ok(Cow::Borrowed(stored)) };
        let Some(seals) = &self.0 else { return Err(unknown_key(key)) };
        match seals.open(&kind.name(id), stored) {
            Ok(mut plain) => Ok(Cow::Owned(std::mem::take(&mut *plain))),
            Err(SealError::UnknownKey(key)) => Err(unknown_key(&key)),
            Err(SealError::Damaged) => Err(damaged(format_args!("the definition of {id}: {}", SealError::Damaged))),
        }
    }

    /// Refuses a database whose definitions need a key that is not known, before anything is changed; then seals what is not.
    ///
    /// # Errors
    /// `Sealed` when a key is not known, else as the database fails.
    pub(super) async fn prepare(&self, conn: &mut SqliteConnection) -> Result<()> {
        let mut has_plain = false;
        for (table, _, _) in TABLES {
            // The first characters tell the key; a plain record has its own there, so it is told as nothing.
            let sql =
                format!("SELECT DISTINCT CASE WHEN record LIKE 'sealed:%' THEN substr(record, 1, 26) ELSE '' END FROM {table}");
            let begins: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql))
                .fetch_all(&mut *conn)
                .await
                .map_err(|error| fault("looking at keys", error))?;
            for begin in begins {
                match key_id(&begin) {
                    None => has_plain = true,
                    Some(key) if self.0.as_ref().is_some_and(|seals| seals.knows(key)) => {}
                    Some(key) => return Err(unknown_key(key)),
                }
            }
        }
        let Some(seals) = self.0.as_ref().filter(|_| has_plain) else { return Ok(()) };
        let sealed = self.seal_all(conn, seals, |record| key_id(record).is_none()).await?;
        let pages: i64 = scalar(conn, "PRAGMA page_count").await?;
        if pages <= REWRITTEN_PAGES_MAX {
            wipe(conn).await?;
            tracing::info!(sealed, "definitions that were stored in the clear are sealed");
        } else {
            tracing::warn!(
                sealed,
                "definitions that were stored in the clear are sealed; unused parts of the database may still hold old copies: \
                 `hookcast rekey` removes them"
            );
        }
        Ok(())
    }

    /// Seals everything with the present key and leaves no copy of what was there before; how many records.
    ///
    /// # Errors
    /// As [`Sealing::prepare`].
    pub(super) async fn rekey(&self, conn: &mut SqliteConnection) -> Result<u64> {
        let Some(seals) = &self.0 else { return Ok(0) };
        let present = seals.present_prefix();
        let sealed = self.seal_all(conn, seals, |record| !record.starts_with(&present)).await?;
        wipe(conn).await?;
        Ok(sealed)
    }

    /// Seals anew what `is_due`, all or nothing.
    async fn seal_all(&self, conn: &mut SqliteConnection, seals: &Seals, is_due: impl Fn(&str) -> bool) -> Result<u64> {
        let failed = |error| fault("sealing the definitions", error);
        sqlx::query("PRAGMA secure_delete = ON").execute(&mut *conn).await.map_err(failed)?;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *conn).await.map_err(failed)?;
        let mut sealed = 0;
        for (table, key, kind) in TABLES {
            let (mut after, some) = (String::new(), SOME_RECORDS);
            loop {
                let sql = format!("SELECT {key}, record FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT {some}");
                let query = sqlx::query_as::<_, (String, String)>(AssertSqlSafe(sql)).bind(after.clone());
                let rows = query.fetch_all(&mut *conn).await.map_err(failed)?;
                let Some((last, _)) = rows.last() else { break };
                after.clone_from(last);
                for (id, mut record) in rows {
                    if is_due(&record) {
                        let anew = seals.seal(&kind.name(&id), &self.decode(kind, &id, &record)?);
                        let sql = format!("UPDATE {table} SET record = ? WHERE {key} = ?");
                        sqlx::query(AssertSqlSafe(sql)).bind(anew).bind(id).execute(&mut *conn).await.map_err(failed)?;
                        sealed += 1;
                    }
                    record.zeroize();
                }
            }
        }
        sqlx::query("COMMIT").execute(&mut *conn).await.map_err(failed)?;
        sqlx::query("PRAGMA secure_delete = OFF").execute(&mut *conn).await.map_err(failed)?;
        Ok(sealed)
    }
}

/// Rewrites the database, so that nothing is left in unused pages, and empties the WAL.
async fn wipe(conn: &mut SqliteConnection) -> Result<()> {
    for sql in ["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"] {
        sqlx::query(sql).execute(&mut *conn).await.map_err(|error| fault("rewriting the database", error))?;
    }
    Ok(())
}

fn unknown_key(key: &str) -> StorageError {
    let message = format!(
        "master_key_mismatch: definitions in the database are sealed with the master key {key}, which is not configured; \
         name it in `secrets.key` or `secrets.previous_keys`"
    );
    StorageError::new(StorageErrorKind::Sealed, message)
}
