//! The handle of Soil. It reads a status, opens a download and stores a file.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::poll_interval::poll_interval;
use super::{DownloadBody, QueueSummary, SoilState, StartsBetween, Status, StatusCache, WhyWaiting};
use crate::actors::QueueStatus;
use crate::broker::BrokerError;
use crate::runtime::Runtime;
use crate::runtime::task_location::TaskLocation;
use crate::store::StoreError;
use crate::task::clock::now;
use crate::task::{
    Client, Download, DownloadError, DownloadFacts, DownloadRecord, DownloadSink, State, TaskId, TaskResult,
    TrackedState, read_progress,
};

/// The task name in the records of files that no task made.
const CACHED: &str = "celeriac.soil.cached_download";

/// The places in line are counted for this many tasks of one round, because counting costs more the longer the line is.
pub(super) const PLACES: usize = 100;

/// The state that several looks of one round share, so that the round finds out once what is expensive to find out.
#[derive(Default)]
pub(super) struct LookRound {
    pub(super) counted: usize,
    pub(super) queues: HashMap<String, Option<QueueSummary>>,
}

/// The functions that Soil needs from the program that it runs in.
#[async_trait]
pub(crate) trait SoilHost: Client {
    fn runtime(&self) -> &Arc<Runtime>;

    /// Finds a task that is not over. It answers `None` if nobody here has the task. With `count` it also counts the
    /// task's place in line, which costs more the longer the line is.
    async fn locate(&self, id: &TaskId, count: bool) -> Result<Option<TaskLocation>, BrokerError>;

    /// The status of a queue that this program serves.
    async fn queue_status(&self, name: &str) -> Option<QueueStatus>;
}

/// The error of a question to Soil that got no answer.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SoilError {
    /// The broker could not be asked.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store of downloads could not be asked, and this text says why.
    #[error("{0}")]
    Downloads(String),
}

crate::core::debug_as_display!(SoilError);

impl From<DownloadError> for SoilError {
    fn from(error: DownloadError) -> Self {
        Self::Downloads(error.to_string())
    }
}

/// A handle to the progress and the downloads of one runtime. [`Celeriac::soil`](crate::Celeriac::soil) makes it, and a
/// clone is cheap.
#[derive(Clone)]
pub struct Soil {
    pub(super) host: Arc<dyn SoilHost>,
    separator: Arc<str>,
    pub(super) status_cache: Arc<StatusCache>,
}

/// A download that is open for reading.
#[non_exhaustive]
pub struct OpenDownload {
    /// The name, type, size and owners of the file.
    pub facts: DownloadFacts,
    /// The range of bytes that `body` yields; the end is excluded.
    pub range: Range<u64>,
    /// The bytes of `range`, as a stream.
    pub body: DownloadBody,
}

impl Soil {
    pub(crate) fn new(host: Arc<dyn SoilHost>, status_cache: Arc<StatusCache>) -> Self {
        Self { host, separator: "\t".into(), status_cache }
    }

    /// Sets the separator at which one error text is split into several errors. Tasks written for HQ join their errors
    /// with a TAB, which is the default. An empty separator splits nothing.
    #[must_use]
    pub fn with_error_separator(mut self, separator: &str) -> Self {
        self.separator = separator.into();
        self
    }

    pub(super) fn runtime(&self) -> &Arc<Runtime> {
        self.host.runtime()
    }

    /// The status of a task now. For a task that is not over, the answer may be up to 100 ms old. An id that nobody
    /// knows gets an answer too: [`SoilState::Missing`]. A broker such as RabbitMQ does not know which tasks wait in
    /// it; over such a broker an unknown id is [`SoilState::NotStarted`], as Celery answers PENDING.
    ///
    /// # Errors
    /// The broker or the store could not be asked.
    pub async fn status(&self, id: &TaskId) -> Result<Status, SoilError> {
        self.status_in(id, &mut LookRound::default()).await
    }

    /// Does the same as [`status`](Self::status), as one look of a round of several.
    pub(super) async fn status_in(&self, id: &TaskId, round: &mut LookRound) -> Result<Status, SoilError> {
        let runtime = self.runtime();
        if let Some(record) = runtime.store.get(id, now()).await? {
            return Ok(Status::over(record, &self.separator));
        }
        // Thousands of pages may ask for the same task at the same time; only one of them has to ask the broker.
        if let Some(status) = self.status_cache.recent(id) {
            return Ok(status);
        }
        self.look_in(id, round).await
    }

