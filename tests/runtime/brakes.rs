//! Brakes: what matches a rule is held, slowed, diverted or ended, everything else goes on, and it is undone in one call.

use std::time::{Duration, SystemTime};

use celeriac::actors::QueueStatus;
use celeriac::app::{BrakeScope, ControlError};
use celeriac::catalogue::{BrakeRow, Catalogue};
use celeriac::core::brake::{Brake, BrakeAction, BrakeError, BrakeRule};
use celeriac::task::{Signature, TENANT, Task as _};
use celeriac::{AsyncResult, Celeriac, State, TaskId, Timestamp, serial_task, task};
use futures_util::future::try_join_all;

use crate::kit::{
    Gate, LONG, add, builder, embedded, hold, io_queue, memory, note, notes, on_both, record, until_status,
};

/// Less than the minute after which a queue looks by itself: who is told looks at once.
const SOON: Duration = Duration::from_secs(50);

/// Runs in the order of its calls, one at a time.
#[serial_task(key = "{line}", queue = "io")]
async fn step(line: String, n: u32) -> u32 {
    note(&line.as_str().into(), n.to_string());
    n
}

#[task(queue = "io")]
async fn other() {}

fn of(tenant: &str, n: i64) -> Signature<add::Task> {
    add::s(n, 1).header(TENANT, tenant)
}

async fn send(celeriac: &Celeriac, call: Signature<add::Task>) -> AsyncResult<add::Task> {
    call.send(celeriac.client()).await.unwrap()
}

fn tenant(name: &str) -> BrakeRule {
    BrakeRule::new().tenant(name)
}

async fn set(celeriac: &Celeriac, rule: BrakeRule, action: BrakeAction) -> Brake {
    celeriac.brakes().set(Brake::new(rule, action)).await.unwrap()
}

async fn remove(celeriac: &Celeriac, brake: &Brake) {
    assert_eq!(celeriac.brakes().remove(&brake.id).await, Ok(Some(brake.clone())));
}

#[tokio::test]
async fn a_pause_holds_the_tasks_of_its_tenant_and_no_others() {
    on_both(|celeriac| async move {
        let brake = Brake::new(tenant("acme"), BrakeAction::Pause).owner("amina").reason("they flood us");
        let brake = celeriac.brakes().set(brake).await.unwrap();
        assert_eq!(celeriac.brakes().list().await, Ok(vec![brake.clone()]));
        let (mut held, mut free) = (Vec::new(), Vec::new());
        for n in 0..20 {
            held.push(send(&celeriac, of("acme", n)).await);
            free.push(send(&celeriac, of("other", n)).await);
        }
        free.push(send(&celeriac, add::s(20, 1)).await);
        for (n, task) in (1..).zip(&free) {
            assert_eq!(task.get(LONG).await, Ok(n));
        }
        // The tenants take turns, so the last of those that are held may come after all others are done.
        let status = until_status(&celeriac, "io", |status| (status.done, status.held) == (21, 20)).await;
        assert_eq!(status.running, 0, "they wait, and hold no slot");

        remove(&celeriac, &brake).await;
        for (n, task) in (1..).zip(&held) {
            assert_eq!(task.get(SOON).await, Ok(n));
            assert_eq!(record(task).await.attempts, 1, "no attempt is burnt");
        }
        assert_eq!(celeriac.brakes().list().await, Ok(Vec::new()));
        assert_eq!(celeriac.brakes().remove(&brake.id).await, Ok(None));
    })
    .await;
}

/// What waits already when the brake is set, and waits for its time, is held as well.
#[tokio::test]
async fn a_brake_is_about_what_waits_already_and_about_what_comes_due() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        for _ in 0..4 {
            hold::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
        }
        gate.entered(4).await;
        let waits = send(&celeriac, of("acme", 1)).await;
        let due = send(&celeriac, of("acme", 2).countdown(Duration::from_millis(20))).await;
        let free = send(&celeriac, of("other", 3)).await;
        let brake = set(&celeriac, tenant("acme"), BrakeAction::Pause).await;
        gate.open();
        assert_eq!(free.get(LONG).await, Ok(4));
        let status = until_status(&celeriac, "io", |status| (status.done, status.held) == (5, 2)).await;
        assert_eq!((status.running, status.scheduled), (0, 0));
        remove(&celeriac, &brake).await;
        assert_eq!((waits.get(SOON).await, due.get(SOON).await), (Ok(2), Ok(3)));
    })
    .await;
}

