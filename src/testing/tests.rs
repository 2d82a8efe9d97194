use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use super::{Expectation, check_download, check_enqueued, check_not_enqueued, check_progress};
use crate::core::Timestamp;
use crate::core::calendar::Tenant;
use crate::soil::Download;
use crate::task::canvas::chord;
use crate::task::clock;
use crate::{
    Context, EnqueueError, GetError, State, TaskError, assert_download, assert_enqueued, assert_not_enqueued,
    assert_progress, periodic_task, serial_task, task, testing,
};

const PATIENCE: Duration = Duration::from_secs(60);

#[task(queue = "kit")]
async fn double(number: u32) -> u32 {
    number * 2
}

#[task(queue = "kit")]
fn sum(numbers: Vec<u32>) -> u32 {
    numbers.iter().sum()
}

/// This task fails until its last attempt.
#[task(queue = "kit", max_retries = 3, default_retry_delay = 60)]
async fn flaky(ctx: Context, good: u32) -> Result<u32, TaskError> {
    let attempt = ctx.attempt();
    if attempt < good { Err(TaskError::from_display(format!("attempt {attempt}"))) } else { Ok(attempt) }
}

#[task(queue = "kit", ignore_result = true, max_retries = 0)]
fn silent() -> Result<(), TaskError> {
    Err(TaskError::permanent("nobody looks"))
}

/// This task wants another worker, twice.
#[task(queue = "kit")]
async fn picky(ctx: Context) -> Result<(u32, bool), TaskError> {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    if ASKED.fetch_add(1, Ordering::SeqCst) < 2 {
        return Err(TaskError::reject_and_requeue("not on this machine"));
    }
    Ok((ctx.attempt(), ctx.is_redelivered()))
}

#[task(queue = "kit")]
async fn option_1() -> Result<(), TaskError> {
    Err(TaskError::fail(["my uncool", "errors"]))
}

/// A chord takes this task's place, and its last task gets the id.
#[task(queue = "kit")]
async fn replaced(numbers: Vec<u32>) -> Result<u32, TaskError> {
    Err(TaskError::replace(chord(numbers.into_iter().map(double::s), sum::p())))
}

/// This task waits for another task.
#[task(queue = "kit")]
async fn parent(number: u32) -> Result<u32, TaskError> {
    let child = double::delay(number).await?;
    Ok(child.get(PATIENCE).await.map_err(TaskError::from_display)? + 1)
}

/// This task enqueues another task from a plain function.
#[task(queue = "kit")]
fn blocking_parent(number: u32) -> Result<(), TaskError> {
    double::delay(number).wait()?;
    Ok(())
}

#[task(queue = "kit")]
async fn forever(turn: u32) -> Result<(), TaskError> {
    Err(TaskError::continue_with(forever::s(turn + 1)))
}

#[serial_task(key = "{tenant}", queue = "kit")]
async fn rebuild(tenant: String) -> String {
    tenant
}

static TICKS: AtomicUsize = AtomicUsize::new(0);

#[periodic_task(crontab("0 3 * * *"), queue = "kit", environments = ["kit-of-tests"])]
async fn nightly() {
    TICKS.fetch_add(1, Ordering::SeqCst);
}

#[tokio::test]
async fn eagerly_a_task_goes_all_the_way_with_its_retries() {
    let app = testing::eager().await.unwrap();
    let began = app.now();
    let result = flaky::delay(3).await.unwrap();
    assert_eq!(result.get(PATIENCE).await.unwrap(), 3);
    let states: Vec<State> = app.runs().iter().map(|ran| ran.state).collect();
    assert_eq!(states, [State::Retry, State::Retry, State::Success]);
    let record = result.result().await.unwrap().unwrap();
    assert_eq!((record.attempts, record.worker.as_deref()), (3, Some("kit#1")));
    // By backoff, 60 and 120 seconds passed on the test's clock, and the test did not wait for them.
    assert_eq!(app.now().since(began), Duration::from_secs(180));
}

