//! The rules between the parts of a catalogue: names are valid and unique, and every alias and route ends at a queue.
//!
//! The same rules hold for a file and for a catalogue that was built in code. Only the parts of a file have
//! positions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::environment::Environment;
use super::error::{CatalogueError, Position, Problem, quote};
use super::pool_row::{Culprit, faults, missing_slots};
use super::row_relations::{self, RelationFault};
use super::spelling;
use super::tenant_weights;
use super::{
    BrakeRow, Catalogue, DEFAULT_QUEUE, LimitRow, Pool, QueueRow, RouteRow, RouteRule, TaskPattern,
    brake_row, format_span,
};
use crate::core::brake::BrakeAction;
use crate::core::durations::RunTimeCondition;
use crate::core::glob;
use crate::core::slots::TenantWeight;
use crate::core::token_bucket::RateLimit;
use crate::task::TaskDefaults;

/// The most bytes of a name. AMQP carries names as short strings.
pub(super) const LONGEST_NAME: usize = 255;

/// Names a part of a catalogue that a mistake can be about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum MistakeSubject {
    DefaultQueue,
    /// The queue row of that index.
    Queue(usize),
    /// An alias, with the environment that states it, or `None` for the base. So are the other pairs.
    Alias(Option<String>, String),
    Route(Option<String>, String),
    /// The `[[route]]` row of that index.
    RouteRow(Option<String>, usize),
    RateLimit(Option<String>, String),
    /// The `[[limit]]` row of that index.
    Limit(Option<String>, usize),
    /// The `[[brake]]` row of that index.
    BrakeRow(Option<String>, usize),
    TenantOf(Option<String>, String),
    Defaults(Option<String>),
    /// The periodic entry of that index.
    Periodic(usize),
    EnvironmentQueue(String, String),
    Pool(Option<String>, Pool),
}

/// The position in the text of each part of the catalogue.
pub(super) type SubjectPositions = BTreeMap<MistakeSubject, Position>;

