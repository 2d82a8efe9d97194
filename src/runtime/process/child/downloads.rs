//! The downloads of bodies in a child: their bytes go to the program, which keeps them, chunk by chunk.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::runtime::Handle;

use super::super::protocol::{Blob, CHUNK, ChildAnswer, Question, Up};
use super::client::NO_ANSWER;
use super::uplink::Uplink;
use crate::store::payloads::{check_download, chunks_of_download};
use crate::task::{ByteStream, Download, DownloadError, DownloadSink, KeepPayload, KeptPayload, TaskId};

/// Hands the downloads of bodies over.
pub(super) struct ChildDownloads {
    pub(super) uplink: Arc<Uplink>,
    /// The child's event loop, for streams that look for one.
    pub(super) handle: Handle,
}

impl ChildDownloads {
    /// Hands a download over, and waits until the program has kept it.
    async fn hand_over(&self, download: Download) -> Result<KeptPayload, DownloadError> {
        let Download { source, about } = download;
        let (name, content_type) = check_download(&about)?;
        let chunks = chunks_of_download(source);
        let mut chunks = DownloadChunks {
            stream: chunks.map_err(|error| DownloadError::Source { name: name.clone(), error })?,
            rest: Bytes::new(),
        };
        let mut pending = self.uplink.ask(Question::Keep(about.clone()));
        let (question, room) = (pending.question, Arc::clone(&pending.room));
        // If the body is dropped on the way, the program must not take what it has for the whole file.
        let mut unfinished = Unfinished { uplink: &self.uplink, question, is_over: false };
        let answered = loop {
            let next = async {
                // The room is taken for good: the program makes more when it has taken the chunk.
                if let Ok(place) = room.acquire().await {
                    place.forget();
                }
                chunks.next().await
            };
            let chunk = tokio::select! {
                biased;
                answered = &mut pending.answer => break answered,
                chunk = next => chunk,
            };
            match chunk {
                Some(Ok(bytes)) => self.uplink.push(Up::Chunk { question, bytes: Blob(bytes) }),
                Some(Err(error)) => {
                    unfinished.end(Some(error.to_string()));
                    return Err(DownloadError::Source { name, error });
                }
                None => {
                    unfinished.end(None);
                    pending.withdraws = true;
                    break (&mut pending.answer).await;
                }
            }
        };
        unfinished.is_over = true;
        match answered {
            // The program has the payload, and this stands for it.
            Ok(ChildAnswer::Kept(Ok(()))) => Ok(KeptPayload {
                key: String::new(),
                name,
                content_type,
                size: 0,
                etag: String::new(),
                about,
            }),
            Ok(ChildAnswer::Kept(Err(refusal))) => Err(refusal.into()),
            _ => Err(DownloadError::Store { name, error: NO_ANSWER.to_owned() }),
        }
    }
}

impl DownloadSink for ChildDownloads {
    fn keep<'a>(&'a self, _: &'a TaskId, download: Download) -> KeepPayload<'a> {
        Box::pin(self.hand_over(download))
    }

    fn keep_blocking(&self, _: &TaskId, download: Download) -> Result<KeptPayload, DownloadError> {
        let _entered = self.handle.enter();
        futures_executor::block_on(self.hand_over(download))
    }

    /// The program has the payload of each run, and does this when the run is settled.
    fn release(&self, _: &str) {}

    /// As for [`release`](Self::release).
    fn discard(&self, _: String) {}
}

/// The bytes of a download in chunks that fit a frame.
struct DownloadChunks {
    stream: ByteStream,
    /// What is left of a larger chunk.
    rest: Bytes,
}

impl DownloadChunks {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        while self.rest.is_empty() {
            match self.stream.next().await? {
                Ok(bytes) => self.rest = bytes,
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(self.rest.split_to(self.rest.len().min(CHUNK))))
    }
}

/// A download that is not handed over whole. When this is dropped, the program is told.
struct Unfinished<'a> {
    uplink: &'a Uplink,
    question: u64,
    is_over: bool,
}

impl Unfinished<'_> {
    /// There is no more, or the rest cannot be read.
    fn end(&mut self, error: Option<String>) {
        self.is_over = true;
        self.uplink.push(Up::ChunksEnd { question: self.question, error });
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.end(Some("the body was ended before the file was whole".to_owned()));
        }
    }
}
