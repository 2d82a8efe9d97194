//! Limits by a key: what they hold back waits in its queue, takes no slot, burns no attempt, holds up no other task, and starts
//! when it may.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use celeriac::catalogue::{Catalogue, LimitRow};
use celeriac::core::calendar::{AllowedHours, Zone};
use celeriac::core::start_limit::StartLimit;
use celeriac::core::token_bucket::RateLimit;
use celeriac::task::{TENANT, TaskError};
use celeriac::{AsyncResult, Builder, Celeriac, Context, State, TaskId, task};
use futures_util::future::try_join_all;

use crate::kit::{Gate, LONG, add, builder, on_both, record, until, until_status};

/// Waits at a gate, and then ends as it is told.
#[task(queue = "io", max_running = 2, limit_key = "{gateway}", max_retries = 0)]
async fn calls(gateway: String, gate: String, how: String) -> Result<(), TaskError> {
    let _ = gateway;
    Gate::named(&gate).pass().await;
    match how.as_str() {
        "fails" => Err(TaskError::permanent("as it was told")),
        "panics" => panic!("as it was told"),
        "is rejected" => Err(TaskError::reject("as it was told")),
        _ => Ok(()),
    }
}

fn key() -> String {
    TaskId::new().to_string()
}

async fn call(celeriac: &Celeriac, key: &str, gate: &Gate, how: &str) -> AsyncResult<calls::Task> {
    let call = calls::s(key.to_owned(), gate.name.clone(), how.to_owned());
    call.send(celeriac.client()).await.unwrap()
}

