//! Named locks and limits in bodies: within their limit, given back whatever becomes of the run, and handed on.

use std::time::Duration;

use celeriac::task::PermitError;
use celeriac::{Context, State, TaskError, TaskId, task};

use crate::kit::{Gate, embedded, note, notes, on_both, record, status_of, until};

/// Sends an SMS, of which the gateway takes two at a time.
#[task(queue = "io", max_retries = 0)]
async fn send_sms(ctx: Context, gateway: String, gate: String) -> Result<u32, TaskError> {
    let _permit = ctx.limit(gateway, 2).or_postpone(Duration::from_millis(5)).await?;
    Gate::named(&gate).pass().await;
    Ok(ctx.attempt())
}

/// Takes both in whatever order, and ends as it is told.
#[task(queue = "io", max_retries = 0)]
async fn both(ctx: Context, names: Vec<String>, how: String, gate: String) -> Result<(), TaskError> {
    let permit = ctx.locks(names).acquire_within(Duration::from_secs(60)).await?;
    note(&gate.as_str().into(), permit.token().to_string());
    Gate::named(&gate).pass().await;
    match how.as_str() {
        "panics" => panic!("as it should"),
        "forgets" => std::mem::forget(permit),
        "fails" => return Err(TaskError::failure(["boom"])),
        _ => {}
    }
    Ok(())
}

#[task(queue = "cpu", max_retries = 0)]
fn on_a_thread(ctx: &Context, name: String) -> Result<bool, TaskError> {
    let permit = ctx.lock(name).acquire_blocking()?;
    Ok(permit.is_guarded() && !permit.is_lost() && permit.token() > 0)
}

#[task(queue = "io", max_retries = 0)]
async fn tries(ctx: Context, name: String) -> Result<String, TaskError> {
    let busy = ctx.lock(name.clone()).acquire_within(Duration::from_millis(1)).await;
    let tried = ctx.lock(name).try_acquire().await?;
    Ok(match busy {
        Err(error @ PermitError::Busy { .. }) if tried.is_none() => error.to_string(),
        other => format!("{other:?}"),
    })
}

/// A chord's body after its members, in HQ: the lock goes along.
#[task(queue = "io", max_retries = 0)]
async fn begins(ctx: Context, name: String, gate: String) -> Result<String, TaskError> {
    let permit = ctx.lock(name.clone()).acquire().await?;
    let token = permit.token();
    let client = celeriac_client(&gate);
    let next = goes_on::s(name, gate, token).hand_over(permit).send(client).await?;
    Ok(next.id().to_string())
}

#[task(queue = "one", max_retries = 1, default_retry_delay = "1ms")]
async fn goes_on(ctx: Context, name: String, gate: String, token: u64) -> Result<bool, TaskError> {
    let tried = ctx.lock(name.clone()).try_acquire().await?;
    assert!(tried.is_none(), "it is held by this run");
    Gate::named(&gate).pass().await;
    if ctx.attempt() == 1 {
        return Err(TaskError::failure(["once more"]));
    }
    let permit = ctx.take_permit().ok_or_else(|| TaskError::failure(["no permit"]))?;
    Ok(permit.token_of(&name) == Some(token))
}

type Client = std::sync::Arc<dyn celeriac::task::Client>;

static CLIENTS: std::sync::Mutex<Vec<(String, Client)>> = std::sync::Mutex::new(Vec::new());

fn celeriac_client(gate: &str) -> Client {
    let clients = CLIENTS.lock().unwrap();
    clients.iter().rev().find(|(name, _)| name == gate).map(|(_, client)| client.clone()).unwrap()
}

#[tokio::test]
async fn no_more_than_the_limit_run_and_the_rest_occupies_no_worker() {
    on_both(|celeriac| async move {
        let (gate, gateway) = (Gate::new(), TaskId::new().to_string());
        let mut sent = Vec::new();
        for _ in 0..4 {
            let call = send_sms::s(gateway.clone(), gate.name.clone());
            sent.push(call.send(celeriac.client()).await.unwrap());
        }
        gate.entered(2).await;
        // Four workers, two of which wait at the gate: a fifth task finds one of the others.
        let added = crate::kit::add::s(1, 2).send(celeriac.client()).await.unwrap();
        assert_eq!(record(&added).await.state, State::Success);
        gate.open();
        for sms in &sent {
            assert_eq!(sms.get(crate::kit::LONG).await, Ok(1), "no attempt was burnt");
        }
        assert_eq!(gate.gauge.most(), 2);
    })
    .await;
}

