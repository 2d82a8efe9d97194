//! A file that a task makes for its user.
//!
//! The body hands the bytes over while it runs; they are kept under a key of this one run, where nobody sees them. What
//! makes them a download is the record of the task: it names the key, and is written in the commit that says SUCCESS. So
//! *ready* means that the file is there, and a run that failed, died or came too late leaves nothing that could be seen.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use serde::{Deserialize, Serialize};

use super::{Context, State, TaskId, TaskResult};
use crate::core::Timestamp;

/// A file to be offered: where its bytes come from, and what is said of it.
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
    pub(crate) source: Source,
    pub(crate) about: About,
}

/// Where the bytes of a download come from.
pub(crate) enum Source {
    Bytes(Bytes),
    File(PathBuf),
    Reader(Box<dyn io::Read + Send>),
    Stream(ByteStream),
    ZippedDirectory(PathBuf),
}

pub(crate) type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// What is said of a download.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct About {
    pub(crate) name: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) owners: Vec<String>,
    pub(crate) expires_in: Option<Duration>,
}

/// A download as its user sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DownloadFacts {
    /// The file's name; never a path, never with control characters.
    pub name: String,
    /// Its media type.
    pub content_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// Changes whenever the bytes do: the quoted, strong ETag of HTTP.
    pub etag: String,
    /// When it became ready.
    pub created: Timestamp,
    /// When it goes, the record of its task with it.
    pub expires_at: Timestamp,
    /// More headers for its response.
    pub headers: Vec<(String, String)>,
    /// Who may have it, in the application's words; nobody named: whoever knows the id.
    pub owners: Vec<String>,
}

/// A download in the record of its task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadRecord {
    /// What its user sees.
    pub facts: DownloadFacts,
    /// Where its bytes are kept.
    pub key: String,
}

/// Why a download was not taken, or cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The file's name is none.
    #[error("`{name}` cannot be the name of a download: {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A header cannot be sent like this.
    #[error("the header `{name}` of a download is not allowed: {reason}")]
    Header {
        /// The header's name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nothing to read from.
    #[error("the bytes of download `{name}` could not be read: {error}")]
    Source {
        /// The file's name.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// No room.
    #[error("there is no room for download `{name}`: {error}; nothing of it was kept")]
    Full {
        /// The file's name.
        name: String,
        /// What the store said.
        error: String,
    },
    /// The store of downloads failed.
    #[error("the store of downloads failed with `{name}`: {error}")]
    Store {
        /// The file's name, or its id.
        name: String,
        /// What it said.
        error: String,
    },
    /// The program has no place for downloads.
    #[error(
        "this program has no place for downloads: call `downloads_in(directory)` or `download_store(…)` on the builder"
    )]
    NoPlace,
    /// There is none of this id, or none any more.
    #[error("there is no download of id `{0}`, or it has expired")]
    Missing(TaskId),
    /// The range lies outside of the file.
    #[error("the range begins at byte {start}, and the file has {size}")]
    Range {
        /// The first byte asked for.
        start: u64,
        /// The file's size in bytes.
        size: u64,
    },
}

impl Download {
    fn new(source: Source) -> Self {
        Self { source, about: About::default() }
    }

    /// From bytes in memory.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self::new(Source::Bytes(bytes.into()))
    }

    /// From a file, which is copied; its name is the download's, unless another is given.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let download = Self::new(Source::File(path));
        Self { about: About { name, ..About::default() }, ..download }
    }

    /// From what is read, up to its end, on a thread of its own.
    pub fn from_reader(reader: impl io::Read + Send + 'static) -> Self {
        Self::new(Source::Reader(Box::new(reader)))
    }

    /// From a stream, up to its end. No more than some chunks of it are in memory at a time; an error of it is the end of
    /// the download.
    pub fn from_stream(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self::new(Source::Stream(Box::pin(stream)))
    }

    /// From all files of a directory, as a ZIP archive that is made while it is kept; links are left out.
    pub fn from_dir_zipped(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        let name = directory.file_name().map(|name| format!("{}.zip", name.to_string_lossy()));
        let download = Self::new(Source::ZippedDirectory(directory));
        Self { about: About { name, ..About::default() }, ..download }
    }

    /// The name under which it is saved. One with path separators or control characters is refused.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.about.name = Some(name.into());
        self
    }

    /// Its media type. By default guessed from the name's extension.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.about.content_type = Some(content_type.into());
        self
    }

    /// One more header for its response: HQ's `extras`.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.about.headers.push((name.into(), value.into()));
        self
    }

    /// Somebody who may have it, in the application's words: HQ's `owner_ids`. Who that is in a request is for the
    /// application to say. Without any, whoever knows the id may have it.
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.about.owners.push(owner.into());
        self
    }

    /// How long it can be had from the moment that it is ready. Its task's record goes at the same time: there is one
    /// deadline. Default: as long as the task's result is kept, a day.
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

