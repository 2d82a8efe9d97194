//! The handle: ask for a status, open a file, put one there.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Body, Place, QueueFacts, Sights, SoilState, Status};
use crate::actors::QueueStatus;
use crate::actors::runtime::Runtime;
use crate::broker::BrokerError;
use crate::store::StoreError;
use crate::task::clock::now;
use crate::task::{
    Client, Download, DownloadError, DownloadFacts, DownloadRecord, DownloadSink, State, TaskId, TaskResult,
    TrackedState, read_progress,
};

/// How soon to ask again for what runs, for what waits, and for what waits far behind.
const RUNNING: u64 = 1_000;
const WAITING: u64 = 2_000;
const FAR: u64 = 5_000;
const FAR_BEHIND: u64 = 100;

/// The name under which files are recorded that no task made.
const CACHED: &str = "celeriac.soil.cached_download";

/// What Soil needs of the program that it is in.
#[async_trait]
pub(crate) trait Premises: Client {
    fn runtime(&self) -> &Arc<Runtime>;

    /// Where a task is that is not over; `None`: nobody here has it.
    async fn locate(&self, id: &TaskId) -> Result<Option<Whereabouts>, BrokerError>;

    /// A queue that is served here.
    async fn queue_status(&self, name: &str) -> Option<QueueStatus>;
}

/// Where a task is that is not over.
#[derive(Clone, Debug)]
pub(crate) struct Whereabouts {
    pub(crate) task: String,
    pub(crate) queue: String,
    /// A run of it has begun, now or before.
    pub(crate) has_begun: bool,
    pub(crate) is_running: bool,
    pub(crate) place: Option<Place>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SoilError {
    /// The broker could not be asked.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store of downloads could not be asked.
    #[error("{0}")]
    Downloads(String),
}

impl From<DownloadError> for SoilError {
    fn from(error: DownloadError) -> Self {
        Self::Downloads(error.to_string())
    }
}

/// Progress and downloads of one runtime; [`Celeriac::soil`](crate::Celeriac::soil) makes one. Cheap to clone.
#[derive(Clone)]
pub struct Soil {
    pub(super) premises: Arc<dyn Premises>,
    separator: Arc<str>,
    sights: Arc<Sights>,
}

/// A download that is open for reading.
#[non_exhaustive]
pub struct OpenDownload {
    /// What is known of the file.
    pub facts: DownloadFacts,
    /// Which of its bytes come, the end excluded.
    pub range: Range<u64>,
    /// They.
    pub body: Body,
}

impl Soil {
    pub(crate) fn new(premises: Arc<dyn Premises>, sights: Arc<Sights>) -> Self {
        Self { premises, separator: "\t".into(), sights }
    }

    /// Tasks written for HQ join several errors with a separator, which is taken apart here. By default a TAB; empty: none.
    #[must_use]
    pub fn with_error_separator(mut self, separator: &str) -> Self {
        self.separator = separator.into();
        self
    }

    pub(super) fn runtime(&self) -> &Arc<Runtime> {
        self.premises.runtime()
    }

    /// What is seen of a task now; of one that is not over, what was seen within the last 100 ms. An id that nobody knows is an answer too: [`SoilState::Missing`]. Over a broker that does not
    /// know what waits in it (RabbitMQ), such an id is NotStarted, as Celery says PENDING.
    ///
    /// # Errors
    /// The broker or the store could not be asked.
    pub async fn status(&self, id: &TaskId) -> Result<Status, SoilError> {
        let runtime = self.runtime();
        if let Some(record) = runtime.store.get(id, now()).await? {
            return Ok(Status::over(record, &self.separator));
        }
        // Of thousands who ask for the same at the same time, one asks the broker.
        if let Some(status) = self.sights.recent(id) {
            return Ok(status);
        }
        self.look(id).await
    }

    /// The status as it is at this moment.
    pub(super) async fn look(&self, id: &TaskId) -> Result<Status, SoilError> {
        let runtime = self.runtime();
        let place = self.premises.locate(id).await?;
        let shown = match runtime.board.progress(id).await {
            Some(shown) => Some(shown),
            None => runtime.store.tracked(id).await?,
        };
        if shown.is_none() {
            // It may have ended between the looks, and its bar gone with it.
            if let Some(record) = runtime.store.get(id, now()).await? {
                return Ok(Status::over(record, &self.separator));
            }
            if place.is_none() {
                return self.nowhere(id).await;
            }
        }
        let status = self.underway(id, place, shown).await;
        self.sights.seen(&status);
        Ok(status)
    }

