//! The forwarder of a commit table: each committed call once, whatever the table does. The table here is in memory; those of
//! databases are in `tests/commit_table`.

use std::future::{pending, ready};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use celeriac::broker::Broker;
use celeriac::commit_table::{
    CommitRow, CommitTable, CommitTableError, CommitTransaction, RowEnds, TakenRows, WriteRow,
};
use celeriac::store::MemoryStore;
use celeriac::{Celeriac, Context, TaskId, async_trait, serial_task, task};

use crate::kit::{Gate, LONG, builder, hold, note, notes, status_of, until};
use crate::refused_rows::Narrow;

/// A table that fails as often as it is told to.
#[derive(Clone, Default)]
struct Table(Arc<Rows>);

#[derive(Default)]
struct Rows {
    rows: Mutex<Vec<CommitRow>>,
    refused: Mutex<Vec<(TaskId, String)>>,
    failing_takes: AtomicU32,
    panicking_takes: AtomicU32,
    failing_settlements: AtomicU32,
}

/// A transaction, whose rows are in the table when it commits.
struct Transaction {
    table: Table,
    rows: Vec<CommitRow>,
}

impl Table {
    fn begin(&self) -> Transaction {
        Transaction { table: self.clone(), rows: Vec::new() }
    }

    fn is_empty(&self) -> bool {
        self.0.rows.lock().unwrap().is_empty()
    }
}

impl Transaction {
    fn commit(self) {
        self.table.0.rows.lock().unwrap().extend(self.rows);
    }
}

impl CommitTransaction for Transaction {
    fn write(&mut self, row: CommitRow) -> WriteRow<'_> {
        self.rows.push(row);
        Box::pin(ready(Ok(true)))
    }
}

fn take(count: &AtomicU32) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

fn away() -> CommitTableError {
    CommitTableError::of(std::io::Error::other("the database is away"), false)
}

#[async_trait]
impl CommitTable for Table {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn tells(&self) -> bool {
        false
    }

    async fn create(&self) -> Result<(), CommitTableError> {
        Ok(())
    }

    async fn open(&self) -> Result<(), CommitTableError> {
        Ok(())
    }

    async fn take(&self, limit: usize) -> Result<Option<Box<dyn TakenRows>>, CommitTableError> {
        if take(&self.0.failing_takes) {
            return Err(away());
        }
        assert!(!take(&self.0.panicking_takes), "as it should");
        let taken = self.0.rows.lock().unwrap().iter().take(limit).cloned().collect();
        Ok(Some(Box::new(Taken { table: self.clone(), taken })))
    }

    async fn committed(&self) {
        pending().await
    }
}

struct Taken {
    table: Table,
    taken: Vec<CommitRow>,
}

#[async_trait]
impl TakenRows for Taken {
    fn rows(&self) -> &[CommitRow] {
        &self.taken
    }

    async fn settle(self: Box<Self>, ends: RowEnds) -> Result<(), CommitTableError> {
        let Table(state) = &self.table;
        if take(&state.failing_settlements) {
            return Err(away());
        }
        let is_over = |row: &CommitRow| {
            ends.forwarded.contains(&row.id) || ends.refused.iter().any(|(id, _)| *id == row.id)
        };
        state.rows.lock().unwrap().retain(|row| !is_over(row));
        state.refused.lock().unwrap().extend(ends.refused);
        Ok(())
    }
}

/// Notes its runs. It keeps no result, so its id is free again as soon as it is over.
#[task(queue = "one", ignore_result)]
async fn mail(ctx: Context, line: String, n: u32) {
    note(&line.as_str().into(), format!("{n} {}", ctx.id()));
}

fn lines(line: &str) -> Vec<String> {
    notes(&line.into())
}

async fn write(table: &Table, line: &str, n: u32) -> TaskId {
    let mut transaction = table.begin();
    let id = mail::delay_on_commit(&mut transaction, line.to_owned(), n).await.unwrap();
    transaction.commit();
    id
}

fn forwarded(celeriac: &Celeriac) -> u64 {
    celeriac.commit_table().unwrap().forwarded
}

