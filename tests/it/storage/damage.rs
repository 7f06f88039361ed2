//! What must not be opened, and what must be noticed when the disk lies.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use hookcast_core::clock::Timestamp;
use hookcast_core::model::ExceptionState::Dead;
use hookcast_core::model::Seq;
use hookcast_core::model::subscription::Ordinal;
use hookcast_log::storage::StorageErrorKind::{CannotOpen, Corrupt, Full, InUse, Newer};
use hookcast_log::storage::{Append, BACKENDS, LedgerChange, LedgerTrim, PageRequest, StorageErrorKind, StorageSettings, Store};
use sqlx::{ConnectOptions, Connection};

use super::make::{append, change, exception, page, page_of, positions, put};
use super::{open, settings, try_open};

async fn kind(path: &Path) -> StorageErrorKind {
    try_open("sqlite", path).await.unwrap_err().kind
}

async fn open_with(settings: StorageSettings) -> Store {
    let backend = BACKENDS.iter().find(|backend| backend.scheme == "sqlite").unwrap();
    (backend.open)(settings).await.unwrap()
}

async fn run_sql(path: &Path, sql: &'static str) {
    let mut conn = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

fn flip(path: &Path, at: u64) {
    let mut file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[!byte[0]]).unwrap();
}

#[tokio::test]
async fn a_second_opener_is_refused_and_the_first_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db");
    let store = open("sqlite", &path).await;
    assert_eq!(kind(&path).await, InUse);
    append(&store, vec![page(1, 3, 1)]).await;
    assert_eq!(kind(&path).await, InUse);
    assert_eq!(positions(&store).await, [1, 2, 3]);
    store.close().await;
    assert_eq!(positions(&open("sqlite", &path).await).await, [1, 2, 3]);
}

#[tokio::test]
async fn an_empty_file_becomes_a_database() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db");
    File::create(&path).unwrap();
    append(&open("sqlite", &path).await, vec![page(1, 3, 1)]).await;
}

#[tokio::test]
async fn a_place_that_cannot_be_used_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(kind(dir.path()).await, CannotOpen);
    assert_eq!(kind(&dir.path().join("absent/hookcast.db")).await, CannotOpen);
    let file = dir.path().join("file");
    File::create(&file).unwrap();
    assert_eq!(kind(&file.join("hookcast.db")).await, CannotOpen);
}

#[tokio::test]
async fn a_path_is_never_read_as_a_uri_with_options() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db?mode=memory&synchronous=off");
    append(&open("sqlite", &path).await, vec![page(1, 3, 1)]).await;
    assert!(path.exists());
}

#[cfg(unix)]
#[tokio::test]
async fn the_database_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db");
    let _store = open("sqlite", &path).await;
    for name in ["hookcast.db", "hookcast.db-wal", "hookcast.db-shm"] {
        assert_eq!(std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o077, 0, "{name}");
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db");
    open("sqlite", &path).await.close().await;
    run_sql(
        &path,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (999, 'later', TRUE, x'00', 1)",
    )
    .await;
    let before = std::fs::read(&path).unwrap();
    let error = try_open("sqlite", &path).await.unwrap_err();
    assert_eq!(error.kind, Newer);
    assert!(error.message.starts_with("schema_newer: the database has schema 999"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_schema_that_was_tampered_with_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db");
    open("sqlite", &path).await.close().await;
    run_sql(&path, "UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 2").await;
    assert_eq!(kind(&path).await, Corrupt);
}

#[tokio::test]
async fn the_database_of_another_program_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.db");
    run_sql(&path, "CREATE TABLE log (a, b); INSERT INTO log VALUES (1, 2)").await;
    let before = std::fs::read(&path).unwrap();
    assert_eq!(kind(&path).await, Corrupt);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let text = dir.path().join("notes.txt");
    std::fs::write(&text, "not a database at all").unwrap();
    assert_eq!(kind(&text).await, Corrupt);
    assert_eq!(std::fs::read_to_string(&text).unwrap(), "not a database at all");
}

#[tokio::test]
async fn a_damaged_header_is_never_missed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db");
    let store = open("sqlite", &path).await;
    append(&store, vec![page(1, 3, 1)]).await;
    store.close().await;
    let whole = std::fs::read(&path).unwrap();
    // Left out: the change counters, the schema cookie and the cache size, which say nothing about the content, and the
    // version of the library at the end.
    let counters = (24..28).chain(40..44).chain(48..52).chain(60..64).chain(92..100);
    let counters: Vec<u64> = counters.collect();
    for at in (0..108).filter(|at| !counters.contains(at)) {
        std::fs::write(&path, &whole).unwrap();
        flip(&path, at);
        match try_open("sqlite", &path).await {
            Err(error) => assert_eq!(error.kind, Corrupt, "byte {at}: {error}"),
            Ok(_) => panic!("byte {at} was flipped and nobody saw it"),
        }
    }
    std::fs::write(&path, &whole[..4096]).unwrap();
    assert_eq!(kind(&path).await, Corrupt);
}

