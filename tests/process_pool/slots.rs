//! Queues of child processes that share slots.

use std::time::Duration;

use celeriac::Pool;
use celeriac::catalogue::{Catalogue, PoolRow, QueueRow};

use crate::kit::{Gate, LONG, QUEUE, block_on, builder, children, record, row, until};
use crate::tasks::{dies, gives_way, pid, waits};

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

/// Whatever a body does to its process, the slot of its run is free afterwards, and all slots can be used at a time.
pub fn come_back_when_a_child_dies() {
    block_on(async {
        let others = QueueRow::new("others").with_pool(Pool::Process).with_workers(2);
        let catalogue = Catalogue::new()
            .with_pool(Pool::Process, PoolRow::new(2).with_room(0).with_reserve(0))
            .with_queue(row(2))
            .with_queue(others);
        let celeriac = builder().catalogue(catalogue).start().await.expect("it starts");
        let taken = || celeriac.pools().iter().map(|pool| pool.running).sum::<usize>();
        for how in ["kill", "abort", "exit"] {
            for queue in [QUEUE, "others"] {
                let died =
                    dies::s(how.to_owned()).queue(queue).send(celeriac.client()).await.expect("accepted");
                assert_eq!(record(&died).await.attempts, 2, "{how} in {queue}");
            }
            until("no slot is taken", async || taken() == 0).await;
            let gates = [Gate::new(), Gate::new()];
            let mut both = Vec::new();
            for (gate, queue) in gates.iter().zip([QUEUE, "others"]) {
                let call = waits::s(gate.path()).queue(queue);
                both.push(call.send(celeriac.client()).await.expect("accepted"));
            }
            for gate in &gates {
                gate.entered().await;
            }
            assert_eq!(taken(), 2, "after {how}");
            gates.iter().for_each(Gate::open);
            for task in &both {
                task.get(LONG).await.expect("it ends");
            }
        }
        celeriac.shutdown().await.expect("it shuts down");
        until("no child is left", async || children().is_empty()).await;
    });
}
