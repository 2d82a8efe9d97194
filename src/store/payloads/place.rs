//! Tells what is Celeriac's in a place that others may use too.
//!
//! Invariants:
//! - Nothing is written before the marker is there, and the marker is put only where nothing else lies.
//! - Without the marker nothing is deleted, and nothing is closed to others.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::{Payloads, files, private, upload};
use crate::task::DownloadError;

impl Payloads {
    /// Whether the marker is there.
    pub(super) async fn is_marked(&self) -> Result<bool, DownloadError> {
        if self.marked.load(Ordering::Acquire) {
            return Ok(true);
        }
        let fault = |error| upload::fault(files::MARKER, &error);
        let said = match self.objects()?.get(&Path::from(files::MARKER)).await {
            Ok(marker) => marker.bytes().await.map_err(fault)?,
            Err(object_store::Error::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(fault(error)),
        };
        let is_ours = said == files::LAYOUT;
        self.marked.store(is_ours, Ordering::Release);
        Ok(is_ours)
    }

    /// Makes sure that the marker is there before anything is written.
    pub(super) async fn settle_in(&self) -> Result<(), DownloadError> {
        if self.is_marked().await? {
            return Ok(());
        }
        let objects = self.objects()?;
        if let Some(other) = objects.list(Some(&Path::from(files::PLACE))).next().await {
            let other = other.map_err(|error| upload::fault(files::PLACE, &error))?;
            let error = format!(
                "`{}` lies where downloads are to be kept, and nothing says that Celeriac wrote it: name another place for downloads, or move it away. If this is a copy of Celeriac's own downloads, copy `{}` as well",
                other.location,
                files::MARKER
            );
            return Err(DownloadError::Store { name: files::PLACE.to_owned(), error });
        }
        if let Some(own) = self.path_of(files::PLACE) {
            let made = private::create_dir(&own).and_then(|()| private::close(&own));
            made.map_err(|error| upload::io_error(files::PLACE, &error))?;
        }
        self.put_small(files::MARKER, Bytes::from_static(files::LAYOUT)).await?;
        self.marked.store(true, Ordering::Release);
        Ok(())
    }

    /// The path of the file under a key, if payloads are files.
    pub(super) fn path_of(&self, key: &str) -> Option<PathBuf> {
        // Keys are made of letters, digits, `-`, `_` and `=`, and so are file names.
        self.directory().map(|directory| directory.join(key))
    }

    /// Makes the directory that a key lies in, before the object store would make one that is open to others.
    pub(super) fn make_room_for(&self, key: &str) -> Result<(), DownloadError> {
        let Some(path) = self.path_of(key) else { return Ok(()) };
        let made = path.parent().map_or(Ok(()), private::create_dir);
        made.map_err(|error| upload::io_error(key, &error))
    }

    /// Takes from all other accounts the rights to a file that is written.
    pub(super) fn close(&self, key: &str) -> Result<(), DownloadError> {
        let Some(path) = self.path_of(key) else { return Ok(()) };
        private::close(&path).map_err(|error| upload::io_error(key, &error))
    }

    /// Writes a small content that is in memory.
    pub(super) async fn put_small(&self, key: &str, bytes: Bytes) -> Result<(), DownloadError> {
        let _begins = self.beginning.read().await;
        self.make_room_for(key)?;
        let put = self.objects()?.put(&Path::from(key), bytes.into()).await;
        put.map_err(|error| upload::fault(key, &error))?;
        self.close(key)
    }

    /// Whether there is anything under this key.
    pub(super) async fn has(&self, key: &str) -> Result<bool, DownloadError> {
        match self.objects()?.head(&Path::from(key)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(upload::fault(key, &error)),
        }
    }
}
