//! A file that a task makes for its user.
//!
//! The body hands over the bytes while it runs, and the store of downloads keeps them under a key of this one run,
//! where nobody sees them. The task's record makes them a download: it names the key, and it is written in the commit
//! that says SUCCESS. So *ready* means that the file exists, and a run that failed, died or came too late leaves
//! nothing visible.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{Context, State, TaskId, TaskResult};
use crate::core::Timestamp;

/// A file to offer: the source of its bytes, and the facts that the body states about it.
///
/// ```
/// use celeriac::soil::Download;
/// let download = Download::from_bytes("name,age\nAmina,31\n")
///     .name("people.csv")
///     .owner("user-42")
///     .expires_in(std::time::Duration::from_secs(3600));
/// # let _ = download;
/// ```
#[must_use = "it is offered by `ctx.expose_download(…)`"]
pub struct Download {
    pub(crate) source: DownloadSource,
    pub(crate) about: About,
}

/// The source of a download's bytes.
pub(crate) enum DownloadSource {
    Bytes(Bytes),
    File(PathBuf),
    Reader(Box<dyn io::Read + Send>),
    Stream(ByteStream),
    ZippedDirectory(PathBuf),
}

pub(crate) type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// The facts that a body states about a download.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) name: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) owners: Vec<String>,
    pub(crate) expires_in: Option<Duration>,
}

/// The facts about a download that its user sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DownloadFacts {
    /// The file's name. It is never a path and has no control characters.
    pub name: String,
    /// The media type of the file.
    pub content_type: String,
    /// The file's size in bytes.
    pub size: u64,
    /// The quoted, strong ETag of HTTP. It changes whenever the bytes do.
    pub etag: String,
    /// The time at which the file became ready.
    pub created: Timestamp,
    /// The time at which the file expires, together with the record of its task.
    pub expires_at: Timestamp,
    /// Further headers of the HTTP response.
    pub headers: Vec<(String, String)>,
    /// The users who may have the file, in the application's words. If the list is empty, everybody who knows the id
    /// may have it.
    pub owners: Vec<String>,
}

/// A download as the record of its task keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadRecord {
    /// The facts that the user sees.
    pub facts: DownloadFacts,
    /// The key under which the bytes are kept.
    pub key: String,
}

/// The reason why a download was not accepted, or cannot be read.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The text cannot be the name of a file.
    #[error("`{name}` cannot be the name of a download: {reason}")]
    Name {
        /// The name that was given.
        name: String,
        /// What is wrong with the name.
        reason: &'static str,
    },
    /// The header cannot be sent like this.
    #[error("the header `{name}` of a download is not allowed: {reason}")]
    Header {
        /// The header's name.
        name: String,
        /// What is wrong with the header.
        reason: &'static str,
    },
    /// The source of the bytes could not be read.
    #[error("the bytes of download `{name}` could not be read: {error}")]
    Source {
        /// The file's name.
        name: String,
        /// The error of the source.
        error: io::Error,
    },
    /// The store of downloads has no room for the file.
    #[error("there is no room for download `{name}`: {error}; nothing of it was kept")]
    Full {
        /// The file's name.
        name: String,
        /// The error of the store.
        error: String,
    },
    /// The store of downloads failed.
    #[error("the store of downloads failed with `{name}`: {error}")]
    Store {
        /// The file's name or its id.
        name: String,
        /// The error of the store.
        error: String,
    },
    /// The program has no place for downloads.
    #[error(
        "this program has no place for downloads: call `downloads_in(directory)` or `download_store(…)` on the builder"
    )]
    NoPlace,
    /// There is no download of this id, or it has expired.
    #[error("there is no download of id `{0}`, or it has expired")]
    Missing(TaskId),
    /// The range begins outside of the file.
    #[error("the range begins at byte {start}, and the file has {size}")]
    Range {
        /// The first byte that was asked for.
        start: u64,
        /// The file's size in bytes.
        size: u64,
    },
}

crate::core::debug_as_display!(DownloadError);

