//! Tasks that return what they are told of their own call.

use std::time::Duration;

use celeriac::{Context, TaskError, task};
use serde_json::{Map, Value, json};

use super::canvas::workflow;
use super::python::{given, rpush};

type Ids = (Option<String>, Option<String>, Value);

fn ids_(ctx: &Context, i: Value) -> Ids {
    let workflow = workflow(ctx);
    (workflow.root_id.map(|id| id.to_string()), workflow.parent_id.map(|id| id.to_string()), i)
}

#[task(name = "t.integration.tasks.ids", autoretry = false, acks_late = false)]
async fn ids(ctx: Context, i: Value) -> Ids {
    ids_(&ctx, i)
}

#[task(name = "t.integration.tasks.collect_ids", autoretry = false, acks_late = false)]
async fn collect_ids(ctx: Context, res: Value, i: Value) -> (Value, Ids) {
    (res, ids_(&ctx, i))
}

#[task(name = "t.integration.tasks.redis_echo_group_id", autoretry = false, acks_late = false)]
async fn redis_echo_group_id(ctx: Context, _x: Value, redis_key: Option<String>) -> Result<(), TaskError> {
    rpush(redis_key.as_deref().unwrap_or("redis-group-ids"), &json!(workflow(&ctx).group)).await
}

#[task(name = "t.integration.tasks.return_priority", autoretry = false, acks_late = false)]
async fn return_priority(ctx: Context, a: Option<Value>, b: Option<Value>) -> String {
    let _ = given([a, b]);
    format!("Priority: {}", ctx.message().priority)
}

#[task(name = "t.integration.tasks.return_request_eta", autoretry = false, acks_late = false)]
async fn return_request_eta(ctx: Context) -> Option<String> {
    ctx.message().eta.map(|eta| eta.to_string())
}

#[task(name = "t.integration.tasks.return_properties", autoretry = false, acks_late = false)]
async fn return_properties(ctx: Context) -> Map<String, Value> {
    ctx.properties()
}

fn seconds(limit: Option<Duration>) -> Value {
    match limit {
        None => Value::Null,
        Some(limit) if limit.subsec_nanos() == 0 => json!(limit.as_secs()),
        Some(limit) => json!(limit.as_secs_f64()),
    }
}

fn limits(ctx: &Context) -> Value {
    let message = ctx.message();
    json!({"time_limit": seconds(message.time_limit), "soft_time_limit": seconds(message.soft_time_limit)})
}

#[task(name = "t.integration.tasks.return_request_time_limits", autoretry = false, acks_late = false)]
async fn return_request_time_limits(ctx: Context) -> Value {
    limits(&ctx)
}

#[task(
    name = "t.integration.tasks.task_with_declared_time_limits",
    time_limit = 60,
    soft_time_limit = 45,
    autoretry = false,
    acks_late = false
)]
async fn task_with_declared_time_limits(ctx: Context) -> Value {
    limits(&ctx)
}

/// The macro refuses `soft_time_limit = 2, time_limit = 1`, as Celery does when it is called.
#[task(
    name = "t.integration.tasks.soft_time_limit_must_exceed_time_limit",
    autoretry = false,
    acks_late = false
)]
async fn soft_time_limit_must_exceed_time_limit() {}