#[tokio::test]
async fn a_call_is_a_task_if_its_transaction_commits() {
    let (table, line) = (Table::default(), TaskId::new().to_string());
    let celeriac = builder().in_memory().commit_table(table.clone()).start().await.unwrap();
    let mut rolled_back = table.begin();
    mail::delay_on_commit(&mut rolled_back, line.clone(), 1).await.unwrap();
    drop(rolled_back);
    let id = write(&table, &line, 2).await;
    until("it has run", async || lines(&line) == [format!("2 {id}")]).await;
    until("its row is gone", async || table.is_empty()).await;
    until("it is counted", async || forwarded(&celeriac) == 1).await;
    let status = celeriac.commit_table().unwrap();
    assert!(status.forwards && status.failures == 0 && status.refused == 0, "{status:?}");
    assert_eq!((status.database.as_str(), status.last_error), ("memory", None));
    celeriac.shutdown().await.unwrap();

    // What is committed while nobody forwards waits in the table.
    let late = write(&table, &line, 3).await;
    let celeriac = builder().in_memory().commit_table(table.clone()).start().await.unwrap();
    until("it has run", async || lines(&line).len() == 2).await;
    assert_eq!(lines(&line)[1], format!("3 {late}"));
    celeriac.shutdown().await.unwrap();
}

