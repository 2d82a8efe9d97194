//! Unique windows: what is enqueued already is not enqueued again.

use std::time::Duration;

use celeriac::task::{NewTask, Task as _, UniqueUntil, canvas::group, key_of};
use celeriac::{Context, State, TaskError, TaskId, serial_task, task};

use crate::kit::{Gate, embedded, note, notes, on_both, record, until};

const HOUR: Duration = Duration::from_secs(3600);

/// Waits at a gate, and ends as it is told.
#[task(
    unique_for = "1h",
    unique_key = "{domain}-{kind}",
    queue = "io",
    default_retry_delay = "1ms",
    max_retries = 1
)]
async fn export(ctx: Context, domain: String, kind: u8, gate: String, how: String) -> Result<(), TaskError> {
    note(ctx.id(), how.clone());
    Gate::named(&gate).pass().await;
    match how.as_str() {
        "fails" => Err(TaskError::failure(["boom"])),
        "continues" => Err(TaskError::continue_with(export::s(domain, kind + 1, gate, "ends".into()))),
        "postpones" if ctx.message().eta.is_none() => Err(TaskError::postpone(Duration::from_millis(5))),
        "panics" => panic!("as it should"),
        _ => Ok(()),
    }
}

#[task(unique_for = "1h", unique_until = "start", queue = "io")]
async fn restore(user: u64, gate: String) {
    let _ = user;
    Gate::named(&gate).pass().await;
}

#[serial_task(key = "{domain}", unique_for = "1h", queue = "io", ignore_result)]
async fn sync(ctx: Context, domain: String, n: u8, gate: String) {
    note(&domain.as_str().into(), n.to_string());
    let _ = ctx;
    Gate::named(&gate).pass().await;
}

#[task(queue = "io")]
async fn plain(n: u8, gate: String) -> u8 {
    Gate::named(&gate).pass().await;
    n
}

/// The check before a button is shown, a second click while it runs, and one after its end, however it ends.
#[tokio::test]
async fn a_second_call_joins_the_first_until_it_is_over() {
    on_both(|celeriac| async move {
        for how in ["ends", "fails", "continues", "postpones", "panics"] {
            let (gate, domain) = (Gate::new(), TaskId::new().to_string());
            let call = |kind| {
                let (domain, gate) = (domain.clone(), gate.name.clone());
                export::s(domain, kind, gate, how.to_owned()).send(celeriac.client())
            };
            let key = key_of([domain.as_str(), "1"]);
            assert_eq!(celeriac.unique(export::Task::NAME, &key).await.unwrap(), None);
            let first = call(1).await.unwrap();
            assert!(!first.receipt().joined);
            gate.entered(1).await;
            assert_eq!(celeriac.unique(export::Task::NAME, &key).await.unwrap().as_ref(), Some(first.id()));
            let second = call(1).await.unwrap();
            assert!(second.receipt().joined && second.id() == first.id());
            let other = call(9).await.unwrap();
            assert!(!other.receipt().joined, "another key");
            gate.open();
            let over = record(&first).await;
            assert_eq!(record(&second).await, over, "whoever joins gets the same result");
            assert_eq!(over.state == State::Success, !["fails", "panics"].contains(&how));
            let expected = if how == "ends" { 1 } else { 2 };
            assert_eq!(notes(first.id()).len(), expected, "{how}");
            let again = call(1).await.unwrap();
            assert!(!again.receipt().joined, "{how} is over");
            record(&again).await;
            record(&other).await;
        }
    })
    .await;
}

/// What was read before the change was enqueued is read again.
#[tokio::test]
async fn until_the_start_a_call_that_comes_while_one_runs_is_a_task_of_its_own() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let call = || restore::s(7, gate.name.clone()).send(celeriac.client());
        celeriac.pause("io").await.unwrap();
        let first = call().await.unwrap();
        assert!(call().await.unwrap().receipt().joined, "it waits");
        celeriac.resume("io").await.unwrap();
        gate.entered(1).await;
        let second = call().await.unwrap();
        assert!(!second.receipt().joined, "it has started");
        gate.open();
        for over in [first, second] {
            assert_eq!(record(&over).await.state, State::Success);
        }
    })
    .await;
}

/// Revoked while it waits, it is in nobody's way; the same with one that waits in its lane.
#[tokio::test]
async fn a_revoked_one_is_no_first() {
    on_both(|celeriac| async move {
        let (gate, domain) = (Gate::new(), TaskId::new().to_string());
        let call = |n| sync::s(domain.clone(), n, gate.name.clone()).send(celeriac.client());
        let running = call(0).await.unwrap();
        gate.entered(1).await;
        let waiting = call(1).await.unwrap();
        assert!(!waiting.receipt().joined, "other arguments are another call");
        assert!(call(1).await.unwrap().receipt().joined);
        assert_eq!(waiting.revoke(false).await, Ok(true));
        let anew = call(1).await.unwrap();
        assert!(!anew.receipt().joined);
        assert!(call(0).await.unwrap().receipt().joined, "it runs");
        gate.open();
        until("the lane is empty", async || celeriac.lanes(10).await.unwrap().is_empty()).await;
        assert_eq!(notes(&domain.as_str().into()), ["0", "1"]);
        drop((running, anew));
    })
    .await;
}

