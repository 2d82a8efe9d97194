//! Serial tasks: one at a time for each key, in order, and nobody who waits is in a worker's way.

use std::future::IntoFuture;
use std::time::Duration;

use celeriac::actors::LaneStatus;
use celeriac::catalogue::{Pool, QueueRow};
use celeriac::task::{Arguments, NewTask, Task as _, TaskResult};
use celeriac::{Celeriac, Context, EnqueueError, State, TaskError, TaskId, serial_task};
use serde::{Deserialize, Serialize};

use crate::kit::{Gate, add, embedded, io_queue, note, notes, on_both, record, until, until_status};

#[derive(Serialize, Deserialize)]
struct Form {
    domain: String,
    kind: u8,
}

fn form(domain: &str) -> Form {
    Form { domain: domain.to_owned(), kind: 1 }
}

/// Waits at its gate, notes its name, and ends as it is told.
#[serial_task(key = "{form.domain}-{form.kind}", queue = "io", default_retry_delay = "1ms", max_retries = 2)]
async fn import(
    ctx: Context,
    form: Form,
    list: String,
    name: String,
    gate: Option<String>,
) -> Result<(), TaskError> {
    if let Some(gate) = gate {
        Gate::named(&gate).pass().await;
    }
    let token = ctx.fencing_token().expect("a serial run has a token");
    note(&list.as_str().into(), format!("{name} {}", ctx.attempt()));
    note(&format!("tokens of {list}").as_str().into(), token.to_string());
    match name.as_str() {
        "fails" => Err(TaskError::failure(["boom"])),
        "postpones" if ctx.message().eta.is_none() => Err(TaskError::postpone(Duration::from_millis(5))),
        "panics" => panic!("as it should"),
        _ => Ok(()),
    }
}

/// HQ's case: a long run with contenders behind it, which have no patience in HQ and fail. Here they wait and run in order,
/// whatever becomes of those before them, and neighbours are not held up.
#[tokio::test]
async fn contenders_of_a_long_run_wait_and_run_in_order() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let list = TaskId::new().to_string();
        let call = |name: &str, gate: Option<&Gate>| {
            let gate = gate.map(|gate| gate.name.clone());
            import::s(form("demo"), list.clone(), name.to_owned(), gate).send(celeriac.client())
        };
        let long = call("long", Some(&gate)).await.unwrap();
        gate.entered(1).await;
        let mut contenders = Vec::new();
        for name in ["fails", "postpones", "panics", "a", "b", "c", "d", "e"] {
            contenders.push(call(name, None).await.unwrap());
        }
        // They wait without a worker: the other three of the four are free for others.
        let lane = celeriac.lane(import::Task::NAME, "demo-1").await.unwrap().expect("it is not idle");
        assert_eq!((lane.waiting, lane.next.len(), lane.concurrency), (8, 8, 1));
        assert_eq!(lane.next[0].id, *contenders[0].id());
        let [holder] = &lane.holders[..] else { panic!("{lane:?}") };
        let run = holder.run.as_ref().expect("it runs here");
        assert_eq!((&holder.id, run.attempt, run.task.as_str()), (long.id(), 1, import::Task::NAME));
        assert!(run.worker.starts_with("io#") && run.started_at >= holder.since);
        until_status(&celeriac, "io", |s| (s.running, s.ready, s.in_line) == (1, 0, 8)).await;
        let other = import::s(form("other"), list.clone(), "other".into(), None);
        assert_eq!(record(&other.send(celeriac.client()).await.unwrap()).await.state, State::Success);
        assert_eq!(record(&add::s(1, 2).send(celeriac.client()).await.unwrap()).await.state, State::Success);
        assert_eq!(celeriac.lanes(10).await.unwrap().len(), 1);

        gate.open();
        assert_eq!(record(&long).await.state, State::Success);
        let mut ends: Vec<TaskResult> = Vec::new();
        for contender in &contenders {
            ends.push(record(contender).await);
        }
        let states: Vec<State> = ends.iter().map(|end| end.state).collect();
        let mut expected = [State::Success; 8];
        (expected[0], expected[2]) = (State::Failure, State::Failure);
        assert_eq!(states, expected);
        // Each began after the one before it was over.
        assert!(ends.windows(2).all(|pair| pair[0].finished_at <= pair[1].started_at.unwrap()));
        let order = [
            "other 1",
            "long 1",
            "fails 1",
            "fails 2",
            "fails 3",
            "postpones 1",
            "postpones 1",
            "panics 1",
            "panics 2",
            "panics 3",
            "a 1",
            "b 1",
            "c 1",
            "d 1",
            "e 1",
        ];
        assert_eq!(notes(&list.as_str().into()), order);
        let tokens = notes(&format!("tokens of {list}").as_str().into());
        let tokens: Vec<u64> = tokens[1..].iter().map(|token| token.parse().unwrap()).collect();
        assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
        let lane = async || celeriac.lane(import::Task::NAME, "demo-1").await.unwrap();
        until("it is idle", async || lane().await.is_none()).await;
    })
    .await;
}

