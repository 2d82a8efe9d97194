//! Why a task does not run, and when it will: the reason that is named is true. When it is taken away, the task starts, or the
//! next one is named.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use celeriac::catalogue::QueueRow;
use celeriac::core::brake::{Brake, BrakeAction, BrakeRule};
use celeriac::core::explanation::{BoundedCount, Explanation, NotServed, RuledOut, TaskReason};
use celeriac::core::forecast::{OBSERVED_AT_LEAST, StartForecast};
use celeriac::core::hold::HoldReason;
use celeriac::task::{TENANT, Task as _};
use celeriac::{Celeriac, State, TaskError, TaskId, serial_task, task};
use serde_json::json;

use crate::kit::{
    Gate, LONG, add, builder, embedded, hold, io_queue, memory, on_both, quiet, record, until, until_state,
};

/// The explanation, when everybody had the time to answer.
async fn explained(celeriac: &Celeriac, id: &TaskId) -> Explanation {
    let start = Instant::now();
    loop {
        let explanation = celeriac.explain(id).await.unwrap();
        if explanation.scope.silent.is_empty() {
            return explanation;
        }
        assert!(start.elapsed() < LONG, "these do not answer: {:?}", explanation.scope.silent);
    }
}

fn codes(explanation: &Explanation) -> Vec<&'static str> {
    explanation.reasons.iter().map(TaskReason::code).collect()
}

/// Waits until these are the reasons: what changes on a queue shows when its event loop has come to it.
async fn until_reasons(celeriac: &Celeriac, id: &TaskId, wanted: &[&str]) -> Explanation {
    let start = Instant::now();
    loop {
        let explanation = explained(celeriac, id).await;
        if codes(&explanation) == wanted {
            return explanation;
        }
        assert!(start.elapsed() < LONG, "{:?} and not {wanted:?}: {explanation:#?}", codes(&explanation));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_pause_is_named_then_the_worker_then_the_line() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let client = || celeriac.client();
        let held = hold::s(gate.name.clone()).queue("one").send(client()).await.unwrap();
        gate.entered(1).await;
        let mut line = Vec::new();
        for _ in 0..4 {
            line.push(add::s(1, 2).queue("one").send(client()).await.unwrap());
        }
        celeriac.pause("one").await.unwrap();
        // The first waits in the queue's hands, the others in the broker.
        until_reasons(&celeriac, line[0].id(), &["paused", "queue_full"]).await;
        let last = until_reasons(&celeriac, line[3].id(), &["paused", "queue_full", "behind"]).await;
        assert_eq!((last.state(), last.queue.as_deref()), ("waiting", Some("one")));
        assert_eq!(last.task.as_deref(), Some(add::Task::NAME));
        assert_eq!(last.starts, Some(StartForecast::Open));
        assert_eq!(last.sentence(), "It waits because its queue `one` is paused.");
        assert!(last.remedies(last.reason())[0].says.contains("Celeriac::resume(\"one\")"));
        let behind = TaskReason::Behind { ahead: BoundedCount::exactly(3), of_tenant: None };
        assert_eq!(last.reasons[2], behind);

        celeriac.resume("one").await.unwrap();
        let next = until_reasons(&celeriac, line[3].id(), &["queue_full", "behind"]).await;
        assert!(next.ruled_out.contains(&RuledOut::Paused), "{:?}", next.ruled_out);
        assert_eq!(*next.reason(), TaskReason::QueueFull { workers: 1 });
        let running = until_reasons(&celeriac, held.id(), &["running"]).await;
        let TaskReason::Running { worker, attempt, .. } = running.reason() else { panic!("{running}") };
        assert_eq!((worker.as_deref(), *attempt, running.starts), (Some("one#0"), Some(1), None));

        // The remedy for a worker that is busy: more of them.
        celeriac.resize("one", 2).await.unwrap();
        for task in &line {
            record(task).await;
        }
        let over = until_reasons(&celeriac, line[3].id(), &["over"]).await;
        assert!(over.sentence().ends_with(": SUCCESS."), "{over}");
        gate.open();
        record(&held).await;
    })
    .await;
}

