//! Layers around every run: their order, what they may do with a run, and what their panics cost.

use std::time::Duration;

use celeriac::task::{Layer, LayeredBody, Outcome};
use celeriac::testing;
use celeriac::{Celeriac, Context, GetError, State, TaskError, task};
use tokio::runtime::Handle;

use crate::kit::{Gate, LONG, add, builder, hold, note, notes, record, until};

/// Notes when it is entered, and with which outcome it is left.
struct Noting(&'static str);

#[celeriac::async_trait(?Send)]
impl Layer for Noting {
    async fn call(&self, ctx: &Context, body: LayeredBody<'_>) -> Outcome {
        note(ctx.id(), format!("into {}", self.0));
        let outcome = body.run().await;
        let told = match &outcome {
            Ok(value) => format!("value {value}"),
            Err(error) => format!("error {error}"),
        };
        note(ctx.id(), format!("out of {} with {told}", self.0));
        outcome
    }
}

#[task(queue = "io", max_retries = 0)]
async fn on_the_loop(ctx: Context, fail: bool) -> Result<u32, TaskError> {
    tokio::task::yield_now().await;
    note(ctx.id(), "body");
    if fail { Err(TaskError::failure(["no"])) } else { Ok(7) }
}

#[task(queue = "threads", max_retries = 0)]
fn on_a_thread(ctx: Context, fail: bool) -> Result<u32, TaskError> {
    note(ctx.id(), "body");
    if fail { Err(TaskError::failure(["no"])) } else { Ok(7) }
}

/// An async body in a queue whose bodies have threads.
#[task(queue = "threads", max_retries = 0)]
async fn alone_on_a_thread(ctx: Context, fail: bool) -> Result<u32, TaskError> {
    tokio::task::yield_now().await;
    note(ctx.id(), "body");
    if fail { Err(TaskError::failure(["no"])) } else { Ok(7) }
}

#[tokio::test]
async fn layers_are_around_each_body_in_the_order_in_which_they_were_added() {
    let celeriac = builder().in_memory().layer(Noting("A")).layer(Noting("B")).start().await.unwrap();
    for (fail, told) in [(false, "value 7"), (true, "error no")] {
        let client = || celeriac.client();
        let mut ids = Vec::new();
        let looped = on_the_loop::s(fail).send(client()).await.unwrap();
        ids.push((looped.id().clone(), record(&looped).await));
        let threaded = on_a_thread::s(fail).send(client()).await.unwrap();
        ids.push((threaded.id().clone(), record(&threaded).await));
        let alone = alone_on_a_thread::s(fail).send(client()).await.unwrap();
        ids.push((alone.id().clone(), record(&alone).await));
        for (id, record) in ids {
            assert_eq!(record.state == State::Failure, fail, "{}", record.task);
            let [out_b, out_a] = ["B", "A"].map(|layer| format!("out of {layer} with {told}"));
            assert_eq!(
                notes(&id),
                ["into A", "into B", "body", out_b.as_str(), out_a.as_str()],
                "{}",
                record.task
            );
        }
    }
    celeriac.shutdown().await.unwrap();
}

/// Does with a run what the header `do` of its call says.
struct Willful;

#[celeriac::async_trait(?Send)]
impl Layer for Willful {
    async fn call(&self, ctx: &Context, body: LayeredBody<'_>) -> Outcome {
        let what = ctx.header("do").and_then(|what| what.as_str()).unwrap_or_default();
        match what {
            "refuse" => Err(TaskError::permanent("not today")),
            "put off" if notes(ctx.id()).is_empty() => {
                note(ctx.id(), "put off");
                Err(TaskError::postpone(Duration::from_millis(10)))
            }
            "answer" => Ok("42".to_owned()),
            "change" => body.run().await.map(|value| format!("{value}0")),
            "forgive" => body.run().await.or_else(|_| Ok("0".to_owned())),
            "panic before" => panic!("in the layer"),
            "panic after" => {
                let _ = body.run().await;
                panic!("in the layer");
            }
            _ => body.run().await,
        }
    }
}

#[tokio::test]
async fn a_layer_may_refuse_put_off_answer_and_change() {
    let celeriac = builder().in_memory().layer(Willful).start().await.unwrap();
    let client = || celeriac.client();
    for (what, fail, expected, noted) in [
        ("refuse", false, Err("not today"), vec![]),
        ("put off", false, Ok(7), vec!["put off", "body"]),
        ("answer", false, Ok(42), vec![]),
        ("change", false, Ok(70), vec!["body"]),
        ("forgive", true, Ok(0), vec!["body"]),
    ] {
        let looped = on_the_loop::s(fail).header("do", what).send(client()).await.unwrap();
        let threaded = on_a_thread::s(fail).header("do", what).send(client()).await.unwrap();
        for (id, got) in [(looped.id(), looped.get(LONG).await), (threaded.id(), threaded.get(LONG).await)] {
            match (got, expected) {
                (Ok(value), Ok(expected)) => assert_eq!(value, expected, "{what}"),
                (Err(GetError::Ended(record)), Err(error)) => {
                    assert_eq!((record.state, record.errors), (State::Failure, vec![error.to_owned()]));
                }
                (got, _) => panic!("{what}: {got:?}"),
            }
            assert_eq!(notes(id), noted, "{what}");
        }
    }
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_panic_of_a_layer_costs_the_attempt() {
    let celeriac = builder().in_memory().layer(Willful).start().await.unwrap();
    let client = || celeriac.client();
    for what in ["panic before", "panic after"] {
        let looped = on_the_loop::s(false).header("do", what).send(client()).await.unwrap();
        let threaded = on_a_thread::s(false).header("do", what).send(client()).await.unwrap();
        for record in [record(&looped).await, record(&threaded).await] {
            assert_eq!((record.state, record.errors), (State::Failure, vec!["in the layer".to_owned()]));
            assert_eq!(record.error_type.as_deref(), Some("Panic"), "{what}");
        }
    }
    // The queues go on.
    let looped = on_the_loop::s(false).send(client()).await.unwrap();
    let threaded = on_a_thread::s(false).send(client()).await.unwrap();
    assert_eq!((looped.get(LONG).await, threaded.get(LONG).await), (Ok(7), Ok(7)));
    celeriac.shutdown().await.unwrap();
}

/// Notes that it was left, however that came about.
struct Leaving;

struct Left<'a>(&'a Context);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        note(self.0.id(), "left");
    }
}