/// Two at a time, and what is set by hand holds for its lane.
#[serial_task(key = "{domain}", concurrency = 2, queue = "io")]
async fn export(domain: String, gate: String) {
    Gate::named(&gate).pass().await;
}

#[tokio::test]
async fn concurrency_per_key_can_be_set_by_hand() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        for _ in 0..4 {
            export::s("demo".into(), gate.name.clone()).send(celeriac.client()).await.unwrap();
        }
        gate.entered(2).await;
        assert_eq!(lane(&celeriac, export::Task::NAME, "demo").await.holders.len(), 2);
        assert_eq!(gate.gauge.now(), 2);
        celeriac.set_concurrency(export::Task::NAME, "demo", Some(3)).await.unwrap();
        gate.entered(3).await;
        let status = lane(&celeriac, export::Task::NAME, "demo").await;
        assert_eq!((status.concurrency, status.is_adjusted, status.waiting), (3, true, 1));
        gate.open();
        gate.left(4).await;
        assert_eq!(gate.gauge.most(), 3);
        celeriac.set_concurrency(export::Task::NAME, "demo", None).await.unwrap();
        until("idle", async || celeriac.lanes(10).await.unwrap().is_empty()).await;
    })
    .await;
}

async fn lane(celeriac: &Celeriac, scope: &str, key: &str) -> LaneStatus {
    celeriac.lane(scope, key).await.unwrap().expect("it is not idle")
}

#[serial_task(
    scope = "accounts",
    key = "{account}",
    after_failure = "block",
    max_retries = 0,
    queue = "io",
    ignore_result
)]
async fn charge(account: u32, fail: bool) -> Result<(), TaskError> {
    if fail { Err(TaskError::permanent(format!("no money in {account}"))) } else { Ok(()) }
}

#[serial_task(scope = "accounts", key = "{account}", queue = "cpu")]
fn close_account(account: u32) -> u32 {
    account
}

#[serial_task(scope = "accounts", key = "{account}", after_failure = "park", max_retries = 0, queue = "io")]
async fn refund(account: u32) -> Result<(), TaskError> {
    Err(TaskError::permanent(format!("no refund from {account}")))
}

#[tokio::test]
async fn a_failure_blocks_or_parks_and_tasks_may_share_a_lane() {
    on_both(|celeriac| async move {
        let failed = charge::s(7, true).send(celeriac.client()).await.unwrap();
        let closed = close_account::s(7).send(celeriac.client()).await.unwrap();
        until("blocked", async || {
            celeriac.lane("accounts", "7").await.unwrap().is_some_and(|lane| lane.blocked.is_some())
        })
        .await;
        let block = lane(&celeriac, "accounts", "7").await.blocked.expect("it is blocked");
        assert_eq!((&block.by, block.reason.as_str()), (failed.id(), "no money in 7"));
        assert_eq!(celeriac.client().state(closed.id()).await.unwrap(), State::Pending);
        assert_eq!(celeriac.unblock("accounts", "7").await, Ok(true));
        assert_eq!(record(&closed).await.result.as_deref(), Some("7"));
        assert_eq!(celeriac.unblock("accounts", "7").await, Ok(false));

        let parked = refund::s(7).send(celeriac.client()).await.unwrap();
        assert_eq!(
            record(&close_account::s(7).send(celeriac.client()).await.unwrap()).await.state,
            State::Success
        );
        assert_eq!(record(&parked).await.state, State::Failure);
        let letters = celeriac.dead_letters(10).await.unwrap();
        assert_eq!(letters[0].message.id, *parked.id());
        assert_eq!(letters[0].reason, "parked: no refund from 7");
    })
    .await;
}

#[serial_task(key = "{domain}", fail_after = "20ms", queue = "io", on_failure = tell)]
async fn impatient(domain: String, gate: Option<String>) {
    if let Some(gate) = gate {
        Gate::named(&gate).pass().await;
    }
}

fn tell(ctx: &Context, event: &celeriac::task::HookEvent) {
    note(ctx.id(), format!("{event:?}"));
}

#[serial_task(key = "{domain}", newcomer = "skip", queue = "io")]
async fn rebuild(domain: String, gate: Option<String>) {
    if let Some(gate) = gate {
        Gate::named(&gate).pass().await;
    }
}

#[serial_task(key = "{domain}", newcomer = "replace", queue = "io")]
async fn refresh(domain: String, version: u32, gate: Option<String>) -> u32 {
    if let Some(gate) = gate {
        Gate::named(&gate).pass().await;
    }
    version
}