#[tokio::test]
async fn a_slow_brake_lets_one_start_and_holds_the_rest() {
    on_both(|celeriac| async move {
        let rule = BrakeRule::new().task(add::Task::NAME);
        let brake = set(&celeriac, rule, BrakeAction::slow("1/h")).await;
        let mut sent = Vec::new();
        for n in 0..6 {
            sent.push(send(&celeriac, add::s(n, 1)).await);
        }
        assert_eq!(sent[0].get(LONG).await, Ok(1));
        let behind = other::s().send(celeriac.client()).await.unwrap();
        assert_eq!(behind.get(LONG).await, Ok(()), "another task is not held up");
        let status = until_status(&celeriac, "io", |status| (status.done, status.held) == (2, 5)).await;
        assert_eq!(status.running, 0);
        // One that is set in its place is another one, with a token of its own.
        let faster = Brake::new(brake.rule.clone(), BrakeAction::slow("1000/s")).id(&brake.id);
        celeriac.brakes().set(faster).await.unwrap();
        for (n, task) in (1..).zip(&sent) {
            assert_eq!(task.get(SOON).await, Ok(n));
        }
    })
    .await;
}

/// More are held than the queue has room for, so it has put the rest back into the broker for a minute.
#[tokio::test]
async fn what_was_put_back_starts_when_the_brake_is_gone() {
    on_both(|celeriac| async move {
        let rule = BrakeRule::new().task(add::Task::NAME);
        let brake = set(&celeriac, rule, BrakeAction::slow("1/h")).await;
        let send = |n| add::s(n, 1).send(celeriac.client()).into_future();
        let sent = try_join_all((0..2_500).map(send)).await.unwrap();
        let is_settled = |status: &QueueStatus| status.put_back > 1_000 && status.ready == 0;
        until_status(&celeriac, "io", is_settled).await;
        remove(&celeriac, &brake).await;
        let all = async {
            for task in &sent {
                assert_eq!(record(task).await.attempts, 1);
            }
        };
        tokio::time::timeout(SOON, all).await.expect("nobody waits for the end of the minute");
        let status = until_status(&celeriac, "io", |status| status.running == 0).await;
        assert_eq!((status.put_back, status.held, status.scheduled), (0, 0, 0), "{status:#?}");
    })
    .await;
}

#[tokio::test]
async fn a_divert_moves_what_waits_although_no_worker_is_free() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        for _ in 0..4 {
            hold::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
        }
        gate.entered(4).await;
        let (mut moved, mut stay) = (Vec::new(), Vec::new());
        for n in 0..5 {
            moved.push(send(&celeriac, of("acme", n)).await);
            stay.push(send(&celeriac, of("other", n)).await);
        }
        let brake = set(&celeriac, tenant("acme"), BrakeAction::divert("one")).await;
        moved.push(send(&celeriac, of("acme", 5)).await);
        for (n, task) in (1..).zip(&moved) {
            assert_eq!(task.get(SOON).await, Ok(n));
            let record = record(task).await;
            assert_eq!((record.queue.as_str(), record.attempts), ("one", 1));
        }
        let status = until_status(&celeriac, "io", |status| status.ready == 5).await;
        assert_eq!((status.running, status.done), (4, 0));
        remove(&celeriac, &brake).await;
        gate.open();
        for task in &stay {
            assert_eq!(record(task).await.queue, "io");
        }
    })
    .await;
}

/// Two brakes that divert to each other's queues: a task is diverted once, and runs.
#[tokio::test]
async fn nothing_is_diverted_to_and_fro() {
    on_both(|celeriac| async move {
        set(&celeriac, BrakeRule::new().queue("io"), BrakeAction::divert("one")).await;
        set(&celeriac, BrakeRule::new().queue("one"), BrakeAction::divert("io")).await;
        let there = send(&celeriac, add::s(1, 1)).await;
        let back = send(&celeriac, add::s(2, 1).queue("one")).await;
        assert_eq!((there.get(LONG).await, back.get(LONG).await), (Ok(2), Ok(3)));
        assert_eq!((record(&there).await.queue.as_str(), record(&back).await.queue.as_str()), ("one", "io"));
    })
    .await;
}