#[tokio::test]
async fn what_is_put_back_waits_and_comes_as_redelivered_in_its_first_attempt() {
    let app = testing::start().await.unwrap();
    let result = picky::delay().await.unwrap();
    assert_eq!(app.run_until_idle().await, 1, "it does not go round");
    assert_eq!(app.advance(Duration::from_millis(999)).await, 0);
    assert_eq!(app.advance(Duration::from_millis(1)).await, 1);
    assert_eq!(app.advance(Duration::from_millis(1_999)).await, 0);
    assert_eq!(app.advance(Duration::from_millis(1)).await, 1);
    assert_eq!(result.get(PATIENCE).await, Ok((1, true)));
    let states: Vec<State> = app.runs().iter().map(|ran| ran.state).collect();
    assert_eq!(states, [State::Pending, State::Pending, State::Success]);
}

#[tokio::test]
async fn eagerly_errors_come_back_or_are_kept() {
    let app = testing::eager().await.unwrap();
    let error = flaky::s(9).max_retries(1).delay().await.unwrap_err();
    let EnqueueError::Ran { task, state, errors, .. } = &error else { panic!("{error}") };
    assert_eq!(
        (task.as_str(), *state, errors.as_slice()),
        (flaky_name(), State::Failure, &["attempt 2".to_owned()][..])
    );
    assert!(error.to_string().ends_with("was run at once and is FAILURE: attempt 2"), "{error}");
    assert!(matches!(silent::delay().await, Err(EnqueueError::Ran { .. })));
    let chosen = option_1::delay().await.unwrap();
    assert_eq!(chosen.result().await.unwrap().unwrap().errors, ["my uncool", "errors"]);
    drop(app);

    let app = testing::builder().eager(true).propagates(false).start().await.unwrap();
    let kept = flaky::s(9).max_retries(0).delay().await.unwrap();
    assert_eq!(kept.result().await.unwrap().unwrap().errors, ["attempt 1"]);
    drop(app);

    let _app = testing::builder().eager(true).propagates(false).propagates(true).start().await.unwrap();
    let error = flaky::s(9).max_retries(0).delay().await.unwrap_err();
    let EnqueueError::Ran { state, errors, .. } = &error else { panic!("{error}") };
    assert_eq!((*state, errors.as_slice()), (State::Failure, &["attempt 1".to_owned()][..]));
}

fn flaky_name() -> &'static str {
    <flaky::Task as task::Task>::NAME
}

#[tokio::test]
async fn eagerly_bodies_call_others_and_workflows_are_followed() {
    let app = testing::eager().await.unwrap();
    let outer = parent::delay(4).await.unwrap();
    assert_eq!(outer.get(PATIENCE).await.unwrap(), 9);
    blocking_parent::delay(6).await.unwrap();
    assert_enqueued!(app, double(6));
    let total = chord([double::s(1), double::s(2), double::s(3)], sum::p()).delay().await.unwrap();
    assert_eq!(total.get(PATIENCE).await.unwrap(), 12);
    let chained = double::s(5).then(double::p()).delay().await.unwrap();
    assert_eq!(chained.get(PATIENCE).await.unwrap(), 20);
    assert_enqueued!(app, double(..), times = 7);
}

#[tokio::test]
async fn what_takes_the_place_of_a_task_is_enqueued_as_well() {
    let app = testing::eager().await.unwrap();
    let report = replaced::delay(vec![1, 2]).await.unwrap();
    assert_eq!(report.get(PATIENCE).await.unwrap(), 6);
    assert_enqueued!(app, replaced(..), times = 1);
    assert_enqueued!(app, double(..), times = 2);
    assert_enqueued!(app, sum(..), times = 1);
}

#[tokio::test]
async fn eagerly_something_without_end_is_an_error() {
    let _app = testing::eager().await.unwrap();
    let error = forever::delay(0).await.unwrap_err().to_string();
    assert!(error.contains("not over after 10000 runs"), "{error}");
}