#[tokio::test]
async fn newcomers_fail_are_left_out_or_replace() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let client = || celeriac.client();
        let name = Some(gate.name.clone());
        let first = impatient::s("demo".into(), name.clone()).send(client()).await.unwrap();
        gate.entered(1).await;
        let late = record(&impatient::s("demo".into(), None).send(client()).await.unwrap()).await;
        assert_eq!((late.state, late.error_type.as_deref()), (State::Failure, Some("CouldNotAcquireLock")));
        let task = impatient::Task::NAME;
        let text = format!("Could not acquire lock '{task}-demo' for task '{task}' within 20ms");
        assert_eq!(late.errors, [format!("CouldNotAcquireLock: {text}")]);
        assert_eq!((late.attempts, late.started_at), (0, None));

        rebuild::s("demo".into(), name.clone()).send(client()).await.unwrap();
        gate.entered(2).await;
        let waiting = rebuild::s("demo".into(), None).send(client()).await.unwrap();
        assert!(!waiting.receipt().joined);
        let joined = rebuild::s("demo".into(), None).send(client()).await.unwrap();
        assert!(joined.receipt().joined);
        assert_eq!(joined.id(), waiting.id());

        refresh::s("demo".into(), 1, name).send(client()).await.unwrap();
        gate.entered(3).await;
        let old = refresh::s("demo".into(), 2, None).send(client()).await.unwrap();
        let new = refresh::s("demo".into(), 3, None).send(client()).await.unwrap();
        let old = record(&old).await;
        assert_eq!(old.state, State::Revoked);
        assert_eq!(old.errors, [format!("task {} came later and took its place in the lane", new.id())]);
        gate.open();
        assert_eq!(record(&new).await.result.as_deref(), Some("3"));
        assert_eq!(record(&joined).await.state, State::Success);
        assert_eq!(record(&first).await.state, State::Success);
    })
    .await;
}

/// Calls by name get the lane of their arguments, whoever made them; a key that cannot be made is an error that says so.
#[tokio::test]
async fn a_call_by_name_stands_in_its_lane() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let call = |args: String| {
            let mut call = NewTask::new(export::Task::NAME, export::Task::options());
            call.arguments = Arguments { args, kwargs: String::new() };
            Box::new(call)
        };
        for _ in 0..3 {
            let args = format!(r#"["demo", "{}"]"#, gate.name);
            celeriac.client().enqueue(call(args)).await.unwrap();
        }
        gate.entered(2).await;
        assert_eq!(lane(&celeriac, export::Task::NAME, "demo").await.waiting, 1);
        gate.open();
        gate.left(3).await;
        let wrong = celeriac.client().enqueue(call("[1]".to_owned())).await.unwrap_err();
        assert!(matches!(&wrong, EnqueueError::NoKey { .. }), "{wrong}");
        assert!(wrong.to_string().contains("it cannot be made: the arguments (domain=1"), "{wrong}");
    })
    .await;
}

/// What waits at a shutdown goes on at the next start, in order, and what ran is first.
#[tokio::test]
async fn lanes_outlive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let list = TaskId::new().to_string();
    let gate = Gate::new();
    let celeriac = embedded(dir.path()).await;
    let call = |name: &str, gate: Option<&Gate>| {
        let gate = gate.map(|gate| gate.name.clone());
        import::s(form("demo"), list.clone(), name.to_owned(), gate)
    };
    let held = call("held", Some(&gate)).send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    let mut last = None;
    for name in ["a", "b", "c"] {
        last = Some(call(name, None).send(celeriac.client()).await.unwrap());
    }
    celeriac.shutdown_within(Duration::from_millis(50)).await.unwrap();
    let celeriac = embedded(dir.path()).await;
    gate.open();
    let last = last.expect("three");
    assert_eq!(celeriac.client().wait(last.id()).await.unwrap().state, State::Success);
    assert_eq!(celeriac.client().wait(held.id()).await.unwrap().attempts, 1, "a shutdown burns no attempt");
    assert_eq!(notes(&list.as_str().into()), ["held 1", "a 1", "b 1", "c 1"]);
    celeriac.shutdown().await.unwrap();
}

/// A long line costs the process no memory, and an idle key none on disk either.
#[tokio::test]
async fn who_waits_occupies_no_delivery() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = Celeriac::builder()
        .queue(io_queue("io", 2).with_prefetch(4))
        .queue(QueueRow::new("cpu").with_pool(Pool::Cpu).with_workers(1))
        .directory(dir.path())
        .start()
        .await
        .unwrap();
    let gate = Gate::new();
    let client = celeriac.client();
    let calls =
        (0..2000).map(|_| export::s("demo".into(), gate.name.clone()).send(client.clone()).into_future());
    futures_util::future::try_join_all(calls).await.unwrap();
    gate.entered(2).await;
    // Other tasks come through, although two thousand stand before them.
    gate.open();
    let added = add::s(1, 2).send(celeriac.client()).await.unwrap();
    assert_eq!(record(&added).await.state, State::Success);
    gate.left(2000).await;
    assert_eq!(gate.gauge.most(), 2);
    until("idle", async || celeriac.lanes(10).await.unwrap().is_empty()).await;
    celeriac.shutdown().await.unwrap();
}
