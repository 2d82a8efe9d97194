//! What a program says for all of its tasks that do not say it themselves.
//!
//! The table `[defaults]` of the catalogue, the environment and the builder state it. A task that states an option keeps
//! its own value, and so does a call. Calls carry what is filled in with them, so a change holds for calls from then on.

use std::time::Duration;

use super::TaskOptions;
use crate::core::token_bucket::RateLimit;

/// Options for all tasks of a program that do not state them. A field that is `None` says nothing, and then Celeriac's
/// own default holds. `[defaults]` of the catalogue has the same keys, and [`Builder::defaults`](crate::Builder::defaults)
/// takes them from code.
///
/// ```
/// use celeriac::task::TaskDefaults;
/// use std::time::Duration;
///
/// let mut defaults = TaskDefaults::default();
/// defaults.soft_time_limit = Some(Duration::from_secs(2 * 24 * 3600)); // as in CommCare HQ
/// defaults.max_retries = Some(5);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TaskDefaults {
    /// Whether tasks are settled after their run: Celery's `task_acks_late`. Serial tasks and tasks with a unique window
    /// always are.
    pub acks_late: Option<bool>,
    /// Whether errors are tried again.
    pub autoretry: Option<bool>,
    /// The number of times that a failed attempt is tried again.
    pub max_retries: Option<u32>,
    /// The delay before the first retry.
    pub default_retry_delay: Option<Duration>,
    /// Whether the delay doubles with each retry.
    pub retry_backoff: Option<bool>,
    /// The longest delay of a retry.
    pub retry_backoff_max: Option<Duration>,
    /// Whether the delay of a retry is partly random.
    pub retry_jitter: Option<bool>,
    /// The soft time limit of each run: Celery's `task_soft_time_limit`. It does not hold for a task whose own
    /// `time_limit` is shorter.
    pub soft_time_limit: Option<Duration>,
    /// The hard time limit of each run: Celery's `task_time_limit`. It does not hold for a task whose own
    /// `soft_time_limit` is longer.
    pub time_limit: Option<Duration>,
    /// The time after which a task that has not started is revoked. It counts from the enqueue, or from the ETA of a call
    /// that has one. Ticks of periodic entries expire by their own rule.
    pub expires: Option<Duration>,
    /// The tasks for which [`expires`](Self::expires) does not hold: names, also with `*` and `?`.
    pub expires_except: Vec<String>,
    /// The time for which results are kept: Celery's `result_expires`.
    pub result_expires: Option<Duration>,
    /// The rate at which runs of a task start in each process at most: Celery's `task_default_rate_limit`.
    pub rate_limit: Option<RateLimit>,
    /// The argument that names the tenant of a call, for all tasks that have an argument of this name and do not name their
    /// tenants themselves.
    pub tenant: Option<String>,
}

impl TaskDefaults {
    /// These defaults, with what they do not say taken from `other`.
    #[must_use]
    pub fn over(self, other: Self) -> Self {
        let has_exceptions = !self.expires_except.is_empty();
        Self {
            acks_late: self.acks_late.or(other.acks_late),
            autoretry: self.autoretry.or(other.autoretry),
            max_retries: self.max_retries.or(other.max_retries),
            default_retry_delay: self.default_retry_delay.or(other.default_retry_delay),
            retry_backoff: self.retry_backoff.or(other.retry_backoff),
            retry_backoff_max: self.retry_backoff_max.or(other.retry_backoff_max),
            retry_jitter: self.retry_jitter.or(other.retry_jitter),
            soft_time_limit: self.soft_time_limit.or(other.soft_time_limit),
            time_limit: self.time_limit.or(other.time_limit),
            expires: self.expires.or(other.expires),
            expires_except: if has_exceptions { self.expires_except } else { other.expires_except },
            result_expires: self.result_expires.or(other.result_expires),
            rate_limit: self.rate_limit.or(other.rate_limit),
            tenant: self.tenant.or(other.tenant),
        }
    }

    /// Fills in how a task that does not state it is settled and tried again, also of a task that this program does not
    /// have. With `settles_late` the message is settled after the run whatever the program says. An option that was set
    /// in code is stated if its value is not the default.
    pub(crate) fn fill_in(&self, options: &mut TaskOptions, settles_late: bool) {
        let own = TaskOptions::default();
        let stated = options.stated;
        set(&mut options.acks_late, stated.acks_late || settles_late, own.acks_late, self.acks_late);
        set(&mut options.autoretry, stated.autoretry, own.autoretry, self.autoretry);
    }

    /// Fills in the rest, for a task of this program. `never_expires` says that the task is one of the exceptions.
    pub(crate) fn fill_in_limits(&self, options: &mut TaskOptions, never_expires: bool) {
        let own = TaskOptions::default();
        let stated = options.stated;
        let retry = &mut options.retry;
        set(&mut retry.max_retries, stated.max_retries, own.retry.max_retries, self.max_retries);
        set(&mut retry.delay, stated.retry_delay, own.retry.delay, self.default_retry_delay);
        set(&mut retry.backoff, stated.retry_backoff, own.retry.backoff, self.retry_backoff);
        set(&mut retry.max_delay, stated.retry_backoff_max, own.retry.max_delay, self.retry_backoff_max);
        set(&mut retry.jitter, stated.retry_jitter, own.retry.jitter, self.retry_jitter);
        set(&mut options.result_expires, stated.result_expires, own.result_expires, self.result_expires);
        // A default does not contradict what the task says: the soft limit stays below the hard one.
        let soft = options.soft_time_limit;
        let hard = self.time_limit.filter(|hard| soft.is_none_or(|soft| soft < *hard));
        options.time_limit = options.time_limit.or(hard);
        let hard = options.time_limit;
        let soft = self.soft_time_limit.filter(|soft| hard.is_none_or(|hard| *soft < hard));
        options.soft_time_limit = options.soft_time_limit.or(soft);
        if !never_expires {
            options.expires = options.expires.or(self.expires);
        }
        if !stated.rate_limit && options.rate_limit.is_none() {
            options.rate_limit.clone_from(&self.rate_limit);
        }
    }
}

