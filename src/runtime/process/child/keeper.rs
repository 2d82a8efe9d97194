//! The keeper of permits in a child: the program holds them for the run, and the body has to ask it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::super::protocol::{ChildAnswer, PermitReply, Question, Up};
use super::client::NO_ANSWER;
use super::uplink::Uplink;
use crate::core::IoFailure;
use crate::task::{PermitAnswer, PermitHolder, PermitKeeper, Want};

/// The keeper of one run.
pub(super) struct ChildKeeper {
    uplink: Arc<Uplink>,
    run: u64,
    /// The flags of what is held, by holder: whether it is lost. Each request has a holder of its own.
    held: Mutex<HashMap<String, Arc<AtomicBool>>>,
}

impl ChildKeeper {
    pub(super) fn new(uplink: Arc<Uplink>, run: u64) -> Self {
        Self { uplink, run, held: Mutex::default() }
    }

    /// The flag of what this holder holds from now on.
    pub(super) fn holds(&self, holder: &str) -> Arc<AtomicBool> {
        Arc::clone(self.held.lock().entry(holder.to_owned()).or_default())
    }

    /// What this holder holds is lost. The body may hear of this before it has taken the answer that it holds it.
    pub(super) fn lost(&self, holder: &str) {
        self.held.lock().entry(holder.to_owned()).or_default().store(true, Ordering::Release);
    }
}

#[async_trait]
impl PermitKeeper for ChildKeeper {
    async fn acquire(&self, wants: &[Want], holder: &str) -> Result<PermitAnswer, IoFailure> {
        let asks = Question::Acquire { wants: wants.to_vec(), holder: holder.to_owned() };
        match self.uplink.answer_to(asks).await {
            Some(ChildAnswer::Acquired(Ok(PermitReply::Granted(tokens)))) => {
                Ok(PermitAnswer::Granted { tokens, lost: self.holds(holder) })
            }
            Some(ChildAnswer::Acquired(Ok(PermitReply::Busy(place)))) => Ok(PermitAnswer::Busy(place)),
            Some(ChildAnswer::Acquired(Err(error))) => Err(error.into()),
            _ => Err(NO_ANSWER.into()),
        }
    }

    fn release(&self, _: &[Want], holder: &str) {
        self.held.lock().remove(holder);
        self.uplink.push(Up::ReleasePermits { run: self.run, holder: holder.to_owned() });
    }

    fn park(&self, _: &[Want], holder: &str, within: Duration) {
        self.held.lock().remove(holder);
        self.uplink.push(Up::ParkPermits { run: self.run, holder: holder.to_owned(), within });
    }

    async fn freed(&self, at_most: Duration) {
        let _ = self.uplink.answer_to(Question::Freed { at_most }).await;
    }

    /// No body can ask this: `Celeriac::permit_holders` does, in the program.
    async fn holders(&self, _: &str) -> Result<Vec<PermitHolder>, IoFailure> {
        Err("a child process does not know who holds permits: ask the program that has started it".into())
    }
}
