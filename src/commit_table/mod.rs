//! The commit table: the table of the program's own database in which calls wait for the commit of their transaction.
//!
//! A program writes a row with its own rows, in one transaction ([`delay_on_commit`](crate::Signature::delay_on_commit)). A
//! Celeriac that was given the table ([`Builder::commit_table`](crate::Builder::commit_table)) forwards the rows to its
//! broker, oldest first, and deletes each when the broker has the task. The page "Commit and enqueue" of the manual has
//! the whole of it.
//!
//! | database | written by | read by |
//! |---|---|---|
//! | Postgres | `sqlx` (feature `sqlx-postgres`), `diesel` (`diesel-postgres`) | `PostgresTable` |
//! | MySQL, MariaDB | `sqlx` (`sqlx-mysql`) | `MySqlTable` |
//! | SQLite | `sqlx` (`sqlx-sqlite`), `rusqlite` (`rusqlite`), `diesel` (`diesel-sqlite`) | `SqliteTable` |
//!
//! With diesel the connection is wrapped: `send_email::delay_on_commit(&mut DieselTransaction(conn), 42).wait()`.
//!
//! Invariants of a table:
//! - A row is handed to one forwarder at a time, in however many processes there are.
//! - A row is there until a forwarder says that it is [forwarded](RowEnds::forwarded). If the forwarder dies before it does,
//!   the next one gets the row again.

#[cfg(any(feature = "diesel-postgres", feature = "diesel-sqlite"))]
mod diesel_transaction;
#[cfg(feature = "rusqlite")]
mod forwarder_lock;
#[cfg(feature = "sqlx-mysql")]
mod mysql;
#[cfg(feature = "sqlx-postgres")]
mod postgres;
#[cfg(feature = "rusqlite")]
mod rusqlite_transaction;
#[cfg(any(feature = "sqlx-mysql", feature = "sqlx-postgres"))]
mod server_answer;
#[cfg(feature = "rusqlite")]
mod sqlite;
#[cfg(any(feature = "sqlx-mysql", feature = "sqlx-postgres", feature = "sqlx-sqlite"))]
mod sqlx_transaction;

use async_trait::async_trait;

use crate::task::TaskId;

#[cfg(any(feature = "diesel-postgres", feature = "diesel-sqlite"))]
pub use diesel_transaction::DieselTransaction;
#[cfg(feature = "sqlx-mysql")]
pub use mysql::MySqlTable;
#[cfg(feature = "sqlx-postgres")]
pub use postgres::PostgresTable;
#[cfg(feature = "rusqlite")]
pub use sqlite::SqliteTable;

pub use crate::task::{CommitRow, CommitTableError, CommitTransaction, OnCommit, WriteRow};

/// The migration that makes the commit table in Postgres. It may run more than once.
pub const POSTGRES: &str = include_str!("postgres.sql");

/// The migration that makes the commit table in MySQL and MariaDB. It may run more than once.
pub const MYSQL: &str = include_str!("mysql.sql");

/// The migration that makes the commit table in SQLite. It may run more than once.
pub const SQLITE: &str = include_str!("sqlite.sql");

/// Writes a row in Postgres, and has the commit tell of it. It answers with one row; with none if the id is taken.
#[cfg(any(feature = "diesel-postgres", feature = "sqlx-postgres"))]
const INTO_POSTGRES: &str = "WITH written AS (INSERT INTO celeriac_on_commit (id, task, call) VALUES ($1, $2, $3) \
     ON CONFLICT (id) DO NOTHING RETURNING id) \
     SELECT pg_notify('celeriac_on_commit', '') FROM written";

/// Writes a row in MySQL. It fails if the id is taken.
#[cfg(feature = "sqlx-mysql")]
const INTO_MYSQL: &str = "INSERT INTO celeriac_on_commit (id, task, `call`) VALUES (?, ?, ?)";

/// Writes a row in SQLite, unless the id is taken.
#[cfg(feature = "rusqlite")]
const INTO_SQLITE: &str =
    "INSERT INTO celeriac_on_commit (id, task, call) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO NOTHING";

/// A commit table, as its forwarder reads it. The calls are made on an event loop, so they must not block.
#[async_trait]
pub trait CommitTable: Send + Sync + 'static {
    /// The name of the database in logs and statuses.
    fn name(&self) -> &'static str;

    /// Whether [`committed`](Self::committed) tells of every commit. If not, the forwarder looks again and again after this
    /// process has written a row.
    fn tells(&self) -> bool;

    /// Makes the table if it is not there.
    ///
    /// # Errors
    /// The database cannot be reached, or refuses.
    async fn create(&self) -> Result<(), CommitTableError>;

    /// Finds out at the start whether the table can be used, and has rows that were refused tried again: this process may
    /// know what the one before did not.
    ///
    /// # Errors
    /// The database cannot be reached, or has no such table.
    async fn open(&self) -> Result<(), CommitTableError>;

    /// Takes committed rows in hand, the oldest first, at most `limit`; not those that were refused. `None`: another
    /// forwarder has rows of this table in hand.
    ///
    /// # Errors
    /// The database cannot be reached, or refuses.
    async fn take(&self, limit: usize) -> Result<Option<Box<dyn TakenRows>>, CommitTableError>;

    /// Completes when rows may have been committed. It is dropped and called again at any time, and then loses no commit.
    async fn committed(&self);

    /// Frees what keeps other forwarders away between two looks, because the runtime shuts down: its handle may live on.
    /// A table that keeps nothing has nothing to do.
    async fn close(&self) {}
}

/// Rows that a forwarder has in hand. When they are dropped without being settled, they are free again.
#[async_trait]
pub trait TakenRows: Send {
    /// The rows, in the order in which they are to be forwarded.
    fn rows(&self) -> &[CommitRow];

    /// Ends these rows and frees the others, in one step.
    ///
    /// # Errors
    /// The database cannot be reached, or refuses. The rows may be free again.
    async fn settle(self: Box<Self>, ends: RowEnds) -> Result<(), CommitTableError>;
}

/// What became of rows that a forwarder had in hand. Rows that are not named here are tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RowEnds {
    /// The ids of the rows whose tasks the broker has; the rows are deleted.
    pub forwarded: Vec<TaskId>,
    /// The ids of the rows that cannot be forwarded as they are, each with the reason, which is kept in the row.
    pub refused: Vec<(TaskId, String)>,
}
