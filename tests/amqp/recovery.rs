//! What RabbitMQ, its operators and the network do to a broker, and how it goes on.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use celeriac::{Celeriac, Context, EnqueueError, State, task};

use crate::kit::{self, Gate, Gauge, LONG, add, hold, until, until_state};
use crate::rabbit::{builder, impatient, runtime, vhost};
use crate::services::{Proxy, RabbitMq, blocking};

static STARTS: Mutex<Option<HashMap<u32, u32>>> = Mutex::new(None);
static GAUGE: std::sync::LazyLock<Gauge> = std::sync::LazyLock::new(Gauge::default);

#[task(queue = "io")]
async fn count_starts(n: u32) -> u32 {
    let _inside = GAUGE.enter();
    *STARTS.lock().unwrap().get_or_insert_default().entry(n).or_default() += 1;
    tokio::time::sleep(Duration::from_millis(10)).await;
    n
}

/// Connections killed again and again with tasks running and others being sent: each is run, no more at a time than there
/// are workers, and what this process runs when a connection goes is recognised instead of run again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_connections_lose_nothing_and_the_prefetch_stays() {
    const TASKS: u32 = 1000;
    let url = vhost().await;
    let proxy = blocking(|| Proxy::start(RabbitMq::shared().address())).await;
    let celeriac = runtime(&proxy.url(&url)).await;
    let client = celeriac.client();
    let sending = tokio::spawn(async move {
        let mut sent = Vec::new();
        for n in 0..TASKS {
            sent.push(count_starts::s(n).send(client.clone()).await.unwrap());
        }
        sent
    });
    for cut in 1..=5 {
        until("another tenth is done", async || GAUGE.all() >= cut * 100).await;
        proxy.cut();
    }
    for (n, task) in sending.await.unwrap().into_iter().enumerate() {
        assert_eq!(task.get(LONG).await.unwrap() as usize, n);
    }
    assert!(GAUGE.most() <= 4, "{} at once", GAUGE.most());
    let starts = STARTS.lock().unwrap().clone().unwrap();
    assert_eq!(starts.len(), TASKS as usize);
    let again: u32 = starts.values().map(|n| n - 1).sum();
    // A publish whose confirmation was cut off is sent again; at most what was on its way at each cut, either way.
    assert!(again <= 5 * (8 + 1), "{again} ran again");
    celeriac.shutdown().await.unwrap();
}

/// RabbitMQ finds out within a lease that a machine is gone, unless the address says otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_heartbeat_is_short() {
    for (query, seconds) in [("", "3"), ("?heartbeat=20", "20")] {
        let url = vhost().await;
        let name = url.rsplit_once('/').unwrap().1.to_owned();
        let celeriac = kit::builder().amqp(format!("{url}{query}")).start().await.unwrap();
        let rows = blocking(move || {
            RabbitMq::shared().ctl(&["list_connections", "vhost", "timeout", "--no-table-headers"])
        });
        let rows = rows.await;
        let its: Vec<&str> =
            rows.lines().filter_map(|row| row.strip_prefix(&format!("{name}\t"))).map(str::trim).collect();
        assert_eq!(its, [seconds; 2], "of one to consume and one to publish");
        celeriac.shutdown().await.unwrap();
    }
}

/// Messages are published by another address than they are consumed by: a load balancer, another node, another user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_may_go_by_an_address_of_its_own() {
    let (url, elsewhere) = (vhost().await, vhost().await);
    let proxy = blocking(|| Proxy::start(RabbitMq::shared().address())).await;
    let options = impatient().with_write_url(proxy.url(&url));
    let celeriac = builder(&url).amqp_options(options).start().await.unwrap();
    assert_eq!(add::s(1, 1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2));
    until("only what is published comes by here", async || proxy.connections() == 1).await;
    // What runs while nothing can be published is acknowledged all the same, and the way out is found again.
    let gate = Gate::new();
    let held = hold::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    proxy.cut();
    gate.open();
    assert_eq!(held.get(LONG).await, Ok(1));
    assert_eq!(add::s(2, 2).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(4));
    celeriac.shutdown().await.unwrap();
    let apart = impatient().with_write_url(elsewhere);
    let error = builder(&url).amqp_options(apart).start().await.err().expect("two virtual hosts").to_string();
    assert!(error.contains("virtual hosts") && !error.contains("guest:"), "{error}");
}

/// Processor time of the broker's threads, in seconds.
fn cpu_of_broker() -> f64 {
    let ticks = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let (head, rest) = stat.rsplit_once(')')?;
        let fields: Vec<u64> =
            rest.split_whitespace().skip(11).take(2).filter_map(|f| f.parse().ok()).collect();
        head.contains("celeriac-amqp").then(|| fields.iter().sum::<u64>())
    };
    let all = std::fs::read_dir("/proc/self/task").unwrap().flatten().filter_map(ticks).sum::<u64>();
    all as f64 / 100.0
}

#[test]
fn a_deleted_queue_is_there_again() {
    kit::alone("recovery::a_queue_that_is_deleted_in_a_process_of_its_own");
}