/// A payload that is kept, and no download yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kept {
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) content_type: String,
    pub(crate) size: u64,
    pub(crate) etag: String,
    pub(crate) about: About,
}

impl Kept {
    /// The download that it becomes.
    pub(crate) fn into_record(self, created: Timestamp, expires_at: Timestamp) -> DownloadRecord {
        let About { headers, owners, .. } = self.about;
        let (name, content_type, size, etag) = (self.name, self.content_type, self.size, self.etag);
        let facts = DownloadFacts { name, content_type, size, etag, created, expires_at, headers, owners };
        DownloadRecord { facts, key: self.key }
    }
}

pub(crate) type Keeping<'a> = Pin<Box<dyn Future<Output = Result<Kept, DownloadError>> + Send + 'a>>;

/// Keeps payloads.
pub(crate) trait DownloadSink: Send + Sync {
    /// Keeps the payload of a run, and holds it until it is [released](Self::release).
    fn keep<'a>(&'a self, id: &'a TaskId, download: Download) -> Keeping<'a>;

    /// As [`keep`](Self::keep), on a thread that may block and has no event loop.
    fn keep_blocking(&self, id: &TaskId, download: Download) -> Result<Kept, DownloadError>;

    /// The run is settled: a payload that is in no record may be swept.
    fn release(&self, key: &str);

    /// Nobody will see this payload: deletes it behind the caller's back, if it can.
    fn discard(&self, key: String);
}

/// What a run has exposed so far.
#[derive(Default)]
pub(crate) struct Exposed(Mutex<Option<Kept>>);

impl Exposed {
    fn replace(&self, kept: Option<Kept>) -> Option<Kept> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), kept)
    }
}

impl Context {
    /// Offers a file under the id of this task. It is kept now, and can be had as soon as the task has succeeded: in the same
    /// commit, so that *ready* means that the file is there. Nothing of it is seen if the run fails, dies, or is not the one
    /// that counts. The bytes flow through; they are not held in memory.
    ///
    /// A run has one download: another takes the place of the first. What a run that continues has exposed is dropped; the
    /// run that succeeds exposes.
    ///
    /// # Errors
    /// It could not be kept; then nothing of it was. With `?` that is the failure of the attempt.
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

    /// As [`expose_download`](Self::expose_download), for bodies that are a plain `fn`: it waits until the file is kept.
    ///
    /// # Errors
    /// It could not be kept; then nothing of it was.
    pub fn expose_download_blocking(&self, download: Download) -> Result<(), DownloadError> {
        let Some(sink) = self.downloads() else { return Ok(()) };
        let kept = sink.keep_blocking(self.id(), download)?;
        self.put_out(&**sink, kept);
        Ok(())
    }

    /// Where it goes; nowhere from a body that was called directly, or that has failed.
    fn downloads(&self) -> Option<&Arc<dyn DownloadSink>> {
        self.download_sink().filter(|_| self.failure().is_none())
    }

    fn put_out(&self, sink: &dyn DownloadSink, kept: Kept) {
        if let Some(before) = self.exposed().replace(Some(kept)) {
            sink.release(&before.key);
            sink.discard(before.key);
        }
    }

    /// The run has ended like this. If that is success, its download becomes part of the record.
    pub(crate) fn promote_download(&self, record: &mut TaskResult) {
        if record.state != State::Success {
            return;
        }
        let kept = self.exposed().0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(kept) = kept {
            if let Some(expiry) = kept.about.expires_in {
                record.expires_at = record.finished_at + expiry;
            }
            record.download = Some(Box::new(kept.into_record(record.finished_at, record.expires_at)));
        }
    }

    /// The run is settled. `seen`: its download is in the record.
    pub(crate) fn release_download(&self, seen: bool) {
        if let Some(kept) = self.exposed().replace(None)
            && let Some(sink) = self.download_sink()
        {
            sink.release(&kept.key);
            if !seen {
                sink.discard(kept.key);
            }
        }
    }

    /// Whether the run has exposed anything.
    pub(crate) fn has_exposed(&self) -> bool {
        self.exposed().0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}
