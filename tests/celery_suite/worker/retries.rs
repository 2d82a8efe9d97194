//! Tasks that are tried again.

use std::time::Duration;

use celeriac::{Context, TaskError, task};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::python::{expected, raise, truthy};

/// Python's task counts its attempts in an attribute of its own. It has Celery's three retries.
#[task(
    name = "t.integration.tasks.retry",
    max_retries = 3,
    default_retry_delay = 1,
    autoretry = false,
    acks_late = false
)]
async fn retry(ctx: Context, return_value: Option<Value>) -> Result<Value, TaskError> {
    match return_value {
        Some(value) if truthy(&value) && ctx.retries() >= 3 => Ok(value),
        _ => Err(expected([]).with_countdown(Duration::from_secs(5))),
    }
}

#[derive(Serialize, Deserialize)]
struct RetryKwargs {
    countdown: f64,
    max_retries: u32,
}

#[task(
    name = "t.integration.tasks.retry_unpickleable",
    default_retry_delay = 1,
    autoretry = false,
    acks_late = false
)]
async fn retry_unpickleable(foo: String, bar: Value, retry_kwargs: RetryKwargs) -> Result<(), TaskError> {
    let _ = bar;
    let error = raise("t.integration.tasks", "UnpickleableException", [foo]);
    let countdown = Duration::from_secs_f64(retry_kwargs.countdown);
    Err(error.with_countdown(countdown).with_max_retries(retry_kwargs.max_retries))
}

#[task(
    name = "t.integration.tasks.retry_with_args_after_kwargs",
    max_retries = 1,
    autoretry = false,
    acks_late = false
)]
async fn retry_with_args_after_kwargs(
    ctx: Context,
    foo: i64,
    bar: i64,
    label: Option<String>,
) -> Result<Value, TaskError> {
    if ctx.retries() == 0 {
        let next = retry_with_args_after_kwargs::s(foo + 1, bar + 1, label);
        return Err(TaskError::retry_in(Duration::ZERO, "with args").with_arguments(next));
    }
    Ok(json!({"foo": foo, "bar": bar, "label": label, "retries": ctx.retries(), "is_eager": false}))
}

#[task(
    name = "t.integration.tasks.retry_with_kwargs_after_args",
    max_retries = 1,
    autoretry = false,
    acks_late = false
)]
async fn retry_with_kwargs_after_args(ctx: Context, foo: i64, bar: i64) -> Result<Value, TaskError> {
    if ctx.retries() == 0 {
        let next = retry_with_kwargs_after_args::s(foo + 1, bar);
        return Err(TaskError::retry_in(Duration::ZERO, "with kwargs").with_arguments(next));
    }
    Ok(json!({"foo": foo, "bar": bar, "retries": ctx.retries(), "is_eager": false}))
}

fn again(countdown: Option<f64>, default: f64) -> TaskError {
    TaskError::retry_in(Duration::from_secs_f64(countdown.unwrap_or(default)), "")
}

/// A retry here keeps the expiry of its call; in Python it may get another one.
#[task(
    name = "t.integration.tasks.retry_once",
    expires = 120,
    max_retries = 1,
    autoretry = false,
    acks_late = false
)]
async fn retry_once(
    ctx: Context,
    a: Option<Value>,
    b: Option<Value>,
    expires: Option<f64>,
    max_retries: Option<u32>,
    countdown: Option<f64>,
) -> Result<u32, TaskError> {
    let _ = (a, b, expires);
    if ctx.retries() > 0 {
        return Ok(ctx.retries());
    }
    Err(again(countdown, 0.1).with_max_retries(max_retries.unwrap_or(1)))
}

#[task(
    name = "t.integration.tasks.retry_once_ignore_result",
    ignore_result,
    autoretry = false,
    acks_late = false
)]
async fn retry_once_ignore_result(ctx: Context) -> Result<u32, TaskError> {
    if ctx.retries() > 0 { Ok(ctx.retries()) } else { Err(again(Some(0.0), 0.0)) }
}

#[task(name = "t.integration.tasks.retry_once_with_result", autoretry = false, acks_late = false)]
async fn retry_once_with_result(ctx: Context) -> Result<u32, TaskError> {
    if ctx.retries() > 0 { Ok(ctx.retries()) } else { Err(again(Some(0.0), 0.0)) }
}

#[task(
    name = "t.integration.tasks.retry_once_priority",
    max_retries = 1,
    autoretry = false,
    acks_late = false
)]
async fn retry_once_priority(
    ctx: Context,
    a: Option<Value>,
    b: Option<Value>,
    expires: Option<f64>,
    max_retries: Option<u32>,
    countdown: Option<f64>,
) -> Result<u8, TaskError> {
    let _ = (a, b, expires);
    if ctx.retries() > 0 {
        return Ok(ctx.message().priority);
    }
    Err(again(countdown, 0.1).with_max_retries(max_retries.unwrap_or(1)))
}

#[task(
    name = "t.integration.tasks.retry_once_headers",
    max_retries = 1,
    autoretry = false,
    acks_late = false
)]
async fn retry_once_headers(
    ctx: Context,
    a: Option<Value>,
    b: Option<Value>,
    max_retries: Option<u32>,
    countdown: Option<f64>,
) -> Result<Map<String, Value>, TaskError> {
    let _ = (a, b);
    if ctx.retries() > 0 {
        return Ok(ctx.message().headers.0.clone().into_iter().collect());
    }
    Err(again(countdown, 0.1).with_max_retries(max_retries.unwrap_or(1)))
}

/// `autoretry_for = (ValueError,)`, `retry_kwargs = {"max_retries": 1}`, `retry_backoff = True`.
#[task(name = "auto_retry_class_task", max_retries = 1, default_retry_delay = 1, acks_late = false)]
async fn auto_retry_class_task(ctx: Context) -> Result<u32, TaskError> {
    if ctx.retries() > 0 {
        return Ok(ctx.retries());
    }
    Err(TaskError::failure(Vec::<String>::new()).with_python_type("builtins", "ValueError"))
}