/// All mistakes of a catalogue. `places` is empty for a catalogue that was built in code.
pub(super) fn check(catalogue: &Catalogue, places: &SubjectPositions) -> Vec<CatalogueError> {
    let catalogue = &catalogue.clone().indexed(); // rows that name other rows look them up
    let mut check = Check { catalogue, places, names: BTreeSet::new(), errors: Vec::new() };
    check.names.extend(catalogue.queues.iter().map(|row| row.name.as_str()));
    check.queues();
    check.aliases(None, &catalogue.aliases, &catalogue.aliases);
    check.routes(None, &catalogue.routes, &catalogue.aliases);
    check.route_rows(None, &catalogue.route_rows, &catalogue.aliases);
    check.rate_limits(None, &catalogue.rate_limits);
    check.limits(None, &catalogue.limits);
    check.brake_rows(None, &catalogue.brakes, &catalogue.aliases);
    check.tenants(None, &catalogue.tenants);
    check.defaults(None, &catalogue.defaults);
    check.pools();
    check.relations();
    check.tenant_weights();
    for (name, environment) in &catalogue.environments {
        let mut merged = catalogue.aliases.clone();
        merged.extend(environment.aliases.clone());
        check.aliases(Some(name), &environment.aliases, &merged);
        check.routes(Some(name), &environment.routes, &merged);
        check.route_rows(Some(name), &environment.route_rows, &merged);
        check.rate_limits(Some(name), &environment.rate_limits);
        check.limits(Some(name), &environment.limits);
        check.brake_rows(Some(name), &environment.brakes, &merged);
        check.tenants(Some(name), &environment.tenants);
        if environment.defaults != TaskDefaults::default() {
            // An environment may state one of two limits, and the base the other one.
            check.defaults(Some(name), &environment.defaults.clone().over(catalogue.defaults.clone()));
        }
        check.pools_in(name, environment);
        check.relations_in(name);
        for queue in environment.rows.keys() {
            let place = MistakeSubject::EnvironmentQueue(name.clone(), queue.clone());
            if !check.names.contains(queue.as_str()) {
                check.unknown_queue(place, format!("environment {} changes queue", quote(name)), queue);
            }
        }
    }
    check.default_queue();
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

    /// Checks the exact routes that `environment` (or the base) states. `aliases` are all that hold there.
    fn routes(
        &mut self,
        environment: Option<&String>,
        routes: &BTreeMap<String, String>,
        aliases: &BTreeMap<String, String>,
    ) {
        for (task, queue) in routes {
            let place = MistakeSubject::Route(environment.cloned(), task.clone());
            self.name(&place, "a task", task);
            if !self.names.contains(queue.as_str()) && !aliases.contains_key(queue) {
                self.unknown_queue(place, format!("route {} leads to", quote(task)), queue);
            }
        }
    }

    /// As [`routes`](Self::routes), for the routes by patterns.
    fn route_rows(
        &mut self,
        environment: Option<&String>,
        rows: &[RouteRow],
        aliases: &BTreeMap<String, String>,
    ) {
        for (index, row) in rows.iter().enumerate() {
            let place = MistakeSubject::RouteRow(environment.cloned(), index);
            // The message does not number the rows, because rows with other mistakes are missing from this list.
            let known_as = format!("route {}", row.task);
            if let TaskPattern::Glob(name) = &row.task {
                self.name(&place, "a task", name);
            }
            let bad = |key: &str, value: String, advice: String| {
                let place = format!("in {known_as}");
                Problem::BadValue { key: key.to_owned(), place, value, advice }
            };
            let without_patterns = row.argument.as_ref().is_some_and(|argument| argument.matches.is_empty());
            if without_patterns && row.run_time.is_none() {
                let problem = bad("matches", "empty".to_owned(), "write at least one pattern".to_owned());
                self.report(&place, problem);
            }
            if let Some((key, value, advice)) = row.run_time.as_ref().and_then(run_time_fault) {
                self.report(&place, bad(key, value, advice));
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
            if !self.names.contains(row.queue.as_str()) && !aliases.contains_key(&row.queue) {
                self.unknown_queue(place, format!("{known_as} leads to"), &row.queue);
            }
        }
    }

    /// Checks the names of the tasks that have a rate limit in `environment` (or the base).
    fn rate_limits(&mut self, environment: Option<&String>, limits: &BTreeMap<String, Option<RateLimit>>) {
        for task in limits.keys() {
            self.name(&MistakeSubject::RateLimit(environment.cloned(), task.clone()), "a task", task);
        }
    }

    /// Checks the limits that `environment` (or the base) states.
    fn limits(&mut self, environment: Option<&String>, rows: &[LimitRow]) {
        for (index, row) in rows.iter().enumerate() {
            let subject = MistakeSubject::Limit(environment.cloned(), index);
            let place = format!("in limit {}", quote(&row.name));
            let bad = |key: &str, value: String, advice: String| {
                let place = place.clone();
                Problem::BadValue { key: key.to_owned(), place, value, advice }
            };
            self.name(&subject, "a limit", &row.name);
            if let TaskPattern::Glob(name) = &row.task {
                self.name(&subject, "a task", name);
            }
            if let Err((pattern, reason)) = RouteRule::new(&RouteRow::of_tasks(row.task.clone())) {
                let key = if matches!(row.task, TaskPattern::Regex(_)) { "task_pattern" } else { "task" };
                self.report(&subject, bad(key, quote(&pattern), format!("write a pattern: {reason}")));
            }
            if row.key.as_deref() == Some("") {
                let advice = "name a parameter or \"tenant\", or remove it".to_owned();
                self.report(&subject, bad("key", quote(""), advice));
            }
            if let Some((key, value, advice)) = row.limit.fault() {
                self.report(&subject, bad(key, value, advice));
            }
            if row.limit.is_empty() {
                let advice = "state rate, max_running, daily, hours or breaker".to_owned();
                self.report(&subject, bad("limit", "empty".to_owned(), advice));
            }
            if rows[..index].iter().any(|other| other.name == row.name) {
                let advice = "another limit has this name: give one of them a name of its own".to_owned();
                self.report(&subject, bad("name", quote(&row.name), advice));
            }
        }
    }

    /// Checks the brakes that `environment` (or the base) states. `aliases` are all that hold there.
    fn brake_rows(
        &mut self,
        environment: Option<&String>,
        rows: &[BrakeRow],
        aliases: &BTreeMap<String, String>,
    ) {
        for (index, row) in rows.iter().enumerate() {
            let place = MistakeSubject::BrakeRow(environment.cloned(), index);
            let known_as = format!("brake on {}", quote(&row.rule.to_string()));
            if let Some(problem) = brake_row::fault(row, &known_as) {
                self.report(&place, problem);
            }
            let divert_to = match &row.action {
                BrakeAction::Divert { divert_to } => Some(divert_to),
                _ => None,
            };
            for (queue, is_about) in [(row.rule.queue.as_ref(), "is about"), (divert_to, "diverts to")] {
                let Some(queue) = queue.filter(|queue| !queue.is_empty()) else { continue };
                if !self.names.contains(queue.as_str()) && !aliases.contains_key(queue) {
                    self.unknown_queue(place.clone(), format!("{known_as} {is_about}"), queue);
                }
            }
            let target = divert_to.and_then(|queue| self.catalogue.queue(queue));
            if let Some(queue) = target.filter(|row| row.setup.broadcast) {
                let problem = Problem::BadValue {
                    key: "divert_to".to_owned(),
                    place: format!("in {known_as}"),
                    value: quote(&queue.name),
                    advice: "every process runs each of its tasks: name another queue".to_owned(),
                };
                self.report(&place, problem);
            }
        }
    }

    /// As [`rate_limits`](Self::rate_limits), of the tasks whose tenants are named. Which parameters they have, the program
    /// knows.
    fn tenants(&mut self, environment: Option<&String>, tenants: &BTreeMap<String, String>) {
        for task in tenants.keys() {
            self.name(&MistakeSubject::TenantOf(environment.cloned(), task.clone()), "a task", task);
        }
    }

    /// Checks the defaults of tasks as they hold in `environment` (or in the base).
    fn defaults(&mut self, environment: Option<&String>, defaults: &TaskDefaults) {
        let subject = MistakeSubject::Defaults(environment.cloned());
        let place = match environment {
            Some(name) => format!("in environment {} under defaults", quote(name)),
            None => "in [defaults]".to_owned(),
        };
        let bad = |key: &str, value: String, advice: String| {
            let place = place.clone();
            Problem::BadValue { key: key.to_owned(), place, value, advice }
        };
        let TaskDefaults { soft_time_limit: soft, time_limit: hard, expires, .. } = defaults;
        for (key, span) in [("soft_time_limit", soft), ("time_limit", hard), ("expires", expires)] {
            if *span == Some(Duration::ZERO) {
                self.report(&subject, bad(key, "0s".to_owned(), "set a duration above zero".to_owned()));
            }
        }
        if let (Some(soft), Some(hard)) = (soft, hard)
            && soft >= hard
        {
            let advice = format!(
                "write less than time_limit, which is {}: a body that is told to end needs time to do so",
                quote(&format_span(*hard))
            );
            self.report(&subject, bad("soft_time_limit", quote(&format_span(*soft)), advice));
        }
        for name in &defaults.expires_except {
            if let Err((_, reason)) = RouteRule::new(&RouteRow::new(name.as_str(), "")) {
                let advice = format!("write names of tasks, also with `*` and `?`: {reason}");
                self.report(&subject, bad("expires_except", quote(name), advice));
            }
        }
    }

    /// Checks the pools against their queues.
    fn pools(&mut self) {
        for (culprit, problem) in faults(&self.catalogue.queues, &self.catalogue.pools, "") {
            let place = match culprit {
                Culprit::Queue(index) => MistakeSubject::Queue(index),
                Culprit::Pool(pool) => MistakeSubject::Pool(None, pool),
            };
            self.report(&place, problem);
        }
    }

    /// As [`pools`](Self::pools), for what an environment makes of them. What is wrong in the base is told there.
    fn pools_in(&mut self, name: &str, environment: &Environment) {
        let catalogue = self.catalogue;
        let within = format!("environment {}, ", quote(name));
        let pools = environment.pools_over(&catalogue.pools);
        for pool in environment.pools.keys().filter(|pool| !pools.contains_key(*pool)) {
            let place = MistakeSubject::Pool(Some(name.to_owned()), *pool);
            self.report(&place, missing_slots(*pool, &within));
        }
        let told: Vec<Culprit> =
            faults(&catalogue.queues, &catalogue.pools, "").into_iter().map(|(culprit, _)| culprit).collect();
        let rows = environment.rows_over(&catalogue.queues);
        for (culprit, problem) in faults(&rows, &pools, &within) {
            if told.contains(&culprit) {
                continue;
            }
            let stated = match culprit {
                Culprit::Queue(index) => {
                    let queue = catalogue.queues.get(index).map(|row| row.name.clone()).unwrap_or_default();
                    MistakeSubject::EnvironmentQueue(name.to_owned(), queue)
                }
                Culprit::Pool(pool) => MistakeSubject::Pool(Some(name.to_owned()), pool),
            };
            let place = match culprit {
                // The pool is the base's, and a row of the environment does not fit it.
                Culprit::Pool(pool) if !self.places.contains_key(&stated) => MistakeSubject::Pool(None, pool),
                _ => stated,
            };
            self.report(&place, problem);
        }
    }

    /// Checks the rows of queues against each other.
    fn relations(&mut self) {
        for (index, fault) in row_relations::faults(self.catalogue, "") {
            self.report_relation(MistakeSubject::Queue(index), fault);
        }
    }

    /// As [`relations`](Self::relations), for what an environment makes of the rows. What is wrong in the base is told there.
    fn relations_in(&mut self, name: &str) {
        let catalogue = self.catalogue;
        let Ok(merged) = catalogue.for_environment(name).map(Catalogue::indexed) else { return };
        let (told, found) = (row_relations::faults(catalogue, ""), row_relations::faults(&merged, ""));
        let named = row_relations::faults(&merged, &format!("environment {}, ", quote(name)));
        for (fault, (index, named)) in found.iter().zip(named) {
            if told.contains(fault) {
                continue;
            }
            let queue = catalogue.queues.get(index).map(|row| row.name.clone()).unwrap_or_default();
            let stated = MistakeSubject::EnvironmentQueue(name.to_owned(), queue);
            // Only an alias of the environment may be what is wrong.
            let is_stated = self.places.contains_key(&stated);
            self.report_relation(if is_stated { stated } else { MistakeSubject::Queue(index) }, named);
        }
    }

    fn report_relation(&mut self, place: MistakeSubject, fault: RelationFault) {
        match fault {
            RelationFault::Problem(problem) => self.report(&place, problem),
            RelationFault::UnknownQueue { subject, queue } => self.unknown_queue(place, subject, &queue),
        }
    }

    /// Checks the weights of a catalogue that was built in code. The parser refuses bad ones already.
    fn tenant_weights(&mut self) {
        for (tenant, weight) in &self.catalogue.tenant_weights {
            if TenantWeight::new(*weight).is_none() {
                let problem = Problem::BadValue {
                    key: tenant.clone(),
                    place: "in [tenants.weights]".to_owned(),
                    value: weight.to_string(),
                    advice: tenant_weights::ADVICE.to_owned(),
                };
                self.errors.push(CatalogueError { position: None, problem });
            }
        }
    }

    fn default_queue(&mut self) {
        let catalogue = self.catalogue;
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

/// What is wrong with the limits of run times in a row: the key, its value, and what to do.
fn run_time_fault(condition: &RunTimeCondition) -> Option<(&'static str, String, String)> {
    let (longer, shorter) = (condition.longer_than, condition.shorter_than);
    for (key, limit) in [("longer_than", longer), ("shorter_than", shorter)] {
        if limit == Some(Duration::ZERO) {
            return Some((key, "0s".to_owned(), "set a duration above zero".to_owned()));
        }
    }
    match (longer, shorter) {
        (None, None) => {
            let advice = "it says which run time a limit is about: set longer_than or shorter_than";
            Some(("by", quote(condition.by.as_str()), advice.to_owned()))
        }
        (Some(longer), Some(shorter)) if shorter <= longer => {
            let longer = quote(&format_span(longer));
            let advice = format!("write more than longer_than, which is {longer}: no run time is both");
            Some(("shorter_than", quote(&format_span(shorter)), advice))
        }
        _ => None,
    }
}
