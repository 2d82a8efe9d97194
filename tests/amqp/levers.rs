//! What is changed by remote control while the program runs.

use std::time::Duration;

use celeriac::actors::QueueStatus;
#[cfg(feature = "redis")]
use celeriac::store::RedisOptions;
use celeriac::task::Task;
use celeriac::{Celeriac, Context, State, task};
use lapin::options::BasicPublishOptions;
use serde_json::{Value, json};

use crate::control::Caller;
use crate::kit::{Gate, LONG, add, hold, io_queue, note, notes, record, until, until_status};
use crate::rabbit::{builder, runtime, task as properties, vhost};
#[cfg(feature = "redis")]
use crate::services::{Redis, blocking};

#[task(queue = "io")]
async fn limited(ctx: Context) {
    note(ctx.id(), "ran");
}

#[task(queue = "io")]
async fn in_line(ctx: Context) {
    note(ctx.id(), "ran");
}

/// The status of each queue. An event loop that has no time to answer is asked again.
async fn all_queues(celeriac: &Celeriac) -> Vec<QueueStatus> {
    let start = std::time::Instant::now();
    loop {
        let queues = celeriac.queues().await.unwrap();
        if queues.missing.is_empty() {
            return queues.replies;
        }
        assert!(start.elapsed() < LONG, "these do not answer: {:?}", queues.missing);
    }
}

fn ok(text: &str) -> Value {
    json!({ "ok": text })
}

fn error(text: &str) -> Value {
    json!({ "error": text })
}

/// A limited task waits, takes no slot, holds up no other task, and starts when it may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_holds_back_one_task() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let mut caller = Caller::new(&url).await;
    let name = limited::Task::NAME;
    let limit = |rate: Value| json!({"task_name": name, "rate_limit": rate});
    for (arguments, answer) in [
        (limit(json!("10/q")), error("KeyError('q')")),
        (
            limit(json!("x")),
            error("Invalid rate limit string: ValueError(\"could not convert string to float: 'x'\")"),
        ),
        (json!({"task_name": "nope", "rate_limit": "10/m"}), error("unknown task")),
        (limit(json!(0)), ok("rate limit disabled successfully")),
        (limit(json!(5)), ok("new rate limit set successfully")),
        (limit(json!("1/h")), ok("new rate limit set successfully")),
    ] {
        assert_eq!(caller.told("rate_limit", arguments).await, answer);
    }
    let registered = caller.told("registered", json!({})).await;
    assert!(
        registered.as_array().unwrap().contains(&json!(format!("{name} [rate_limit=1/h]"))),
        "{registered}"
    );

    let client = || celeriac.client();
    // More than the queue's prefetch, so that the tasks behind them come only if the queue takes more.
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(limited::s().send(client()).await.unwrap());
    }
    assert_eq!(held[0].get(LONG).await, Ok(()), "the first one may start");
    let behind = in_line::s().send(client()).await.unwrap();
    assert_eq!(behind.get(LONG).await, Ok(()), "another task is not held up");
    assert!(held[1..].iter().all(|task| notes(task.id()).is_empty()));
    let is_held = |told: &Value| {
        let mut tasks = told.as_array().unwrap().iter();
        tasks.any(|task| task["id"] == json!(held[1].id()))
    };
    caller.until_told("reserved", json!({}), is_held).await;
    // They take no slot.
    until_status(&celeriac, "io", |status| status.running == 0).await;

    // Twenty milliseconds each: they come one after the other, without anybody who wakes the queue.
    assert_eq!(caller.told("rate_limit", limit(json!("50/s"))).await, ok("new rate limit set successfully"));
    for task in &held[1..10] {
        assert_eq!(task.get(LONG).await, Ok(()));
    }
    assert_eq!(caller.told("rate_limit", limit(json!(""))).await, ok("rate limit disabled successfully"));
    for task in &held {
        assert_eq!(task.get(LONG).await, Ok(()));
    }
    celeriac.shutdown().await.unwrap();
}

#[task(queue = "io", max_running = 1)]
async fn one_at_a_time(gate: String) {
    Gate::named(&gate).pass().await;
}

