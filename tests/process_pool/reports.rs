//! What bodies report and ask for from another process: as in the other pools.

use std::time::Duration;

use celeriac::broker::TaskFilter;
use celeriac::core::Progress;
use celeriac::soil::DownloadError;
use celeriac::task::EventKind;
use celeriac::{Celeriac, State, TaskId};
use futures_util::StreamExt;

use crate::kit::{Gate, LONG, record, row, until, until_status, with_queue};
use crate::tasks::{
    asks_twice, begins, exports, holds, marks, pattern, pid, reports, reports_plainly, sends_many, talks,
    talks_and_waits,
};

pub fn progress_events_and_calls() {
    with_queue(row(2), |celeriac| async move {
        let gate = Gate::new();
        let mut events = celeriac.events();
        let task = reports::s(gate.path()).send(celeriac.client()).await.unwrap();
        gate.entered().await;
        let soil = celeriac.soil();
        until("its bar is shown", async || {
            let seen = soil.status(task.id()).await.unwrap();
            seen.progress == Some(Progress::of(3, 10)) && seen.note.as_deref() == Some("packing")
        })
        .await;
        let event = tokio::time::timeout(LONG, async {
            loop {
                let event = events.next().await.expect("the runtime is up");
                if let EventKind::Custom { name, fields } = event.kind {
                    return (name.to_string(), fields["pages"].clone());
                }
            }
        });
        assert_eq!(event.await.unwrap(), ("task-mark".to_owned(), 7.into()));
        gate.open();
        let (greeting, sent, other) = task.get(LONG).await.unwrap();
        assert!(greeting.starts_with("hello from ") && !greeting.ends_with(&std::process::id().to_string()));
        assert_ne!(greeting, format!("hello from {other}"), "the data is that of its own process");
        let sent = celeriac.client().result(&TaskId::from(sent)).await.unwrap().expect("it is over");
        assert_eq!(sent.lineage.and_then(|lineage| lineage.parent_id).as_ref(), Some(task.id()));
    });
}

pub fn many_calls_of_a_body() {
    with_queue(row(2), |celeriac| async move {
        let task = sends_many::s().send(celeriac.client()).await.unwrap();
        let (sent, refused) = task.get(LONG).await.unwrap();
        assert_eq!(sent.len(), 3);
        for id in sent.into_iter().map(TaskId::from) {
            let record = celeriac.client().wait(&id).await.unwrap();
            assert_eq!(record.state, State::Success);
            assert_eq!(record.lineage.and_then(|lineage| lineage.parent_id).as_ref(), Some(task.id()));
        }
        assert!(refused.contains("`same`"), "{refused}");
        assert_eq!(celeriac.client().state(&"same".into()).await, Ok(State::Unknown));
    });
}

/// A body may send more events at a time than its process takes up before the body has ended.
pub fn all_events_of_a_body() {
    const MANY: u64 = 1_000;
    with_queue(row(1), |celeriac| async move {
        let mut events = celeriac.events();
        let task = marks::s(MANY as u32).send(celeriac.client()).await.unwrap();
        task.get(LONG).await.unwrap();
        // What is told too late would be told of this one.
        pid::s().send(celeriac.client()).await.unwrap().get(LONG).await.unwrap();
        let numbers = tokio::time::timeout(LONG, async {
            let mut numbers = Vec::new();
            while numbers.len() < MANY as usize {
                let event = events.next().await.expect("the runtime is up");
                if let EventKind::Custom { fields, .. } = &event.kind {
                    assert_eq!(event.id(), task.id());
                    numbers.push(fields["number"].as_u64().expect("a number"));
                }
            }
            numbers
        });
        assert_eq!(numbers.await.unwrap(), (0..MANY).collect::<Vec<_>>());
    });
}

/// The bytes of a download.
async fn read(celeriac: &Celeriac, id: &TaskId) -> Result<Vec<u8>, DownloadError> {
    let chunks: Vec<_> = celeriac.soil().open(id, None).await?.body.collect().await;
    Ok(chunks.into_iter().flat_map(|chunk| chunk.unwrap()).collect())
}

