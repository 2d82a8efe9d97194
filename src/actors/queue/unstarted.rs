//! Tasks that end in this queue without a run: they are revoked, have expired, are of an unknown kind, or a brake sends
//! them away.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Queue;
use crate::broker::Delivery;
use crate::core::accounts::OTHER;
use crate::runtime::conclusion::conclude;
use crate::runtime::run::Report;
use crate::task::clock::now;
use crate::task::{self, Judge, RunSetup, Verdict};

impl Queue {
    /// Settles a delivery that is not to run, with the verdict that says why.
    pub(super) fn end_unstarted(&mut self, delivery: Delivery, verdict: Verdict) {
        self.end_and_tell(delivery, verdict, None);
    }

    /// Ends a task that is revoked. The queue waits for nothing: the receiver is told whether the end is kept, once
    /// that is known.
    pub(super) fn end_revoked(&mut self, delivery: Delivery) -> oneshot::Receiver<bool> {
        let (tell, kept) = oneshot::channel();
        let verdict = Judge::unstarted(delivery.message(), now()).revoked_waiting();
        self.end_and_tell(delivery, verdict, Some(tell));
        kept
    }

    fn end_and_tell(
        &mut self,
        mut delivery: Delivery,
        verdict: Verdict,
        kept: Option<oneshot::Sender<bool>>,
    ) {
        self.backlog.finish(delivery.tag());
        self.stats.forecasts.left(delivery.tag());
        if delivery.fence().is_none() {
            delivery.at_risk(); // should its settlement panic, it counts as a crash: else it would come again for ever
        }
        let report = Report::of(&verdict);
        self.stats.counters.count(&report);
        if report.ended().is_some() {
            // Only the program's own tasks are told apart: other names come from outside.
            let account = self.own_account(&delivery.message().task);
            let account = account.unwrap_or_else(|| self.stats.accounts.place(OTHER));
            self.stats.ended(account, delivery.message().tenant(), &report, now());
        }
        let runtime = Arc::clone(&self.runtime);
        actix_rt::spawn(async move {
            let context = task::Context::of_run(RunSetup {
                message: Arc::clone(delivery.message()),
                worker: "".into(),
                sinks: Arc::default(),
                fence: None,
                again: false,
                keeper: runtime.permits.clone(),
            });
            let hooks = runtime.hooks_without_run();
            conclude(verdict, Some(delivery), &context, hooks.as_ref(), &runtime, kept).await;
        });
    }
}
