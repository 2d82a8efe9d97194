//! Signatures of the suite's tasks, and tasks that return signatures or take them.

use celeriac::task::canvas::{Canvas, IntoCanvas, Promise, chain, chord, group, signature};
use celeriac::task::{RawSignature, Workflow};
use celeriac::{Context, TaskError, task};
use serde_json::{Value, json};

use super::python::type_error;

/// `name.s(..)`.
pub fn s(name: &str, args: impl IntoIterator<Item = Value>) -> Canvas {
    signature(format!("t.integration.tasks.{name}")).args(args)
}

/// `name.si(..)`.
pub fn si(name: &str, args: impl IntoIterator<Item = Value>) -> Canvas {
    s(name, args).immutable()
}

pub fn workflow(ctx: &Context) -> Workflow {
    ctx.message().workflow.as_deref().cloned().unwrap_or_default()
}

/// `AsyncResult.as_tuple()`.
pub fn tuple(promise: &Promise) -> Value {
    let parent = promise.parent.as_deref().map(tuple);
    let members = promise.members.as_ref().map(|members| members.iter().map(tuple).collect::<Vec<_>>());
    json!([[promise.id, parent], members])
}

fn one() -> Canvas {
    s("add", [])
}

fn of(members: Canvas) -> Canvas {
    group([members]).untyped()
}

fn ch(header: Canvas) -> Canvas {
    chord([header], one())
}

fn document(canvas: Canvas) -> Result<RawSignature, TaskError> {
    Ok(canvas.into_raw()?)
}

#[task(
    name = "t.integration.tasks.return_nested_signature_chain_chain",
    autoretry = false,
    acks_late = false
)]
async fn return_nested_signature_chain_chain() -> Result<RawSignature, TaskError> {
    document(chain([chain([one()])]))
}

#[task(
    name = "t.integration.tasks.return_nested_signature_chain_group",
    autoretry = false,
    acks_late = false
)]
async fn return_nested_signature_chain_group() -> Result<RawSignature, TaskError> {
    document(chain([of(one())]))
}

#[task(
    name = "t.integration.tasks.return_nested_signature_chain_chord",
    autoretry = false,
    acks_late = false
)]
async fn return_nested_signature_chain_chord() -> Result<RawSignature, TaskError> {
    document(chain([ch(one())]))
}

#[task(
    name = "t.integration.tasks.return_nested_signature_group_chain",
    autoretry = false,
    acks_late = false
)]
async fn return_nested_signature_group_chain() -> Result<RawSignature, TaskError> {
    document(of(chain([one()])))
}

#[task(
    name = "t.integration.tasks.return_nested_signature_group_group",
    autoretry = false,
    acks_late = false
)]
async fn return_nested_signature_group_group() -> Result<RawSignature, TaskError> {
    document(of(of(one())))
}

#[task(
    name = "t.integration.tasks.return_nested_signature_group_chord",
    autoretry = false,
    acks_late = false
)]
async fn return_nested_signature_group_chord() -> Result<RawSignature, TaskError> {
    document(of(ch(one())))
}

#[task(
    name = "t.integration.tasks.return_nested_signature_chord_chain",
    autoretry = false,
    acks_late = false
)]
async fn return_nested_signature_chord_chain() -> Result<RawSignature, TaskError> {
    document(ch(chain([one()])))
}

#[task(
    name = "t.integration.tasks.return_nested_signature_chord_group",
    autoretry = false,
    acks_late = false
)]
async fn return_nested_signature_chord_group() -> Result<RawSignature, TaskError> {
    document(ch(of(one())))
}

#[task(
    name = "t.integration.tasks.return_nested_signature_chord_chord",
    autoretry = false,
    acks_late = false
)]
async fn return_nested_signature_chord_chord() -> Result<RawSignature, TaskError> {
    document(ch(ch(one())))
}

/// In Python the argument is a dictionary, of which this makes objects.
#[task(name = "t.integration.tasks.rebuild_signature", autoretry = false, acks_late = false)]
async fn rebuild_signature(sig_dict: RawSignature) -> Result<(), TaskError> {
    sig_dict.into_canvas().into_raw().map_err(|error| type_error(error.to_string()))?;
    Ok(())
}
