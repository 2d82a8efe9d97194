//! Which of the queue's accounts is that of a task.

use super::Queue;
use crate::core::Timestamp;
use crate::core::accounts::TaskPlace;
use crate::task;

impl Queue {
    /// Where a task of this program is in the accounts; `None`: the program has no such task.
    pub(super) fn own_account(&mut self, task: &str) -> Option<TaskPlace> {
        let accounts = &mut self.stats.accounts;
        accounts.find(task).or_else(|| {
            self.runtime.dispatcher.registry.get(task)?;
            Some(accounts.place(task))
        })
    }

    /// Counts a task that has come. As in Celery, what is not going to run is not received.
    pub(super) fn count_received(&mut self, message: &task::Message, now: Timestamp) {
        let will_run = message.expires.is_none_or(|at| at > now);
        if will_run && let Some(account) = self.own_account(&message.task) {
            self.stats.received(account, message, now);
        }
    }
}
