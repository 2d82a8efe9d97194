//! Limits and revocations: a body that does not listen is ended with its process, and one that does keeps it.

use std::time::{Duration, Instant};

use celeriac::{Celeriac, State, TaskId};

use crate::kit::{Gate, LONG, is_alive, record, row, until, until_status, with_queue};
use crate::tasks::{listens, loops, pid, sleeps, waits};

/// The process that runs this task.
async fn pid_of(celeriac: &Celeriac, id: &TaskId) -> u32 {
    let start = Instant::now();
    let running = loop {
        let running = celeriac.running().await.unwrap();
        if running.missing.is_empty() {
            break running;
        }
        // An event loop that has no time to answer is asked again.
        assert!(start.elapsed() < LONG, "these do not answer: {:?}", running.missing);
    };
    let run = running.iter().find(|run| run.id == *id).expect("it runs");
    assert_eq!(run.pool, "process");
    assert_ne!(run.pid, std::process::id());
    run.pid
}

async fn next_pid(celeriac: &Celeriac) -> u32 {
    pid::s().send(celeriac.client()).await.unwrap().get(LONG).await.unwrap()
}

pub fn end_a_loop_and_what_it_has_started() {
    with_queue(row(1), |celeriac| async move {
        let gate = Gate::new();
        // It begins in another process, and starts a third.
        let call = loops::s(gate.path()).time_limit(Duration::from_secs(10));
        let looping = call.send(celeriac.client()).await.unwrap();
        let said = gate.entered().await;
        let ids: Vec<u32> = said.split(' ').map(|id| id.parse().unwrap()).collect();
        let ended = record(&looping).await;
        assert_eq!((ended.state, ended.attempts), (State::Failure, 1));
        assert_eq!(ended.error_type.as_deref(), Some("TimeLimitExceeded"));
        assert_eq!(ended.errors, ["TimeLimitExceeded: the run took longer than its time limit of 10s"]);
        assert!(!is_alive(ids[0]), "its process is gone before its record is there");
        until("what it has started is gone", async || !is_alive(ids[1])).await;
        let next = next_pid(&celeriac).await;
        assert_ne!(next, ids[0]);
        let status = until_status(&celeriac, |s| s.done == 1).await;
        assert_eq!((status.timed_out, status.lost, status.stuck, status.replaced), (1, 0, 0, 1));
    });
}

pub fn are_told_to_bodies_that_listen() {
    with_queue(row(1), |celeriac| async move {
        let before = next_pid(&celeriac).await;
        let gate = Gate::new();
        let call = listens::s(gate.path()).soft_time_limit(Duration::from_millis(20)).time_limit(LONG);
        let told = record(&call.send(celeriac.client()).await.unwrap()).await;
        assert_eq!(told.error_type.as_deref(), Some("SoftTimeLimitExceeded"));
        let gate = Gate::new();
        let call = sleeps::s(gate.path()).time_limit(Duration::from_millis(20));
        let dropped = record(&call.send(celeriac.client()).await.unwrap()).await;
        assert_eq!(dropped.error_type.as_deref(), Some("TimeLimitExceeded"));
        // The one that has listened has kept its process, the other one has not.
        let status = until_status(&celeriac, |s| s.failed == 2 && s.running == 0).await;
        assert_eq!((status.timed_out, status.replaced), (1, 1));
        assert_ne!(next_pid(&celeriac).await, before);
    });
}

pub fn a_revoked_task_is_ended() {
    with_queue(row(1), |celeriac| async move {
        let client = celeriac.client();
        let deaf = Gate::new();
        let task = waits::s(deaf.path()).send(client.clone()).await.unwrap();
        deaf.entered().await;
        let killed = pid_of(&celeriac, task.id()).await;
        assert!(task.revoke(true).await.unwrap());
        assert_eq!(record(&task).await.state, State::Revoked);
        assert!(!is_alive(killed), "the body did not listen, and its process is gone");

        // Bodies that end when they are told to keep their process. One that gets no time for a second to hear it does not,
        // so both are asked again then.
        let (mut revoked, mut ended, mut rounds) = (1, 1, 0);
        loop {
            let (listening, asleep) = (Gate::new(), Gate::new());
            let task = listens::s(listening.path()).send(client.clone()).await.unwrap();
            listening.entered().await;
            let first = pid_of(&celeriac, task.id()).await;
            assert!(task.revoke(true).await.unwrap());
            assert_eq!(record(&task).await.state, State::Revoked);

            let task = sleeps::s(asleep.path()).send(client.clone()).await.unwrap();
            asleep.entered().await;
            let second = pid_of(&celeriac, task.id()).await;
            assert!(task.revoke(true).await.unwrap());
            assert_eq!(record(&task).await.state, State::Revoked);
            let third = next_pid(&celeriac).await;
            (revoked, rounds) = (revoked + 2, rounds + 1);
            ended += u64::from(first != second) + u64::from(second != third);
            if first == third {
                break;
            }
            assert!(rounds < 20, "no body keeps its process");
        }

        // Without `terminate` a body goes on.
        let gate = Gate::new();
        let task = waits::s(gate.path()).send(client).await.unwrap();
        gate.entered().await;
        assert!(task.revoke(false).await.unwrap());
        gate.open();
        assert_eq!(record(&task).await.state, State::Success);
        let status = until_status(&celeriac, |s| s.done == rounds + 1).await;
        assert_eq!((status.revoked, status.replaced, status.lost, status.stuck), (revoked, ended, 0, 0));
    });
}
