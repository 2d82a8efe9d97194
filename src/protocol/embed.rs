//! The third part of a body: the workflow that follows a task.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Reason;
use super::decode::{discreet, kind_of};
use crate::task::{RawSignature, Workflow, option_value};

/// The embed of a task from which nothing follows, as Celeriac writes it, and as Python does.
const NOTHING: &str = r#"{"callbacks":null,"errbacks":null,"chain":null,"chord":null}"#;
const PYTHONS_NOTHING: &str = r#"{"callbacks": null, "errbacks": null, "chain": null, "chord": null}"#;

/// Writes the embed of a task with this workflow.
///
/// # Errors
/// A signature cannot be written as JSON.
pub(super) fn write(workflow: Option<&Workflow>) -> Result<Cow<'static, str>, serde_json::Error> {
    match workflow.filter(|workflow| workflow.has_followers()) {
        None => Ok(NOTHING.into()),
        workflow => serde_json::to_string(&Embed::of(workflow)).map(Cow::Owned),
    }
}

/// The embed as Celeriac writes it: all four fields, in Celery's order.
#[derive(Serialize)]
struct Embed<'a> {
    callbacks: Option<&'a [RawSignature]>,
    errbacks: Option<&'a [RawSignature]>,
    chain: Option<&'a [RawSignature]>,
    chord: Option<&'a RawSignature>,
}

impl<'a> Embed<'a> {
    /// The embed of a task with this workflow.
    fn of(workflow: Option<&'a Workflow>) -> Self {
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
    // Nothing follows from most tasks, and nothing else says so then.
    if matches!(embed.get(), NOTHING | PYTHONS_NOTHING) || is_nothing(embed) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_as_serde_does_and_read_as_nothing() {
        let none = Workflow::default();
        for workflow in [None, Some(&none)] {
            let text = write(workflow).unwrap();
            assert_eq!(text, serde_json::to_string(&Embed::of(workflow)).unwrap());
        }
        for text in [NOTHING, PYTHONS_NOTHING] {
            let read_whole: ReadEmbed<'_> = serde_json::from_str(text).unwrap();
            let ReadEmbed { callbacks, errbacks, chain, chord } = read_whole;
            assert!([callbacks, errbacks, chain, chord].iter().all(Option::is_none));
            let raw: &RawValue = serde_json::from_str(text).unwrap();
            let mut workflow = Workflow::default();
            read(raw, &mut workflow).unwrap();
            assert_eq!(workflow, none);
        }
    }

    #[test]
    fn one_that_follows_is_written() {
        let next = RawSignature { task: "next".into(), ..RawSignature::default() };
        let workflow = Workflow { errbacks: vec![next], ..Workflow::default() };
        let text = write(Some(&workflow)).unwrap();
        assert!(text.contains(r#""errbacks":[{"task":"next""#), "{text}");
        assert!(text.starts_with(r#"{"callbacks":null,"#), "{text}");
    }
}
