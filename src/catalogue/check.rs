//! The rules between the parts of a catalogue: names are valid and unique, and every alias and route ends at a queue.
//!
//! The same rules hold for a file and for a catalogue that was built in code. Only the parts of a file have
//! positions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::error::{CatalogueError, Position, Problem, quote};
use super::spelling;
use super::{Catalogue, DEFAULT_QUEUE, QueueRow, RouteRule, TaskPattern};
use crate::core::glob;

/// The most bytes of a name. AMQP carries names as short strings.
const LONGEST_NAME: usize = 255;

/// Names a part of a catalogue that a mistake can be about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum MistakeSubject {
    DefaultQueue,
    /// The queue row of that index.
    Queue(usize),
    /// An alias, with the environment that states it, or `None` for the base.
    Alias(Option<String>, String),
    Route(String),
    /// The periodic entry of that index.
    Periodic(usize),
    /// The `[[route]]` row of that index.
    RouteRow(usize),
    EnvironmentQueue(String, String),
}

/// The position in the text of each part of the catalogue.
pub(super) type SubjectPositions = BTreeMap<MistakeSubject, Position>;

/// All mistakes of a catalogue. `places` is empty for a catalogue that was built in code.
pub(super) fn check(catalogue: &Catalogue, places: &SubjectPositions) -> Vec<CatalogueError> {
    let mut check = Check { catalogue, places, names: BTreeSet::new(), errors: Vec::new() };
    check.names.extend(catalogue.queues.iter().map(|row| row.name.as_str()));
    check.queues();
    check.aliases(None, &catalogue.aliases, &catalogue.aliases);
    for (name, environment) in &catalogue.environments {
        let mut merged = catalogue.aliases.clone();
        merged.extend(environment.aliases.clone());
        check.aliases(Some(name), &environment.aliases, &merged);
        for queue in environment.rows.keys() {
            let place = MistakeSubject::EnvironmentQueue(name.clone(), queue.clone());
            if !check.names.contains(queue.as_str()) {
                check.unknown_queue(place, format!("environment {} changes queue", quote(name)), queue);
            }
        }
    }
    check.routes();
    check.periodic();
    check.errors
}

struct Check<'c> {
    catalogue: &'c Catalogue,
    places: &'c SubjectPositions,
    names: BTreeSet<&'c str>,
    errors: Vec<CatalogueError>,
}

