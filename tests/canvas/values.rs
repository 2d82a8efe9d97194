//! Values on their way: to the last digit, key by key in their order, and nothing that JSON has not.

use std::sync::atomic::{AtomicBool, Ordering};

use celeriac::task::canvas::{Canvas, IntoCanvas as _, chord, chunks, group, map, signature, starmap};
use celeriac::task::{Json, RawSignature, Task as _};
use celeriac::{Context, EnqueueError, State, TaskError, task};

use super::kit::*;

/// What no `Value` holds as it is, and what a careless reader changes.
const ODD: &str = r#"{"z": [1e400, -0.0, 1E+2, 1000000000000000000000000000000, 117.63331139400017], "a": {"y": 18446744073709551615, "x": 0.1}}"#;

fn odd() -> Json {
    ODD.parse().unwrap()
}

#[task]
async fn keep(value: Json) -> Json {
    value
}

/// The second of what comes and what is its own.
#[task]
async fn second(_first: Json, value: Json) -> Json {
    value
}

#[task]
async fn two(_first: Json, of: f64) -> f64 {
    of
}

#[task]
async fn all(values: Vec<Json>) -> Vec<Json> {
    values
}

/// Fails once, and goes on with the same once.
#[task(max_retries = 2, default_retry_delay = "10ms", retry_jitter = false)]
async fn again(ctx: Context, value: Json) -> Result<Json, TaskError> {
    match (ctx.message().retries, ctx.message().continuations) {
        (0, 0) => Err(TaskError::retry("once more")),
        (_, 0) => Err(TaskError::continue_with(again::s(value))),
        _ => Ok(value),
    }
}