#[tokio::test]
async fn those_of_the_own_tenant_are_counted() {
    let celeriac = builder().queue(io_queue("tenants", 1)).in_memory().start().await.unwrap();
    let gate = Gate::new();
    let held = hold::s(gate.name.clone()).queue("tenants").send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    let mut last = None;
    for tenant in ["demo", "other", "demo", "other", "demo"] {
        let call = add::s(1, 2).queue("tenants").header(TENANT, tenant);
        last = Some(call.send(celeriac.client()).await.unwrap());
    }
    let last = last.expect("five were sent");
    let explanation = until_reasons(&celeriac, last.id(), &["queue_full", "behind"]).await;
    assert_eq!(explanation.tenant.as_deref(), Some("demo"));
    let behind = TaskReason::Behind { ahead: BoundedCount::exactly(4), of_tenant: Some(2) };
    assert_eq!(explanation.reasons[1], behind);
    gate.open();
    record(&last).await;
    record(&held).await;
    celeriac.shutdown().await.unwrap();
}

#[task(queue = "io", rate_limit = "1/h", ignore_result)]
async fn hourly() {}

/// Twenty a second, so that the one that is held starts by itself.
#[task(queue = "io", rate_limit = "20/s")]
async fn often() {}

#[tokio::test]
async fn a_rate_limit_is_named_and_looking_uses_nothing_up() {
    on_both(|celeriac| async move {
        let client = || celeriac.client();
        let first = hourly::s().send(client()).await.unwrap();
        let held = hourly::s().send(client()).await.unwrap();
        until_state(first.id(), &celeriac, State::Unknown).await;
        let explanation = until_reasons(&celeriac, held.id(), &["held"]).await;
        let TaskReason::Held { hold, wait } = explanation.reason() else { panic!("{explanation}") };
        assert_eq!(*hold, HoldReason::RateLimit { limit: "1/h".to_owned() });
        let wait = wait.expect("it passes by itself");
        assert!(wait > Duration::from_secs(3_000) && wait <= Duration::from_secs(3_601), "{wait:?}");
        let at = explanation.as_of + wait;
        assert_eq!(explanation.starts, Some(StartForecast::NotBefore { at }));
        // It takes no worker, so workers are free.
        let is_free = |it: &RuledOut| matches!(it, RuledOut::QueueFull { .. });
        assert!(explanation.ruled_out.iter().any(is_free), "{:?}", explanation.ruled_out);
        assert_eq!(held.revoke(false).await, Ok(true));
        until_reasons(&celeriac, held.id(), &["unknown"]).await;

        // Whoever looks all the time keeps nothing from its start.
        for _ in 0..5 {
            let one = often::s().send(client()).await.unwrap();
            until("it is over", async || celeriac.explain(one.id()).await.unwrap().reason().code() == "over")
                .await;
        }
    })
    .await;
}

#[serial_task(key = "{account}", queue = "io", after_failure = "block", max_retries = 0)]
async fn book(account: String, gate: Option<String>, fails: bool) -> Result<(), TaskError> {
    if let Some(gate) = gate {
        Gate::named(&gate).pass().await;
    }
    if fails { Err(TaskError::permanent("no such account")) } else { Ok(()) }
}

