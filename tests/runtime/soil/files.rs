//! Tasks that make files, and ways to look at them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use celeriac::soil::{Download, DownloadError};
use celeriac::{Celeriac, Context, TaskError, TaskId, task};
use futures_util::StreamExt;

use crate::kit::Gate;

/// Bytes that tell where they are.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[3]).collect()
}

/// Exposes a file, and waits at the gate after that.
#[task(queue = "io")]
pub async fn export(ctx: Context, gate: String, text: String) -> Result<(), TaskError> {
    let download =
        Download::from_bytes(text).name("cases.csv").owner("u1").header("X-Download-Domain", "demo");
    ctx.expose_download(download).await?;
    Gate::named(&gate).pass().await;
    Ok(())
}

/// Exposes so many bytes, from a source of this kind, on a thread.
#[task(queue = "cpu", max_retries = 0)]
pub fn export_from(ctx: &Context, kind: String, path: PathBuf, len: usize) -> Result<(), TaskError> {
    let chunks = || pattern(len).chunks(77_777).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let download = match kind.as_str() {
        "bytes" => Download::from_bytes(pattern(len)),
        "file" => Download::from_file(path),
        "reader" => Download::from_reader(std::io::Cursor::new(pattern(len))),
        "zip" => Download::from_dir_zipped(path),
        "broken" => Download::from_stream(futures_util::stream::iter(
            chunks().into_iter().map(|chunk| Ok(chunk.into())).chain([Err(std::io::Error::other("cut off"))]),
        )),
        _ => Download::from_stream(futures_util::stream::iter(chunks()).map(|chunk| Ok(chunk.into()))),
    };
    ctx.expose_download_blocking(download)?;
    Ok(())
}

/// All bytes, or those of a range.
pub async fn read(
    celeriac: &Celeriac,
    id: &TaskId,
    range: Option<Range<u64>>,
) -> Result<Vec<u8>, DownloadError> {
    let open = celeriac.soil().open(id, range).await?;
    let length = open.range.end - open.range.start;
    let chunks: Vec<_> = open.body.collect().await;
    let bytes: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.unwrap()).collect();
    assert_eq!(bytes.len() as u64, length);
    Ok(bytes)
}

/// Files of a directory and those below, by their names inside.
pub fn files_in(dir: &Path) -> Vec<String> {
    let (mut files, mut open) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                files.push(path.strip_prefix(dir).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    files.sort();
    files
}
