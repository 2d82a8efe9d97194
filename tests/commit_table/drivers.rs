//! Each driver writes rows, and a Celeriac forwards them: a committed one, and none that is rolled back.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use celeriac::commit_table::{CommitTable, CommitTableError, DieselTransaction, RowEnds, SqliteTable};
use celeriac::{Celeriac, Context, EnqueueError, TaskId, task};
use diesel::Connection as _;
use diesel::connection::SimpleConnection as _;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, MySqlConnection, PgConnection, SqliteConnection};

use crate::block_on;
use crate::database::{self, Database};
use crate::services::{MariaDb, Postgres, await_condition};
use crate::tripping::Telling;

/// What ran: who wrote it, and its id.
static RUNS: Mutex<Vec<(String, TaskId)>> = Mutex::new(Vec::new());

#[task(queue = "rows", ignore_result)]
async fn written(ctx: Context, by: String) {
    RUNS.lock().unwrap().push((by, ctx.id().clone()));
}

/// Waits until the task of this id has run, and takes what ran.
fn ran(id: &TaskId) -> Vec<String> {
    await_condition("its task has run", || {
        let runs = RUNS.lock().unwrap();
        if runs.iter().any(|(_, run)| run == id) { Ok(()) } else { Err(format!("{runs:?}")) }
    });
    RUNS.lock().unwrap().drain(..).map(|(by, _)| by).collect()
}

pub fn sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("orders.db");
    let table = SqliteTable::new(&path);
    let missing = block_on(table.open()).unwrap_err();
    assert!(matches!(missing, CommitTableError::Failed(_)), "no file is made: {missing}");
    assert!(!path.exists());
    std::fs::write(&path, "").unwrap();
    let missing = block_on(table.open()).unwrap_err();
    assert!(matches!(missing, CommitTableError::Missing(_)), "{missing}");
    block_on(table.create()).unwrap();
    block_on(table.create()).unwrap();

    let mut connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "journal_mode", "wal").unwrap();
    connection.busy_timeout(Duration::from_secs(60)).unwrap();
    let mut rolled_back = connection.transaction().unwrap();
    written::delay_on_commit(&mut rolled_back, "nobody".into()).wait().unwrap();
    rolled_back.rollback().unwrap();
    let mut transaction = connection.transaction().unwrap();
    let first = written::delay_on_commit(&mut transaction, "rusqlite".into()).wait().unwrap();
    let again = written::s("again".into()).id(first.clone()).delay_on_commit(&mut transaction).wait();
    assert_eq!(again, Err(EnqueueError::DuplicateId { id: first.clone() }));
    let mut savepoint = transaction.savepoint().unwrap();
    written::delay_on_commit(&mut savepoint, "nobody".into()).wait().unwrap();
    savepoint.rollback().unwrap();
    savepoint.commit().unwrap();
    transaction.commit().unwrap();

    let celeriac = block_on(Celeriac::builder().in_memory().commit_table(table).start()).unwrap();
    assert_eq!(ran(&first), ["rusqlite"]);
    let direct = written::delay_on_commit(&mut connection, "rusqlite, no transaction".into()).wait();
    assert_eq!(ran(&direct.unwrap()), ["rusqlite, no transaction"]);

    let mut diesel = diesel::SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    diesel.batch_execute("PRAGMA busy_timeout = 60000").unwrap();
    let id = diesel.transaction(|connection| {
        let id = written::delay_on_commit(&mut DieselTransaction(connection), "diesel".into()).wait();
        Ok::<_, diesel::result::Error>(id.unwrap())
    });
    assert_eq!(ran(&id.unwrap()), ["diesel"]);
    let rolled_back: Result<(), diesel::result::Error> = diesel.transaction(|connection| {
        written::delay_on_commit(&mut DieselTransaction(connection), "nobody".into()).wait().unwrap();
        Err(diesel::result::Error::RollbackTransaction)
    });
    assert!(rolled_back.is_err());

    block_on(async {
        let options = SqliteConnectOptions::new().filename(&path).busy_timeout(Duration::from_secs(60));
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        let mut transaction = connection.begin().await.unwrap();
        written::delay_on_commit(&mut transaction, "nobody".into()).await.unwrap();
        transaction.rollback().await.unwrap();
        let mut transaction = connection.begin().await.unwrap();
        let id = written::delay_on_commit(&mut transaction, "sqlx".into()).await.unwrap();
        transaction.commit().await.unwrap();
        let ran = tokio::task::spawn_blocking(move || ran(&id)).await.unwrap();
        assert_eq!(ran, ["sqlx"]);
        celeriac.shutdown().await.unwrap();
    });
}