#[tokio::test]
async fn serial_tasks_keep_their_order_when_they_are_diverted() {
    on_both(|celeriac| async move {
        set(&celeriac, BrakeRule::new().task(step::Task::NAME), BrakeAction::divert("one")).await;
        let line = TaskId::new().to_string();
        let mut sent = Vec::new();
        for n in 0..6 {
            sent.push(step::s(line.clone(), n).send(celeriac.client()).await.unwrap());
        }
        for (n, task) in (0..).zip(&sent) {
            assert_eq!(task.get(LONG).await, Ok(n));
            assert_eq!(task.result().await.unwrap().expect("its record").queue, "one");
        }
        assert_eq!(notes(&line.as_str().into()), ["0", "1", "2", "3", "4", "5"], "each once, in order");
    })
    .await;
}

#[tokio::test]
async fn an_expiring_brake_ends_what_matches_with_a_record() {
    on_both(|celeriac| async move {
        let held = set(&celeriac, BrakeRule::all(), BrakeAction::Pause).await;
        let ended = send(&celeriac, of("acme", 1)).await;
        let stays = send(&celeriac, of("other", 1)).await;
        until_status(&celeriac, "io", |status| status.held == 2).await;
        let brake = Brake::new(tenant("acme"), BrakeAction::Expire).id("no-acme").reason("they have left");
        celeriac.brakes().set(brake).await.unwrap();
        let later = send(&celeriac, of("acme", 2)).await;
        for task in [&ended, &later] {
            let record = record(task).await;
            assert_eq!((record.state, record.attempts, record.started_at), (State::Revoked, 0, None));
            assert_eq!(record.errors, ["expired: brake `no-acme` is on it (expire): they have left"]);
        }
        let status = until_status(&celeriac, "io", |status| status.revoked == 2).await;
        assert_eq!((status.held, status.done), (1, 0), "the other one is still paused");
        remove(&celeriac, &held).await;
        assert_eq!(stays.get(SOON).await, Ok(2));
    })
    .await;
}

#[tokio::test]
async fn a_brake_that_ends_by_itself_wakes_what_it_held() {
    on_both(|celeriac| async move {
        let until = Timestamp::from(SystemTime::now() + Duration::from_secs(2));
        let brake = Brake::new(BrakeRule::all(), BrakeAction::Pause).until(until);
        celeriac.brakes().set(brake).await.unwrap();
        let task = send(&celeriac, add::s(1, 1)).await;
        assert_eq!(task.get(SOON).await, Ok(2));
        assert!(record(&task).await.started_at.is_some_and(|at| at >= until));
        assert_eq!(celeriac.brakes().list().await, Ok(Vec::new()));
    })
    .await;
}

