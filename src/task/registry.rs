//! The registry of all tasks of this program, which are found at link time.

use std::collections::{BTreeMap, HashMap, HashSet};

use regex::Regex;

use crate::core::token_bucket::RateLimit;
use crate::core::{did_you_mean, glob};

use super::{Arguments, DataMap, NeededData, TaskDefaults, TaskDefinition, TaskOptions, TenantRules};

/// The tasks of a program by name.
#[derive(Clone)]
pub struct Registry {
    tasks: HashMap<&'static str, &'static TaskDefinition>,
    /// What the program says for the tasks that do not say it themselves.
    defaults: TaskDefaults,
    /// Whether they say anything.
    has_defaults: bool,
    /// The patterns of the tasks for which the default expiry does not hold.
    never_expire: Vec<Regex>,
    /// The rate limits that the program states by the names of its tasks; `None`: there is none, whatever the task says.
    rate_limits: BTreeMap<String, Option<RateLimit>>,
    /// What the program says of the tenants of its tasks.
    tenants: TenantRules,
    /// The tasks of which no events are sent: those with the option `send_events = false`.
    muted: HashSet<&'static str>,
}

/// The error of two tasks that share a name.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "two tasks are named `{name}`: one at {first}, one at {second}; give one of them another name with #[task(name = \"...\")]"
)]
pub struct DuplicateTask {
    /// The name that the two tasks share.
    pub name: String,
    /// The file and line of the first task.
    pub first: String,
    /// The file and line of the second task.
    pub second: String,
}

crate::core::debug_as_display!(DuplicateTask);

impl Registry {
    /// Finds every task that a `#[task]` in this program, or in a crate linked into it, defines.
    ///
    /// # Errors
    /// Two tasks share a name; the error states both places.
    pub fn discover() -> Result<Self, DuplicateTask> {
        Self::from_definitions(inventory::iter::<TaskDefinition>.into_iter())
    }

    /// Makes a registry of the given tasks.
    ///
    /// # Errors
    /// Two tasks share a name; the error states both places.
    pub fn from_definitions(
        definitions: impl Iterator<Item = &'static TaskDefinition>,
    ) -> Result<Self, DuplicateTask> {
        let mut tasks: HashMap<&'static str, &'static TaskDefinition> = HashMap::new();
        for task in definitions {
            if let Some(other) = tasks.insert(task.name, task) {
                let (first, second) = if other.location <= task.location {
                    (other.location, task.location)
                } else {
                    (task.location, other.location)
                };
                return Err(DuplicateTask {
                    name: task.name.to_owned(),
                    first: first.to_owned(),
                    second: second.to_owned(),
                });
            }
        }
        let (never_expire, rate_limits) = (Vec::new(), BTreeMap::new());
        let (defaults, tenants) = (TaskDefaults::default(), TenantRules::default());
        let muted =
            tasks.values().filter(|task| !(task.options)().send_events).map(|task| task.name).collect();
        Ok(Self { tasks, defaults, has_defaults: false, never_expire, rate_limits, tenants, muted })
    }

    /// Has the program's defaults hold for the options that tasks do not state.
    pub(crate) fn with_defaults(self, defaults: TaskDefaults) -> Self {
        // A pattern that cannot be read names no task. `Catalogue::validate` refuses it, so none comes from there.
        let patterns = defaults.expires_except.iter();
        let never_expire = patterns.filter_map(|name| Regex::new(&glob::as_regex(name)).ok()).collect();
        let has_defaults = defaults != TaskDefaults::default();
        Self { defaults, has_defaults, never_expire, ..self }
    }

    /// Has these rate limits hold for the tasks of these names, whatever the tasks say.
    pub(crate) fn with_rate_limits(self, rate_limits: BTreeMap<String, Option<RateLimit>>) -> Self {
        Self { rate_limits, ..self }
    }

    /// Has these rules say which arguments name the tenants of tasks.
    pub(crate) fn with_tenants(self, tenants: TenantRules) -> Self {
        Self { tenants, ..self }
    }