#[tokio::test]
async fn arguments_cross_json() {
    let app = testing::start().await.unwrap();
    let task = double::s(1).id("crooked");
    let (mut call, _) = task.into_parts();
    call.arguments = task::Arguments { args: "[\"one\"]".into(), kwargs: String::new() };
    app.client().enqueue(Box::new(call)).await.unwrap();
    let ran = app.step().await.unwrap();
    assert_eq!(ran.state, State::Rejected);
    assert!(ran.errors[0].contains("number"), "{:?}", ran.errors);
    assert_eq!(app.celeriac().dead_letters(9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_clock_is_moved_by_hand() {
    let app = testing::start().await.unwrap();
    let hour = Duration::from_secs(3_600);
    let late = double::s(1).countdown(2 * hour).delay().await.unwrap();
    let early = double::s(2).eta(app.now() + hour).delay().await.unwrap();
    assert_eq!(app.run_until_idle().await, 0);
    let GetError::Idle { state, next, .. } = early.get(PATIENCE).await.unwrap_err() else { panic!() };
    assert_eq!(state, State::Pending);
    assert!(next.contains("`advance` the clock"), "{next}");
    app.jump(3 * hour);
    assert_eq!(app.step().await.unwrap().id, *early.id());
    assert_eq!(late.state().await.unwrap(), State::Pending);
    assert_eq!(late.get(PATIENCE).await.unwrap(), 2); // asking for a result runs the due tasks
    assert_eq!(app.step().await, None);
}

#[tokio::test]
async fn what_comes_due_runs_at_its_time() {
    let start = Timestamp::from_millis(1_800_000_000_000);
    let app = testing::builder().at(start).start().await.unwrap();
    let result = flaky::delay(4).await.unwrap();
    assert_eq!(app.advance(Duration::from_secs(24 * 3_600)).await, 4);
    let record = result.result().await.unwrap().unwrap();
    // The three retries waited 60, 120 and 240 seconds.
    assert_eq!(record.finished_at.since(start), Duration::from_secs(420));
    assert_eq!(app.now().since(start), Duration::from_secs(24 * 3_600));
    assert_eq!(clock::now(), app.now());
}

#[tokio::test]
async fn expiry_is_by_the_tests_clock() {
    let app = testing::start().await.unwrap();
    let result = double::s(1).expires(Duration::from_secs(10)).delay().await.unwrap();
    app.jump(Duration::from_secs(11));
    assert_eq!(app.step().await.unwrap().state, State::Revoked);
    assert_eq!(result.state().await.unwrap(), State::Revoked);
}

#[tokio::test]
async fn a_dead_worker_is_a_second_run_and_enough_of_them_a_dead_letter() {
    let app = testing::start().await.unwrap();
    let result = double::delay(1).await.unwrap();
    app.crash_before_settle(double::Task);
    assert!(app.step().await.unwrap().crashed);
    let second = app.step().await.unwrap();
    assert_eq!((second.attempt, second.state), (2, State::Success));
    assert_eq!(result.result().await.unwrap().unwrap().attempts, 2);

    let poison = double::delay(2).await.unwrap();
    while poison.state().await.unwrap() == State::Pending {
        app.crash_at_start(double::Task);
        app.step().await.unwrap();
    }
    assert_eq!(poison.state().await.unwrap(), State::Failure);
    let letters = app.celeriac().dead_letters(9).await.unwrap();
    assert_eq!(letters[0].message.id, *poison.id());
    assert!(letters[0].reason.starts_with("WorkerLost"), "{}", letters[0].reason);
}

#[tokio::test]
async fn a_lane_keeps_its_order_through_a_crash() {
    let app = testing::start().await.unwrap();
    let first = rebuild::delay("a".into()).await.unwrap();
    let second = rebuild::delay("a".into()).await.unwrap();
    let other = rebuild::delay("b".into()).await.unwrap();
    app.crash_before_settle(rebuild::Task);
    let order: Vec<_> = [app.step().await, app.step().await, app.step().await, app.step().await]
        .map(|ran| ran.unwrap().id)
        .to_vec();
    assert_eq!(order, [first.id(), first.id(), other.id(), second.id()].map(Clone::clone));
}

#[tokio::test]
async fn periodic_tasks_fire_as_the_clock_goes() {
    let midnight = Timestamp::from_millis(1_772_323_200_000); // 2026-03-01T00:00Z
    let program = crate::Celeriac::builder().environment("kit-of-tests");
    let app = testing::builder().program(program).at(midnight).beat(true).start().await.unwrap();
    app.advance(Duration::from_secs(3 * 3_600 - 1)).await;
    assert_not_enqueued!(app, nightly());
    app.advance(Duration::from_secs(1)).await;
    assert_enqueued!(app, nightly(), times = 1, header = ("celery_beat_task", true));
    app.advance(Duration::from_secs(2 * 24 * 3_600)).await;
    assert_enqueued!(app, nightly(), times = 3);
    assert_eq!(TICKS.load(Ordering::SeqCst), 3);
}

/// How many tenants the list has.
static TENANTS: AtomicUsize = AtomicUsize::new(1);

fn tenants() -> task::TenantsFuture {
    Box::pin(async {
        let zones = ["UTC", "Africa/Nairobi", "Asia/Kolkata"];
        let listed = zones.into_iter().take(TENANTS.load(Ordering::SeqCst));
        Ok(listed.map(|zone| Tenant::new(zone, zone.parse().unwrap())).collect())
    })
}

#[periodic_task(
    crontab("0 3 * * *"),
    tenants = tenants,
    queue = "kit",
    environments = ["kit-with-tenants"]
)]
async fn nightly_of(zone: String) -> String {
    zone
}

#[tokio::test]
async fn each_tenant_has_its_tick_as_the_clock_goes() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let midnight = Timestamp::from_millis(1_772_323_200_000); // 2026-03-01T00:00Z
    let program = crate::Celeriac::builder().environment("kit-with-tenants");
    let app = testing::builder().program(program).at(midnight).beat(true).start().await.unwrap();
    app.advance(3 * HOUR - Duration::from_secs(1)).await;
    assert_not_enqueued!(app, nightly_of("UTC".into()));
    app.advance(Duration::from_secs(1)).await;
    assert_enqueued!(app, nightly_of("UTC".into()), times = 1);
    // A tenant that comes later is in the list within a quarter of an hour and begins then: in Nairobi 3 o'clock is
    // over.
    TENANTS.store(3, Ordering::SeqCst);
    app.advance(20 * HOUR).await;
    assert_not_enqueued!(app, nightly_of("Africa/Nairobi".into()));
    // 03:00 in Kolkata is 21:30 of the day before.
    assert_enqueued!(app, nightly_of("Asia/Kolkata".into()), times = 1);
    app.advance(HOUR).await;
    assert_enqueued!(app, nightly_of("Africa/Nairobi".into()), times = 1);
    TENANTS.store(2, Ordering::SeqCst);
    app.advance(7 * 24 * HOUR).await;
    assert_enqueued!(app, nightly_of("UTC".into()), times = 8);
    assert_enqueued!(app, nightly_of("Africa/Nairobi".into()), times = 8);
    assert_enqueued!(app, nightly_of("Asia/Kolkata".into()), times = 1);
    let last = app.runs().pop().unwrap();
    assert_eq!((last.state, app.now()), (State::Success, midnight + 8 * 24 * HOUR));
}

