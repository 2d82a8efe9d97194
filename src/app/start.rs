//! The start of a runtime: the catalogue is read, the parts are put together, and the log says what there is now.

use std::path::Path;
#[cfg(unix)]
use std::path::PathBuf;

use super::builder::{Builder, Transport};
use super::handle::Celeriac;
use super::schedule;
use super::start_error::StartError;
use super::takeover::WaitingCalls;
use super::variables::{CATALOGUE, traced};
use crate::catalogue::{Catalogue, CatalogueErrors, Pool, QueueRow};
use crate::core::Timestamp;
use crate::task::clock::now;

/// The name that a catalogue has by custom.
const CUSTOMARY: &str = "celeriac.toml";
/// The number of ticks that are told at the start: the next ones.
const TICKS: usize = 3;
/// The variable by which the crate `blocking` is told how many threads it may have, and the number without it.
const THREADS: (&str, usize) = ("BLOCKING_MAX_THREADS", 500);

impl Builder {
    /// Starts the runtime on threads of its own, and makes it the one that `delay` uses.
    ///
    /// In a child of a process pool it does not start, and never returns: see
    /// [`serve_if_child`](Self::serve_if_child).
    ///
    /// # Errors
    /// The catalogue or the schedule has mistakes (all are told at once), two tasks or source pollers have one
    /// name, or the broker or a store does not open. An error about what a variable of [`from_env`](Self::from_env) names
    /// says so.
    pub async fn start(self) -> Result<Celeriac, StartError> {
        self.serve_if_child().await?.start_here().await
    }

    async fn start_here(self) -> Result<Celeriac, StartError> {
        // Before anything is waited for: calls that come from now on find it.
        let waiting = (!self.patience.is_zero() && !self.without_actors).then(WaitingCalls::open);
        let (in_force, place) = (self.variables_in_force(), self.place());
        #[cfg(unix)]
        let own = self.own_store();
        if !self.without_actors && self.file.is_none() && Path::new(CUSTOMARY).is_file() {
            tracing::info!(
                target: "celeriac",
                "the {CUSTOMARY} in the current directory is not read: `.catalogue_file(\"{CUSTOMARY}\")` reads it, or {CATALOGUE} with `Builder::from_env`"
            );
        }
        let celeriac = self.assemble().await.map_err(|error| traced(error, &in_force))?;
        if let Some(waiting) = waiting {
            waiting.answer(celeriac.client());
        }
        // A test's runtime has no actors, and a test has no use for this.
        if celeriac.inner.tree.lock().is_some() {
            celeriac.tell_what_started(&place);
            #[cfg(unix)]
            own.iter().for_each(|dir| celeriac.answer_locally(dir));
        }
        Ok(celeriac)
    }

    /// The directory of the embedded store for which the program answers, if it has one and runs its tasks.
    #[cfg(unix)]
    fn own_store(&self) -> Option<PathBuf> {
        match &self.keeping {
            Transport::Embedded(dir) if !self.client_only => Some(dir.clone()),
            _ => None,
        }
    }

    /// Where the tasks are, in a form that may be shown to anybody.
    fn place(&self) -> String {
        match &self.keeping {
            Transport::Embedded(dir) => dir.display().to_string(),
            Transport::Memory => "memory".to_owned(),
            #[cfg(feature = "amqp")]
            Transport::Amqp(url) => crate::core::address::shown(url),
            Transport::Given(broker, _) => broker.name().to_owned(),
        }
    }

    /// The catalogue of the file and of the code, for the environment.
    pub(super) fn read_catalogue(&self) -> Result<Catalogue, CatalogueErrors> {
        let mut catalogue = self.catalogue.clone();
        if let Some(file) = &self.file {
            let mut read = Catalogue::load(file)?;
            for row in catalogue.queues.drain(..) {
                read = read.with_queue(row);
            }
            for entry in catalogue.periodic.drain(..) {
                read = read.with_periodic(entry);
            }
            for row in catalogue.limits.drain(..) {
                read = read.with_limit(row);
            }
            catalogue = read;
        }
        for entry in &self.periodic {
            catalogue = catalogue.with_periodic(entry.clone());
        }
        // An environment that only a `#[periodic_task]` names is known, too. The catalogue says nothing about it.
        let environment = self.environment.as_ref().filter(|name| {
            catalogue.environments().any(|known| known == name.as_str()) || !schedule::names_environment(name)
        });
        if let Some(environment) = environment {
            catalogue = catalogue.for_environment(environment)?;
        }
        catalogue = catalogue.with_defaults(self.defaults.clone());
        catalogue.zone = self.zone.or(catalogue.zone);
        catalogue.validate()?;
        Ok(catalogue)
    }
}

