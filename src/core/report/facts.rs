//! What is known of the queues of a program, of a fleet, or of a store at one moment. Whoever can ask fills it in: a running
//! program for itself, the command line for a store whose program does not run, and for a fleet from what its programs say.
//!
//! Programs send their [`ReportFacts`] to who asks, as JSON. A field that an older or a newer program does not send has its
//! default, which says nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::Timestamp;
use crate::core::brake::Brake;
use crate::core::explanation::ExplanationScope;

/// What is known of all queues of one program, or of several.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ReportFacts {
    /// When this was looked up.
    pub as_of: Timestamp,
    /// The figures of each queue.
    pub queues: Vec<QueueFigures>,
    /// The lanes that a failure has blocked.
    pub lanes: Vec<BlockedLane>,
    /// The brakes that are in force.
    pub brakes: Vec<BrakeFigures>,
    /// The processes that have answered.
    pub processes: Vec<ProcessFigures>,
    /// What has failed in a program as a whole, such as its broker.
    pub failures: Vec<ProgramFailure>,
    /// The programs that were asked.
    #[serde(skip)]
    pub scope: ExplanationScope,
}

/// The figures of one queue. In JSON, durations are milliseconds in fields that end in `_ms`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct QueueFigures {
    /// The physical name of the queue.
    pub name: String,
    /// Whether somebody takes its tasks.
    pub service: QueueService,
    /// The promised longest time-to-start, if there is a promise.
    #[serde(
        rename = "target_ms",
        serialize_with = "crate::core::json_time::optional_millis",
        deserialize_with = "crate::core::json_time::from_optional_millis"
    )]
    pub target: Option<Duration>,
    /// The number of its worker slots.
    pub workers: usize,
    /// The number of tasks that run.
    pub running: usize,
    /// How many tasks could start now.
    pub ready: u64,
    /// How many tasks limits and brakes hold in the process.
    pub held: u64,
    /// How many of those that are held were put back into the broker for a while.
    pub put_back: u64,
    /// How many tasks wait for their time.
    pub scheduled: u64,
    /// How many serial tasks wait for their lane.
    pub in_line: u64,
    /// How many tasks have failed for good since the program started.
    pub failed: u64,
    /// How many dead letters there are.
    pub dead: u64,
    /// How many tasks have started since the program started.
    pub starts: u64,
    /// The wait for the first start that half of these tasks did not exceed.
    #[serde(
        rename = "p50_ms",
        serialize_with = "crate::core::json_time::millis",
        deserialize_with = "crate::core::json_time::from_millis"
    )]
    pub p50: Duration,
    /// The wait for the first start that 95 % of these tasks did not exceed.
    #[serde(
        rename = "p95_ms",
        serialize_with = "crate::core::json_time::millis",
        deserialize_with = "crate::core::json_time::from_millis"
    )]
    pub p95: Duration,
    /// For how long the oldest ready task has waited.
    #[serde(
        rename = "oldest_wait_ms",
        serialize_with = "crate::core::json_time::millis",
        deserialize_with = "crate::core::json_time::from_millis"
    )]
    pub oldest_wait: Duration,
    /// For how long limits and brakes have held the oldest task that they hold.
    #[serde(
        rename = "oldest_held_ms",
        serialize_with = "crate::core::json_time::millis",
        deserialize_with = "crate::core::json_time::from_millis"
    )]
    pub oldest_held: Duration,
    /// For how long nothing has started while tasks are ready.
    #[serde(
        rename = "blockage_ms",
        serialize_with = "crate::core::json_time::millis",
        deserialize_with = "crate::core::json_time::from_millis"
    )]
    pub blockage: Duration,
    /// How many bodies go on that nobody could stop.
    pub stuck: usize,
    /// Whether an operator has paused it.
    pub paused: bool,
    /// Why it has stopped itself, if it has.
    pub halted: Option<String>,
    /// Whether the broker could not say what waits in it.
    pub away: bool,
    /// The tenant with the most of its tasks, if somebody has looked.
    pub top_tenant: Option<TopTenant>,
    /// The run that has gone on for the longest time, if somebody has looked.
    pub longest_run: Option<LongestRun>,
}

/// Whether somebody takes the tasks of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum QueueService {
    /// A program serves it, and the queue answers.
    #[default]
    Served,
    /// A program serves it, and the queue has not answered in time.
    Silent,
    /// It is in a store whose program does not run.
    ProgramStopped,
    /// No program of the fleet that has answered serves it.
    NoProgram,
}

/// The tenant that has the most tasks in a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct TopTenant {
    /// The name of the tenant.
    pub tenant: String,
    /// How many of its tasks could start, in the broker or fetched by a program.
    pub ready: u64,
    /// How many tenants have tasks there.
    pub tenants: u64,
    /// Whether it may have more: the broker does not tell whose tasks it has not delivered, so only those count that a
    /// program has fetched.
    pub or_more: bool,
}

/// The run of a queue that has gone on for the longest time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct LongestRun {
    /// The id of its task.
    pub id: String,
    /// The name of its task.
    pub task: String,
    /// The time at which the run started.
    pub since: Timestamp,
}

