//! The life of a child: how long it serves, and what it outlives.

use celeriac::{Celeriac, State};

use crate::kit::{LONG, QUEUE, children, is_alive, record, row, until, until_status, with_queue};
use crate::tasks::{leaks, leaves_behind, panics, pid};

async fn pids(celeriac: &Celeriac, count: usize) -> Vec<u32> {
    let mut pids = Vec::new();
    for _ in 0..count {
        pids.push(pid::s().send(celeriac.client()).await.unwrap().get(LONG).await.unwrap());
    }
    pids
}

pub fn a_child_is_replaced_after_its_tasks() {
    with_queue(row(1).with_max_tasks_per_child(2), |celeriac| async move {
        let pids = pids(&celeriac, 5).await;
        assert_eq!((pids[0], pids[2]), (pids[1], pids[3]), "{pids:?}");
        assert!(pids[0] != pids[2] && pids[2] != pids[4], "{pids:?}");
        let status = until_status(&celeriac, |s| s.done == 5).await;
        assert_eq!((status.recycled, status.replaced, status.lost), (2, 0, 0));
        until("those that are used up are gone", async || children() == [pids[4]]).await;
    });
}

pub fn a_child_takes_along_what_it_has_started() {
    with_queue(row(1).with_max_tasks_per_child(1), |celeriac| async move {
        let task = leaves_behind::s().send(celeriac.client()).await.unwrap();
        let left = task.get(LONG).await.unwrap();
        until("what a child that is used up has started is gone", async || !is_alive(left)).await;
        let status = until_status(&celeriac, |s| s.recycled == 1).await;
        assert_eq!((status.done, status.replaced, status.lost), (1, 0, 0));
    });
}

pub fn a_child_is_replaced_above_its_memory() {
    with_queue(row(1).with_max_memory_per_child(300 << 20), |celeriac| async move {
        let small = leaks::s(1).send(celeriac.client()).await.unwrap().get(LONG).await.unwrap();
        let large = leaks::s(400).send(celeriac.client()).await.unwrap();
        assert_eq!(large.get(LONG).await.as_ref(), Ok(&small), "the task that takes too much ends as any");
        let next = pids(&celeriac, 2).await;
        assert!(next[0] != small && next[0] == next[1], "{small} {next:?}");
        let status = until_status(&celeriac, |s| s.done == 4).await;
        assert_eq!((status.recycled, status.replaced), (1, 0));
    });
}

pub fn a_panic_leaves_its_child() {
    with_queue(row(1), |celeriac| async move {
        let before = pids(&celeriac, 1).await;
        let panicked = record(&panics::s().send(celeriac.client()).await.unwrap()).await;
        assert_eq!((panicked.state, panicked.error_type.as_deref()), (State::Failure, Some("Panic")));
        assert_eq!(panicked.errors, [format!("process {}", before[0])]);
        assert_eq!(pids(&celeriac, 1).await, before);
        let status = until_status(&celeriac, |s| s.done == 2).await;
        assert_eq!((status.panics, status.replaced, status.lost), (1, 0, 0));
    });
}

pub fn a_queue_is_resized_with_its_children() {
    with_queue(row(1), |celeriac| async move {
        until("there is one child", async || children().len() == 1).await;
        celeriac.resize(QUEUE, 3).await.unwrap();
        until("there are three", async || children().len() == 3).await;
        celeriac.resize(QUEUE, 1).await.unwrap();
        until("there is one again", async || children().len() == 1).await;
        assert_eq!(pids(&celeriac, 1).await, children());
    });
}
