//! Deletes the payloads that no record names.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};

use super::{PayloadBackend, Payloads, files, upload};
use crate::core::Timestamp;
use crate::task::{DownloadError, TaskId};

/// How long a payload that no record names stays where other programs may run the tasks too: its run may not be
/// settled yet.
const UNSETTLED: Duration = Duration::from_secs(24 * 3600);
/// How long a tombstone stays.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);

/// What became of the task of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The task's record names the payload.
    Named,
    /// The task's record may still name the payload.
    Stays,
    /// The task's record names another payload, or none.
    Orphan,
    /// The task has no record, and this program does not know it.
    Unknown,
}

/// The numbers of what a sweep has deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    pub(crate) payloads: usize,
    pub(crate) tombstones: usize,
    /// The files of uploads that were cut off.
    pub(crate) cut_off: usize,
}

impl Payloads {
    /// Deletes the payloads that nobody will see, by what `decide` says, and old tombstones. It deletes only what
    /// lies beside the marker and has a name that Celeriac gives.
    pub(crate) async fn sweep(
        &self,
        now: Timestamp,
        decide: impl AsyncFn(&TaskId, &str) -> Option<Decision>,
    ) -> Result<Swept, DownloadError> {
        let mut swept = Swept::default();
        match &self.place {
            PayloadBackend::Nowhere => return Ok(swept),
            PayloadBackend::Directory { path, .. } if !path.exists() => return Ok(swept),
            PayloadBackend::Directory { .. } | PayloadBackend::Memory | PayloadBackend::Given(_) => {}
        }
        if self.is_marked().await? {
            if let Some(path) = self.path_of(files::PAYLOADS) {
                swept.cut_off = self.sweep_cut_off(path, now).await;
            }
            for payload in self.listed(files::PAYLOADS).await? {
                let key = payload.location.as_ref();
                let Some(id) = files::task_of(key) else { continue };
                if self.is_over(&payload, &id, now, &decide).await {
                    self.bury(key, &id, &decide).await?;
                    swept.payloads += 1;
                }
            }
            for grave in self.listed(files::TOMBSTONES).await? {
                let key = grave.location.as_ref();
                if files::is_tombstone(key) && is_older(&grave, now, REMEMBERED) {
                    self.delete(key).await?;
                    swept.tombstones += 1;
                }
            }
        }
        swept.payloads += self.sweep_old(now, &decide).await?;
        Ok(swept)
    }

    /// Sweeps the first layout, which had no marker. A payload that a record names is noted as Celeriac's, and one
    /// that was noted goes like the rest. A payload that was left over before it could be noted stays, because
    /// nobody can tell it from other people's files.
    async fn sweep_old(
        &self,
        now: Timestamp,
        decide: &impl AsyncFn(&TaskId, &str) -> Option<Decision>,
    ) -> Result<usize, DownloadError> {
        if self.nothing_old.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let (mut swept, mut found) = (0, false);
        let objects = std::sync::Arc::clone(self.objects()?);
        let mut there = objects.list(Some(&Path::from(files::OLD_PAYLOADS)));
        while let Some(payload) = there.next().await {
            // Other files there need not be readable.
            let Ok(payload) = payload else { continue };
            let key = payload.location.as_ref();
            let (Some(id), Some(note)) = (files::task_of_old(key), files::adopted(key)) else { continue };
            found = true;
            let is_ours = self.is_marked().await? && self.has(&note).await?;
            if !is_ours && decide(&id, key).await == Some(Decision::Named) {
                self.settle_in().await?;
                self.put_small(&note, Bytes::from_static(b"ours")).await?;
            }
            if is_ours && self.is_over(&payload, &id, now, decide).await {
                self.bury(key, &id, decide).await?;
                self.delete(&note).await?;
                swept += 1;
            }
        }
        self.nothing_old.store(!found, Ordering::Relaxed);
        Ok(swept)
    }