/// A lane that a failure has blocked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct BlockedLane {
    /// The scope of its serial key.
    pub scope: String,
    /// The serial key of the lane.
    pub key: String,
    /// The queue of the first task that waits for it, if that is known.
    pub queue: Option<String>,
    /// How many tasks wait for it.
    pub waiting: u64,
    /// Since when it is blocked.
    pub since: Timestamp,
    /// The task whose failure has blocked it.
    pub by: String,
    /// The error of that task.
    pub error: String,
}

/// A brake that is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct BrakeFigures {
    /// The id of the brake.
    pub id: String,
    /// What it does, in words.
    pub action: String,
    /// The queue that it is about; `None`: it is about tasks of any queue.
    pub queue: Option<String>,
}

/// A process that has answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ProcessFigures {
    /// The name by which the fleet knows it, if it is in one.
    pub node: Option<String>,
    /// The id of the process.
    pub pid: u32,
    /// How many worker slots it has.
    pub workers: usize,
    /// How many tasks run in it.
    pub running: usize,
}

/// Something that has failed in a program as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ProgramFailure {
    /// The name by which the fleet knows the program, if it is in one.
    pub node: Option<String>,
    /// The text of the error.
    pub error: String,
}

impl ReportFacts {
    /// Facts of which nothing is known but the time.
    pub fn at(as_of: Timestamp) -> Self {
        Self { as_of, ..Self::default() }
    }

    /// What several programs of a fleet know together. A queue that several serve is one queue: what waits is counted once, and
    /// it starts nothing only if none of them starts anything.
    #[must_use]
    pub fn merged(self, others: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Self { as_of: self.as_of, scope: self.scope.clone(), ..Self::default() };
        let mut queues: BTreeMap<String, QueueFigures> = BTreeMap::new();
        let mut lanes: BTreeMap<(String, String), BlockedLane> = BTreeMap::new();
        let mut brakes: BTreeMap<String, BrakeFigures> = BTreeMap::new();
        for facts in std::iter::once(self).chain(others) {
            for queue in facts.queues {
                let merged = match queues.remove(&queue.name) {
                    Some(known) => known.with(queue),
                    None => queue,
                };
                queues.insert(merged.name.clone(), merged);
            }
            for lane in facts.lanes {
                lanes.entry((lane.scope.clone(), lane.key.clone())).or_insert(lane);
            }
            for brake in facts.brakes {
                brakes.entry(brake.id.clone()).or_insert(brake);
            }
            all.processes.extend(facts.processes);
            all.failures.extend(facts.failures);
        }
        all.queues = queues.into_values().collect();
        all.lanes = lanes.into_values().collect();
        all.brakes = brakes.into_values().collect();
        all
    }
}

impl From<&Brake> for BrakeFigures {
    fn from(brake: &Brake) -> Self {
        Self { id: brake.id.clone(), action: brake.action.to_string(), queue: brake.rule.queue.clone() }
    }
}

impl QueueFigures {
    /// A queue of which nothing is known but its name.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// The figures of this queue in two programs.
    fn with(self, other: Self) -> Self {
        let serves = |figures: &Self| figures.service == QueueService::Served;
        // Who does not serve it, or does not answer, knows nothing of what starts in it.
        let (one, other) = match (serves(&self), serves(&other)) {
            (false, true) => return Self { target: other.target.or(self.target), ..other },
            (_, false) => return Self { target: self.target.or(other.target), ..self },
            (true, true) => (self, other),
        };
        let longest_run = [&one.longest_run, &other.longest_run].into_iter().flatten();
        let longest_run = longest_run.min_by_key(|run| run.since).cloned();
        Self {
            target: one.target.or(other.target),
            workers: one.workers.saturating_add(other.workers),
            running: one.running.saturating_add(other.running),
            ready: one.ready.max(other.ready),
            held: one.held.saturating_add(other.held),
            put_back: one.put_back.saturating_add(other.put_back),
            scheduled: one.scheduled.max(other.scheduled),
            in_line: one.in_line.max(other.in_line),
            failed: one.failed.saturating_add(other.failed),
            dead: one.dead.max(other.dead),
            starts: one.starts.saturating_add(other.starts),
            p50: one.p50.max(other.p50),
            p95: one.p95.max(other.p95),
            oldest_wait: one.oldest_wait.max(other.oldest_wait),
            oldest_held: one.oldest_held.max(other.oldest_held),
            blockage: one.blockage.min(other.blockage),
            stuck: one.stuck.saturating_add(other.stuck),
            paused: one.paused && other.paused,
            halted: one.halted.filter(|_| other.halted.is_some()),
            away: one.away && other.away,
            top_tenant: fuller(one.top_tenant, other.top_tenant),
            longest_run,
            name: one.name,
            service: one.service,
        }
    }
}

/// What is known of the tenant with the most tasks, of what two programs say: who counts all tasks of a queue knows
/// more than who counts his own, and of two of those the one who has more of one tenant.
fn fuller(one: Option<TopTenant>, other: Option<TopTenant>) -> Option<TopTenant> {
    [other, one].into_iter().flatten().max_by_key(|top| (!top.or_more, top.ready))
}