#[tokio::test]
async fn a_damaged_page_of_the_log_is_an_error_where_it_is_read_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db");
    let store = open("sqlite", &path).await;
    append(&store, (0..10).map(|n| page_of(1 + n, 1, 10, 20_000)).collect()).await;
    store.close().await;
    let bytes = std::fs::read(&path).unwrap();
    let needle = format!("{:0>2000}", 5);
    let at = bytes.windows(needle.len()).position(|window| window == needle.as_bytes());
    // The zeros of every event look the same: flip behind the name of the fifth.
    let name = bytes.windows(7).position(|window| window == b"event-5").unwrap();
    assert!(at.is_some());
    flip(&path, name as u64 + 2);
    let store = open("sqlite", &path).await;
    assert_eq!(firsts(&store, 0, 60_000).await, (None, vec![1, 2]));
    assert_eq!(firsts(&store, 0, 1 << 20).await, (None, vec![1, 2, 3, 4]), "the good pages in front of it come first");
    assert_eq!(firsts(&store, 4, 1).await, (Some((5, 5)), vec![6]));
    assert_eq!(firsts(&store, 4, 1 << 20).await, (Some((5, 5)), vec![6, 7, 8, 9, 10]));
    assert_eq!(store.log.get(&[Seq(4), Seq(5), Seq(6)]).await.unwrap().len(), 2);
    assert!(!store.log.purge(Seq(5)).await.unwrap());
    append(&store, vec![page(11, 1, 1)]).await;
    // An exception that needs its event does not hold retention up.
    let lease = store.ledger.lease(1).await.unwrap();
    store.ledger.commit(vec![LedgerChange { put: vec![exception(1, 5, Dead, 5)], ..change(lease) }]).await.unwrap();
    assert_eq!(store.log.trim(Timestamp(1_000), 0, 99).await.unwrap().0.first, Seq(11));
}

/// What is damaged, and where the pages behind it begin.
async fn firsts(store: &Store, after: u64, bytes_max: usize) -> (Option<(u64, u64)>, Vec<u64>) {
    let read = store.log.read(Seq(after), bytes_max).await.unwrap();
    (read.damaged.map(|(from, to)| (from.0, to.0)), read.pages.iter().map(|page| page.first().0).collect())
}

#[tokio::test]
async fn damage_at_the_end_of_the_log_is_named_and_what_comes_behind_it_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db");
    let store = open("sqlite", &path).await;
    append(&store, (0..4).map(|n| page(1 + n * 3, 3, 10)).collect()).await;
    store.close().await;
    run_sql(&path, "UPDATE log SET data = x'00' WHERE first >= 7").await;
    let store = open("sqlite", &path).await;
    assert_eq!(firsts(&store, 0, 1 << 20).await, (None, vec![1, 4]));
    assert_eq!(firsts(&store, 6, 1 << 20).await, (Some((7, 12)), vec![]));
    assert_eq!(firsts(&store, 7, 1 << 20).await, (Some((7, 12)), vec![]));
    append(&store, vec![page(13, 1, 10)]).await;
    assert_eq!(firsts(&store, 6, 1 << 20).await, (Some((7, 12)), vec![13]));
}

#[tokio::test]
async fn pages_that_vanished_are_noticed_and_the_others_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db");
    let store = open("sqlite", &path).await;
    append(&store, (0..10).map(|n| page(1 + n * 3, 3, 10)).collect()).await;
    store.close().await;
    run_sql(&path, "DELETE FROM log WHERE first IN (13, 16)").await;
    let store = open("sqlite", &path).await;
    assert_eq!(firsts(&store, 0, 1 << 20).await, (None, vec![1, 4, 7, 10]));
    assert_eq!(firsts(&store, 12, 1 << 20).await, (Some((13, 18)), vec![19, 22, 25, 28]));
    assert_eq!(firsts(&store, 14, 1 << 20).await, (Some((15, 18)), vec![19, 22, 25, 28]));
    assert_eq!(firsts(&store, 18, 1 << 20).await.1.len(), 4);
}

