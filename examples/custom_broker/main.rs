//! A broker of one's own, for a database that one has anyway: here messages wait in a table of SQLite.
//! `cargo run --example custom_broker` takes a second or two.
//!
//! - `main.rs`, this file, uses the broker, and tests it: `cargo test --all-features --example custom_broker` runs
//!   Celeriac's own conformance suite, one test a promise.
//! - `broker.rs` implements the traits: what Celeriac asks of a broker, and which of the abilities this one has.
//! - `table.rs` has the schema, and the thread that owns the database: it commits steps, and hands messages over.
//! - `steps.rs` has the SQL of the steps.

mod broker;
mod steps;
mod table;

use std::sync::Arc;
use std::time::{Duration, Instant};

use celeriac::store::MemoryStore;
use celeriac::{Celeriac, Context, TaskError, task};

use broker::SqliteBroker;

const PATIENCE: Duration = Duration::from_secs(60);

/// Fails at the first attempt, and runs again half a second later.
#[task]
async fn charge(ctx: &Context, customer: u32) -> Result<String, TaskError> {
    match ctx.attempt() {
        1 => Err(TaskError::retry_in(Duration::from_millis(500), "the bank does not answer")),
        attempt => Ok(format!("customer {customer} is charged, at attempt {attempt}")),
    }
}

#[task]
async fn remind(customer: u32) -> String {
    format!("customer {customer} is reminded")
}

