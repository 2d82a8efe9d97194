//! The options that choose tasks by what their messages say. Several commands have them.

use std::cell::Cell;
use std::time::Duration;

use clap::Args;

use super::Failure;
use super::requeue::span;
use crate::broker::{BrokerError, EmbeddedBroker, TaskFilter};
use crate::catalogue::Argument;

/// The conditions that a task has to satisfy, all of them.
#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Only tasks of this queue.
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Only tasks whose name matches; `*` stands for any text, `?` for one character, `[ab]` for one of these.
    #[arg(long, value_name = "GLOB")]
    task: Option<String>,
    /// Only tasks with this text in an error.
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Only tasks one of whose arguments has this value. NAME is that of an argument given by name, or the position of
    /// another one, from 0; VALUE is a text, or JSON. May be given more than once.
    #[arg(long = "argument", value_name = "NAME=VALUE", value_parser = argument)]
    arguments: Vec<(Argument, String)>,
    /// Only tasks with this text in their arguments, in JSON as they are sent. May be given more than once.
    #[arg(long, value_name = "TEXT")]
    contains: Vec<String>,
    /// Only tasks that failed at least this long ago, or that have waited for this long, such as `15m` or `1h30m`.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    older_than: Option<Duration>,
    /// Only tasks that failed less than this long ago, or that have waited for less.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    younger_than: Option<Duration>,
}

impl FilterArgs {
    /// Whether there is no condition.
    pub(super) fn is_empty(&self) -> bool {
        self.task.is_none() && self.is_empty_but_for_the_task()
    }

    /// The pattern for names, if it is the only condition.
    pub(super) fn only_task(&self) -> Option<&str> {
        self.task.as_deref().filter(|_| self.is_empty_but_for_the_task())
    }

    fn is_empty_but_for_the_task(&self) -> bool {
        let Self { queue, task: _, error, arguments, contains, older_than, younger_than } = self;
        queue.is_none()
            && error.is_none()
            && arguments.is_empty()
            && contains.is_empty()
            && older_than.is_none()
            && younger_than.is_none()
    }

    /// The filter of these conditions and, if there are any, of these ids.
    pub(super) fn filter(&self, ids: &[String]) -> Result<TaskFilter, Failure> {
        let mut filter = TaskFilter::new();
        if !ids.is_empty() {
            filter = filter.ids(ids.iter().map(String::as_str));
        }
        if let Some(queue) = &self.queue {
            filter = filter.queue(queue);
        }
        if let Some(task) = &self.task {
            filter = filter.task(task).map_err(|error| Failure::CommandLine(error.to_string()))?;
        }
        if let Some(text) = &self.error {
            filter = filter.error(text);
        }
        for (argument, value) in &self.arguments {
            filter = filter.argument(argument.clone(), value);
        }
        for text in &self.contains {
            filter = filter.arguments_contain(text);
        }
        if let Some(age) = self.older_than {
            filter = filter.older_than(age);
        }
        if let Some(age) = self.younger_than {
            filter = filter.younger_than(age);
        }
        Ok(filter)
    }
}

/// The filter, with the index of an argument that it states, if the store has entries of one and nobody wants to look through
/// all tasks. The command does not know which tasks declare the argument, so what says so is the store.
pub(super) fn by_index(
    filter: TaskFilter,
    store: &EmbeddedBroker,
    scans: bool,
) -> Result<TaskFilter, BrokerError> {
    if scans {
        return Ok(filter.scanning());
    }
    let failure = Cell::new(None);
    let filter = filter.by_index(|argument| {
        store.has_index_of(argument).unwrap_or_else(|error| {
            failure.set(Some(error));
            false
        })
    });
    failure.into_inner().map_or(Ok(filter), Err)
}

/// Says by which index tasks were found.
pub(super) fn by_which_index(by_index: Option<&str>) -> String {
    by_index.map_or_else(String::new, |argument| {
        format!(
            " They were found by the index of `{argument}`, which has the tasks that declare it; --scan looks through all."
        )
    })
}

/// Reads `NAME=VALUE` or `POSITION=VALUE`.
pub(super) fn argument(text: &str) -> Result<(Argument, String), String> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
        "an argument is written as NAME=VALUE, or as its position, such as 0=VALUE".to_owned()
    })?;
    let argument = name.parse::<usize>().map_or_else(|_| Argument::Name(name.to_owned()), Argument::Position);
    Ok((argument, value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_has_a_name_or_a_position() {
        assert_eq!(argument("to=a=b"), Ok((Argument::Name("to".to_owned()), "a=b".to_owned())));
        assert_eq!(argument("1="), Ok((Argument::Position(1), String::new())));
        assert_eq!(argument("-1=x"), Ok((Argument::Name("-1".to_owned()), "x".to_owned())));
        assert!(argument("to").is_err() && argument("=x").is_err());
    }
}