#[tokio::test]
async fn no_more_of_a_key_run_than_may_and_others_go_on() {
    on_both(|celeriac| async move {
        let (gate, other, one, two) = (Gate::new(), Gate::new(), key(), key());
        let mut sent = Vec::new();
        for _ in 0..6 {
            sent.push(call(&celeriac, &one, &gate, "").await);
        }
        gate.entered(2).await;
        // The queue has four workers, and the other two are free.
        for n in 0..8 {
            assert_eq!(add::s(n, 1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(n + 1));
        }
        sent.push(call(&celeriac, &two, &other, "").await);
        other.entered(1).await;
        let status = until_status(&celeriac, "io", |queue| queue.running == 3).await;
        assert_eq!((status.held, status.ready), (4, 0));
        assert_eq!(
            (status.blockage, status.oldest_wait),
            (Duration::ZERO, Duration::ZERO),
            "it is not blocked"
        );
        assert!(status.oldest_held > Duration::ZERO);
        assert_eq!(sent[5].state().await, Ok(State::Received), "a worker has it, and has not started it");
        let explanation = celeriac.explain(sent[5].id()).await.unwrap();
        assert_eq!(explanation.reason().code(), "held");
        let expected = format!("the limit `runs of runtime::limits::calls` for `{one}`: 2 run already");
        assert!(explanation.to_string().contains(&expected), "{explanation}");
        gate.open();
        other.open();
        for task in &sent {
            assert_eq!(record(task).await.attempts, 1, "no attempt is burnt");
        }
        assert_eq!(gate.gauge.most(), 2);
        let status = until_status(&celeriac, "io", |queue| queue.running == 0).await;
        assert_eq!((status.held, status.oldest_held), (0, Duration::ZERO));
    })
    .await;
}

#[tokio::test]
async fn a_place_comes_back_however_a_run_ends() {
    on_both(|celeriac| async move {
        let key = key();
        for how in ["succeeds", "fails", "panics", "is rejected"] {
            let gate = Gate::new();
            gate.open();
            let mut sent = Vec::new();
            for _ in 0..5 {
                sent.push(call(&celeriac, &key, &gate, how).await);
            }
            for task in &sent {
                record(task).await;
            }
        }
        // Revoked while they run, and while they are held.
        let gate = Gate::new();
        let mut sent = Vec::new();
        for _ in 0..4 {
            sent.push(call(&celeriac, &key, &gate, "").await);
        }
        gate.entered(2).await;
        until_status(&celeriac, "io", |queue| queue.held == 2).await;
        for task in sent.iter().rev() {
            assert_eq!(task.revoke(true).await, Ok(true));
            assert_eq!(record(task).await.state, State::Revoked);
        }
        // Ended at their limit.
        let mut sent = Vec::new();
        for _ in 0..2 {
            let call = calls::s(key.clone(), gate.name.clone(), String::new());
            let call = call.time_limit(Duration::from_millis(50));
            sent.push(call.send(celeriac.client()).await.unwrap());
        }
        for task in &sent {
            assert_eq!(record(task).await.error_type.as_deref(), Some("TimeLimitExceeded"));
        }
        let last = Gate::new();
        for _ in 0..3 {
            call(&celeriac, &key, &last, "").await;
        }
        last.entered(2).await;
        until_status(&celeriac, "io", |queue| (queue.running, queue.held) == (2, 1)).await;
        last.open();
        last.left(3).await;
        assert_eq!(last.gauge.most(), 2);
    })
    .await;
}

/// One start an hour for each gateway.
#[task(queue = "io", rate_limit = "1/h", rate_key = "{gateway}")]
async fn sends(gateway: String) {
    let _ = gateway;
}

#[tokio::test]
async fn each_key_has_its_own_rate() {
    on_both(|celeriac| async move {
        let (one, two) = (key(), key());
        let send = async |key: &str| sends::s(key.to_owned()).send(celeriac.client()).await.unwrap();
        assert_eq!(send(&one).await.get(LONG).await, Ok(()));
        let held = send(&one).await;
        assert_eq!(send(&two).await.get(LONG).await, Ok(()));
        until_status(&celeriac, "io", |queue| (queue.held, queue.ready, queue.running) == (1, 0, 0)).await;
        assert_eq!(held.revoke(false).await, Ok(true));
        until_status(&celeriac, "io", |queue| queue.held == 0).await;
    })
    .await;
}

/// As [`sends`], in the queue that has one worker and one more delivery in hand.
#[task(queue = "one", rate_limit = "1/h", rate_key = "{gateway}")]
async fn sends_one(gateway: String) {
    let _ = gateway;
}

/// A place at a gateway that two tenants share goes to them in turns, however much of one of them waits.
#[tokio::test]
async fn tenants_take_turns_at_a_limit_that_they_share() {
    on_both(|celeriac| async move {
        let (first, flood, other, key) = (Gate::new(), Gate::new(), Gate::new(), key());
        let send = async |gate: &Gate, tenant: &str| {
            let call = calls::s(key.clone(), gate.name.clone(), String::new()).header(TENANT, tenant);
            call.send(celeriac.client()).await.unwrap()
        };
        for _ in 0..2 {
            send(&first, "large").await;
        }
        first.entered(2).await;
        for _ in 0..20 {
            send(&flood, "large").await;
        }
        send(&other, "small").await;
        until_status(&celeriac, "io", |queue| (queue.running, queue.held) == (2, 21)).await;
        first.open();
        other.entered(1).await;
        flood.entered(1).await;
        assert_eq!(flood.gauge.all(), 1, "the other place went to the other tenant");
        flood.open();
        other.open();
        flood.left(20).await;
        other.left(1).await;
    })
    .await;
}

/// The room that a queue has made for what is behind the held tasks stays when it gets another number of workers.
#[tokio::test]
async fn a_resize_leaves_the_room_for_what_is_behind_held_tasks() {
    on_both(|celeriac| async move {
        let (one, two) = (key(), key());
        let send = async |key: &str| sends_one::s(key.to_owned()).send(celeriac.client()).await.unwrap();
        assert_eq!(send(&one).await.get(LONG).await, Ok(()));
        for _ in 0..3 {
            send(&one).await;
        }
        until_status(&celeriac, "one", |queue| (queue.held, queue.running) == (3, 0)).await;
        celeriac.resize("one", 2).await.unwrap();
        assert_eq!(send(&two).await.get(LONG).await, Ok(()), "three are held, and two may be delivered");
        until_status(&celeriac, "one", |queue| (queue.held, queue.ready) == (3, 0)).await;
    })
    .await;
}

/// Five thousand in front, more than the queue has room for: it puts the rest back, and looks at what is behind them.
#[tokio::test]
async fn what_is_behind_five_thousand_held_tasks_starts_at_once() {
    const MANY: usize = 5_000;
    on_both(|celeriac| async move {
        let (gate, key) = (Gate::new(), key());
        let send = |_| {
            let call = calls::s(key.clone(), gate.name.clone(), String::new());
            call.send(celeriac.client()).into_future()
        };
        let sent = try_join_all((0..MANY).map(send)).await.unwrap();
        assert_eq!(add::s(20, 22).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(42));
        let status = until_status(&celeriac, "io", |queue| queue.put_back > 0).await;
        assert!(status.held <= 1024 && status.running <= 3, "{status:#?}");
        // Another one finds no slot taken.
        assert_eq!(add::s(1, 2).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(3));
        // What was put back is not lost, and has burnt no attempt.
        gate.open();
        for task in &sent {
            assert_eq!(record(task).await.attempts, 1);
        }
        assert_eq!(gate.gauge.most(), 2);
        let status = until_status(&celeriac, "io", |queue| queue.running == 0).await;
        assert_eq!((status.held, status.ready, status.scheduled), (0, 0, 0), "{status:#?}");
        assert_eq!((status.retried, status.failed), (0, 0), "{status:#?}");
    })
    .await;
}

/// A program that ends gives back what it holds, and the next one goes on with it.
#[tokio::test]
async fn what_is_held_and_put_back_outlives_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = builder().directory(dir.path()).start().await.unwrap();
    let (gate, key) = (Gate::new(), key());
    let send = |_| {
        let call = calls::s(key.clone(), gate.name.clone(), String::new());
        call.send(celeriac.client()).into_future()
    };
    let sent = try_join_all((0..1_500).map(send)).await.unwrap();
    until_status(&celeriac, "io", |queue| queue.put_back > 0).await;
    celeriac.shutdown_within(Duration::from_millis(10)).await.unwrap();
    gate.open();
    let again = builder().directory(dir.path()).start().await.unwrap();
    for task in &sent {
        let record = tokio::time::timeout(LONG, again.client().wait(task.id())).await.unwrap().unwrap();
        assert_eq!((record.state, record.attempts), (State::Success, 1));
    }
    again.shutdown().await.unwrap();
}