impl Celeriac {
    /// One line for whoever wants to know what this program is, and a warning of what it lacks.
    fn tell_what_started(&self, place: &str) {
        let catalogue = self.inner.catalogue();
        let queues = catalogue.queues.iter().filter(|row| row.served);
        let queues = queues.map(|row| format!("{} ({} {})", row.name, row.pool.as_str(), row.workers));
        let queues = queues.collect::<Vec<_>>().join(", ");
        let tasks = self.inner.runtime.dispatcher.registry.names().len();
        let ticks = self.next_ticks(now()).join(", ");
        tracing::info!(target: "celeriac", version = env!("CARGO_PKG_VERSION"), place, queues, tasks, ticks, "started");
        let registry = &self.inner.runtime.dispatcher.registry;
        let blocks = |row: &QueueRow| self.inner.routing.runs_plain_fn(&row.name, registry);
        if let Some(text) = beyond(catalogue, threads(), blocks) {
            tracing::warn!(target: "celeriac", "{text}");
        }
        self.warn_of_vain_priorities();
    }

    /// The next ticks of the periodic entries here, the first ones first. Entries for tenants have no one time.
    fn next_ticks(&self, now: Timestamp) -> Vec<String> {
        let Some(beat) = self.inner.beat.get() else { return Vec::new() };
        let entries = beat.entries.iter().map(|(entry, _)| entry).filter(|entry| entry.tenants.is_none());
        let ticks = entries.filter_map(|entry| Some((entry.schedule.next_after(now)?, entry.name.as_str())));
        let mut ticks: Vec<_> = ticks.collect();
        ticks.sort_unstable();
        ticks.truncate(TICKS);
        ticks.into_iter().map(|(at, name)| format!("{name} at {at}")).collect()
    }
}

/// What is to be said if the queues of the pool `cpu` have more workers together than the process may have threads for
/// them. Which queues of the pool `io` run a plain `fn`, which takes a thread there as well, a catalogue alone does not
/// say; the start of a program knows.
#[cfg(feature = "cli")]
pub(crate) fn too_many_blocking_workers(catalogue: &Catalogue) -> Option<String> {
    beyond(catalogue, threads(), |_| false)
}

/// The most threads for blocking bodies in this process.
fn threads() -> usize {
    let (variable, default) = THREADS;
    let stated = std::env::var(variable).ok().and_then(|text| text.parse().ok());
    stated.map_or(default, |threads: usize| threads.clamp(1, 10_000))
}

/// What is to be said if so many threads are too few. `blocks` says of a queue of the pool `io` whether it runs a plain
/// `fn`.
fn beyond(catalogue: &Catalogue, threads: usize, blocks: impl Fn(&QueueRow) -> bool) -> Option<String> {
    let workers_of = |counts: &dyn Fn(&QueueRow) -> bool| {
        let rows = catalogue.queues.iter().filter(|row| row.served && counts(row));
        rows.fold(0_usize, |sum, row| sum.saturating_add(row.most_workers()))
    };
    let cpu = workers_of(&|row: &QueueRow| row.pool == Pool::Cpu);
    let io = workers_of(&|row: &QueueRow| row.pool == Pool::Io && blocks(row));
    let workers = cpu.saturating_add(io);
    let queues = match io {
        0 => "the queues of pool cpu".to_owned(),
        _ => "the queues of pool cpu, and those of pool io that run a plain `fn`,".to_owned(),
    };
    (workers > threads).then(|| {
        format!(
            "{queues} have {workers} workers together, and a process has at most {threads} threads for them: the rest of the workers hold tasks that do not begin; lower workers, set {} in the environment (10000 at most), or set pool = \"process\", whose bodies take none of these threads",
            THREADS.0
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_blocking_workers_than_threads_are_told() {
        let row = |name: &str, workers| QueueRow::new(name).with_workers(workers);
        let catalogue = Catalogue::new().with_queue(row("a", 300)).with_queue(row("b", 200));
        let beyond = |catalogue: &Catalogue| beyond(catalogue, 500, |row| row.name == "plain");
        assert_eq!(beyond(&catalogue), None, "all of them have a thread");
        let others = catalogue
            .clone()
            .with_queue(row("io", 1000).with_pool(Pool::Io))
            .with_queue(row("processes", 1000).with_pool(Pool::Process))
            .with_queue(row("elsewhere", 1000).with_served(false));
        assert_eq!(beyond(&others), None, "these need no thread here");
        let text = beyond(&others.with_queue(row("plain", 1).with_pool(Pool::Io))).expect("one too many");
        assert!(text.contains("those of pool io that run a plain `fn`, have 501 workers"), "{text}");
        let text = beyond(&catalogue.with_queue(row("c", 1))).expect("one too many");
        assert!(text.contains("501 workers") && text.contains("at most 500 threads"), "{text}");
        assert!(text.contains("BLOCKING_MAX_THREADS"), "{text}");
    }
}