/// Goes on as what it is given.
#[task]
async fn becomes(of: RawSignature) -> Result<Json, TaskError> {
    Err(TaskError::replace(of))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_that_is_an_argument_can_be_sent_and_take_a_tasks_place() {
    on_all(async |celeriac| {
        let client = celeriac.client();
        let steps = keep::s(odd()).then(again::p()).into_raw().unwrap();
        let value = becomes::s(steps.clone()).send(client.clone()).await.unwrap().get(LONG).await.unwrap();
        assert_eq!(value.text(), ODD);
        let sent = steps.into_canvas().returns::<Json>().send(client.clone()).await.unwrap();
        assert_eq!(sent.get(LONG).await.unwrap().text(), ODD);
        // A chain of which a step is no signature.
        let broken =
            serde_json::json!({"task": "celery.chain", "kwargs": {"tasks": [7]}, "subtask_type": "chain"});
        let broken: RawSignature = serde_json::from_value(broken).unwrap();
        let refused = broken.into_canvas().send(client.clone()).await.unwrap_err();
        assert!(matches!(refused, EnqueueError::Canvas(_)), "{refused:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_passed_on_stays_as_it_was_written() {
    on_all(async |celeriac| {
        let client = celeriac.client();
        let get = async |canvas: Canvas<Json>| {
            let value = canvas.send(client.clone()).await.unwrap().get(LONG).await.unwrap();
            value.text().to_owned()
        };
        assert_eq!(get(keep::s(odd()).then(keep::p()).then(again::p())).await, ODD);
        assert_eq!(get(keep::s(1.into()).then(second::p(odd()))).await, ODD, "a partial");
        let by_name = signature(keep::Task::NAME).kwarg("value", odd()).immutable().returns::<Json>();
        assert_eq!(get(keep::s(1.into()).then(by_name)).await, ODD, "by keyword");
        let both = format!("[{ODD},{ODD}]");
        let pair = || [keep::s(odd()), keep::s(odd())];
        assert_eq!(get(chord(pair(), all::p()).returns()).await, both);
        assert_eq!(get(group(pair()).returns()).await, both);
        assert_eq!(get(group(pair()).then(keep::p()).then(again::p())).await, both);
        assert_eq!(get(map(keep::Task, [odd(), odd()]).returns()).await, both);
        assert_eq!(get(starmap(keep::Task, [(odd(),), (odd(),)]).returns()).await, both);
        assert_eq!(get(chunks(keep::Task, [(odd(),), (odd(),)], 2).returns()).await, format!("[{both}]"));
        let link = signature(note::Task::NAME).args([Json::from("linked")]);
        assert_eq!(get(keep::s(odd()).link(link)).await, ODD);
    })
    .await;
}

/// Takes a `Value`, which holds 64 bits.
#[task]
async fn halve(value: serde_json::Value) -> f64 {
    value.as_f64().unwrap() / 2.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_integer_beyond_64_bits_keeps_its_digits_unless_a_task_takes_it_as_a_value() {
    on_all(async |celeriac| {
        const BIG: &str = "1000000000000000000000000000001";
        let (client, big) = (celeriac.client(), BIG.parse::<Json>().unwrap());
        let sent = group([keep::s(big.clone()), keep::s(1.into())]).send(client.clone()).await.unwrap();
        sent.save().await.unwrap();
        let restored = celeriac.group_result(sent.id().as_str()).await.unwrap().expect("it was saved");
        let values = restored.get(LONG).await.unwrap();
        assert_eq!(values.iter().map(Json::text).collect::<Vec<_>>(), [BIG, "1"]);
        let member = celeriac.async_result(sent.members()[0].id().clone());
        assert_eq!(member.info().await.unwrap().unwrap().text(), BIG);
        assert_eq!(member.get::<u128>(LONG).await, Ok(10_u128.pow(30) + 1));
        let halved = halve::s(serde_json::json!(4)).into_canvas();
        let mixed = [keep::s(big.clone()).into_canvas().untyped(), halved.untyped()];
        let values = group(mixed).send(client.clone()).await.unwrap().get(LONG).await.unwrap();
        assert_eq!(values.iter().map(Json::text).collect::<Vec<_>>(), [BIG, "2.0"]);
        let halved = keep::s(big).then(halve::p()).send(client).await.unwrap();
        assert_eq!(halved.get(LONG).await, Ok(5e29));
    })
    .await;
}

/// Tells what it was given, and waits until somebody has looked.
#[task]
async fn tell(ctx: Context, value: Json) -> Result<Json, TaskError> {
    ctx.update_state("LOOK", &value)?;
    while !LOOKED.swap(false, Ordering::SeqCst) {
        ctx.check()?;
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    Ok(value)
}

static LOOKED: AtomicBool = AtomicBool::new(false);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_with_a_state_does_too() {
    on_each(async |celeriac| {
        let result = tell::s(odd()).send(celeriac.client()).await.unwrap();
        until("the state is told", async || {
            let tracked = result.tracked().await.unwrap();
            let seen = tracked.filter(|tracked| tracked.state == "LOOK");
            seen.is_some_and(|tracked| tracked.meta.text() == ODD)
        })
        .await;
        LOOKED.store(true, Ordering::SeqCst);
        assert_eq!(result.get(LONG).await.unwrap().text(), ODD);
    })
    .await;
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Reading {
    at: u64,
    celsius: Option<f32>,
}

#[task]
async fn measure(of: Option<f64>) -> Reading {
    Reading { at: 1, celsius: of.map(|of| (1.0 / of) as f32) }
}

#[task(max_retries = 0)]
async fn tell_nan(ctx: Context) -> Result<(), TaskError> {
    ctx.update_state("PROGRESS", Some(f64::NAN))?;
    Ok(())
}

#[task(max_retries = 0)]
async fn send_nan(ctx: Context) -> Result<(), TaskError> {
    ctx.send_event("task-measured", Reading { at: 1, celsius: Some(f32::INFINITY) })?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nan_and_infinity_are_refused_at_the_call_and_fail_a_result() {
    on_all(async |celeriac| {
        let client = celeriac.client();
        let refused = |error: EnqueueError| {
            assert!(matches!(error, EnqueueError::Arguments { .. }), "{error}");
            assert!(error.to_string().contains("a number in it is"), "{error}");
        };
        refused(measure::s(Some(f64::NAN)).send(client.clone()).await.unwrap_err());
        refused(measure::s(Some(1.0)).then(two::p(f64::NAN)).send(client.clone()).await.unwrap_err());
        let by_name = || signature(measure::Task::NAME);
        refused(by_name().arg(f64::INFINITY).send(client.clone()).await.unwrap_err());
        refused(by_name().kwarg("of", [f64::NAN]).send(client.clone()).await.unwrap_err());
        refused(map(measure::Task, [f64::NAN]).send(client.clone()).await.unwrap_err());
        refused(measure::s(Some(1.0)).header("limit", f64::NAN).send(client.clone()).await.unwrap_err());
        refused(by_name().set("limit", [f64::NAN]).send(client.clone()).await.unwrap_err());
        refused(by_name().stamp("limit", Some(f64::NAN)).send(client.clone()).await.unwrap_err());
        let headed = measure::s(Some(1.0)).header("limit", f64::NAN);
        refused(headed.then(two::p(1.0)).stamp("a", 1).send(client.clone()).await.unwrap_err());
        refused(
            group([measure::s(Some(1.0)), measure::s(Some(f64::NAN))])
                .send(client.clone())
                .await
                .unwrap_err(),
        );

        let result = measure::s(Some(0.0)).send(client.clone()).await.unwrap();
        until("it has failed", async || result.state().await.unwrap().is_finished()).await;
        let record = result.result().await.unwrap().unwrap();
        assert_eq!((record.state, record.attempts), (State::Failure, 1));
        assert!(record.errors[0].contains("a number in it is inf, which JSON does not know"), "{record:?}");

        let result = send_nan::s().send(client.clone()).await.unwrap();
        until("it has failed", async || result.state().await.unwrap().is_finished()).await;
        let record = result.result().await.unwrap().unwrap();
        assert!(record.errors[0].contains("a number in it is inf"), "{record:?}");

        let result = tell_nan::s().send(client.clone()).await.unwrap();
        until("it has failed", async || result.state().await.unwrap().is_finished()).await;
        let record = result.result().await.unwrap().unwrap();
        assert!(record.errors[0].contains("a number in it is NaN"), "{record:?}");
    })
    .await;
}

#[task]
async fn log_in(_user: String, _pin: u64) {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_hides_its_arguments_also_when_they_are_wrong() {
    on_all(async |celeriac| {
        let step = signature(log_in::Task::NAME).arg("hunter2").argsrepr("***").immutable();
        let result = keep::s(1.into()).then(step).send(celeriac.client()).await.unwrap();
        until("it is refused", async || result.state().await.unwrap().is_finished()).await;
        let record = result.result().await.unwrap().unwrap();
        assert_eq!(record.state, State::Rejected);
        assert!(!format!("{record:?}").contains("hunter2"), "{record:?}");
        let letters = celeriac.dead_letters(10).await.unwrap();
        let letter = letters.iter().find(|letter| letter.message.id == *result.id()).unwrap();
        assert!(!letter.reason.contains("hunter2"), "{}", letter.reason);
        assert_eq!(letter.message.headers.0["argsrepr"], "***", "whoever lists them can tell");
    })
    .await;
}
