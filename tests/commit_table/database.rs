//! The orders' database: the same table in SQLite, in Postgres and in MySQL.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use celeriac::Builder;
use celeriac::commit_table::{CommitTable, MySqlTable, PostgresTable, SqliteTable};
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{MySqlPool, PgPool, SqlitePool};

use crate::child::{Failure, send_mail};
use crate::tripping::{Step, Tripping};

/// Longer than anything waits for a connection or a lock, even on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where the database is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Database {
    Sqlite(PathBuf),
    Postgres(String),
    MySql(String),
}

/// How the transaction of an order ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Commit,
    RollBack,
    /// By `kill -9` of this process, just before the commit or just after it.
    DieBefore,
    DieAfter,
}

/// The open database.
pub enum Orders {
    Sqlite(SqlitePool),
    Postgres(PgPool),
    MySql(MySqlPool),
}

/// `kill -9` of this process.
pub fn die() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    loop {
        std::thread::park(); // for as long as the signal takes
    }
}

impl Database {
    /// Gives the commit table of the database to a program, which dies at this step.
    pub fn forward(&self, builder: Builder, step: Option<Step>) -> Builder {
        match self {
            Self::Sqlite(path) => builder.commit_table(Tripping::over(SqliteTable::new(path), step)),
            Self::Postgres(url) => builder.commit_table(Tripping::over(postgres(url), step)),
            Self::MySql(url) => builder.commit_table(Tripping::over(mysql(url), step)),
        }
    }

    /// Makes the tables, if they are not there.
    pub async fn create(&self) -> Result<(), Failure> {
        const ORDERS: &str = "CREATE TABLE IF NOT EXISTS orders (n BIGINT PRIMARY KEY)";
        match self {
            Self::Sqlite(path) => SqliteTable::new(path).create().await?,
            Self::Postgres(url) => postgres(url).create().await?,
            Self::MySql(url) => mysql(url).create().await?,
        }
        match self.open().await? {
            Orders::Sqlite(pool) => sqlx::query(ORDERS).execute(&pool).await.map(|_| ())?,
            Orders::Postgres(pool) => sqlx::query(ORDERS).execute(&pool).await.map(|_| ())?,
            Orders::MySql(pool) => sqlx::query(ORDERS).execute(&pool).await.map(|_| ())?,
        }
        Ok(())
    }

    pub async fn open(&self) -> Result<Orders, Failure> {
        Ok(match self {
            Self::Sqlite(path) => {
                let options = SqliteConnectOptions::new().filename(path).journal_mode(SqliteJournalMode::Wal);
                let options = options.busy_timeout(PATIENCE);
                let pool = SqlitePoolOptions::new().max_connections(4).acquire_timeout(PATIENCE);
                Orders::Sqlite(pool.connect_with(options).await?)
            }
            Self::Postgres(url) => {
                let pool = PgPoolOptions::new().max_connections(4).acquire_timeout(PATIENCE);
                Orders::Postgres(pool.connect(url).await?)
            }
            Self::MySql(url) => {
                let pool = MySqlPoolOptions::new().max_connections(4).acquire_timeout(PATIENCE);
                Orders::MySql(pool.connect(url).await?)
            }
        })
    }
}

/// The commit table at this URL.
pub fn postgres(url: &str) -> PostgresTable {
    let options: sqlx::postgres::PgConnectOptions = url.parse().expect("a URL of Postgres");
    PostgresTable::new(options)
}

/// The commit table at this URL.
pub fn mysql(url: &str) -> MySqlTable {
    let options: sqlx::mysql::MySqlConnectOptions = url.parse().expect("a URL of MySQL");
    MySqlTable::new(options)
}

/// Takes an order in a transaction of this pool, up to its end.
macro_rules! take_in {
    ($pool:expr, $order:expr, $n:expr, $end:expr) => {{
        let mut transaction = $pool.begin().await?;
        sqlx::query($order).bind($n).execute(&mut *transaction).await?;
        send_mail::delay_on_commit(&mut transaction, $n).await?;
        match $end {
            End::RollBack => transaction.rollback().await?,
            End::DieBefore => die(),
            End::Commit | End::DieAfter => transaction.commit().await?,
        }
    }};
}

impl Orders {
    /// Takes an order: its row, and its mail, in one transaction.
    pub async fn take(&self, n: i64, end: End) -> Result<(), Failure> {
        match self {
            Self::Sqlite(pool) => take_in!(pool, "INSERT INTO orders (n) VALUES ($1)", n, end),
            Self::Postgres(pool) => take_in!(pool, "INSERT INTO orders (n) VALUES ($1)", n, end),
            Self::MySql(pool) => take_in!(pool, "INSERT INTO orders (n) VALUES (?)", n, end),
        }
        if end == End::DieAfter {
            die();
        }
        Ok(())
    }

    /// All orders.
    pub async fn all(&self) -> Result<BTreeSet<i64>, Failure> {
        const ALL: &str = "SELECT n FROM orders";
        let all = match self {
            Self::Sqlite(pool) => sqlx::query_scalar::<_, i64>(ALL).fetch_all(pool).await?,
            Self::Postgres(pool) => sqlx::query_scalar::<_, i64>(ALL).fetch_all(pool).await?,
            Self::MySql(pool) => sqlx::query_scalar::<_, i64>(ALL).fetch_all(pool).await?,
        };
        Ok(all.into_iter().collect())
    }

    /// How many rows wait in the commit table.
    pub async fn waiting(&self) -> Result<i64, Failure> {
        const WAITING: &str = "SELECT count(*) FROM celeriac_on_commit";
        Ok(match self {
            Self::Sqlite(pool) => sqlx::query_scalar::<_, i64>(WAITING).fetch_one(pool).await?,
            Self::Postgres(pool) => sqlx::query_scalar::<_, i64>(WAITING).fetch_one(pool).await?,
            Self::MySql(pool) => sqlx::query_scalar::<_, i64>(WAITING).fetch_one(pool).await?,
        })
    }
}