/// The queues of the kit, with this catalogue's limits.
fn with(catalogue: Catalogue) -> Builder {
    let rows = ["io", "cpu"].map(|name| crate::kit::io_queue(name, 4));
    let catalogue = rows.into_iter().fold(catalogue, Catalogue::with_queue);
    Celeriac::builder().catalogue(catalogue).arbiters(2)
}

/// A zone in which it is past noon, so that its day does not end within a test.
static PAST_NOON: LazyLock<Zone> = LazyLock::new(|| {
    let hour = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3600 % 24;
    let name = if hour < 12 { format!("Etc/GMT-{}", 12 - hour) } else { format!("Etc/GMT+{}", hour - 12) };
    name.parse().unwrap()
});

#[task(queue = "io")]
async fn reports(domain: String) -> String {
    domain
}

fn row(limit: impl FnOnce(&mut StartLimit)) -> LimitRow {
    let mut allowed = StartLimit::default();
    limit(&mut allowed);
    LimitRow::new("runtime::limits::reports", allowed).with_key("domain").with_zone(*PAST_NOON)
}

async fn report(celeriac: &Celeriac, domain: &str) -> AsyncResult<reports::Task> {
    reports::s(domain.to_owned()).send(celeriac.client()).await.unwrap()
}

#[tokio::test]
async fn a_cap_of_a_day_holds_through_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let catalogue = Catalogue::new().with_limit(row(|limit| limit.daily = Some(3)));
    let celeriac = with(catalogue.clone()).directory(dir.path()).start().await.unwrap();
    for _ in 0..3 {
        assert_eq!(report(&celeriac, "demo").await.get(LONG).await.as_deref(), Ok("demo"));
    }
    let held = report(&celeriac, "demo").await;
    assert_eq!(report(&celeriac, "other").await.get(LONG).await.as_deref(), Ok("other"));
    until_status(&celeriac, "io", |queue| queue.held == 1).await;
    celeriac.shutdown().await.unwrap();
    let again = with(catalogue).directory(dir.path()).start().await.unwrap();
    assert_eq!(report(&again, "other").await.get(LONG).await.as_deref(), Ok("other"));
    until_status(&again, "io", |queue| (queue.held, queue.ready, queue.done) == (1, 0, 1)).await;
    again.shutdown().await.unwrap();
    // Another day's cap, as on another day.
    let more = Catalogue::new().with_limit(row(|limit| limit.daily = Some(4)));
    let more = with(more).directory(dir.path()).start().await.unwrap();
    let done = more.async_result(held.id().clone());
    assert_eq!(done.get::<String>(LONG).await.as_deref(), Ok("demo"));
    more.shutdown().await.unwrap();
}

