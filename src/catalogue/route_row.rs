//! One `[[route]]` of the catalogue: which calls go to which queue, by the name of the task and by an argument.

use std::collections::BTreeMap;
use std::fmt;

use regex::Regex;
use serde_json::value::RawValue;

use super::error::quote;
use crate::core::glob;
use crate::task::Arguments;

/// A route by patterns: calls of these tasks, with such an argument if one is stated, go to this queue.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RouteRow {
    /// The pattern for the names of the tasks.
    pub task: TaskPattern,
    /// The pattern for an argument of the calls; `None`: all calls match.
    pub argument: Option<ArgumentPattern>,
    /// The queue that the calls go to, or an alias of one.
    pub queue: String,
}

/// A pattern for names of tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskPattern {
    /// An exact name, or a name with `*`, `?`, `[seq]` and `[!seq]` as in Celery's `task_routes`.
    Glob(String),
    /// A regular expression that has to match from the beginning of the name, as in Celery's `task_routes`.
    Regex(String),
}

/// Patterns for the value of one argument.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArgumentPattern {
    /// The argument that the patterns are about.
    pub argument: Argument,
    /// Regular expressions. One of them has to match from the beginning of the value, as in Python's `re.match`.
    pub matches: Vec<String>,
}

/// Names one argument of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Argument {
    /// The argument of this name. Celeriac also finds it where it was given by position, if this program has the
    /// task.
    Name(String),
    /// The argument at this position, from 0, for tasks that this program does not have.
    Position(usize),
}

impl RouteRow {
    /// A route for calls of tasks of this name, which may contain `*`, `?` and `[seq]`, to `queue`.
    pub fn new(task: impl Into<String>, queue: impl Into<String>) -> Self {
        Self { task: TaskPattern::Glob(task.into()), argument: None, queue: queue.into() }
    }

    /// A row that says no more than which tasks it is about.
    pub(crate) fn of_tasks(task: TaskPattern) -> Self {
        Self { task, argument: None, queue: String::new() }
    }

    /// Limits the route to calls whose argument matches one of the patterns.
    #[must_use]
    pub fn with_argument<I>(mut self, argument: Argument, matches: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.argument =
            Some(ArgumentPattern { argument, matches: matches.into_iter().map(Into::into).collect() });
        self
    }
}

impl fmt::Display for RouteRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.task)?;
        if let Some(ArgumentPattern { argument, matches }) = &self.argument {
            let matches: Vec<_> =
                matches.iter().map(|pattern| format!("/{}/", super::one_line(pattern))).collect();
            write!(f, " with {argument} like {}", matches.join(" or "))?;
        }
        write!(f, " goes to {}", super::one_line(&self.queue))
    }
}

impl fmt::Display for TaskPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Glob(name) => write!(f, "{}", quote(name)),
            Self::Regex(pattern) => write!(f, "/{}/", super::one_line(pattern)),
        }
    }
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{}", quote(name)),
            Self::Position(at) => write!(f, "argument {at}"),
        }
    }
}

/// A route whose patterns are compiled.
pub(crate) struct RouteRule {
    task: Option<Regex>,
    name: String,
    argument: Option<(Argument, Vec<Regex>)>,
}

impl RouteRule {
    /// Compiles the patterns of a route.
    ///
    /// # Errors
    /// The pattern that is wrong, and why.
    pub(crate) fn new(row: &RouteRow) -> Result<Self, (String, String)> {
        let (task, name) = match &row.task {
            TaskPattern::Glob(name) if glob::is_pattern(name) => {
                (Some(glob::compile(&glob::as_regex(name))?), "")
            }
            TaskPattern::Glob(name) => (None, name.as_str()),
            TaskPattern::Regex(pattern) => (Some(glob::from_start(pattern)?), ""),
        };
        let argument = match &row.argument {
            None => None,
            Some(ArgumentPattern { argument, matches }) => {
                let matches =
                    matches.iter().map(|pattern| glob::from_start(pattern)).collect::<Result<Vec<_>, _>>()?;
                Some((argument.clone(), matches))
            }
        };
        Ok(Self { task, name: name.to_owned(), argument })
    }

    /// Whether the route is about tasks of this name.
    pub(crate) fn is_about(&self, task: &str) -> bool {
        self.task.as_ref().map_or(self.name == task, |pattern| pattern.is_match(task))
    }

