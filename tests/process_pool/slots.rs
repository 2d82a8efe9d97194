//! Queues of child processes that share slots.

use std::time::Duration;

use celeriac::Pool;
use celeriac::catalogue::{Catalogue, PoolRow, QueueRow};

use crate::kit::{Gate, LONG, block_on, builder, children, row, until};
use crate::tasks::{gives_way, pid};

/// The body cannot ask for itself whether its slot is wanted: its program asks, and tells it.
pub fn are_given_up_at_a_checkpoint() {
    block_on(async {
        let mice = QueueRow::new("mice").with_pool(Pool::Process).with_workers(1);
        let catalogue = Catalogue::new()
            .with_pool(Pool::Process, PoolRow::new(1))
            .with_queue(row(1).with_target(Duration::from_secs(3_600)))
            .with_queue(mice.with_target(Duration::from_millis(200)));
        let celeriac = builder().catalogue(catalogue).start().await.expect("it starts");
        let gate = Gate::new();
        let long = gives_way::s(gate.path(), 0).send(celeriac.client()).await.expect("accepted");
        gate.entered().await;
        let mouse = pid::s().queue("mice").send(celeriac.client()).await.expect("accepted");
        let other = mouse.get(LONG).await.expect("it starts although the only slot was taken");
        assert_ne!(other, std::process::id());
        gate.open();
        assert!(long.get(LONG).await.expect("it goes on") >= 1);
        celeriac.shutdown().await.expect("it shuts down");
        until("no child is left", async || children().is_empty()).await;
    });
}
