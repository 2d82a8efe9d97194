//! What is asked by remote control, over the wire, and answered as Celery answers it.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::pin::pin;
use std::time::Instant;

use celeriac::catalogue::{Pool, QueueRow};
use celeriac::task;
use celeriac::task::Task;
use futures_util::FutureExt;
use lapin::options::QueuePurgeOptions;
use serde_json::{Value, json};

use crate::control::Caller;
use crate::kit::{Gate, LONG, add, add_cpu, hold, hold_cpu, until};
use crate::rabbit::{builder, runtime, task as properties, text, vhost, with};

/// Blocks the event loop that its queue lives on.
#[task(queue = "io")]
async fn block_loop(gate: String) {
    Gate::named(&gate).pass_blocking();
}

/// Waits at one gate, and then computes until the other one is open.
#[task(queue = "cpu")]
fn compute(begin: String, end: String) -> u64 {
    Gate::named(&begin).pass_blocking();
    let end = Gate::named(&end);
    let (mut passing, mut sum) = (pin!(end.pass()), 0_u64);
    while passing.as_mut().now_or_never().is_none() {
        for n in 0..1_000_000 {
            sum = sum.rotate_left(5) ^ black_box(n);
        }
    }
    sum
}

/// All questions of Celery's, and one of our own.
const QUESTIONS: [&str; 16] = [
    "ping",
    "active",
    "reserved",
    "scheduled",
    "revoked",
    "registered",
    "active_queues",
    "stats",
    "conf",
    "report",
    "query_task",
    "hello",
    "memsample",
    "memdump",
    "clock",
    "queues",
];

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap_or_else(|| panic!("an object: {value}")).keys().map(String::as_str).collect()
}