impl Download {
    fn new(source: DownloadSource) -> Self {
        Self { source, about: About::default() }
    }

    /// Makes a download from bytes in memory.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self::new(DownloadSource::Bytes(bytes.into()))
    }

    /// Makes a download from a file, which is copied. The download has the name of that file, unless
    /// [`name`](Self::name) gives another.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let download = Self::new(DownloadSource::File(path));
        Self { about: About { name, ..About::default() }, ..download }
    }

    /// Makes a download from a reader, which is read to its end on a thread of its own.
    pub fn from_reader(reader: impl io::Read + Send + 'static) -> Self {
        Self::new(DownloadSource::Reader(Box::new(reader)))
    }

    /// Makes a download from a stream, which is read to its end. Only some chunks of it are in memory at a time. An
    /// error of the stream fails the download.
    pub fn from_stream(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self::new(DownloadSource::Stream(Box::pin(stream)))
    }

    /// Makes a download from all files of a directory, as a ZIP archive that is written while it is kept. Links are
    /// left out.
    pub fn from_dir_zipped(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        let name = directory.file_name().map(|name| format!("{}.zip", name.to_string_lossy()));
        let download = Self::new(DownloadSource::ZippedDirectory(directory));
        Self { about: About { name, ..About::default() }, ..download }
    }

    /// Sets the name under which the user saves the file. A name with path separators or control characters is refused.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.about.name = Some(name.into());
        self
    }

    /// Sets the media type. By default it is guessed from the extension of the name.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.about.content_type = Some(content_type.into());
        self
    }

    /// Adds one more header to the HTTP response: HQ's `extras`.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.about.headers.push((name.into(), value.into()));
        self
    }

    /// Adds a user who may have the file, in the application's words: HQ's `owner_ids`. The application decides which
    /// user makes a request. Without any owner, everybody who knows the id may have the file.
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.about.owners.push(owner.into());
        self
    }

    /// Sets how long the file can be had from the moment it is ready. The record of its task expires at the same time.
    /// The default is the time for which the task's result is kept, a day.
    pub fn expires_in(mut self, expiry: Duration) -> Self {
        self.about.expires_in = Some(expiry);
        self
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Download").field(&self.about).finish()
    }
}

/// A payload that is kept, but is no download yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeptPayload {
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) content_type: String,
    pub(crate) size: u64,
    pub(crate) etag: String,
    pub(crate) about: About,
}

impl KeptPayload {
    /// Makes the record of the download that the payload becomes.
    pub(crate) fn into_record(self, created: Timestamp, expires_at: Timestamp) -> DownloadRecord {
        let About { headers, owners, .. } = self.about;
        let (name, content_type, size, etag) = (self.name, self.content_type, self.size, self.etag);
        let facts = DownloadFacts { name, content_type, size, etag, created, expires_at, headers, owners };
        DownloadRecord { facts, key: self.key }
    }
}

pub(crate) type KeepPayload<'a> =
    Pin<Box<dyn Future<Output = Result<KeptPayload, DownloadError>> + Send + 'a>>;

/// Keeps payloads.
pub(crate) trait DownloadSink: Send + Sync {
    /// Keeps the payload of a run, and protects it from sweeping until it is [released](Self::release).
    fn keep<'a>(&'a self, id: &'a TaskId, download: Download) -> KeepPayload<'a>;

    /// Does the same as [`keep`](Self::keep), on a thread that may block and has no event loop.
    fn keep_blocking(&self, id: &TaskId, download: Download) -> Result<KeptPayload, DownloadError>;

    /// Ends the protection of a payload, because its run is settled. If no record names the payload, it may be swept.
    fn release(&self, key: &str);

    /// Deletes a payload that nobody will see, in the background and if it can.
    fn discard(&self, key: String);
}

/// The payload that a run has exposed so far.
#[derive(Default)]
pub(crate) struct Exposed {
    /// Whether the run has ever exposed one: most runs never do, and nobody takes the lock for them.
    any: AtomicBool,
    payload: Mutex<Option<KeptPayload>>,
}

