//! The Rust side of the tasks: as those in `python/app.py`, under the names `rust.…`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use celeriac::task::canvas::{Canvas, chain, signature};
use celeriac::task::{Json, Rest, RestByName};
use celeriac::{Context, TaskError, task};
use serde_json::{Value, json};

use crate::gates;

/// Python's `ValueError("bad", 42)`.
fn bad() -> TaskError {
    let error = TaskError::failure(["bad", "42"]).with_python_type("builtins", "ValueError");
    error.with_python_args(json!(["bad", 42])).with_transient(false)
}

#[task(name = "rust.add", queue = "rust")]
pub async fn add(x: i64, y: i64) -> i64 {
    x + y
}

#[task(name = "rust.mul", queue = "rust")]
pub async fn mul(x: i64, y: i64) -> i64 {
    x * y
}

#[task(name = "rust.total", queue = "rust")]
pub async fn total(numbers: Vec<i64>) -> i64 {
    numbers.iter().sum()
}

#[task(name = "rust.greet", queue = "rust")]
pub async fn greet(name: String, greeting: Option<String>, mark: Option<String>) -> String {
    format!("{} {name}{}", greeting.as_deref().unwrap_or("hello"), mark.as_deref().unwrap_or(""))
}

/// In Python: `def spread(first, second=5, *rest, **options)`.
#[task(name = "rust.spread", queue = "rust")]
pub async fn spread(
    first: Json,
    #[default = Json::from(5)] second: Json,
    rest: Rest<Json>,
    options: RestByName<Json>,
) -> (Json, Json, Rest<Json>, RestByName<Json>) {
    (first, second, rest, options)
}

#[task(name = "rust.echo", queue = "rust")]
pub async fn echo(value: Value) -> Value {
    value
}

#[task(name = "rust.keep", queue = "rust")]
pub async fn keep(value: Json) -> Json {
    value
}

/// Whatever came before it in a chain.
#[task(name = "rust.fail", queue = "rust")]
pub async fn fail(before: Option<Value>) -> Result<(), TaskError> {
    let _ = before;
    Err(bad())
}

#[task(name = "rust.sell", queue = "rust")]
pub async fn sell(article: String) -> Result<(), TaskError> {
    let error = TaskError::permanent(format!("3 {article} are left"));
    Err(error.with_python_type("errors", "OutOfStock").with_python_args(json!([article, 3])))
}

#[task(name = "rust.rejected", queue = "rust")]
pub async fn rejected() -> Result<(), TaskError> {
    Err(TaskError::reject("no"))
}

/// Sends an event of its own.
#[task(name = "rust.marked", queue = "rust")]
pub async fn marked(ctx: Context, mark: u32) -> Result<(), TaskError> {
    ctx.send_event("task-marked", json!({ "mark": mark }))?;
    Ok(())
}

#[task(name = "rust.flaky", queue = "rust", max_retries = 5)]
pub async fn flaky(ctx: &Context, failures: u32) -> Result<u32, TaskError> {
    let tried = ctx.retries();
    if tried < failures {
        return Err(TaskError::retry_in(Duration::ZERO, format!("try {tried}")));
    }
    Ok(tried)
}

#[task(name = "rust.hopeless", queue = "rust", max_retries = 2, default_retry_delay = 0)]
pub async fn hopeless(retries: u32) -> Result<(), TaskError> {
    assert_eq!(retries, 2, "the limit belongs to the task here");
    Err(bad().with_transient(true))
}

#[task(name = "rust.progress", queue = "rust")]
pub async fn progress(ctx: Context, key: String, steps: u32) -> Result<u32, TaskError> {
    for step in 1..=steps {
        ctx.update_state("PROGRESS", json!({ "current": step, "total": steps }))?;
        gates::hold(&key).await?;
    }
    Ok(steps)
}

#[task(name = "rust.bar", queue = "rust")]
pub async fn bar(ctx: Context, key: String, steps: u64) -> Result<u64, TaskError> {
    for step in 1..=steps {
        ctx.progress_note(format!("step {step}"));
        ctx.progress(step, steps);
        gates::hold(&key).await?;
    }
    Ok(steps)
}

