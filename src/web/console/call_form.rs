//! A call of a task as a form says it: a field with JSON for each parameter.

use serde_json::value::RawValue;

use super::fields::FormFields;
use super::problem::ConsoleProblem;
use super::{Console, words};
use crate::core::did_you_mean;
use crate::task::{Arguments, EnqueueError, TaskDefinition, TaskId};

/// What the name of a field of an argument begins with.
pub(super) const ARGUMENT: &str = "arg.";
/// The most bytes of all arguments.
const MOST_ARGUMENTS: usize = 256 << 10;

/// A call that is to be made.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CallForm {
    pub(super) task: String,
    pub(super) id: TaskId,
    /// The arguments by name, each as JSON text, in the order of the names.
    arguments: Vec<(String, String)>,
}

impl CallForm {
    /// Reads the fields of a form. A field that is empty leaves its argument out.
    pub(super) fn read(fields: &FormFields) -> Result<Self, ConsoleProblem> {
        let task = fields.required("task")?;
        let id = if fields.get("id").is_some() { fields.id()? } else { TaskId::new() };
        let mut arguments: Vec<(String, String)> = Vec::new();
        for (name, value) in fields.all() {
            let Some(name) = name.strip_prefix(ARGUMENT) else { continue };
            let value = value.trim();
            if !value.is_empty() {
                arguments.push((name.to_owned(), json(name, value)?));
            }
        }
        let bytes: usize = arguments.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > MOST_ARGUMENTS {
            let text = "These arguments are too large for a form: store the object, and pass its id.";
            return Err(ConsoleProblem::malformed(text));
        }
        arguments.sort();
        Ok(Self { task, id, arguments })
    }

    /// The task that is to be called.
    ///
    /// # Errors
    /// This program does not have it, or one of the arguments is none of its parameters.
    pub(super) fn definition(&self, console: &Console) -> Result<&'static TaskDefinition, ConsoleProblem> {
        let task = task_here(console, &self.task)?;
        let takes_any = task.params.iter().any(|param| param.starts_with("**"));
        let unknown =
            self.arguments.iter().find(|(name, _)| !takes_any && !task.params.contains(&name.as_str()));
        match unknown {
            None => Ok(task),
            Some((name, _)) => {
                let hint = did_you_mean::hint(name, task.params.iter().copied());
                let shown = words::line(name, 40);
                let text = format!("The task `{}` has no parameter `{shown}`{hint}", task.name);
                Err(ConsoleProblem::malformed(text))
            }
        }
    }

    /// The arguments as the task gets them, by name.
    pub(super) fn arguments(&self) -> Arguments {
        let by_name = self.arguments.iter().map(|(name, value)| {
            // A text has a form in JSON.
            let name = serde_json::to_string(name).unwrap_or_default();
            format!("{name}:{value}")
        });
        let by_name: Vec<String> = by_name.collect();
        let kwargs = if by_name.is_empty() { String::new() } else { format!("{{{}}}", by_name.join(",")) };
        Arguments { args: "[]".to_owned(), kwargs }
    }
}

/// The task of this name, if this program has it.
pub(super) fn task_here(console: &Console, name: &str) -> Result<&'static TaskDefinition, ConsoleProblem> {
    console.celeriac.task_here(name).map_err(|nearest| {
        let hint = nearest.map(|name| format!(" Did you mean `{name}`?")).unwrap_or_default();
        let shown = words::line(name, 80);
        ConsoleProblem::unknown(format!(
            "This program has no task `{shown}`, so nothing is known of its parameters.{hint}"
        ))
    })
}

/// The value of an argument, if it is JSON.
fn json(name: &str, value: &str) -> Result<String, ConsoleProblem> {
    if let Err(error) = serde_json::from_str::<&RawValue>(value) {
        let (name, shown) = (words::line(name, 40), words::line(value, 40));
        return Err(ConsoleProblem::malformed(format!(
            "`{shown}` is no JSON for `{name}`: {error}. A text stands in double quotes."
        )));
    }
    Ok(value.to_owned())
}

/// A call that was not accepted.
pub(super) fn refused(error: &EnqueueError) -> ConsoleProblem {
    match error {
        EnqueueError::NotRunning
        | EnqueueError::ShuttingDown
        | EnqueueError::StorageFull { .. }
        | EnqueueError::Window { .. }
        | EnqueueError::Broker(_) => ConsoleProblem::unavailable(error),
        error => ConsoleProblem::malformed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, &str)]) -> Result<CallForm, String> {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        CallForm::read(&FormFields::of(fields)).map_err(|problem| problem.text().to_owned())
    }

    #[test]
    fn the_arguments_of_a_call_keep_their_own_digits() {
        let call =
            read(&[("task", "shop.mail"), ("arg.to", "\"a\""), ("arg.size", " 1e30 "), ("arg.none", "")]);
        let call = call.expect("a call");
        assert_eq!(
            call.arguments(),
            Arguments { args: "[]".into(), kwargs: "{\"size\":1e30,\"to\":\"a\"}".into() }
        );
        assert!(call.id.is_usable());
        let none = read(&[("task", "shop.mail"), ("id", "mine"), ("other", "x")]).expect("a call");
        assert_eq!((none.arguments().kwargs.as_str(), none.id.as_str()), ("", "mine"));
    }

    #[test]
    fn what_is_no_json_says_so() {
        let error = read(&[("task", "shop.mail"), ("arg.to", "hello")]).expect_err("no JSON");
        assert!(error.contains("`hello` is no JSON for `to`") && error.contains("double quotes"), "{error}");
        assert!(read(&[("arg.to", "1")]).expect_err("no task").contains("lacks `task`"));
        let large = format!("\"{}\"", "x".repeat(MOST_ARGUMENTS));
        assert!(read(&[("task", "t"), ("arg.to", large.as_str())]).expect_err("large").contains("too large"));
        assert!(read(&[("task", "t"), ("id", &"x".repeat(300))]).is_err());
    }
}
