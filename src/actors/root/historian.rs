//! The root and its historian, which it builds anew when it dies.

use std::sync::Arc;

use actix::{Addr, AsyncContext, Handler, Message};

use super::super::historian::{Historian, HistorianParts};
use super::super::supervisor::{self, Exit};
use super::Root;

impl Root {
    /// Builds the historian on the root's own thread, where no task body can block it.
    fn start_historian(&self, root: Addr<Self>) {
        let Some(parts) = self.historian.clone() else { return };
        let own = Arc::clone(&parts);
        let address =
            supervisor::spawn(|_| Historian::new(own), move |exit| root.do_send(HistorianDown(exit)));
        parts.lives_at(address);
    }
}

/// Builds the historian.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct StartHistorian(pub(super) Arc<HistorianParts>);

impl Handler<StartHistorian> for Root {
    type Result = ();

    fn handle(&mut self, StartHistorian(parts): StartHistorian, ctx: &mut Self::Context) {
        self.historian = Some(parts);
        self.start_historian(ctx.address());
    }
}

/// The historian has ended.
#[derive(Message)]
#[rtype(result = "()")]
struct HistorianDown(Exit);

impl Handler<HistorianDown> for Root {
    type Result = ();

    fn handle(&mut self, HistorianDown(exit): HistorianDown, ctx: &mut Self::Context) {
        if self.closing {
            return;
        }
        let after = self.pause("historian");
        tracing::error!(?exit, ?after, "the historian died; it is built anew, and writes what there is");
        ctx.run_later(after, |root, ctx| {
            if !root.closing {
                root.start_historian(ctx.address());
            }
        });
    }
}