    /// Looks up the status without using what another caller saw a moment ago.
    pub(super) async fn look(&self, id: &TaskId) -> Result<Status, SoilError> {
        self.look_in(id, &mut LookRound::default()).await
    }

    async fn look_in(&self, id: &TaskId, round: &mut LookRound) -> Result<Status, SoilError> {
        let runtime = self.runtime();
        let counts = round.counted < PLACES;
        // Counting a place costs the more the longer the line is, so a round does it for some tasks only.
        let place = self.host.locate(id, counts).await?;
        round.counted += usize::from(place.as_ref().is_some_and(|place| place.place.is_some()));
        // A run in this process has a newer bar than the store, so the board is asked first.
        let shown = match runtime.progress_hub.shown(id).await {
            Some(shown) => Some(shown),
            None => runtime.store.tracked(id).await?,
        };
        if shown.is_none() {
            // The task may have ended between the two looks, and its bar has gone with it.
            if let Some(record) = runtime.store.get(id, now()).await? {
                return Ok(Status::over(record, &self.separator));
            }
            if place.is_none() {
                return self.nowhere(id).await;
            }
        }
        let status = self.underway(id, place, shown, round).await;
        if counts {
            self.status_cache.seen(&status);
        }
        Ok(status)
    }

    async fn nowhere(&self, id: &TaskId) -> Result<Status, SoilError> {
        let gone = self.runtime().payloads.is_gone(id).await?;
        if !gone && !self.runtime().broker.facts().knows_all {
            let mut status = Status::new(id.clone(), SoilState::NotStarted);
            status.next_poll_ms = Some(poll_interval(SoilState::NotStarted, None));
            return Ok(status);
        }
        let mut status = Status::new(id.clone(), SoilState::Missing);
        status.gone = gone;
        Ok(status)
    }

    async fn underway(
        &self,
        id: &TaskId,
        place: Option<TaskLocation>,
        shown: Option<TrackedState>,
        round: &mut LookRound,
    ) -> Status {
        let is_pending = |shown: &TrackedState| matches!(shown.state.as_str(), "PENDING" | "RECEIVED");
        let has_begun = place.as_ref().is_some_and(|place| place.has_begun)
            || shown.as_ref().is_some_and(|shown| !is_pending(shown));
        let state = if has_begun { SoilState::Started } else { SoilState::NotStarted };
        let mut status = Status::new(id.clone(), state);
        if let Some(shown) = &shown {
            (status.progress, status.note) = read_progress(&shown.meta);
        }
        if let Some(place) = place {
            status.line = match round.queues.get(&place.queue) {
                Some(known) => known.clone(),
                None => {
                    let queue = self.host.queue_status(&place.queue).await;
                    let facts = queue.as_ref().map(QueueSummary::of);
                    round.queues.insert(place.queue.clone(), facts.clone());
                    facts
                }
            };
            status.place = place.place.filter(|_| !place.is_running);
            status.why = WhyWaiting::of(&place, status.line.as_ref());
            if matches!(status.why, None | Some(WhyWaiting::Busy)) {
                let starts = place.starts.as_ref();
                status.starts_between = starts.and_then(|starts| StartsBetween::of(starts, now()));
            }
            (status.task, status.queue) = (Some(place.task), Some(place.queue));
        }
        status.next_poll_ms = Some(poll_interval(status.state, status.place));
        status
    }

    /// The name, type, size and owners of a file that is ready.
    ///
    /// # Errors
    /// There is no such file, or it has expired.
    pub async fn download(&self, id: &TaskId) -> Result<DownloadFacts, DownloadError> {
        Ok(self.record(id).await?.facts)
    }

    async fn record(&self, id: &TaskId) -> Result<DownloadRecord, DownloadError> {
        let failed =
            |error: StoreError| DownloadError::Store { name: id.to_string(), error: error.to_string() };
        let record = self.runtime().store.get(id, now()).await.map_err(failed)?;
        let download = record.and_then(|record| record.download);
        download.map(|download| *download).ok_or_else(|| DownloadError::Missing(id.clone()))
    }

