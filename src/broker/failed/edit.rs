//! What is changed in the arguments of a failed task before it is tried again.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use super::filter::{FindParams, Params};
use crate::catalogue::Argument;
use crate::task::{Arguments, Message, panic_message};

type EditFunction = dyn Fn(&mut Message, &Params) -> Result<(), String> + Send + Sync;

/// A change of the arguments of failed tasks, which is made when they are tried again.
///
/// ```
/// use celeriac::broker::TaskEdit;
/// use celeriac::catalogue::Argument;
///
/// let edit = TaskEdit::set(Argument::Name("gateway".into()), "https://new.example.org");
/// # let _ = edit;
/// ```
#[derive(Clone)]
pub struct TaskEdit {
    change: Arc<EditFunction>,
    params: Params,
}

impl fmt::Debug for TaskEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskEdit")
    }
}

impl TaskEdit {
    /// Makes the new arguments from the message, which still has the old ones.
    pub fn new(change: impl Fn(&Message) -> Result<Arguments, String> + Send + Sync + 'static) -> Self {
        Self::of(move |message, _| {
            message.arguments = change(message)?;
            Ok(())
        })
    }

    /// Gives all tasks these arguments.
    pub fn arguments(arguments: Arguments) -> Self {
        Self::new(move |_| Ok(arguments.clone()))
    }

    /// Sets one argument, and leaves the others as they are. An argument that the call has by name is replaced, and so is one
    /// that it has by position; a program that has the task finds it by its name in either case. A name that the call does not
    /// have is added.
    pub fn set(argument: Argument, value: impl Into<Value>) -> Self {
        let value = value.into();
        Self::of(move |message, params| {
            message.arguments = set(&message.arguments, &argument, &value, params.of(&message.task))?;
            Ok(())
        })
    }

    /// This edit, and then another one.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let (first, second) = (self.change, other.change);
        let change = move |message: &mut Message, params: &Params| {
            first(message, params).and_then(|()| second(message, params))
        };
        Self { change: Arc::new(change), params: self.params.or(other.params) }
    }

    /// This edit, and then what follows from it for the rest of the message. `change` gets the message as it was, too.
    #[must_use]
    pub(crate) fn then(
        self,
        change: impl Fn(&Message, &mut Message) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        let first = self.change;
        let change = move |message: &mut Message, params: &Params| {
            let before = message.clone();
            first(message, params)?;
            change(&before, message)
        };
        Self { change: Arc::new(change), params: self.params }
    }

    /// Has arguments set by their names where they were given by position.
    #[must_use]
    pub(crate) fn knowing(mut self, params: Arc<FindParams>) -> Self {
        self.params = Params::known(params);
        self
    }

    fn of(change: impl Fn(&mut Message, &Params) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { change: Arc::new(change), params: Params::default() }
    }

    /// Makes the change.
    ///
    /// # Errors
    /// It cannot be made, or panics, or what it makes is no call. The text says why.
    pub(super) fn apply(&self, message: &mut Message) -> Result<(), String> {
        let changed = catch_unwind(AssertUnwindSafe(|| (self.change)(message, &self.params)));
        changed.unwrap_or_else(|panic| Err(format!("the edit panicked: {}", panic_message(panic))))?;
        positional(&message.arguments)?;
        by_name(&message.arguments)?;
        Ok(())
    }
}

fn positional(arguments: &Arguments) -> Result<Vec<&RawValue>, String> {
    let text = if arguments.args.is_empty() { "[]" } else { &arguments.args };
    serde_json::from_str(text).map_err(|error| format!("the positional arguments are no JSON array: {error}"))
}

fn by_name(arguments: &Arguments) -> Result<BTreeMap<String, &RawValue>, String> {
    let text = if arguments.kwargs.is_empty() { "{}" } else { &arguments.kwargs };
    serde_json::from_str(text).map_err(|error| format!("the keyword arguments are no JSON object: {error}"))
}