#[tokio::test]
async fn a_lane_is_named_with_its_holder_and_its_block() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let call = |gate: Option<&Gate>, fails| {
            let gate = gate.map(|gate| gate.name.clone());
            book::s("joe".to_owned(), gate, fails).send(celeriac.client())
        };
        let failing = call(Some(&gate), true).await.unwrap();
        gate.entered(1).await;
        let (next, last) = (call(None, false).await.unwrap(), call(None, false).await.unwrap());
        let first = until_reasons(&celeriac, next.id(), &["lane_busy"]).await;
        let TaskReason::LaneBusy { key, ahead, concurrency, holder, since, .. } = first.reason() else {
            panic!("{first}")
        };
        assert_eq!((key.as_str(), *ahead, *concurrency), ("joe", BoundedCount::exactly(0), 1));
        assert_eq!((holder.as_deref(), since.is_some()), (Some(failing.id().as_str()), true));
        let second = until_reasons(&celeriac, last.id(), &["lane_busy"]).await;
        let TaskReason::LaneBusy { ahead, .. } = second.reason() else { panic!("{second}") };
        assert_eq!(*ahead, BoundedCount::exactly(1));

        gate.open();
        assert_eq!(record(&failing).await.state, State::Failure);
        let blocked = until_reasons(&celeriac, next.id(), &["lane_blocked"]).await;
        let TaskReason::LaneBlocked { by, error, .. } = blocked.reason() else { panic!("{blocked}") };
        assert_eq!((by.as_str(), error.as_str()), (failing.id().as_str(), "no such account"));
        assert_eq!(celeriac.unblock(book::Task::NAME, "joe").await, Ok(true));
        for task in [&next, &last] {
            assert_eq!(record(task).await.state, State::Success);
        }
    })
    .await;
}

#[task(queue = "io", max_retries = 1, default_retry_delay = "1h", retry_jitter = false)]
async fn fails_once() -> Result<(), TaskError> {
    Err(TaskError::failure(["not yet"]))
}

#[tokio::test]
async fn a_later_time_and_a_next_attempt_are_told_apart() {
    on_both(|celeriac| async move {
        let later = add::s(1, 2).countdown(Duration::from_secs(3_600)).send(celeriac.client()).await.unwrap();
        let explanation = until_reasons(&celeriac, later.id(), &["not_due"]).await;
        let TaskReason::NotDue { at } = explanation.reason() else { panic!("{explanation}") };
        assert_eq!(explanation.starts, Some(StartForecast::NotBefore { at: *at }));
        let again = fails_once::s().send(celeriac.client()).await.unwrap();
        let explanation = until_reasons(&celeriac, again.id(), &["retry_at"]).await;
        let TaskReason::RetryAt { attempt, at } = explanation.reason() else { panic!("{explanation}") };
        assert_eq!((*attempt, *at > explanation.as_of), (2, true));
        celeriac.pause("io").await.unwrap();
        until_reasons(&celeriac, later.id(), &["not_due", "paused"]).await;
        celeriac.resume("io").await.unwrap();
        for task in [later.id(), again.id()] {
            assert_eq!(celeriac.client().revoke(task, false).await, Ok(true));
        }
    })
    .await;
}

#[tokio::test]
async fn a_queue_that_is_not_served_is_named_until_a_program_serves_it() {
    let dir = tempfile::tempdir().unwrap();
    let start = async |is_served: bool| {
        let row = QueueRow::new("far").with_served(is_served);
        builder().queue(row).directory(dir.path()).start().await.unwrap()
    };
    let celeriac = start(false).await;
    let waiting = add::s(1, 2).queue("far").send(celeriac.client()).await.unwrap();
    let id = waiting.id().clone();
    let explanation = until_reasons(&celeriac, &id, &["not_served"]).await;
    assert_eq!(*explanation.reason(), TaskReason::NotServed { why: NotServed::ByCatalogue });
    celeriac.shutdown().await.unwrap();
    let celeriac = start(true).await;
    until_reasons(&celeriac, &id, &["over"]).await;
    celeriac.shutdown().await.unwrap();
}

/// Does what an async body must not do.
#[task(queue = "io")]
async fn blocks_its_loop(gate: String) {
    Gate::named(&gate).pass_blocking();
}

