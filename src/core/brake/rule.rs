//! Which tasks a brake is about: conditions on their names, queues, tenants and arguments, which all have to hold.

use std::fmt;

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::{BrakeError, LONGEST_NAME, LONGEST_TEXT, MOST_PATTERNS, within};
use crate::core::glob;

/// Which tasks are meant. Each condition that is stated makes them fewer.
///
/// A condition that this version does not know makes the whole rule unreadable: without it, the rule would be about more
/// tasks than its author meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BrakeRule {
    /// The name of the task, also with `*`, `?`, `[seq]` and `[!seq]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The name of the queue in which the task waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The tenant of the task, also with `*`, `?`, `[seq]` and `[!seq]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The value of an argument.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argument: Option<ArgumentCondition>,
    /// Whether all tasks are meant. Then there is no condition.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// A condition on the value of an argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArgumentCondition {
    /// The name of the argument; a number is a position, from 0. A program that has the task finds an argument by its name
    /// also where it was given by position.
    pub name: String,
    /// Regular expressions. One of them has to match from the beginning of the value, as in Python's `re.match`. The value
    /// of a text is what is in its quotes, and any other value is JSON.
    pub matches: Vec<String>,
}

impl BrakeRule {
    /// A rule without a condition, which cannot be used before it has one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The rule that is about all tasks.
    pub fn all() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// Limits the rule to tasks of this name, which may contain `*`, `?` and `[seq]`.
    #[must_use]
    pub fn task(mut self, name: impl Into<String>) -> Self {
        self.task = Some(name.into());
        self
    }

    /// Limits the rule to tasks that wait in this queue.
    #[must_use]
    pub fn queue(mut self, name: impl Into<String>) -> Self {
        self.queue = Some(name.into());
        self
    }

    /// Limits the rule to tasks of this tenant, whose name may contain `*`, `?` and `[seq]`.
    #[must_use]
    pub fn tenant(mut self, name: impl Into<String>) -> Self {
        self.tenant = Some(name.into());
        self
    }

    /// Limits the rule to tasks whose argument of this name, or at this position from 0, matches one of the regular
    /// expressions from its beginning.
    #[must_use]
    pub fn argument<I>(mut self, argument: impl Into<String>, matches: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let matches = matches.into_iter().map(Into::into).collect();
        self.argument = Some(ArgumentCondition { name: argument.into(), matches });
        self
    }

    /// Compiles the patterns.
    ///
    /// # Errors
    /// The rule has no condition and does not say that all tasks are meant, or a pattern cannot be used.
    pub fn compile(&self) -> Result<RuleMatcher, BrakeError> {
        let Self { task, queue, tenant, argument, all } = self;
        let has_condition = task.is_some() || queue.is_some() || tenant.is_some() || argument.is_some();
        match (*all, has_condition) {
            (false, false) => return Err(BrakeError::NoCondition),
            (true, true) => return Err(BrakeError::AllWithConditions),
            _ => {}
        }
        if let Some(queue) = queue {
            within("queue", queue, 1, LONGEST_NAME)?;
        }
        Ok(RuleMatcher {
            task: task.as_deref().map(|name| NamePattern::new("task", name)).transpose()?,
            queue: queue.clone(),
            tenant: tenant.as_deref().map(|name| NamePattern::new("tenant", name)).transpose()?,
            argument: argument.as_ref().map(ArgumentCondition::compile).transpose()?,
        })
    }
}

impl ArgumentCondition {
    fn compile(&self) -> Result<(String, Vec<Regex>), BrakeError> {
        within("argument", &self.name, 1, LONGEST_NAME)?;
        if self.matches.is_empty() || self.matches.len() > MOST_PATTERNS {
            let count = self.matches.len().to_string();
            let advice = format!("there are so many patterns; write 1 to {MOST_PATTERNS}");
            return Err(BrakeError::field("matches", &count, &advice));
        }
        let compiled = self.matches.iter().map(|pattern| {
            within("matches", pattern, 1, LONGEST_TEXT)?;
            glob::from_start(pattern).map_err(|(pattern, reason)| {
                BrakeError::field("matches", &pattern, &format!("write a regular expression: {reason}"))
            })
        });
        Ok((self.name.clone(), compiled.collect::<Result<_, _>>()?))
    }
}

impl fmt::Display for BrakeRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |what: &str, name: &Option<String>| name.as_ref().map(|name| format!("{what} {name}"));
        let argument = self.argument.as_ref().map(|argument| {
            let matches: Vec<_> = argument.matches.iter().map(|pattern| format!("/{pattern}/")).collect();
            format!("argument {} like {}", argument.name, matches.join(" or "))
        });
        let parts =
            [named("task", &self.task), named("queue", &self.queue), named("tenant", &self.tenant), argument];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        match (parts.is_empty(), self.all) {
            (true, true) => f.write_str("all tasks"),
            (true, false) => f.write_str("no task"),
            (false, _) => f.write_str(&parts.join(", ")),
        }
    }
}

/// A task that is about to start, as far as brakes look at it.
pub struct Subject<'a> {
    /// The name of the task.
    pub task: &'a str,
    /// The queue in which it waits.
    pub queue: &'a str,
    /// The tenant of the call, if it has one.
    pub tenant: Option<&'a str>,
    /// The value of an argument, by its name or its position.
    pub argument: &'a dyn Fn(&str) -> Option<String>,
    /// Whether it stays in its queue, so that nothing diverts it: it was diverted before, or every process runs it.
    pub stays: bool,
}

/// A rule whose patterns are compiled.
#[derive(Clone, Debug)]
pub struct RuleMatcher {
    task: Option<NamePattern>,
    queue: Option<String>,
    tenant: Option<NamePattern>,
    argument: Option<(String, Vec<Regex>)>,
}

/// A name, or a pattern of names.
#[derive(Clone, Debug)]
enum NamePattern {
    Exact(String),
    Glob(Regex),
}

impl NamePattern {
    fn new(field: &'static str, name: &str) -> Result<Self, BrakeError> {
        within(field, name, 1, LONGEST_NAME)?;
        if !glob::is_pattern(name) {
            return Ok(Self::Exact(name.to_owned()));
        }
        glob::compile(&glob::as_regex(name)).map(Self::Glob).map_err(|_| {
            BrakeError::field(field, name, "write a name, with `*` for any text and `?` for one character")
        })
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Glob(pattern) => pattern.is_match(name),
        }
    }
}

impl RuleMatcher {
    /// Whether the rule is about this task. What is cheap to compare comes first.
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        self.matches_names(subject.task, subject.queue, subject.tenant)
            && self.argument.as_ref().is_none_or(|(argument, patterns)| {
                (subject.argument)(argument)
                    .is_some_and(|value| patterns.iter().any(|pattern| pattern.is_match(&value)))
            })
    }

    /// Whether the rule is about tasks of this name, queue and tenant, whatever their arguments are.
    pub fn matches_names(&self, task: &str, queue: &str, tenant: Option<&str>) -> bool {
        self.queue.as_deref().is_none_or(|wanted| wanted == queue)
            && self.tenant.as_ref().is_none_or(|wanted| tenant.is_some_and(|tenant| wanted.matches(tenant)))
            && self.task.as_ref().is_none_or(|wanted| wanted.matches(task))
    }

    /// Whether the rule is about tasks of some arguments only.
    pub fn looks_at_arguments(&self) -> bool {
        self.argument.is_some()
    }
}