/// Gives an option the program's default, unless it is stated or has another value than it has by itself.
fn set<T: PartialEq>(option: &mut T, is_stated: bool, own: T, default: Option<T>) {
    if let Some(default) = default.filter(|_| !is_stated && *option == own) {
        *option = default;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::StatedOptions;

    fn filled_in(defaults: &TaskDefaults, mut options: TaskOptions, settles_late: bool) -> TaskOptions {
        defaults.fill_in(&mut options, settles_late);
        options
    }

    fn with_limits(defaults: &TaskDefaults, mut options: TaskOptions, never_expires: bool) -> TaskOptions {
        defaults.fill_in_limits(&mut options, never_expires);
        options
    }

    #[test]
    fn a_programs_defaults_hold_for_what_a_task_does_not_state() {
        let defaults =
            TaskDefaults { acks_late: Some(false), autoretry: Some(false), ..TaskDefaults::default() };
        let of = |options: TaskOptions, settles_late| {
            let TaskOptions { acks_late, autoretry, .. } = filled_in(&defaults, options, settles_late);
            (acks_late, autoretry)
        };
        assert_eq!(of(TaskOptions::default(), false), (false, false));
        assert_eq!(of(TaskOptions::default(), true), (true, false), "a window or a lane needs its end");
        let stated = StatedOptions { acks_late: true, autoretry: true, ..StatedOptions::default() };
        assert_eq!(of(TaskOptions { stated, ..TaskOptions::default() }, false), (true, true));
        let none = filled_in(&TaskDefaults::default(), TaskOptions::default(), false);
        assert_eq!(with_limits(&TaskDefaults::default(), none, false), TaskOptions::default());
        let opposite =
            TaskDefaults { acks_late: Some(true), autoretry: Some(true), ..TaskDefaults::default() };
        let in_code = TaskOptions { acks_late: false, autoretry: false, ..TaskOptions::default() };
        assert_eq!(filled_in(&opposite, in_code.clone(), false), in_code);
    }

    #[test]
    fn retries_and_results_are_filled_in_unless_they_are_stated() {
        let second = Duration::from_secs;
        let defaults = TaskDefaults {
            max_retries: Some(9),
            default_retry_delay: Some(second(1)),
            retry_backoff: Some(false),
            retry_backoff_max: Some(second(2)),
            retry_jitter: Some(false),
            result_expires: Some(second(3)),
            rate_limit: RateLimit::parse("6/m").unwrap(),
            ..TaskDefaults::default()
        };
        let filled = with_limits(&defaults, TaskOptions::default(), false);
        let retry = &filled.retry;
        assert_eq!((retry.max_retries, retry.delay, retry.max_delay), (9, second(1), second(2)));
        assert!(!retry.backoff && !retry.jitter);
        assert_eq!((filled.result_expires, filled.rate_limit), (second(3), defaults.rate_limit.clone()));
        let stated = StatedOptions {
            max_retries: true,
            retry_delay: true,
            retry_backoff: true,
            retry_backoff_max: true,
            retry_jitter: true,
            result_expires: true,
            rate_limit: true,
            ..StatedOptions::default()
        };
        let own = TaskOptions { stated, ..TaskOptions::default() };
        assert_eq!(with_limits(&defaults, own.clone(), false), own);
    }

    #[test]
    fn a_default_limit_does_not_contradict_the_tasks_own() {
        let hour = |hours: u64| Some(Duration::from_secs(hours * 3600));
        let defaults = TaskDefaults {
            soft_time_limit: hour(2),
            time_limit: hour(3),
            expires: hour(4),
            ..TaskDefaults::default()
        };
        for (own, filled) in [
            ((None, None), (hour(2), hour(3))),
            ((None, hour(1)), (None, hour(1))),
            ((None, hour(5)), (hour(2), hour(5))),
            ((hour(1), None), (hour(1), hour(3))),
            ((hour(3), None), (hour(3), None)),
            ((hour(5), hour(6)), (hour(5), hour(6))),
        ] {
            let task = TaskOptions { soft_time_limit: own.0, time_limit: own.1, ..TaskOptions::default() };
            let task = with_limits(&defaults, task, false);
            assert_eq!((task.soft_time_limit, task.time_limit), filled, "{own:?}");
            assert_eq!(task.expires, hour(4));
        }
        assert_eq!(with_limits(&defaults, TaskOptions::default(), true).expires, None);
        let own = TaskOptions { expires: hour(1), ..TaskOptions::default() };
        assert_eq!(with_limits(&defaults, own, false).expires, hour(1));
    }

    #[test]
    fn the_first_ones_win_over_the_others() {
        let first = TaskDefaults { max_retries: Some(1), ..TaskDefaults::default() };
        let others = TaskDefaults {
            max_retries: Some(2),
            autoretry: Some(false),
            expires_except: vec!["a.*".to_owned()],
            ..TaskDefaults::default()
        };
        let both = first.over(others.clone());
        assert_eq!((both.max_retries, both.autoretry), (Some(1), Some(false)));
        assert_eq!(both.expires_except, others.expires_except);
        let own = TaskDefaults { expires_except: vec!["b".to_owned()], ..TaskDefaults::default() };
        assert_eq!(own.over(others).expires_except, ["b"]);
    }
}
