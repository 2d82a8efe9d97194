//! The root and the forwarder of a commit table, which it builds anew when it dies.

use std::sync::Arc;

use actix::{Addr, AsyncContext, Handler, Message};

use super::super::commit_forwarder::{CommitForwarder, CommitForwarderParts};
use super::super::supervisor::{self, Exit};
use super::Root;

impl Root {
    /// Builds the forwarder on the root's own thread, where no task body can block it.
    fn start_forwarder(&self, root: Addr<Self>) {
        let Some(parts) = self.forwarder.clone() else { return };
        let own = Arc::clone(&parts);
        let address =
            supervisor::spawn(|_| CommitForwarder::new(own), move |exit| root.do_send(ForwarderDown(exit)));
        parts.lives_at(address);
    }
}

/// Builds the forwarder of the commit table.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct StartForwarder(pub(super) Arc<CommitForwarderParts>);

impl Handler<StartForwarder> for Root {
    type Result = ();

    fn handle(&mut self, StartForwarder(parts): StartForwarder, ctx: &mut Self::Context) {
        self.forwarder = Some(parts);
        self.start_forwarder(ctx.address());
    }
}

/// The forwarder has ended.
#[derive(Message)]
#[rtype(result = "()")]
struct ForwarderDown(Exit);

impl Handler<ForwarderDown> for Root {
    type Result = ();

    fn handle(&mut self, ForwarderDown(exit): ForwarderDown, ctx: &mut Self::Context) {
        if self.closing {
            return;
        }
        let after = self.pause("forwarder");
        tracing::error!(?exit, ?after, "the forwarder of the commit table died; it is built anew");
        ctx.run_later(after, |root, ctx| {
            if !root.closing {
                root.start_forwarder(ctx.address());
            }
        });
    }
}
