//! One reading of all that metrics are made of.

use std::collections::BTreeMap;

use crate::Celeriac;
use crate::actors::QueueAccounts;
use crate::app::Replies;
use crate::core::accounts::TaskAccounts;
use crate::protocol::host;

/// What was read at one moment.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The host's name, as celery-exporter takes it from the name of a node.
    pub(super) host: String,
    /// Whether the program takes tasks: it does until its shutdown begins.
    pub(super) is_up: bool,
    /// How many bodies run.
    pub(super) active: u64,
    pub(super) queues: Vec<QueueAccounts>,
    /// The names of the queues that did not answer.
    pub(super) missing: Vec<String>,
    /// By queue and task, of all queues that this program serves or sends to.
    pub(super) tasks: BTreeMap<QueueTask, TaskReading>,
    /// How many calls went to another queue than theirs because of their tenant's rate, by queue.
    pub(super) demoted: BTreeMap<String, u64>,
}

/// A task in a queue.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueueTask {
    pub(super) queue: String,
    pub(super) task: String,
}

/// The accounts of a task in a queue.
#[derive(Debug, Default)]
pub(super) struct TaskReading {
    pub(super) accounts: TaskAccounts,
    /// Whether the task has come to a queue here.
    pub(super) has_come: bool,
}

impl Reading {
    pub(super) async fn of(celeriac: &Celeriac) -> Self {
        let Replies { replies: queues, missing } = celeriac.accounts().await;
        let mut tasks: BTreeMap<QueueTask, TaskReading> = BTreeMap::new();
        for queue in &queues {
            for (task, accounts) in queue.accounts.tasks() {
                let key = QueueTask { queue: queue.status.name.clone(), task: task.to_owned() };
                tasks.insert(key, TaskReading { accounts: accounts.clone(), has_come: true });
            }
        }
        for (task, queue, accounts) in celeriac.runtime().events.counts().read() {
            tasks.entry(QueueTask { queue, task }).or_default().accounts.add(&accounts);
        }
        Self {
            host: host_of(celeriac.node()),
            is_up: !celeriac.is_shutting_down(),
            active: celeriac.runtime().activity.read().active,
            queues,
            missing,
            tasks,
            demoted: celeriac.demoted_calls(),
        }
    }
}

/// The host in the name of a node, `celeriac@web1`; without a node, this machine's name.
fn host_of(node: Option<String>) -> String {
    let named = node.and_then(|node| Some(node.split_once('@')?.1.to_owned()));
    named.unwrap_or_else(host)
}
