//! For how long a queue is blocked: by what waits in the broker too, and counted from its last start of any kind.

use std::time::{Duration, Instant};

use celeriac::task::TaskError;
use celeriac::{Celeriac, Context, task};

use crate::kit::{Gate, LONG, add, builder, hold, io_queue, record, status_of, until, until_status};

/// One worker and one delivery: what waits behind a run waits in the broker.
async fn narrow(dir: Option<&std::path::Path>) -> Celeriac {
    let builder = builder().queue(io_queue("narrow", 1).with_prefetch(1));
    match dir {
        Some(dir) => builder.directory(dir).start().await.unwrap(),
        None => builder.in_memory().start().await.unwrap(),
    }
}

#[tokio::test]
async fn what_waits_in_the_broker_counts() {
    let dir = tempfile::tempdir().unwrap();
    for celeriac in [narrow(None).await, narrow(Some(dir.path())).await] {
        let gate = Gate::new();
        let client = || celeriac.client();
        let held = hold::s(gate.name.clone()).queue("narrow").send(client()).await.unwrap();
        gate.entered(1).await;
        assert_eq!(status_of(&celeriac, "narrow").await.blockage, Duration::ZERO, "nothing waits");
        let low = Instant::now();
        let waiting = add::s(1, 1).queue("narrow").send(client()).await.unwrap();
        let urgent = add::s(2, 2).queue("narrow").priority(9).send(client()).await.unwrap();
        let high = Instant::now();
        // Nothing of it was delivered.
        let status =
            until_status(&celeriac, "narrow", |status| status.blockage > Duration::from_millis(50)).await;
        assert_eq!((status.ready, status.running), (2, 1));
        assert!(status.blockage <= low.elapsed(), "{:?}", status.blockage);
        until_status(&celeriac, "narrow", |status| status.blockage >= high.duration_since(low)).await;
        // Soil tells whole seconds, so this waits for the first.
        let seconds =
            async || celeriac.soil().status(waiting.id()).await.unwrap().line.unwrap().blocked_seconds;
        until("Soil tells that it is blocked", async || seconds().await >= 1).await;
        let told = seconds().await;
        assert!((1..=low.elapsed().as_secs()).contains(&told), "{told}");
        gate.open();
        for result in [&waiting, &urgent] {
            assert_eq!(record(result).await.attempts, 1);
        }
        let after = until_status(&celeriac, "narrow", |status| status.running == 0).await;
        assert_eq!((after.blockage, after.ready), (Duration::ZERO, 0));
        drop(held);
        celeriac.shutdown().await.unwrap();
    }
}

/// Fails first, behind a gate, and holds another one then.
#[task(queue = "narrow", max_retries = 1, default_retry_delay = 0, retry_jitter = false)]
async fn fails_first(ctx: Context, first: String, second: String) -> Result<u32, TaskError> {
    if ctx.attempt() == 1 {
        Gate::named(&first).pass().await;
        return Err(TaskError::failure(["once more"]));
    }
    Gate::named(&second).pass().await;
    Ok(ctx.attempt())
}

#[tokio::test]
async fn the_start_of_a_retry_is_a_start() {
    let celeriac = narrow(None).await;
    let (first, second) = (Gate::new(), Gate::new());
    let call = fails_first::s(first.name.clone(), second.name.clone()).priority(9);
    let retried = call.send(celeriac.client()).await.unwrap();
    first.entered(1).await;
    let waiting = add::s(1, 1).queue("narrow").send(celeriac.client()).await.unwrap();
    until_status(&celeriac, "narrow", |status| status.blockage > Duration::from_millis(20)).await;
    // Both wait now, and the one that has run before goes first.
    celeriac.pause("narrow").await.unwrap();
    first.open();
    until_status(&celeriac, "narrow", |status| status.running == 0 && status.ready == 2).await;
    let resumed = Instant::now();
    celeriac.resume("narrow").await.unwrap();
    second.entered(1).await;
    let status = until_status(&celeriac, "narrow", |status| status.blockage > Duration::ZERO).await;
    assert!(
        status.blockage <= resumed.elapsed(),
        "{:?}: counted from the start of the retry",
        status.blockage
    );
    second.open();
    assert_eq!((record(&retried).await.attempts, waiting.get(LONG).await), (2, Ok(2)));
    celeriac.shutdown().await.unwrap();
}
