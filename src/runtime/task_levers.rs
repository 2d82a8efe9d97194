//! The limits of single tasks: those that they state, and what an operator has changed while the program runs. And what
//! is counted for operators by task.
//!
//! It holds for this process, and until it ends, as in Celery: a rate limit is for each task and worker process. A
//! queue asks before it starts something, so nothing here waits for anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use parking_lot::Mutex;

use super::start_limits::is_own_rate;
use crate::core::token_bucket::TokenBucket;
use crate::task::registry::Registry;
use crate::task::{Message, TaskOptions};

/// The most names that runs are counted by. Callers may state any name for a task; the runs of further names are not
/// counted.
const MOST_NAMES: usize = 1_000;

/// The limits of one run: soft, hard.
pub(crate) type TimeLimits = (Option<Duration>, Option<Duration>);

/// The levers on the tasks of this process.
pub(crate) struct TaskLevers {
    since: Instant,
    /// Whether any task has a rate limit, so that queues need not look.
    limits_any: AtomicBool,
    rates: DashMap<String, Rate>,
    /// Whether any task has other time limits than its own.
    changes_any: AtomicBool,
    time_limits: DashMap<String, TimeLimits>,
    accepted: DashMap<String, u64>,
}

struct Rate {
    /// As it was stated.
    text: String,
    bucket: Mutex<TokenBucket>,
}

impl Default for TaskLevers {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            limits_any: AtomicBool::new(false),
            rates: DashMap::new(),
            changes_any: AtomicBool::new(false),
            time_limits: DashMap::new(),
            accepted: DashMap::new(),
        }
    }
}

impl TaskLevers {
    /// The limits that the tasks and the program's catalogue state.
    pub(crate) fn of(registry: &Registry) -> Self {
        let levers = Self::default();
        for name in registry.names() {
            let (Some(task), Some(options)) = (registry.get(name), registry.options(name)) else { continue };
            // A rate with a key, or of all processes together, is kept elsewhere.
            if let Some(limit) = options.rate_limit.as_ref().filter(|_| !is_own_rate(task, &options)) {
                levers.limit_rate(name, limit.text(), Some(limit.per_second()));
            }
        }
        levers
    }

    /// Limits how many runs of a task start in this process each second; `None`: it is not limited any more. Every
    /// bucket is full again, as in Celery.
    pub(crate) fn limit_rate(&self, task: &str, text: &str, per_second: Option<f64>) {
        let now = self.since.elapsed();
        match per_second {
            Some(rate) => {
                let bucket = Mutex::new(TokenBucket::new(rate, now));
                self.rates.insert(task.to_owned(), Rate { text: text.to_owned(), bucket });
            }
            None => drop(self.rates.remove(task)),
        }
        self.limits_any.store(!self.rates.is_empty(), Ordering::Release);
    }

    /// The rate limit of a task, as it was stated.
    pub(crate) fn rate_of(&self, task: &str) -> Option<String> {
        Some(self.rates.get(task)?.text.clone())
    }

    /// The rate limits that hold, by task: each as it was stated, and how long until the next start if that is not now.
    pub(crate) fn rates(&self) -> Vec<(String, String, Option<Duration>)> {
        let now = self.since.elapsed();
        let rates = self.rates.iter().map(|rate| {
            let wait = rate.bucket.lock().peek(now).err();
            (rate.key().clone(), rate.text.clone(), wait)
        });
        rates.collect()
    }

    /// Whether any task has a rate limit.
    pub(crate) fn limits_any(&self) -> bool {
        self.limits_any.load(Ordering::Acquire)
    }

    /// Lets a run of a task start.
    ///
    /// # Errors
    /// Its rate limit does not let it start yet; it will after this long.
    pub(crate) fn admit(&self, task: &str) -> Result<(), Duration> {
        match self.rates.get(task) {
            Some(rate) => rate.bucket.lock().take(self.since.elapsed()),
            None => Ok(()),
        }
    }

    /// How long the rate limit of a task does not let a run of it start; `None`: it does. Nothing is taken.
    pub(crate) fn held_for(&self, task: &str) -> Option<Duration> {
        self.rates.get(task)?.bucket.lock().peek(self.since.elapsed()).err()
    }

    /// Gives the runs of a task that start from now on other limits than the task states.
    pub(crate) fn limit_time(&self, task: &str, limits: TimeLimits) {
        self.time_limits.insert(task.to_owned(), limits);
        self.changes_any.store(true, Ordering::Release);
    }

