//! One `[[limit]]` of the catalogue: which starts are limited, by which key, and how.

use std::fmt;

use super::error::quote;
use super::one_line;
use super::route_row::TaskPattern;
use crate::core::calendar::Zone;
use crate::core::start_limit::StartLimit;

/// The word for the key of a row that counts by the tenants of tasks.
pub const TENANT_KEY: &str = "tenant";

/// A limit on the starts of tasks. Several rows may be about one task, and then all of them are kept.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LimitRow {
    /// The name of the limit, by which screens and stores tell it from others. It is the pattern of the tasks unless stated.
    pub name: String,
    /// The pattern for the names of the tasks, which are counted together.
    pub task: TaskPattern,
    /// The parameter whose value is the key, or [`TENANT_KEY`] for the tenant of the task. `None`: there is one count for all.
    pub key: Option<String>,
    /// The zone whose clocks say what a day is and which hour it is. `None`: that of the catalogue, else UTC.
    pub zone: Option<Zone>,
    /// What is allowed, for each key. Its zone does not count; that of the row does.
    pub limit: StartLimit,
}

impl LimitRow {
    /// A limit of the tasks of this name, which may contain `*`, `?` and `[seq]`. It allows what `limit` says, and has no key.
    pub fn new(task: impl Into<String>, limit: StartLimit) -> Self {
        Self::of(TaskPattern::Glob(task.into()), limit)
    }

    /// The same, for any pattern.
    pub fn of(task: TaskPattern, limit: StartLimit) -> Self {
        let (TaskPattern::Glob(name) | TaskPattern::Regex(name)) = &task;
        Self { name: name.clone(), task, key: None, zone: None, limit }
    }

    /// Sets the name of the limit.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the parameter whose value is the key, or [`TENANT_KEY`].
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the time zone in which the hours and the day of the limit count.
    #[must_use]
    pub fn with_zone(mut self, zone: Zone) -> Self {
        self.zone = Some(zone);
        self
    }
}

impl fmt::Display for LimitRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", quote(&self.name))?;
        if !matches!(&self.task, TaskPattern::Glob(name) if *name == self.name) {
            write!(f, " of {}", self.task)?;
        }
        if let Some(key) = &self.key {
            write!(f, " by {}", quote(key))?;
        }
        let limit = StartLimit { zone: self.zone.unwrap_or(self.limit.zone), ..self.limit.clone() };
        write!(f, ": {}", one_line(&limit.to_string()))
    }
}
