//! What a queue has in hand, as remote control shows it, and what its gates hold back.

use std::sync::Arc;

use crate::broker::{Delivery, DeliveryInfo};
use crate::core::Timestamp;
use crate::core::autoscale::WorkerRange;
use crate::core::hold::HoldReason;
use crate::task::Message;
use crate::task::run_log::RunLog;

/// A task that a queue has.
#[derive(Clone, Debug)]
pub(crate) struct HeldTask {
    pub(crate) message: Arc<Message>,
    pub(crate) delivery_info: Option<Arc<DeliveryInfo>>,
    /// When its run started; `None`: it has not.
    pub(crate) started_at: Option<Timestamp>,
    /// The process that runs it; `None`: it has not started.
    pub(crate) pid: Option<u32>,
    /// What its run logs, if that is kept.
    #[cfg_attr(not(feature = "web"), allow(dead_code))] // only the page of a task shows it
    pub(crate) log: Option<Arc<RunLog>>,
}

impl HeldTask {
    /// One that has not started.
    pub(super) fn waiting(delivery: &Delivery) -> Self {
        let (message, delivery_info) = (Arc::clone(delivery.message()), delivery.info().cloned());
        Self { message, delivery_info, started_at: None, pid: None, log: None }
    }
}

/// A body on a thread that goes on although its run was given up.
#[derive(Clone, Debug)]
pub(crate) struct StuckBody {
    pub(crate) message: Arc<Message>,
    pub(crate) started_at: Timestamp,
}

/// What a queue has, at most as many of each kind as were asked for, and how it stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeldTasks {
    pub(crate) queue: String,
    /// Those that run, by start.
    pub(crate) running: Vec<HeldTask>,
    /// Bodies whose runs were given up, and which go on.
    pub(crate) stuck: Vec<StuckBody>,
    /// Those that wait here for a slot.
    pub(crate) reserved: Vec<HeldTask>,
    /// How many run in all.
    pub(crate) all_running: usize,
    /// How many wait here in all.
    pub(crate) all_reserved: usize,
    pub(crate) workers: usize,
    /// The fewest and the most workers, if their number follows the load.
    pub(crate) range: Option<WorkerRange>,
    pub(crate) prefetch: usize,
    pub(crate) is_paused: bool,
    /// Whether it takes anything from the broker.
    pub(crate) is_consuming: bool,
}

/// Tasks that one gate holds back in a queue of this process.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QueueHold {
    /// The name of the queue.
    pub queue: String,
    /// What holds them: a brake by its id, or a limit by its name and key.
    pub reason: HoldReason,
    /// How many the queue has in memory. Of very many, those that it has put back into the broker are not among them.
    pub tasks: usize,
}