/// More than the queue has room for: it publishes the rest anew, until later, and looks at what is behind them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_behind_more_held_tasks_than_there_is_room_for_starts() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let gate = Gate::new();
    let send = |_| one_at_a_time::s(gate.name.clone()).send(celeriac.client()).into_future();
    let sent = futures_util::future::try_join_all((0..1_200).map(send)).await.unwrap();
    let behind = in_line::s().send(celeriac.client()).await.unwrap();
    assert_eq!(behind.get(LONG).await, Ok(()), "another task is not held up");
    let status = until_status(&celeriac, "io", |status| status.put_back > 0).await;
    assert!(status.held <= 1_024 && status.running <= 2, "{status:#?}");
    gate.open();
    for task in &sent {
        assert_eq!(task.get(LONG).await, Ok(()), "none is lost");
    }
    assert_eq!(gate.gauge.most(), 1);
    celeriac.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_limits_hold_for_runs_that_start_from_then_on() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let mut caller = Caller::new(&url).await;
    let gate = Gate::new();
    let before = hold::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    let limits = json!({"task_name": hold::Task::NAME, "soft": null, "hard": 0.5});
    assert_eq!(caller.told("time_limit", limits).await, ok("time limits set successfully"));
    assert_eq!(
        caller.told("time_limit", json!({"task_name": "nope", "soft": 5})).await,
        error("unknown task")
    );
    let after = hold::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    let ended = record(&after).await;
    assert_eq!((ended.state, ended.error_type.as_deref()), (State::Failure, Some("TimeLimitExceeded")));
    let own = hold::s(gate.name.clone()).time_limit(LONG).send(celeriac.client()).await.unwrap();
    gate.entered(3).await;
    gate.open();
    assert_eq!(before.get(LONG).await, Ok(1));
    assert_eq!(own.get(LONG).await, Ok(1), "the limit of a call is stronger");
    celeriac.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_grow_and_shrink_and_queues_pause() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let mut caller = Caller::new(&url).await;
    let workers = async || -> usize {
        let queues = all_queues(&celeriac).await;
        queues.iter().map(|queue| queue.workers).sum()
    };
    let before = workers().await;
    assert_eq!(caller.told("pool_grow", json!({"n": 3})).await, ok("pool will grow"));
    until("it has grown", async || workers().await == before + 3).await;
    assert_eq!(caller.told("pool_shrink", json!({})).await, ok("pool will shrink"));
    until("it has shrunk", async || workers().await == before + 2).await;
    assert_eq!(caller.told("pool_shrink", json!({"n": 1000})).await, ok("pool will shrink"));
    let queues = all_queues(&celeriac).await.len();
    until("each queue keeps one", async || workers().await == queues).await;
    for n in [json!(-1), json!(1_000_000_000), json!("many")] {
        let answer = caller.told("pool_grow", json!({ "n": n })).await;
        assert!(answer["error"].is_string(), "{answer}");
    }
    for (method, text) in [
        ("pool_restart", "ValueError('Pool restarts not enabled')"),
        ("autoscale", "ValueError('Autoscale not enabled')"),
    ] {
        assert_eq!(caller.told(method, json!({"max": 4, "min": 1})).await, error(text));
    }

    assert_eq!(caller.told("pause", json!({"queue": "io"})).await, ok("paused io"));
    until_status(&celeriac, "io", |status| status.paused).await;
    let waiting = add::s(1, 1).send(celeriac.client()).await.unwrap();
    let is_so = |queues: &Value| queues["io"]["paused"] == true && queues["one"]["paused"] == false;
    caller.until_told("queues", json!({}), is_so).await;
    assert_eq!(caller.told("resize", json!({"queue": "io", "workers": 7})).await, ok("io has 7 workers"));
    assert_eq!(caller.told("resume", json!({"queue": "io"})).await, ok("resumed io"));
    assert_eq!(waiting.get(LONG).await, Ok(2));
    until_status(&celeriac, "io", |status| status.workers == 7 && !status.paused).await;
    let unknown = caller.told("pause", json!({"queue": "nosuch"})).await;
    assert!(unknown["error"].as_str().unwrap().contains("no queue 'nosuch' is served here"), "{unknown}");
    // Nothing here keeps notes, so nothing can hold after a restart.
    let kept = caller.told("pause", json!({"queue": "one", "persistent": true})).await;
    assert!(kept["error"].as_str().unwrap().contains("keep results in Redis"), "{kept}");
    let error = celeriac.persistent().resize("one", 2).await.unwrap_err().to_string();
    assert!(error.contains("keep results in Redis"), "{error}");
    celeriac.shutdown().await.unwrap();
}

