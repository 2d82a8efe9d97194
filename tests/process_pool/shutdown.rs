//! A shutdown: it waits for bodies in children as for others, and ends within its grace all the same.

use std::time::Duration;

use crate::kit::{self, Gate, children, is_alive, row};
use crate::tasks::{listens, loops};

pub fn waits_for_bodies_and_ends_those_that_are_deaf() {
    kit::block_on(async {
        // Where an event loop gets no time for the second after the grace, it does not say what it has handed back.
        let mut rounds = 0..20;
        while end_both().await < 2 {
            assert!(rounds.next().is_some(), "both are to run again");
        }
    });
}

/// How many runs the end of a runtime hands back that has one of each.
async fn end_both() -> usize {
    let celeriac = kit::builder().queue(row(2)).start().await.unwrap();
    let (polite, deaf) = (Gate::new(), Gate::new());
    listens::s(polite.path()).send(celeriac.client()).await.unwrap();
    loops::s(deaf.path()).send(celeriac.client()).await.unwrap();
    polite.entered().await;
    let said = deaf.entered().await;
    assert_eq!(children().len(), 2);
    let report = celeriac.shutdown_within(Duration::from_millis(400)).await.unwrap();
    assert!(!report.drained, "neither is over");
    kit::until("no process is left, and none waits to be looked at", async || children().is_empty()).await;
    for id in said.split(' ') {
        let id = id.parse().unwrap();
        kit::until("what it has started is gone", async || !is_alive(id)).await;
    }
    report.handed_back
}