/// The arguments with one of them set. All others keep the text that they were sent with.
fn set(
    arguments: &Arguments,
    argument: &Argument,
    value: &Value,
    params: &[&str],
) -> Result<Arguments, String> {
    let wrong = |error: serde_json::Error| error.to_string();
    let value = serde_json::value::to_raw_value(value).map_err(wrong)?;
    let (mut args, mut kwargs) = (positional(arguments)?, by_name(arguments)?);
    let position = match argument {
        Argument::Position(at) if *at >= args.len() => {
            return Err(format!("it has {} arguments by position, and none at {at}, from 0", args.len()));
        }
        Argument::Position(at) => Some(*at),
        Argument::Name(name) if kwargs.contains_key(name.as_str()) => None,
        Argument::Name(name) => params.iter().position(|param| param == name).filter(|at| *at < args.len()),
    };
    match (position, argument) {
        (Some(at), _) => args[at] = &*value,
        (None, Argument::Name(name)) => {
            kwargs.insert(name.clone(), &*value);
        }
        (None, Argument::Position(_)) => {}
    }
    let kwargs =
        if kwargs.is_empty() { String::new() } else { serde_json::to_string(&kwargs).map_err(wrong)? };
    Ok(Arguments { args: serde_json::to_string(&args).map_err(wrong)?, kwargs })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::task::Context;

    fn edited(edit: &TaskEdit, args: &str, kwargs: &str) -> Result<(String, String), String> {
        let mut message = Context::detached().message().clone();
        message.arguments = Arguments { args: args.into(), kwargs: kwargs.into() };
        edit.apply(&mut message)?;
        Ok((message.arguments.args, message.arguments.kwargs))
    }

    fn name(name: &str) -> Argument {
        Argument::Name(name.to_owned())
    }

    #[test]
    fn one_argument_is_set_and_the_others_keep_their_text() {
        let is = |args: &str, kwargs: &str| Ok((args.to_owned(), kwargs.to_owned()));
        let to = TaskEdit::set(name("to"), "b");
        assert_eq!(
            edited(&to, "[1.50,1e3]", r#"{"to":"a","n":1.0}"#),
            is("[1.50,1e3]", r#"{"n":1.0,"to":"b"}"#)
        );
        assert_eq!(edited(&to, "[1]", ""), is("[1]", r#"{"to":"b"}"#), "it is added");
        let known = TaskEdit::set(name("to"), "b").knowing(Arc::new(|_| &["n", "to"]));
        assert_eq!(edited(&known, r#"[1,"a"]"#, ""), is(r#"[1,"b"]"#, ""));
        assert_eq!(edited(&known, "[1]", ""), is("[1]", r#"{"to":"b"}"#));
        let second = TaskEdit::set(Argument::Position(1), json!([7]));
        assert_eq!(edited(&second, "[1,2,3]", ""), is("[1,[7],3]", ""));
        assert!(
            edited(&second, "[1]", "").unwrap_err().contains("has 1 arguments by position, and none at 1")
        );
        assert_eq!(edited(&second.and(to), "[1,2]", ""), is("[1,[7]]", r#"{"to":"b"}"#));
    }

    #[test]
    fn an_edit_that_makes_no_call_is_refused() {
        let all = |args: &str, kwargs: &str| {
            TaskEdit::arguments(Arguments { args: args.into(), kwargs: kwargs.into() })
        };
        assert_eq!(edited(&all("[2]", ""), "[1]", r#"{"x":1}"#), Ok(("[2]".to_owned(), String::new())));
        assert!(edited(&all("{}", ""), "[1]", "").unwrap_err().contains("no JSON array"));
        assert!(edited(&all("[]", "[]"), "[1]", "").unwrap_err().contains("no JSON object"));
        let odd = TaskEdit::new(|_| Err("not this one".to_owned()));
        assert_eq!(edited(&odd, "[1]", ""), Err("not this one".to_owned()));
        let bad = TaskEdit::new(|_| panic!("bad edit"));
        assert_eq!(edited(&bad, "[1]", ""), Err("the edit panicked: bad edit".to_owned()));
    }
}