#[tokio::test]
async fn a_failed_assertion_shows_the_near_misses() {
    let app = testing::start().await.unwrap();
    double::s(7).priority(3).delay().await.unwrap();
    silent::delay().await.unwrap();
    let near = Expectation::call(double::s(8)).queue("kit").priority(4);
    let text = check_enqueued(&app, &near).unwrap_err();
    let name = <double::Task as task::Task>::NAME;
    let quiet = <silent::Task as task::Task>::NAME;
    let expected = format!(
        "{name}(number=8), queue = kit, priority = 4 was not enqueued\nthis was enqueued:\n  {name}(number=7) in queue kit: number is 7, not 8; priority is 3, not 4\n  {quiet}, 1 times"
    );
    assert_eq!(text, expected);
    let text = check_not_enqueued(&app, &Expectation::call(double::s(7))).unwrap_err();
    assert!(text.starts_with(&format!("{name}(number=7) was enqueued once\n")), "{text}");
    let text = check_enqueued(&app, &Expectation::of_type(double::Task).times(2)).unwrap_err();
    assert!(text.contains("(..) was to be enqueued 2 times, and was 1 times"), "{text}");
    let text = check_enqueued(&app, &Expectation::call(rebuild::s("a".into()))).unwrap_err();
    assert!(text.contains("no call of"), "{text}");
    for (wanted, difference) in [
        (Expectation::of_type(double::Task).countdown(PATIENCE), "countdown is none, not 60s"),
        (Expectation::of_type(double::Task).id("x"), "not x"),
        (
            Expectation::of_type(double::Task).header(("tenant", "acme")),
            "header tenant is none, not \"acme\"",
        ),
        (
            Expectation::of_type(double::Task).eta(Timestamp::ZERO),
            "eta is none, not 1970-01-01T00:00:00.000Z",
        ),
    ] {
        let text = check_enqueued(&app, &wanted).unwrap_err();
        assert!(text.contains(difference), "{text}");
    }
    app.forget();
    assert_not_enqueued!(app, double(..));
    assert_eq!(app.run_until_idle().await, 2);
}

