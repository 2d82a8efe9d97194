//! The limits on the starts of tasks in this program: those that tasks state by a key, and the `[[limit]]` rows of the
//! catalogue. [`StartLimiter`] counts; this finds the limits and keys of a task, and asks the store what is left.
//!
//! Invariants:
//! - A start is counted by all limits of its task or by none.
//! - What was counted is given back when the [`LimitedRun`] drops, however the run ends, and whoever waits for it is told.
//! - Nobody waits for the store before a start. What is asked ahead is in `core/start_limit`.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use parking_lot::Mutex;

use super::gates::{Bell, GateRound};
use super::limit_keeper::{LimitKeeper, steady_clock};
use crate::broker::Broker;
use crate::catalogue::{Argument, Catalogue, RouteRow, RouteRule, TENANT_KEY, argument_value};
use crate::core::did_you_mean;
use crate::core::hold::{Hold, HoldReason};
use crate::core::start_limit::{
    LimitClock, LimitFigures, LimitKeeping, LimitKey, LimitQuestion, LimitedBy, LimitedStart, RateScope,
    RunEnd, StartLimit, StartLimiter,
};
use crate::core::token_bucket::RateLimit;
use crate::store::Store;
use crate::task::clock::now;
use crate::task::panic::unseen;
use crate::task::registry::Registry;
use crate::task::{LimitKeyFn, Message, TaskDefinition, TaskOptions, shortened_key};

/// The most names of tasks whose limits are remembered. Callers may state any name.
const MOST_NAMES: usize = 1_000;
/// For how many keys at a time the counts are locked when somebody looks at them.
const AT_ONCE: usize = 256;

/// The limits on the starts of tasks.
#[derive(Default)]
pub(crate) struct StartLimits {
    rules: Vec<LimitRule>,
    /// The limits of each task, by the places of their rules.
    of_tasks: DashMap<String, Arc<[usize]>>,
    counts: Mutex<LimitCounts>,
    keeper: Option<LimitKeeper>,
}

/// Which tasks a limit is about, and by which key.
struct LimitRule {
    name: String,
    tasks: LimitedTasks,
    key: KeySource,
}

