//! What runs just now, as the workers know it.

use std::time::Duration;

use celeriac::task::Interrupt;

use crate::kit::{Gate, all_running, hold, hold_cpu, memory, on_both, status_of, until, until_status};

#[tokio::test]
async fn each_worker_knows_its_run() {
    on_both(|celeriac| async move {
        assert!(all_running(&celeriac).await.is_empty());
        let gate = Gate::new();
        let limited = hold::s(gate.name.clone()).soft_time_limit(Duration::from_secs(90));
        let limited = limited.time_limit(Duration::from_secs(100)).send(celeriac.client()).await.unwrap();
        gate.entered(1).await;
        let on_thread = hold_cpu::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
        gate.entered(2).await;
        let running = all_running(&celeriac).await;
        assert_eq!(running.len(), 2);
        let (first, second) = (&running[0], &running[1]);
        assert_eq!((&first.id, &second.id), (limited.id(), on_thread.id()));
        assert!(first.task.ends_with("::hold") && second.task.ends_with("::hold_cpu"));
        assert_eq!((first.queue.as_str(), first.pool, first.attempt), ("io", "io", 1));
        assert_eq!((second.queue.as_str(), second.pool, second.attempt), ("cpu", "cpu", 1));
        assert!(first.worker.starts_with("io#") && second.worker.starts_with("cpu#"));
        assert!(first.started_at <= second.started_at);
        let limits = (first.soft_time_limit, first.time_limit);
        assert_eq!(limits, (Some(Duration::from_secs(90)), Some(Duration::from_secs(100))));
        assert_eq!((second.soft_time_limit, second.time_limit), (None, None));
        assert!(running.iter().all(|run| run.interrupt.is_none() && !run.is_stuck));
        // A body on a thread is told, and goes on until it heeds that.
        assert_eq!(on_thread.revoke(true).await, Ok(true));
        let revoked = Some(Interrupt::Revoked);
        until("it is told", async || all_running(&celeriac).await[1].interrupt == revoked).await;
        gate.open();
        until("nothing runs", async || all_running(&celeriac).await.is_empty()).await;
    })
    .await;
}

#[tokio::test]
async fn a_run_is_known_when_its_worker_is_let_go() {
    let celeriac = memory().await;
    let gate = Gate::new();
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(hold::s(gate.name.clone()).send(celeriac.client()).await.unwrap());
    }
    gate.entered(4).await;
    celeriac.resize("io", 1).await.unwrap();
    assert_eq!(all_running(&celeriac).await.len(), 4, "what runs goes on to its end");
    gate.open();
    for one in &held {
        assert_eq!(one.get(crate::kit::LONG).await, Ok(1));
    }
    until("nothing runs", async || all_running(&celeriac).await.is_empty()).await;
    assert_eq!(status_of(&celeriac, "io").await.replaced, 0);
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_body_that_nobody_could_stop_is_told_to_be_stuck() {
    let celeriac = memory().await;
    let gate = Gate::new();
    let call = hold_cpu::s(gate.name.clone()).time_limit(Duration::from_secs(2));
    let stuck = call.send(celeriac.client()).await.unwrap();
    until("its run is given up", async || status_of(&celeriac, "cpu").await.stuck == 1).await;
    let running = all_running(&celeriac).await;
    assert_eq!((running.len(), &running[0].id, running[0].is_stuck), (1, stuck.id(), true));
    gate.open();
    until("it has come back", async || all_running(&celeriac).await.is_empty()).await;
    until_status(&celeriac, "cpu", |status| status.refused == 1).await;
    celeriac.shutdown().await.unwrap();
}