#[tokio::test]
async fn permits_end_with_their_run_whatever_becomes_of_it() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        gate.open();
        let names = [TaskId::new().to_string(), TaskId::new().to_string()];
        for (n, how) in ["ends", "panics", "fails", "forgets", "ends"].into_iter().enumerate() {
            let mut names = names.to_vec();
            if n % 2 == 1 {
                names.reverse();
            }
            let call = both::s(names, how.to_owned(), gate.name.clone());
            let over = record(&call.send(celeriac.client()).await.unwrap()).await;
            assert_eq!(over.state == State::Success, !["panics", "fails"].contains(&how), "{how}: {over:?}");
        }
        let tokens: Vec<u64> =
            notes(&gate.name.as_str().into()).iter().map(|token| token.parse().unwrap()).collect();
        assert!(tokens.len() == 5 && tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");

        // Many who want two locks in either order: nobody waits for ever, nobody overlaps.
        let gate = Gate::new();
        gate.open();
        let mut all = Vec::new();
        for n in 0..20 {
            let mut names = names.to_vec();
            names.rotate_left(n % 2);
            let call = both::s(names, "ends".into(), gate.name.clone());
            all.push(call.send(celeriac.client()).await.unwrap());
        }
        for one in &all {
            assert_eq!(record(one).await.state, State::Success);
        }
        assert_eq!((gate.gauge.most(), gate.gauge.all()), (1, 20));

        let threads = on_a_thread::s(names[0].clone()).send(celeriac.client()).await.unwrap();
        assert_eq!(threads.get(crate::kit::LONG).await, Ok(true));
        let gate = Gate::new();
        let call = both::s(names.to_vec(), "ends".into(), gate.name.clone());
        let holding = call.send(celeriac.client()).await.unwrap();
        gate.entered(1).await;
        let tried = tries::s(names[0].clone()).send(celeriac.client()).await.unwrap();
        let said = tried.get(crate::kit::LONG).await.unwrap();
        assert!(said.contains("1 may be held at a time, and are"), "{said}");
        // Revoked with its permit in hand, it gives it back.
        assert_eq!(holding.revoke(true).await, Ok(true));
        let next = on_a_thread::s(names[1].clone()).send(celeriac.client()).await.unwrap();
        assert_eq!(next.get(crate::kit::LONG).await, Ok(true));
    })
    .await;
}

#[tokio::test]
async fn a_permit_is_handed_over_and_not_free_in_between() {
    on_both(|celeriac| async move {
        let (gate, name) = (Gate::new(), TaskId::new().to_string());
        CLIENTS.lock().unwrap().push((gate.name.clone(), celeriac.client()));
        celeriac.pause("one").await.unwrap();
        let first = begins::s(name.clone(), gate.name.clone()).send(celeriac.client()).await.unwrap();
        let next: TaskId = first.get(crate::kit::LONG).await.unwrap().as_str().into();
        let tried = tries::s(name.clone()).send(celeriac.client()).await.unwrap();
        assert!(
            tried.get(crate::kit::LONG).await.unwrap().contains("no permit"),
            "nobody runs, and it is held"
        );
        celeriac.resume("one").await.unwrap();
        gate.entered(1).await;
        gate.open();
        let over = celeriac.client().wait(&next).await.unwrap();
        assert_eq!((over.state, over.result.as_deref(), over.attempts), (State::Success, Some("true"), 2));
        let free = on_a_thread::s(name.clone()).send(celeriac.client()).await.unwrap();
        assert_eq!(free.get(crate::kit::LONG).await, Ok(true));

        // One that never runs does not keep it.
        celeriac.pause("one").await.unwrap();
        let gate = Gate::new();
        CLIENTS.lock().unwrap().push((gate.name.clone(), celeriac.client()));
        let first = begins::s(name.clone(), gate.name.clone()).send(celeriac.client()).await.unwrap();
        let next: TaskId = first.get(crate::kit::LONG).await.unwrap().as_str().into();
        assert_eq!(celeriac.client().revoke(&next, false).await, Ok(true));
        let free = on_a_thread::s(name.clone()).send(celeriac.client()).await.unwrap();
        assert_eq!(free.get(crate::kit::LONG).await, Ok(true));
    })
    .await;
}

#[tokio::test]
async fn what_was_handed_over_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let (gate, name) = (Gate::new(), TaskId::new().to_string());
    let celeriac = embedded(dir.path()).await;
    CLIENTS.lock().unwrap().push((gate.name.clone(), celeriac.client()));
    celeriac.pause("one").await.unwrap();
    let first = begins::s(name.clone(), gate.name.clone()).send(celeriac.client()).await.unwrap();
    let next: TaskId = first.get(crate::kit::LONG).await.unwrap().as_str().into();
    celeriac.shutdown().await.unwrap();
    let celeriac = embedded(dir.path()).await;
    gate.entered(1).await;
    let tried = tries::s(name.clone()).send(celeriac.client()).await.unwrap();
    assert!(tried.get(crate::kit::LONG).await.unwrap().contains("no permit"));
    gate.open();
    let over = celeriac.client().wait(&next).await.unwrap();
    assert_eq!(over.result.as_deref(), Some("true"), "{over:?}");
    until("nothing is left of it", async || status_of(&celeriac, "one").await.running == 0).await;
    celeriac.shutdown().await.unwrap();
}

/// Without a queue there is nobody to ask; who may go on without a permit says so.
#[tokio::test]
async fn a_context_of_no_queue_has_no_permits() {
    let ctx = Context::detached();
    let error = ctx.lock("a").try_acquire().await.unwrap_err();
    assert!(matches!(error, PermitError::NoKeeper { .. }), "{error}");
    let permit = ctx.lock("a").fail_open().acquire().await.unwrap();
    assert!(!permit.is_guarded() && permit.token() == 0);
    assert_eq!(ctx.lock("").fail_open().acquire().await.unwrap_err(), PermitError::Name(0));
    assert_eq!(ctx.lock("x".repeat(513)).try_acquire().await.unwrap_err(), PermitError::Name(513));
}