    /// Whether a call of this task may have a tenant that its headers do not state.
    pub(crate) fn names_tenant(&self, known: Option<&TaskDefinition>) -> bool {
        let TenantRules { argument, tasks } = &self.tenants;
        argument.is_some() || !tasks.is_empty() || known.is_some_and(|task| task.tenant.is_some())
    }

    /// The tenant of a call, which need not be of a task of this program.
    pub(crate) fn tenant(&self, task: &str, arguments: &Arguments) -> Option<String> {
        self.tenant_of(task, self.get(task), arguments)
    }

    /// As [`tenant`](Self::tenant), for a caller who has looked the task up already: `known` is what this program has by its name.
    pub(crate) fn tenant_of(
        &self,
        task: &str,
        known: Option<&TaskDefinition>,
        arguments: &Arguments,
    ) -> Option<String> {
        let params = known.map_or(&[] as &[&str], |known| known.params);
        self.tenants.tenant(task, params, known.and_then(|known| known.tenant), arguments)
    }

    /// Whether all tasks of this program that are meant and may have an argument of this name are searched for by it, and there
    /// is such a task.
    pub(crate) fn all_search_by(&self, argument: &str, is_meant: &dyn Fn(&str) -> bool) -> bool {
        // What `**options` takes has any name.
        let may_have =
            |params: &[&str]| params.iter().any(|name| *name == argument || name.starts_with("**"));
        let meant = self.tasks.values().filter(|task| is_meant(task.name) && may_have(task.params));
        let mut meant = meant.peekable();
        meant.peek().is_some() && meant.all(|task| task.search.contains(&argument))
    }

    /// The options of the task of this name in this program, if the program has it.
    pub(crate) fn options(&self, name: &str) -> Option<TaskOptions> {
        let task = self.get(name)?;
        let mut options = (task.options)();
        self.fill_in(name, Some(task), &mut options);
        Some(options)
    }

    /// Fills the program's defaults into the options of a call, for what they do not state. `known` is the task of this name, if
    /// the program has it: the limits of another program's task are that program's business.
    pub(crate) fn fill_in(&self, name: &str, known: Option<&TaskDefinition>, options: &mut TaskOptions) {
        if !self.has_defaults && self.rate_limits.is_empty() {
            return;
        }
        let Some(task) = known else { return self.defaults.fill_in(options, false) };
        let settles_late = task.serial.is_some() || task.unique.is_some();
        self.defaults.fill_in(options, settles_late);
        let never_expires = self.never_expire.iter().any(|pattern| pattern.is_match(name));
        self.defaults.fill_in_limits(options, never_expires);
        if let Some(limit) = self.rate_limits.get(name) {
            options.rate_limit.clone_from(limit);
        }
    }

