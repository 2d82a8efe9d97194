//! A queue whose number of workers follows its load. When it shrinks by itself is in the tests of `core::autoscale`.

use std::ops::RangeInclusive;

use celeriac::app::ControlError;
use celeriac::{QueueStatus, TaskId, task};

use crate::kit::{Gate, LONG, builder, hold, io_queue, memory, note, notes, until, until_status};

#[tokio::test]
async fn a_queue_grows_with_what_waits_and_no_further_than_it_may() {
    let (gate, dir) = (Gate::new(), tempfile::tempdir().unwrap());
    // With one delivery in hand, the others wait in the broker.
    let waves = io_queue("waves", 1).with_max_workers(4).with_prefetch(1);
    let celeriac = builder().directory(dir.path()).queue(waves).start().await.unwrap();
    let mut sent = Vec::new();
    for _ in 0..6 {
        sent.push(hold::s(gate.name.clone()).queue("waves").send(celeriac.client()).await.unwrap());
    }
    gate.entered(4).await;
    let is_at_most = |workers: usize, running: usize| {
        move |status: &QueueStatus| (status.workers, status.running) == (workers, running)
    };
    assert_eq!(until_status(&celeriac, "waves", is_at_most(4, 4)).await.ready, 2);
    // What runs goes on.
    celeriac.autoscale("waves", 1..=2).await.unwrap();
    assert_eq!(until_status(&celeriac, "waves", is_at_most(2, 4)).await.ready, 2);
    gate.open();
    for task in sent {
        assert_eq!(task.get(LONG).await, Ok(1));
    }
    assert_eq!(gate.gauge.most(), 4);
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_queue_of_a_fixed_size_may_follow_its_load_from_some_time_on() {
    let (gate, celeriac) = (Gate::new(), memory().await);
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.push(hold::s(gate.name.clone()).queue("one").send(celeriac.client()).await.unwrap());
    }
    gate.entered(1).await;
    celeriac.autoscale("one", 1..=3).await.unwrap();
    gate.entered(3).await;
    gate.open();
    for task in sent {
        assert_eq!(task.get(LONG).await, Ok(1));
    }
    let turned_round = celeriac.autoscale("one", RangeInclusive::new(5, 2)).await;
    assert_eq!(turned_round, Err(ControlError::WorkerRange { min: 5, max: 2 }));
    let none = celeriac.autoscale("one", 0..=0).await.unwrap_err();
    assert!(none.to_string().contains("from 0 to 0 workers"), "{none}");
    assert!(matches!(celeriac.autoscale("nosuch", 1..=2).await, Err(ControlError::UnknownQueue { .. })));
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_reset_gives_a_queue_the_range_of_its_row() {
    let (gate, row) = (Gate::new(), io_queue("waves", 1).with_max_workers(2));
    let celeriac = builder().in_memory().queue(row).start().await.unwrap();
    celeriac.resize("waves", 5).await.unwrap();
    celeriac.autoscale("waves", 3..=9).await.unwrap();
    celeriac.persistent().reset("waves").await.unwrap();
    for _ in 0..4 {
        hold::s(gate.name.clone()).queue("waves").ignore_result(true).send(celeriac.client()).await.unwrap();
    }
    gate.entered(2).await;
    let grown = until_status(&celeriac, "waves", |status| status.workers > 1).await;
    assert_eq!((grown.workers, grown.running, grown.ready), (2, 2, 2));
    gate.open();
    gate.left(4).await;
    celeriac.shutdown().await.unwrap();
}

#[task(queue = "io", rate_limit = "1/h")]
async fn rarely(list: String) {
    note(&list.as_str().into(), "ran");
}

/// What a limit keeps from starting needs no more workers.
#[tokio::test]
async fn a_queue_with_a_free_worker_does_not_grow() {
    let (gate, list) = (Gate::new(), TaskId::new().to_string());
    let row = |name: &str| io_queue(name, 1).with_max_workers(4);
    let celeriac = builder().in_memory().queue(row("waves")).queue(row("rare")).start().await.unwrap();
    for _ in 0..3 {
        rarely::s(list.clone()).queue("rare").send(celeriac.client()).await.unwrap();
    }
    until("one has run", async || notes(&list.as_str().into()).len() == 1).await;
    // While the one queue grows twice, the other one has looked, too.
    for running in 2..=3 {
        for _ in 0..2 {
            hold::s(gate.name.clone())
                .queue("waves")
                .ignore_result(true)
                .send(celeriac.client())
                .await
                .unwrap();
        }
        gate.entered(running).await;
    }
    let is_idle = |status: &QueueStatus| (status.running, status.held) == (0, 2);
    assert_eq!(until_status(&celeriac, "rare", is_idle).await.workers, 1);
    gate.open();
    gate.left(4).await;
    celeriac.shutdown().await.unwrap();
}
