//! The application's database: SQLite, a connection for each task.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::AnyError;
use crate::settings::path;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS cases (
    case_id TEXT PRIMARY KEY, domain TEXT NOT NULL, name TEXT NOT NULL, opened_on TEXT NOT NULL, status TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS cases_by_domain ON cases (domain, case_id);
CREATE TABLE IF NOT EXISTS imports (import_id TEXT PRIMARY KEY, rows INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS forms (form_id TEXT PRIMARY KEY, state TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS effects (kind TEXT, id TEXT, PRIMARY KEY (kind, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS posts (kind TEXT, id TEXT, hits INTEGER NOT NULL, taken INTEGER NOT NULL, PRIMARY KEY (kind, id));
CREATE TABLE IF NOT EXISTS report_rows (
    report TEXT, case_id TEXT, status TEXT NOT NULL, score INTEGER NOT NULL, PRIMARY KEY (report, case_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS invoices (month TEXT, domain TEXT, cents INTEGER NOT NULL, PRIMARY KEY (month, domain));
CREATE TABLE IF NOT EXISTS stock (facility TEXT PRIMARY KEY, level INTEGER NOT NULL);
";

/// Makes the database if it is not there.
pub fn create() -> Result<(), AnyError> {
    Ok(open()?.execute_batch(SCHEMA)?)
}

/// A connection. Writers wait for each other rather than fail.
pub fn open() -> rusqlite::Result<Connection> {
    let connection = Connection::open(path("commcare.sqlite"))?;
    connection.busy_timeout(Duration::from_secs(30))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(connection)
}

/// Notes that something was done; doing it again changes nothing.
pub fn note_effect(kind: &str, id: &str) -> rusqlite::Result<()> {
    open()?.execute("INSERT OR IGNORE INTO effects (kind, id) VALUES (?1, ?2)", params![kind, id]).map(drop)
}

/// How many cases a domain has.
pub fn count_cases(domain: &str) -> rusqlite::Result<u64> {
    open()?.query_row("SELECT count(*) FROM cases WHERE domain = ?1", [domain], |row| row.get(0))
}

/// Up to `limit` cases of a domain after the one named: id and status.
pub fn cases_after(domain: &str, after: &str, limit: usize) -> rusqlite::Result<Vec<(String, String)>> {
    let connection = open()?;
    let mut query = connection.prepare(
        "SELECT case_id, status FROM cases WHERE domain = ?1 AND case_id > ?2 ORDER BY case_id LIMIT ?3",
    )?;
    let rows = query.query_map(params![domain, after, limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// The state of a form, if there is such a form.
pub fn form_state(form_id: &str) -> rusqlite::Result<Option<String>> {
    open()?.query_row("SELECT state FROM forms WHERE form_id = ?1", [form_id], |row| row.get(0)).optional()
}