/// A queue that is deleted under its consumer is declared again, and consumed on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures the process; run by `a_deleted_queue_is_there_again`"]
async fn a_queue_that_is_deleted_in_a_process_of_its_own() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let client = || celeriac.client();
    assert_eq!(add::s(1, 1).send(client()).await.unwrap().get(LONG).await, Ok(2));
    let vhost = url.rsplit_once('/').unwrap().1.to_owned();
    for round in 0..3 {
        let gate = Gate::new();
        let held = hold::s(gate.name.clone()).send(client()).await.unwrap();
        gate.entered(1).await;
        let (vhost, before) = (vhost.clone(), cpu_of_broker());
        blocking(move || RabbitMq::shared().ctl(&["delete_queue", "io", "-p", &vhost])).await;
        // What ran when its queue went ends well, and a new task is not lost: the queue is made for it.
        gate.open();
        assert_eq!(held.get(LONG).await, Ok(1));
        assert_eq!(add::s(round, 1).send(client()).await.unwrap().get(LONG).await, Ok(round + 1));
        let spent = cpu_of_broker() - before;
        assert!(spent < 1.0, "{spent} s of processor time in a quiet moment");
    }
    celeriac.shutdown().await.unwrap();
}

#[test]
fn a_node_may_stop_and_start() {
    kit::alone("recovery::a_node_that_stops_and_starts_in_a_process_of_its_own");
}

/// A node that stops and starts: enqueues say that it is away, what waited is there again, and consumption goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures the process; run by `a_node_may_stop_and_start`"]
async fn a_node_that_stops_and_starts_in_a_process_of_its_own() {
    let node = blocking(RabbitMq::start).await;
    let url = node.url();
    let celeriac = builder(&url).amqp_options(impatient()).start().await.unwrap();
    let client = || celeriac.client();
    let gate = Gate::new();
    let held = hold::s(gate.name.clone()).queue("one").send(client()).await.unwrap();
    gate.entered(1).await;
    let mut waiting = Vec::new();
    for n in 0..20 {
        waiting.push(add::s(n, n).queue("one").send(client()).await.unwrap());
    }
    let stopped = node.clone();
    blocking(move || stopped.stop()).await;
    let error = add::s(1, 1).send(client()).await.unwrap_err();
    assert!(error.to_string().contains("is not to be reached"), "{error}");
    gate.open(); // it ends while there is no broker to tell
    until_state(held.id(), &celeriac, State::Success).await;
    let before = cpu_of_broker();
    let started = node.clone();
    blocking(move || started.start_again()).await;
    assert!(cpu_of_broker() - before < 1.0, "it waits without working");
    for (n, task) in waiting.into_iter().enumerate() {
        assert_eq!(task.get(LONG).await, Ok(2 * n as i64));
    }
    until("it takes tasks again", async || match add::s(1, 1).send(client()).await {
        Ok(sum) => sum.get(LONG).await == Ok(2),
        Err(_) => false,
    })
    .await;
    assert_eq!(gate.gauge.all(), 1, "what ended meanwhile did not run again");
    celeriac.shutdown().await.unwrap();
}

/// While RabbitMQ is short of memory nothing is taken, and that is said; what was delivered ends, and all goes on after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_blocks_publishers_and_nobody_else() {
    let node = blocking(RabbitMq::start).await;
    let celeriac = builder(&node.url()).amqp_options(impatient()).start().await.unwrap();
    let client = || celeriac.client();
    let gates = [Gate::new(), Gate::new()];
    let mut held = Vec::new();
    for gate in &gates {
        held.push(hold::s(gate.name.clone()).queue("one").send(client()).await.unwrap());
    }
    gates[0].entered(1).await;
    let alarmed = node.clone();
    blocking(move || alarmed.raise_alarm()).await;
    // The first one finds out; it was sent, so nobody can say what becomes of it.
    let first = add::s(1, 1).send(client()).await.unwrap_err();
    assert!(first.to_string().contains("has blocked publishers"), "{first}");
    let error = add::s(1, 1).send(client()).await.unwrap_err();
    assert!(matches!(&error, EnqueueError::StorageFull { reason } if reason.contains("memory")), "{error}");
    gates[0].open();
    gates[1].entered(1).await; // the first one was acknowledged, or this would not have come
    gates[1].open();
    for held in held {
        assert_eq!(held.get(LONG).await, Ok(1));
    }
    let cleared = node.clone();
    blocking(move || cleared.clear_alarm()).await;
    let sum = loop {
        match add::s(2, 2).send(client()).await {
            Ok(sum) => break sum,
            Err(error) => assert!(error.to_string().contains("blocked"), "{error}"),
        }
    };
    assert_eq!(sum.get(LONG).await, Ok(4));
    celeriac.shutdown().await.unwrap();
}

/// The start says what is wrong.
#[tokio::test]
async fn a_start_without_rabbitmq_says_so() {
    kit::quiet();
    let error = Celeriac::builder().amqp("amqp://guest:secret@127.0.0.1:1//").start().await.err().unwrap();
    let error = error.to_string();
    assert!(error.contains("RabbitMQ at 127.0.0.1:1 is not to be reached"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[task(queue = "io")]
async fn context_is_fine(ctx: Context) -> u32 {
    ctx.attempt()
}

/// A half-open connection, over which nothing comes any more, is given up by its heartbeats.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_has_died_in_silence_is_replaced() {
    let url = vhost().await;
    let proxy = blocking(|| Proxy::start(RabbitMq::shared().address())).await;
    let celeriac = runtime(&format!("{}?heartbeat=2", proxy.url(&url))).await;
    let before = proxy.accepted();
    proxy.swallow();
    until("both connections were given up", async || proxy.accepted() >= before + 2).await;
    proxy.resume();
    assert_eq!(context_is_fine::s().send(celeriac.client()).await.unwrap().get(LONG).await, Ok(1));
    celeriac.shutdown().await.unwrap();
}
