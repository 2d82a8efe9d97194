//! The commit table in Postgres, read with `sqlx`.
//!
//! - A batch is in hand while its transaction is open. The transaction holds an advisory lock of the table, so one process
//!   forwards at a time and the order of the rows is kept. When a process dies, Postgres ends its transaction, and another
//!   process takes the rows. When its machine vanishes, Postgres finds that out in half a minute.
//! - The insert of a row notifies (`pg_notify`), and Postgres delivers that with the commit. A connection that listens is
//!   the forwarder's alarm; where it cannot listen, as behind a pooler of transactions, the forwarder looks once a second.
//! - Its connections are its own and belong to the event loop of the forwarder, so a task that blocks an event loop of the
//!   program does not hold up its database, and the other way round.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{Connection, PgConnection};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::server_answer::in_time;
use super::sqlx_transaction::failed;
use super::{CommitRow, CommitTable, CommitTableError, POSTGRES, RowEnds, TakenRows};

/// The channel on which the inserts notify.
const CHANNEL: &str = "celeriac_on_commit";
/// Begins the transaction that holds the lock. While it is open Postgres asks the machine of this process whether it is there:
/// otherwise the transaction of a machine that has vanished would hold the lock for more than two hours.
const BEGIN: &str = "BEGIN; SET LOCAL tcp_keepalives_idle = 10; SET LOCAL tcp_keepalives_interval = 5; \
     SET LOCAL tcp_keepalives_count = 4";
/// What the forwarder calls the server in its errors.
const SERVER: &str = "Postgres";
/// Takes the lock of the table until the end of the transaction; the first number is the word "cele".
const LOCK: &str = "SELECT pg_try_advisory_xact_lock(1667591269, 'celeriac_on_commit'::regclass::oid::int4)";
const SELECT: &str =
    "SELECT id, task, call FROM celeriac_on_commit WHERE refused IS NULL ORDER BY number LIMIT $1";
const DELETE: &str = "DELETE FROM celeriac_on_commit WHERE id = ANY($1)";
const REFUSE: &str = "UPDATE celeriac_on_commit SET refused = $2 WHERE id = $1";
const TRY_AGAIN: &str = "UPDATE celeriac_on_commit SET refused = NULL WHERE refused IS NOT NULL";
/// The pause after a connection that listens was lost and could not be made anew.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// The commit table of a Postgres database.
pub struct PostgresTable {
    options: Arc<PgConnectOptions>,
    idle: IdlePgConnection,
    /// Told when rows may have been committed.
    heard: Arc<Notify>,
    listening: Mutex<Option<AbortHandle>>,
}

/// The connection that has no rows in hand.
type IdlePgConnection = Arc<Mutex<Option<PgConnection>>>;

impl PostgresTable {
    /// The commit table of the database that these options lead to: `PostgresTable::new(pool.connect_options())`. It makes
    /// two connections of its own.
    pub fn new(options: impl Into<Arc<PgConnectOptions>>) -> Self {
        Self {
            options: options.into(),
            idle: Arc::default(),
            heard: Arc::default(),
            listening: Mutex::default(),
        }
    }

    /// A connection with an open transaction: the idle one if it still serves.
    async fn begun(&self) -> Result<PgConnection, sqlx::Error> {
        let idle = self.idle.lock().take();
        if let Some(mut connection) = idle
            && sqlx::raw_sql(BEGIN).execute(&mut connection).await.is_ok()
        {
            return Ok(connection);
        }
        let mut connection = PgConnection::connect_with(&self.options).await?;
        sqlx::raw_sql(BEGIN).execute(&mut connection).await?;
        Ok(connection)
    }

    async fn try_take(&self, limit: i64) -> Result<Option<PostgresRows>, sqlx::Error> {
        let mut connection = self.begun().await?;
        let is_ours = sqlx::query_scalar::<_, bool>(LOCK).fetch_one(&mut connection).await?;
        let rows = match is_ours {
            true => {
                let rows = sqlx::query_as::<_, (String, String, String)>(SELECT).bind(limit);
                rows.fetch_all(&mut connection).await?
            }
            false => Vec::new(),
        };
        let rows: Vec<_> = rows.into_iter().map(|(id, task, call)| CommitRow::new(id, task, call)).collect();
        if rows.is_empty() {
            sqlx::raw_sql("ROLLBACK").execute(&mut connection).await?;
            *self.idle.lock() = Some(connection);
            return Ok(is_ours.then(|| PostgresRows { rows, holding: None }));
        }
        Ok(Some(PostgresRows { rows, holding: Some((connection, Arc::clone(&self.idle))) }))
    }