const INFO: [&str; 10] = [
    "acknowledged",
    "args",
    "delivery_info",
    "hostname",
    "id",
    "kwargs",
    "name",
    "time_start",
    "type",
    "worker_pid",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_are_shown_where_they_are() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let mut caller = Caller::new(&url).await;
    for list in ["active", "reserved", "scheduled", "revoked"] {
        assert_eq!(caller.told(list, json!({})).await, json!([]), "{list}");
    }
    let gate = Gate::new();
    let call = || hold::s(gate.name.clone()).queue("one").priority(3).send(celeriac.client());
    let running = call().await.unwrap();
    gate.entered(1).await;
    let waiting = call().await.unwrap();
    // As a Python program sends one for later.
    let eta = "2099-11-22T09:28:58.743795+00:00";
    let later = with(&[("task", text(hold::Task::NAME)), ("id", text("later")), ("eta", text(eta))]);
    let body = json!([[gate.name], {}, {}]).to_string();
    caller.peer.send("io", later.with_priority(0), body.as_bytes()).await;

    let active = caller.list_of(1, "active", json!({})).await;
    let own = &active[0];
    assert_eq!(keys(own), BTreeSet::from(INFO));
    assert_eq!(
        (&own["id"], &own["args"], &own["kwargs"]),
        (&json!(running.id()), &json!([gate.name]), &json!({}))
    );
    let info = json!({"exchange": "", "routing_key": "one", "priority": 3, "redelivered": false});
    assert_eq!((&own["delivery_info"], &own["acknowledged"]), (&info, &json!(false)));
    assert_eq!((&own["worker_pid"], own["time_start"].is_f64()), (&json!(std::process::id()), true));
    let safe = caller.list_of(1, "dump_active", json!({"safe": true})).await;
    assert_eq!((&safe[0]["args"], &safe[0]["kwargs"]), (&json!(format!("('{}',)", gate.name)), &json!("{}")));

    caller.list_of(1, "reserved", json!({})).await;
    let reserved = caller.list_of(1, "dump_reserved", json!({})).await;
    assert_eq!((&reserved[0]["id"], &reserved[0]["time_start"]), (&json!(waiting.id()), &Value::Null));
    assert_eq!(reserved[0]["worker_pid"], Value::Null);

    caller.list_of(1, "scheduled", json!({})).await;
    let scheduled = caller.list_of(1, "dump_schedule", json!({})).await;
    assert_eq!(keys(&scheduled[0]), BTreeSet::from(["eta", "priority", "request"]));
    assert_eq!((&scheduled[0]["eta"], &scheduled[0]["priority"]), (&json!(eta), &json!(6)));
    let request = &scheduled[0]["request"];
    assert_eq!((&request["id"], &request["acknowledged"]), (&json!("later"), &json!(false)));

    let ids = json!([running.id(), waiting.id(), "later", "nobody's"]);
    let all_three = |told: &Value| told.as_object().is_some_and(|found| found.len() == 3);
    let found = caller.until_told("query_task", json!({ "ids": ids }), all_three).await;
    for (id, state) in
        [(running.id().as_str(), "active"), (waiting.id().as_str(), "reserved"), ("later", "scheduled")]
    {
        assert_eq!((&found[id][0], &found[id][1]["id"]), (&json!(state), &json!(id)));
    }
    assert_eq!(caller.told("query_task", json!({"ids": "nobody's"})).await, json!({}));
    gate.open();
    assert_eq!(running.get(LONG).await, Ok(1));
    celeriac.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_tells_of_itself() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let mut caller = Caller::new(&url).await;
    assert_eq!(add::s(1, 1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2));

    let stats = caller.told("stats", json!({})).await;
    let all = ["broker", "clock", "pid", "pool", "prefetch_count", "queues", "rusage", "total", "uptime"];
    assert_eq!(keys(&stats), BTreeSet::from(all));
    assert_eq!(stats["total"], json!({ (add::Task::NAME): 1 }));
    assert_eq!(stats["pid"], std::process::id());
    assert!(stats["clock"].is_string() && stats["uptime"].is_u64(), "{stats}");
    let workers = stats["pool"]["max-concurrency"].as_u64().unwrap();
    assert_eq!(stats["pool"]["processes"].as_array().unwrap().len() as u64, workers);
    assert_eq!(stats["broker"]["userid"], "guest");
    assert!(!stats.to_string().contains("password"), "{stats}");

    let queues = caller.told("active_queues", json!({})).await;
    let names: BTreeSet<&str> =
        queues.as_array().unwrap().iter().map(|q| q["name"].as_str().unwrap()).collect();
    assert!(names.is_superset(&BTreeSet::from(["io", "cpu", "one", "threads"])), "{names:?}");
    assert_eq!(keys(&queues[0]).len(), 18);

    let registered = caller.told("registered", json!({})).await;
    assert!(registered.as_array().unwrap().contains(&json!(add::Task::NAME)), "{registered}");
    let told = caller.told("dump_tasks", json!({"taskinfoitems": ["name", "__class__", "nosuch"]})).await;
    let own = format!("{0} [name={0}]", add::Task::NAME);
    assert!(told.as_array().unwrap().contains(&json!(own)), "{told}");

    let conf = caller.told("conf", json!({})).await;
    assert!(conf["broker_url"].as_str().unwrap().starts_with("amqp://guest:********@"), "{conf}");
    let more = caller.told("dump_conf", json!({"with_defaults": true})).await;
    assert_eq!((&more["timezone"], &conf["timezone"]), (&json!("UTC"), &Value::Null));
    let report = caller.told("report", json!({})).await;
    assert!(report["ok"].as_str().unwrap().starts_with("\nsoftware -> celery:5.7"), "{report}");
    assert!(caller.told("clock", json!({})).await["clock"].is_u64());
    let sample = caller.told("memsample", json!({})).await;
    assert!(sample.is_null() || sample.is_string());
    assert!(caller.told("memdump", json!({"samples": 3})).await.as_str().unwrap().contains("- rss"));
    let error = json!({"error": "ImportError('Requires the objgraph library')"});
    assert_eq!(caller.told("objgraph", json!({})).await, error);
    assert_eq!(caller.told("election", json!({"id": "e", "topic": "task"})).await, Value::Null);
    celeriac.shutdown().await.unwrap();
}

/// Celery's mingle: what one worker knows to be revoked, the other one knows from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_tell_each_other_what_is_revoked() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let mut caller = Caller::new(&url).await;
    caller.told("revoke", json!({"task_id": ["b", "a"]})).await;
    let said = caller.told("hello", json!({"from_node": "w1@elsewhere", "revoked": ["c", 5, null]})).await;
    assert_eq!((&said["revoked"], said["clock"].is_u64()), (&json!(["b", "a", "c"]), true));
    // As workers before 5.7 send it.
    let said = caller.told("hello", json!({"from_node": "w1@elsewhere", "revoked": {"d": [1.5, "d"]}})).await;
    assert_eq!(said["revoked"], json!(["b", "a", "c", "d"]));
    assert_eq!(caller.told("dump_revoked", json!({})).await, json!(["b", "a", "c", "d"]));
    let own = celeriac.fleet().ping().await.unwrap().into_keys().next().unwrap();
    assert_eq!(caller.told("hello", json!({"from_node": own})).await, Value::Null);
    celeriac.shutdown().await.unwrap();
}