enum LimitedTasks {
    /// The rate that this task states.
    RateOf(&'static str),
    /// What else this task states.
    One(&'static str),
    Matching(Box<RouteRule>),
}

enum KeySource {
    /// All share one count.
    Nothing,
    Made(LimitKeyFn),
    Parameter(Argument),
    Tenant(Argument),
}

/// The counts of all limits, and who is to be told when a key may start more.
#[derive(Default)]
struct LimitCounts {
    limiters: Vec<StartLimiter>,
    waiting: HashMap<(usize, LimitKey), Vec<WaitingBell>>,
}

/// A queue that holds back a group of tasks.
type WaitingBell = (Weak<Bell>, u64);

/// Why a limit cannot be kept.
pub(crate) struct LimitFault {
    /// The name of the limit.
    pub(crate) name: String,
    /// What is wrong with it, and what to do.
    pub(crate) fault: String,
}

/// A start that was counted by the limits of its task, until this drops.
pub(crate) struct LimitedRun {
    limits: Arc<StartLimits>,
    starts: Vec<(usize, LimitedStart)>,
    /// What the run came to.
    pub(super) end: RunEnd,
}

impl Drop for LimitedRun {
    fn drop(&mut self) {
        self.limits.give_back(&self.starts, self.end);
    }
}

impl StartLimits {
    /// The limits that the tasks of this program state, and those of its catalogue.
    ///
    /// # Errors
    /// A limit makes no sense, or its key is no parameter.
    pub(crate) fn of(
        registry: &Registry,
        catalogue: &Catalogue,
        broker: Arc<dyn Broker>,
        store: Arc<dyn Store>,
    ) -> Result<Self, LimitFault> {
        let mut limits = Self { keeper: Some(LimitKeeper::new(broker, store)), ..Self::default() };
        for task in registry.names() {
            if let (Some(definition), Some(options)) = (registry.get(task), registry.options(task)) {
                limits.add_stated(definition, &options)?;
            }
        }
        for row in &catalogue.limits {
            let rule = RouteRule::new(&RouteRow::of_tasks(row.task.clone()));
            let rule = rule.map_err(|(_, fault)| LimitFault { name: row.name.clone(), fault })?;
            let key = match row.key.as_deref() {
                None => KeySource::Nothing,
                Some(TENANT_KEY) => KeySource::Tenant(Argument::Name(TENANT_KEY.to_owned())),
                Some(key) => {
                    check_key(registry, &rule, key)
                        .map_err(|fault| LimitFault { name: row.name.clone(), fault })?;
                    KeySource::Parameter(Argument::Name(key.to_owned()))
                }
            };
            let zone = row.zone.or(catalogue.zone).unwrap_or(row.limit.zone);
            let limit = StartLimit { zone, ..row.limit.clone() };
            let tasks = LimitedTasks::Matching(Box::new(rule));
            limits.add(LimitRule { name: row.name.clone(), tasks, key }, limit)?;
        }
        Ok(limits)
    }

    /// Adds the limits that a task states itself.
    fn add_stated(&mut self, task: &'static TaskDefinition, options: &TaskOptions) -> Result<(), LimitFault> {
        let made = |key: Option<LimitKeyFn>| key.map_or(KeySource::Nothing, KeySource::Made);
        if is_own_rate(task, options) {
            let scope = options.rate_scope.unwrap_or_default();
            let limit = StartLimit { rate: options.rate_limit.clone(), scope, ..StartLimit::default() };
            let (name, tasks) = (format!("rate of {}", task.name), LimitedTasks::RateOf(task.name));
            self.add(LimitRule { name, tasks, key: made(task.rate_key) }, limit)?;
        }
        let (max_running, breaker) = (options.max_running, options.breaker);
        if max_running.is_some() || breaker.is_some() {
            let limit = StartLimit { max_running, breaker, ..StartLimit::default() };
            let (name, tasks) = (format!("runs of {}", task.name), LimitedTasks::One(task.name));
            self.add(LimitRule { name, tasks, key: made(task.limit_key) }, limit)?;
        }
        Ok(())
    }

    fn add(&mut self, rule: LimitRule, limit: StartLimit) -> Result<(), LimitFault> {
        if let Some((key, value, advice)) = limit.fault() {
            let fault = format!("its {key} is {value}; {advice}");
            return Err(LimitFault { name: rule.name, fault });
        }
        let keeper = self.keeper.as_ref();
        let is_shared = limit.rate.is_some() && limit.scope == RateScope::Cluster;
        if is_shared && keeper.is_some_and(LimitKeeper::is_lacking) {
            tracing::warn!(
                limit = rule.name,
                "its rate is counted in each process: no store keeps it for all of them; with RabbitMQ, keep results in Redis"
            );
        }
        let keeping = LimitKeeping {
            rate: is_shared && keeper.is_some_and(LimitKeeper::keeps_rates),
            days: limit.daily.is_some() && keeper.is_some_and(LimitKeeper::keeps_days),
        };
        self.counts.get_mut().limiters.push(StartLimiter::new(limit, keeping));
        self.rules.push(rule);
        Ok(())
    }

    /// Whether there are any limits.
    pub(crate) fn any(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Lets a run of this message start, if all limits of its task do, and `beside`, which is asked when they have said yes.
    /// `params` are the names of the task's parameters. `None`: the task has no limits.
    pub(super) fn admit(
        self: &Arc<Self>,
        message: &Message,
        params: &[&str],
        round: &GateRound<'_>,
        afterwards: impl FnOnce() -> Result<(), Hold>,
    ) -> Result<Option<LimitedRun>, Hold> {
        let rules = self.of_task(&message.task);
        if rules.is_empty() {
            return afterwards().map(|()| None);
        }
        let keys = rules.iter().map(|at| Some((*at, self.rules[*at].key.of(message, params)?)));
        let Some(keys) = keys.collect::<Option<Vec<(usize, String)>>>() else {
            return Ok(None); // the arguments cannot be read, and so it ends at its start
        };
        for (at, key) in &keys {
            let reason = || self.reason(*at, key, LimitedBy::Unanswered);
            if round.is_behind(message, reason) {
                return Err(Hold { reason: reason(), wait: None });
            }
        }
        let clock = clock();
        let mut counts = self.counts.lock();
        let mut allowed = Vec::with_capacity(keys.len());
        for (at, key) in &keys {
            let limiter = &mut counts.limiters[*at];
            let limit_key = limiter.key(key, clock);
            match limiter.check(&limit_key, clock) {
                Ok(()) => allowed.push((*at, limit_key)),
                Err(refused) => {
                    let reason = self.reason(*at, key, refused.by.clone());
                    if refused.wait.is_none() || refused.by == LimitedBy::Unanswered {
                        counts.wait((*at, limit_key.clone()), round.bell, reason.group(&message.task));
                    }
                    drop(counts);
                    if let Some(question) = refused.question {
                        self.ask(*at, limit_key, question);
                    }
                    return Err(Hold { reason, wait: refused.wait });
                }
            }
        }
        afterwards()?;
        let (mut starts, mut questions) = (Vec::with_capacity(allowed.len()), Vec::new());
        for (at, limit_key) in allowed {
            let (start, question) = counts.limiters[at].start(limit_key.clone(), clock);
            questions.extend(question.map(|question| (at, limit_key, question)));
            starts.push((at, start));
        }
        drop(counts);
        for (at, limit_key, question) in questions {
            self.ask(at, limit_key, question);
        }
        Ok(Some(LimitedRun { limits: Arc::clone(self), starts, end: RunEnd::NotRun }))
    }

    /// What of the limits of its task holds a run of this message back now. To look counts nothing.
    pub(super) fn look(&self, message: &Message, params: &[&str]) -> Vec<Hold> {
        let (rules, clock) = (self.of_task(&message.task), clock());
        let held = rules.iter().filter_map(|at| {
            let key = self.rules[*at].key.of(message, params)?;
            let refused = self.counts.lock().limiters[*at].look(&key, clock).err()?;
            Some(Hold { reason: self.reason(*at, &key, refused.by), wait: refused.wait })
        });
        held.collect()
    }

    /// The rate that this task states for its keys or for all processes, as it holds now.
    pub(crate) fn rate_of(&self, task: &str) -> Option<String> {
        let at = self.rate_rule(task)?;
        Some(self.counts.lock().limiters[at].limit().rate.as_ref()?.text().to_owned())
    }

    /// Has another rate hold in place of the one that this task states for its keys or for all processes. `false`: it states
    /// none.
    pub(super) fn set_rate(&self, task: &str, rate: Option<RateLimit>) -> bool {
        let Some(at) = self.rate_rule(task) else { return false };
        self.counts.lock().limiters[at].set_rate(rate);
        true
    }

    /// All limits with what their keys have used. The counts are locked for some keys at a time, so that no start waits for it.
    pub(crate) fn figures(&self) -> Vec<LimitFigures> {
        let rules = self.rules.iter().enumerate();
        let figures = rules.map(|(at, rule)| {
            let limit = self.counts.lock().limiters[at].limit().clone();
            let all: Vec<LimitKey> = self.counts.lock().limiters[at].keys().cloned().collect();
            let mut keys = Vec::with_capacity(all.len());
            for some in all.chunks(AT_ONCE) {
                let counts = self.counts.lock();
                let of_key = |key: &LimitKey| counts.limiters[at].figures(key, clock());
                keys.extend(some.iter().filter_map(of_key));
            }
            LimitFigures { name: rule.name.clone(), key: rule.key.name(), limit, keys }
        });
        figures.collect()
    }

    /// Gives the store back what is left of the shares of days, before the program ends.
    pub(crate) async fn give_unused_back(&self) {
        let Some(keeper) = &self.keeper else { return };
        let mut unused = Vec::new();
        for (limiter, rule) in self.counts.lock().limiters.iter_mut().zip(&self.rules) {
            let of_limit = limiter.take_unused_days().into_iter();
            unused.extend(of_limit.map(|(key, day, unused)| (&rule.name, key, day, unused)));
        }
        for (name, key, day, unused) in unused {
            keeper.give_back(name, &key, day, unused).await;
        }
    }

    fn rate_rule(&self, task: &str) -> Option<usize> {
        self.rules.iter().position(|rule| matches!(rule.tasks, LimitedTasks::RateOf(name) if name == task))
    }

    /// The limits of a task, by the places of their rules.
    fn of_task(&self, task: &str) -> Arc<[usize]> {
        if let Some(known) = self.of_tasks.get(task) {
            return Arc::clone(&known);
        }
        let rules: Arc<[usize]> =
            (0..self.rules.len()).filter(|at| self.rules[*at].tasks.contain(task)).collect();
        if self.of_tasks.len() < MOST_NAMES {
            self.of_tasks.insert(task.to_owned(), Arc::clone(&rules));
        }
        rules
    }

    fn reason(&self, at: usize, key: &str, by: LimitedBy) -> HoldReason {
        HoldReason::Limit { name: self.rules[at].name.clone(), key: key.to_owned(), by }
    }

    fn give_back(&self, starts: &[(usize, LimitedStart)], end: RunEnd) {
        let clock = clock();
        let mut waiting = Vec::new();
        let mut counts = self.counts.lock();
        for (at, start) in starts {
            if counts.limiters[*at].end(start, end, clock) {
                waiting.extend(counts.waiting.remove(&(*at, start.key().clone())).into_iter().flatten());
            }
        }
        drop(counts);
        ring(waiting);
    }

    /// Asks the store, and tells who waits for the answer.
    fn ask(self: &Arc<Self>, at: usize, key: LimitKey, question: LimitQuestion) {
        let limits = Arc::clone(self);
        tokio::spawn(async move {
            let Some(keeper) = &limits.keeper else { return };
            let name = &limits.rules[at].name;
            match question {
                LimitQuestion::Rate { interval, starts, ahead } => {
                    let granted = keeper.take_starts(name, &key, interval, starts, ahead).await;
                    limits.counts.lock().limiters[at].answer_rate(&key, granted, clock());
                }
                LimitQuestion::Day { day, cap, share } => {
                    let granted = keeper.take_share(name, &key, day, cap, share).await;
                    limits.counts.lock().limiters[at].answer_day(&key, day, granted, clock());
                }
            }
            let waiting = limits.counts.lock().waiting.remove(&(at, key));
            ring(waiting.into_iter().flatten());
            if let LimitQuestion::Day { day, .. } = question {
                keeper.forget_old_days(day).await;
            }
        });
    }
}

impl LimitCounts {
    /// Notes that a queue holds back a group of tasks until this key may start more.
    fn wait(&mut self, key: (usize, LimitKey), bell: &Arc<Bell>, group: u64) {
        let waiting = self.waiting.entry(key).or_default();
        // A queue that is gone has handed back what it held.
        waiting.retain(|(other, _)| other.strong_count() > 0);
        let is_there =
            waiting.iter().any(|(other, held)| *held == group && Weak::as_ptr(other) == Arc::as_ptr(bell));
        if !is_there {
            waiting.push((Arc::downgrade(bell), group));
        }
    }
}

impl LimitedTasks {
    fn contain(&self, task: &str) -> bool {
        match self {
            Self::RateOf(name) | Self::One(name) => *name == task,
            Self::Matching(rule) => rule.is_about(task),
        }
    }
}

impl KeySource {
    /// By what it counts, in words.
    fn name(&self) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::Made(_) => Some("what the task states".to_owned()),
            Self::Parameter(Argument::Name(name)) | Self::Tenant(Argument::Name(name)) => Some(name.clone()),
            Self::Parameter(position) | Self::Tenant(position) => Some(position.to_string()),
        }
    }

    /// The key of a task; `None`: its arguments cannot be read.
    fn of(&self, message: &Message, params: &[&str]) -> Option<String> {
        let argument = |argument: &Argument| {
            shortened_key(argument_value(argument, params, &message.arguments).unwrap_or_default())
        };
        match self {
            Self::Nothing => Some(String::new()),
            // Code of the program makes it, which may panic, and the queue's actor must not.
            Self::Made(make) => unseen(|| make(&message.arguments)).ok()?.ok(),
            Self::Parameter(name) => Some(argument(name)),
            Self::Tenant(name) => Some(match message.tenant() {
                Some(tenant) => shortened_key(tenant.to_owned()),
                None => argument(name),
            }),
        }
    }
}

fn ring(waiting: impl IntoIterator<Item = WaitingBell>) {
    for (bell, group) in waiting {
        if let Some(bell) = bell.upgrade() {
            bell.ring(group);
        }
    }
}

fn clock() -> LimitClock {
    LimitClock { wall: now(), steady: steady_clock() }
}

/// Whether the rate that a task states is more than Celery's: it has a key, or counts in all processes together.
pub(super) fn is_own_rate(task: &TaskDefinition, options: &TaskOptions) -> bool {
    let is_more = task.rate_key.is_some() || options.rate_scope == Some(RateScope::Cluster);
    options.rate_limit.is_some() && is_more
}

/// Checks that the key of a limit is a parameter of the tasks of this program that it is about. Tasks of other programs are not
/// known here.
fn check_key(registry: &Registry, rule: &RouteRule, key: &str) -> Result<(), String> {
    let names =
        registry.names().into_iter().filter(|name| !name.starts_with("celery.") && rule.is_about(name));
    let tasks: Vec<&TaskDefinition> = names.filter_map(|name| registry.get(name)).collect();
    let is_known =
        tasks.iter().any(|task| task.params.iter().any(|param| *param == key || param.starts_with("**")));
    let Some(first) = tasks.first().filter(|_| !is_known) else { return Ok(()) };
    let hint = did_you_mean::hint(key, first.params.iter().copied());
    let params = match first.params {
        [] => "which has none".to_owned(),
        params => format!("whose parameters are: {}", params.join(", ")),
    };
    Err(format!(
        "its key `{key}` is no parameter of task `{}` ({}), {params}; a key may also be \"{TENANT_KEY}\"{hint}",
        first.name, first.location
    ))
}

#[cfg(test)]
mod tests;