#[celeriac::async_trait(?Send)]
impl Layer for Leaving {
    async fn call(&self, ctx: &Context, body: LayeredBody<'_>) -> Outcome {
        let _left = Left(ctx);
        body.run().await
    }
}

#[task(queue = "io", max_retries = 0)]
async fn panics() {
    panic!("in the body");
}

#[task(queue = "threads", max_retries = 0)]
fn panics_on_a_thread() {
    panic!("in the body");
}

#[tokio::test]
async fn what_a_layer_holds_is_dropped_however_the_run_ends() {
    let celeriac = builder().in_memory().layer(Leaving).start().await.unwrap();
    let client = || celeriac.client();
    let looped = panics::s().send(client()).await.unwrap();
    assert_eq!(record(&looped).await.errors, ["in the body"]);
    let threaded = panics_on_a_thread::s().send(client()).await.unwrap();
    assert_eq!(record(&threaded).await.errors, ["in the body"]);
    let gate = Gate::new();
    let revoked = hold::s(gate.name.clone()).send(client()).await.unwrap();
    gate.entered(1).await;
    assert_eq!(revoked.revoke(true).await, Ok(true));
    let limited = hold::s(gate.name.clone()).time_limit(Duration::from_millis(20)).max_retries(0);
    let limited = limited.send(client()).await.unwrap();
    assert_eq!(record(&limited).await.state, State::Failure);
    for id in [looped.id(), threaded.id(), revoked.id(), limited.id()] {
        until("the layer was left", async || notes(id) == ["left"]).await;
    }
    celeriac.shutdown().await.unwrap();
}

/// A plain function that blocks on futures, by the runtime and by an enqueue.
#[task(queue = "threads", max_retries = 0)]
fn blocks(n: u32) -> Result<u32, TaskError> {
    let doubled = Handle::current().block_on(async move { tokio::spawn(async move { n * 2 }).await });
    futures_executor::block_on(async {});
    Ok(doubled?)
}

/// Waits for a timer around the body, as a layer with a time-out of its own does.
struct Timed;

#[celeriac::async_trait(?Send)]
impl Layer for Timed {
    async fn call(&self, _: &Context, body: LayeredBody<'_>) -> Outcome {
        // A timer that fires, and one that does not.
        let _ = tokio::time::timeout(Duration::from_millis(1), std::future::pending::<()>()).await;
        match tokio::time::timeout(LONG, body.run()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(TaskError::transient("it took too long")),
        }
    }
}

#[tokio::test]
async fn a_plain_function_inside_of_layers_may_block_on_futures() {
    let celeriac = builder().in_memory().layer(Timed).layer(Timed).start().await.unwrap();
    let blocked = blocks::s(21).send(celeriac.client()).await.unwrap();
    assert_eq!(blocked.get(LONG).await, Ok(42));
    let looped = add::s(1, 2).send(celeriac.client()).await.unwrap();
    assert_eq!(looped.get(LONG).await, Ok(3));
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_testing_kit_has_the_layers_of_the_program() {
    let program = Celeriac::builder().layer(Noting("A"));
    let app = testing::builder().program(program).start().await.unwrap();
    let looped = on_the_loop::s(false).send(app.client()).await.unwrap();
    let threaded = on_a_thread::s(false).send(app.client()).await.unwrap();
    app.run_until_idle().await;
    for id in [looped.id(), threaded.id()] {
        assert_eq!(notes(id), ["into A", "body", "out of A with value 7"]);
    }
}