#[tokio::test]
async fn a_row_that_lies_about_where_its_page_ends_costs_no_other_page() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db");
    let store = open("sqlite", &path).await;
    append(&store, (0..10).map(|n| page(1 + n * 3, 3, 10)).collect()).await;
    store.close().await;
    run_sql(
        &path,
        "UPDATE log SET data = x'00' WHERE first IN (4, 7); UPDATE log SET n = 1 << 40 WHERE first IN (4, 10); \
         UPDATE log SET n = 9223372036854775807 WHERE first = 16; UPDATE log SET n = 1 WHERE first = 19",
    )
    .await;
    let store = open("sqlite", &path).await;
    assert_eq!(firsts(&store, 0, 1 << 20).await, (None, vec![1]));
    assert_eq!(firsts(&store, 3, 1 << 20).await, (Some((4, 9)), vec![10, 13, 16, 19, 22, 25, 28]));
    assert_eq!(firsts(&store, 20, 1 << 20).await, (None, vec![19, 22, 25, 28]));
    assert_eq!(store.log.trim(Timestamp(1_000), 0, 99).await.unwrap().0.first, Seq(28));
}

#[tokio::test]
async fn a_page_that_cannot_even_be_dropped_does_not_hold_retention_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db");
    let store = open("sqlite", &path).await;
    append(&store, (0..10).map(|n| page_of(1 + n, 1, 10, 20_000)).collect()).await;
    let lease = store.ledger.lease(1).await.unwrap();
    let put = (1..=10).map(|seq| exception(1, seq, Dead, 5)).collect();
    store.ledger.commit(vec![LedgerChange { put, ..change(lease) }]).await.unwrap();
    store.close().await;
    // A page of the file that was never written, between others of one event.
    let mut bytes = std::fs::read(&path).unwrap();
    let is_inside = |page: &[u8]| page[4..].iter().all(|byte| *byte == b'0');
    let inside: Vec<usize> = bytes.chunks(4096).enumerate().filter(|(_, page)| is_inside(page)).map(|(at, _)| at).collect();
    let at = 4096 * inside[inside.len() / 2];
    bytes[at..at + 4096].fill(0);
    std::fs::write(&path, bytes).unwrap();
    for head in [11, 12] {
        let store = open("sqlite", &path).await;
        append(&store, vec![page(head, 1, 10)]).await;
        let (bounds, more) = store.log.trim(Timestamp(1_000), 0, 99).await.unwrap();
        assert_eq!((bounds.first, more), (Seq(head), false));
        assert_eq!(store.log.get(&(1..=10).map(Seq).collect::<Vec<_>>()).await.unwrap().len(), 9, "the others are kept aside");
        store.log.writable().await.unwrap();
        store.close().await;
    }
}

#[tokio::test]
async fn where_a_restore_was_cut_off_no_new_database_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("hookcast.db"), dir.path().join("hookcast.db.restoring"));
    File::create(&copy).unwrap();
    let refused = try_open("sqlite", &path).await.unwrap_err();
    assert_eq!(refused.kind, CannotOpen);
    assert!(refused.message.contains("a restore was cut off") && !path.exists(), "{refused}");
    std::fs::remove_file(&copy).unwrap();
    let store = open("sqlite", &path).await;
    append(&store, vec![page(1, 3, 1)]).await;
    store.close().await;
    // The data that it would have put aside is still there.
    File::create(&copy).unwrap();
    assert_eq!(positions(&open("sqlite", &path).await).await, [1, 2, 3]);
}

#[tokio::test]
async fn when_all_files_are_gone_nothing_is_said_to_be_saved() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db");
    let settings = settings(&path);
    let readiness = settings.readiness.clone();
    let store = open_with(settings).await;
    append(&store, vec![page(1, 3, 1)]).await;
    for name in ["hookcast.db", "hookcast.db-wal", "hookcast.db.lock"] {
        std::fs::remove_file(dir.path().join(name)).unwrap();
    }
    store.log.writable().await.unwrap_err();
    let ending = readiness.ended().await;
    assert!(ending.reason.starts_with("the database file was removed"), "{ending:?}");
    store.close().await;
}

#[tokio::test]
async fn a_lost_wal_loses_its_commits_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("hookcast.db"), dir.path().join("copy.db"));
    let store = open("sqlite", &path).await;
    append(&store, vec![page(1, 3, 1)]).await;
    store.close().await;
    let store = open("sqlite", &path).await;
    append(&store, vec![page(4, 3, 1)]).await;
    std::fs::copy(&path, &copy).unwrap();
    assert_eq!(positions(&open("sqlite", &copy).await).await, [1, 2, 3]);
}