    /// Listens from now on, unless it does already.
    fn listen(&self) {
        let mut listening = self.listening.lock();
        if listening.as_ref().is_none_or(AbortHandle::is_finished) {
            let task = tokio::spawn(listen(Arc::clone(&self.options), Arc::clone(&self.heard)));
            *listening = Some(task.abort_handle());
        }
    }
}

impl Drop for PostgresTable {
    fn drop(&mut self) {
        if let Some(listening) = self.listening.lock().take() {
            listening.abort();
        }
    }
}

#[async_trait]
impl CommitTable for PostgresTable {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn tells(&self) -> bool {
        true
    }

    async fn create(&self) -> Result<(), CommitTableError> {
        let create = async {
            let mut connection = PgConnection::connect_with(&self.options).await?;
            sqlx::raw_sql("BEGIN").execute(&mut connection).await?;
            // Two processes that make a table at the same time would fail.
            sqlx::query("SELECT pg_advisory_xact_lock(1667591269, 0)").execute(&mut connection).await?;
            sqlx::raw_sql(POSTGRES).execute(&mut connection).await?;
            sqlx::raw_sql("COMMIT").execute(&mut connection).await?;
            connection.close().await
        };
        create.await.map_err(failed)
    }

    async fn open(&self) -> Result<(), CommitTableError> {
        let open = async {
            let mut connection = PgConnection::connect_with(&self.options).await?;
            sqlx::query(TRY_AGAIN).execute(&mut connection).await?;
            connection.close().await
        };
        open.await.map_err(failed)
    }

    async fn take(&self, limit: usize) -> Result<Option<Box<dyn TakenRows>>, CommitTableError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let taken = in_time(SERVER, self.try_take(limit)).await.map_err(failed)?;
        Ok(taken.map(|rows| Box::new(rows) as Box<dyn TakenRows>))
    }

    async fn committed(&self) {
        self.listen();
        self.heard.notified().await;
    }
}

/// Rows in hand, and the transaction that holds them. Dropped, the connection is closed, and Postgres rolls back.
struct PostgresRows {
    rows: Vec<CommitRow>,
    holding: Option<(PgConnection, IdlePgConnection)>,
}

#[async_trait]
impl TakenRows for PostgresRows {
    fn rows(&self) -> &[CommitRow] {
        &self.rows
    }

    async fn settle(self: Box<Self>, ends: RowEnds) -> Result<(), CommitTableError> {
        let Some((mut connection, idle)) = self.holding else { return Ok(()) };
        let settle = async {
            if !ends.forwarded.is_empty() {
                let ids: Vec<String> = ends.forwarded.iter().map(ToString::to_string).collect();
                sqlx::query(DELETE).bind(ids).execute(&mut connection).await?;
            }
            for (id, reason) in ends.refused {
                let refuse = sqlx::query(REFUSE).bind(id.to_string()).bind(reason);
                refuse.execute(&mut connection).await?;
            }
            sqlx::raw_sql("COMMIT").execute(&mut connection).await.map(drop)
        };
        in_time(SERVER, settle).await.map_err(failed)?;
        *idle.lock() = Some(connection);
        Ok(())
    }
}

/// Tells of commits, for as long as the table lives.
async fn listen(options: Arc<PgConnectOptions>, heard: Arc<Notify>) {
    loop {
        if let Err(error) = hear(&options, &heard).await {
            tracing::warn!(%error, "Postgres cannot be listened to; its commit table is looked at once a second");
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

async fn hear(options: &PgConnectOptions, heard: &Notify) -> Result<(), sqlx::Error> {
    let pool = PgPoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None);
    let pool = pool.connect_lazy_with(options.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(CHANNEL).await?;
    loop {
        // Of what was committed before it listened, or while the connection was lost, nobody has told.
        heard.notify_one();
        listener.try_recv().await?;
    }
}