/// Celery's `autoscale` is about the only queue here that follows its load; with `queue`, about any.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_follows_its_load_within_a_range() {
    let url = vhost().await;
    let celeriac = builder(&url).queue(io_queue("waves", 1).with_max_workers(4)).start().await.unwrap();
    let mut caller = Caller::new(&url).await;
    let is_so = |stats: &Value| {
        stats["autoscaler"] == json!({"max": 4, "min": 1, "current": 1, "qty": 0})
            && stats["pool"].is_object()
    };
    caller.until_told("stats", json!({}), is_so).await;
    let range = json!({"max": 3, "min": 2});
    caller.until_told("autoscale", range, |told| *told == ok("autoscale now max=3 min=2")).await;
    until_status(&celeriac, "waves", |status| status.workers == 2).await;
    let gate = Gate::new();
    for _ in 0..5 {
        hold::s(gate.name.clone()).queue("waves").send(celeriac.client()).await.unwrap();
    }
    gate.entered(3).await;
    until_status(&celeriac, "waves", |status| status.workers == 3 && status.running == 3).await;
    // The others grow by hand, and it does not.
    let workers = async || -> usize {
        let queues = all_queues(&celeriac).await;
        queues.iter().map(|queue| queue.workers).sum()
    };
    let before = workers().await;
    assert_eq!(caller.told("pool_grow", json!({"n": 4})).await, ok("pool will grow"));
    until("they have grown", async || workers().await == before + 4).await;
    until_status(&celeriac, "waves", |status| status.workers == 3).await;
    for wrong in
        [json!({"max": 1, "min": 2}), json!({"max": 0}), json!({"min": "many"}), json!({"queue": "nosuch"})]
    {
        let answer = caller.told("autoscale", wrong).await;
        assert!(answer["error"].is_string(), "{answer}");
    }
    let other = json!({"queue": "one", "min": 1, "max": 2});
    caller.until_told("autoscale", other, |told| *told == ok("autoscale now max=2 min=1")).await;
    let which = |told: &Value| {
        told["error"].as_str().is_some_and(|text| text.contains("several queues follow their load"))
    };
    caller.until_told("autoscale", json!({"max": 9}), which).await;
    gate.open();
    gate.left(5).await;
    celeriac.shutdown().await.unwrap();
}

#[cfg(feature = "redis")]
#[celeriac::serial_task(
    scope = "levers",
    key = "{key}",
    after_failure = "block",
    max_retries = 0,
    queue = "io"
)]
async fn booked(key: String, fails: bool) -> Result<(), celeriac::TaskError> {
    if fails { Err(celeriac::TaskError::permanent(format!("no account {key}"))) } else { Ok(()) }
}

