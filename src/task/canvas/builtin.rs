//! The tasks that every Celery worker has. Celery's canvases call them, and so do Celeriac's.

use std::cell::Cell;
use std::sync::OnceLock;

use super::chunks;
use super::node::{Node, NodeKind};
use crate::task::registry::Registry;
use crate::task::{
    Arguments, Body, BodyFuture, Context, Hooks, Json, JsonMap, Outcome, RawSignature, TaskDefinition,
    TaskError, TaskKind, TaskOptions,
};

const fn builtin(name: &'static str, body: Body) -> TaskDefinition {
    let location = concat!(file!(), ", one of Celery's own");
    TaskDefinition {
        name,
        params: &[],
        location,
        kind: TaskKind::Io,
        options,
        body,
        hooks: Hooks::default,
        data: &[],
        serial: None,
        unique: None,
        rate_key: None,
        limit_key: None,
        tenant: None,
        search: &[],
    }
}

/// An error in one item fails the whole task. There is no retry, because it would do the items before that one again.
fn options() -> TaskOptions {
    TaskOptions { autoretry: false, ..TaskOptions::default() }
}

inventory::submit! { builtin("celery.accumulate", Body::Cpu(accumulate)) }
inventory::submit! { builtin("celery.map", Body::Io(map)) }
inventory::submit! { builtin("celery.starmap", Body::Io(starmap)) }
inventory::submit! { builtin("celery.chunks", Body::Cpu(chunked)) }
inventory::submit! { builtin("celery.backend_cleanup", Body::Cpu(backend_cleanup)) }

fn read(arguments: &Arguments) -> Result<(Vec<Json>, JsonMap), TaskError> {
    let wrong = |error: serde_json::Error| TaskError::reject(format!("the arguments are not JSON: {error}"));
    let or = |text: &str, empty: &str| if text.is_empty() { empty.to_owned() } else { text.to_owned() };
    let args = serde_json::from_str(&or(&arguments.args, "[]")).map_err(wrong)?;
    Ok((args, serde_json::from_str(&or(&arguments.kwargs, "{}")).map_err(wrong)?))
}

/// `celery.accumulate`: answers with all arguments as a list, or with the one at `index`.
fn accumulate(_: Context, arguments: &Arguments) -> Outcome {
    let (mut args, kwargs) = read(arguments)?;
    let Some(index) = kwargs.get("index").filter(|index| !index.is_null()) else {
        return Ok(Json::list(&args).to_string());
    };
    let index = index.as_u64().and_then(|index| usize::try_from(index).ok()).filter(|i| *i < args.len());
    let index =
        index.ok_or_else(|| TaskError::reject(format!("`index` is none of {} arguments", args.len())))?;
    Ok(args.swap_remove(index).to_string())
}

/// `celery.backend_cleanup`: does nothing, because each runtime sweeps expired results every minute. Celery's beat asks
/// for it nevertheless.
fn backend_cleanup(_: Context, _: &Arguments) -> Outcome {
    Ok("null".to_owned())
}

fn map(context: Context, arguments: &Arguments) -> Result<BodyFuture, TaskError> {
    let (task, items) = task_and_items(arguments)?;
    let items = items.into_iter().map(|item| Json::list(&[item]));
    Ok(Box::pin(run_all(context, task, items.collect())))
}

fn starmap(context: Context, arguments: &Arguments) -> Result<BodyFuture, TaskError> {
    let (task, items) = task_and_items(arguments)?;
    Ok(Box::pin(run_all(context, task, items)))
}

/// `celery.chunks`: replaces itself by a group with one message for each chunk.
fn chunked(_: Context, arguments: &Arguments) -> Outcome {
    let (_, kwargs) = read(arguments)?;
    let members = chunks::members(kwargs, &Cell::default()).map_err(TaskError::reject)?;
    Err(TaskError::replace_with(Node::new(NodeKind::Group(members)).into_raw()))
}

/// Reads the task that is called with each item, and the items.
fn task_and_items(arguments: &Arguments) -> Result<(&'static TaskDefinition, Vec<Json>), TaskError> {
    static REGISTRY: OnceLock<Option<Registry>> = OnceLock::new();
    let (args, mut kwargs) = read(arguments)?;
    let mut args = args.into_iter();
    let task = args.next().or_else(|| kwargs.remove("task")).unwrap_or_default();
    let task: RawSignature =
        task.read().map_err(|error| TaskError::reject(format!("`task` is no signature: {error}")))?;
    let items = args.next().or_else(|| kwargs.remove("it")).and_then(|items| items.read().ok());
    let items = items.ok_or_else(|| TaskError::reject("`it` is no list"))?;
    let registry = REGISTRY.get_or_init(|| Registry::discover().ok());
    let unknown = || TaskError::not_registered(format!("no task named `{}` in this program", task.task));
    Ok((registry.as_ref().and_then(|all| all.get(&task.task)).ok_or_else(unknown)?, items))
}

async fn run_all(context: Context, task: &'static TaskDefinition, items: Vec<Json>) -> Outcome {
    let mut results = Vec::with_capacity(items.len());
    for item in items {
        context.check()?;
        let arguments = Arguments { args: item.to_string(), kwargs: String::new() };
        let context = context.clone();
        results.push(match task.body {
            Body::Io(run) => run(context, &arguments)?.await?,
            Body::Cpu(run) => blocking::unblock(move || run(context, &arguments)).await?,
        });
    }
    Ok(format!("[{}]", results.join(",")))
}