    /// The limits of a run of this message: those that its call states, else those that an operator has set, else those
    /// of its task. (A message holds the limits of its task as well, so one that differs from them is its call's own.)
    pub(crate) fn time_limits(&self, message: &Message, options: impl FnOnce() -> TaskOptions) -> TimeLimits {
        let stated = (message.soft_time_limit, message.time_limit);
        if !self.changes_any.load(Ordering::Acquire) {
            return stated;
        }
        let Some(set) = self.time_limits.get(&message.task).map(|limits| *limits) else { return stated };
        let own = options();
        (
            if stated.0 == own.soft_time_limit { set.0 } else { stated.0 },
            if stated.1 == own.time_limit { set.1 } else { stated.1 },
        )
    }

    /// The limits that an operator has set for a task, if any.
    pub(crate) fn time_limits_of(&self, task: &str) -> Option<TimeLimits> {
        self.time_limits.get(task).map(|limits| *limits)
    }

    /// A run of this message starts.
    pub(crate) fn accept(&self, message: &Message) {
        let name = shown_name(message);
        if let Some(mut count) = self.accepted.get_mut(name) {
            *count += 1;
        } else if self.accepted.len() < MOST_NAMES {
            *self.accepted.entry(name.to_owned()).or_default() += 1;
        }
    }

    /// How many runs have started, by the names that tools show.
    pub(crate) fn accepted(&self) -> Vec<(String, u64)> {
        self.accepted.iter().map(|entry| (entry.key().clone(), *entry.value())).collect()
    }
}

/// The name of a task that tools show: its `shadow`, if the call states one.
pub(crate) fn shown_name(message: &Message) -> &str {
    let shadow = message.workflow.as_deref().and_then(|workflow| workflow.shadow.as_deref());
    shadow.filter(|shadow| !shadow.is_empty()).unwrap_or(&message.task)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Context, Workflow};

    #[test]
    fn the_limits_of_a_call_are_stronger_than_the_operators() {
        let second = Duration::from_secs;
        let levers = TaskLevers::default();
        let own = || TaskOptions { soft_time_limit: Some(second(5)), ..TaskOptions::default() };
        let mut message = Context::detached().message().clone();
        message.soft_time_limit = Some(second(5));
        assert_eq!(levers.time_limits(&message, own), (Some(second(5)), None));
        levers.limit_time(&message.task, (Some(second(1)), Some(second(2))));
        assert_eq!(levers.time_limits(&message, own), (Some(second(1)), Some(second(2))));
        message.soft_time_limit = Some(second(9));
        assert_eq!(levers.time_limits(&message, own), (Some(second(9)), Some(second(2))));
        message.task = "another".into();
        assert_eq!(levers.time_limits(&message, own), (Some(second(9)), None));
    }

    #[test]
    fn a_rate_is_per_task_and_can_be_taken_away() {
        let levers = TaskLevers::default();
        assert!(!levers.limits_any() && levers.admit("a").is_ok());
        levers.limit_rate("a", "1/h", Some(1.0 / 3600.0));
        assert!(levers.limits_any() && levers.held_for("a").is_none() && levers.admit("a").is_ok());
        assert!(levers.held_for("a").is_some_and(|wait| wait > Duration::from_secs(3000)));
        assert!(levers.admit("a").unwrap_err() > Duration::from_secs(3000) && levers.held_for("b").is_none());
        assert!(levers.admit("b").is_ok() && levers.admit("b").is_ok());
        assert_eq!(levers.rate_of("a").as_deref(), Some("1/h"));
        levers.limit_rate("a", "", None);
        assert!(!levers.limits_any() && levers.admit("a").is_ok() && levers.admit("a").is_ok());
    }

    #[test]
    fn runs_are_counted_by_the_name_that_is_shown() {
        let levers = TaskLevers::default();
        let mut message = Context::detached().message().clone();
        message.task = "app.add".into();
        levers.accept(&message);
        levers.accept(&message);
        message.workflow = Some(Box::new(Workflow { shadow: Some("nick".into()), ..Workflow::default() }));
        levers.accept(&message);
        let mut accepted = levers.accepted();
        accepted.sort();
        assert_eq!(accepted, [("app.add".to_owned(), 2), ("nick".to_owned(), 1)]);
        for n in 0..2 * MOST_NAMES {
            message.workflow =
                Some(Box::new(Workflow { shadow: Some(n.to_string()), ..Workflow::default() }));
            levers.accept(&message);
        }
        assert_eq!(levers.accepted().len(), MOST_NAMES);
    }
}
