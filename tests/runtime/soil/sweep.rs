//! One deadline for a record and its file; nothing is left over.

use std::time::Duration;

use celeriac::soil::{Download, SoilState};
use celeriac::{Context, TaskError, task};

use super::files::{files_in, read};
use crate::kit::{LONG, embedded, on_both};

/// Exposes a file that goes after so many milliseconds.
#[task(queue = "io")]
async fn short_lived(ctx: Context, millis: u64) -> Result<(), TaskError> {
    let download = Download::from_bytes("x").expires_in(Duration::from_millis(millis));
    ctx.expose_download(download).await?;
    Ok(())
}

#[tokio::test]
async fn an_expired_file_is_gone_and_not_unknown() {
    on_both(|celeriac| async move {
        let soil = celeriac.soil();
        let task = short_lived::s(0).send(celeriac.client()).await.unwrap();
        crate::kit::until("it is gone", async || soil.status(task.id()).await.unwrap().gone).await;
        assert!(read(&celeriac, task.id(), None).await.is_err());
        for _ in 0..2 {
            celeriac.sweep_results().await.unwrap();
            let seen = soil.status(task.id()).await.unwrap();
            assert_eq!((seen.state, seen.gone, seen.next_poll_ms), (SoilState::Missing, true, None));
        }
        assert!(!soil.status(&"another".into()).await.unwrap().gone);
    })
    .await;
}

#[tokio::test]
async fn record_and_file_go_together() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = embedded(dir.path()).await;
    let downloads = dir.path().join("downloads");
    let payloads = || {
        files_in(&downloads)
            .into_iter()
            .filter(|file| file.starts_with("celeriac-downloads/payload/"))
            .count()
    };
    let (stays, goes) = (short_lived::s(3_600_000), short_lived::s(0));
    let stays = stays.send(celeriac.client()).await.unwrap();
    stays.get(LONG).await.unwrap();
    let goes = goes.send(celeriac.client()).await.unwrap();
    crate::kit::until("it is gone", async || celeriac.soil().status(goes.id()).await.unwrap().gone).await;
    // What a process that was killed has left: a file aside, and one that no record names.
    let all = downloads.join("celeriac-downloads/payload");
    let orphan = all.join("0199a0b0-1234-7abc-8def-0123456789ab");
    std::fs::create_dir_all(&orphan).unwrap();
    std::fs::write(orphan.join("0199a0b0-1234-7abc-8def-000000000001"), "orphan").unwrap();
    std::fs::write(orphan.join("0199a0b0-1234-7abc-8def-000000000002#3"), "cut off").unwrap();
    let second = all.join(stays.id().as_str()).join("0199a0b0-1234-7abc-8def-000000000003");
    std::fs::write(&second, "superseded").unwrap();
    assert_eq!(payloads(), 5);
    celeriac.sweep_results().await.unwrap();
    assert_eq!(payloads(), 1, "{:?}", files_in(&downloads));
    assert_eq!(read(&celeriac, stays.id(), None).await.unwrap(), b"x");
    assert!(!celeriac.soil().status(stays.id()).await.unwrap().gone);
    // A result that is forgotten takes its file along.
    assert!(celeriac.soil().forget(stays.id()).await.unwrap());
    assert_eq!(payloads(), 0);
    assert!(celeriac.soil().status(stays.id()).await.unwrap().gone);
    celeriac.shutdown().await.unwrap();
}
