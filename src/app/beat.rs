//! The handle on the periodic entries.

use std::sync::Arc;

use actix::Addr;

use crate::actors::beat::{self, BeatParts, End, GetEntries, Pause, Put, Remove, Trigger};
use crate::actors::{BeatError, EntryStatus};
use crate::task::{Periodic, Receipt};

/// The schedule of a running program: look at it, change it, pause it, trigger it.
///
/// What is changed here is kept in the store, and holds after a restart too.
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
pub struct Beat {
    parts: Option<Arc<BeatParts>>,
}

impl Beat {
    pub(super) fn new(parts: Option<Arc<BeatParts>>) -> Self {
        Self { parts }
    }

    fn address(&self) -> Result<Addr<beat::Beat>, BeatError> {
        let parts = self.parts.as_ref().ok_or(BeatError::Off)?;
        parts.living().ok_or(BeatError::NotAnswering)
    }

    async fn ask<M, T>(&self, message: M) -> Result<T, BeatError>
    where
        M: actix::Message<Result = Result<T, BeatError>> + Send + 'static,
        T: Send + 'static,
        beat::Beat: actix::Handler<M>,
    {
        self.address()?.send(message).await.unwrap_or(Err(BeatError::NotAnswering))
    }

    /// All entries, by name.
    ///
    /// # Errors
    /// Beat is off or does not answer.
    pub async fn entries(&self) -> Result<Vec<EntryStatus>, BeatError> {
        self.ask(GetEntries).await
    }

    /// Adds an entry, or puts this one in the place of the one of its name, whatever it came from. With another schedule
    /// than before it begins now; what was missed by the old one is not made up for.
    ///
    /// # Errors
    /// The entry makes no sense, beat is off or does not answer, or the store failed.
    pub async fn put(&self, entry: Periodic) -> Result<(), BeatError> {
        self.ask(Put(Box::new(entry))).await
    }

    /// Takes out what [`put`](Self::put) did: an entry that was added is gone, one that was changed is again what the
    /// program says.
    ///
    /// # Errors
    /// There is no such entry, or it is part of the program; beat is off or does not answer; or the store failed.
    pub async fn remove(&self, name: &str) -> Result<(), BeatError> {
        self.ask(Remove(name.to_owned())).await
    }

    /// Lets an entry fire no more until [`resume`](Self::resume), through restarts too.
    ///
    /// # Errors
    /// There is no such entry, beat is off or does not answer, or the store failed.
    pub async fn pause(&self, name: &str) -> Result<(), BeatError> {
        self.ask(Pause { entry: name.to_owned(), paused: true }).await
    }

    /// Lets a paused entry fire again. The ticks of the pause are not made up for.
    ///
    /// # Errors
    /// There is no such entry, beat is off or does not answer, or the store failed.
    pub async fn resume(&self, name: &str) -> Result<(), BeatError> {
        self.ask(Pause { entry: name.to_owned(), paused: false }).await
    }

    /// Ends beat in this program for good and gives the lead back, so that another one's takes over at once. A shutdown does
    /// so by itself; before one it makes the change earlier.
    ///
    /// # Errors
    /// Beat is off or does not answer.
    pub async fn resign(&self) -> Result<(), BeatError> {
        let parts = self.parts.as_ref().ok_or(BeatError::Off)?;
        parts.resigned.store(true, std::sync::atomic::Ordering::Release);
        self.address()?.send(End).await.map_err(|_| BeatError::NotAnswering)
    }

    /// Calls an entry's task now, besides its schedule.
    ///
    /// # Errors
    /// There is no such entry, it fires for tenants, beat is off or does not answer, or the task was not accepted.
    pub async fn trigger(&self, name: &str) -> Result<Receipt, BeatError> {
        self.ask(Trigger(name.to_owned())).await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;
    use std::time::Duration;

    use crate::actors::queue::Die;
    use crate::core::calendar::{Misfire, Overlap, Schedule, tick_id};
    use crate::task::{Periodic, Task};
    use crate::{Celeriac, Context, task};

    static RAN: Mutex<Vec<String>> = Mutex::new(Vec::new());

    #[task(ignore_result)]
    async fn tick(ctx: Context) {
        RAN.lock().unwrap().push(ctx.id().to_string());
    }

    async fn until_ran(n: usize) {
        let start = std::time::Instant::now();
        while RAN.lock().unwrap().len() < n {
            assert!(start.elapsed() < Duration::from_secs(120), "it does not go on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn beat_that_dies_is_built_anew_and_goes_on_where_it_was() {
        let interval = Duration::from_millis(20);
        let entry = Periodic::new("mortal", tick::Task::NAME, Schedule::Every(interval))
            .misfire(Misfire::All { within: Duration::from_secs(3600) })
            .overlap(Overlap::Allow)
            .expires(Duration::from_secs(3600));
        let dir = tempfile::tempdir().unwrap();
        let celeriac = Celeriac::builder().directory(dir.path()).periodic(entry).start().await.unwrap();
        for death in 1..=3 {
            until_ran(death * 10).await;
            celeriac.beat().address().unwrap().do_send(Die);
        }
        until_ran(40).await;
        celeriac.shutdown().await.unwrap();
        let ran = RAN.lock().unwrap().clone();
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
