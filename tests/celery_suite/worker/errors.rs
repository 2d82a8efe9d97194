//! Tasks that fail, errbacks, and rejected messages.

use celeriac::{Context, TaskError, task};
use serde_json::Value;

use super::python::{expected, given, incr, raise, rpush, text};

#[task(name = "t.integration.tasks.fail", autoretry = false, acks_late = false)]
async fn fail(a: Option<Value>, b: Option<Value>, c: Option<Value>) -> Result<(), TaskError> {
    let more = given([a, b, c]);
    Err(expected(["Task expected to fail".to_owned()].into_iter().chain(more.iter().map(text))))
}

#[task(name = "t.integration.tasks.fail_unpickleable", autoretry = false, acks_late = false)]
async fn fail_unpickleable(foo: String, bar: Value) -> Result<(), TaskError> {
    let _ = bar;
    Err(raise("t.integration.tasks", "UnpickleableException", [foo]))
}

/// In Python `errback(request_id)`.
#[task(name = "t.integration.tasks.errback_old_style", autoretry = false, acks_late = false)]
async fn errback_old_style(request_id: String) -> Result<String, TaskError> {
    incr(&request_id).await?;
    Ok(request_id)
}

/// In Python `errback(request, exc, traceback)`, called by the worker itself; here it is a message with the id.
#[task(name = "t.integration.tasks.errback_new_style", autoretry = false, acks_late = false)]
async fn errback_new_style(request_id: String) -> Result<String, TaskError> {
    incr(&request_id).await?;
    Ok(request_id)
}

#[task(name = "t.integration.tasks.errback_old_style_with_args", autoretry = false, acks_late = false)]
async fn errback_old_style_with_args(request_id: String, label: Value) -> Result<(), TaskError> {
    rpush(&request_id, &label).await
}

#[task(name = "t.integration.tasks.errback_new_style_with_args", autoretry = false, acks_late = false)]
async fn errback_new_style_with_args(request_id: String, label: Value) -> Result<(), TaskError> {
    rpush(&request_id, &label).await
}

/// `Reject(requeue=True)`.
fn requeue() -> TaskError {
    TaskError::reject_and_requeue("once more")
}

#[task(name = "t.integration.tasks.reject_then_succeed", autoretry = false)]
async fn reject_then_succeed(ctx: Context) -> Result<String, TaskError> {
    if !ctx.is_redelivered() {
        return Err(requeue());
    }
    Ok("second-pass".to_owned())
}

/// Cannot store a result of its own before it is handed back.
#[task(name = "t.integration.tasks.store_success_then_reject", autoretry = false)]
async fn store_success_then_reject(ctx: Context) -> Result<String, TaskError> {
    if !ctx.is_redelivered() {
        return Err(requeue());
    }
    Ok("dedup-pass".to_owned())
}

#[task(name = "t.integration.tasks.reject_without_requeue", autoretry = false, acks_late = false)]
async fn reject_without_requeue() -> Result<(), TaskError> {
    Err(TaskError::reject("rejected"))
}
