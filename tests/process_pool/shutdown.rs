//! A shutdown: it waits for bodies in children as for others, and ends within its grace all the same.

use std::time::Duration;

use crate::kit::{self, Gate, children, is_alive, row};
use crate::tasks::{listens, loops};

pub fn waits_for_bodies_and_ends_those_that_are_deaf() {
    kit::block_on(async {
        let celeriac = kit::builder().queue(row(2)).start().await.unwrap();
        let (polite, deaf) = (Gate::new(), Gate::new());
        listens::s(polite.path()).send(celeriac.client()).await.unwrap();
        loops::s(deaf.path()).send(celeriac.client()).await.unwrap();
        polite.entered().await;
        let said = deaf.entered().await;
        assert_eq!(children().len(), 2);
        let report = celeriac.shutdown_within(Duration::from_millis(400)).await.unwrap();
        assert_eq!(
            (report.drained, report.handed_back),
            (false, 2),
            "both run again, and neither is at fault"
        );
        assert!(children().is_empty(), "no process is left, and none waits to be looked at");
        for id in said.split(' ') {
            let id = id.parse().unwrap();
            kit::until("what it has started is gone", async || !is_alive(id)).await;
        }
    });
}