#[tokio::test]
async fn hours_hold_back_what_comes_outside_of_them() {
    // It is between twelve and thirteen there.
    for (hours, is_open) in [("11:00-15:00", true), ("20:00-06:00", false)] {
        let hours = AllowedHours::new(hours, None).unwrap();
        let catalogue = Catalogue::new().with_limit(row(|limit| limit.hours = Some(hours)));
        let celeriac = with(catalogue).in_memory().start().await.unwrap();
        let sent = report(&celeriac, "demo").await;
        if is_open {
            assert_eq!(sent.get(LONG).await.as_deref(), Ok("demo"));
        } else {
            until_status(&celeriac, "io", |queue| (queue.held, queue.ready) == (1, 0)).await;
        }
        celeriac.shutdown().await.unwrap();
    }
}

/// A part of a limit: how many tasks start before it holds one, how it is set, and what is told of it.
type LimitPart = (usize, fn(&mut StartLimit), &'static str);

/// Whichever part of a limit holds a task is named, and without the limit the task starts.
#[tokio::test]
async fn each_part_of_a_limit_is_named_until_it_is_gone() {
    let parts: [LimitPart; 3] = [
        (1, |limit| limit.rate = RateLimit::parse("1/h").unwrap(), "its rate of 1/h is used up"),
        (1, |limit| limit.daily = Some(1), "1 have started today"),
        (0, |limit| limit.hours = Some(AllowedHours::new("20:00-06:00", None).unwrap()), "it allows "),
    ];
    for (before, part, says) in parts {
        let dir = tempfile::tempdir().unwrap();
        let limited = with(Catalogue::new().with_limit(row(part)));
        let celeriac = limited.directory(dir.path()).start().await.unwrap();
        for _ in 0..before {
            assert_eq!(report(&celeriac, "demo").await.get(LONG).await.as_deref(), Ok("demo"));
        }
        let held = report(&celeriac, "demo").await;
        // At first the store may have to be asked.
        until(says, async || {
            let told = celeriac.explain(held.id()).await.unwrap();
            told.reason().code() == "held" && told.to_string().contains(says)
        })
        .await;
        celeriac.shutdown().await.unwrap();
        let free = with(Catalogue::new()).directory(dir.path()).start().await.unwrap();
        let freed = free.async_result(held.id().clone());
        assert_eq!(freed.get::<String>(LONG).await.as_deref(), Ok("demo"), "{says}");
        free.shutdown().await.unwrap();
    }
}

#[derive(Debug, thiserror::Error)]
enum GatewayError {
    #[error("the gateway is down")]
    Down,
    #[error("there is no such number")]
    NoSuchNumber,
}

fn is_expected(error: &GatewayError) -> bool {
    matches!(error, GatewayError::NoSuchNumber)
}

#[task(
    queue = "io",
    limit_key = "{gateway}",
    breaker(errors = 2, of = 4, pause = "1h", longest = "2h"),
    throws = is_expected,
    max_retries = 0
)]
async fn texts(gateway: String, how: String) -> Result<(), GatewayError> {
    let _ = gateway;
    match how.as_str() {
        "down" => Err(GatewayError::Down),
        "no such number" => Err(GatewayError::NoSuchNumber),
        _ => Ok(()),
    }
}

