//! Rust sends, Python works, Rust reads the results.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use celeriac::core::Timestamp;
use celeriac::soil::{Progress, SoilState};
use celeriac::task::{Arguments, Client, GetError, NewTask, TaskOptions, TaskResult, UntypedResult};
use celeriac::{State, TaskId};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::fleet::{Mixed, mixed, on_runtime};
use crate::gates;

pub const PATIENCE: Duration = Duration::from_secs(120);

/// A call of a task that this program knows only by name.
pub fn python(task: &str, args: Value) -> NewTask {
    let mut call = NewTask::new(format!("python.{task}"), TaskOptions::default());
    call.arguments = Arguments::encode(&args).unwrap();
    on("python", call)
}

fn on(queue: &str, mut call: NewTask) -> NewTask {
    call.options.queue = Some(queue.to_owned());
    call
}

pub async fn send(fleet: &Mixed, call: NewTask) -> UntypedResult {
    let client: Arc<dyn Client> = fleet.celeriac.client();
    let receipt = client.enqueue(Box::new(call)).await.unwrap();
    UntypedResult::new(receipt.id, client)
}

async fn value(fleet: &Mixed, call: NewTask) -> Value {
    send(fleet, call).await.get(PATIENCE).await.unwrap()
}

/// The record of what ended without a value.
pub async fn ended(result: &UntypedResult) -> TaskResult {
    match result.get::<Value>(PATIENCE).await {
        Err(GetError::Ended(record)) => *record,
        other => panic!("{other:?}"),
    }
}

