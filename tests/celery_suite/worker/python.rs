//! What the tasks need of Python: its types, its `+` and `sum`, its exceptions, and the calls of redis-py.

use std::time::Duration;

use celeriac::TaskError;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// An exception of this class, which is not retried.
pub fn raise(module: &str, class: &str, args: impl IntoIterator<Item = String>) -> TaskError {
    TaskError::failure(args).with_python_type(module, class).with_transient(false)
}

pub fn type_error(text: impl Into<String>) -> TaskError {
    raise("builtins", "TypeError", [text.into()])
}

/// The suite's own exception, which most of its tests wait for.
pub fn expected(args: impl IntoIterator<Item = String>) -> TaskError {
    raise("t.integration.tasks", "ExpectedException", args)
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

/// Python's `bool(value)`.
pub fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
    }
}

/// Python's `x + y`.
pub fn plus(x: &Value, y: &Value) -> Result<Value, TaskError> {
    let number = |value: &Value| match value {
        Value::Bool(b) => Some(json!(i64::from(*b))),
        Value::Number(_) => Some(value.clone()),
        _ => None,
    };
    if let (Some(a), Some(b)) = (number(x), number(y)) {
        if let (Some(a), Some(b)) = (a.as_i64(), b.as_i64()) {
            return Ok(json!(a + b));
        }
        return Ok(json!(a.as_f64().unwrap_or_default() + b.as_f64().unwrap_or_default()));
    }
    match (x, y) {
        (Value::String(a), Value::String(b)) => Ok(json!(format!("{a}{b}"))),
        (Value::Array(a), Value::Array(b)) => Ok(Value::Array(a.iter().chain(b).cloned().collect())),
        _ => Err(type_error(format!(
            "unsupported operand type(s) for +: '{}' and '{}'",
            type_of(x),
            type_of(y)
        ))),
    }
}

/// Python's `sum(values)`.
pub fn sum<'a>(values: impl IntoIterator<Item = &'a Value>) -> Result<Value, TaskError> {
    values.into_iter().try_fold(json!(0), |total, value| plus(&total, value))
}

/// The arguments that were given to a task which has `*args` in Python.
pub fn given(args: impl IntoIterator<Item = Option<Value>>) -> Vec<Value> {
    args.into_iter().flatten().collect()
}

/// An argument of an exception, which is a text here.
pub fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub async fn sleep(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds.max(0.0))).await;
}

/// The suite's `get_redis_connection`; one connection serves all tasks.
async fn redis() -> Result<MultiplexedConnection, TaskError> {
    static CONNECTION: OnceCell<MultiplexedConnection> = OnceCell::const_new();
    let env = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let connect = || async {
        let url = format!("redis://{}:{}/0", env("REDIS_HOST", "localhost"), env("REDIS_PORT", "6379"));
        redis::Client::open(url)?.get_multiplexed_async_connection().await
    };
    Ok(CONNECTION.get_or_try_init(connect).await?.clone())
}

/// `rpush(key, message)` of redis-py, which takes text, bytes and numbers only. Bytes reach a parameter of the type
/// `Value` as a list of numbers.
pub async fn rpush(key: &str, message: &Value) -> Result<(), TaskError> {
    let message: Vec<u8> = match message {
        Value::String(text) => text.clone().into(),
        Value::Number(number) => number.to_string().into(),
        bytes @ Value::Array(_) => serde_json::from_value(bytes.clone())?,
        other => {
            let error = format!("Invalid input of type: '{}'.", type_of(other));
            return Err(raise("redis.exceptions", "DataError", [error]));
        }
    };
    Ok(redis().await?.rpush(key, message).await?)
}

pub async fn incr(key: &str) -> Result<(), TaskError> {
    Ok(redis().await?.incr(key, 1).await?)
}
