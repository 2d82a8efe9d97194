//! A row for a queue that the forwarding program does not know: it stays, with the reason, until one that knows it starts.

use std::sync::Mutex;
use std::time::Duration;

use celeriac::commit_table::{CommitTable, SqliteTable};
use celeriac::{Celeriac, Context, QueueRow, TaskId, task};

use crate::block_on;
use crate::services::await_condition;

static RUNS: Mutex<Vec<TaskId>> = Mutex::new(Vec::new());

#[task(ignore_result)]
async fn routed(ctx: Context) {
    RUNS.lock().unwrap().push(ctx.id().clone());
}

pub fn stays_until_somebody_can_take_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("orders.db");
    block_on(SqliteTable::new(&path).create()).unwrap();
    let mut connection = rusqlite::Connection::open(&path).unwrap();
    connection.busy_timeout(Duration::from_secs(60)).unwrap();
    // No Celeriac runs here, so nobody can say that there is no such queue.
    let mut transaction = connection.transaction().unwrap();
    let id = routed::s().queue("later").delay_on_commit(&mut transaction).wait().unwrap();
    transaction.commit().unwrap();

    let old = Celeriac::builder().in_memory().commit_table(SqliteTable::new(&path));
    let old = block_on(old.start()).unwrap();
    await_condition("it is refused", || match old.commit_table().unwrap() {
        status if status.refused == 1 => Ok(()),
        status => Err(format!("{status:?}")),
    });
    let reason: String =
        connection.query_row("SELECT refused FROM celeriac_on_commit", (), |row| row.get(0)).unwrap();
    assert!(reason.contains("queue `later`, which is not in the catalogue"), "{reason}");
    // A call that is made where it runs is refused at once.
    let mut transaction = connection.transaction().unwrap();
    let now = routed::s().queue("later").delay_on_commit(&mut transaction).wait().unwrap_err();
    assert!(now.to_string().contains("queue `later`"), "{now}");
    drop(transaction);
    block_on(old.shutdown()).unwrap();

    let new = Celeriac::builder().in_memory().queue(QueueRow::new("later").with_io_bound(true));
    let new = block_on(new.commit_table(SqliteTable::new(&path)).start()).unwrap();
    await_condition("it has run", || {
        let runs = RUNS.lock().unwrap();
        if runs.contains(&id) { Ok(()) } else { Err(format!("{runs:?}, {:?}", new.commit_table())) }
    });
    block_on(new.shutdown()).unwrap();
}
