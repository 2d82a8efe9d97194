//! Uploads a payload from its source into the object store, chunk by chunk.

use std::error::Error;
use std::io;

use bytes::BytesMut;
use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use xxhash_rust::xxh3::Xxh3;

use super::{PayloadBackend, Payloads, files, name, source};
use crate::task::{About, Download, DownloadError, KeptPayload, TaskId};

/// The least bytes that S3 takes as a part.
const PART: usize = 5 << 20;
/// The most parts under way at a time. With the part that is being filled, they are all that is in memory.
const PARTS: usize = 2;

impl Payloads {
    /// Keeps a payload, and holds it.
    pub(super) async fn upload(&self, id: &TaskId, download: Download) -> Result<KeptPayload, DownloadError> {
        let Download { source, about } = download;
        let (name, content_type) = check(&about)?;
        let objects = std::sync::Arc::clone(self.objects()?);
        let chunks = source::chunks(source);
        let mut chunks = chunks.map_err(|error| DownloadError::Source { name: name.clone(), error })?;
        self.settle_in().await?;
        let key = files::new_key(id);
        self.held().insert(key.clone());
        // If the run is dropped in the middle of this, the sweep must see that nobody holds the payload.
        let held = KeyReservation { payloads: self, key: Some(key) };
        let path = Path::from(held.key());
        let (mut size, mut hash) = (0, Xxh3::new());
        // A small payload goes in one step.
        let mut first = BytesMut::new();
        let mut upload: Option<Upload> = None;
        while let Some(chunk) = chunks.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => {
                    if let Some(upload) = upload {
                        upload.abort().await;
                    }
                    return Err(DownloadError::Source { name, error });
                }
            };
            size += chunk.len() as u64;
            hash.update(&chunk);
            if let Err(error) = self.check_room(&name, chunk.len()) {
                if let Some(upload) = upload {
                    upload.abort().await;
                }
                return Err(error);
            }
            match &mut upload {
                None if first.len() + chunk.len() <= PART => first.extend_from_slice(&chunk),
                None => {
                    let opened = {
                        let _begins = self.beginning.read().await;
                        self.make_room_for(held.key())?;
                        Upload::open(&*objects, &path, &name).await
                    };
                    let mut opened = opened?;
                    let buffered = std::mem::take(&mut first).freeze();
                    let written = match opened.write(&name, buffered).await {
                        Ok(()) => opened.write(&name, chunk).await,
                        failed => failed,
                    };
                    if let Err(error) = written {
                        opened.abort().await;
                        return Err(error);
                    }
                    upload = Some(opened);
                }
                Some(opened) => {
                    if let Err(error) = opened.write(&name, chunk).await {
                        if let Some(upload) = upload {
                            upload.abort().await;
                        }
                        return Err(error);
                    }
                }
            }
        }
        match upload {
            Some(upload) => upload.finish(&name).await?,
            None => {
                let _begins = self.beginning.read().await;
                self.make_room_for(held.key())?;
                let put = objects.put(&path, first.freeze().into()).await;
                put.map_err(|error| fault(&name, &error))?;
            }
        }
        self.close(held.key())?;
        let etag = format!("\"{:032x}\"", hash.digest128());
        Ok(KeptPayload { key: held.keep(), name, content_type, size, etag, about })
    }

    /// Refuses a payload that would take the room that others need.
    fn check_room(&self, name: &str, more: usize) -> Result<(), DownloadError> {
        let PayloadBackend::Directory { path, reserve } = &self.place else { return Ok(()) };
        // If the free room cannot be asked for, the write will tell.
        let Ok(free) = fs4::available_space(path) else { return Ok(()) };
        if free.saturating_sub(more as u64) >= *reserve {
            return Ok(());
        }
        let error = format!("{free} bytes are free in {}, and {reserve} are kept for tasks", path.display());
        Err(DownloadError::Full { name: name.to_owned(), error })
    }
}

/// Holds a key until it is handed on.
struct KeyReservation<'a> {
    payloads: &'a Payloads,
    key: Option<String>,
}

impl KeyReservation<'_> {
    fn key(&self) -> &str {
        self.key.as_deref().unwrap_or_default()
    }

    fn keep(mut self) -> String {
        self.key.take().unwrap_or_default()
    }
}

impl Drop for KeyReservation<'_> {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.payloads.held().remove(key);
        }
    }
}

/// A payload that is uploaded in parts.
struct Upload(WriteMultipart);

impl Upload {
    async fn open(objects: &dyn ObjectStore, path: &Path, name: &str) -> Result<Self, DownloadError> {
        let upload = objects.put_multipart(path).await.map_err(|error| fault(name, &error))?;
        Ok(Self(WriteMultipart::new_with_chunk_size(upload, PART)))
    }

    async fn write(&mut self, name: &str, chunk: bytes::Bytes) -> Result<(), DownloadError> {
        // A chunk may be larger than many parts, of which only a few are under way.
        let mut rest = chunk;
        while !rest.is_empty() {
            let next = rest.split_to(rest.len().min(PART));
            self.0.wait_for_capacity(PARTS).await.map_err(|error| fault(name, &error))?;
            self.0.put(next);
        }
        Ok(())
    }

    async fn finish(self, name: &str) -> Result<(), DownloadError> {
        self.0.finish().await.map(drop).map_err(|error| fault(name, &error))
    }

    async fn abort(self) {
        if let Err(error) = self.0.abort().await {
            tracing::debug!(%error, "an upload that has failed leaves something behind until the sweep");
        }
    }
}

/// Checks the name and the type that the download will have, and answers with both.
pub(crate) fn check(about: &About) -> Result<(String, String), DownloadError> {
    let name = about.name.clone().unwrap_or_else(|| "download".to_owned());
    name::check_name(&name)?;
    for (header, value) in &about.headers {
        name::check_header(header, value)?;
    }
    let content_type = match &about.content_type {
        Some(content_type) => content_type.clone(),
        None => mime_guess::from_path(&name).first_or_octet_stream().to_string(),
    };
    name::check_content_type(&content_type)?;
    Ok((name, content_type))
}

/// What an error of the object store means for a download.
pub(super) fn fault(name: &str, error: &object_store::Error) -> DownloadError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(next) = cause {
        if let Some(io) = next.downcast_ref::<io::Error>()
            && is_full(io)
        {
            return DownloadError::Full { name: name.to_owned(), error: io.to_string() };
        }
        cause = next.source();
    }
    DownloadError::Store { name: name.to_owned(), error: error.to_string() }
}

pub(super) fn io_error(name: &str, error: &io::Error) -> DownloadError {
    let (name, text) = (name.to_owned(), error.to_string());
    if is_full(error) {
        return DownloadError::Full { name, error: text };
    }
    DownloadError::Store { name, error: text }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::DownloadSink;

    /// A failed attempt's file is deleted in the background, while the next attempt writes its own.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_payload_is_kept_while_the_one_before_is_deleted() {
        let dir = tempfile::tempdir().expect("a directory");
        let payloads = Payloads::in_directory(dir.path().join("downloads"), 0, true);
        let id = TaskId::new();
        for n in 0..300 {
            let size = if n % 30 == 0 { PART + 1 } else { 10 };
            let kept = payloads.upload(&id, Download::from_bytes(vec![7; size])).await.expect("it is kept");
            payloads.release(&kept.key);
            // The next upload begins before this is done.
            payloads.discard(kept.key);
        }
    }
}
