//! What a status says when not everybody answers.

use celeriac::app::ControlError;
use celeriac::soil::SoilState;
use celeriac::task;

use crate::kit::{Gate, add, memory, until};

/// Does what an async body must not do.
#[task(queue = "io")]
async fn blocks_its_event_loop(gate: String) {
    Gate::named(&gate).pass_blocking();
}

/// The queues of the kit. Tasks of other tests here name more.
const QUEUES: [&str; 5] = ["io", "cpu", "one", "threads", "celery"];

/// `io`, `one` and `celery` share an event loop in this kit; `cpu` and `threads` have the other one.
#[tokio::test]
async fn a_status_leaves_out_by_name_the_queues_whose_event_loop_is_blocked() {
    let celeriac = memory().await;
    let own = |names: Vec<String>| -> Vec<String> {
        names.into_iter().filter(|name| QUEUES.contains(&name.as_str())).collect()
    };
    let all = async || {
        celeriac.queues().await.unwrap().into_iter().map(|queue| queue.name).collect::<Vec<String>>()
    };
    until("all answer", async || own(all().await) == QUEUES).await;
    let gate = Gate::new();
    let task = blocks_its_event_loop::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    // An event loop that has no time to answer is left out, too, and is there at the next look.
    until("the others answer", async || {
        let queues = celeriac.queues().await.unwrap();
        let names = queues.iter().map(|queue| queue.name.clone()).collect();
        own(names) == ["cpu", "threads"] && own(queues.missing) == ["io", "one", "celery"]
    })
    .await;
    until("the others say what runs", async || {
        let running = celeriac.running().await.unwrap();
        running.is_empty() && own(running.missing) == ["io", "one", "celery"]
    })
    .await;
    let refused = celeriac.queue("io").await.unwrap_err();
    assert_eq!(refused, ControlError::NotAnswering("io".into()));
    assert_eq!(celeriac.soil().status(task.id()).await.unwrap().state, SoilState::NotStarted);
    gate.open();
    until("all answer", async || celeriac.queues().await.unwrap().missing.is_empty()).await;
    assert_eq!(add::s(1, 2).send(celeriac.client()).await.unwrap().get(crate::kit::LONG).await, Ok(3));
    celeriac.shutdown().await.unwrap();
}
