//! The rules between the parts of a catalogue: names are good and unique, and whatever leads to a queue arrives.
//!
//! The same rules hold for a file and for a catalogue that was built in code; only a file has places.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::error::{CatalogueError, Position, Problem, quote};
use super::spelling;
use super::{Catalogue, DEFAULT_QUEUE, QueueRow, Route, TaskPattern};
use crate::protocol::glob;

/// AMQP carries names as short strings.
const LONGEST_NAME: usize = 255;

/// What a mistake can be about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    DefaultQueue,
    /// The row of that index.
    Queue(usize),
    /// An alias, of an environment or of the base.
    Alias(Option<String>, String),
    Route(String),
    /// The periodic entry of that index.
    Periodic(usize),
    /// The route row of that index.
    RouteRow(usize),
    EnvironmentQueue(String, String),
}

/// Where each of them stands in the text.
pub(super) type Places = BTreeMap<Place, Position>;

/// All that breaks a rule.
pub(super) fn check(catalogue: &Catalogue, places: &Places) -> Vec<CatalogueError> {
    let mut check = Check { catalogue, places, names: BTreeSet::new(), errors: Vec::new() };
    check.names.extend(catalogue.queues.iter().map(|row| row.name.as_str()));
    check.queues();
    check.aliases(None, &catalogue.aliases, &catalogue.aliases);
    for (name, environment) in &catalogue.environments {
        let mut merged = catalogue.aliases.clone();
        merged.extend(environment.aliases.clone());
        check.aliases(Some(name), &environment.aliases, &merged);
        for queue in environment.rows.keys() {
            let place = Place::EnvironmentQueue(name.clone(), queue.clone());
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
    places: &'c Places,
    names: BTreeSet<&'c str>,
    errors: Vec<CatalogueError>,
}

impl Check<'_> {
    fn report(&mut self, place: &Place, problem: Problem) {
        self.errors.push(CatalogueError { position: self.places.get(place).copied(), problem });
    }

    fn queues(&mut self) {
        let mut first = HashMap::new();
        for (index, row) in self.catalogue.queues.iter().enumerate() {
            let place = Place::Queue(index);
            self.name(&place, "a queue", &row.name);
            self.numbers(&place, row);
            if let Some(first) = first.get(row.name.as_str()) {
                let first = self.places.get(&Place::Queue(*first)).copied();
                self.report(&place, Problem::DuplicateQueue { name: row.name.clone(), first });
            } else {
                first.insert(row.name.as_str(), index);
            }
        }
    }

    /// A file cannot state zero; a program can.
    fn numbers(&mut self, place: &Place, row: &QueueRow) {
        let faults = [
            ("workers", row.workers == 0, "0", "set at least 1"),
            ("prefetch", row.prefetch == Some(0), "0", "set at least 1"),
            ("target", row.target == Some(Duration::ZERO), "0s", "set a duration above zero"),
            ("restart_window", row.restart_window.is_zero(), "0s", "set a duration above zero"),
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

    fn name(&mut self, place: &Place, what: &'static str, name: &str) {
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

    /// Checks the aliases that `environment` (or the base) states, among all that hold there.
    fn aliases(
        &mut self,
        environment: Option<&String>,
        stated: &BTreeMap<String, String>,
        all: &BTreeMap<String, String>,
    ) {
        let mut in_circle = BTreeSet::new();
        for (alias, target) in stated {
            let place = Place::Alias(environment.cloned(), alias.clone());
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

    /// The way from `start` back to it, if there is one.
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
            let place = Place::Route(task.clone());
            self.name(&place, "a task", task);
            if !self.is_known(queue) {
                self.unknown_queue(place, format!("route {} leads to", quote(task)), queue);
            }
        }
        for (index, row) in catalogue.route_rows.iter().enumerate() {
            let place = Place::RouteRow(index);
            // Not by its number: rows with other mistakes are missing here.
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
            if let Err((pattern, reason)) = Route::new(row) {
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
        // A catalogue that does not speak of a default queue need not have a row for it.
        let default = &catalogue.default_queue;
        if default != DEFAULT_QUEUE && !self.is_known(default) {
            self.unknown_queue(Place::DefaultQueue, "default_queue is".to_owned(), default);
        }
    }

    fn periodic(&mut self) {
        let catalogue = self.catalogue;
        let mut first = HashMap::new();
        for (index, entry) in catalogue.periodic.iter().enumerate() {
            let place = Place::Periodic(index);
            self.name(&place, "a periodic entry", &entry.name);
            if let Some(first) = first.get(entry.name.as_str()) {
                let first = self.places.get(&Place::Periodic(*first)).copied();
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

    fn unknown_queue(&mut self, place: Place, subject: String, queue: &str) {
        // An override names the queue itself: behind an alias another one may stand in each environment.
        let physical = matches!(place, Place::EnvironmentQueue(..));
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
