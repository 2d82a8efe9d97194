//! Reads the chunks of a download from its source.
//!
//! A source that can only be read by blocking is read on a thread of its own, through a channel with a few places.
//! The thread waits when the store is slower, and ends when nobody takes its chunks any more.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::task::{ByteStream, DownloadSource};

const CHUNK: usize = 256 << 10;
const PLACES: usize = 8;
/// The size in bytes from which on ZIP writes the sizes of files in another way.
const LARGE: u64 = u32::MAX as u64;

/// The chunks of a source.
pub(crate) fn chunks(source: DownloadSource) -> io::Result<ByteStream> {
    match source {
        DownloadSource::Bytes(bytes) => Ok(futures_util::stream::iter([Ok(bytes)]).boxed()),
        DownloadSource::Stream(stream) => Ok(stream),
        DownloadSource::Reader(mut reader) => on_thread(move |sink| io::copy(&mut reader, sink).map(drop)),
        DownloadSource::File(path) => {
            let mut file = open(&path)?;
            on_thread(move |sink| io::copy(&mut file, sink).map(drop))
        }
        DownloadSource::ZippedDirectory(directory) => {
            let files = files_of(&directory)?;
            on_thread(move |sink| zip(&directory, files, sink))
        }
    }
}

fn named(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path).map_err(named(path))?;
    if file.metadata()?.is_dir() {
        let error = format!("{} is a directory: use `Download::from_dir_zipped`", path.display());
        return Err(io::Error::new(io::ErrorKind::IsADirectory, error));
    }
    Ok(file)
}

/// The files of a directory and of those below it, in order. Links are left out, because they may lead anywhere.
fn files_of(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut files, mut open) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).map_err(named(&next))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

fn zip(directory: &Path, files: Vec<PathBuf>, sink: &mut ChunkSink) -> io::Result<()> {
    let mut archive = ZipWriter::new_stream(sink);
    for path in files {
        let mut file = open(&path)?;
        let large = file.metadata()?.len() >= LARGE;
        let inside = path.strip_prefix(directory).unwrap_or(&path);
        let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
        archive.start_file(parts.join("/"), SimpleFileOptions::default().large_file(large))?;
        io::copy(&mut file, &mut archive)?;
    }
    archive.finish()?.into_inner().flush()
}

/// Runs a producer on a thread of its own; if it fails, its error is the last chunk.
fn on_thread(
    produce: impl FnOnce(&mut ChunkSink) -> io::Result<()> + Send + 'static,
) -> io::Result<ByteStream> {
    let (chunks, taken) = mpsc::channel(PLACES);
    let run = move || {
        let mut sink = ChunkSink { chunks, buffer: BytesMut::with_capacity(CHUNK) };
        let produced = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            produce(&mut sink).and_then(|()| sink.flush())
        }));
        let end = produced.unwrap_or_else(|panic| Err(io::Error::other(crate::task::panic_message(panic))));
        if let Err(error) = end {
            // If nobody receives it, the upload has ended, and knows why.
            let _ = sink.chunks.blocking_send(Err(error));
        }
    };
    std::thread::Builder::new().name("celeriac-file".to_owned()).spawn(run)?;
    let next =
        |mut taken: mpsc::Receiver<io::Result<Bytes>>| async move { Some((taken.recv().await?, taken)) };
    Ok(futures_util::stream::unfold(taken, next).boxed())
}

/// Cuts what is written to it into chunks.
struct ChunkSink {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    buffer: BytesMut,
}

impl Write for ChunkSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == CHUNK {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(CHUNK)).freeze();
        self.chunks.blocking_send(Ok(chunk)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    async fn all(source: DownloadSource) -> io::Result<Vec<u8>> {
        let mut chunks = chunks(source)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk?);
        }
        Ok(bytes)
    }

    #[tokio::test]
    async fn a_directory_becomes_an_archive_without_its_links() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("b/c")).unwrap();
        let large = vec![7; 3 * CHUNK + 5];
        std::fs::write(dir.path().join("a.txt"), "hello").unwrap();
        std::fs::write(dir.path().join("b/c/large.bin"), &large).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        let bytes = all(DownloadSource::ZippedDirectory(dir.path().to_owned())).await.unwrap();
        let mut archive = zip::ZipArchive::new(io::Cursor::new(bytes)).unwrap();
        let names: Vec<_> = archive.file_names().map(str::to_owned).collect();
        assert_eq!(names, ["a.txt", "b/c/large.bin"]);
        let mut read = Vec::new();
        archive.by_name("b/c/large.bin").unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, large);
    }

    #[tokio::test]
    async fn what_cannot_be_read_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let gone = all(DownloadSource::File(dir.path().join("gone"))).await.unwrap_err();
        assert!(gone.to_string().contains("gone: "), "{gone}");
        let directory = all(DownloadSource::File(dir.path().to_owned())).await.unwrap_err();
        assert!(directory.to_string().contains("use `Download::from_dir_zipped`"), "{directory}");
        struct Bad;
        impl Read for Bad {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                panic!("bad reader")
            }
        }
        let panicked = all(DownloadSource::Reader(Box::new(Bad))).await.unwrap_err();
        assert!(panicked.to_string().contains("bad reader"), "{panicked}");
    }
}
