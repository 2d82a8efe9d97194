//! The third part of a body: the workflow that goes on from a task.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::headers::shortened;
use super::{Reason, headers};
use crate::task::{RawSignature, Workflow};

/// What is written: all four, in Celery's order.
#[derive(Serialize)]
pub(super) struct Embed<'a> {
    callbacks: Option<&'a [RawSignature]>,
    errbacks: Option<&'a [RawSignature]>,
    chain: Option<&'a [RawSignature]>,
    chord: Option<&'a RawSignature>,
}

impl<'a> Embed<'a> {
    /// Of a task's workflow.
    pub(super) fn of(workflow: Option<&'a Workflow>) -> Self {
        let list = |list: &'a [RawSignature]| Some(list).filter(|list| !list.is_empty());
        let Some(workflow) = workflow else {
            return Self { callbacks: None, errbacks: None, chain: None, chord: None };
        };
        Self {
            callbacks: list(&workflow.callbacks),
            errbacks: list(&workflow.errbacks),
            chain: list(&workflow.chain),
            chord: workflow.chord.as_ref(),
        }
    }
}

/// What is read: any of them may be missing, and others may be there.
#[derive(Default, Deserialize)]
pub(super) struct Read {
    callbacks: Option<Value>,
    errbacks: Option<Value>,
    chain: Option<Value>,
    chord: Option<Value>,
}

/// Reads the embed of a protocol 2 body, or the same fields of a protocol 1 body, into `workflow`.
pub(super) fn read(embed: &RawValue, workflow: &mut Workflow) -> Result<(), Reason> {
    let read: Option<Read> = serde_json::from_str(embed.get())
        .map_err(|error| Reason::Body(format!("its third part is {}: {error}", shortened(embed.get()))))?;
    let read = read.unwrap_or_default();
    workflow.callbacks = list("callbacks", read.callbacks)?;
    workflow.errbacks = list("errbacks", read.errbacks)?;
    workflow.chain = list("chain", read.chain)?;
    workflow.chord = match read.chord {
        None => None,
        Some(chord) => Some(signature("chord", chord)?),
    };
    Ok(())
}

/// A list of signatures; a single one stands for itself, as Celery has it in `link`.
fn list(name: &'static str, value: Option<Value>) -> Result<Vec<RawSignature>, Reason> {
    match value {
        None => Ok(Vec::new()),
        Some(Value::Array(signatures)) => {
            signatures.into_iter().map(|value| signature(name, value)).collect()
        }
        Some(single @ Value::Object(_)) => Ok(vec![signature(name, single)?]),
        Some(other) => Err(headers::wrong(name, &other, "a list of signatures")),
    }
}

fn signature(name: &'static str, value: Value) -> Result<RawSignature, Reason> {
    let found = shortened(&value.to_string());
    serde_json::from_value(value).map_err(|error| {
        let found = format!("{found} ({error})");
        Reason::Header {
            name: name.to_owned(),
            found,
            expected: "a signature: {task, args, kwargs, options, …}",
        }
    })
}
