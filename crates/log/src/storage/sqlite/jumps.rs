//! Jumps of the log as the database knows them, those that earlier versions made included, and where a log that is put back
//! goes on. It does not know who reads the log.

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use serde_json::Value;
use sqlx::sqlite::SqliteConnection;

use super::connect::scalar;
use super::fault::fault;
use super::script::Script;
use super::{signed, unsigned};
use crate::storage::{Result, StorageError};
use hookcast_core::clock::Timestamp;
use hookcast_core::model::{Jumps, Page, Seq};

/// Topic and type of the event that tells of a jump.
pub(super) const TOPIC: &str = "hookcast.ops";
/// Its type.
pub(super) const KIND: &str = "log.restored";
/// No position is larger: programs that read numbers as JavaScript does know it exactly.
pub(super) const POSITION_MAX: u64 = (1 << 53) - 1;
/// 2020-01-01T00:00:00Z, in milliseconds.
const HOURS_BEGIN_MS: i64 = 1_577_836_800_000;
const HOUR_MS: i64 = 3_600_000;
/// Hours that count at most, so that a clock far in the future uses up no more than half of the positions.
const HOURS_MAX: u64 = 1 << 20;

/// The jumps of this database; a copy of an earlier version's is read as the next start would bring it up to date.
///
/// # Errors
/// As the database fails.
pub(super) async fn load(conn: &mut SqliteConnection) -> Result<Jumps> {
    let is_there: i64 = scalar(conn, "SELECT count(*) FROM sqlite_schema WHERE name = 'jumps'").await?;
    if is_there == 0 {
        return find(conn).await;
    }
    let rows = sqlx::query_as::<_, (i64, i64)>("SELECT from_seq, to_seq FROM jumps").fetch_all(conn).await.map_err(reading)?;
    Ok(Jumps::new(rows.into_iter().map(|(from, to)| (Seq(unsigned(from)), Seq(unsigned(to)))).collect()))
}

/// Notes the jumps of earlier versions, once.
///
/// # Errors
/// As the database fails.
pub(super) async fn bring_up_to_date(conn: &mut SqliteConnection) -> Result<()> {
    let known: i64 = scalar(conn, "SELECT count(*) FROM meta WHERE name = 'jumps_found'").await?;
    if known > 0 {
        return Ok(());
    }
    let found = find(conn).await?;
    let mut script = Script::transaction();
    for (from, to) in found.ranges() {
        note(&mut script, from, to);
    }
    script.statement("INSERT INTO meta (name, value) VALUES ('jumps_found', 1) ON CONFLICT DO NOTHING");
    script.commit().run(conn).await.map_err(|error| fault("noting where the log jumped", error))
}

/// Notes a jump.
pub(super) fn note(script: &mut Script, from: Seq, to: Seq) {
    script.statement("INSERT OR REPLACE INTO jumps (from_seq, to_seq) VALUES (?, ?)").bind(signed(from.0)).bind(signed(to.0));
}

/// Finds the jumps that earlier versions made, each [`Seq::RESTORE_JUMP`] wide: by the events that tell of them. Of those
/// whose event retention took, only the number is known: they are put directly in front of what is left.
async fn find(conn: &mut SqliteConnection) -> Result<Jumps> {
    let mut ranges = Vec::new();
    let sql = "SELECT first, data FROM log WHERE first > ? AND n = 1 AND topics = 'hookcast.ops' ORDER BY first";
    let mut rows = sqlx::query_as::<_, (i64, Vec<u8>)>(sql).bind(signed(Seq::RESTORE_JUMP)).fetch(&mut *conn);
    while let Some((first, data)) = rows.try_next().await.map_err(reading)? {
        ranges.extend(told_by(Seq(unsigned(first)), data));
    }
    drop(rows);
    let oldest: i64 = scalar(conn, "SELECT coalesce(min(first), 1) FROM log").await?;
    let oldest = Seq(unsigned(oldest));
    let known = ranges.iter().filter(|(_, to)| *to < oldest).count() as u64;
    let untold = (oldest.prev().0 / Seq::RESTORE_JUMP).saturating_sub(known);
    if untold > 0 {
        let to = ranges.iter().map(|(from, _)| from.prev()).find(|before| *before < oldest).unwrap_or(oldest.prev());
        let width = untold * (Seq::RESTORE_JUMP - 1);
        ranges.push((Seq(to.0.saturating_sub(width)).next(), to));
    }
    Ok(Jumps::new(ranges))
}

/// The jump that a page tells of; one that does not read tells of none.
fn told_by(first: Seq, data: Vec<u8>) -> Option<(Seq, Seq)> {
    let page = std::sync::Arc::new(Page::decode(Bytes::from(data)).ok()?);
    let event = page.get(first)?;
    let fields = event.fields();
    if fields.kind != KIND || event.topic().as_str() != TOPIC {
        return None;
    }
    let told: Value = serde_json::from_slice(fields.data).ok()?;
    let (from, to) = (told["from"].as_u64()?, told["to"].as_u64()?);
    (to == first.prev().0).then_some((Seq(from), Seq(to)))
}