/// The process dies after the broker has the task and before the row is deleted. Here the deletion fails.
#[tokio::test]
async fn a_row_that_is_forwarded_again_does_not_run_again() {
    let dir = tempfile::tempdir().unwrap();
    for directory in [None, Some(dir.path())] {
        let (table, line) = (Table::default(), TaskId::new().to_string());
        table.0.failing_settlements.store(1, Ordering::SeqCst);
        let start = async || {
            let builder = builder().commit_table(table.clone());
            let builder = match directory {
                Some(directory) => builder.directory(directory),
                None => builder.in_memory(),
            };
            builder.start().await.unwrap()
        };
        let celeriac = start().await;
        let id = write(&table, &line, 1).await;
        until("it has run, and its row is there", async || !lines(&line).is_empty()).await;
        until("it is over", async || status_of(&celeriac, "one").await.running == 0).await;
        // The table is forwarded again after a pause, or by the next process.
        let celeriac = if directory.is_some() {
            celeriac.shutdown().await.unwrap();
            start().await
        } else {
            celeriac
        };
        until("the row is gone", async || table.is_empty()).await;
        let next = write(&table, &line, 2).await;
        until("the next one has run", async || lines(&line).len() > 1).await;
        assert_eq!(lines(&line), [format!("1 {id}"), format!("2 {next}")]);
        celeriac.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn many_rows_are_forwarded_in_their_order() {
    let (table, line) = (Table::default(), TaskId::new().to_string());
    let mut transaction = table.begin();
    for n in 0..1000 {
        mail::delay_on_commit(&mut transaction, line.clone(), n).await.unwrap();
    }
    transaction.commit();
    let dir = tempfile::tempdir().unwrap();
    let celeriac = builder().directory(dir.path()).commit_table(table.clone()).start().await.unwrap();
    until("all have run", async || lines(&line).len() == 1000).await;
    let order: Vec<u32> =
        lines(&line).iter().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(order, (0..1000).collect::<Vec<_>>());
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_row_that_cannot_be_forwarded_holds_nothing_up() {
    let (table, line, gate) = (Table::default(), TaskId::new().to_string(), Gate::new());
    let celeriac = builder().in_memory().commit_table(table.clone()).start().await.unwrap();
    let held = hold::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    let mut transaction = table.begin();
    let twice = mail::s(line.clone(), 1).id(held.id().clone()).delay_on_commit(&mut transaction).await;
    assert_eq!(twice.as_ref(), Ok(held.id()));
    transaction.rows.push(CommitRow::new("odd", "no\0body's", "{}"));
    let id = mail::delay_on_commit(&mut transaction, line.clone(), 2).await.unwrap();
    transaction.commit();
    until("the last one has run", async || lines(&line) == [format!("2 {id}")]).await;
    until("the others are set aside", async || celeriac.commit_table().unwrap().refused == 2).await;
    let refused = table.0.refused.lock().unwrap().clone();
    assert!(refused[0].1.contains("waits, runs or has its result kept"), "{refused:?}");
    assert!(refused[1].1.contains("is none of this version of Celeriac"), "{refused:?}");
    assert!(!refused[1].1.contains('\0'), "a text in Postgres has no such character: {refused:?}");
    gate.open();
    held.get(LONG).await.unwrap();
    celeriac.shutdown().await.unwrap();
}

/// They rest, however many they are, and are tried again.
#[tokio::test]
async fn rows_whose_queue_is_full_hold_nothing_up() {
    let (table, line) = (Table::default(), TaskId::new().to_string());
    let store = Arc::new(MemoryStore::default());
    let broker = Arc::new(Narrow::new(Arc::clone(&store), false));
    broker.is_full.store(true, Ordering::SeqCst);
    let given: Arc<dyn Broker> = Arc::<Narrow>::clone(&broker);
    let celeriac = builder().broker(given, store).commit_table(table.clone()).start().await.unwrap();
    let mut transaction = table.begin();
    for n in 10..600 {
        mail::s(line.clone(), n).queue("io").delay_on_commit(&mut transaction).await.unwrap();
    }
    let id = mail::delay_on_commit(&mut transaction, line.clone(), 600).await.unwrap();
    transaction.commit();
    until("the one behind them has run", async || lines(&line) == [format!("600 {id}")]).await;
    until("its row is counted", async || forwarded(&celeriac) == 1).await;
    let error = celeriac.commit_table().unwrap().last_error.unwrap();
    assert!(error.contains("the queue is at its length"), "{error}");
    broker.is_full.store(false, Ordering::SeqCst);
    until("the others follow", async || lines(&line).len() == 591).await;
    until("all is well", async || celeriac.commit_table().unwrap().last_error.is_none()).await;
    assert!(table.is_empty());
    celeriac.shutdown().await.unwrap();
}

#[serial_task(key = "{line}", queue = "one", ignore_result)]
async fn in_line(line: String, n: u32) {
    note(&line.as_str().into(), n.to_string());
}

/// A row that rests is overtaken by rows of other lanes, and by none of its own.
#[tokio::test]
async fn rows_of_a_lane_wait_for_one_whose_queue_is_full() {
    let (table, line, other) = (Table::default(), TaskId::new().to_string(), TaskId::new().to_string());
    let store = Arc::new(MemoryStore::default());
    let broker = Arc::new(Narrow::new(Arc::clone(&store), false));
    broker.is_full.store(true, Ordering::SeqCst);
    let given: Arc<dyn Broker> = Arc::<Narrow>::clone(&broker);
    let celeriac = builder().broker(given, store).commit_table(table.clone()).start().await.unwrap();
    let mut transaction = table.begin();
    // The broker never takes a task whose last argument is 2.
    in_line::s(line.clone(), 11).queue("io").delay_on_commit(&mut transaction).await.unwrap();
    in_line::delay_on_commit(&mut transaction, line.clone(), 12).await.unwrap();
    in_line::delay_on_commit(&mut transaction, other.clone(), 11).await.unwrap();
    transaction.commit();
    until("the other lane goes on", async || lines(&other) == ["11"] && forwarded(&celeriac) == 1).await;
    // These come while the first one rests.
    let mut transaction = table.begin();
    in_line::delay_on_commit(&mut transaction, line.clone(), 13).await.unwrap();
    in_line::delay_on_commit(&mut transaction, other.clone(), 12).await.unwrap();
    transaction.commit();
    until("the other lane goes on", async || lines(&other) == ["11", "12"] && forwarded(&celeriac) == 2)
        .await;
    assert_eq!(lines(&line), Vec::<String>::new(), "they were accepted after it");
    broker.is_full.store(false, Ordering::SeqCst);
    until("all have run in their order", async || lines(&line) == ["11", "12", "13"]).await;
    until("all is well", async || celeriac.commit_table().unwrap().last_error.is_none()).await;
    assert!(table.is_empty());
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_forwarder_survives_its_table_and_says_so() {
    let (table, line) = (Table::default(), TaskId::new().to_string());
    table.0.failing_takes.store(u32::MAX, Ordering::SeqCst);
    let celeriac = builder().in_memory().commit_table(table.clone()).start().await.unwrap();
    until("it has failed", async || celeriac.commit_table().unwrap().failures > 0).await;
    let error = celeriac.commit_table().unwrap().last_error;
    assert_eq!(error.as_deref(), Some("the commit table: the database is away"));
    table.0.failing_takes.store(0, Ordering::SeqCst);
    celeriac.forward_committed().await;
    until("it goes on", async || celeriac.commit_table().unwrap().last_error.is_none()).await;
    table.0.panicking_takes.store(2, Ordering::SeqCst);
    write(&table, &line, 1).await;
    until("it goes on after panics, too", async || lines(&line).len() == 1).await;
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_test_forwards_what_is_committed_itself() {
    let (table, line) = (Table::default(), TaskId::new().to_string());
    let program = Celeriac::builder().commit_table(table.clone());
    let app = celeriac::testing::builder().program(program).start().await.unwrap();
    let id = write(&table, &line, 1).await;
    assert_eq!(app.run_until_idle().await, 0, "it waits in the table");
    app.celeriac().forward_committed().await;
    assert_eq!(app.run_until_idle().await, 1);
    assert_eq!(lines(&line), [format!("1 {id}")]);
    assert!(table.is_empty());
    let mut transaction = table.begin();
    let unknown = mail::s(line, 2).queue("nowhere").delay_on_commit(&mut transaction).await.unwrap_err();
    assert!(unknown.to_string().contains("queue `nowhere`"), "a mistake is told at the call: {unknown}");
}
