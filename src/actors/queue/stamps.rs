//! Ends what runs here by what is stamped on it.

use std::sync::Arc;

use actix::{Handler, Message, MessageResult};

use super::Queue;
use crate::runtime::revoked_stamps::{Stamps, matches};

/// Tells the runs that bear one of these stamps to end. Answers with the stamps that were found.
#[derive(Clone, Message)]
#[rtype(result = "Vec<Stamps>")]
pub(in super::super) struct TerminateStamped(pub(in super::super) Arc<Stamps>);

impl Handler<TerminateStamped> for Queue {
    type Result = MessageResult<TerminateStamped>;

    fn handle(&mut self, TerminateStamped(stamps): TerminateStamped, _: &mut Self::Context) -> Self::Result {
        let mut found = Vec::new();
        for run in self.runs.values() {
            let shared = matches(&stamps, run.context.message());
            if !shared.is_empty() {
                run.context.revoke(true);
                found.push(shared);
            }
        }
        MessageResult(found)
    }
}