    /// The task of this name, if the program has it.
    pub fn get(&self, name: &str) -> Option<&'static TaskDefinition> {
        self.tasks.get(name).copied()
    }

    /// Whether no events are sent of what happens to the task: its option `send_events` is false. It is asked for each event, so
    /// it does not make the options anew.
    pub(crate) fn is_muted(&self, name: &str) -> bool {
        self.muted.contains(name)
    }

    /// A task that takes data that is not among `data`, and the type of that data. Of several, the first by name.
    pub(crate) fn lacks(&self, data: &DataMap) -> Option<(&'static TaskDefinition, &'static NeededData)> {
        let lacking = |task: &&'static TaskDefinition| {
            task.data.iter().find(|needed| !data.has(needed)).map(|needed| (*task, needed))
        };
        self.tasks.values().filter_map(lacking).min_by_key(|(task, _)| task.name)
    }

    /// The names of all tasks, sorted.
    pub fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.tasks.keys().copied().collect();
        names.sort_unstable();
        names
    }

    /// The known name that resembles `name` most, for "did you mean". It is `None` if no name resembles it enough.
    pub fn nearest(&self, name: &str) -> Option<&'static str> {
        did_you_mean::nearest(name, self.tasks.keys().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Body, Hooks, TaskError, TaskKind, TaskOptions};

    const fn task(name: &'static str, location: &'static str) -> TaskDefinition {
        TaskDefinition {
            name,
            params: &[],
            location,
            kind: TaskKind::Cpu,
            options: TaskOptions::default,
            body: Body::Cpu(|_, _| Err(TaskError::ignore())),
            hooks: Hooks::default,
            data: &[],
            serial: None,
            unique: None,
            rate_key: None,
            limit_key: None,
            tenant: None,
            search: &[],
        }
    }

    static A: TaskDefinition = task("app::send_email", "src/a.rs:1");
    static B: TaskDefinition = task("app::send_email", "src/b.rs:9");
    static C: TaskDefinition = task("app::send_sms", "src/c.rs:2");

    #[test]
    fn duplicates_name_both_places() {
        let error = Registry::from_definitions([&B, &C, &A].into_iter()).err().map(|e| e.to_string());
        assert_eq!(
            error.as_deref(),
            Some(
                "two tasks are named `app::send_email`: one at src/a.rs:1, one at src/b.rs:9; give one of them another name with #[task(name = \"...\")]"
            )
        );
    }

    #[test]
    fn nearest_suggests_only_what_resembles() {
        let registry = Registry::from_definitions([&A, &C].into_iter()).unwrap();
        assert_eq!(registry.nearest("app::send_emial"), Some("app::send_email"));
        assert_eq!(registry.nearest("zzz"), None);
        assert_eq!(registry.names(), ["app::send_email", "app::send_sms"]);
        assert!(registry.get("app::send_sms").is_some());
    }

    #[test]
    fn tasks_that_send_no_events_are_muted() {
        let options = || TaskOptions { send_events: false, ..TaskOptions::default() };
        let quiet: &'static TaskDefinition =
            Box::leak(Box::new(TaskDefinition { options, ..task("app::quiet", "src/d.rs:3") }));
        let registry = Registry::from_definitions([&A, quiet].into_iter()).unwrap();
        let muted = ["app::quiet", "app::send_email", "python.task"].map(|name| registry.is_muted(name));
        assert_eq!(muted, [true, false, false]);
    }

    #[test]
    fn a_tenant_is_named_by_the_task_or_the_program() {
        static OF_ONE: TaskDefinition =
            TaskDefinition { tenant: Some(|_| Some("acme".to_owned())), ..task("app::bill", "src/d.rs:3") };
        let plain = Registry::from_definitions([&A, &OF_ONE].into_iter()).unwrap();
        assert!(
            plain.names_tenant(Some(&OF_ONE)) && !plain.names_tenant(Some(&A)) && !plain.names_tenant(None)
        );
        let argument = TenantRules { argument: Some("domain".to_owned()), ..TenantRules::default() };
        let row = ("python.task".to_owned(), "domain".to_owned());
        let rows = TenantRules { tasks: [row].into(), ..TenantRules::default() };
        for rules in [argument, rows] {
            let registry = plain.clone().with_tenants(rules);
            assert!(registry.names_tenant(Some(&A)) && registry.names_tenant(None));
        }
    }

    #[test]
    fn limits_hold_for_the_programs_own_tasks_and_expiry_has_exceptions() {
        let hour = Some(std::time::Duration::from_secs(3600));
        let defaults = TaskDefaults {
            time_limit: hour,
            expires: hour,
            expires_except: vec!["*_sms".to_owned()],
            rate_limit: RateLimit::parse("1/s").unwrap(),
            ..TaskDefaults::default()
        };
        let limits = BTreeMap::from([("app::send_sms".to_owned(), None)]);
        let registry = Registry::from_definitions([&A, &C].into_iter()).unwrap();
        let registry = registry.with_defaults(defaults).with_rate_limits(limits);
        let of = |name: &str| {
            let options = registry.options(name).unwrap();
            (options.time_limit, options.expires, options.rate_limit.is_some())
        };
        assert_eq!((of("app::send_email"), of("app::send_sms")), ((hour, hour, true), (hour, None, false)));
        let mut of_python = TaskOptions::default();
        registry.fill_in("python.task", registry.get("python.task"), &mut of_python);
        assert_eq!(of_python, TaskOptions::default());
    }
}