impl Exposed {
    fn put(&self, kept: KeptPayload) -> Option<KeptPayload> {
        self.any.store(true, Ordering::Release);
        self.payload.lock().replace(kept)
    }

    fn take(&self) -> Option<KeptPayload> {
        if self.any.load(Ordering::Acquire) { self.payload.lock().take() } else { None }
    }

    fn get(&self) -> Option<KeptPayload> {
        if self.any.load(Ordering::Acquire) { self.payload.lock().clone() } else { None }
    }

    fn is_there(&self) -> bool {
        self.any.load(Ordering::Acquire) && self.payload.lock().is_some()
    }
}

impl Context {
    /// Offers a file under the id of this task. The file is kept now, and the user can have it as soon as the task has
    /// succeeded: the same commit says both, so *ready* means that the file exists. If the run fails, dies, or is not
    /// the one that counts, nobody sees the file. The bytes are streamed and not held in memory.
    ///
    /// A run has one download: a second one takes the place of the first. If the run ends by continuing, its download
    /// is dropped; the run that succeeds has to expose one.
    ///
    /// # Errors
    /// The file could not be kept, and nothing of it was. A body that returns this error with `?` fails the attempt.
    ///
    /// ```
    /// use celeriac::soil::Download;
    /// use celeriac::{Context, TaskError, task};
    ///
    /// #[task]
    /// async fn export(ctx: Context, rows: u64) -> Result<(), TaskError> {
    ///     let mut csv = String::from("row\n");
    ///     for row in 0..rows {
    ///         csv += &format!("{row}\n");
    ///         ctx.progress(row + 1, rows);
    ///     }
    ///     ctx.expose_download(Download::from_bytes(csv).name("rows.csv")).await?;
    ///     Ok(())
    /// }
    /// ```
    pub async fn expose_download(&self, download: Download) -> Result<(), DownloadError> {
        let Some(sink) = self.downloads() else { return Ok(()) };
        let kept = sink.keep(self.id(), download).await?;
        self.put_out(&**sink, kept);
        Ok(())
    }

    /// Does the same as [`expose_download`](Self::expose_download), for bodies that are a plain `fn`. It blocks until
    /// the file is kept.
    ///
    /// # Errors
    /// The file could not be kept, and nothing of it was.
    pub fn expose_download_blocking(&self, download: Download) -> Result<(), DownloadError> {
        let Some(sink) = self.downloads() else { return Ok(()) };
        let kept = sink.keep_blocking(self.id(), download)?;
        self.put_out(&**sink, kept);
        Ok(())
    }

    /// The store for the download. There is none for a body that was called directly, or that has failed.
    fn downloads(&self) -> Option<&Arc<dyn DownloadSink>> {
        self.download_sink().filter(|_| self.failure().is_none())
    }

    fn put_out(&self, sink: &dyn DownloadSink, kept: KeptPayload) {
        if let Some(before) = self.exposed().put(kept) {
            sink.release(&before.key);
            sink.discard(before.key);
        }
    }

    /// Puts the run's download into the record of its end, if that end is a success.
    pub(crate) fn promote_download(&self, record: &mut TaskResult) {
        if record.state != State::Success {
            return;
        }
        if let Some(kept) = self.exposed().get() {
            if let Some(expiry) = kept.about.expires_in {
                record.expires_at = record.finished_at + expiry;
            }
            record.download = Some(Box::new(kept.into_record(record.finished_at, record.expires_at)));
        }
    }

    /// Releases the run's download when the run is settled. Without `seen` no record names the download, and it is
    /// deleted.
    pub(crate) fn release_download(&self, seen: bool) {
        if let Some(kept) = self.exposed().take()
            && let Some(sink) = self.download_sink()
        {
            sink.release(&kept.key);
            if !seen {
                sink.discard(kept.key);
            }
        }
    }

    /// Whether the run has exposed a download.
    pub(crate) fn has_exposed(&self) -> bool {
        self.exposed().is_there()
    }
}
