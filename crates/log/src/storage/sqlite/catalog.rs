//! The catalog over the database.

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use sqlx::Row as _;

use super::fault::{damaged, fault};
use super::job::{Answer, Work};
use super::sealing::Kind;
use super::{Sqlite, mismatch, signed, unsigned};
use crate::storage::{Catalog, Result, StorageError};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::source::{SourceGap, SourceRecord};
use hookcast_core::model::subscription::{Ordinal, SubscriptionRecord};
use hookcast_core::model::{ResumeToken, Seq, SubscriptionId};

#[async_trait]
impl Catalog for Sqlite {
    async fn subscriptions(&self) -> Result<Vec<SubscriptionRecord>> {
        let mut reader = self.readers.take().await?;
        let sql = "SELECT id, ordinal, revision, record FROM subscriptions ORDER BY id";
        // Row by row: all their texts at once would take more memory than the relay needs for them ever after.
        let mut rows = sqlx::query(sql).fetch(&mut *reader);
        let mut records = Vec::new();
        while let Some(row) = rows.try_next().await.map_err(reading)? {
            let (id, json): (&str, &str) = (row.try_get(0).map_err(reading)?, row.try_get(3).map_err(reading)?);
            let record: SubscriptionRecord = read_json(id, &self.sealing.decode(Kind::Subscription, id, json)?)?;
            let ordinal = Ordinal(unsigned(row.try_get(1).map_err(reading)?));
            let revision = unsigned(row.try_get(2).map_err(reading)?);
            records.push(SubscriptionRecord { ordinal, revision, ..record.compacted() });
        }
        Ok(records)
    }

    async fn put_subscription(&self, record: SubscriptionRecord, expected: u64) -> Result<SubscriptionRecord> {
        let work = Work::PutSubscription(Box::new(record), expected);
        let Answer::Subscription(record) = self.ask(work).await? else { return Err(mismatch()) };
        Ok(*record)
    }

    async fn delete_subscription(&self, id: &SubscriptionId) -> Result<bool> {
        let Answer::Removed(removed) = self.ask(Work::DeleteSubscription(id.clone())).await? else { return Err(mismatch()) };
        Ok(removed)
    }

    async fn sources(&self) -> Result<Vec<SourceRecord>> {
        let mut reader = self.readers.take().await?;
        let sql = "SELECT name, revision, record, resume_token FROM sources ORDER BY name";
        let rows: Vec<(String, i64, String, Option<String>)> =
            sqlx::query_as(sql).fetch_all(&mut *reader).await.map_err(reading)?;
        let record = |(name, revision, json, token): (String, i64, String, Option<String>)| {
            let record: SourceRecord = read_json(&name, &self.sealing.decode(Kind::Source, &name, &json)?)?;
            let resume_token = token.and_then(|token| ResumeToken::parse(&token));
            Ok(SourceRecord { revision: unsigned(revision), resume_token, ..record })
        };
        rows.into_iter().map(record).collect()
    }

    async fn put_source(&self, record: SourceRecord, expected: u64) -> Result<SourceRecord> {
        let Answer::Source(record) = self.ask(Work::PutSource(Box::new(record), expected)).await? else {
            return Err(mismatch());
        };
        Ok(*record)
    }

    async fn delete_source(&self, name: &str) -> Result<bool> {
        let Answer::Removed(removed) = self.ask(Work::DeleteSource(name.to_owned())).await? else { return Err(mismatch()) };
        Ok(removed)
    }

    async fn gaps(&self, source: &str, limit: u32) -> Result<Vec<SourceGap>> {
        let mut reader = self.readers.take().await?;
        let sql = "SELECT from_at, to_at, at_seq FROM gaps WHERE source = ? ORDER BY id DESC LIMIT ?";
        let rows: Vec<(i64, i64, i64)> = sqlx::query_as(sql)
            .bind(source.to_owned())
            .bind(signed(limit.into()))
            .fetch_all(&mut *reader)
            .await
            .map_err(reading)?;
        let gap = |(from, to, at_seq)| SourceGap {
            source: source.to_owned(),
            from: Timestamp(from),
            to: Timestamp(to),
            at_seq: Seq(unsigned(at_seq)),
        };
        Ok(rows.into_iter().map(gap).collect())
    }
}

fn read_json<T: serde::de::DeserializeOwned>(name: &str, json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|error| damaged(format_args!("the definition of {name}: {error}")))
}

fn reading(error: sqlx::Error) -> StorageError {
    fault("reading the definitions", error)
}
