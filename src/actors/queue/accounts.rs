//! What a queue counts of its tasks as they come and end: in its accounts by the names of tasks, and for the history by tenant.

use super::{GivenRun, Queue};
use crate::core::Timestamp;
use crate::core::accounts::TaskPlace;
use crate::core::history::HistoryEvent;
use crate::runtime::run::Report;
use crate::task;
use crate::task::clock::now;

impl Queue {
    /// Where a task of this program is in the accounts; `None`: the program has no such task.
    pub(super) fn own_account(&mut self, task: &str) -> Option<TaskPlace> {
        self.accounts.find(task).or_else(|| {
            self.runtime.dispatcher.registry.get(task)?;
            Some(self.accounts.place(task))
        })
    }

    /// Counts a task that has come. As in Celery, what is not going to run is not received.
    pub(super) fn count_received(&mut self, message: &task::Message, now: Timestamp) {
        let will_run = message.expires.is_none_or(|at| at > now);
        if will_run && let Some(account) = self.own_account(&message.task) {
            self.accounts.received(account);
            self.minutes.count(now, account, message.tenant(), HistoryEvent::Received);
        }
    }

    /// Counts the end of a run.
    pub(super) fn count_end(&mut self, run: &GivenRun, report: &Report) {
        let (account, ran) = (run.account, report.ran());
        if let Some((state, run_time)) = ran {
            self.accounts.ran(state.as_str(), run_time);
        }
        if let Some(ended) = report.ended() {
            self.accounts.ended(account, ended, ran.map(|(_, run_time)| run_time));
        }
        let (ended, ran) = (report.ended(), ran.map(|(_, run_time)| run_time));
        if ended.is_some() || ran.is_some() {
            let event = HistoryEvent::Ended { ended, ran };
            self.minutes.count(now(), account, run.message.tenant(), event);
        }
    }
}
