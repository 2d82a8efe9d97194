//! One `[[route]]` of the catalogue: which calls go to which queue, by the name of the task, by an argument, and by how long the
//! task took before.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use regex::Regex;
use serde_json::value::RawValue;

use super::error::quote;
use super::format_span;
use crate::core::durations::{RunTimeBy, RunTimeCondition};
use crate::core::glob;
use crate::task::Arguments;

/// A route by patterns: calls of these tasks, with such an argument and such run times if these are stated, go to this queue.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RouteRow {
    /// The pattern for the names of the tasks.
    pub task: TaskPattern,
    /// The pattern for an argument of the calls; `None`: all calls match.
    pub argument: Option<ArgumentPattern>,
    /// The condition on how long such calls took before; `None`: all calls match. Calls of which nobody knows it match none.
    /// If the row has an argument, only calls with its very value count.
    pub run_time: Option<RunTimeCondition>,
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
    /// Regular expressions. One of them has to match from the beginning of the value, as in Python's `re.match`. Only a row
    /// with a condition on run times may have none; then all values match.
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
        let task = TaskPattern::Glob(task.into());
        Self { task, argument: None, run_time: None, queue: queue.into() }
    }

    /// A row that says no more than which tasks it is about.
    pub(crate) fn of_tasks(task: TaskPattern) -> Self {
        Self { task, argument: None, run_time: None, queue: String::new() }
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

    /// Limits the route to calls that took longer than this before.
    #[must_use]
    pub fn with_longer_than(mut self, least: Duration) -> Self {
        self.run_time.get_or_insert_default().longer_than = Some(least);
        self
    }

    /// Limits the route to calls that took less than this before.
    #[must_use]
    pub fn with_shorter_than(mut self, most: Duration) -> Self {
        self.run_time.get_or_insert_default().shorter_than = Some(most);
        self
    }

    /// Says which run time the limits are about. Without this it is that of the last run.
    #[must_use]
    pub fn with_run_time_by(mut self, by: RunTimeBy) -> Self {
        self.run_time.get_or_insert_default().by = by;
        self
    }

    /// Has the limits of run times be about calls with the same value of this argument.
    #[must_use]
    pub fn with_run_times_of(mut self, argument: Argument) -> Self {
        self.argument = Some(ArgumentPattern { argument, matches: Vec::new() });
        self
    }
}

impl fmt::Display for RouteRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.task)?;
        let with_matches = self.argument.as_ref().filter(|argument| !argument.matches.is_empty());
        if let Some(ArgumentPattern { argument, matches }) = with_matches {
            let matches: Vec<_> =
                matches.iter().map(|pattern| format!("/{}/", super::one_line(pattern))).collect();
            write!(f, " with {argument} like {}", matches.join(" or "))?;
        }
        if let Some(RunTimeCondition { longer_than, shorter_than, by }) = &self.run_time {
            write!(f, " whose {} run time", by.as_str())?;
            if let Some(ArgumentPattern { argument, .. }) = &self.argument {
                write!(f, " with the same {argument}")?;
            }
            let limits = [("longer", longer_than), ("shorter", shorter_than)];
            let limits =
                limits.map(|(word, limit)| limit.map(|limit| format!("{word} than {}", format_span(limit))));
            let limits: Vec<String> = limits.into_iter().flatten().collect();
            write!(f, " is {}", limits.join(" and "))?;
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
    run_time: Option<RunTimeCondition>,
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
        Ok(Self { task, name: name.to_owned(), argument, run_time: row.run_time })
    }

    /// Whether the route is about tasks of this name.
    pub(crate) fn is_about(&self, task: &str) -> bool {
        self.task.as_ref().map_or(self.name == task, |pattern| pattern.is_match(task))
    }

    /// Whether a call of such a task matches the route, but for how long it took before. `params` are the names of the task's
    /// parameters, empty if they are unknown.
    pub(crate) fn fits(&self, params: &[&str], arguments: &Arguments) -> bool {
        let Some((argument, patterns)) = &self.argument else { return true };
        let takes_all = self.run_time.is_some() && patterns.is_empty();
        argument_value(argument, params, arguments)
            .is_some_and(|value| takes_all || patterns.iter().any(|pattern| pattern.is_match(&value)))
    }

    /// The condition on how long such calls took before, and the argument whose value they have in common, if there is one.
    pub(crate) fn run_time(&self) -> Option<(&RunTimeCondition, Option<&Argument>)> {
        let argument = self.argument.as_ref().map(|(argument, _)| argument);
        Some((self.run_time.as_ref()?, argument))
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
            RouteRule::new(&RouteRow { task, ..RouteRow::new("", "q") }).unwrap().is_about(name)
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

    /// HQ's exports: the value of the argument is what their run times are kept by, and need not match anything.
    #[test]
    fn a_row_about_run_times_takes_every_value() {
        let row = RouteRow::new("export", "big").with_run_times_of(Argument::Name("build_id".into()));
        let fits = |row: &RouteRow, args: &str| {
            RouteRule::new(row).unwrap().fits(&["build_id"], &arguments(args, ""))
        };
        assert!(!fits(&row, "[7]"), "without a limit the row is none");
        let row = row.with_longer_than(Duration::from_secs(600));
        assert!(fits(&row, "[7]") && fits(&row, "[\"x\"]") && !fits(&row, "[]"));
        let rule = RouteRule::new(&row).unwrap();
        let (condition, argument) = rule.run_time().unwrap();
        assert_eq!((condition.by, condition.shorter_than), (RunTimeBy::Last, None));
        assert_eq!(argument, Some(&Argument::Name("build_id".into())));
        assert!(RouteRule::new(&RouteRow::new("export", "big")).unwrap().run_time().is_none());
    }

    #[test]
    fn a_row_about_run_times_reads_well() {
        let row = RouteRow::new("a.*", "big").with_longer_than(Duration::from_secs(600));
        assert_eq!(row.to_string(), "\"a.*\" whose last run time is longer than 10m goes to big");
        let row = row.with_shorter_than(Duration::from_secs(7_200)).with_run_time_by(RunTimeBy::P95);
        let text = "\"a.*\" whose p95 run time is longer than 10m and shorter than 2h goes to big";
        assert_eq!(row.to_string(), text);
        let row = RouteRow::new("a", "big").with_shorter_than(Duration::from_secs(1));
        let of_value = row.clone().with_run_times_of(Argument::Position(0));
        let text = "\"a\" whose last run time with the same argument 0 is shorter than 1s goes to big";
        assert_eq!(of_value.to_string(), text);
        let row = row.with_argument(Argument::Name("domain".into()), ["x"]);
        let text = "\"a\" with \"domain\" like /x/ whose last run time with the same \"domain\" is shorter than 1s goes to big";
        assert_eq!(row.to_string(), text);
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
