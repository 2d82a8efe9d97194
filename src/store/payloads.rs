//! The payloads of downloads: bytes under a key, in a directory, in memory, or wherever an [`ObjectStore`] keeps them.
//!
//! - A payload lies under its task and a key of its own for each time that one is exposed, so runs never meet.
//! - It is seen by nobody until a record names it. What no record names is swept: at once if this program alone runs the
//!   tasks and none of its runs holds it, else when it is a day old.
//! - It appears whole or not at all: what is written lies aside until its last byte is there.
//! - Bytes flow through in both directions; some MiB are in memory at a time, however large the file.
//! - What is gone leaves a tombstone for a week, so that a download that has expired is told apart from one that never was.

mod address;
mod files;
mod name;
mod source;
mod sweep;
mod upload;

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};

pub(crate) use address::Address;
pub use name::content_disposition;
pub(crate) use sweep::Decision;

use crate::task::{Download, DownloadError, DownloadRecord, DownloadSink, Keeping, Kept, TaskId};

/// Where payloads are kept.
enum Place {
    Nowhere,
    Memory,
    Directory { path: PathBuf, reserve: u64 },
    Given(Arc<dyn ObjectStore>),
}

/// Keeps payloads.
pub(crate) struct Payloads {
    place: Place,
    /// Whether only this program runs the tasks that expose here.
    alone: bool,
    objects: OnceLock<Arc<dyn ObjectStore>>,
    /// Keys that runs hold.
    held: Mutex<HashSet<String>>,
    /// For threads that have no event loop.
    handle: OnceLock<Option<tokio::runtime::Handle>>,
}

/// The bytes of a download, or a part of them.
pub type Body = BoxStream<'static, std::io::Result<Bytes>>;

impl Payloads {
    fn at(place: Place, alone: bool) -> Self {
        Self { place, alone, objects: OnceLock::new(), held: Mutex::default(), handle: OnceLock::new() }
    }

    /// Keeps none.
    pub(crate) fn nowhere() -> Self {
        Self::at(Place::Nowhere, true)
    }

    /// In this process's memory.
    pub(crate) fn in_memory() -> Self {
        Self::at(Place::Memory, true)
    }

    /// In a directory, which is made when there is something to keep. Nothing is taken that would leave less than `reserve`
    /// bytes on its disk.
    pub(crate) fn in_directory(path: PathBuf, reserve: u64, alone: bool) -> Self {
        Self::at(Place::Directory { path, reserve }, alone)
    }

    /// Where somebody else keeps objects.
    pub(crate) fn given(objects: Arc<dyn ObjectStore>, alone: bool) -> Self {
        Self::at(Place::Given(objects), alone)
    }

    fn directory(&self) -> Option<&Path> {
        match &self.place {
            Place::Directory { path, .. } => Some(path),
            _ => None,
        }
    }

    /// The store, made at its first use.
    fn objects(&self) -> Result<&Arc<dyn ObjectStore>, DownloadError> {
        if let Some(objects) = self.objects.get() {
            return Ok(objects);
        }
        let made: Arc<dyn ObjectStore> = match &self.place {
            Place::Nowhere => return Err(DownloadError::NoPlace),
            Place::Memory => Arc::new(InMemory::new()),
            Place::Given(objects) => Arc::clone(objects),
            Place::Directory { path, .. } => {
                let shown = path.display().to_string();
                std::fs::create_dir_all(path).map_err(|error| upload::io_error(&shown, &error))?;
                let local = LocalFileSystem::new_with_prefix(path).map_err(|e| upload::fault(&shown, &e))?;
                // Ready means ready, also after a power cut.
                Arc::new(local.with_fsync(true).with_automatic_cleanup(true))
            }
        };
        Ok(self.objects.get_or_init(|| made))
    }

    fn held(&self) -> MutexGuard<'_, HashSet<String>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of a download, or those of `range`, which lies inside of it.
    pub(crate) async fn read(
        &self,
        record: &DownloadRecord,
        range: Option<Range<u64>>,
    ) -> Result<Body, DownloadError> {
        let objects = self.objects()?;
        if range.as_ref().is_some_and(Range::is_empty) {
            return Ok(futures_util::stream::empty().boxed());
        }
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let read = objects.get_opts(&object_store::path::Path::from(record.key.as_str()), options).await;
        let read = read.map_err(|error| upload::fault(&record.facts.name, &error))?;
        Ok(read.into_stream().map(|chunk| chunk.map_err(std::io::Error::other)).boxed())
    }

    /// Deletes a payload.
    async fn delete(&self, key: &str) -> Result<(), DownloadError> {
        match self.objects()?.delete(&object_store::path::Path::from(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(upload::fault(key, &error)),
        }
    }

    /// An event loop for threads that have none. Ends with the program's last use of it.
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

impl DownloadSink for Payloads {
    fn keep<'a>(&'a self, id: &'a TaskId, download: Download) -> Keeping<'a> {
        Box::pin(self.upload(id, download))
    }

    fn keep_blocking(&self, id: &TaskId, download: Download) -> Result<Kept, DownloadError> {
        let _entered = self.handle()?.enter();
        futures_executor::block_on(self.upload(id, download))
    }

    fn release(&self, key: &str) {
        self.held().remove(key);
    }

    fn discard(&self, key: String) {
        let (Ok(objects), Ok(handle)) = (self.objects(), self.handle()) else { return };
        let (objects, path) = (Arc::clone(objects), object_store::path::Path::from(key));
        // Should it fail, the sweep does it.
        handle.spawn(async move {
            if let Err(error) = objects.delete(&path).await {
                tracing::debug!(%path, %error, "a payload that nobody will see stays until the sweep");
            }
        });
    }
}
