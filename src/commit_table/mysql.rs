//! The commit table in MySQL and MariaDB, read with `sqlx`.
//!
//! - A batch is in hand while a connection has a lock of the server by name (`GET_LOCK`), so one process forwards at a time
//!   and the order of the rows is kept. The rows themselves are not locked: a look that locks rows locks the gaps between
//!   them and behind them, too, and the program's inserts would wait for the broker.
//! - The connection that has the lock deletes the rows. So a forwarder that has lost its lock deletes none.
//! - When a process dies, its connection ends and the lock with it. When its machine vanishes, the server ends a connection
//!   that has been silent for [half a minute](SESSION); one that has rows in hand says something before.
//! - The server tells nobody of a commit, so the forwarder looks: soon after this process has written a row, and once a
//!   second.
//! - Rows are changed by their number only: a change that has to search for its rows waits for transactions that are open.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::server_answer::in_time;
use super::sqlx_transaction::failed;
use super::{CommitRow, CommitTable, CommitTableError, MYSQL, RowEnds, TakenRows};

/// The name of the lock. The server has one space of names for all of its databases, and names of 64 characters at most.
macro_rules! lock_name {
    () => {
        "CONCAT('celeriac.', LEFT(SHA2(LOWER(DATABASE()), 256), 40))"
    };
}

/// What the forwarder calls the server in its errors.
const SERVER: &str = "MySQL";
/// The settings of a connection: each look sees what is committed by then, and the server gives up a silent machine.
const SESSION: &str = "SET SESSION autocommit = 1, SESSION wait_timeout = 30";
/// How long a connection that has rows in hand is silent at most.
const SILENCE: Duration = Duration::from_secs(10);
/// Takes the lock if it is free. The answer is 1, 0 or NULL, of a type that differs between servers.
const LOCK: &str = concat!("SELECT CAST(GET_LOCK(", lock_name!(), ", 0) AS SIGNED)");
const RELEASE: &str = concat!("DO RELEASE_LOCK(", lock_name!(), ")");
const COMMIT: &str = concat!("COMMIT; DO RELEASE_LOCK(", lock_name!(), ")");
const SELECT: &str = "SELECT number, id, task, `call` FROM celeriac_on_commit WHERE refused IS NULL \
     ORDER BY number LIMIT ?";
const REFUSE: &str = "UPDATE celeriac_on_commit SET refused = ? WHERE number = ?";
const REFUSED: &str = "SELECT number FROM celeriac_on_commit WHERE refused IS NOT NULL";
/// How many refused rows one request has tried again.
const AT_ONCE: usize = 1000;

/// The commit table of a MySQL or MariaDB database.
pub struct MySqlTable {
    options: Arc<MySqlConnectOptions>,
    idle: IdleMySqlConnection,
}

/// The connection that has no rows in hand, and not the lock.
type IdleMySqlConnection = Arc<Mutex<Option<MySqlConnection>>>;

impl MySqlTable {
    /// The commit table of the database that these options lead to: `MySqlTable::new(pool.connect_options())`. It makes a
    /// connection of its own.
    pub fn new(options: impl Into<Arc<MySqlConnectOptions>>) -> Self {
        Self { options: options.into(), idle: Arc::default() }
    }

    async fn connect(&self) -> Result<MySqlConnection, sqlx::Error> {
        let mut connection = MySqlConnection::connect_with(&self.options).await?;
        sqlx::raw_sql(SESSION).execute(&mut connection).await?;
        Ok(connection)
    }

    /// A connection, the idle one if it still serves, and whether it has got the lock.
    async fn asked_for_lock(&self) -> Result<(MySqlConnection, bool), sqlx::Error> {
        let idle = self.idle.lock().take();
        if let Some(mut connection) = idle
            && let Ok(is_ours) = lock(&mut connection).await
        {
            return Ok((connection, is_ours));
        }
        let mut connection = self.connect().await?;
        let is_ours = lock(&mut connection).await?;
        Ok((connection, is_ours))
    }

    async fn try_take(&self, limit: i64) -> Result<Option<MySqlRows>, sqlx::Error> {
        let (mut connection, is_ours) = self.asked_for_lock().await?;
        let mut taken = MySqlRows { rows: Vec::new(), numbers: HashMap::new(), holding: None };
        if is_ours {
            let rows = sqlx::query_as::<_, (i64, String, String, String)>(SELECT).bind(limit);
            for (number, id, task, call) in rows.fetch_all(&mut connection).await? {
                taken.numbers.insert(id.clone(), number);
                taken.rows.push(CommitRow::new(id, task, call));
            }
        }
        if !taken.rows.is_empty() {
            taken.holding = Some((Holding::of(connection), Arc::clone(&self.idle)));
            return Ok(Some(taken));
        }
        if is_ours {
            sqlx::raw_sql(RELEASE).execute(&mut connection).await?;
        }
        *self.idle.lock() = Some(connection);
        Ok(is_ours.then_some(taken))
    }

