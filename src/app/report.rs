//! What needs a person in this program. `core/report` says what that is; this asks the queues, the lanes and the brakes.
//!
//! Looking holds nothing up and costs nothing that grows with the backlog: who does not answer in time is named as silent, and
//! the tenants of a queue are counted only where it does not keep up.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::timeout;

use super::accounts::BROKER_PATIENCE;
use super::handle::Celeriac;
use crate::actors::{QueueStatus, RunningTask};
use crate::broker::{Broker, BrokerError, QueueTenants};
use crate::catalogue::format_span;
use crate::core::explanation::ExplanationScope;
use crate::core::report::{
    BlockedLane, BrakeFigures, Diagnosis, LongestRun, ProcessFigures, ProgramFailure, QueueCondition,
    QueueFigures, QueueService, ReportFacts, TopTenant, diagnose,
};
use crate::task::clock::now;

/// How long lanes, brakes and tenants may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// The most lanes that are looked at, of those that are not idle.
const LANES: usize = 500;
/// The most blocked lanes that are named.
const BLOCKED: usize = 50;
/// Among how many tenants of a queue, those with the most tasks, the one is looked for of whom most waits.
const TENANTS: usize = 100;

impl Celeriac {
    /// What needs a person in this program: which queue misses its promise or soon will, since when, what presses it, what was
    /// ruled out, and who can do what about it. `celeriac report` prints the same for a whole fleet.
    ///
    /// Each queue has a second to answer, and what could not be asked is in the [scope](Diagnosis::scope).
    ///
    /// ```no_run
    /// # async fn demo(celeriac: celeriac::Celeriac) {
    /// let report = celeriac.report().await;
    /// println!("{report}"); // Queue `export` is late: its oldest ready task has waited for 50 s, and it promises 30 s. …
    /// for finding in &report.findings {
    ///     for cause in &finding.causes {
    ///         println!("{} {}", finding.sentence, cause.says);
    ///     }
    /// }
    /// # }
    /// ```
    pub async fn report(&self) -> Diagnosis {
        diagnose(self.report_facts().await)
    }

    /// What a report is made from.
    pub(super) async fn report_facts(&self) -> ReportFacts {
        let mut facts = ReportFacts::at(now());
        facts.scope.node = self.node();
        let broker = &*self.runtime().broker;
        if self.is_shutting_down() {
            let text = "The program is shutting down: its queues end one after the other.";
            facts.scope.cannot_know.push(text.to_owned());
            return facts;
        }
        // Where nobody serves the queues of a store, what waits in them needs a person all the same.
        let service = self.service();
        let asked = async {
            match service {
                QueueService::NoProgram => self.queues_to_look_at().await,
                _ => self.queues().await,
            }
        };
        match timeout(BROKER_PATIENCE, asked).await {
            Ok(Ok(queues)) => {
                let figures = |queue: &QueueStatus| QueueFigures { service, ..queue.figures() };
                let served = queues.replies.iter().map(figures);
                let silent = queues.missing.iter().map(|name| self.silent(name));
                facts.queues = served.chain(silent).collect();
                facts
                    .scope
                    .asked
                    .extend(queues.replies.iter().map(|queue| format!("queue `{}`", queue.name)));
                facts.scope.silent.extend(queues.missing.iter().map(|name| format!("queue `{name}`")));
            }
            Ok(Err(error)) => facts.failures.push(self.failure(error.to_string())),
            Err(_) => {
                let error = format!("it does not answer within {}", format_span(BROKER_PATIENCE));
                facts.failures.push(self.failure(error));
            }
        }
        if let Ok(runs) = self.running().await {
            add_longest_runs(&mut facts.queues, &runs);
        }
        if !facts.failures.is_empty() {
            return facts; // who has failed is not asked again
        }
        for queue in facts.queues.iter_mut().filter(|queue| QueueCondition::of(queue).is_pressed()) {
            let fetched = self.fetched_by_tenant(&queue.name);
            queue.top_tenant = top_tenant(broker, &queue.name, fetched).await;
        }
        match blocked_lanes(broker, &mut facts.scope).await {
            Some(lanes) => facts.lanes = lanes,
            None => facts.scope.silent.push("lanes".to_owned()),
        }
        match timeout(PATIENCE, self.brakes().list()).await {
            Ok(Ok(brakes)) => facts.brakes = brakes.iter().map(BrakeFigures::from).collect(),
            _ => facts.scope.silent.push("brakes".to_owned()),
        }
        let sum = |of: fn(&QueueFigures) -> usize| -> usize { facts.queues.iter().map(of).sum() };
        facts.processes.push(ProcessFigures {
            node: self.node(),
            pid: std::process::id(),
            workers: sum(|queue| queue.workers),
            running: sum(|queue| queue.running),
        });
        facts
    }