#[tokio::test]
async fn a_kept_brake_holds_after_a_restart_and_one_in_memory_says_that_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = embedded(dir.path()).await;
    assert_eq!(celeriac.brakes().scope(), BrakeScope::Fleet);
    let rule = BrakeRule::new().argument("a", ["7$"]);
    let brake = set(&celeriac, rule, BrakeAction::Pause).await;
    let held = send(&celeriac, add::s(7, 1)).await;
    celeriac.shutdown().await.unwrap();

    let celeriac = embedded(dir.path()).await;
    assert_eq!(celeriac.brakes().list().await, Ok(vec![brake.clone()]));
    let free = send(&celeriac, add::s(77, 1)).await;
    assert_eq!(free.get(LONG).await, Ok(78));
    let status = until_status(&celeriac, "io", |status| (status.done, status.held) == (1, 1)).await;
    assert_eq!(status.running, 0);
    remove(&celeriac, &brake).await;
    let client = celeriac.client();
    let record = tokio::time::timeout(SOON, client.wait(held.id())).await.unwrap().unwrap();
    assert_eq!(record.result.as_deref(), Some("8"));
    celeriac.shutdown().await.unwrap();

    let celeriac = memory().await;
    assert_eq!(celeriac.brakes().scope(), BrakeScope::Process);
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_brake_of_the_catalogue_stands_and_only_the_file_takes_it_away() {
    let catalogue = Catalogue::new()
        .with_queue(io_queue("io", 4))
        .with_alias("calls", "io")
        .with_brake(BrakeRow::new(tenant("acme").queue("calls"), BrakeAction::Pause).with_reason("a trial"));
    let celeriac = builder().catalogue(catalogue).in_memory().start().await.unwrap();
    let held = send(&celeriac, of("acme", 1)).await;
    assert_eq!(send(&celeriac, of("other", 1)).await.get(LONG).await, Ok(2));
    let status = until_status(&celeriac, "io", |status| (status.done, status.held) == (1, 1)).await;
    assert_eq!(status.running, 0);
    let brakes = celeriac.brakes().list().await.unwrap();
    assert_eq!(brakes[0].to_string(), "brake `catalogue-1`: pause for queue io, tenant acme");
    assert!(brakes[0].is_standing() && brakes[0].reason.as_deref() == Some("a trial"));
    let refused = celeriac.brakes().remove("catalogue-1").await.unwrap_err();
    assert_eq!(refused, ControlError::Brake(BrakeError::Standing("catalogue-1".to_owned())));
    let taken = Brake::new(tenant("x"), BrakeAction::Pause).id("catalogue-2");
    assert!(celeriac.brakes().set(taken).await.is_err());
    assert_eq!(held.revoke(false).await, Ok(true), "what is held can be revoked");
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_dry_run_counts_exactly_and_changes_nothing() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let runs = hold::s(gate.name.clone()).header(TENANT, "acme").send(celeriac.client()).await.unwrap();
        gate.entered(1).await;
        set(&celeriac, BrakeRule::all(), BrakeAction::Pause).await;
        for n in 0..30 {
            send(&celeriac, of("acme", n)).await;
            send(&celeriac, of("acme", n).queue("one").countdown(LONG)).await;
            send(&celeriac, of("other", n)).await;
        }
        let found = celeriac.brakes().dry_run(&tenant("acme")).await.unwrap();
        assert_eq!((found.waiting.tasks, found.running, found.waiting.sample.len()), (60, 1, 20));
        let by_queue: Vec<_> = found.waiting.by_queue.into_iter().collect();
        assert_eq!(by_queue, [("io".to_owned(), 30), ("one".to_owned(), 30)]);
        assert_eq!(found.waiting.by_task[add::Task::NAME], 60);
        assert_eq!((found.started, found.started_is_exact), (1, true));
        assert!(found.unseen.is_empty() && found.missing.is_empty());

        // The last digit is five.
        let by_argument = BrakeRule::new().queue("io").argument("a", [".*5$"]);
        let found = celeriac.brakes().dry_run(&by_argument).await.unwrap();
        assert_eq!((found.waiting.tasks, found.running, found.started_is_exact), (6, 0, false));
        assert_eq!(celeriac.brakes().dry_run(&tenant("nobody")).await.unwrap().waiting.tasks, 0);
        assert_eq!(celeriac.brakes().list().await.unwrap().len(), 1);
        gate.open();
        assert_eq!(runs.get(LONG).await, Ok(1));
    })
    .await;
}

#[tokio::test]
async fn a_brake_with_a_mistake_is_refused_and_nothing_changes() {
    let celeriac = memory().await;
    let refused = async |brake: Brake| match celeriac.brakes().set(brake).await {
        Err(error @ ControlError::Brake(_)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let pause = |rule: BrakeRule| Brake::new(rule, BrakeAction::Pause);
    let text = refused(pause(BrakeRule::new())).await;
    assert!(text.contains("no condition") && text.contains("BrakeRule::all()"), "{text}");
    let text = refused(pause(BrakeRule::new().queue("oi"))).await;
    assert_eq!(text, "`queue` of a brake is \"oi\", but there is no such queue; did you mean `io`?");
    let text = refused(Brake::new(tenant("a"), BrakeAction::divert("onne"))).await;
    assert!(text.starts_with("`divert_to` of a brake") && text.ends_with("did you mean `one`?"), "{text}");
    let text = refused(Brake::new(tenant("a"), BrakeAction::slow("often"))).await;
    assert!(text.contains("write a rate such as 10/s"), "{text}");
    let text = refused(pause(BrakeRule::new().argument("a", ["("]))).await;
    assert!(text.contains("unclosed group"), "{text}");
    let text = refused(pause(tenant("a")).until(Timestamp::ZERO)).await;
    assert!(text.contains("which is over"), "{text}");
    assert!(celeriac.brakes().dry_run(&BrakeRule::new()).await.is_err());
    assert_eq!(celeriac.brakes().list().await, Ok(Vec::new()));
    assert_eq!(send(&celeriac, of("a", 1)).await.get(LONG).await, Ok(2));
    celeriac.shutdown().await.unwrap();
}