    /// Has the rows that were refused tried again.
    async fn try_again(&self) -> Result<(), sqlx::Error> {
        let mut connection = self.connect().await?;
        let refused = sqlx::query_scalar::<_, i64>(REFUSED).fetch_all(&mut connection).await?;
        for numbers in refused.chunks(AT_ONCE) {
            let mut work = String::new();
            for number in numbers {
                let _ = write!(work, "UPDATE celeriac_on_commit SET refused = NULL WHERE number = {number};");
            }
            sqlx::raw_sql(AssertSqlSafe(work)).execute(&mut connection).await?;
        }
        connection.close().await
    }
}

async fn lock(connection: &mut MySqlConnection) -> Result<bool, sqlx::Error> {
    let answer = sqlx::query_scalar::<_, Option<i64>>(LOCK).fetch_one(connection).await?;
    Ok(answer == Some(1))
}

#[async_trait]
impl CommitTable for MySqlTable {
    fn name(&self) -> &'static str {
        "mysql"
    }

    fn tells(&self) -> bool {
        false
    }

    async fn create(&self) -> Result<(), CommitTableError> {
        let create = async {
            let mut connection = MySqlConnection::connect_with(&self.options).await?;
            sqlx::raw_sql(MYSQL).execute(&mut connection).await?;
            connection.close().await
        };
        create.await.map_err(failed)
    }

    async fn open(&self) -> Result<(), CommitTableError> {
        self.try_again().await.map_err(failed)
    }

    async fn take(&self, limit: usize) -> Result<Option<Box<dyn TakenRows>>, CommitTableError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let taken = in_time(SERVER, self.try_take(limit)).await.map_err(failed)?;
        Ok(taken.map(|rows| Box::new(rows) as Box<dyn TakenRows>))
    }

    async fn committed(&self) {
        pending().await
    }

    async fn close(&self) {
        let idle = self.idle.lock().take();
        if let Some(connection) = idle
            && let Err(error) = in_time(SERVER, connection.close()).await
        {
            tracing::debug!(%error, "the server ends a connection of a commit table by itself");
        }
    }
}

/// Rows in hand. Dropped, the connection is closed, and the server frees the lock.
struct MySqlRows {
    rows: Vec<CommitRow>,
    /// The numbers of the rows by their ids.
    numbers: HashMap<String, i64>,
    holding: Option<(Holding, IdleMySqlConnection)>,
}

#[async_trait]
impl TakenRows for MySqlRows {
    fn rows(&self) -> &[CommitRow] {
        &self.rows
    }

    async fn settle(self: Box<Self>, ends: RowEnds) -> Result<(), CommitTableError> {
        let Self { numbers, holding, .. } = *self;
        let Some((holding, idle)) = holding else { return Ok(()) };
        let settle = async {
            let mut connection = holding.end().await?;
            let mut work = "BEGIN".to_owned();
            for number in ends.forwarded.iter().filter_map(|id| numbers.get(id.as_str())) {
                let _ = write!(work, "; DELETE FROM celeriac_on_commit WHERE number = {number}");
            }
            sqlx::raw_sql(AssertSqlSafe(work)).execute(&mut connection).await?;
            for (id, reason) in &ends.refused {
                if let Some(number) = numbers.get(id.as_str()) {
                    let refuse = sqlx::query(REFUSE).bind(reason.as_str()).bind(*number);
                    refuse.execute(&mut connection).await?;
                }
            }
            sqlx::raw_sql(COMMIT).execute(&mut connection).await?;
            Ok::<_, sqlx::Error>(connection)
        };
        let connection = in_time(SERVER, settle).await.map_err(failed)?;
        *idle.lock() = Some(connection);
        Ok(())
    }
}

/// The connection that has the lock, while others work with the rows.
struct Holding {
    end: oneshot::Sender<()>,
    held: JoinHandle<Result<MySqlConnection, sqlx::Error>>,
}

impl Holding {
    fn of(connection: MySqlConnection) -> Self {
        let (end, ended) = oneshot::channel();
        Self { end, held: tokio::spawn(hold(connection, ended)) }
    }

    /// Gives the connection back. It has the lock still.
    async fn end(self) -> Result<MySqlConnection, sqlx::Error> {
        let _ = self.end.send(());
        self.held.await.map_err(|error| sqlx::Error::Io(std::io::Error::other(error)))?
    }
}

/// Keeps the connection from being silent until its rows are settled. If they are dropped, it is closed.
async fn hold(
    mut connection: MySqlConnection,
    mut ended: oneshot::Receiver<()>,
) -> Result<MySqlConnection, sqlx::Error> {
    loop {
        match tokio::time::timeout(SILENCE, &mut ended).await {
            Ok(_) => return Ok(connection),
            Err(_) => in_time(SERVER, connection.ping()).await?,
        }
    }
}