#[task(queue = "kit")]
async fn reporting(ctx: Context) -> Result<(), TaskError> {
    for done in 1..=3 {
        ctx.update_state("PROGRESS", json!({ "current": done }))?;
    }
    Ok(())
}

#[tokio::test]
async fn reported_states_are_seen_all_of_them() {
    let app = testing::eager().await.unwrap();
    let result = reporting::delay().await.unwrap();
    let seen: Vec<_> = app.reported(result.id()).iter().map(|state| state.meta["current"].clone()).collect();
    assert_eq!(seen, [1, 2, 3]);
}

#[tokio::test]
async fn revoking_takes_out_what_waits() {
    let app = testing::start().await.unwrap();
    let result = double::delay(1).await.unwrap();
    assert!(result.revoke(false).await.unwrap());
    assert_eq!(app.step().await, None);
    assert_eq!(result.state().await.unwrap(), State::Revoked);
    assert!(matches!(app.celeriac().async_result("nobody").result().await, Ok(None)));
}

#[task(queue = "kit")]
async fn export(ctx: Context, rows: u64) -> Result<(), TaskError> {
    for row in 0..rows {
        ctx.progress(row + 1, rows);
    }
    if rows == 0 {
        return Err(ctx.fail(["nothing to export"]));
    }
    ctx.expose_download(Download::from_bytes("a,b\n").name("rows.csv").owner("amina")).await?;
    Ok(())
}

#[tokio::test]
async fn what_a_task_shows_its_user_is_seen() {
    let app = testing::eager().await.unwrap();
    let good = export::delay(4).await.unwrap();
    assert_progress!(app, good.id(), [(1, 4), (3, 4)]);
    assert_download!(app, good.id(), name = "rows.csv", size = 4, owners = ["amina"]);
    assert_eq!(app.downloaded(good.id()).await.unwrap(), b"a,b\n");
    let text = check_progress(&app, good.id(), &[(3, 4), (1, 4)]).unwrap_err();
    assert!(text.contains("not seen at 1 of 4 in its turn; it was seen at [(1, 4), (2, 4)"), "{text}");
    let bad = export::delay(0).await.unwrap();
    let text = check_download(&app, bad.id()).unwrap_err();
    assert!(text.ends_with("it ended as FAILURE: nothing to export"), "{text}");
    assert!(app.celeriac().soil().status(good.id()).await.unwrap().is_ready());
}
