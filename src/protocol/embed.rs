//! The third part of a body: the workflow that follows a task.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Reason;
use super::decode::{discreet, kind_of};
use crate::task::{RawSignature, Workflow, option_value};

/// The embed as Celeriac writes it: all four fields, in Celery's order.
#[derive(Serialize)]
pub(super) struct Embed<'a> {
    callbacks: Option<&'a [RawSignature]>,
    errbacks: Option<&'a [RawSignature]>,
    chain: Option<&'a [RawSignature]>,
    chord: Option<&'a RawSignature>,
}

impl<'a> Embed<'a> {
    /// The embed of a task with this workflow.
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

/// The embed as Celeriac reads it: any field may be missing, and others are ignored.
#[derive(Default, Deserialize)]
pub(super) struct ReadEmbed<'a> {
    #[serde(borrow)]
    callbacks: Option<&'a RawValue>,
    #[serde(borrow)]
    errbacks: Option<&'a RawValue>,
    #[serde(borrow)]
    chain: Option<&'a RawValue>,
    #[serde(borrow)]
    chord: Option<&'a RawValue>,
}

/// Reads the embed of a protocol 2 body, or the same fields of a protocol 1 body, into `workflow`.
pub(super) fn read(embed: &RawValue, workflow: &mut Workflow) -> Result<(), Reason> {
    if is_nothing(embed) {
        return Ok(());
    }
    let wrong =
        || format!("its third part is {}, but should be an object of signatures", kind_of(embed.get()));
    if !embed.get().starts_with('{') {
        return Err(Reason::Body(wrong()));
    }
    let read: ReadEmbed<'_> = serde_json::from_str(embed.get()).map_err(|_| Reason::Body(wrong()))?;
    workflow.callbacks = list("callbacks", read.callbacks)?;
    workflow.errbacks = list("errbacks", read.errbacks)?;
    workflow.chain = list("chain", read.chain)?;
    workflow.chord = match read.chord {
        Some(chord) if !is_nothing(chord) => Some(signature("chord", chord)?),
        _ => None,
    };
    Ok(())
}

/// Whether the value is false in Python, as null, `{}` or 0 are. The text of such a value is short.
fn is_nothing(json: &RawValue) -> bool {
    let text = json.get();
    match text.as_bytes().first() {
        Some(b'[' | b'{') => text[1..text.len() - 1].trim().is_empty(),
        _ => {
            text.len() < 30 && serde_json::from_str(text).is_ok_and(|value| option_value::is_nothing(&value))
        }
    }
}

/// Reads a list of signatures. A single signature counts as a list of one, as in Celery's `link`.
fn list(name: &'static str, json: Option<&RawValue>) -> Result<Vec<RawSignature>, Reason> {
    let Some(json) = json.filter(|json| !is_nothing(json)) else { return Ok(Vec::new()) };
    if json.get().starts_with('{') {
        return Ok(vec![signature(name, json)?]);
    }
    let signatures: Vec<&RawValue> = serde_json::from_str(json.get()).map_err(|_| Reason::Header {
        name: name.to_owned(),
        found: kind_of(json.get()).to_owned(),
        expected: "a list of signatures",
    })?;
    signatures.into_iter().map(|json| signature(name, json)).collect()
}

/// Reads one signature, whose parts stay as they were written. The error does not quote it, because it holds
/// arguments.
fn signature(name: &'static str, json: &RawValue) -> Result<RawSignature, Reason> {
    serde_json::from_str(json.get()).map_err(|error| Reason::Header {
        name: name.to_owned(),
        found: format!("{} ({})", kind_of(json.get()), discreet(&error)),
        expected: "a signature: {task, args, kwargs, options, …}",
    })
}
