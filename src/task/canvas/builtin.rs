//! The tasks that every Celery worker has: Celery's own canvases call them, and so do ours.

use std::sync::OnceLock;

use serde_json::{Map, Value};

use super::chunks;
use super::node::{Kind, Node};
use crate::task::registry::Registry;
use crate::task::{
    Arguments, Body, BodyFuture, Context, Hooks, Outcome, RawSignature, TaskDefinition, TaskError, TaskKind,
    TaskOptions,
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
        serial: None,
        unique: None,
    }
}

/// An error in an item is that of the whole, and the items before it are not done again.
fn options() -> TaskOptions {
    TaskOptions { autoretry: false, ..TaskOptions::default() }
}

inventory::submit! { builtin("celery.accumulate", Body::Cpu(accumulate)) }
inventory::submit! { builtin("celery.map", Body::Io(map)) }
inventory::submit! { builtin("celery.starmap", Body::Io(starmap)) }
inventory::submit! { builtin("celery.chunks", Body::Cpu(chunked)) }
inventory::submit! { builtin("celery.backend_cleanup", Body::Cpu(backend_cleanup)) }

fn read(arguments: &Arguments) -> Result<(Vec<Value>, Map<String, Value>), TaskError> {
    let wrong = |error: serde_json::Error| TaskError::reject(format!("the arguments are not JSON: {error}"));
    let or = |text: &str, empty: &str| if text.is_empty() { empty.to_owned() } else { text.to_owned() };
    let args = serde_json::from_str(&or(&arguments.args, "[]")).map_err(wrong)?;
    Ok((args, serde_json::from_str(&or(&arguments.kwargs, "{}")).map_err(wrong)?))
}

/// All arguments as a list, or the one at `index`.
fn accumulate(_: Context, arguments: &Arguments) -> Outcome {
    let (mut args, kwargs) = read(arguments)?;
    let Some(index) = kwargs.get("index").filter(|index| !index.is_null()) else {
        return Ok(Value::Array(args).to_string());
    };
    let index = index.as_u64().and_then(|index| usize::try_from(index).ok()).filter(|i| *i < args.len());
    let index =
        index.ok_or_else(|| TaskError::reject(format!("`index` is none of {} arguments", args.len())))?;
    Ok(args.swap_remove(index).to_string())
}

/// Expired results are swept by each runtime every minute; Celery's beat asks for it nevertheless.
fn backend_cleanup(_: Context, _: &Arguments) -> Outcome {
    Ok("null".to_owned())
}

fn map(context: Context, arguments: &Arguments) -> Result<BodyFuture, TaskError> {
    let (task, items) = task_and_items(arguments)?;
    let items = items.into_iter().map(|item| Value::Array(vec![item]));
    Ok(Box::pin(run_all(context, task, items.collect())))
}

fn starmap(context: Context, arguments: &Arguments) -> Result<BodyFuture, TaskError> {
    let (task, items) = task_and_items(arguments)?;
    Ok(Box::pin(run_all(context, task, items)))
}

/// A group takes its place: one message for each chunk.
fn chunked(_: Context, arguments: &Arguments) -> Outcome {
    let (_, kwargs) = read(arguments)?;
    let members = chunks::members(kwargs).map_err(TaskError::reject)?;
    Err(TaskError::replace_with(Node::new(Kind::Group(members)).into_raw()))
}

/// The task that is called with each item, and the items.
fn task_and_items(arguments: &Arguments) -> Result<(&'static TaskDefinition, Vec<Value>), TaskError> {
    static REGISTRY: OnceLock<Option<Registry>> = OnceLock::new();
    let (args, mut kwargs) = read(arguments)?;
    let mut args = args.into_iter();
    let task = args.next().or_else(|| kwargs.remove("task")).unwrap_or_default();
    let task: RawSignature = serde_json::from_value(task)
        .map_err(|error| TaskError::reject(format!("`task` is no signature: {error}")))?;
    let Some(Value::Array(items)) = args.next().or_else(|| kwargs.remove("it")) else {
        return Err(TaskError::reject("`it` is no list"));
    };
    let registry = REGISTRY.get_or_init(|| Registry::discover().ok());
    let unknown = || TaskError::not_registered(format!("no task named `{}` in this program", task.task));
    Ok((registry.as_ref().and_then(|all| all.get(&task.task)).ok_or_else(unknown)?, items))
}

async fn run_all(context: Context, task: &'static TaskDefinition, items: Vec<Value>) -> Outcome {
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