#[task(name = "rust.hold", queue = "rust")]
pub async fn hold(key: String) -> Result<String, TaskError> {
    gates::hold(&key).await.map(|()| "released".to_owned())
}

#[task(name = "rust.hold_late", queue = "rust")]
pub async fn hold_late(key: String) -> Result<String, TaskError> {
    gates::hold(&key).await.map(|()| "released".to_owned())
}

/// The key is the last argument: a link puts the result before it.
#[task(name = "rust.note", queue = "rust")]
pub async fn note(value: Value, key: Option<String>) -> Result<(), TaskError> {
    match (value, key) {
        (Value::String(key), None) => gates::note(&key, &json!([])).await,
        (value, Some(key)) => gates::note(&key, &json!([value])).await,
        (value, None) => Err(TaskError::permanent(format!("{value} is no key"))),
    }
}

#[task(name = "rust.note_late", queue = "rust")]
pub async fn note_late(value: Value, key: String) -> Result<(), TaskError> {
    gates::note(&key, &value).await
}

#[task(name = "rust.note_only", queue = "rust", ignore_result)]
pub async fn note_only(value: Value, key: String) -> Result<Value, TaskError> {
    gates::note(&key, &value).await?;
    Ok(value)
}

/// A broadcast: each worker runs it. Its queue is that of a row of the fleet's catalogue.
#[task(name = "all.heard", queue = "rust", ignore_result)]
pub async fn heard(key: String) -> Result<(), TaskError> {
    gates::note(&key, &json!("rust")).await
}

/// An errback in the form that crosses the wire: the id of what failed.
#[task(name = "rust.on_error", queue = "rust")]
pub async fn on_error(failed: String, key: String) -> Result<(), TaskError> {
    gates::note(&key, &json!(failed)).await
}

/// When it ran, in seconds since 1970.
#[task(name = "rust.clock", queue = "rust")]
pub async fn clock() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// What it is told of itself; whatever came before it in a chain.
#[task(name = "rust.about", queue = "rust")]
pub async fn about(ctx: Context, before: Option<Value>) -> Value {
    let _ = before;
    let message = ctx.message();
    let workflow = message.workflow.as_deref();
    json!({
        "id": ctx.id(),
        "root_id": workflow.and_then(|workflow| workflow.root_id.clone()),
        "parent_id": workflow.and_then(|workflow| workflow.parent_id.clone()),
        "group": workflow.and_then(|workflow| workflow.group.clone()),
        "retries": ctx.retries(),
        "priority": message.priority,
        "tenant": ctx.header("x-tenant"),
    })
}

/// The headers that tracers write, and one of the application's, after so many failed attempts.
#[task(name = "rust.headers", queue = "rust", max_retries = 3, default_retry_delay = 0)]
pub async fn headers(
    ctx: Context,
    before: Option<Value>,
    failures: Option<u32>,
) -> Result<serde_json::Map<String, Value>, TaskError> {
    let _ = before;
    if ctx.retries() < failures.unwrap_or_default() {
        return Err(TaskError::retry("once more"));
    }
    let names = ["traceparent", "tracestate", "baggage", "sentry-trace", "x-tenant"];
    let told = names.into_iter().filter_map(|name| Some((name.to_owned(), ctx.header(name)?.clone())));
    Ok(told.collect())
}

/// Puts another task in its own place.
#[task(name = "rust.replaced_by", queue = "rust")]
pub async fn replaced_by(name: String, x: i64, y: i64) -> Result<i64, TaskError> {
    Err(TaskError::replace(signature(name).arg(x).arg(y)))
}

#[task(name = "rust.replaced_by_nothing", queue = "rust")]
pub async fn replaced_by_nothing() -> Result<(), TaskError> {
    Err(TaskError::replace(chain(Vec::<Canvas>::new())))
}

/// Adds another task to the chord that it is a member of.
#[task(name = "rust.grow", queue = "rust")]
pub async fn grow(ctx: Context, name: String, x: i64, y: i64) -> Result<i64, TaskError> {
    ctx.add_to_chord(signature(name).arg(x).arg(y)).await?;
    Ok(1)
}
