//! A queue with partitions: the flood of one tenant does not stand before others, and everybody sees one queue.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use celeriac::broker::amqp::{AmqpOptions, QueueSetup};
use celeriac::broker::conformance::sample;
use celeriac::broker::{AmqpBroker, Broker as _};
use celeriac::catalogue::QueueRow;
use celeriac::core::partition::{choices, name};
use celeriac::task::{Durability, TENANT, Task as _};
use celeriac::{Celeriac, Context, TaskError, TaskId, task};
use lapin::options::QueueDeleteOptions;

use crate::kit::{Gate, LONG, io_queue, until, until_status};
use crate::rabbit::{Peer, consumers, steady, task as python, vhost};

const PARTITIONS: u8 = 8;
const FLOOD: usize = 200;

/// Who started, in this order, by the names of gates.
static STARTS: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// Notes whose it is, and passes a gate.
#[task(name = "partitions.notes")]
async fn notes_its_start(gate: String, whose: String) -> u64 {
    STARTS.lock().unwrap().push((gate.clone(), whose));
    Gate::named(&gate).pass().await;
    7
}

/// Fails in its first attempt, behind a gate.
#[task(name = "partitions.fails", max_retries = 3)]
async fn fails_behind_the_gate(ctx: Context, gate: String) -> Result<u32, TaskError> {
    if ctx.attempt() == 1 {
        Gate::named(&gate).pass().await;
        return Err(TaskError::retry_in(Duration::from_millis(20), "not yet"));
    }
    Ok(ctx.attempt())
}

fn row(workers: usize) -> QueueRow {
    io_queue("spread", workers).with_partitions(PARTITIONS)
}

async fn program(url: &str, row: QueueRow) -> Celeriac {
    Celeriac::builder().amqp(steady(url)).queue(row).arbiters(1).start().await.unwrap()
}

/// A broker that knows of the partitions and has declared nothing.
async fn broker(url: &str) -> AmqpBroker {
    let setup = QueueSetup { partitions: Some(PARTITIONS), ..QueueSetup::default() };
    AmqpBroker::connect(&steady(url), AmqpOptions::default().queue("spread", setup)).await.unwrap()
}

/// A tenant that shares no partition with this one.
fn tenant_apart_from(tenant: &str) -> String {
    let taken = BTreeSet::from(choices(tenant, PARTITIONS));
    let mut tenants = (0..).map(|n| format!("tenant-{n}"));
    tenants.find(|other| taken.is_disjoint(&BTreeSet::from(choices(other, PARTITIONS)))).unwrap()
}