#[task]
async fn thank(charged: String) -> String {
    format!("{charged}, and thanked")
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).unwrap_or_else(|| "data/custom_broker.sqlite".to_owned());
    let broker = SqliteBroker::open(&file)?;
    // Records end with this process, although messages do not. A program that reads results after a restart gives a
    // store that outlives it: a `RedisStore`, or a `Store` of its own.
    let store = Arc::new(MemoryStore::default());
    let celeriac = Celeriac::builder().broker(Arc::new(broker), store).start().await?;

    let start = Instant::now();
    let tell = |what: &str| println!("{:>5.1} s  {what}", start.elapsed().as_secs_f64());
    let charged = charge::delay(1).await?;
    let reminded = remind::s(2).countdown(Duration::from_secs(1)).delay().await?;
    let thanked = charge::s(3).then(thank::p()).delay().await?; // sent in the transaction that ends its `charge`
    tell("three tasks are in the table");
    tell(&charged.get(PATIENCE).await?);
    tell(&thanked.get(PATIENCE).await?);
    tell(&reminded.get(PATIENCE).await?);
    celeriac.shutdown().await?;
    tell("the table is closed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use celeriac::async_trait;
    use celeriac::broker::conformance::{BrokerUnderTest, Inbox, sample};
    use celeriac::broker::{Broker, BrokerError, Settle, SplitBroker};
    use celeriac::store::Store;
    use celeriac::task::{Durability, Message, TaskId};
    use tempfile::TempDir;

    use super::*;

    /// A table in a folder of its own, alone or, if `SPLIT`, with a store beside it as the builder does it.
    struct InSqlite<const SPLIT: bool> {
        broker: Arc<dyn Broker>,
        store: Arc<dyn Store>,
        folder: TempDir,
    }

    impl<const SPLIT: bool> InSqlite<SPLIT> {
        fn open_in(folder: TempDir, store: Arc<dyn Store>) -> Self {
            let mut broker: Arc<dyn Broker> =
                Arc::new(SqliteBroker::open(folder.path().join("broker.sqlite")).expect("a table"));
            if SPLIT {
                broker = Arc::new(SplitBroker::open(broker, Arc::clone(&store)).expect("a thread"));
            }
            Self { broker, store, folder }
        }
    }

    #[async_trait]
    impl<const SPLIT: bool> BrokerUnderTest for InSqlite<SPLIT> {
        const DURABILITY: Durability = Durability::Disk;
        const DELIVERY_LIMIT: u32 = table::DELIVERY_LIMIT;

        async fn open() -> Self {
            Self::open_in(tempfile::tempdir().expect("a folder"), Arc::new(MemoryStore::default()))
        }

        fn broker(&self) -> Arc<dyn Broker> {
            Arc::clone(&self.broker)
        }

        fn store(&self) -> Arc<dyn Store> {
            Arc::clone(&self.store)
        }

        async fn reopen(self) -> Option<Self> {
            self.broker.close().await.expect("a close");
            Some(Self::open_in(self.folder, self.store))
        }

        /// Copies the files as they are, which is what `kill -9` leaves.
        async fn crash(self) -> Option<Self> {
            let after = tempfile::tempdir().expect("a folder");
            for file in std::fs::read_dir(self.folder.path()).expect("a folder") {
                let file = file.expect("a file");
                std::fs::copy(file.path(), after.path().join(file.file_name())).expect("a copy");
            }
            Some(Self::open_in(after, self.store))
        }
    }

    celeriac::broker_conformance!(InSqlite<false>, durable);

    mod with_a_store {
        use super::*;

        // `what_was_sent_before_is_left_out` is not among them: the suite sends there what a run is to have left before
        // it died. No run can leave that here, because an end and what follows from it are one transaction.
        celeriac::broker_conformance! { @tests InSqlite<true>:
            ack_leaves_the_result what_follows_is_written_along a_task_is_replaced a_chord_sends_its_body_once
            a_chord_follows_from_an_end a_chord_gets_one_more_member a_group_is_taken_as_a_whole parts_survive
            remove_takes_out_what_waits
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_task_that_is_given_up_leaves_its_record() {
        let subject = InSqlite::<false>::open().await;
        let crashes = table::DELIVERY_LIMIT;
        let message = Message { crashes, ..sample("q", 0, Durability::Disk) };
        let (broker, store, id) = (subject.broker(), subject.store(), message.id.clone());
        broker.publish(message, true).await.expect("a publish");
        let celeriac = Celeriac::builder().broker(Arc::clone(&broker), Arc::clone(&store)).start().await;
        let celeriac = celeriac.expect("a start");
        let record =
            tokio::time::timeout(PATIENCE, store.wait(&id)).await.expect("in time").expect("a record");
        assert_eq!(record.error_type.as_deref(), Some("WorkerLost"));
        while broker.counts("q").await.expect("counts").dead == 0 {
            tokio::task::yield_now().await; // it follows the record
        }
        celeriac.shutdown().await.expect("a shutdown");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_position_counts_what_runs_before() {
        let broker = InSqlite::<false>::open().await.broker();
        for (n, priority) in [0, 0, 9, 0].into_iter().enumerate() {
            let message = Message { priority, ..sample("q", n, Durability::Disk) };
            broker.publish(message, true).await.expect("a publish");
        }
        let position = async |n: usize, limit| {
            let inspect = broker.inspect().expect("it can be asked");
            inspect.position(&TaskId::from(format!("q-{n}")), limit).await.expect("an answer")
        };
        assert_eq!(
            (position(2, 9).await, position(0, 9).await, position(3, 9).await),
            (Some(0), Some(1), Some(3))
        );
        assert_eq!((position(3, 2).await, position(7, 9).await), (Some(2), None));
        let mut inbox = Inbox::open(&broker, "q", 1);
        let _urgent = inbox.next().await;
        assert_eq!((position(2, 9).await, position(3, 9).await), (None, Some(3)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_end_that_cannot_be_written_ends_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let sqlite = Arc::new(SqliteBroker::open(folder.path().join("broker.sqlite")).expect("a table"));
        let broker: Arc<dyn Broker> = sqlite.clone();
        let message = sample("q", 0, Durability::Disk);
        broker.publish(message.clone(), true).await.expect("a publish");
        let mut inbox = Inbox::open(&broker, "q", 1);
        let mut delivery = inbox.next().await;
        delivery.started();
        // No page more than there are, as on a full disk.
        let fill = |table: &mut table::Table| table.db.execute_batch("PRAGMA max_page_count = 1").map(Ok);
        sqlite.ask(fill).await.expect("a limit");
        let next = Message { last_errors: vec!["x".repeat(1 << 20)], ..message.clone() };
        let requeue = Settle::Requeue { message: Box::new(next.clone()), due: None };
        let failed = delivery.settle_and_wait(requeue).await;
        assert!(
            matches!(&failed, Err(BrokerError::Io(error)) if error.to_string().contains("full")),
            "{failed:?}"
        );
        let again = inbox.next().await;
        assert_eq!(**again.message(), message, "it is as it was, and runs again");
        let refused = broker.publish(Message { id: TaskId::new(), ..next }, true).await;
        assert!(matches!(refused, Err(BrokerError::Io(_))), "{refused:?}");
        let acknowledged = again.settle_and_wait(Settle::Ack { result: None, follow_ups: None }).await;
        assert_eq!(acknowledged, Ok(()), "what needs no room is done");
    }

    /// The arguments of tasks are in it.
    #[cfg(unix)]
    #[tokio::test(flavor = "multi_thread")]
    async fn a_table_is_its_owners_to_read() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let (made, below) = (folder.path().join("made"), folder.path().join("made/below"));
        let broker = SqliteBroker::open(below.join("broker.sqlite")).expect("a table");
        broker.publish(sample("q", 0, Durability::Disk), true).await.expect("a publish");
        let mode = |path: &std::path::Path| path.metadata().expect("a mode").permissions().mode() & 0o777;
        assert_eq!((mode(&made), mode(&below)), (0o700, 0o700));
        let files = std::fs::read_dir(&below).expect("a folder").map(|file| file.expect("a file").path());
        let files: Vec<_> = files.collect();
        assert!(files.iter().any(|file| file.ends_with("broker.sqlite")), "{files:?}");
        for file in files {
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_has_one_process() {
        let subject = InSqlite::<false>::open().await;
        let file = subject.folder.path().join("broker.sqlite");
        let second = tokio::task::spawn_blocking(|| SqliteBroker::open(file)).await.expect("no panic");
        assert!(matches!(second, Err(BrokerError::Io(error)) if error.to_string().contains("locked")));
    }
}
