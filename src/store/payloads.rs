//! The payloads of downloads: bytes under a key, in a directory, in memory, or wherever an [`ObjectStore`] keeps
//! them.
//!
//! - All payloads lie in a directory of their own with a marker. A directory without the marker is somebody
//!   else's, and is never touched.
//! - A payload lies under its task's name, with a key of its own for each time that a task exposes one, so runs
//!   never meet.
//! - Nobody sees a payload until a record names it. Payloads that no record names are swept: at once if this
//!   program alone runs the tasks and none of its runs holds it, and otherwise when it is a day old.
//! - A payload appears whole or not at all: it is written aside until its last byte is there.
//! - Bytes flow through in both directions. Some MiB are in memory at a time, however large the file.
//! - A deleted payload leaves a tombstone for a week, so that a download that has expired can be told from one
//!   that never was.

mod address;
mod files;
mod name;
mod place;
mod private;
mod source;
mod sweep;
mod upload;

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use parking_lot::{Mutex, MutexGuard};

pub(crate) use address::Address;
#[cfg(feature = "web")]
pub(crate) use name::check_header;
pub use name::content_disposition;
#[cfg(unix)]
pub(crate) use source::chunks as chunks_of_download;
pub(crate) use sweep::Decision;
#[cfg(unix)]
pub(crate) use upload::check as check_download;

use crate::task::{Download, DownloadError, DownloadRecord, DownloadSink, KeepPayload, KeptPayload, TaskId};

/// The place where payloads are kept.
enum PayloadBackend {
    Nowhere,
    Memory,
    Directory { path: PathBuf, reserve: u64 },
    Given(Arc<dyn ObjectStore>),
}

/// Keeps the payloads of downloads.
pub(crate) struct Payloads {
    place: PayloadBackend,
    /// Whether only this program runs the tasks that expose payloads here.
    alone: bool,
    objects: OnceLock<Arc<dyn ObjectStore>>,
    /// Whether the marker was seen.
    marked: AtomicBool,
    /// Whether nothing of the first layout is there.
    nothing_old: AtomicBool,
    /// The keys that runs hold.
    held: Mutex<HashSet<String>>,
    /// Held to read while a payload begins to be written, and to write while one is deleted: the last payload of a directory
    /// takes the directory along, perhaps just when it was made for the next one. (The attempt before has failed.)
    beginning: Arc<tokio::sync::RwLock<()>>,
    /// The event loop for threads that have none.
    handle: OnceLock<Option<tokio::runtime::Handle>>,
}

/// The bytes of a download, or of a part of it.
pub type DownloadBody = BoxStream<'static, std::io::Result<Bytes>>;

impl Payloads {
    fn at(place: PayloadBackend, alone: bool) -> Self {
        Self {
            place,
            alone,
            objects: OnceLock::new(),
            marked: AtomicBool::new(false),
            nothing_old: AtomicBool::new(false),
            held: Mutex::default(),
            beginning: Arc::default(),
            handle: OnceLock::new(),
        }
    }

    /// Keeps no payloads.
    pub(crate) fn nowhere() -> Self {
        Self::at(PayloadBackend::Nowhere, true)
    }

    /// Keeps payloads in this process's memory.
    pub(crate) fn in_memory() -> Self {
        Self::at(PayloadBackend::Memory, true)
    }

    /// Keeps payloads in a directory, which is made when there is one to keep. A payload is refused that would
    /// leave less than `reserve` bytes free on the disk.
    pub(crate) fn in_directory(path: PathBuf, reserve: u64, alone: bool) -> Self {
        Self::at(PayloadBackend::Directory { path, reserve }, alone)
    }

    /// Keeps payloads in an object store that the program gives.
    pub(crate) fn given(objects: Arc<dyn ObjectStore>, alone: bool) -> Self {
        Self::at(PayloadBackend::Given(objects), alone)
    }

    /// Whether this directory is not there, is empty, or has Celeriac's downloads in it.
    pub(crate) fn may_keep_in(dir: &Path) -> bool {
        let is_empty = || std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
        let is_marked = || std::fs::read(dir.join(files::MARKER)).is_ok_and(|text| text == files::LAYOUT);
        !dir.exists() || is_empty() || is_marked()
    }

    fn directory(&self) -> Option<&Path> {
        match &self.place {
            PayloadBackend::Directory { path, .. } => Some(path),
            _ => None,
        }
    }

