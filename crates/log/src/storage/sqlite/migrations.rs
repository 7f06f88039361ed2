//! The steps of the schema, in their order. Owns the table of the files in `migrations/`; must not know how a step is applied.
//!
//! A table and not `sqlx::migrate!`: the macro would have SQLite compiled a second time, for the compiler itself.

use std::sync::LazyLock;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Version, what it adds, and its statements; a step that was released never changes.
const STEPS: &[(i64, &str, &str)] = &[
    (1, "log", include_str!("../../../../../migrations/0001_log.sql")),
    (2, "ledger", include_str!("../../../../../migrations/0002_ledger.sql")),
    (3, "catalog", include_str!("../../../../../migrations/0003_catalog.sql")),
    (4, "history", include_str!("../../../../../migrations/0004_history.sql")),
    (6, "jobs", include_str!("../../../../../migrations/0006_jobs.sql")),
    (7, "audit", include_str!("../../../../../migrations/0007_audit.sql")),
    (8, "tokens", include_str!("../../../../../migrations/0008_tokens.sql")),
    (9, "buried", include_str!("../../../../../migrations/0009_buried.sql")),
    (12, "batch ids", include_str!("../../../../../migrations/0012_batch_ids.sql")),
    (14, "jumps", include_str!("../../../../../migrations/0014_jumps.sql")),
];

/// What brings a database up to date.
pub(super) static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let step = |(version, adds, sql): &(i64, &'static str, &'static str)| {
        Migration::new(*version, (*adds).into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(STEPS.iter().map(step).collect())
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_stands_in_the_table_once_under_its_number_and_name() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations")).unwrap();
        let mut files: Vec<(String, String)> = folder
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(path).unwrap()))
            .collect();
        files.sort();
        let name = |(version, adds, sql): &(i64, &str, &str)| {
            (format!("{version:04}_{}.sql", adds.replace(' ', "_")), (*sql).to_owned())
        };
        assert_eq!(STEPS.iter().map(name).collect::<Vec<_>>(), files);
    }
}
