//! A few connections that only read. Each is lent to one caller at a time and comes back by itself.
//!
//! A plain stack under a semaphore: no test query when one is taken or given back, no task, no timer.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{closed, connect};
use crate::storage::Result;

/// Connections that read at the same time.
const READERS: u32 = 3;

/// All reading connections.
pub(super) struct Readers {
    idle: Mutex<Vec<SqliteConnection>>,
    permits: Semaphore,
}

/// One of them, for a while. A query that is dropped half-way ends at its next row.
pub(super) struct Reader<'a> {
    conn: Option<SqliteConnection>,
    home: &'a Readers,
    // Given back after the connection, because fields are dropped after `Drop` ran.
    _permit: SemaphorePermit<'a>,
}

impl Readers {
    /// Opens them.
    ///
    /// # Errors
    /// As the database fails.
    pub(super) async fn open(path: &Path) -> Result<Self> {
        let mut idle = Vec::new();
        for _ in 0..READERS {
            idle.push(connect::reader(path).await?);
        }
        Ok(Self { idle: Mutex::new(idle), permits: Semaphore::new(READERS as usize) })
    }

    /// Takes one, waiting until one is free.
    ///
    /// # Errors
    /// `Unavailable` when the storage is closed.
    pub(super) async fn take(&self) -> Result<Reader<'_>> {
        let permit = self.permits.acquire().await.map_err(|_| closed())?;
        let conn = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Ok(Reader { conn: Some(conn.ok_or_else(closed)?), home: self, _permit: permit })
    }

    /// Waits for all that are lent and closes them.
    pub(super) async fn close(&self) {
        if let Ok(all) = self.permits.acquire_many(READERS).await {
            self.permits.close();
            all.forget();
        }
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for conn in idle {
            // It only read: there is nothing that closing could lose.
            let _ = conn.close().await;
        }
    }
}

impl Deref for Reader<'_> {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        self.conn.as_ref().expect("invariant: a reader holds its connection until it is dropped")
    }
}

impl DerefMut for Reader<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.conn.as_mut().expect("invariant: a reader holds its connection until it is dropped")
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.home.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(self.conn.take());
    }
}