    async fn listed(&self, below: &str) -> Result<Vec<ObjectMeta>, DownloadError> {
        let listed = self.objects()?.list(Some(&Path::from(below)));
        listed.try_collect().await.map_err(|error| upload::fault(below, &error))
    }

    /// Whether nobody will see this payload.
    async fn is_over(
        &self,
        payload: &ObjectMeta,
        id: &TaskId,
        now: Timestamp,
        decide: &impl AsyncFn(&TaskId, &str) -> Option<Decision>,
    ) -> bool {
        let key = payload.location.as_ref();
        if self.held().contains(key) {
            return false;
        }
        let goes = match decide(id, key).await {
            None | Some(Decision::Stays | Decision::Named) => false,
            Some(Decision::Orphan) => true,
            Some(Decision::Unknown) => self.alone || is_older(payload, now, UNSETTLED),
        };
        // A run may hold the payload by now.
        goes && !self.held().contains(key)
    }

    /// Deletes a payload. If nobody knows its task any more, a tombstone remembers that there was one.
    async fn bury(
        &self,
        key: &str,
        id: &TaskId,
        decide: &impl AsyncFn(&TaskId, &str) -> Option<Decision>,
    ) -> Result<(), DownloadError> {
        if decide(id, key).await == Some(Decision::Unknown) {
            self.put_small(&files::tombstone(id), Bytes::from_static(b"gone")).await?;
        }
        self.delete(key).await
    }

    /// Whether there was a download of this task, of which there is no record any more.
    pub(crate) async fn is_gone(&self, id: &TaskId) -> Result<bool, DownloadError> {
        if self.directory().is_some_and(|path| !path.exists())
            || matches!(self.place, PayloadBackend::Nowhere)
        {
            return Ok(false);
        }
        if self.has(&files::tombstone(id)).await? {
            return Ok(true);
        }
        // The deadline of the download has passed, and it was not swept yet.
        if self.has_payload(&files::payloads_of(id), |key| files::task_of(key).as_ref() == Some(id)).await? {
            return Ok(true);
        }
        if self.nothing_old.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let is_old = |key: &str| files::task_of_old(key).as_ref() == Some(id);
        Ok(self.has(&files::old_tombstone(id)).await?
            || self.has_payload(&files::old_payloads_of(id), is_old).await?)
    }

    async fn has_payload(&self, below: &str, is_one: impl Fn(&str) -> bool) -> Result<bool, DownloadError> {
        let mut rest = self.objects()?.list(Some(&Path::from(below)));
        match rest.next().await {
            None => Ok(false),
            Some(Ok(payload)) => Ok(is_one(payload.location.as_ref())),
            Some(Err(error)) => Err(upload::fault(below, &error)),
        }
    }