#[tokio::test]
async fn a_brake_is_named_by_its_id_and_looking_uses_up_none_of_its_tokens() {
    on_both(|celeriac| async move {
        let send = async || add::s(1, 2).send(celeriac.client()).await.unwrap();
        let rule = || BrakeRule::new().task(add::Task::NAME);
        let brake = Brake::new(rule(), BrakeAction::Pause).id("quiet").owner("amina");
        celeriac.brakes().set(brake).await.unwrap();
        let held = send().await;
        let explanation = until_reasons(&celeriac, held.id(), &["held"]).await;
        let TaskReason::Held { hold: HoldReason::Brake { id, owner, .. }, wait: None } = explanation.reason()
        else {
            panic!("{explanation:#?}")
        };
        assert_eq!((&**id, owner.as_deref()), ("quiet", Some("amina")));
        assert_eq!(explanation.starts, Some(StartForecast::Open));
        assert_eq!(json!(explanation)["reason"]["brake"], "quiet");
        assert!(explanation.remedies(explanation.reason())[0].says.contains("celeriac brake remove quiet"));
        assert!(celeriac.brakes().remove("quiet").await.unwrap().is_some());
        until_reasons(&celeriac, held.id(), &["over"]).await;

        celeriac.brakes().set(Brake::new(rule(), BrakeAction::slow("20/s"))).await.unwrap();
        for _ in 0..5 {
            let one = send().await;
            until("it is over", async || celeriac.explain(one.id()).await.unwrap().reason().code() == "over")
                .await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_queue_that_does_not_answer_is_named_and_holds_nobody_up() {
    let celeriac = memory().await;
    let gate = Gate::new();
    let blocks = blocks_its_loop::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    let waiting = add::s(1, 2).send(celeriac.client()).await.unwrap();
    let explanation = celeriac.explain(waiting.id()).await.unwrap();
    assert_eq!(*explanation.reason(), TaskReason::NotAnswering, "{explanation}");
    assert_eq!(explanation.scope.silent, ["queue `io`"]);
    assert!(explanation.ruled_out.iter().all(|it| it.code() != "paused"), "nobody has looked");
    gate.open();
    until_reasons(&celeriac, waiting.id(), &["over"]).await;
    blocks.get(LONG).await.unwrap();
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn workers_that_do_not_start_and_a_queue_that_has_halted_are_named() {
    quiet();
    let lives = Arc::new(AtomicBool::new(false));
    let may_live = Arc::clone(&lives);
    let row = io_queue("frail", 2).with_max_restarts(1).with_restart_window(Duration::from_millis(300));
    let celeriac = builder()
        .queue(row)
        .in_memory()
        .on_worker_start(move |queue, _| {
            assert!(queue != "frail" || may_live.load(Ordering::SeqCst), "no connection");
        })
        .start()
        .await
        .unwrap();
    let waiting = add::s(1, 2).queue("frail").send(celeriac.client()).await.unwrap();
    let halted = until_reasons(&celeriac, waiting.id(), &["halted", "workers_starting"]).await;
    let TaskReason::Halted { why } = halted.reason() else { panic!("{halted}") };
    assert!(why.contains("no connection"), "{why}");
    lives.store(true, Ordering::SeqCst);
    until_reasons(&celeriac, waiting.id(), &["over"]).await;
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_shutdown_is_named_and_the_next_start_runs_the_task() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = embedded(dir.path()).await;
    let gate = Gate::new();
    hold::s(gate.name.clone()).queue("one").send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    let waiting = add::s(1, 2).queue("one").send(celeriac.client()).await.unwrap();
    let id = waiting.id().clone();
    let ending = celeriac.clone();
    let ended = tokio::spawn(async move { ending.shutdown_within(LONG).await });
    until_reasons(&celeriac, &id, &["draining", "queue_full"]).await;
    gate.open();
    ended.await.unwrap().unwrap();
    assert!(celeriac.explain(&id).await.is_err(), "nobody can be asked any more");
    let celeriac = embedded(dir.path()).await;
    until_reasons(&celeriac, &id, &["over"]).await;
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn ids_that_nobody_knows_have_an_answer() {
    on_both(|celeriac| async move {
        let long = "x".repeat(300);
        for id in ["nobody", "", "../../etc/passwd", long.as_str()] {
            let explanation = explained(&celeriac, &id.into()).await;
            assert_eq!((explanation.state(), codes(&explanation)), ("unknown", vec!["unknown"]), "{id}");
            assert_eq!((explanation.starts, explanation.ruled_out), (None, Vec::new()));
        }
    })
    .await;
}

#[tokio::test]
async fn a_forecast_comes_with_enough_runs() {
    on_both(|celeriac| async move {
        let client = || celeriac.client();
        let gate = Gate::new();
        let held = hold::s(gate.name.clone()).queue("one").send(client()).await.unwrap();
        gate.entered(1).await;
        let mut line = Vec::new();
        for _ in 0..=OBSERVED_AT_LEAST {
            line.push(add::s(1, 2).queue("one").send(client()).await.unwrap());
        }
        let last = line.last().expect("some");
        let explanation = until_reasons(&celeriac, last.id(), &["queue_full", "behind"]).await;
        assert_eq!(explanation.starts, Some(StartForecast::NotKnownYet { observed: 0 }));
        gate.open();
        for task in &line {
            record(task).await;
        }
        record(&held).await;
        let gate = Gate::new();
        let held = hold::s(gate.name.clone()).queue("one").send(client()).await.unwrap();
        gate.entered(1).await;
        for _ in 0..9 {
            line.push(add::s(1, 2).queue("one").send(client()).await.unwrap());
        }
        let last = line.last().expect("some");
        let is_told = async || {
            let explanation = explained(&celeriac, last.id()).await;
            matches!(explanation.starts, Some(StartForecast::Between { .. }))
        };
        until("a forecast", is_told).await;
        let explanation = until_reasons(&celeriac, last.id(), &["queue_full", "behind"]).await;
        let Some(StartForecast::Between { from, to, record: outcomes }) = explanation.starts else {
            panic!("{explanation}")
        };
        assert!(explanation.as_of <= to && from <= to && outcomes.right <= outcomes.of, "{explanation}");
        assert!(explanation.to_string().contains("It is likely to start"), "{explanation}");
        let soil = celeriac.soil();
        until("Soil tells both", async || {
            let status = soil.status(last.id()).await.unwrap();
            status.why == Some(celeriac::soil::WhyWaiting::Busy) && status.starts_between.is_some()
        })
        .await;
        let status = celeriac.queue("one").await;
        assert!(status.is_err() || status.is_ok_and(|status| status.forecasts.of <= 1_000));
        gate.open();
        for task in &line {
            record(task).await;
        }
        record(&held).await;
    })
    .await;
}

/// Whoever reads the JSON finds the sentence, the codes and the scope.
#[tokio::test]
async fn the_json_of_an_explanation_is_whole() {
    let celeriac = memory().await;
    celeriac.pause("io").await.unwrap();
    let waiting = add::s(1, 2).send(celeriac.client()).await.unwrap();
    let explanation = until_reasons(&celeriac, waiting.id(), &["paused"]).await;
    let told = serde_json::to_value(&explanation).unwrap();
    assert_eq!(told["id"], json!(waiting.id()));
    assert_eq!((&told["state"], &told["reason"]["code"]), (&json!("waiting"), &json!("paused")));
    assert_eq!(told["reason"]["is_kept"], json!(false));
    assert_eq!(told["scope"]["asked"], json!(["store", "broker memory", "queue `io`"]));
    assert_eq!(told["starts"]["kind"], json!("open"));
    celeriac.resume("io").await.unwrap();
    record(&waiting).await;
    celeriac.shutdown().await.unwrap();
}