    /// Whether a call of such a task matches the route. `params` are the names of the task's parameters, empty if
    /// they are unknown.
    pub(crate) fn fits(&self, params: &[&str], arguments: &Arguments) -> bool {
        let Some((argument, patterns)) = &self.argument else { return true };
        argument_value(argument, params, arguments)
            .is_some_and(|value| patterns.iter().any(|pattern| pattern.is_match(&value)))
    }
}

/// The value of an argument as text: a string without its quotes, any other value as JSON. `params` are the names of the
/// task's parameters, empty if they are unknown; then an argument is found by its name only where it was given by name.
pub(crate) fn argument_value(argument: &Argument, params: &[&str], arguments: &Arguments) -> Option<String> {
    let positional = |at: usize| {
        let args: Vec<&RawValue> = serde_json::from_str(&arguments.args).ok()?;
        args.get(at).map(|value| value.get().to_owned())
    };
    let json = match argument {
        Argument::Position(at) => positional(*at)?,
        Argument::Name(name) => {
            let kwargs: BTreeMap<String, &RawValue> =
                serde_json::from_str(&arguments.kwargs).unwrap_or_default();
            match kwargs.get(name.as_str()) {
                Some(value) => value.get().to_owned(),
                None => positional(params.iter().position(|param| param == name)?)?,
            }
        }
    };
    Some(serde_json::from_str::<String>(&json).unwrap_or(json))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(args: &str, kwargs: &str) -> Arguments {
        Arguments { args: args.into(), kwargs: kwargs.into() }
    }

    #[test]
    fn tasks_by_name_glob_and_regex() {
        let about = |task: TaskPattern, name: &str| {
            RouteRule::new(&RouteRow { task, argument: None, queue: "q".into() }).unwrap().is_about(name)
        };
        let glob = |pattern: &str, name: &str| about(TaskPattern::Glob(pattern.into()), name);
        assert!(glob("feed.tasks.a", "feed.tasks.a") && !glob("feed.tasks.a", "feed_tasks.a"));
        assert!(glob("feed.tasks.*", "feed.tasks.a.b") && !glob("feed.tasks.*", "feed-tasks.a"));
        assert!(glob("*.send_?", "shop.send_1") && !glob("*.send_?", "shop.send_12"));
        let regex = |pattern: &str, name: &str| about(TaskPattern::Regex(pattern.into()), name);
        assert!(regex("(video|image)\\.", "image.crop") && !regex("(video|image)\\.", "my.image.crop"));
        assert!(regex("a|b", "b") && !regex("a|b", "cb"));
    }

    /// HQ's two patterns, with a domain given by name, by position, or not at all.
    #[test]
    fn calls_by_argument() {
        let row = RouteRow::new("send", "slow")
            .with_argument(Argument::Name("domain".into()), ["ews-ghana$", "mvp-"]);
        let route = RouteRule::new(&row).unwrap();
        let fits = |args: &str, kwargs: &str| route.fits(&["report", "domain"], &arguments(args, kwargs));
        for domain in ["mvp-sauri", "ews-ghana"] {
            assert!(
                fits(&format!("[1,\"{domain}\"]"), "")
                    && fits("[1]", &format!("{{\"domain\":\"{domain}\"}}"))
            );
        }
        for domain in ["ews-ghana-test", "my-mvp-", ""] {
            assert!(
                !fits(&format!("[1,\"{domain}\"]"), "")
                    && !fits("[1]", &format!("{{\"domain\":\"{domain}\"}}"))
            );
        }
        assert!(!fits("[\"mvp-a\"]", "") && !fits("", "") && !fits("no JSON", "none either"));
        let number = RouteRow::new("*", "q").with_argument(Argument::Position(0), ["7$", "null"]);
        let number = RouteRule::new(&number).unwrap();
        assert!(number.fits(&[], &arguments("[7]", "")) && number.fits(&[], &arguments("[null]", "")));
        assert!(!number.fits(&[], &arguments("[77]", "")) && !number.fits(&[], &arguments("[]", "")));
    }

    #[test]
    fn a_row_reads_well_and_a_bad_pattern_is_told() {
        let row = RouteRow::new("a.*", "slow").with_argument(Argument::Name("domain".into()), ["x$", "y"]);
        assert_eq!(row.to_string(), "\"a.*\" with \"domain\" like /x$/ or /y/ goes to slow");
        for bad in ["(", "a)(b", "[", "x{2,1}", "(?P<"] {
            let row = RouteRow::new("a", "q").with_argument(Argument::Position(0), [bad]);
            let (pattern, reason) = RouteRule::new(&row).err().unwrap();
            assert!(pattern == bad && !reason.is_empty(), "{pattern}: {reason}");
        }
    }
}