    async fn nowhere(&self, id: &TaskId) -> Result<Status, SoilError> {
        let gone = self.runtime().payloads.is_gone(id).await?;
        if !gone && !self.runtime().broker.knows_all() {
            let mut status = Status::new(id.clone(), SoilState::NotStarted);
            status.next_poll_ms = Some(WAITING);
            return Ok(status);
        }
        let mut status = Status::new(id.clone(), SoilState::Missing);
        status.gone = gone;
        Ok(status)
    }

    async fn underway(&self, id: &TaskId, place: Option<Whereabouts>, shown: Option<TrackedState>) -> Status {
        let is_pending = |shown: &TrackedState| matches!(shown.state.as_str(), "PENDING" | "RECEIVED");
        let has_begun = place.as_ref().is_some_and(|place| place.has_begun)
            || shown.as_ref().is_some_and(|shown| !is_pending(shown));
        let state = if has_begun { SoilState::Started } else { SoilState::NotStarted };
        let mut status = Status::new(id.clone(), state);
        if let Some(shown) = &shown {
            (status.progress, status.note) = read_progress(&shown.meta);
        }
        if let Some(place) = place {
            let queue = self.premises.queue_status(&place.queue).await;
            status.line = queue.as_ref().map(QueueFacts::of);
            status.place = place.place.filter(|_| !place.is_running);
            (status.task, status.queue) = (Some(place.task), Some(place.queue));
        }
        let far = status.place.is_some_and(|place| place.ahead > FAR_BEHIND);
        status.next_poll_ms = Some(match status.state {
            SoilState::Started => RUNNING,
            _ if far => FAR,
            _ => WAITING,
        });
        status
    }

    /// What is known of a file that is ready.
    ///
    /// # Errors
    /// There is none, or none any more.
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

    /// Opens a file that is ready, or `range` of its bytes; a range that ends behind the file ends with it. The bytes flow through;
    /// they are not held in memory. Whether somebody may have it is for the caller to find out: [`DownloadFacts::owners`].
    ///
    /// # Errors
    /// There is none, or none any more; the range begins behind its end; its bytes cannot be read.
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

    /// Puts a file there that no task made, for so long; answers with its id, which nobody can guess. HQ's
    /// `expose_cached_download(payload, expiry, file_extension)`. The file is called `download` with that extension.
    ///
    /// # Errors
    /// It could not be kept.
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

    /// Puts a file there that no task made; answers with its id, which nobody can guess. It is kept for a day, unless it says
    /// otherwise.
    ///
    /// # Errors
    /// It could not be kept.
    pub async fn expose(&self, download: Download) -> Result<TaskId, DownloadError> {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let runtime = self.runtime();
        let id = TaskId::from(format!("dl-{:032x}", rand::random::<u128>()));
        let kept = runtime.payloads.keep(&id, download).await?;
        let (key, created) = (kept.key.clone(), now());
        let expires_at = created + kept.about.expires_in.unwrap_or(DAY);
        let record = TaskResult {
            id: id.clone(),
            task: CACHED.to_owned(),
            queue: String::new(),
            state: State::Success,
            result: Some("null".to_owned()),
            errors: Vec::new(),
            error_type: None,
            error_module: None,
            traceback: None,
            attempts: 0,
            enqueued_at: created,
            started_at: None,
            finished_at: created,
            worker: None,
            expires_at,
            lineage: None,
            download: Some(Box::new(kept.into_record(created, expires_at))),
        };
        let put = runtime.store.put(record).await;
        runtime.payloads.release(&key);
        put.map_err(|error| DownloadError::Store { name: id.to_string(), error: error.to_string() })?;
        Ok(id)
    }

    /// Revokes the task of a download: takes it out of its queue, or has its run end. `false`: it is over, or nobody has it.
    ///
    /// # Errors
    /// The broker or the store could not be asked.
    pub async fn cancel(&self, id: &TaskId) -> Result<bool, SoilError> {
        let revoked = self.premises.revoke(id, true).await;
        revoked.map_err(|error| SoilError::Store(StoreError::Io(error.to_string())))
    }

    /// Forgets a download, and deletes its file.
    ///
    /// # Errors
    /// The store could not be written.
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