/// Lanes in Redis are those of all programs, so any of them is asked.
#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_is_shown_and_goes_on() {
    let url = vhost().await;
    let redis = blocking(|| Redis::shared().url_of(5)).await;
    let celeriac = builder(&url).redis(redis, RedisOptions::default()).start().await.unwrap();
    let mut caller = Caller::new(&url).await;
    let key = celeriac::TaskId::new().to_string();
    let failed = booked::s(key.clone(), true).send(celeriac.client()).await.unwrap();
    let next = booked::s(key.clone(), false).send(celeriac.client()).await.unwrap();
    let lane = json!({"scope": "levers", "key": key});
    let is_blocked = |told: &Value| told["blocked"]["by"] == json!(failed.id()) && told["waiting"] == 1;
    caller.until_told("lane", lane.clone(), is_blocked).await;
    let is_listed =
        |told: &Value| told.as_array().is_some_and(|lanes| lanes.iter().any(|it| it["key"] == key.as_str()));
    caller.until_told("lanes", json!({"limit": 1000}), is_listed).await;
    caller.until_told("unblock", lane.clone(), |told| told["ok"].is_string()).await;
    assert_eq!(next.get(LONG).await, Ok(()));
    caller.until_told("lane", lane.clone(), Value::is_null).await;
    let mut wider = lane.clone();
    wider["concurrency"] = json!(3);
    let set = |told: &Value| *told == ok(&format!("the lane levers-{key} has the concurrency 3"));
    caller.until_told("set_concurrency", wider, set).await;
    let of_its_tasks = |told: &Value| told["ok"].as_str().is_some_and(|text| text.ends_with("of its tasks"));
    caller.until_told("set_concurrency", lane, of_its_tasks).await;
    for (method, wrong) in [
        ("lane", json!({"scope": "levers"})),
        ("lanes", json!({"limit": 0})),
        ("unblock", json!({"scope": 5, "key": "a"})),
        ("set_concurrency", json!({"scope": "levers", "key": "a", "concurrency": -1})),
    ] {
        let answer = caller.told(method, wrong).await;
        assert!(answer["error"].is_string(), "{method}: {answer}");
    }
    celeriac.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_are_cancelled_and_added() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let mut caller = Caller::new(&url).await;
    let named = |queues: &Value, name: &str| queues.as_array().unwrap().iter().any(|q| q["name"] == name);
    let gate = Gate::new();
    let running = hold::s(gate.name.clone()).queue("one").send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    let waiting = hold::s(gate.name.clone()).queue("one").send(celeriac.client()).await.unwrap();
    assert_eq!(
        caller.told("cancel_consumer", json!({"queue": "one"})).await,
        ok("no longer consuming from one")
    );
    until("what had not started is back", async || caller.peer.ready("one").await == 1).await;
    caller.until_told("active_queues", json!({}), |queues| !named(queues, "one")).await;
    gate.open();
    assert_eq!(running.get(LONG).await, Ok(1), "what runs goes on");
    assert_eq!(caller.peer.ready("one").await, 1);
    assert_eq!(caller.told("add_consumer", json!({"queue": "one"})).await, ok("add consumer one"));
    assert_eq!(waiting.get(LONG).await, Ok(1));
    assert!(named(&caller.told("active_queues", json!({})).await, "one"));
    let nobodys = caller.told("cancel_consumer", json!({"queue": "nosuch"})).await;
    assert_eq!(nobodys, ok("no longer consuming from nosuch"));

    // One that is new here.
    let arguments = json!({"queue": "q2", "exchange": null, "exchange_type": "direct", "routing_key": null});
    for _ in 0..2 {
        assert_eq!(caller.told("add_consumer", arguments.clone()).await, ok("add consumer q2"));
    }
    until("the queue is there", async || {
        celeriac
            .fleet()
            .inspect("queues", Value::Null)
            .await
            .unwrap()
            .values()
            .any(|queues| queues["q2"]["consuming"] == true)
    })
    .await;
    caller.peer.send("q2", properties(add::Task::NAME, "in-q2"), b"[[20, 22], {}, {}]").await;
    let result: Value = celeriac.async_result("in-q2").get(LONG).await.unwrap();
    assert_eq!(result, json!(42));
    assert!(named(&caller.told("active_queues", json!({})).await, "q2"));
    let long = json!({"queue": "q".repeat(300)});
    let long = caller.until_told("add_consumer", long, |told| told["error"].is_string()).await;
    assert!(long["error"].as_str().unwrap().contains("255"), "{long}");
    celeriac.shutdown().await.unwrap();
}