impl Check<'_> {
    fn report(&mut self, place: &MistakeSubject, problem: Problem) {
        self.errors.push(CatalogueError { position: self.places.get(place).copied(), problem });
    }

    fn queues(&mut self) {
        let mut first = HashMap::new();
        for (index, row) in self.catalogue.queues.iter().enumerate() {
            let place = MistakeSubject::Queue(index);
            self.name(&place, "a queue", &row.name);
            self.numbers(&place, row);
            if let Some(first) = first.get(row.name.as_str()) {
                let first = self.places.get(&MistakeSubject::Queue(*first)).copied();
                self.report(&place, Problem::DuplicateQueue { name: row.name.clone(), first });
            } else {
                first.insert(row.name.as_str(), index);
            }
        }
    }

    /// Checks the numbers of a row. The parser refuses zero already, so this is for a catalogue that was built in
    /// code.
    fn numbers(&mut self, place: &MistakeSubject, row: &QueueRow) {
        let faults = [
            ("workers", row.workers == 0, "0", "set at least 1"),
            ("prefetch", row.prefetch == Some(0), "0", "set at least 1"),
            ("target", row.target == Some(Duration::ZERO), "0s", "set a duration above zero"),
            ("restart_window", row.restart_window.is_zero(), "0s", "set a duration above zero"),
            ("max_tasks_per_child", row.max_tasks_per_child == Some(0), "0", "set at least 1"),
            ("max_memory_per_child", row.max_memory_per_child == Some(0), "0", "set a size above zero"),
            ("memory_limit_per_child", row.memory_limit_per_child == Some(0), "0", "set a size above zero"),
        ];
        let faults = faults.into_iter().filter(|(_, bad, ..)| *bad);
        let faults = faults.map(|(key, _, value, advice)| (key, value.to_owned(), advice.to_owned()));
        for (key, value, advice) in faults.chain(row.setup.faults()) {
            let key = key.to_owned();
            let problem =
                Problem::BadValue { key, place: format!("in queue {}", quote(&row.name)), value, advice };
            self.report(place, problem);
        }
    }

    fn name(&mut self, place: &MistakeSubject, what: &'static str, name: &str) {
        let fault = if name.is_empty() {
            "is empty; write at least one character".to_owned()
        } else if name.len() > LONGEST_NAME {
            format!("has {} bytes; write at most {LONGEST_NAME}", name.len())
        } else if let Some(control) = name.chars().find(|c| c.is_control()) {
            format!("contains the control character {control:?}; remove it")
        } else {
            return;
        };
        self.report(place, Problem::BadName { name: name.to_owned(), what, fault });
    }

    /// Checks the aliases that `environment` (or the base) states, among all aliases that hold there.
    fn aliases(
        &mut self,
        environment: Option<&String>,
        stated: &BTreeMap<String, String>,
        all: &BTreeMap<String, String>,
    ) {
        let mut in_circle = BTreeSet::new();
        for (alias, target) in stated {
            let place = MistakeSubject::Alias(environment.cloned(), alias.clone());
            self.name(&place, "an alias", alias);
            if self.names.contains(alias.as_str()) {
                self.report(&place, Problem::AliasShadowsQueue { name: alias.clone() });
            } else if !self.names.contains(target.as_str()) && !all.contains_key(target) {
                self.unknown_queue(place, format!("alias {} leads to", quote(alias)), target);
            } else if !in_circle.contains(alias.as_str())
                && let Some(circle) = self.circle(alias, all)
            {
                in_circle.extend(circle.iter().copied());
                let circle = circle.into_iter().map(quote).collect();
                self.report(&place, Problem::AliasLoop { circle });
            }
        }
    }

    /// The chain of aliases that leads from `start` back to it, if there is one.
    fn circle<'a>(&self, start: &'a str, all: &'a BTreeMap<String, String>) -> Option<Vec<&'a str>> {
        let mut way = vec![start];
        let mut at = start;
        while !self.names.contains(at) && way.len() <= all.len() {
            at = all.get(at)?;
            way.push(at);
            if at == start {
                return Some(way);
            }
        }
        None
    }

    fn routes(&mut self) {
        let catalogue = self.catalogue;
        for (task, queue) in &catalogue.routes {
            let place = MistakeSubject::Route(task.clone());
            self.name(&place, "a task", task);
            if !self.is_known(queue) {
                self.unknown_queue(place, format!("route {} leads to", quote(task)), queue);
            }
        }
        for (index, row) in catalogue.route_rows.iter().enumerate() {
            let place = MistakeSubject::RouteRow(index);
            // The message does not number the rows, because rows with other mistakes are missing from this list.
            let known_as = format!("route {}", row.task);
            if let TaskPattern::Glob(name) = &row.task {
                self.name(&place, "a task", name);
            }
            let bad = |key: &str, value: String, advice: String| {
                let place = format!("in {known_as}");
                Problem::BadValue { key: key.to_owned(), place, value, advice }
            };
            if row.argument.as_ref().is_some_and(|argument| argument.matches.is_empty()) {
                let problem = bad("matches", "empty".to_owned(), "write at least one pattern".to_owned());
                self.report(&place, problem);
            }
            if let Err((pattern, reason)) = RouteRule::new(row) {
                let is_task = matches!(&row.task, TaskPattern::Regex(task) if *task == pattern);
                let key = if is_task { "task_pattern" } else { "matches" };
                let key = if matches!(&row.task, TaskPattern::Glob(glob) if glob::as_regex(glob) == pattern) {
                    "task"
                } else {
                    key
                };
                let problem = bad(key, quote(&pattern), format!("write a regular expression: {reason}"));
                self.report(&place, problem);
            }
            if !self.is_known(&row.queue) {
                self.unknown_queue(place, format!("{known_as} leads to"), &row.queue);
            }
        }
        // A catalogue that does not name a default queue need not have a row for it.
        let default = &catalogue.default_queue;
        if default != DEFAULT_QUEUE && !self.is_known(default) {
            self.unknown_queue(MistakeSubject::DefaultQueue, "default_queue is".to_owned(), default);
        }
        if let Some(row) = catalogue.queue(default).filter(|row| row.setup.broadcast) {
            let problem = Problem::BadValue {
                key: "broadcast".to_owned(),
                place: format!("in queue {}", quote(&row.name)),
                value: "true".to_owned(),
                advice: "it is the default queue, and every process would run every task: send broadcasts to a queue of their own".to_owned(),
            };
            self.report(&MistakeSubject::DefaultQueue, problem);
        }
    }

    fn periodic(&mut self) {
        let catalogue = self.catalogue;
        let mut first = HashMap::new();
        for (index, entry) in catalogue.periodic.iter().enumerate() {
            let place = MistakeSubject::Periodic(index);
            self.name(&place, "a periodic entry", &entry.name);
            if let Some(first) = first.get(entry.name.as_str()) {
                let first = self.places.get(&MistakeSubject::Periodic(*first)).copied();
                self.report(&place, Problem::DuplicatePeriodic { name: entry.name.clone(), first });
            } else {
                first.insert(entry.name.as_str(), index);
            }
            if let Some(queue) = entry.queue.as_ref().filter(|queue| !self.is_known(queue)) {
                self.unknown_queue(place, format!("periodic entry {} goes to", quote(&entry.name)), queue);
            }
        }
    }

    fn is_known(&self, queue: &str) -> bool {
        self.names.contains(queue) || self.catalogue.aliases.contains_key(queue)
    }

    fn unknown_queue(&mut self, place: MistakeSubject, subject: String, queue: &str) {
        // An environment must name the queue itself, because an alias may lead to another queue in each environment.
        let physical = matches!(place, MistakeSubject::EnvironmentQueue(..));
        let advice = match self.catalogue.resolve(queue) {
            Some(name) if physical => format!("it is an alias: write {}", quote(name)),
            _ => {
                let aliases = self.catalogue.aliases.keys().filter(|_| !physical).map(String::as_str);
                spelling::advice(queue, self.names.iter().copied().chain(aliases), || {
                    format!("add a [[queue]] with name = {} or name one that is there", quote(queue))
                })
            }
        };
        self.report(&place, Problem::UnknownQueue { subject, queue: queue.to_owned(), advice });
    }
}
