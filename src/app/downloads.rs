//! Where a program keeps the files that its tasks make for their users.

use std::path::PathBuf;
use std::sync::Arc;

use super::builder::{Builder, Transport};
use super::start_error::StartError;
use crate::store::{Address, Payloads};

/// Where downloads are kept, if not in the default place.
pub(super) enum DownloadLocation {
    Address(String),
    Directory(PathBuf),
    Store(Arc<dyn object_store::ObjectStore>),
}

impl Builder {
    /// Keeps the files that tasks make for their users in this directory. Default: `downloads` in the directory of
    /// the embedded store, or memory if everything is there. Over another broker there is no default, and all
    /// programs that run or serve the exports need the same place.
    pub fn downloads_in(mut self, dir: impl Into<PathBuf>) -> Self {
        self.downloads = Some(DownloadLocation::Directory(dir.into()));
        self
    }

    /// Keeps those files at a URL: `s3://bucket/prefix` (feature `s3`: S3, or a server with its protocol, found by
    /// the variables that AWS's tools read, such as `AWS_ENDPOINT_URL` and `AWS_ACCESS_KEY_ID`) or
    /// `file:///srv/exports`. [`start`](Self::start) refuses any other.
    pub fn downloads_at(mut self, url: impl Into<String>) -> Self {
        self.downloads = Some(DownloadLocation::Address(url.into()));
        self
    }

    /// Keeps those files in any [`ObjectStore`](object_store::ObjectStore).
    pub fn download_store(mut self, store: Arc<dyn object_store::ObjectStore>) -> Self {
        self.downloads = Some(DownloadLocation::Store(store));
        self
    }

    /// The place for downloads. Nothing is made there yet.
    pub(super) fn payloads(&self) -> Result<Payloads, StartError> {
        // In a store of its own, no other program makes downloads.
        let alone = matches!(self.keeping, Transport::Embedded(..) | Transport::Memory);
        let reserve = self.embedded.min_free_space / 2;
        Ok(match (&self.downloads, &self.keeping) {
            (Some(DownloadLocation::Address(url)), _) => {
                match Address::open(url).map_err(StartError::Downloads)? {
                    Address::Directory(dir) => Payloads::in_directory(dir, 0, alone),
                    Address::Objects(objects) => Payloads::given(objects, alone),
                }
            }
            (Some(DownloadLocation::Store(store)), _) => Payloads::given(Arc::clone(store), alone),
            (Some(DownloadLocation::Directory(dir)), _) => Payloads::in_directory(dir.clone(), 0, alone),
            (None, Transport::Embedded(dir)) => Payloads::in_directory(dir.join("downloads"), reserve, alone),
            (None, Transport::Memory) => Payloads::in_memory(),
            (None, _) if self.without_actors => Payloads::in_memory(),
            (None, _) => Payloads::nowhere(),
        })
    }
}