pub fn postgres() {
    let server = Postgres::start();
    let table = database::postgres(&server.url());
    let missing = block_on(table.open()).unwrap_err();
    assert!(matches!(missing, CommitTableError::Missing(_)), "{missing}");
    block_on(Database::Postgres(server.url()).create()).unwrap();
    // Why it is refused is kept, although its queue has a character that no text in Postgres has.
    let mut connection = block_on(PgConnection::connect(&server.url())).unwrap();
    let odd = written::s("nobody".into()).queue("no\0where");
    block_on(async { odd.delay_on_commit(&mut connection).await }).unwrap();
    let told = Arc::new(AtomicU32::new(0));
    let table = Telling { inner: table, told: Arc::clone(&told) };
    let celeriac = block_on(Celeriac::builder().in_memory().commit_table(table).start()).unwrap();
    let until_told = |times| {
        await_condition("Postgres has told of a commit", || match told.load(Ordering::SeqCst) {
            now if now >= times => Ok(now),
            now => Err(format!("told {now} times")),
        })
    };
    let listens = until_told(1);
    await_condition("it is refused", || match celeriac.commit_table().unwrap() {
        status if status.refused == 1 && status.last_error.is_none() => Ok(()),
        status => Err(format!("{status:?}")),
    });

    block_on(async {
        let mut transaction = connection.begin().await.unwrap();
        written::delay_on_commit(&mut transaction, "nobody".into()).await.unwrap();
        transaction.rollback().await.unwrap();
    });
    let id = block_on(async {
        let mut transaction = connection.begin().await.unwrap();
        let id = written::delay_on_commit(&mut transaction, "sqlx".into()).await.unwrap();
        let again = written::s("again".into()).id(id.clone()).delay_on_commit(&mut transaction).await;
        assert_eq!(again, Err(EnqueueError::DuplicateId { id: id.clone() }));
        transaction.commit().await.unwrap();
        id
    });
    assert_eq!(ran(&id), ["sqlx"]);
    until_told(listens + 1);
    let direct = block_on(async {
        written::delay_on_commit(&mut connection, "sqlx, no transaction".into()).await.unwrap()
    });
    assert_eq!(ran(&direct), ["sqlx, no transaction"]);

    // One that does not forward finds out that another one does, and leaves the rows alone.
    block_on(async {
        let second = database::postgres(&server.url());
        let third = database::postgres(&server.url());
        let mut transaction = connection.begin().await.unwrap();
        celeriac.shutdown().await.unwrap();
        written::delay_on_commit(&mut transaction, "held".into()).await.unwrap();
        transaction.commit().await.unwrap();
        let taken = second.take(10).await.unwrap().expect("nobody has rows in hand");
        assert_eq!(taken.rows().len(), 1);
        assert!(third.take(10).await.unwrap().is_none());
        drop(taken);
        become_free(&third).await;
    });
}

/// Waits until the rows of a connection that is gone can be taken by another one.
async fn become_free(table: &impl CommitTable) {
    let mut look = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..6000 {
        look.tick().await;
        if table.take(10).await.unwrap().is_some_and(|taken| taken.rows().len() == 1) {
            return;
        }
    }
    panic!("the rows of a connection that is gone do not become free");
}

pub fn mysql() {
    let server = MariaDb::start();
    let table = database::mysql(&server.url());
    let missing = block_on(table.open()).unwrap_err();
    assert!(matches!(missing, CommitTableError::Missing(_)), "{missing}");
    block_on(Database::MySql(server.url()).create()).unwrap();
    let mut connection = block_on(MySqlConnection::connect(&server.url())).unwrap();
    // Each start tries it again, and it is refused again.
    let odd = written::s("nobody".into()).queue("nowhere");
    block_on(async { odd.delay_on_commit(&mut connection).await }).unwrap();
    for _ in 0..2 {
        let table = database::mysql(&server.url());
        let celeriac = block_on(Celeriac::builder().in_memory().commit_table(table).start()).unwrap();
        await_condition("it is refused", || match celeriac.commit_table().unwrap() {
            status if status.refused == 1 && status.last_error.is_none() => Ok(()),
            status => Err(format!("{status:?}")),
        });
        block_on(celeriac.shutdown()).unwrap();
    }
    let celeriac = block_on(Celeriac::builder().in_memory().commit_table(table).start()).unwrap();
    let id = block_on(async {
        let mut transaction = connection.begin().await.unwrap();
        written::delay_on_commit(&mut transaction, "nobody".into()).await.unwrap();
        transaction.rollback().await.unwrap();
        let mut transaction = connection.begin().await.unwrap();
        let id = written::delay_on_commit(&mut transaction, "sqlx".into()).await.unwrap();
        let again = written::s("again".into()).id(id.clone()).delay_on_commit(&mut transaction).await;
        assert_eq!(again, Err(EnqueueError::DuplicateId { id: id.clone() }));
        transaction.commit().await.unwrap();
        id
    });
    assert_eq!(ran(&id), ["sqlx"]);
    let direct = block_on(async {
        written::delay_on_commit(&mut connection, "sqlx, no transaction".into()).await.unwrap()
    });
    assert_eq!(ran(&direct), ["sqlx, no transaction"]);

    block_on(async {
        celeriac.shutdown().await.unwrap();
        let (second, third) = (database::mysql(&server.url()), database::mysql(&server.url()));
        let held = written::s("held".into()).id("held").delay_on_commit(&mut connection).await;
        // A row that is not committed yet holds up nobody who forwards, and is not forwarded.
        let mut other = MySqlConnection::connect(&server.url()).await.unwrap();
        let mut open = other.begin().await.unwrap();
        written::s("open".into()).id("open").delay_on_commit(&mut open).await.unwrap();
        third.open().await.unwrap(); // the one that was refused is tried again
        let taken = second.take(10).await.unwrap().expect("nobody has rows in hand");
        let ids: Vec<TaskId> = taken.rows().iter().map(|row| row.id.clone()).collect();
        assert_eq!((ids.len(), &ids[1]), (2, held.as_ref().unwrap()));
        assert!(third.take(10).await.unwrap().is_none(), "one that does not forward leaves the rows alone");
        let mut ends = RowEnds::default();
        ends.refused.push((ids[0].clone(), "as it was".to_owned()));
        taken.settle(ends).await.unwrap();
        let taken = third.take(10).await.unwrap().expect("they are free");
        assert_eq!(taken.rows().len(), 1, "the one that is refused is left out");
        drop(taken);
        become_free(&second).await;
        open.rollback().await.unwrap();
    });
}