#[task(
    queue = "io",
    limit_key = "{gateway}",
    breaker(errors = 1, of = 1, pause = "20ms", longest = "1s"),
    max_retries = 0
)]
async fn finds_out(gateway: String, fails: bool) -> Result<(), TaskError> {
    let _ = gateway;
    if fails { Err(TaskError::permanent("down")) } else { Ok(()) }
}

#[tokio::test]
async fn a_key_with_too_many_errors_pauses_and_one_run_finds_out() {
    on_both(|celeriac| async move {
        let (one, two) = (key(), key());
        let text = async |key: &str, how: &str| {
            texts::s(key.to_owned(), how.to_owned()).send(celeriac.client()).await.unwrap()
        };
        for how in ["no such number", "no such number", "no such number", "down", "fine", "down"] {
            record(&text(&one, how).await).await;
            // Its end is counted by the queue, a moment later.
            until_status(&celeriac, "io", |queue| queue.running == 0).await;
        }
        let held = text(&one, "fine").await;
        assert_eq!(text(&two, "fine").await.get(LONG).await, Ok(()), "another key");
        until_status(&celeriac, "io", |queue| (queue.held, queue.running) == (1, 0)).await;
        let told = celeriac.explain(held.id()).await.unwrap();
        assert!(told.to_string().contains("it pauses after 2 errors of 4 runs"), "{told}");
        assert_eq!(held.revoke(false).await, Ok(true));

        let run = async |fails: bool| finds_out::s(one.clone(), fails).send(celeriac.client()).await.unwrap();
        // Each failure pauses the key for longer, and what comes then waits for the end of the pause.
        for fails in [true, true, true, false, false, true, false] {
            let state = record(&run(fails).await).await.state;
            assert_eq!(state, if fails { State::Failure } else { State::Success });
        }
    })
    .await;
}

/// The time for which a limit holds a task is no part of its time-to-start.
#[tokio::test]
async fn the_wait_behind_a_limit_has_a_figure_of_its_own() {
    on_both(|celeriac| async move {
        let (gate, key) = (Gate::new(), key());
        let begun = Instant::now();
        for _ in 0..3 {
            call(&celeriac, &key, &gate, "").await;
        }
        gate.entered(2).await;
        let held =
            until_status(&celeriac, "io", |queue| queue.oldest_held > Duration::from_millis(200)).await;
        assert_eq!((held.held, held.time_to_start.count), (1, 2));
        gate.open();
        gate.left(3).await;
        let status = until_status(&celeriac, "io", |queue| queue.running == 0).await;
        let accounts = celeriac.accounts().await;
        let io = accounts.iter().find(|queue| queue.status.name == "io").expect("it answers");
        let waits = io.accounts.limit_waits();
        assert_eq!((waits.count(), status.time_to_start.count), (1, 3));
        assert!(waits.sum() >= held.oldest_held, "{:?}", waits.sum());
        let both = waits.sum() + status.time_to_start.max;
        assert!(both <= begun.elapsed(), "{both:?}: a part of it was counted twice");
    })
    .await;
}

#[tokio::test]
async fn a_key_that_is_no_parameter_stops_the_start() {
    let wrong = row(|limit| limit.rate = RateLimit::parse("8/s").unwrap()).with_key("domian");
    let started = with(Catalogue::new().with_limit(wrong)).in_memory().start().await;
    let text = started.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(
        text.starts_with("the limit `runtime::limits::reports` cannot be kept: its key `domian`"),
        "{text}"
    );
    assert!(
        text.contains("whose parameters are: domain; a key may also be \"tenant\"; did you mean `domain`?"),
        "{text}"
    );
}

/// A context is no argument, and a rate of all processes needs no key.
#[task(queue = "io", rate_limit = "1000/s", rate_scope = "cluster")]
async fn without_key(ctx: Context) -> u32 {
    ctx.attempt()
}

#[tokio::test]
async fn a_rate_of_the_cluster_is_that_of_the_process_where_there_is_no_other() {
    on_both(|celeriac| async move {
        let sent = try_join_all((0..20).map(|_| without_key::s().send(celeriac.client()).into_future()))
            .await
            .unwrap();
        for task in &sent {
            assert_eq!(task.get(LONG).await, Ok(1));
        }
    })
    .await;
}
