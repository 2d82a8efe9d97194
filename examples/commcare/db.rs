//! SQLite: one connection that writes, in turn; as many as there are readers.
//!
//! A task may run twice, so whatever it writes is written in one transaction with the note that it was written.
//! `synchronous = FULL`: when a task is settled its rows are on disk, or a power cut would lose finished work.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS domain (name TEXT PRIMARY KEY, cases INTEGER, open_cases INTEGER, calculated_at INTEGER);
CREATE TABLE IF NOT EXISTS domain_zone (domain TEXT PRIMARY KEY, zone TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS cases (
    domain TEXT, case_id TEXT, name TEXT NOT NULL, owner TEXT NOT NULL, village TEXT NOT NULL, visits INTEGER NOT NULL,
    closed INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (domain, case_id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS cases_by_owner ON cases (domain, owner);
CREATE TABLE IF NOT EXISTS import (
    id TEXT PRIMARY KEY, domain TEXT NOT NULL, file TEXT NOT NULL, rows INTEGER NOT NULL DEFAULT 0,
    byte INTEGER NOT NULL DEFAULT 0, line INTEGER NOT NULL DEFAULT 0, created INTEGER NOT NULL DEFAULT 0,
    updated INTEGER NOT NULL DEFAULT 0, refused INTEGER NOT NULL DEFAULT 0, done INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS import_error (
    import TEXT, line INTEGER, message TEXT NOT NULL, PRIMARY KEY (import, line)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS export (
    id TEXT PRIMARY KEY, domain TEXT NOT NULL, file TEXT NOT NULL, rows INTEGER, ready_at INTEGER,
    last_build_duration INTEGER);
CREATE TABLE IF NOT EXISTS mail (
    id TEXT PRIMARY KEY, recipient TEXT NOT NULL, subject TEXT NOT NULL, body TEXT NOT NULL, sent_at INTEGER);
CREATE TABLE IF NOT EXISTS wish (
    download TEXT, part TEXT, recipient TEXT NOT NULL, domain TEXT NOT NULL, link TEXT NOT NULL,
    ready INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (download, part)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS wishes_by_part ON wish (part);
CREATE TABLE IF NOT EXISTS outgoing (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, payload TEXT NOT NULL, delivered_at INTEGER);
CREATE TABLE IF NOT EXISTS stub (
    id TEXT PRIMARY KEY, domain TEXT NOT NULL, form TEXT NOT NULL, done_at INTEGER);
CREATE TABLE IF NOT EXISTS queued_sms (
    id TEXT PRIMARY KEY, domain TEXT NOT NULL, due INTEGER NOT NULL, processed_at INTEGER);
CREATE INDEX IF NOT EXISTS due_sms ON queued_sms (due) WHERE processed_at IS NULL;
CREATE TABLE IF NOT EXISTS queued_stub (
    id TEXT PRIMARY KEY, next_try INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS queued_record (
    id TEXT PRIMARY KEY, domain TEXT NOT NULL, next_try INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS migrating (domain TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS rule (
    id TEXT PRIMARY KEY, domain TEXT NOT NULL, village TEXT NOT NULL, most_visits INTEGER NOT NULL,
    delay_ms INTEGER NOT NULL, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS instance (
    id TEXT PRIMARY KEY, rule TEXT NOT NULL, case_id TEXT NOT NULL, due INTEGER NOT NULL, sent_at INTEGER);
CREATE TABLE IF NOT EXISTS ucr (
    domain TEXT, case_id TEXT, village TEXT NOT NULL, visits INTEGER NOT NULL, phonetic TEXT NOT NULL,
    open INTEGER NOT NULL, PRIMARY KEY (domain, case_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS indicator (
    domain TEXT, village TEXT, cases INTEGER NOT NULL, median_visits INTEGER NOT NULL, p90_visits INTEGER NOT NULL,
    names INTEGER NOT NULL, PRIMARY KEY (domain, village)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS aggregate (
    domain TEXT, level TEXT, place TEXT, cases INTEGER NOT NULL, visits INTEGER NOT NULL,
    PRIMARY KEY (domain, level, place)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dashboard (domain TEXT PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS report (
    id TEXT PRIMARY KEY, domain TEXT NOT NULL, recipient TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS stock_transaction (
    id TEXT PRIMARY KEY, domain TEXT NOT NULL, facility TEXT NOT NULL, quantity INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS stock (
    domain TEXT, facility TEXT, level INTEGER NOT NULL, PRIMARY KEY (domain, facility)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS invoice (
    id TEXT PRIMARY KEY, domain TEXT NOT NULL, month TEXT NOT NULL, cents INTEGER NOT NULL, UNIQUE (domain, month));
";

/// One database file.
pub struct Database {
    path: PathBuf,
    writer: Mutex<Connection>,
}

impl Database {
    /// Opens or makes it.
    pub fn open(path: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        Self::open_with(path, SCHEMA, "FULL")
            .map_err(|e| format!("cannot open {}: {e}", path.display()).into())
    }

    /// With another schema, and another promise about power cuts.
    pub fn open_with(path: &Path, schema: &str, synchronous: &str) -> rusqlite::Result<Self> {
        let writer = Connection::open(path)?;
        writer.busy_timeout(Duration::from_secs(10))?;
        writer.pragma_update(None, "journal_mode", "WAL")?;
        writer.pragma_update(None, "synchronous", synchronous)?;
        writer.execute_batch(schema)?;
        Ok(Self { path: path.to_owned(), writer: Mutex::new(writer) })
    }

    /// A connection to read with.
    pub fn read(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let reader = Connection::open_with_flags(&self.path, flags)?;
        reader.busy_timeout(Duration::from_secs(10))?;
        Ok(reader)
    }

    /// One transaction: all of `work`, or nothing if it fails or panics. SQLite has one writer at a time anyway, and
    /// a mutex wakes whoever is next where SQLite would have it poll.
    pub fn write<T, E: From<rusqlite::Error>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = work(&transaction)?;
        transaction.commit()?;
        Ok(value)
    }
}