    fn failure(&self, error: String) -> ProgramFailure {
        ProgramFailure { node: self.node(), error }
    }

    /// A queue that has not answered.
    fn silent(&self, name: &str) -> QueueFigures {
        let row = self.catalogue().queue(name);
        QueueFigures {
            service: QueueService::Silent,
            target: row.and_then(|row| row.target),
            workers: row.map_or(0, |row| row.workers),
            ..QueueFigures::named(name)
        }
    }
}

/// Adds to each queue the run in it that has gone on for the longest time.
fn add_longest_runs(queues: &mut [QueueFigures], runs: &[RunningTask]) {
    let mut longest: HashMap<&str, &RunningTask> = HashMap::new();
    for run in runs.iter().filter(|run| !run.is_stuck) {
        let known = longest.entry(run.queue.as_str()).or_insert(run);
        if run.started_at < known.started_at {
            *known = run;
        }
    }
    for queue in queues {
        queue.longest_run = longest.get(queue.name.as_str()).map(|run| LongestRun {
            id: run.id.to_string(),
            task: run.task.clone(),
            since: run.started_at,
        });
    }
}

/// The tenant that has the most tasks in a queue which could start, in the broker or among those that this program has
/// `fetched`; an empty name: none has any. `None`: the broker has not answered in time, or it tells nothing of tenants
/// and none is among what was fetched.
pub(crate) async fn top_tenant(
    broker: &dyn Broker,
    queue: &str,
    fetched: BTreeMap<String, u64>,
) -> Option<TopTenant> {
    let Some(backlog) = broker.tenant_backlog() else {
        // Whose the tasks are that the broker has not delivered is not known, so whoever leads here may have more
        // there.
        let known = QueueTenants::of_fetched(fetched);
        return Some(lead(&known, true)).filter(|top| !top.tenant.is_empty());
    };
    let known = timeout(PATIENCE, backlog.tenants(queue, TENANTS)).await.ok()?.ok()?;
    Some(lead(&known.with_fetched(&fetched), false))
}

/// The tenant of whom most waits, the first of equals.
fn lead(known: &QueueTenants, or_more: bool) -> TopTenant {
    let Some(top) = known.tenants.iter().min_by_key(|counts| Reverse(counts.ready)) else {
        return TopTenant::default();
    };
    TopTenant { tenant: top.tenant.clone(), ready: top.ready, tenants: known.total, or_more }
}

/// The lanes that a failure has blocked. `None`: the broker has not answered in time.
pub(crate) async fn blocked_lanes(
    broker: &dyn Broker,
    scope: &mut ExplanationScope,
) -> Option<Vec<BlockedLane>> {
    let Some(lanes) = broker.lanes() else { return Some(Vec::new()) };
    let look = async {
        let all = lanes.busy_lanes(LANES).await?;
        let is_all = all.len() < LANES;
        let mut blocked = Vec::new();
        for lane in all.into_iter().filter(|lane| lane.blocked.is_some()).take(BLOCKED) {
            // A list of lanes does not say who waits in them.
            let whole = lanes.lane(&lane.name).await?;
            let first = whole.and_then(|lane| lane.next.into_iter().next());
            blocked.extend(lane.blocked.map(|block| BlockedLane {
                scope: lane.name.scope().to_owned(),
                key: lane.name.key().to_owned(),
                queue: first.map(|waiting| waiting.queue),
                waiting: lane.waiting,
                since: block.since,
                by: block.by.to_string(),
                error: block.reason,
            }));
        }
        Ok::<_, BrokerError>((blocked, is_all))
    };
    let (blocked, is_all) = timeout(PATIENCE, look).await.ok()?.ok()?;
    if !is_all {
        scope.cannot_know.push(format!("Only the first {LANES} lanes by name were looked at."));
    }
    Some(blocked)
}