/// How many messages wait in each partition.
async fn lengths(peer: &Peer) -> Vec<usize> {
    let mut lengths = Vec::new();
    for index in 0..PARTITIONS {
        lengths.push(peer.ready(&name("spread", index)).await as usize);
    }
    lengths
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_has_its_turn_within_the_flood_of_another_one() {
    let url = vhost().await;
    let gate = Gate::new();
    let sender = program(&url, row(1).with_served(false)).await;
    let other = tenant_apart_from("flood");
    for (tenant, calls) in [("flood", FLOOD), (other.as_str(), 3)] {
        for _ in 0..calls {
            let call = notes_its_start::s(gate.name.clone(), tenant.to_owned()).tenant(tenant);
            call.queue("spread").send(sender.client()).await.unwrap();
        }
    }
    let peer = Peer::connect(&url).await;
    let lengths = lengths(&peer).await;
    let of = |tenant: &str| choices(tenant, PARTITIONS).map(|index| lengths[usize::from(index)]);
    assert_eq!(of("flood").iter().sum::<usize>(), FLOOD, "{lengths:?}");
    assert!(of("flood").iter().all(|length| *length > FLOOD / 4), "both are used: {lengths:?}");
    assert_eq!(of(&other).iter().sum::<usize>(), 3, "{lengths:?}");
    assert_eq!(peer.ready("spread").await, 0);
    sender.shutdown().await.unwrap();

    let celeriac = program(&url, row(1)).await;
    gate.entered(1).await;
    let all = FLOOD as u64 + 3;
    until_status(&celeriac, "spread", |queue| queue.running == 1 && queue.ready == all - 1).await;
    gate.open();
    until_status(&celeriac, "spread", |queue| queue.done == all && queue.ready == 0).await;
    let starts: Vec<String> = {
        let all = STARTS.lock().unwrap();
        all.iter().filter(|(of, _)| *of == gate.name).map(|(_, whose)| whose.clone()).collect()
    };
    assert_eq!(starts.len(), FLOOD + 3);
    let last = starts.iter().rposition(|whose| *whose == other);
    // In one queue they would be the last three.
    assert!(last.is_some_and(|last| last < FLOOD / 2), "{last:?} of {starts:?}");
    celeriac.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_python_sends_to_the_queue_of_the_plain_name_is_consumed() {
    let url = vhost().await;
    let celeriac = program(&url, row(2)).await;
    let gate = Gate::new();
    gate.open();
    let peer = Peer::connect(&url).await;
    let body = format!(r#"[["{}", "python"], {{}}, {{}}]"#, gate.name);
    peer.send("spread", python(notes_its_start::Task::NAME, "sent-by-python"), body.as_bytes()).await;
    let id = TaskId::from("sent-by-python");
    let record = tokio::time::timeout(LONG, celeriac.client().wait(&id)).await.unwrap().unwrap();
    assert_eq!((record.result.as_deref(), record.queue.as_str()), (Some("7"), "spread"));
    celeriac.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_delayed_comes_to_a_partition_and_runs() {
    let url = vhost().await;
    let celeriac = program(&url, row(2)).await;
    let gate = Gate::new();
    gate.open();
    let call = notes_its_start::s(gate.name.clone(), "late".to_owned()).tenant("late");
    let sent = call.queue("spread").countdown(Duration::from_secs(2)).send(celeriac.client()).await.unwrap();
    assert_eq!(sent.receipt().queue, "spread");
    assert_eq!(sent.get(LONG).await, Ok(7));
    celeriac.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_counts_of_a_queue_are_those_of_all_its_partitions() {
    let url = vhost().await;
    let sender = program(&url, row(1).with_served(false)).await;
    let gate = Gate::new();
    for n in 0..20 {
        let call = notes_its_start::s(gate.name.clone(), String::new()).tenant(format!("tenant-{n}"));
        call.queue("spread").send(sender.client()).await.unwrap();
    }
    let without = notes_its_start::s(gate.name.clone(), String::new()).queue("spread");
    without.send(sender.client()).await.unwrap();
    let peer = Peer::connect(&url).await;
    assert_eq!(peer.ready("spread").await, 1, "the one without a tenant");
    let broker = broker(&url).await;
    assert_eq!(broker.counts("spread").await.unwrap().ready, 21);
    assert_eq!(broker.waiting("spread").await, Ok(Some(21)));
    assert_eq!(broker.purge("spread").await, Ok(Some(21)));
    assert_eq!(broker.waiting("spread").await, Ok(Some(0)));
    broker.declare("spread").await.unwrap();
    assert_eq!(broker.queues().await.unwrap(), ["spread"]);
    broker.close().await.unwrap();
    sender.shutdown().await.unwrap();
}

/// The tasks of the partition that is deleted go on, and so do those of the others, of which RabbitMQ keeps the messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_deleted_is_made_again_and_its_task_goes_on() {
    let url = vhost().await;
    let celeriac = program(&url, row(4)).await;
    let (gate, elsewhere) = (Gate::new(), Gate::new());
    let other = tenant_apart_from("acme");
    let call = fails_behind_the_gate::s(gate.name.clone()).tenant("acme").queue("spread");
    let runs = call.send(celeriac.client()).await.unwrap();
    let call = notes_its_start::s(elsewhere.name.clone(), other.clone()).tenant(&other).queue("spread");
    let goes_on = call.send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    elsewhere.entered(1).await;
    // A sender that knows of no lengths begins with the first one.
    let partition = name("spread", choices("acme", PARTITIONS)[0]);
    let peer = Peer::connect(&url).await;
    peer.channel.queue_delete(partition.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    until("the worker has a queue again", async || consumers(&url, &partition).await == Some(1)).await;
    gate.open();
    elsewhere.open();
    assert_eq!(runs.get(LONG).await, Ok(2));
    assert_eq!(goes_on.get(LONG).await, Ok(7));
    assert_eq!((gate.gauge.all(), elsewhere.gauge.all()), (1, 1), "no attempt has run twice");
    celeriac.shutdown().await.unwrap();
}

/// The worker gives up its channel when it hears of the first one, and RabbitMQ does not tell it of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_are_deleted_together_are_made_again_and_their_tasks_go_on() {
    let url = vhost().await;
    let celeriac = program(&url, row(4)).await;
    let gate = Gate::new();
    let other = tenant_apart_from("acme");
    let mut runs = Vec::new();
    for tenant in ["acme", other.as_str()] {
        let call = fails_behind_the_gate::s(gate.name.clone()).tenant(tenant).queue("spread");
        runs.push(call.send(celeriac.client()).await.unwrap());
    }
    gate.entered(2).await;
    let peer = Peer::connect(&url).await;
    let mut partitions: Vec<String> =
        ["acme", other.as_str()].map(|tenant| name("spread", choices(tenant, PARTITIONS)[0])).into();
    // It looks for the lower one first.
    partitions.sort();
    let delete = |partition: &str| peer.channel.queue_delete(partition.into(), QueueDeleteOptions::default());
    let (higher, lower) = tokio::join!(delete(&partitions[1]), delete(&partitions[0]));
    assert!(higher.is_ok() && lower.is_ok());
    for partition in &partitions {
        until("the worker has a queue again", async || consumers(&url, partition).await == Some(1)).await;
    }
    gate.open();
    for run in &runs {
        assert_eq!(run.get(LONG).await, Ok(2));
    }
    assert_eq!(gate.gauge.all(), 2, "no attempt has run twice");
    celeriac.shutdown().await.unwrap();
}

/// It declares the partitions to which it sends, and asks for the lengths all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_has_declared_nothing_sends_to_the_shorter_partition() {
    const FIRST: u32 = 100;
    let url = vhost().await;
    let other = broker(&url).await;
    other.declare("spread").await.unwrap();
    let peer = Peer::connect(&url).await;
    let [first, second] = choices("acme", PARTITIONS).map(|index| name("spread", index));
    peer.send_many(&first, FIRST as usize, |n| python("any", &n.to_string()), b"[[], {}, {}]").await;
    let sender = broker(&url).await;
    let shorter = async {
        // By what it has sent itself it would send to both in turn.
        for n in 0.. {
            let mut message = sample("spread", n, Durability::Disk);
            message.headers.0.insert(TENANT.to_owned(), "acme".into());
            sender.publish(message, false).await.unwrap();
            if peer.ready(&second).await > peer.ready(&first).await - FIRST + 20 {
                return;
            }
        }
    };
    tokio::time::timeout(LONG, shorter).await.expect("it knows which one is shorter");
    sender.close().await.unwrap();
    other.close().await.unwrap();
}

/// Each partition has half of the prefetch, which the row gives no more than the workers need.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_workers_have_something_to_do_when_all_waits_in_one_partition() {
    let url = vhost().await;
    let celeriac = program(&url, row(2).with_prefetch(2)).await;
    let gate = Gate::new();
    let peer = Peer::connect(&url).await;
    let body = format!(r#"[["{}", "acme"], {{}}, {{}}]"#, gate.name);
    for id in ["one", "two"] {
        peer.send(&name("spread", 3), python(notes_its_start::Task::NAME, id), body.as_bytes()).await;
    }
    gate.entered(2).await;
    gate.open();
    until_status(&celeriac, "spread", |queue| queue.done == 2).await;
    celeriac.shutdown().await.unwrap();
}
