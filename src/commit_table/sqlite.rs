//! The commit table in SQLite, read with `rusqlite` on threads for blocking work, whichever driver writes it.
//!
//! One process forwards the rows of a database at a time: the one that has the lock beside the database. SQLite tells
//! nobody of a commit, so the forwarder looks: soon after this process has written a row, and once a second.

use std::collections::HashMap;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row, TransactionBehavior};

use super::forwarder_lock::ForwarderLock;
use super::rusqlite_transaction::failed;
use super::{CommitRow, CommitTable, CommitTableError, RowEnds, SQLITE, TakenRows};

const SELECT: &str =
    "SELECT number, id, task, call FROM celeriac_on_commit WHERE refused IS NULL ORDER BY number LIMIT ?1";
const DELETE: &str = "DELETE FROM celeriac_on_commit WHERE number = ?1";
const REFUSE: &str = "UPDATE celeriac_on_commit SET refused = ?2 WHERE number = ?1";
const TRY_AGAIN: &str = "UPDATE celeriac_on_commit SET refused = NULL WHERE refused IS NOT NULL";
/// How long a write waits for the writers of the program.
const PATIENCE: Duration = Duration::from_secs(10);

/// The commit table of a SQLite database in a file.
pub struct SqliteTable {
    opened: Arc<Mutex<OpenDatabase>>,
}

/// The database as this process has it.
struct OpenDatabase {
    path: PathBuf,
    connection: Option<Connection>,
    lock: Option<ForwarderLock>,
}

impl SqliteTable {
    /// The commit table of the database in this file. With `sqlx`:
    /// `SqliteTable::new(pool.connect_options().get_filename())`. It makes a connection of its own.
    pub fn new(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        Self { opened: Arc::new(Mutex::new(OpenDatabase { path, connection: None, lock: None })) }
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut OpenDatabase) -> Result<T, CommitTableError> + Send + 'static,
    ) -> Result<T, CommitTableError> {
        let opened = Arc::clone(&self.opened);
        blocking::unblock(move || work(&mut opened.lock())).await
    }
}

impl OpenDatabase {
    /// Works on the connection, which is opened if it is not. After an error it is opened anew.
    fn on<T>(
        &mut self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, CommitTableError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            // A database that is not there is not made: its path may be wrong.
            None => self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?,
        };
        let done = work(&mut connection).map_err(failed)?;
        self.connection = Some(connection);
        Ok(done)
    }

    fn connect(&self, flags: OpenFlags) -> Result<Connection, CommitTableError> {
        let flags = flags | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags).map_err(failed)?;
        connection.busy_timeout(PATIENCE).map_err(failed)?;
        Ok(connection)
    }

    /// Whether this process forwards the rows.
    fn is_forwarder(&mut self) -> Result<bool, CommitTableError> {
        if self.lock.is_none() {
            // All ways to one database lead to one lock, a `file:` URL among them.
            let told = self.on(|connection| Ok(connection.path().map(PathBuf::from)))?;
            let path = told.filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| self.path.clone());
            let path = std::fs::canonicalize(&path).unwrap_or(path);
            self.lock = ForwarderLock::take(&path)?;
        }
        Ok(self.lock.is_some())
    }

    fn take(&mut self, limit: usize) -> Result<Option<Vec<(i64, CommitRow)>>, CommitTableError> {
        if !self.is_forwarder()? {
            return Ok(None);
        }
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.on(|connection| {
            let mut select = connection.prepare(SELECT)?;
            let rows = select.query_map((limit,), |row| {
                Ok((row.get::<_, i64>(0)?, CommitRow::new(text(row, 1)?, text(row, 2)?, text(row, 3)?)))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        Ok(Some(rows))
    }
}

/// The text in a column, whatever is in it: SQLite keeps anything in any column, and a row that is no call is refused.
fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Null => String::new(),
    })
}

#[async_trait]
impl CommitTable for SqliteTable {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn tells(&self) -> bool {
        false
    }

    async fn create(&self) -> Result<(), CommitTableError> {
        self.with(|opened| {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
            opened.connect(flags)?.execute_batch(SQLITE).map_err(failed)
        })
        .await
    }

    async fn open(&self) -> Result<(), CommitTableError> {
        self.with(|opened| opened.on(|connection| connection.execute(TRY_AGAIN, ()))).await.map(drop)
    }

    async fn take(&self, limit: usize) -> Result<Option<Box<dyn TakenRows>>, CommitTableError> {
        let taken = self.with(move |opened| opened.take(limit)).await?;
        let opened = Arc::clone(&self.opened);
        Ok(taken.map(|taken| {
            let numbers = taken.iter().map(|(number, row)| (row.id.to_string(), *number)).collect();
            let rows = taken.into_iter().map(|(_, row)| row).collect();
            Box::new(SqliteRows { rows, numbers, opened }) as Box<dyn TakenRows>
        }))
    }

    async fn committed(&self) {
        pending().await
    }

    async fn close(&self) {
        let opened = Arc::clone(&self.opened);
        blocking::unblock(move || {
            let mut opened = opened.lock();
            (opened.lock, opened.connection) = (None, None);
        })
        .await;
    }
}

/// Rows in hand. The lock of the database keeps other forwarders away from them.
struct SqliteRows {
    rows: Vec<CommitRow>,
    /// The numbers of the rows by their ids.
    numbers: HashMap<String, i64>,
    opened: Arc<Mutex<OpenDatabase>>,
}

#[async_trait]
impl TakenRows for SqliteRows {
    fn rows(&self) -> &[CommitRow] {
        &self.rows
    }

    async fn settle(self: Box<Self>, ends: RowEnds) -> Result<(), CommitTableError> {
        let Self { numbers, opened, .. } = *self;
        if ends == RowEnds::default() {
            return Ok(()); // the writers of the program are not held up for nothing
        }
        let settle = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for number in ends.forwarded.iter().filter_map(|id| numbers.get(id.as_str())) {
                transaction.execute(DELETE, (number,))?;
            }
            for (id, reason) in &ends.refused {
                if let Some(number) = numbers.get(id.as_str()) {
                    transaction.execute(REFUSE, (number, reason))?;
                }
            }
            transaction.commit()
        };
        blocking::unblock(move || opened.lock().on(settle)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_ways_to_a_database_lead_to_one_forwarder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("orders.db");
        let forwarder = SqliteTable::new(&path);
        forwarder.create().await.unwrap();
        assert!(forwarder.take(1).await.unwrap().is_some());
        let detour = dir.path().join("..").join(dir.path().file_name().unwrap()).join("orders.db");
        let url = format!("file:{}?mode=rw", path.display());
        for way in [detour, PathBuf::from(url)] {
            let other = SqliteTable::new(&way);
            other.open().await.unwrap();
            assert!(other.take(1).await.unwrap().is_none(), "{}", way.display());
            forwarder.close().await;
            assert!(other.take(1).await.unwrap().is_some(), "{}", way.display());
            other.close().await;
            assert!(forwarder.take(1).await.unwrap().is_some());
        }
        let files = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name());
        let locks: Vec<_> =
            files.filter(|name| name.to_str().is_some_and(|it| it.ends_with("-celeriac"))).collect();
        assert_eq!(locks, ["orders.db-celeriac"]);
    }
}