/// Every slot is taken, and the event loop is blocked: whoever asks is answered all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_come_although_everything_is_busy() {
    let url = vhost().await;
    let celeriac = builder(&url).arbiters(1).start().await.unwrap();
    let mut caller = Caller::new(&url).await;
    let (threads, loops) = (Gate::new(), Gate::new());
    for queue in ["cpu", "threads"] {
        for _ in 0..2 {
            hold_cpu::s(threads.name.clone()).queue(queue).send(celeriac.client()).await.unwrap();
        }
    }
    threads.entered(4).await;
    caller.list_of(4, "active", json!({})).await;
    block_loop::s(loops.name.clone()).send(celeriac.client()).await.unwrap();
    loops.entered(1).await;
    for method in QUESTIONS {
        caller.told(method, json!({})).await;
    }
    assert!(!loops.is_open() && caller.told("stats", json!({})).await["pool"].is_object());
    let said = caller.told("revoke", json!({"task_id": "nobody"})).await;
    assert_eq!(said, json!({"ok": "tasks {'nobody'} flagged as revoked"}));
    loops.open();
    threads.open();
    until("they are over", async || celeriac.running().await.unwrap().is_empty()).await;
    celeriac.shutdown().await.unwrap();
}

/// Every slot computes, and very many tasks wait: each question is answered, and no answer grows with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_come_while_all_slots_compute_and_200_000_tasks_wait() {
    const WAITING: usize = 200_000;
    let url = vhost().await;
    let crowded = QueueRow::new("crowded").with_pool(Pool::Cpu).with_workers(2);
    let celeriac = builder(&url).queue(crowded).start().await.unwrap();
    let mut caller = Caller::new(&url).await;
    let (begin, end) = (Gate::new(), Gate::new());
    for _ in 0..2 {
        let call = compute::s(begin.name.clone(), end.name.clone()).queue("crowded");
        call.send(celeriac.client()).await.unwrap();
    }
    begin.entered(2).await;
    let waiting = |n| properties(add_cpu::Task::NAME, &format!("waiting-{n}"));
    caller.peer.send_many("crowded", WAITING, waiting, b"[[1, 1], {}, {}]").await;
    let ready = caller.peer.ready("crowded").await;
    assert!(ready as usize > WAITING / 2, "{ready} are ready");
    begin.open();
    end.entered(2).await;
    let mut took = Vec::new();
    for question in QUESTIONS {
        let asked = Instant::now();
        let answer = caller.told(question, json!({"ids": ["waiting-0", "waiting-199999"]})).await;
        took.push((asked.elapsed(), question, answer.to_string().len()));
    }
    took.sort_unstable_by_key(|(took, ..)| std::cmp::Reverse(*took));
    println!(
        "{ready} tasks wait; the questions, the slowest first, and the bytes of their answers: {took:?}"
    );
    let longest = took.iter().map(|(.., bytes)| *bytes).max().unwrap();
    assert!(longest < 1 << 20, "an answer of {longest} bytes");
    caller.list_of(2, "active", json!({})).await;
    assert!(!end.is_open());
    celeriac.pause("crowded").await.unwrap();
    end.open();
    let purge = QueuePurgeOptions::default();
    caller.peer.channel.queue_purge("crowded".into(), purge).await.unwrap();
    celeriac.shutdown().await.unwrap();
}

/// Arguments of any type for every command: each is answered, and the worker works on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_arguments_are_answered() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let mut caller = Caller::new(&url).await;
    let names = [
        "ids",
        "task_id",
        "taskinfoitems",
        "from_node",
        "revoked",
        "samples",
        "task_name",
        "rate_limit",
        "soft",
        "hard",
        "n",
        "queue",
        "exchange",
        "exchange_type",
        "routing_key",
        "headers",
        "terminate",
        "workers",
        "max",
    ];
    let odd = [
        json!(5),
        json!(-1),
        json!(1e300),
        json!("x"),
        json!(""),
        json!(null),
        json!(true),
        json!([]),
        json!([[1], {}]),
        json!({"a": {"b": []}}),
        json!("x".repeat(100_000)),
    ];
    let methods = [
        "active",
        "reserved",
        "scheduled",
        "revoked",
        "registered",
        "active_queues",
        "stats",
        "conf",
        "report",
        "query_task",
        "hello",
        "memdump",
        "rate_limit",
        "time_limit",
        "autoscale",
        "pool_restart",
        "cancel_consumer",
        "revoke_by_stamped_headers",
        "election",
        "pause",
        "resume",
        "resize",
    ];
    for value in odd {
        let arguments: Value = names.iter().map(|name| ((*name).to_owned(), value.clone())).collect();
        for method in methods {
            caller.told(method, arguments.clone()).await;
        }
    }
    let later = properties(add::Task::NAME, "still");
    caller.peer.send("io", later, b"[[1, 1], {}, {}]").await;
    assert_eq!(add::s(2, 2).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(4));
    celeriac.shutdown().await.unwrap();
}
