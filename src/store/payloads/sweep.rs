//! What no record names goes.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use super::{Payloads, Place, files, upload};
use crate::core::Timestamp;
use crate::task::{DownloadError, TaskId};

/// Where others may run the tasks too, what no record names stays so long: it may be of a run that is not settled yet.
const UNSETTLED: Duration = Duration::from_secs(24 * 3600);
/// How long it is remembered that there was a download.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);

/// What became of the task of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Its record names it, or it may still do so.
    Stays,
    /// The task's record names another, or none.
    Orphan,
    /// The task has no record, and is known to nobody here.
    Unknown,
}

/// What a sweep has deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    pub(crate) payloads: usize,
    pub(crate) tombstones: usize,
    /// Files of uploads that were cut off.
    pub(crate) cut_off: usize,
}

impl Payloads {
    /// Deletes what `decide` says that nobody will see, and tombstones that are old.
    pub(crate) async fn sweep(
        &self,
        now: Timestamp,
        decide: impl AsyncFn(&TaskId, &str) -> Option<Decision>,
    ) -> Result<Swept, DownloadError> {
        let mut swept = Swept::default();
        match &self.place {
            Place::Nowhere => return Ok(swept),
            Place::Directory { path, .. } if !path.exists() => return Ok(swept),
            Place::Directory { path, .. } => swept.cut_off = self.sweep_cut_off(path.clone(), now).await,
            Place::Memory | Place::Given(_) => {}
        }
        let objects = std::sync::Arc::clone(self.objects()?);
        let error = |error| upload::fault("all", &error);
        let payloads = objects.list(Some(&Path::from(files::payloads())));
        let payloads: Vec<ObjectMeta> = payloads.try_collect().await.map_err(error)?;
        for payload in payloads {
            let key = payload.location.as_ref();
            let Some(id) = files::task_of(key) else { continue };
            if self.held().contains(key) {
                continue;
            }
            let goes = match decide(&id, key).await {
                None | Some(Decision::Stays) => false,
                Some(Decision::Orphan) => true,
                Some(Decision::Unknown) => self.alone || is_older(&payload, now, UNSETTLED),
            };
            // It may have been taken up since.
            if !goes || self.held().contains(key) {
                continue;
            }
            if decide(&id, key).await == Some(Decision::Unknown) {
                let grave = Path::from(files::tombstone(&id));
                objects.put(&grave, bytes::Bytes::from_static(b"gone").into()).await.map_err(error)?;
            }
            self.delete(key).await?;
            swept.payloads += 1;
        }
        let graves = objects.list(Some(&Path::from(files::tombstones())));
        let graves: Vec<ObjectMeta> = graves.try_collect().await.map_err(error)?;
        for grave in graves.iter().filter(|grave| is_older(grave, now, REMEMBERED)) {
            self.delete(grave.location.as_ref()).await?;
            swept.tombstones += 1;
        }
        Ok(swept)
    }

    /// Whether there was a download of this id, of which there is no record any more.
    pub(crate) async fn is_gone(&self, id: &TaskId) -> Result<bool, DownloadError> {
        if self.directory().is_some_and(|path| !path.exists()) || matches!(self.place, Place::Nowhere) {
            return Ok(false);
        }
        let objects = self.objects()?;
        match objects.head(&Path::from(files::tombstone(id))).await {
            Ok(_) => return Ok(true),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(upload::fault(id.as_str(), &error)),
        }
        // Its deadline has passed, and it was not swept yet.
        let mut rest = objects.list(Some(&Path::from(files::payloads_of(id))));
        match rest.next().await {
            None => Ok(false),
            Some(Ok(payload)) => Ok(files::task_of(payload.location.as_ref()).as_ref() == Some(id)),
            Some(Err(error)) => Err(upload::fault(id.as_str(), &error)),
        }
    }

    /// A process that dies while it writes leaves a file aside, which the store never lists.
    async fn sweep_cut_off(&self, directory: std::path::PathBuf, now: Timestamp) -> usize {
        let alone = self.alone;
        // One that is being written lies beside a key that is held.
        let held = self.held().clone();
        blocking::unblock(move || {
            let (mut swept, mut open) = (0, vec![directory.clone()]);
            while let Some(next) = open.pop() {
                let Ok(entries) = std::fs::read_dir(&next) else { continue };
                for entry in entries.flatten() {
                    let (path, Ok(about)) = (entry.path(), entry.metadata()) else { continue };
                    if about.is_dir() {
                        open.push(path);
                        continue;
                    }
                    let inside = path.strip_prefix(&directory).unwrap_or(&path);
                    let inside: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
                    let inside = inside.join("/");
                    let Some((key, _)) = inside.split_once('#') else { continue };
                    let age = about.modified().map_or(Duration::ZERO, |at| now.since(Timestamp::from(at)));
                    let is_over = !held.contains(key) && (alone || age > UNSETTLED);
                    if is_over && std::fs::remove_file(&path).is_ok() {
                        swept += 1;
                    }
                }
            }
            swept
        })
        .await
    }
}

fn is_older(object: &ObjectMeta, now: Timestamp, age: Duration) -> bool {
    now.since(Timestamp::from(std::time::SystemTime::from(object.last_modified))) > age
}