#[tokio::test]
async fn a_reached_reserve_stops_intake_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db");
    let store = open("sqlite", &path).await;
    append(&store, vec![page(1, 3, 1), page(4, 3, 1)]).await;
    store.close().await;
    let full = open_with(StorageSettings { reserve: hookcast_log::storage::Reserve::Bytes(u64::MAX), ..settings(&path) }).await;
    let refused = Append { pages: vec![page(7, 1, 1)], expected_head: Seq(6), ..Append::default() };
    assert_eq!(full.log.append(refused).await.unwrap_err().kind, Full);
    assert_eq!(full.log.writable().await.unwrap_err().kind, Full);
    assert_eq!(positions(&full).await, [1, 2, 3, 4, 5, 6]);
    let lease = full.ledger.lease(1).await.unwrap();
    let put = vec![exception(1, 2, Dead, 5)];
    full.ledger.commit(vec![LedgerChange { put, ..change(lease) }]).await.unwrap();
    assert!(full.ledger.exception(Ordinal(1), Seq(2)).await.unwrap().is_some());
    assert_eq!(full.log.trim(hookcast_core::clock::Timestamp(9), u64::MAX, 9).await.unwrap().0.first, Seq(4));
    full.close().await;
    let healed = open("sqlite", &path).await;
    append(&healed, vec![page(7, 1, 1)]).await;
    healed.log.writable().await.unwrap();
}

#[tokio::test]
async fn a_bad_job_in_a_group_fails_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db");
    let store = open("sqlite", &path).await;
    store.close().await;
    // Something the writer cannot know: this partition's checkpoint cannot be stored.
    run_sql(&path, "CREATE TRIGGER bad BEFORE UPDATE ON checkpoints WHEN new.part = 3 AND new.frontier = 66 BEGIN SELECT RAISE(ABORT, 'bad'); END").await;
    let store = open("sqlite", &path).await;
    let (good, bad) = (store.ledger.lease(2).await.unwrap(), store.ledger.lease(3).await.unwrap());
    let checkpoint = || Some(hookcast_log::storage::Checkpoint { frontier: Seq(66), state: vec![] });
    let commit = |lease| store.ledger.commit(vec![LedgerChange { checkpoint: checkpoint(), ..change(lease) }]);
    let append = store.log.append(Append { pages: vec![page(1, 1, 1)], ..Append::default() });
    // Ten at once: whoever comes first goes alone, the others become groups.
    let others = futures_util::future::join_all((0..10).map(|n| commit(if n == 5 { bad } else { good })));
    let (others, append) = futures_util::future::join(others, append).await;
    append.unwrap();
    let failed: Vec<_> = others.iter().enumerate().filter(|(_, done)| done.is_err()).map(|(n, _)| n).collect();
    assert_eq!(failed, [5]);
    assert_eq!(store.ledger.load(2).await.unwrap().frontier, Seq(66));
    assert_eq!(store.ledger.load(3).await.unwrap().frontier, Seq(0));
    assert_eq!(positions(&store).await, [1]);
    store.log.writable().await.unwrap();
}

/// A dead letter that cannot be deleted stands behind many that can.
#[tokio::test]
async fn letters_that_went_are_told_although_one_behind_them_cannot_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hookcast.db");
    let store = open("sqlite", &path).await;
    put(&store, (1..=1000).map(|seq| exception(1, seq, Dead, 10)).collect()).await;
    store.close().await;
    let sql = "CREATE TRIGGER stuck BEFORE DELETE ON exceptions WHEN OLD.seq = 900 BEGIN SELECT RAISE(ABORT, 'stuck'); END";
    run_sql(&path, sql).await;
    let store = open("sqlite", &path).await;
    let trim = || {
        store.ledger.trim(LedgerTrim {
            dead_before: Timestamp(i64::MAX),
            attempts_before: Timestamp(0),
            attempts_bytes_max: u64::MAX,
            rows_max: 100_000,
        })
    };
    let gone = trim().await.unwrap();
    let seqs: Vec<u64> = gone.dead.iter().map(|(_, seq)| seq.0).collect();
    assert!(!seqs.is_empty() && seqs.iter().copied().eq(1..=seqs.len() as u64) && seqs.len() < 900 && gone.more, "{seqs:?}");
    assert_eq!(trim().await.unwrap_err().kind, StorageErrorKind::Unavailable);
    let page = PageRequest { after: Seq::ZERO, limit: 1000 };
    let left = store.ledger.list(Ordinal(1), Dead, page).await.unwrap();
    assert_eq!(left.len() + seqs.len(), 1000);
}