/// As `celery control add_consumer q orders topic orders.eu.#`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_added_is_bound_to_the_exchange_that_is_named() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let mut caller = Caller::new(&url).await;
    let of = |queue: &str, kind: &str| json!({"queue": queue, "exchange": "orders", "exchange_type": kind, "routing_key": "orders.eu.#"});
    assert_eq!(caller.told("add_consumer", of("europe", "topic")).await, ok("add consumer europe"));
    until("it is consumed", async || {
        let fleet = celeriac.fleet().inspect("queues", Value::Null).await.unwrap();
        fleet.values().any(|queues| queues["europe"]["consuming"] == true)
    })
    .await;
    let send = async |key: &str, id: &str| {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = properties(add::Task::NAME, id);
        let body = b"[[20, 22], {}, {}]";
        let sent =
            caller.peer.channel.basic_publish("orders".into(), key.into(), options, body, properties).await;
        sent.unwrap().await.unwrap().take_message().is_none()
    };
    assert!(send("orders.eu.de", "by-topic").await, "it is routed");
    assert!(!send("orders.us", "not-bound").await, "no queue is bound with such a key");
    let result: Value = celeriac.async_result("by-topic").get(LONG).await.unwrap();
    assert_eq!(result, json!(42));
    let queues = caller.told("active_queues", json!({})).await;
    let europe = queues.as_array().unwrap().iter().find(|queue| queue["name"] == "europe").unwrap().clone();
    assert_eq!(europe["exchange"]["name"], "orders");
    assert_eq!(
        (&europe["exchange"]["type"], &europe["routing_key"]),
        (&json!("topic"), &json!("orders.eu.#"))
    );

    // The exchange is there and of another type, or of a type that would cost the connection. While RabbitMQ takes its time
    // the answer is that it is added.
    let other =
        caller.until_told("add_consumer", of("asia", "fanout"), |told| told["error"].is_string()).await;
    let error = other["error"].as_str().unwrap();
    assert!(error.contains("the exchange `orders` is there and is no durable fanout exchange"), "{other}");
    let odd = caller.told("add_consumer", of("asia", "x-odd")).await;
    let expected = "no exchange of type 'x-odd' is made here; the types are direct, fanout, topic, headers";
    assert!(odd["error"].as_str().unwrap().contains(expected), "{odd}");
    let rest = caller.told("add_consumer", of("asia", "topic")).await;
    assert_eq!(rest, ok("add consumer asia"), "what was refused is forgotten");
    celeriac.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_that_is_asked_for_lets_tasks_end() {
    let url = vhost().await;
    let celeriac = builder(&url).shutdown_grace(LONG).start().await.unwrap();
    let mut caller = Caller::new(&url).await;
    let nobody = caller.told("shutdown", json!({})).await;
    assert!(nobody["error"].as_str().unwrap().contains("run_until_signal"), "{nobody}");
    celeriac.shutdown().await.unwrap();

    let celeriac = builder(&url).shutdown_grace(LONG).start().await.unwrap();
    let gate = Gate::new();
    let running = hold::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    let program = celeriac.clone();
    let ended = tokio::spawn(async move { program.run_until_signal().await });
    until("it hears", async || !celeriac.fleet().ping().await.unwrap().is_empty()).await;
    caller.ask_for("shutdown", json!({"msg": "enough"}), "shutdown").await;
    until("it takes nothing more", async || add::s(1, 1).send(celeriac.client()).await.is_err()).await;
    assert!(!ended.is_finished(), "it waits for what runs");
    gate.open();
    let report = tokio::time::timeout(LONG, ended).await.unwrap().unwrap().unwrap();
    assert!(report.drained, "{report:?}");
    assert_eq!(record(&running).await.state, State::Success);
}

/// A stamp that is revoked keeps tasks from starting, and with `terminate` ends those that run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_are_revoked_by_their_stamps() {
    use lapin::types::{AMQPValue, FieldArray, FieldTable};

    use crate::rabbit::{text, with};
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let mut caller = Caller::new(&url).await;
    let stamped = |id: &str, tenant: &str| {
        let names = FieldArray::from(vec![text("tenant")]);
        let mut stamps = FieldTable::default();
        stamps.insert("tenant".into(), text(tenant));
        with(&[
            ("task", text(hold::Task::NAME)),
            ("id", text(id)),
            ("stamped_headers", AMQPValue::FieldArray(names)),
            ("stamps", AMQPValue::FieldTable(stamps)),
        ])
    };
    let gate = Gate::new();
    let body = json!([[gate.name], {}, {}]).to_string();
    caller.peer.send("io", stamped("runs", "acme"), body.as_bytes()).await;
    gate.entered(1).await;
    let state = async |id: &str| celeriac.client().state(&id.into()).await.unwrap();
    let by = |tenant: &str, terminate: bool| json!({"headers": {"tenant": [tenant]}, "terminate": terminate});
    let told = caller.told("revoke_by_stamped_headers", by("acme", false)).await;
    assert_eq!(told, ok("headers {'tenant': ['acme']} flagged as revoked, but not terminated"));
    caller.peer.send("io", stamped("waits", "acme"), body.as_bytes()).await;
    until("it does not start", async || state("waits").await == State::Revoked).await;
    assert_eq!(state("runs").await, State::Started);
    let told = caller.told("revoke_by_stamped_headers", by("other", true)).await;
    assert_eq!(told, ok("headers {'tenant': ['other']} were not terminated"));
    let told = caller
        .told("revoke_by_stamped_headers", json!({"headers": ["tenant=acme"], "terminate": true}))
        .await;
    assert_eq!(told, ok("headers defaultdict(<class 'set'>, {'tenant': {'acme'}}) revoked"));
    until("it has ended", async || state("runs").await == State::Revoked).await;
    let _ = tokio::time::timeout(Duration::from_millis(1), gate.left(1)).await;
    celeriac.shutdown().await.unwrap();
}
