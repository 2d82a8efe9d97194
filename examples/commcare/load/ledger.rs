//! What was asked of the runtime, kept outside of it: a task is lost if the ledger knows it as accepted and the runtime
//! does not know it at all.
//!
//! A line is written before its task is enqueued, and marked when the receipt is there. A run that is killed leaves
//! lines without an outcome; the next one takes them up. What a crash of the machine may take from the ledger is of no
//! interest, so it is not synced.

use std::path::Path;

use celeriac::task::State;

use crate::db::Database;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS run (number INTEGER PRIMARY KEY AUTOINCREMENT, started_at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS line (
    id TEXT PRIMARY KEY, expected TEXT NOT NULL, accepted INTEGER NOT NULL DEFAULT 0, outcome TEXT);
CREATE INDEX IF NOT EXISTS open_lines ON line (id) WHERE outcome IS NULL;
";

/// The ledger.
pub struct Ledger {
    db: Database,
}

/// A line without an outcome.
#[derive(Debug)]
pub struct Open {
    pub id: String,
    pub expected: String,
    pub accepted: bool,
}

impl Ledger {
    pub fn open(data: &Path) -> rusqlite::Result<Self> {
        Ok(Self { db: Database::open_with(&data.join("ledger.sqlite3"), SCHEMA, "NORMAL")? })
    }

    /// A number that no run had before.
    pub fn new_run(&self) -> rusqlite::Result<i64> {
        self.db.write(|tx| {
            tx.execute("INSERT INTO run (started_at) VALUES (?)", [crate::hq::now_ms()])?;
            Ok(tx.last_insert_rowid())
        })
    }

    /// These are about to be enqueued.
    pub fn plan<'a>(&self, lines: impl Iterator<Item = (&'a str, State)>) -> rusqlite::Result<()> {
        self.db.write(|tx| {
            let mut insert = tx.prepare("INSERT INTO line (id, expected) VALUES (?, ?)")?;
            for (id, expected) in lines {
                insert.execute([id, expected.as_str()])?;
            }
            Ok(())
        })
    }

    /// The receipt is there.
    pub fn accepted(&self, id: &str) -> rusqlite::Result<()> {
        self.db.write(|tx| tx.execute("UPDATE line SET accepted = 1 WHERE id = ?", [id]).map(|_| ()))
    }

    /// It is over, one way or another.
    pub fn over(&self, id: &str, outcome: &str) -> rusqlite::Result<()> {
        self.db.write(|tx| tx.execute("UPDATE line SET outcome = ? WHERE id = ?", [outcome, id]).map(|_| ()))
    }

    /// The lines without an outcome.
    pub fn open_lines(&self) -> rusqlite::Result<Vec<Open>> {
        let db = self.db.read()?;
        let mut lines =
            db.prepare("SELECT id, expected, accepted FROM line WHERE outcome IS NULL ORDER BY rowid")?;
        let lines =
            lines.query_map([], |r| Ok(Open { id: r.get(0)?, expected: r.get(1)?, accepted: r.get(2)? }))?;
        lines.collect()
    }
}