/// Where a log goes on that is put back: [`Seq::RESTORE_JUMP`] behind whatever it may have given out before. `known` are
/// positions that are known to be in use, in the copy, in what it replaces, and the last one a log went on at here; the hour
/// stands for those that nobody knows of any more. `None` when no position is left.
pub(super) fn goes_on_at(known: &[Seq], now: Timestamp) -> Option<Seq> {
    let hours = u64::try_from(now.0.saturating_sub(HOURS_BEGIN_MS) / HOUR_MS).unwrap_or(0).min(HOURS_MAX);
    let highest = known.iter().map(|seq| seq.0).max().unwrap_or(0).max(hours * Seq::RESTORE_JUMP);
    highest.checked_add(Seq::RESTORE_JUMP).filter(|head| *head <= POSITION_MAX).map(Seq)
}

fn reading(error: sqlx::Error) -> StorageError {
    fault("reading where the log jumped", error)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_hour_keeps_two_restores_of_one_copy_apart() {
        let at = |ms| goes_on_at(&[Seq(3)], Timestamp(ms)).unwrap();
        assert_eq!(at(0), Seq(Seq::RESTORE_JUMP + 3));
        assert_eq!(at(HOURS_BEGIN_MS + HOUR_MS), Seq(2 * Seq::RESTORE_JUMP));
        assert_eq!(at(HOURS_BEGIN_MS + 2 * HOUR_MS - 1), Seq(2 * Seq::RESTORE_JUMP));
        assert_eq!(at(HOURS_BEGIN_MS + 2 * HOUR_MS), Seq(3 * Seq::RESTORE_JUMP));
        assert_eq!(goes_on_at(&[Seq(POSITION_MAX)], Timestamp(0)), None);
    }

    /// A page of the log as an earlier version wrote it.
    async fn put(conn: &mut SqliteConnection, first: u64, kind: &str, data: &str) {
        let mut builder = hookcast_core::model::PageBuilder::starting_at(Seq(first));
        let topic = hookcast_core::model::Topic::parse(TOPIC).unwrap();
        let fixture = hookcast_core::model::fixture::order(1, "application/json", b"{}").to_new_event();
        let data = Bytes::from(data.to_owned());
        builder.push(&hookcast_core::model::NewEvent { topic, kind: kind.to_owned(), data, ..fixture });
        let mut script = Script::transaction();
        script.statement("INSERT INTO log (first, n, t_last, total, topics, data) VALUES (?, 1, 0, 0, 'hookcast.ops', ?)");
        script.bind(signed(first)).bind(builder.finish().bytes().to_vec());
        script.commit().run(conn).await.unwrap();
    }

    #[tokio::test]
    async fn the_jumps_of_earlier_versions_are_found_once() {
        const JUMP: u64 = Seq::RESTORE_JUMP;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("old.db");
        std::fs::write(&path, "").unwrap();
        let mut conn = super::super::connect::writer(&path, crate::storage::Durability::Normal).await.unwrap();
        super::super::connect::bring_up_to_date(&mut conn).await.unwrap();
        sqlx::query("DELETE FROM meta WHERE name = 'jumps_found'").execute(&mut conn).await.unwrap();
        // Two restores whose events are there, one in front of them that retention took with everything before it.
        put(&mut conn, JUMP + 500, "delivery.dead", "{\"seq\":1}").await;
        for last in [JUMP + 500, 2 * JUMP + 500] {
            put(&mut conn, last + JUMP, KIND, &format!("{{\"from\":{},\"to\":{}}}", last + 1, last + JUMP - 1)).await;
        }
        put(&mut conn, 3 * JUMP + 501, KIND, "{\"from\":1,\"to\":2}").await;
        let found = load_again(&mut conn).await;
        let ranges: Vec<_> = found.ranges().map(|(from, to)| (from.0, to.0)).collect();
        let told = [(JUMP + 501, 2 * JUMP + 499), (2 * JUMP + 501, 3 * JUMP + 499)];
        assert_eq!(ranges, [&[(501, JUMP + 499)][..], &told[..]].concat());
        assert_eq!(found.distance(Seq(100), Seq(3 * JUMP + 501)), 400 + 1 + 1 + 1 + 1 + 1 + 1 + 1);
        sqlx::query("DELETE FROM log").execute(&mut conn).await.unwrap();
        assert_eq!(load_again(&mut conn).await, found, "what was found stays known");
    }

    async fn load_again(conn: &mut SqliteConnection) -> Jumps {
        bring_up_to_date(conn).await.unwrap();
        load(conn).await.unwrap()
    }

    proptest! {
        #[test]
        fn it_stands_far_behind_all_that_is_known_and_is_an_exact_number(
            known in prop::collection::vec(0..(1_u64 << 52), 0..4), ms in any::<i64>()
        ) {
            let known: Vec<Seq> = known.into_iter().map(Seq).collect();
            let head = goes_on_at(&known, Timestamp(ms)).unwrap();
            prop_assert!(known.iter().all(|seq| head.0 - seq.0 >= Seq::RESTORE_JUMP));
            prop_assert!(head.0 <= POSITION_MAX && head.0 >= Seq::RESTORE_JUMP);
            prop_assert!(goes_on_at(&[head], Timestamp(ms)).is_none_or(|again| again > head));
        }
    }
}