    /// Deletes the files that a process which died while it wrote has left; the object store never lists them.
    async fn sweep_cut_off(&self, directory: std::path::PathBuf, now: Timestamp) -> usize {
        let alone = self.alone;
        // A file that is being written lies beside a key that is held.
        let held = self.held().clone();
        blocking::unblock(move || {
            let (mut swept, mut open) = (0, vec![directory.clone()]);
            while let Some(next) = open.pop() {
                let Ok(entries) = std::fs::read_dir(&next) else { continue };
                for entry in entries.flatten() {
                    // For a link, this is about the link itself.
                    let (path, Ok(about)) = (entry.path(), entry.metadata()) else { continue };
                    if about.is_dir() {
                        open.push(path);
                        continue;
                    }
                    let inside = path.strip_prefix(&directory).unwrap_or(&path);
                    let inside: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
                    let name = format!("{}/{}", files::PAYLOADS, inside.join("/"));
                    let Some(key) = files::key_of_unfinished(&name).filter(|_| about.is_file()) else {
                        continue;
                    };
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

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::task::{Download, DownloadFacts, DownloadRecord};

    const OWN: &str = "0199a0b0-1234-7abc-8def-0123456789ab";

    /// Names that people's files may have, the most misleading first.
    fn peoples() -> Vec<String> {
        let mut names = vec![
            format!("payload/report/{OWN}"),
            format!("payload/report/{OWN}#1"),
            "payload/x/y".to_owned(),
            "payload/2026/report.csv".to_owned(),
            "gone/x/gone".to_owned(),
            "a#b".to_owned(),
            "#1".to_owned(),
            "sub/notes #3.txt".to_owned(),
            "cases.csv#12".to_owned(),
            "LAYOUT".to_owned(),
        ];
        names.extend(names.clone().iter().map(|name| format!("celeriac-downloads/{name}")));
        names
    }

    fn fill(root: &Path, names: &[String]) {
        for name in names {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            // The file is as large and as old as one of Celeriac's would be.
            std::fs::write(&path, "gone").unwrap();
            let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(3600);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        }
    }

    fn are_whole(root: &Path, names: &[String]) {
        for name in names {
            assert_eq!(std::fs::read(root.join(name)).ok().as_deref(), Some(&b"gone"[..]), "{name}");
        }
    }

    fn now() -> Timestamp {
        Timestamp::from(std::time::SystemTime::now())
    }

    fn record(key: &str) -> DownloadRecord {
        let facts = DownloadFacts {
            name: "a".to_owned(),
            content_type: "text/plain".to_owned(),
            size: 4,
            etag: "\"x\"".to_owned(),
            created: Timestamp::ZERO,
            expires_at: Timestamp::ZERO,
            headers: Vec::new(),
            owners: Vec::new(),
        };
        DownloadRecord { facts, key: key.to_owned() }
    }

    /// Decides as if nobody knew any of the tasks.
    async fn unknown(_: &TaskId, _: &str) -> Option<Decision> {
        Some(Decision::Unknown)
    }

    #[tokio::test]
    async fn a_directory_of_other_peoples_files_stays_whole() {
        for (alone, decision) in [
            (true, Decision::Unknown),
            (true, Decision::Orphan),
            (false, Decision::Unknown),
            (true, Decision::Stays),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fill(dir.path(), &peoples());
            let payloads = Payloads::in_directory(dir.path().to_owned(), 0, alone);
            for _ in 0..2 {
                let swept = payloads.sweep(now(), async |_, _| Some(decision)).await.unwrap();
                assert_eq!(swept, Swept::default());
            }
            // Nothing is written beside them either.
            let refused =
                payloads.upload(&"a".into(), Download::from_bytes("x")).await.unwrap_err().to_string();
            assert!(refused.contains("nothing says that Celeriac wrote it"), "{refused}");
            assert!(refused.contains("celeriac-downloads/LAYOUT"), "{refused}");
            are_whole(dir.path(), &peoples());
        }
    }

    #[tokio::test]
    async fn beside_other_peoples_files_only_ours_go() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<String> =
            peoples().into_iter().filter(|name| !name.starts_with("celeriac-downloads")).collect();
        fill(dir.path(), &names);
        let payloads = Payloads::in_directory(dir.path().to_owned(), 0, true);
        let kept = payloads.upload(&"a".into(), Download::from_bytes("x")).await.unwrap();
        payloads.held().clear();
        // In Celeriac's own directory as well, a name that Celeriac never gives is somebody else's.
        let strange = ["payload/a/report.csv", "payload/a/b#1", "gone/a/b", "notes"];
        let strange: Vec<String> = strange.iter().map(|name| format!("celeriac-downloads/{name}")).collect();
        fill(dir.path(), &strange);
        fill(dir.path(), &[format!("celeriac-downloads/payload/a/{OWN}#7")]);
        let swept = payloads.sweep(now(), unknown).await.unwrap();
        assert_eq!(swept, Swept { payloads: 1, tombstones: 0, cut_off: 1 });
        assert!(!dir.path().join(&kept.key).exists());
        assert!(payloads.is_gone(&"a".into()).await.unwrap());
        are_whole(dir.path(), &names);
        are_whole(dir.path(), &strange);
    }

    #[tokio::test]
    async fn what_the_first_layout_wrote_opens_and_goes_with_its_record() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, other) = (format!("payload/task-1/{OWN}"), format!("payload/task-2/{OWN}"));
        fill(dir.path(), &[ours.clone(), other.clone()]);
        let payloads = Payloads::in_directory(dir.path().to_owned(), 0, true);
        let body = payloads.read(&record(&ours), None).await.unwrap();
        let bytes: Vec<_> = body.try_collect().await.unwrap();
        assert_eq!(bytes.concat(), b"gone");
        assert!(
            payloads.is_gone(&"task-1".into()).await.unwrap(),
            "its record is gone, and it is not swept yet"
        );
        let (first, all) = (ours.clone(), [ours.clone(), other.clone()]);
        let named = async |_: &TaskId, key: &str| {
            Some(if key == first.as_str() { Decision::Named } else { Decision::Unknown })
        };
        for _ in 0..2 {
            assert_eq!(payloads.sweep(now(), &named).await.unwrap(), Swept::default());
            are_whole(dir.path(), &all);
        }
        // A payload goes with its record, also after a restart; a payload that no record ever named stays.
        let payloads = Payloads::in_directory(dir.path().to_owned(), 0, true);
        assert_eq!(payloads.sweep(now(), unknown).await.unwrap().payloads, 1);
        assert!(!dir.path().join(&ours).exists());
        are_whole(dir.path(), &[other]);
        assert!(payloads.is_gone(&"task-1".into()).await.unwrap());
    }

    #[tokio::test]
    async fn the_same_holds_for_a_bucket() {
        let objects = std::sync::Arc::new(object_store::memory::InMemory::new());
        let keys: Vec<String> = peoples().into_iter().filter(|name| !name.contains('#')).collect();
        for key in &keys {
            use object_store::ObjectStoreExt;
            objects.put(&object_store::path::Path::from(key.as_str()), "gone".into()).await.unwrap();
        }
        let payloads = Payloads::given(objects.clone(), true);
        assert_eq!(payloads.sweep(now(), unknown).await.unwrap(), Swept::default());
        assert!(payloads.upload(&"a".into(), Download::from_bytes("x")).await.is_err());
        let left: Vec<_> = objects.list(None).try_collect().await.unwrap();
        assert_eq!(left.len(), keys.len());
    }

    #[tokio::test]
    async fn a_record_opens_no_other_file() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), &["secret.txt".to_owned(), "payload/a/b".to_owned()]);
        let payloads = Payloads::in_directory(dir.path().to_owned(), 0, true);
        for key in ["secret.txt", "payload/a/b", "../secret.txt", "/etc/passwd", ""] {
            let refused = payloads.read(&record(key), None).await.err().expect("refused").to_string();
            assert!(refused.contains("no file that Celeriac could have written"), "{refused}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn nobody_else_can_read_them() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("made/for/it");
        let payloads = Payloads::in_directory(dir.clone(), 0, true);
        let id = TaskId::from("x".repeat(255));
        payloads.upload(&id, Download::from_bytes("x")).await.unwrap();
        payloads.upload(&id, Download::from_bytes(vec![7; 12 << 20])).await.unwrap();
        payloads.upload(&"gone".into(), Download::from_bytes("x")).await.unwrap();
        payloads.held().retain(|key| !key.contains("/gone/"));
        assert_eq!(payloads.sweep(now(), unknown).await.unwrap().payloads, 1);
        let (mut files, mut open) = (0, vec![root.path().join("made")]);
        while let Some(next) = open.pop() {
            let mode = |path: &PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&next), 0o700, "{}", next.display());
            for entry in std::fs::read_dir(&next).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    assert_eq!(mode(&path), 0o600, "{}", path.display());
                    files += 1;
                }
            }
        }
        assert_eq!(files, 4, "two payloads, a tombstone, the marker");
    }
}
