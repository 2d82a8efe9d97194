//! Tasks that compute something, or leave a note of their run in Redis.

use celeriac::task::Interrupt;
use celeriac::{Context, TaskError, task};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::python::{given, incr, plus, raise, rpush, sleep, sum, text, truthy};

#[task(name = "celery.ping", autoretry = false, acks_late = false)]
async fn ping() -> String {
    "pong".to_owned()
}

#[task(name = "t.integration.tasks.identity", autoretry = false, acks_late = false)]
async fn identity(x: Value) -> Value {
    x
}

fn add_(x: &Value, y: &Value, z: Option<&Value>) -> Result<Value, TaskError> {
    match z {
        Some(z) if truthy(z) => plus(&plus(x, y)?, z),
        _ => plus(x, y),
    }
}

#[task(name = "t.integration.tasks.add", autoretry = false, acks_late = false)]
async fn add(x: Value, y: Value, z: Option<Value>) -> Result<Value, TaskError> {
    add_(&x, &y, z.as_ref())
}

#[task(name = "t.integration.tasks.mul", autoretry = false, acks_late = false)]
async fn mul(x: i64, y: i64) -> i64 {
    x * y
}

#[task(name = "t.integration.tasks.write_to_file_and_return_int", autoretry = false, acks_late = false)]
fn write_to_file_and_return_int(file_name: String, i: Value) -> Result<Value, TaskError> {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(file_name)?;
    writeln!(file, "{i}")?;
    Ok(i)
}

#[task(name = "t.integration.tasks.add_not_typed", autoretry = false, acks_late = false)]
async fn add_not_typed(x: Value, y: Value) -> Result<Value, TaskError> {
    plus(&x, &y)
}

#[task(name = "t.integration.tasks.add_ignore_result", ignore_result, autoretry = false, acks_late = false)]
async fn add_ignore_result(x: Value, y: Value) -> Result<Value, TaskError> {
    plus(&x, &y)
}

#[task(name = "t.integration.tasks.add_with_result", autoretry = false, acks_late = false)]
async fn add_with_result(x: Value, y: Value) -> Result<Value, TaskError> {
    plus(&x, &y)
}

#[task(name = "t.integration.tasks.raise_error", autoretry = false, acks_late = false)]
async fn raise_error(a: Option<Value>, b: Option<Value>, c: Option<Value>) -> Result<(), TaskError> {
    let _ = given([a, b, c]);
    Err(raise("builtins", "ValueError", ["deliberate error".to_owned()]))
}

#[task(name = "t.integration.tasks.delayed_sum", autoretry = false, acks_late = false)]
async fn delayed_sum(numbers: Vec<Value>, pause_time: Option<f64>) -> Result<Value, TaskError> {
    sleep(pause_time.unwrap_or(1.0)).await;
    sum(&numbers)
}

#[task(name = "t.integration.tasks.delayed_sum_with_soft_guard", autoretry = false, acks_late = false)]
async fn delayed_sum_with_soft_guard(
    ctx: Context,
    numbers: Vec<Value>,
    pause_time: Option<f64>,
) -> Result<Value, TaskError> {
    tokio::select! {
        () = sleep(pause_time.unwrap_or(1.0)) => sum(&numbers),
        interrupt = ctx.interrupted() => match interrupt {
            Interrupt::SoftTimeLimit => Ok(json!(0)),
            other => Err(other.into()),
        },
    }
}

#[task(name = "t.integration.tasks.tsum", autoretry = false, acks_late = false)]
async fn tsum(nums: Vec<Value>) -> Result<Value, TaskError> {
    sum(&nums)
}

#[task(name = "t.integration.tasks.xsum", autoretry = false, acks_late = false)]
async fn xsum(nums: Vec<Value>) -> Result<Value, TaskError> {
    let inner: Result<Vec<Value>, TaskError> = nums
        .iter()
        .map(|num| match num {
            Value::Array(list) => sum(list),
            other => Ok(other.clone()),
        })
        .collect();
    sum(&inner?)
}

#[task(name = "t.integration.tasks.sum_and_record", autoretry = false, acks_late = false)]
async fn sum_and_record(ctx: Context, values: Vec<Value>, redis_key: String) -> Result<Value, TaskError> {
    let result = sum(&values)?;
    rpush(&redis_key, &json!(ctx.id())).await?;
    Ok(result)
}

#[task(name = "t.integration.tasks.print_unicode", autoretry = false, acks_late = false)]
async fn print_unicode(log_message: Option<Value>, print_message: Option<Value>) {
    let shown = |value: Option<Value>, default: &str| value.map_or_else(|| default.to_owned(), |v| text(&v));
    tracing::warn!("{}", shown(log_message, "håå®ƒ valmuefrø"));
    println!("{}", shown(print_message, "hiöäüß"));
}

#[task(name = "t.integration.tasks.return_exception", autoretry = false, acks_late = false)]
async fn return_exception(e: Value) -> (Value, bool) {
    (e, true)
}

#[task(name = "t.integration.tasks.sleeping", autoretry = false, acks_late = false)]
async fn sleeping(i: f64) {
    sleep(i).await;
}

#[task(name = "t.integration.tasks.redis_echo", autoretry = false, acks_late = false)]
async fn redis_echo(message: Value, redis_key: Option<String>) -> Result<(), TaskError> {
    rpush(redis_key.as_deref().unwrap_or("redis-echo"), &message).await
}

#[task(name = "t.integration.tasks.redis_count", autoretry = false, acks_late = false)]
async fn redis_count(redis_key: Option<String>) -> Result<(), TaskError> {
    incr(redis_key.as_deref().unwrap_or("redis-count")).await
}

#[task(name = "t.integration.tasks.replaced_with_me", autoretry = false, acks_late = false)]
async fn replaced_with_me() -> bool {
    true
}

#[derive(Serialize, Deserialize)]
struct AddParameterModel {
    x: i64,
    y: i64,
}

#[derive(Serialize, Deserialize)]
struct AddResultModel {
    result: i64,
}

#[task(name = "t.integration.tasks.add_pydantic", autoretry = false, acks_late = false)]
async fn add_pydantic(data: AddParameterModel) -> AddResultModel {
    AddResultModel { result: data.x + data.y }
}

#[task(name = "t.integration.tasks.add_pydantic_string_annotations", autoretry = false, acks_late = false)]
async fn add_pydantic_string_annotations(data: AddParameterModel) -> AddResultModel {
    AddResultModel { result: data.x + data.y }
}