    /// Opens a file that is ready, or the `range` of its bytes. A range that ends beyond the end of the file stops
    /// there. The bytes are streamed and not held in memory. The caller decides who may read the file;
    /// [`DownloadFacts::owners`] says who it was made for.
    ///
    /// # Errors
    /// There is no such file or it has expired, the range begins at or beyond its end, or its bytes cannot be read.
    pub async fn open(&self, id: &TaskId, range: Option<Range<u64>>) -> Result<OpenDownload, DownloadError> {
        let record = self.record(id).await?;
        let size = record.facts.size;
        let range = range.map(|range| range.start..range.end.min(size));
        if let Some(range) = &range
            && range.start >= size
        {
            return Err(DownloadError::Range { start: range.start, size });
        }
        let body = self.runtime().payloads.read(&record, range.clone()).await?;
        Ok(OpenDownload { facts: record.facts, range: range.unwrap_or(0..size), body })
    }

    /// The name of a file below the directory of downloads. `None`: its bytes are not in a file of this machine.
    #[cfg(feature = "web")]
    pub(crate) async fn file_on_disk(&self, id: &TaskId) -> Result<Option<String>, DownloadError> {
        let key = self.record(id).await?.key;
        let Some(path) = self.runtime().payloads.path_of_payload(&key) else { return Ok(None) };
        let is_there = blocking::unblock(move || path.is_file()).await;
        Ok(is_there.then_some(key))
    }

    /// Stores a file that no task made, for the time `expiry`, and answers with its id, which nobody can guess. The
    /// file is called `download` with the given extension. It is HQ's `expose_cached_download(payload, expiry,
    /// file_extension)`.
    ///
    /// # Errors
    /// The file could not be stored.
    pub async fn expose_cached_download(
        &self,
        payload: impl Into<Bytes>,
        expiry: Duration,
        file_extension: &str,
    ) -> Result<TaskId, DownloadError> {
        let extension = file_extension.trim_start_matches('.');
        let name = if extension.is_empty() { "download".to_owned() } else { format!("download.{extension}") };
        self.expose(Download::from_bytes(payload).name(name).expires_in(expiry)).await
    }

    /// Stores a file that no task made, and answers with its id, which nobody can guess. The file is kept for a day,
    /// unless `download` states another time.
    ///
    /// # Errors
    /// The file could not be stored.
    pub async fn expose(&self, download: Download) -> Result<TaskId, DownloadError> {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let runtime = self.runtime();
        let id = TaskId::from(format!("dl-{:032x}", rand::random::<u128>()));
        let kept = runtime.payloads.keep(&id, download).await?;
        let (key, created) = (kept.key.clone(), now());
        let expires_at = created + kept.about.expires_in.unwrap_or(DAY);
        let record = TaskResult {
            result: Some("null".to_owned()),
            download: Some(Box::new(kept.into_record(created, expires_at))),
            ..TaskResult::new(id.clone(), CACHED, State::Success, created, expires_at)
        };
        let put = runtime.store.put(record).await;
        runtime.payloads.release(&key);
        put.map_err(|error| DownloadError::Store { name: id.to_string(), error: error.to_string() })?;
        Ok(id)
    }

    /// Revokes the task of a download: takes the task out of its queue, or tells its run to end. The answer is `false`
    /// if the task is over or nobody has it.
    ///
    /// # Errors
    /// The broker or the store could not be asked.
    pub async fn cancel(&self, id: &TaskId) -> Result<bool, SoilError> {
        let revoked = self.host.revoke(id, true).await;
        revoked.map_err(|error| SoilError::Store(StoreError::io_because(error.to_string(), error)))
    }

    /// Forgets the record of a download and deletes its file. The answer is `false` if there was no record.
    ///
    /// # Errors
    /// The store could not be written, or the file could not be deleted.
    pub async fn forget(&self, id: &TaskId) -> Result<bool, SoilError> {
        let forgotten = self.runtime().store.forget(id).await?;
        if forgotten {
            self.runtime().sweep_payloads().await?;
        }
        Ok(forgotten)
    }
}

impl std::fmt::Debug for Soil {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Soil").field("separator", &self.separator).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for OpenDownload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenDownload")
            .field("facts", &self.facts)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}