/// Runs a test with the fleet, whose start is not part of it.
pub fn on_rust(test: impl AsyncFnOnce(&'static Mixed)) {
    let fleet = mixed();
    on_runtime(test(fleet));
}

pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn a_call_and_its_value() {
    on_rust(async |fleet| {
        let sum = send(fleet, python("add", json!([2, 3]))).await;
        assert_eq!(sum.get::<i64>(PATIENCE).await, Ok(5));
        assert_eq!(sum.state().await, Ok(State::Success));
    });
}

#[test]
fn a_broadcast() {
    on_rust(async |fleet| {
        let key = TaskId::new().to_string();
        crate::tasks::heard::s(key.clone()).send(fleet.celeriac.client()).await.unwrap();
        let heard = [gates::next_note(&key).await, gates::next_note(&key).await];
        assert!(heard.contains(&json!("python")) && heard.contains(&json!("rust")), "{heard:?}");
    });
}

#[test]
fn arguments_by_keyword() {
    on_rust(async |fleet| {
        let mut call = python("greet", json!(["you"]));
        call.arguments.kwargs = json!({ "greeting": "good day", "mark": "!" }).to_string();
        assert_eq!(value(fleet, call).await, json!("good day you!"));
    });
}

#[test]
fn every_value_that_json_has() {
    on_rust(async |fleet| {
        let everything = json!({
            "text": "Grüße, 世界 \u{1} \"quoted\"",
            "numbers": [0, -1, 9_007_199_254_740_992_i64, 1.5, -2.5e-7],
            "nothing": null,
            "truth": [true, false],
            "nested": { "a": [{ "b": [] }] },
        });
        assert_eq!(value(fleet, python("echo", json!([everything]))).await, everything);
    });
}

#[test]
fn two_hundred_in_flight() {
    on_rust(async |fleet| {
        let mut results = Vec::new();
        for n in 0..200 {
            results.push(send(fleet, python("add", json!([n, n]))).await);
        }
        for (n, result) in results.iter().enumerate() {
            assert_eq!(result.get::<usize>(PATIENCE).await, Ok(2 * n));
        }
    });
}

/// The caller gives the id; the task knows its own, its header, its root, its priority.
#[test]
fn the_clients_own_id_and_headers() {
    on_rust(async |fleet| {
        let id = TaskId::from(format!("order:{}", TaskId::new()));
        let mut call = python("about", json!([]));
        call.id = Some(id.clone());
        call.options.priority = 7;
        call.headers.0.insert("x-tenant".into(), "acme".into());
        let about = value(fleet, call).await;
        assert_eq!((&about["id"], &about["root_id"]), (&json!(id), &json!(id)));
        assert_eq!(
            (&about["parent_id"], &about["tenant"], &about["priority"]),
            (&json!(null), &json!("acme"), &json!(7))
        );
    });
}

/// Also in the table in which Sentry's client for Python looks for them, and in each attempt.
#[test]
fn headers_of_a_tracer() {
    on_rust(async |fleet| {
        let given = json!({
            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "tracestate": "vendor=1",
            "baggage": "user=5",
            "sentry-trace": "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "x-tenant": "acme",
        });
        for nested in [false, true] {
            let mut call = python("headers", json!([null, 2]));
            for (name, value) in given.as_object().unwrap() {
                call.headers.0.insert(name.clone(), value.clone());
            }
            if nested {
                call.headers.0.insert("headers".to_owned(), given.clone());
            }
            assert_eq!(value(fleet, call).await, given, "nested: {nested}");
        }
    });
}

#[test]
fn ignored_results_leave_nothing() {
    on_rust(async |fleet| {
        let key = TaskId::new().to_string();
        let mut call = python("note", json!(["ran", key]));
        call.options.ignore_result = true;
        let ignored = send(fleet, call).await;
        assert_eq!(gates::next_note(&key).await, json!(["ran"]));
        assert_eq!(value(fleet, python("add", json!([1, 1]))).await, json!(2));
        let kept = fleet.redis.cli(&["keys", &format!("*{}*", ignored.id())]);
        assert_eq!(kept, "");
    });
}

#[test]
fn an_error_by_class_and_arguments() {
    on_rust(async |fleet| {
        let failed = ended(&send(fleet, python("fail", json!([]))).await).await;
        assert_eq!(
            (failed.state, failed.errors.as_slice()),
            (State::Failure, &["bad".to_owned(), "42".to_owned()][..])
        );
        assert_eq!(
            (failed.error_type.as_deref(), failed.error_module.as_deref()),
            (Some("ValueError"), Some("builtins"))
        );
        assert_eq!(failed.error_arguments, Some(json!(["bad", 42]).into()));
        let traceback = failed.traceback.unwrap();
        assert!(traceback.contains("raise ValueError(\"bad\", 42)"), "{traceback}");
    });
}

#[test]
fn an_error_of_the_applications_own_class() {
    on_rust(async |fleet| {
        let failed = ended(&send(fleet, python("sell", json!(["shoes"]))).await).await;
        assert_eq!(
            (failed.error_type.as_deref(), failed.error_module.as_deref()),
            (Some("OutOfStock"), Some("errors"))
        );
        assert_eq!(failed.errors, ["shoes", "3"]);
        assert_eq!(failed.error_arguments, Some(json!(["shoes", 3]).into()));
    });
}

#[test]
fn an_unknown_task() {
    on_rust(async |fleet| {
        let failed = ended(&send(fleet, python("nobody_has_this", json!([]))).await).await;
        assert_eq!((failed.state, failed.error_type.as_deref()), (State::Failure, Some("NotRegistered")));
        assert!(failed.errors.concat().contains("python.nobody_has_this"), "{:?}", failed.errors);
    });
}

#[test]
fn retries() {
    on_rust(async |fleet| {
        assert_eq!(value(fleet, python("flaky", json!([3]))).await, json!(3));
        let failed = ended(&send(fleet, python("hopeless", json!([2]))).await).await;
        assert_eq!((failed.error_type.as_deref(), failed.errors.len()), (Some("ValueError"), 2));
    });
}

/// Each step is seen, then the end.
#[test]
fn progress() {
    on_rust(async |fleet| {
        let key = TaskId::new().to_string();
        let running = send(fleet, python("progress", json!([key, 3]))).await;
        for step in 1..=3 {
            gates::await_held(&key).await;
            let wanted = json!({ "current": step, "total": 3 });
            gates::until("the step is seen", async || {
                running.tracked().await.unwrap().is_some_and(|seen| seen.meta == wanted)
            })
            .await;
            assert_eq!(running.tracked().await.unwrap().unwrap().state, "PROGRESS");
            assert_eq!(running.info().await.unwrap().unwrap(), wanted);
            gates::release(&key).await;
        }
        assert_eq!(running.get::<u32>(PATIENCE).await, Ok(3));
    });
}

/// Soil shows the bar of a task that Python runs, and pushes it.
#[test]
fn a_bar() {
    on_rust(async |fleet| {
        let key = TaskId::new().to_string();
        let running = send(fleet, python("bar", json!([key, 3]))).await;
        let soil = fleet.celeriac.soil();
        for step in 1..=3 {
            gates::await_held(&key).await;
            gates::until("the bar is seen", async || {
                let seen = soil.status(running.id()).await.unwrap();
                seen.note == Some(format!("step {step}"))
            })
            .await;
            let seen = soil.status(running.id()).await.unwrap();
            // Python says 3 of 3, and is not done.
            let wanted = Progress::of(step, 3);
            assert_eq!((seen.state, seen.progress), (SoilState::Started, Some(wanted)));
            gates::release(&key).await;
        }
        let all: Vec<_> = soil.watch(running.id()).collect().await;
        let last = all.last().unwrap().as_ref().unwrap();
        assert_eq!((last.state, &last.result), (SoilState::Success, &Some(3.into())));
        // HQ's way to name several errors in one text.
        let failed = send(fleet, python("joined_errors", json!([["no name", "no age"]]))).await;
        ended(&failed).await;
        let seen = soil.status(failed.id()).await.unwrap();
        assert_eq!((seen.state, seen.errors), (SoilState::Failed, vec!["no name".into(), "no age".into()]));
    });
}

#[test]
fn a_countdown() {
    on_rust(async |fleet| {
        let sent = now();
        let mut call = python("clock", json!([]));
        call.countdown = Some(Duration::from_millis(1200));
        let ran = value(fleet, call).await.as_f64().unwrap();
        assert!(ran >= sent + 1.2, "sent {sent}, ran {ran}");
    });
}

#[test]
fn an_eta() {
    on_rust(async |fleet| {
        let due = Timestamp::from(SystemTime::now() + Duration::from_millis(2500));
        let mut later = python("clock", json!([]));
        later.eta = Some(due);
        let mut past = python("clock", json!([]));
        past.eta = Some(Timestamp::from(SystemTime::now() - Duration::from_secs(86400)));
        let later = send(fleet, later).await;
        let before = now();
        assert!(value(fleet, past).await.as_f64().unwrap() >= before - 1.0);
        let ran = later.get::<f64>(PATIENCE).await.unwrap();
        let due = due.to_system_time().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(ran >= due - 0.001, "due {due}, ran {ran}");
    });
}

/// What is not started in time is not started at all; a generous expiry changes nothing.
#[test]
fn expiries() {
    on_rust(async |fleet| {
        let one = fleet.only_worker().await;
        let key = TaskId::new().to_string();
        let holding = send(fleet, on("python-one", python("hold", json!([key])))).await;
        gates::await_held(&key).await;
        let mut late = on("python-one", python("note", json!(["late", key])));
        late.options.expires = Some(Duration::from_secs(3));
        let late = send(fleet, late).await;
        let expired = now() + 3.1;
        // With the worker by now: from there RabbitMQ does not take it back and drop it.
        gates::until("it is with the worker", async || fleet.ready("python-one").await == 0).await;
        gates::until("it has expired", async || now() > expired).await;
        gates::release(&key).await;
        assert_eq!(holding.get::<String>(PATIENCE).await.as_deref(), Ok("released"));
        let record = ended(&late).await;
        assert_eq!((record.state, record.errors.concat().as_str()), (State::Revoked, "expired"));
        assert_eq!(gates::noted(&key).await, [] as [Value; 0]);
        drop(one);

        let mut in_time = python("add", json!([1, 2]));
        in_time.options.expires = Some(Duration::from_secs(3600));
        assert_eq!(value(fleet, in_time).await, json!(3));
    });
}

/// Of what waits, the most urgent first; of the same urgency, the oldest first.
#[test]
fn priorities() {
    on_rust(async |fleet| {
        let one = fleet.only_worker().await;
        let key = TaskId::new().to_string();
        let holding = send(fleet, on("python-one", python("hold_late", json!([key])))).await;
        gates::await_held(&key).await;
        for (name, priority) in [("low", 1), ("high", 9), ("middle", 5), ("high too", 9)] {
            let mut call = on("python-one", python("note_late", json!([name, key])));
            call.options.priority = priority;
            send(fleet, call).await;
        }
        gates::until("all wait", async || fleet.ready("python-one").await == 4).await;
        gates::release(&key).await;
        assert_eq!(holding.get::<String>(PATIENCE).await.as_deref(), Ok("released"));
        for expected in ["high", "high too", "middle", "low"] {
            assert_eq!(gates::next_note(&key).await, json!(expected));
        }
        drop(one);
    });
}

/// What was revoked while it waited does not run.
#[test]
fn revoked_while_it_waits() {
    on_rust(async |fleet| {
        let one = fleet.only_worker().await;
        let key = TaskId::new().to_string();
        let holding = send(fleet, on("python-one", python("hold", json!([key])))).await;
        gates::await_held(&key).await;
        let revoked = send(fleet, on("python-one", python("note", json!(["revoked", key])))).await;
        gates::until("it is with the worker", async || fleet.ready("python-one").await == 0).await;
        let behind = send(fleet, on("python-one", python("note", json!(["behind", key])))).await;
        assert_eq!(revoked.revoke(false).await, Ok(true));
        gates::until("it is revoked", async || revoked.state().await == Ok(State::Revoked)).await;
        // Ours may have said so before its worker has heard of it.
        let worker = || fleet.celeriac.fleet().nodes(["python-one@localhost"]).within(PATIENCE);
        gates::until("its worker knows", async || {
            let told = worker().inspect("revoked", Value::Null).await.unwrap();
            told.values().any(|ids| ids.as_array().is_some_and(|ids| ids.contains(&json!(revoked.id()))))
        })
        .await;
        gates::release(&key).await;
        assert_eq!(holding.get::<String>(PATIENCE).await.as_deref(), Ok("released"));
        assert_eq!(behind.get::<Value>(PATIENCE).await, Ok(Value::Null));
        assert_eq!(ended(&revoked).await.state, State::Revoked);
        assert_eq!(gates::noted(&key).await, [json!(["behind"])]);
        drop(one);
    });
}

/// With `terminate`, what runs is ended.
#[test]
fn revoked_while_it_runs() {
    on_rust(async |fleet| {
        let key = TaskId::new().to_string();
        let running = send(fleet, python("hold", json!([key]))).await;
        gates::await_held(&key).await;
        assert_eq!(running.revoke(true).await, Ok(true));
        let record = ended(&running).await;
        assert_eq!((record.state, record.error_type.as_deref()), (State::Revoked, Some("TaskRevokedError")));
    });
}
