//! What the broker behind the lanes has to tell.

use std::sync::{Arc, Weak};

use super::Shared;
use crate::broker::{Attendant, lane};
use crate::task::{Message, TaskId, TaskOptions, TaskResult};

/// Hears it first: a task that is over without having been delivered leaves its lane.
pub(super) struct Front {
    attendant: Arc<dyn Attendant>,
    shared: Weak<Shared>,
}

impl Front {
    pub(super) fn new(attendant: Arc<dyn Attendant>, shared: &Arc<Shared>) -> Self {
        Self { attendant, shared: Arc::downgrade(shared) }
    }
}

impl Attendant for Front {
    fn options(&self, task: &str) -> Option<TaskOptions> {
        self.attendant.options(task)
    }

    fn over(&self, record: TaskResult, message: Option<&Message>) {
        if let Some(shared) = self.shared.upgrade()
            && let Some(message) = message
            && let Some(pass) = message.serial.as_ref().and_then(|serial| serial.pass)
        {
            let (id, block) = (message.id.clone(), lane::blocks(message, Some(&record)));
            shared.clone().runtime.spawn(async move {
                let buried = shared
                    .insist("a lane cannot be left yet", || shared.lanes.bury(&id, pass, block.clone()));
                if let Ok(due) = buried.await {
                    shared.send(due).await;
                }
            });
        }
        self.attendant.over(record, message);
    }

    fn lost(&self, tags: Vec<u64>) {
        self.attendant.lost(tags);
    }

    fn revoked(&self, ids: Vec<TaskId>, terminate: bool) {
        self.attendant.revoked(ids, terminate);
    }
}
