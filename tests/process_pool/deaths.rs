//! Children that die: by their task, while they are idle, and before they are ready.

use std::time::Duration;

use celeriac::State;
use rustix::process::{Pid, Signal, kill_process};

use crate::kit::{
    self, Gate, LONG, QUEUE, children, is_alive, record, row, status_of, until, until_status, with_queue,
};
use crate::tasks::{dies, pid, waits};

/// How a task ends its process, and what its record says of it.
const DEATHS: [(&str, &str); 6] = [
    ("abort", "ended by signal 6 (SIGABRT)"),
    ("exit", "ended with exit status 3"),
    ("segfault", "ended by signal 11 (SIGSEGV)"),
    ("kill", "ended by signal 9 (SIGKILL)"),
    ("overflow", "ended by signal 6 (SIGABRT)"),
    ("allocate", "ended by signal 6 (SIGABRT)"),
];

pub fn each_costs_one_attempt() {
    with_queue(row(2).with_memory_limit_per_child(512 << 20), |celeriac| async move {
        let gate = Gate::new();
        let neighbour = waits::s(gate.path()).send(celeriac.client()).await.unwrap();
        gate.entered().await;
        for (count, (how, cause)) in (1..).zip(DEATHS) {
            let died = dies::s(how.to_owned()).send(celeriac.client()).await.unwrap();
            let record = record(&died).await;
            assert_eq!((record.state, record.attempts), (State::Failure, 2), "{how}: {record:?}");
            assert_eq!(record.error_type.as_deref(), Some("WorkerLost"), "{how}");
            let told = format!("the process that ran it {cause}");
            assert!(record.errors[0].starts_with(&told), "{how}: {:?}", record.errors);
            let status = until_status(&celeriac, |s| s.lost == 2 * count && s.running == 1).await;
            assert_eq!((status.stuck, status.timed_out, status.panics), (0, 0, 0), "{how}");
            assert_eq!(status.halted, None, "what a task does to its child is not the worker's fault");
        }
        gate.open();
        let waited = record(&neighbour).await;
        assert_eq!((waited.state, waited.attempts), (State::Success, 1), "its neighbours are untouched");
        let status = until_status(&celeriac, |s| s.done == 1).await;
        assert_eq!((status.failed, status.retried, status.replaced), (6, 6, 12));
        until("the dead are gone, and each has a successor", async || {
            let children = children();
            children.len() == 2 && children.iter().all(|child| is_alive(*child))
        })
        .await;
    });
}

pub fn of_an_idle_child_cost_nothing() {
    with_queue(row(1), |celeriac| async move {
        let before = pid::s().send(celeriac.client()).await.unwrap().get(LONG).await.unwrap();
        until_status(&celeriac, |s| s.running == 0).await;
        let child = Pid::from_raw(before.try_into().unwrap()).unwrap();
        kill_process(child, Signal::KILL).unwrap();
        let status = until_status(&celeriac, |s| s.replaced == 1).await;
        assert_eq!((status.lost, status.failed, status.retried), (0, 0, 0));
        let next = pid::s().send(celeriac.client()).await.unwrap();
        let after = record(&next).await;
        assert_eq!((after.state, after.attempts), (State::Success, 1));
        assert_ne!(after.result, Some(before.to_string()));
    });
}

pub fn at_the_start_halt_the_queue() {
    kit::block_on(async {
        let broken = celeriac::QueueRow::new("broken")
            .with_pool(celeriac::Pool::Process)
            .with_workers(1)
            .with_max_restarts(1)
            .with_restart_window(Duration::from_secs(60));
        let celeriac = kit::builder().queue(row(1)).queue(broken).start().await.unwrap();
        let waiting = pid::s().queue("broken").send(celeriac.client()).await.unwrap();
        let halted = async || status_of(&celeriac, "broken").await.halted;
        until("the queue halts", async || halted().await.is_some()).await;
        let why = halted().await.unwrap();
        assert!(why.contains("`on_worker_start` panicked: there is no database"), "{why}");
        assert!(!waiting.state().await.unwrap().is_finished(), "no task pays for it");
        let next = pid::s().queue(QUEUE).send(celeriac.client()).await.unwrap();
        assert!(next.get(LONG).await.is_ok(), "its neighbours have not noticed");
        celeriac.shutdown().await.unwrap();
        until("no child is left", async || children().is_empty()).await;
    });
}
