//! The schedule of a running program: looked at, changed, paused, triggered; and what of that holds after a restart.

use std::time::Duration;

use celeriac::actors::{BeatError, EntryOrigin};
use celeriac::core::calendar::{Schedule, Zone};
use celeriac::task::Periodic;

use crate::kit::{RARELY, each, embedded, entry, now, ran, status, tick, until, until_ran};

const INTERVAL: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn added_changed_paused_and_taken_out_through_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac =
        embedded(dir.path()).periodic(entry::<tick::Task>("written", RARELY)).start().await.unwrap();
    let beat = celeriac.beat();
    assert_eq!(status(&celeriac, "written").await.origin, EntryOrigin::Catalogue);

    // Added.
    beat.put(each("added", INTERVAL)).await.unwrap();
    until_ran("added", 3).await;
    assert_eq!(status(&celeriac, "added").await.origin, EntryOrigin::RunTime);
    // Changed.
    beat.put(each("written", INTERVAL)).await.unwrap();
    until_ran("written", 3).await;
    // Paused.
    beat.pause("added").await.unwrap();
    let paused = status(&celeriac, "added").await;
    assert!(paused.paused && paused.next.is_none(), "{paused:?}");
    // What still waits would run in the next life.
    until("all that was published ran", async || ran("added").len() as u64 == paused.published).await;
    celeriac.shutdown().await.unwrap();

    let celeriac =
        embedded(dir.path()).periodic(entry::<tick::Task>("written", RARELY)).start().await.unwrap();
    let beat = celeriac.beat();
    let before = (ran("added").len(), ran("written").len());
    until_ran("written", before.1 + 10).await;
    assert!(status(&celeriac, "added").await.paused, "the pause lasts");
    assert_eq!(ran("added").len(), before.0);
    // Resumed: the ticks of the pause are not made up for, though the policy is to make up for all.
    let resumed = now();
    beat.resume("added").await.unwrap();
    until_ran("added", before.0 + 3).await;
    let (since, now) = (ran("added").len() - before.0, now());
    assert!(since as u128 <= now.since(resumed).as_millis() / INTERVAL.as_millis() + 2, "{since} since then");
    // Taken out: the added one is gone, the changed one is what the program says.
    beat.remove("added").await.unwrap();
    beat.remove("written").await.unwrap();
    let all = beat.entries().await.unwrap();
    let names: Vec<_> = all.iter().map(|entry| (entry.name.as_str(), entry.origin)).collect();
    assert_eq!(names, [("written", EntryOrigin::Catalogue)]);
    assert_eq!(all[0].schedule, format!("every {RARELY:?}"));
    celeriac.shutdown().await.unwrap();

    let celeriac =
        embedded(dir.path()).periodic(entry::<tick::Task>("written", RARELY)).start().await.unwrap();
    assert_eq!(celeriac.beat().entries().await.unwrap().len(), 1, "and stays gone");
    celeriac.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn triggered_besides_its_schedule() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac =
        embedded(dir.path()).periodic(entry::<tick::Task>("by hand", RARELY)).start().await.unwrap();
    let next = status(&celeriac, "by hand").await.next;
    let first = celeriac.beat().trigger("by hand").await.unwrap();
    let second = celeriac.beat().trigger("by hand").await.unwrap();
    until_ran("by hand", 2).await;
    let mut ids = ran("by hand");
    ids.sort();
    let mut triggered = [first.id.to_string(), second.id.to_string()];
    triggered.sort();
    assert_eq!(ids, triggered);
    assert_eq!(status(&celeriac, "by hand").await.next, next, "the schedule is untouched");
    celeriac.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac =
        embedded(dir.path()).periodic(entry::<tick::Task>("invoices", RARELY)).start().await.unwrap();
    let beat = celeriac.beat();
    let text = |error: BeatError| error.to_string();
    assert_eq!(
        text(beat.pause("invoces").await.unwrap_err()),
        "no periodic entry `invoces`; did you mean `invoices`?"
    );
    assert_eq!(text(beat.trigger("zzz").await.unwrap_err()), "no periodic entry `zzz`");
    assert_eq!(
        text(beat.remove("invoices").await.unwrap_err()),
        "the entry `invoices` is in the program or its catalogue: pause it, or take it out there"
    );
    let often = Periodic::new("often", "t", Schedule::Every(Duration::ZERO));
    let error = text(beat.put(often).await.unwrap_err());
    assert_eq!(error, "the entry `often` cannot be: every 0ns is too often; write at least 1ms");
    celeriac.shutdown().await.unwrap();
    assert_eq!(beat.entries().await, Err(BeatError::NotAnswering));

    let off = embedded(dir.path()).beat(false).start().await.unwrap();
    assert_eq!(off.beat().entries().await, Err(BeatError::Off));
    off.shutdown().await.unwrap();
}

/// A store says how far an entry was, so that the clock of the entry is seen from outside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_fire_is_the_schedules() {
    let dir = tempfile::tempdir().unwrap();
    let nightly = Schedule::crontab("30 3 * * *".parse().unwrap(), "Africa/Nairobi".parse::<Zone>().unwrap());
    let nightly = Periodic::calling("nightly", tick::s("nightly".into()), nightly);
    let celeriac = embedded(dir.path()).periodic(nightly.clone()).start().await.unwrap();
    let shown = status(&celeriac, "nightly").await;
    assert_eq!(shown.next, nightly.schedule.next_after(shown.last));
    assert_eq!(shown.schedule, "30 3 * * * (Africa/Nairobi)");
    assert_eq!((nightly.queue.as_deref(), nightly.arguments.args.as_str()), (Some("io"), "[\"nightly\"]"));
    until("it answers again and again", async || celeriac.beat().entries().await.is_ok()).await;
    celeriac.shutdown().await.unwrap();
}
