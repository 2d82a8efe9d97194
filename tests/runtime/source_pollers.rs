//! Source pollers: each row once, tenants in turn, no more than the queue takes, whatever the source does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use celeriac::actors::PollerStatus;
use celeriac::app::ControlError;
use celeriac::core::poll_schedule::Why;
use celeriac::task::source_poller::{Due, Source, SourcePoller};
use celeriac::{Celeriac, TaskError, TaskId, task};

use crate::kit::{Gate, builder, note, notes, until};

/// Rows that are due, by their number, with their tenant. Their tasks take them out.
#[derive(Default)]
struct Table {
    due: Mutex<BTreeMap<u64, String>>,
    /// So often it fails, then panics as often.
    fails: AtomicU32,
    panics: AtomicU32,
    /// How often each row was tried, as the source counts it.
    tried: Mutex<BTreeMap<u64, u32>>,
    /// The tenant that is left out.
    migrating: Mutex<Option<String>>,
    /// The gate that its tasks wait at.
    gate: Mutex<String>,
    asked: Mutex<Vec<usize>>,
}

static TABLES: LazyLock<Mutex<BTreeMap<String, Arc<Table>>>> = LazyLock::new(Mutex::default);

fn table(rows: impl IntoIterator<Item = (u64, &'static str)>) -> (String, Arc<Table>) {
    let name = TaskId::new().to_string();
    let table = Arc::new(Table::default());
    table.due.lock().unwrap().extend(rows.into_iter().map(|(row, tenant)| (row, tenant.to_owned())));
    TABLES.lock().unwrap().insert(name.clone(), Arc::clone(&table));
    (name, table)
}

struct Rows(String, Arc<Table>);

fn take(count: &AtomicU32) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

#[async_trait]
impl Source for Rows {
    async fn due(&self, limit: usize) -> Result<Vec<Due>, TaskError> {
        let Self(name, table) = self;
        if take(&table.fails) {
            return Err(std::io::Error::other("the database is away").into());
        }
        assert!(!take(&table.panics), "as it should");
        table.asked.lock().unwrap().push(limit);
        let due = table.due.lock().unwrap();
        let row = |(row, tenant): (&u64, &String)| {
            Due::new(format!("{name}-{row}"), process::s(name.clone(), *row)).tenant(tenant)
        };
        Ok(due.iter().take(limit).map(row).collect())
    }

    async fn skips(&self, tenant: &str) -> bool {
        tenant == "migrating" || self.1.migrating.lock().unwrap().as_deref() == Some(tenant)
    }

    async fn enqueued(&self, keys: &[String]) -> Result<(), TaskError> {
        for key in keys {
            let row =
                key.rsplit('-').next().and_then(|row| row.parse().ok()).ok_or(TaskError::fail(["a key"]))?;
            *self.1.tried.lock().unwrap().entry(row).or_default() += 1;
        }
        Ok(())
    }
}

#[task(queue = "io", ignore_result)]
async fn process(table: String, row: u64) {
    let rows = Arc::clone(&TABLES.lock().unwrap()[&table]);
    // The loop may have seen it just before an earlier task took it out.
    if !rows.due.lock().unwrap().contains_key(&row) {
        return;
    }
    note(&table.as_str().into(), row.to_string());
    let gate = rows.gate.lock().unwrap().clone();
    if !gate.is_empty() {
        Gate::named(&gate).pass().await;
    }
    rows.due.lock().unwrap().remove(&row);
}

fn ran(table: &str) -> Vec<u64> {
    notes(&table.into()).iter().map(|row| row.parse().unwrap()).collect()
}

async fn status(celeriac: &Celeriac) -> PollerStatus {
    celeriac.pollers().await.unwrap().remove(0)
}

fn poller(name: &str, table: &Arc<Table>) -> SourcePoller {
    let poller = SourcePoller::new("rows", Rows(name.to_owned(), Arc::clone(table)));
    poller.interval(Duration::from_millis(5)).longest_pause(Duration::from_millis(5))
}

#[tokio::test]
async fn each_row_once_however_often_it_is_found() {
    let dir = tempfile::tempdir().unwrap();
    for directory in [None, Some(dir.path())] {
        let gate = Gate::new();
        let (name, table) = table((0..6).map(|row| (row, ["a", "b"][row as usize / 4])));
        *table.gate.lock().unwrap() = gate.name.clone();
        let builder = builder().poller(poller(&name, &table));
        let builder = match directory {
            Some(directory) => builder.directory(directory),
            None => builder.in_memory(),
        };
        let celeriac = builder.start().await.unwrap();
        gate.entered(4).await;
        until("all were found again and again", async || status(&celeriac).await.joined > 60).await;
        assert_eq!(status(&celeriac).await.enqueued, 6);
        gate.open();
        until("all are done", async || table.due.lock().unwrap().is_empty()).await;
        until("nothing waits", async || status(&celeriac).await.waits == Some(Why::Interval)).await;
        let mut first: Vec<u64> = ran(&name)[..4].to_vec();
        first.sort_unstable();
        assert_eq!(first, [0, 1, 4, 5], "the tenants took turns");
        assert_eq!(ran(&name).len(), 6);
        // The same row again is another piece of work once its task is over.
        table.due.lock().unwrap().insert(3, "a".into());
        until("it runs again", async || ran(&name).len() == 7).await;
        celeriac.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn no_more_than_the_queue_takes_and_full_batches_at_once() {
    let gate = Gate::new();
    let (name, table) = table((0..100).map(|row| (row, "a")));
    *table.gate.lock().unwrap() = gate.name.clone();
    let hour = Duration::from_secs(3600);
    let slow = poller(&name, &table).interval(hour).max_backlog(Some(30)).queue("io");
    let celeriac = builder().in_memory().poller(slow).start().await.unwrap();
    until("it waits for room", async || status(&celeriac).await.waits == Some(Why::Backlog)).await;
    let full = status(&celeriac).await;
    assert!(full.enqueued <= 30, "{full:?}");
    gate.open();
    // The rows that are found are those whose tasks are not over, so it goes on as fast as they are.
    until("all are done", async || {
        celeriac.run_poller("rows").await.unwrap();
        table.due.lock().unwrap().is_empty()
    })
    .await;
    let mut all = ran(&name);
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<_>>(), "each once");
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn it_survives_its_source_and_says_so() {
    let (name, table) = table([(1, "a"), (2, "migrating")]);
    table.fails.store(3, Ordering::SeqCst);
    let celeriac = builder().in_memory().poller(poller(&name, &table)).start().await.unwrap();
    until("it has failed", async || status(&celeriac).await.failures == 3).await;
    until("the row runs", async || ran(&name) == [1]).await;
    table.panics.store(2, Ordering::SeqCst);
    until("it has panicked", async || status(&celeriac).await.failures == 5).await;
    until("it goes on", async || status(&celeriac).await.last_error.is_none()).await;
    let now = status(&celeriac).await;
    assert!(now.skipped > 0 && now.leads && now.looks > 5, "{now:?}");
    assert_eq!(ran(&name), [1], "one that is skipped is left due");
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn paused_it_asks_for_nothing_through_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (name, table) = table([]);
    let start = async || {
        let builder = builder().directory(dir.path()).poller(poller(&name, &table));
        builder.start().await.unwrap()
    };
    let celeriac = start().await;
    celeriac.pause_poller("rows").await.unwrap();
    until("it is paused", async || status(&celeriac).await.waits == Some(Why::Paused)).await;
    celeriac.shutdown().await.unwrap();
    table.due.lock().unwrap().insert(7, "a".into());
    table.asked.lock().unwrap().clear();
    let celeriac = start().await;
    until("it is still paused", async || status(&celeriac).await.paused).await;
    celeriac.run_poller("rows").await.unwrap();
    assert!(table.asked.lock().unwrap().is_empty() && ran(&name).is_empty());
    celeriac.resume_poller("rows").await.unwrap();
    until("it goes on", async || ran(&name) == [7]).await;
    let unknown = celeriac.pause_poller("row").await.unwrap_err();
    assert!(matches!(&unknown, ControlError::UnknownPoller { known, .. } if known == "rows"), "{unknown}");
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn two_of_one_name_are_an_error_at_the_start() {
    let (name, table) = table([]);
    let two = builder().in_memory().poller(poller(&name, &table)).poller(poller(&name, &table));
    let error = two.start().await.err().unwrap().to_string();
    assert!(error.contains("two source pollers are named `rows`"), "{error}");
}

/// A tenant that is migrated for long: however often its row is found meanwhile, that burns none of its attempts.
#[tokio::test]
async fn a_row_that_is_left_out_was_not_tried() {
    let (name, table) = table([(1, "a"), (2, "moving")]);
    *table.migrating.lock().unwrap() = Some("moving".into());
    let gate = Gate::new();
    *table.gate.lock().unwrap() = gate.name.clone();
    let celeriac = builder().in_memory().poller(poller(&name, &table)).start().await.unwrap();
    gate.entered(1).await;
    until("it was left out often", async || status(&celeriac).await.skipped > 20).await;
    let tried = || table.tried.lock().unwrap().clone();
    assert_eq!(tried(), BTreeMap::from([(1, 1)]), "and of the other, which has a task, one attempt counts");
    *table.migrating.lock().unwrap() = None;
    gate.entered(2).await;
    until("it is noted", async || tried() == BTreeMap::from([(1, 1), (2, 1)])).await;
    gate.open();
    until("all are done", async || table.due.lock().unwrap().is_empty()).await;
    assert_eq!(ran(&name), [1, 2]);
    celeriac.shutdown().await.unwrap();
}

/// What is enqueued for a queue that starts nothing: none, until it goes on. The tasks wait in the broker, not here.
#[tokio::test]
async fn nothing_is_asked_for_while_the_queue_is_too_old() {
    let (name, table) = table([]);
    let gate = Gate::new();
    let old = poller(&name, &table).max_age(Duration::from_millis(40)).queue("narrow");
    let builder = builder().queue(crate::kit::io_queue("narrow", 1).with_prefetch(1));
    let celeriac = builder.in_memory().poller(old).start().await.unwrap();
    let held = crate::kit::hold::s(gate.name.clone()).queue("narrow").send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    crate::kit::add::s(1, 1).queue("narrow").send(celeriac.client()).await.unwrap();
    until("it waits for the queue", async || status(&celeriac).await.waits == Some(Why::Age)).await;
    table.due.lock().unwrap().insert(5, "a".into());
    let asked = table.asked.lock().unwrap().len();
    celeriac.run_poller("rows").await.unwrap();
    assert_eq!(status(&celeriac).await.waits, Some(Why::Age));
    assert_eq!(table.asked.lock().unwrap().len(), asked, "the source was not asked");
    gate.open();
    until("it goes on", async || ran(&name) == [5]).await;
    drop(held);
    celeriac.shutdown().await.unwrap();
}

/// Writes a mail. Whoever asks for it, by a row or by a call, means the same mail to the same user.
#[task(queue = "io", ignore_result, unique_for = "1h", unique_key = "{gate}")]
async fn mail(gate: String, by: String) {
    note(&gate.as_str().into(), by);
    Gate::named(&gate).pass().await;
}

/// One row of mails to be sent, which stays due.
struct Mails(String);

#[async_trait]
impl Source for Mails {
    async fn due(&self, _: usize) -> Result<Vec<Due>, TaskError> {
        Ok(vec![Due::new("mail 1", mail::s(self.0.clone(), "the row".into()))])
    }
}

#[tokio::test]
async fn a_row_and_a_call_of_the_same_unique_key_are_one_task() {
    let gate = Gate::new();
    let hour = Duration::from_secs(3600);
    let mails = SourcePoller::new("rows", Mails(gate.name.clone())).interval(hour);
    let celeriac = builder().in_memory().poller(mails).start().await.unwrap();
    gate.entered(1).await;
    let call = mail::s(gate.name.clone(), "a call".into()).send(celeriac.client()).await.unwrap();
    assert!(call.receipt().joined, "{:?}", call.receipt());
    celeriac.run_poller("rows").await.unwrap();
    until("the row has joined its own task", async || status(&celeriac).await.joined == 1).await;
    assert_eq!(notes(&gate.name.as_str().into()), ["the row"]);
    gate.open();
    celeriac.shutdown().await.unwrap();
}

/// The same rows, of a source that can leave tenants out.
struct Fair(Rows);

#[async_trait]
impl Source for Fair {
    async fn due(&self, limit: usize) -> Result<Vec<Due>, TaskError> {
        self.0.due(limit).await
    }

    async fn due_of_others(&self, tenants: &[String], limit: usize) -> Result<Vec<Due>, TaskError> {
        let Rows(name, table) = &self.0;
        let due = table.due.lock().unwrap();
        let others = due.iter().filter(|(_, tenant)| !tenants.contains(tenant)).take(limit);
        let row = |(row, tenant): (&u64, &String)| {
            Due::new(format!("{name}-{row}"), process::s(name.clone(), *row)).tenant(tenant)
        };
        Ok(others.map(row).collect())
    }
}

/// Batch after batch would be the flood's: its rows are the first, and they are found until their tasks are over.
#[tokio::test]
async fn the_backlog_of_one_tenant_hides_no_other() {
    let gate = Gate::new();
    let rows = (0..50).map(|row| (row, "flood")).chain([(50, "quiet"), (51, "other")]);
    let (name, table) = table(rows);
    *table.gate.lock().unwrap() = gate.name.clone();
    let fair = SourcePoller::new("rows", Fair(Rows(name.clone(), Arc::clone(&table))));
    let fair = fair.interval(Duration::from_millis(5)).batch(5);
    let celeriac = builder().in_memory().poller(fair).start().await.unwrap();
    gate.entered(4).await;
    let mut first: Vec<u64> = ran(&name)[..4].to_vec();
    first.sort_unstable();
    assert_eq!(first, [0, 1, 50, 51], "each had its turn");
    gate.open();
    until("all are done", async || table.due.lock().unwrap().is_empty()).await;
    assert_eq!(ran(&name).len(), 52, "each once");
    celeriac.shutdown().await.unwrap();
}