pub fn downloads_of_every_kind() {
    with_queue(row(1), |celeriac| async move {
        // More than what may be on its way at a time.
        let bytes = 7_000_000;
        for kind in ["bytes", "reader", "stream"] {
            let task = exports::s(kind.to_owned(), bytes).send(celeriac.client()).await.unwrap();
            task.get(LONG).await.unwrap_or_else(|error| panic!("{kind}: {error}"));
            assert!(read(&celeriac, task.id()).await.unwrap() == pattern(bytes), "{kind}");
        }
        for (kind, error) in [("broken", "cut off"), ("badly named", "cannot be the name of a download")] {
            let task = exports::s(kind.to_owned(), 100).send(celeriac.client()).await.unwrap();
            let failed = record(&task).await;
            assert!(failed.errors.iter().any(|told| told.contains(error)), "{kind}: {:?}", failed.errors);
            assert!(matches!(read(&celeriac, task.id()).await, Err(DownloadError::Missing(_))), "{kind}");
        }
        let task = exports::s("and dies".to_owned(), 0).send(celeriac.client()).await.unwrap();
        assert_eq!(record(&task).await.error_type.as_deref(), Some("WorkerLost"));
        assert!(matches!(read(&celeriac, task.id()).await, Err(DownloadError::Missing(_))));
        until_status(&celeriac, |s| (s.done, s.failed, s.lost) == (3, 3, 1)).await;
    });
}

pub fn permits_are_held_and_given_back() {
    with_queue(row(2), |celeriac| async move {
        for how in ["gives back", "forgets", "dies"] {
            let gate = Gate::new();
            let first = holds::s(gate.path(), how.to_owned()).send(celeriac.client()).await.unwrap();
            gate.entered().await;
            gate.reset();
            let holders = celeriac.permit_holders("gateway").await.unwrap();
            assert_eq!(holders.len(), 1, "{how}");
            let next = holds::s(gate.path(), "gives back".to_owned()).send(celeriac.client()).await.unwrap();
            until_status(&celeriac, |s| s.running == 2).await;
            let holders = celeriac.permit_holders("gateway").await.unwrap();
            assert!(holders[0].holder.starts_with(first.id().as_str()), "{how}: {holders:?}");
            gate.open();
            let ended = record(&first).await;
            let expected = if how == "dies" { State::Failure } else { State::Success };
            assert_eq!(ended.state, expected, "{how}");
            assert_eq!(record(&next).await.state, State::Success, "{how}: the next one gets it");
            until("nobody holds it", async || celeriac.permit_holders("gateway").await.unwrap().is_empty())
                .await;
        }
        // A request that the body has given up holds nothing: the body gets the lock by the next one.
        let asked = asks_twice::s().send(celeriac.client()).await.unwrap();
        assert_eq!(asked.get(LONG).await, Ok(true));
        let handed = begins::s().send(celeriac.client()).await.unwrap().get(LONG).await.unwrap();
        let taken = celeriac.async_result(handed.as_str()).get::<bool>(LONG).await;
        assert_eq!(taken, Ok(true), "the task that it was handed to has it");
        until("nobody holds it", async || celeriac.permit_holders("relay").await.unwrap().is_empty()).await;
    });
}

pub fn the_log_of_a_failed_attempt() {
    with_queue(row(1), |celeriac| async move {
        for (lines, kept) in [(3, 3), (70, 50)] {
            let task = talks::s(lines).send(celeriac.client()).await.unwrap();
            assert_eq!(record(&task).await.state, State::Failure);
            let filter = TaskFilter::new().ids([task.id().clone()]);
            let attempts = celeriac.failed_tasks(&filter, 9).await.unwrap()[0].attempts();
            assert_eq!(
                (attempts[0].log.len(), attempts[0].log_left_out),
                (kept, u64::from(lines) - kept as u64)
            );
            assert_eq!(attempts[0].log[kept - 1].text, format!("line {}", lines - 1));
        }
    });
}

/// A child says what it logs while its run goes on, so that its death does not take that along.
pub fn the_log_of_a_body_that_is_killed() {
    with_queue(row(1), |celeriac| async move {
        let gate = Gate::new();
        let call = talks_and_waits::s(gate.path()).time_limit(Duration::from_secs(10));
        let task = call.send(celeriac.client()).await.unwrap();
        gate.entered().await;
        assert_eq!(record(&task).await.error_type.as_deref(), Some("TimeLimitExceeded"));
        let filter = TaskFilter::new().ids([task.id().clone()]);
        let attempts = celeriac.failed_tasks(&filter, 9).await.unwrap()[0].attempts();
        let said: Vec<&str> = attempts[0].log.iter().map(|line| line.text.as_str()).collect();
        assert_eq!((said, attempts[0].log_left_out), (vec!["on the way"], 0));
    });
}

pub fn of_a_plain_body() {
    with_queue(row(2), |celeriac| async move {
        let task =
            reports_plainly::s().time_limit(Duration::from_secs(60)).send(celeriac.client()).await.unwrap();
        let (greeting, other, has_held) = task.get(LONG).await.unwrap();
        assert!(greeting.starts_with("hello from ") && has_held);
        assert_ne!(other, std::process::id());
        assert_eq!(read(&celeriac, task.id()).await.unwrap(), b"a,b\n");
    });
}
