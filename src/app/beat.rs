//! The handle by which a program looks at its periodic entries and changes them while it runs. In a test the calls
//! go to the test's own beat, otherwise to the actor.

use std::sync::Arc;

use crate::actors::beat::BeatParts;
#[cfg(feature = "testing")]
use crate::actors::beat::stepped::Stepping;
use crate::actors::{BeatError, EntryStatus};
use crate::task::{Periodic, Receipt};

/// The schedule of a running program, to be looked at, changed, paused and triggered.
/// [`Celeriac::beat`](crate::Celeriac::beat) returns it.
///
/// Changes are kept in the notes, so they hold after a restart too.
///
/// ```no_run
/// # async fn demo(celeriac: celeriac::Celeriac) -> Result<(), Box<dyn std::error::Error>> {
/// for entry in celeriac.beat().entries().await? {
///     println!("{} fires next at {:?}", entry.name, entry.next);
/// }
/// celeriac.beat().pause("monthly invoices").await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct BeatHandle {
    parts: Option<Arc<BeatParts>>,
}

impl BeatHandle {
    pub(super) fn new(parts: Option<Arc<BeatParts>>) -> Self {
        Self { parts }
    }

    /// The beat of the test that this program is in; `None`: it is in no test.
    #[cfg(feature = "testing")]
    fn stepping(&self) -> Option<&Stepping> {
        self.parts.as_ref()?.stepping.get()
    }

    fn parts(&self) -> Result<&BeatParts, BeatError> {
        self.parts.as_deref().ok_or(BeatError::Off)
    }

    /// All entries, ordered by name.
    ///
    /// # Errors
    /// Beat is off or does not answer.
    pub async fn entries(&self) -> Result<Vec<EntryStatus>, BeatError> {
        #[cfg(feature = "testing")]
        if let Some(stepping) = self.stepping() {
            return stepping.step(async |beat| Ok(beat.all())).await;
        }
        self.parts()?.list().await
    }

    /// Adds an entry, or replaces the entry of its name, wherever that came from. An entry whose schedule is new
    /// begins now; ticks that the old schedule missed are not made up for.
    ///
    /// # Errors
    /// The entry is not valid, beat is off or does not answer, or the store failed.
    pub async fn put(&self, entry: Periodic) -> Result<(), BeatError> {
        #[cfg(feature = "testing")]
        if let Some(stepping) = self.stepping() {
            return stepping.step(async |beat| beat.put(entry).await).await;
        }
        self.parts()?.put(entry).await
    }

    /// Undoes what [`put`](Self::put) did: an entry that was added is gone, and one that was changed is as the
    /// program says again.
    ///
    /// # Errors
    /// There is no such entry, or it is part of the program; beat is off or does not answer; or the store failed.
    pub async fn remove(&self, name: &str) -> Result<(), BeatError> {
        #[cfg(feature = "testing")]
        if let Some(stepping) = self.stepping() {
            return stepping.step(async |beat| beat.remove(name).await).await;
        }
        self.parts()?.remove(name).await
    }

    /// Pauses an entry: it fires no more until [`resume`](Self::resume), after a restart neither.
    ///
    /// # Errors
    /// There is no such entry, beat is off or does not answer, or the store failed.
    pub async fn pause(&self, name: &str) -> Result<(), BeatError> {
        self.set_paused(name, true).await
    }

    /// Ends the pause of an entry. The ticks of the pause are not made up for.
    ///
    /// # Errors
    /// There is no such entry, beat is off or does not answer, or the store failed.
    pub async fn resume(&self, name: &str) -> Result<(), BeatError> {
        self.set_paused(name, false).await
    }

    async fn set_paused(&self, name: &str, paused: bool) -> Result<(), BeatError> {
        #[cfg(feature = "testing")]
        if let Some(stepping) = self.stepping() {
            return stepping.step(async |beat| beat.pause(name, paused).await).await;
        }
        self.parts()?.set_paused(name, paused).await
    }

    /// Ends beat in this program for good and gives the lead back, so that another process takes over at once. A
    /// shutdown does this by itself; call it to hand the lead over before.
    ///
    /// # Errors
    /// Beat is off or does not answer.
    pub async fn resign(&self) -> Result<(), BeatError> {
        let parts = self.parts()?;
        parts.stay_down();
        #[cfg(feature = "testing")]
        if let Some(stepping) = self.stepping() {
            return stepping.end().await;
        }
        parts.end().await
    }

    /// Calls an entry's task now, besides its schedule, and returns the receipt of the call.
    ///
    /// # Errors
    /// There is no such entry, it fires for tenants, beat is off or does not answer, or the task was not accepted.
    pub async fn trigger(&self, name: &str) -> Result<Receipt, BeatError> {
        #[cfg(feature = "testing")]
        if let Some(stepping) = self.stepping() {
            let call = stepping.step(async |beat| beat.call(name)).await?;
            return stepping.enqueue(call).await;
        }
        self.parts()?.trigger(name).await
    }
}

#[cfg(feature = "web")]
impl super::handle::Celeriac {
    /// The physical queue of the tasks of an entry, as far as its arguments decide it. `None`: the entry names a queue that the
    /// catalogue does not have.
    pub(crate) fn queue_of_entry(&self, entry: &Periodic) -> Option<&str> {
        let wanted = entry.queue.as_deref();
        self.inner.routing.queue(None, &entry.task, wanted, &entry.arguments).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use parking_lot::Mutex;

    use crate::app::alone::is_alone;
    use crate::core::calendar::{Misfire, Overlap, Schedule, tick_id};
    use crate::task::{Periodic, Task};
    use crate::{Celeriac, Context, task};

    static RAN: Mutex<Vec<String>> = Mutex::new(Vec::new());

    #[task(ignore_result)]
    async fn tick(ctx: Context) {
        RAN.lock().push(ctx.id().to_string());
    }

    async fn until_ran(n: usize) {
        let start = std::time::Instant::now();
        while RAN.lock().len() < n {
            assert!(start.elapsed() < Duration::from_secs(120), "it does not go on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[test]
    fn beat_that_dies_is_built_anew_and_goes_on_where_it_was() {
        let name = "app::beat::tests::beat_that_dies_is_built_anew_and_goes_on_where_it_was";
        if is_alone(name) {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(kills_beat());
        }
    }

    async fn kills_beat() {
        let interval = Duration::from_millis(20);
        let entry = Periodic::new("mortal", tick::Task::NAME, Schedule::Every(interval))
            .misfire(Misfire::All { within: Duration::from_secs(3600) })
            .overlap(Overlap::Allow)
            .expires(Duration::from_secs(3600));
        let dir = tempfile::tempdir().unwrap();
        let celeriac = Celeriac::builder().directory(dir.path()).periodic(entry).start().await.unwrap();
        for death in 1..=3 {
            until_ran(death * 10).await;
            celeriac.beat().parts().unwrap().kill();
        }
        until_ran(40).await;
        celeriac.shutdown().await.unwrap();
        let ran = RAN.lock().clone();
        let once: BTreeSet<_> = ran.iter().cloned().collect();
        assert_eq!(once.len(), ran.len(), "no tick twice");
        let schedule = Schedule::Every(interval);
        let now = crate::task::clock::now();
        let all: Vec<_> = schedule
            .preview(now - Duration::from_secs(600), 30_000)
            .into_iter()
            .map(|at| tick_id("mortal", at))
            .collect();
        let first = all.iter().position(|id| once.contains(id)).unwrap();
        let last = all.iter().rposition(|id| once.contains(id)).unwrap();
        assert_eq!(last - first + 1, ran.len(), "none left out");
    }
}
