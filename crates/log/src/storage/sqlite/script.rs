//! A script: several statements and their arguments as one query, because every query is a hop to the thread of its
//! connection.
//!
//! Placeholders are always a bare `?`: sqlx numbers `?1` over the whole script and would mix the statements up.

use std::fmt::Write;

use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments, AssertSqlSafe, Encode, Sqlite, Type};

/// Rows of one multi-row statement; far below what the library takes.
const ROWS_PER_STATEMENT: usize = 500;
/// A longer script is seldom seen twice: it is not worth a place among the remembered ones.
const REMEMBERED_BYTES_MAX: usize = 2048;

const BEGIN: &str = "BEGIN IMMEDIATE;";

/// Statements that run in one go.
#[derive(Default)]
pub(super) struct Script {
    sql: String,
    arguments: SqliteArguments,
    statements: usize,
}

impl Script {
    /// A script that is one transaction; [`Script::commit`] ends it.
    pub(super) fn transaction() -> Self {
        Self { sql: BEGIN.to_owned(), arguments: SqliteArguments::default(), statements: 0 }
    }

    /// Length of its text, to see whether something was added.
    pub(super) fn len(&self) -> usize {
        self.sql.len()
    }

    /// Adds a statement; its arguments follow with [`Script::bind`].
    pub(super) fn statement(&mut self, sql: &str) -> &mut Self {
        self.sql.push_str(sql);
        self.sql.push(';');
        self.statements += 1;
        self
    }

    /// Adds an argument.
    pub(super) fn bind<'a, T: Encode<'a, Sqlite> + Type<Sqlite>>(&mut self, value: T) -> &mut Self {
        self.arguments.add(value).expect("invariant: integers, texts and blobs always encode");
        self
    }

    /// Adds `<head> VALUES (?, …), … <tail>` over these rows, in as many statements as it takes.
    pub(super) fn rows<T>(&mut self, head: &str, width: usize, rows: &[T], tail: &str, bind: impl Fn(&mut Self, &T)) {
        let row = format!("({})", vec!["?"; width].join(","));
        for chunk in rows.chunks(ROWS_PER_STATEMENT) {
            let values = vec![row.as_str(); chunk.len()].join(",");
            let _ = write!(self.sql, "{head} VALUES {values} {tail};");
            self.statements += 1;
            for item in chunk {
                bind(self, item);
            }
        }
    }

    /// Adds `<head> IN (?, …) <tail>` over these keys, in as many statements as it takes.
    pub(super) fn keys(&mut self, head: &str, keys: &[i64], tail: &str) {
        for chunk in keys.chunks(ROWS_PER_STATEMENT) {
            let list = vec!["?"; chunk.len()].join(",");
            let _ = write!(self.sql, "{head} IN ({list}) {tail};");
            self.statements += 1;
            for key in chunk {
                self.bind(*key);
            }
        }
    }

    /// Ends the transaction. A single statement is one by itself: it takes the lock at once, like `BEGIN IMMEDIATE`, and
    /// wakes whoever waits for it once instead of three times.
    pub(super) fn commit(mut self) -> Self {
        if self.statements == 1 {
            self.sql.drain(..BEGIN.len());
        } else {
            self.sql.push_str("COMMIT");
        }
        self
    }

    /// Undoes the transaction that a failed script left open.
    pub(super) fn rollback(mut self) -> Self {
        self.sql.push_str("ROLLBACK");
        self
    }

    /// As a query, for scripts that read.
    pub(super) fn query(self) -> sqlx::query::Query<'static, Sqlite, SqliteArguments> {
        let remembered = self.sql.len() <= REMEMBERED_BYTES_MAX;
        sqlx::query_with(AssertSqlSafe(self.sql), self.arguments).persistent(remembered)
    }

    /// Runs it. The future must not be dropped: the script would go on without anybody knowing how it ended.
    pub(super) async fn run(self, conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        self.query().execute(conn).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_statement_is_a_transaction_by_itself_and_several_are_made_one() {
        let mut script = Script::transaction();
        script.rows("INSERT INTO t (a)", 1, &[1_i64, 2], "", |script, value| {
            script.bind(*value);
        });
        let mut both = Script::transaction();
        both.statement("DELETE FROM t").statement("DELETE FROM u");
        assert_eq!(script.commit().sql.trim(), "INSERT INTO t (a) VALUES (?),(?) ;");
        assert_eq!(both.commit().sql, "BEGIN IMMEDIATE;DELETE FROM t;DELETE FROM u;COMMIT");
    }
}