/// Said of one call; by name; and what is part of a canvas is never left out.
#[tokio::test]
async fn windows_of_single_calls() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let call = |n| plain::s(n, gate.name.clone());
        let first = call(1).unique_for(HOUR).send(celeriac.client()).await.unwrap();
        assert!(call(1).unique_for(HOUR).send(celeriac.client()).await.unwrap().receipt().joined);
        assert!(!call(2).unique_for(HOUR).send(celeriac.client()).await.unwrap().receipt().joined);
        assert!(!call(1).send(celeriac.client()).await.unwrap().receipt().joined, "it does not ask");
        let keyed = |n| call(n).unique_for(HOUR).unique_key(format!("{}-all", gate.name));
        assert!(!keyed(3).send(celeriac.client()).await.unwrap().receipt().joined);
        let joined = keyed(4).send(celeriac.client()).await.unwrap();
        assert!(joined.receipt().joined);
        gate.open();
        assert_eq!((record(&first).await.state, joined.get(crate::kit::LONG).await), (State::Success, Ok(3)));

        let gate = Gate::new();
        let mut by_name = NewTask::new(restore::Task::NAME, restore::Task::options());
        by_name.arguments = celeriac::task::Arguments::encode(&(9, gate.name.clone())).unwrap();
        celeriac.pause("io").await.unwrap();
        let first = celeriac.client().enqueue(Box::new(by_name.clone())).await.unwrap();
        let second = celeriac.client().enqueue(Box::new(by_name)).await.unwrap();
        assert!(!first.joined && second.joined && second.id == first.id);
        let typed = restore::s(9, gate.name.clone());
        assert!(typed.clone().send(celeriac.client()).await.unwrap().receipt().joined);
        let not_this_time = typed.clone().unique_for(Duration::ZERO).send(celeriac.client()).await.unwrap();
        assert!(!not_this_time.receipt().joined);
        let until_done = typed.clone().unique_key(&gate.name).unique_until(UniqueUntil::Done);
        assert!(!until_done.send(celeriac.client()).await.unwrap().receipt().joined);
        let both = group([typed.clone(), typed]).send(celeriac.client()).await.unwrap();
        celeriac.resume("io").await.unwrap();
        gate.open();
        assert_eq!(both.get(crate::kit::LONG).await.map(|values| values.len()), Ok(2));
    })
    .await;
}

/// Whoever waits for one that expires while it waits hears so, and its window is open.
#[tokio::test]
async fn one_that_expires_tells_who_waits_for_it() {
    on_both(|celeriac| async move {
        let (gate, domain, soon) = (Gate::new(), TaskId::new().to_string(), Duration::from_millis(20));
        gate.open();
        let call = || export::s(domain.clone(), 1, gate.name.clone(), "ends".into());
        celeriac.pause("io").await.unwrap();
        let first = call().expires(soon).send(celeriac.client()).await.unwrap();
        let second = call().send(celeriac.client()).await.unwrap();
        assert!(second.receipt().joined);
        let chain = plain::s(1, gate.name.clone()).expires(soon).then(plain::p(gate.name.clone()));
        let chain = chain.send(celeriac.client()).await.unwrap();
        let sent = std::time::Instant::now();
        until("they have expired", async || sent.elapsed() > soon).await;
        celeriac.resume("io").await.unwrap();
        for task in [&first, &second] {
            let record = record(task).await;
            assert!(record.state == State::Revoked && record.errors[0].contains("expired"), "{record:?}");
        }
        let error = chain.get(crate::kit::LONG).await.unwrap_err().to_string();
        assert!(error.contains("expired"), "{error}");
        assert!(!call().send(celeriac.client()).await.unwrap().receipt().joined);
    })
    .await;
}

#[tokio::test]
async fn a_window_outlives_its_process() {
    let dir = tempfile::tempdir().unwrap();
    let (gate, domain) = (Gate::new(), TaskId::new().to_string());
    let call = || export::s(domain.clone(), 1, gate.name.clone(), "ends".into());
    let celeriac = embedded(dir.path()).await;
    let first = call().send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    celeriac.shutdown_within(Duration::ZERO).await.unwrap();
    let celeriac = embedded(dir.path()).await;
    gate.entered(2).await;
    let second = call().send(celeriac.client()).await.unwrap();
    assert!(second.receipt().joined && second.id() == first.id());
    gate.open();
    assert_eq!(record(&second).await.state, State::Success);
    assert!(!call().send(celeriac.client()).await.unwrap().receipt().joined);
    celeriac.shutdown().await.unwrap();
}