    /// The object store, made at its first use.
    fn objects(&self) -> Result<&Arc<dyn ObjectStore>, DownloadError> {
        if let Some(objects) = self.objects.get() {
            return Ok(objects);
        }
        let made: Arc<dyn ObjectStore> = match &self.place {
            PayloadBackend::Nowhere => return Err(DownloadError::NoPlace),
            PayloadBackend::Memory => Arc::new(InMemory::new()),
            PayloadBackend::Given(objects) => Arc::clone(objects),
            PayloadBackend::Directory { path, .. } => {
                let shown = path.display().to_string();
                private::create_dir(path).map_err(|error| upload::io_error(&shown, &error))?;
                let local = LocalFileSystem::new_with_prefix(path).map_err(|e| upload::fault(&shown, &e))?;
                // A download that was called ready opens also after a power cut.
                Arc::new(local.with_fsync(true).with_automatic_cleanup(true))
            }
        };
        Ok(self.objects.get_or_init(|| made))
    }

    fn held(&self) -> MutexGuard<'_, HashSet<String>> {
        self.held.lock()
    }

    /// Reads the bytes of a download, or those of `range`, which lies inside of it.
    pub(crate) async fn read(
        &self,
        record: &DownloadRecord,
        range: Option<Range<u64>>,
    ) -> Result<DownloadBody, DownloadError> {
        if !is_payload(&record.key) {
            let error = "its record names no file that Celeriac could have written".to_owned();
            return Err(DownloadError::Store { name: record.facts.name.clone(), error });
        }
        let objects = self.objects()?;
        if range.as_ref().is_some_and(Range::is_empty) {
            return Ok(futures_util::stream::empty().boxed());
        }
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let read = objects.get_opts(&object_store::path::Path::from(record.key.as_str()), options).await;
        let read = read.map_err(|error| upload::fault(&record.facts.name, &error))?;
        Ok(read.into_stream().map(|chunk| chunk.map_err(std::io::Error::other)).boxed())
    }

    /// The path of a payload, if payloads are files of this machine and Celeriac gives such a name.
    #[cfg(feature = "web")]
    pub(crate) fn path_of_payload(&self, key: &str) -> Option<PathBuf> {
        self.path_of(key).filter(|_| is_payload(key))
    }

    /// Deletes a payload.
    async fn delete(&self, key: &str) -> Result<(), DownloadError> {
        let _alone = self.beginning.write().await;
        match self.objects()?.delete(&object_store::path::Path::from(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(upload::fault(key, &error)),
        }
    }

    /// The event loop for threads that have none. It ends with the program's last use of it.
    fn handle(&self) -> Result<&tokio::runtime::Handle, DownloadError> {
        let start = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            let handle = runtime.handle().clone();
            let run = move || runtime.block_on(std::future::pending::<()>());
            std::thread::Builder::new().name("celeriac-files".to_owned()).spawn(run).ok()?;
            Some(handle)
        };
        let handle = self.handle.get_or_init(start).as_ref();
        handle.ok_or_else(|| DownloadError::Store {
            name: "any".to_owned(),
            error: "no thread for it could be started".to_owned(),
        })
    }
}

/// Whether Celeriac gives such a name to payloads. A record may come from another program, and must not open other
/// files of this place.
fn is_payload(key: &str) -> bool {
    files::task_of(key).or_else(|| files::task_of_old(key)).is_some()
}

impl DownloadSink for Payloads {
    fn keep<'a>(&'a self, id: &'a TaskId, download: Download) -> KeepPayload<'a> {
        Box::pin(self.upload(id, download))
    }

    fn keep_blocking(&self, id: &TaskId, download: Download) -> Result<KeptPayload, DownloadError> {
        let _entered = self.handle()?.enter();
        futures_executor::block_on(self.upload(id, download))
    }

    fn release(&self, key: &str) {
        self.held().remove(key);
    }

    fn discard(&self, key: String) {
        let (Ok(objects), Ok(handle)) = (self.objects(), self.handle()) else { return };
        let (objects, path) = (Arc::clone(objects), object_store::path::Path::from(key));
        let beginning = Arc::clone(&self.beginning);
        // If this fails, the sweep deletes the payload.
        handle.spawn(async move {
            let _alone = beginning.write().await;
            if let Err(error) = objects.delete(&path).await {
                tracing::debug!(%path, %error, "a payload that nobody will see stays until the sweep");
            }
        });
    }
}
