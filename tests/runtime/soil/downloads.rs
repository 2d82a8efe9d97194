//! Files are there when they are ready, and not before.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use celeriac::soil::{Download, DownloadError, DownloadFacts, SoilState};
use celeriac::{Context, State, TaskError, TaskId, task};

use super::files::{export, export_from, files_in, pattern, read};
use crate::kit::{Gate, LONG, builder, embedded, on_both, record, resident};

/// Exposes a file in each attempt; the first one fails after that.
#[task(queue = "io", max_retries = 1, default_retry_delay = "0s", ignore_result)]
async fn second_try(ctx: Context) -> Result<(), TaskError> {
    let attempt = ctx.attempt();
    ctx.expose_download(Download::from_bytes("thrown away")).await?;
    ctx.expose_download(Download::from_bytes(format!("attempt {attempt}")).name("tries.txt")).await?;
    if attempt == 1 {
        return Err(TaskError::transient("not yet"));
    }
    Ok(())
}

/// Exposes under a name.
#[task(queue = "io", max_retries = 0)]
async fn named(ctx: Context, name: String) -> Result<(), TaskError> {
    ctx.expose_download(Download::from_bytes("x").name(name)).await?;
    Ok(())
}

/// Exposes, and has failed.
#[task(queue = "io")]
async fn exposes_and_fails(ctx: Context, before: bool) -> Result<(), TaskError> {
    if before {
        ctx.fail(["no"]);
    }
    ctx.expose_download(Download::from_bytes("never seen")).await?;
    if !before {
        ctx.fail(["no"]);
    }
    Ok(())
}

#[tokio::test]
async fn a_file_is_there_when_it_is_ready_and_not_before() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let text = "name,age\nAmina,31\n";
        let task = export::s(gate.name.clone(), text.into()).send(celeriac.client()).await.unwrap();
        gate.entered(1).await;
        let soil = celeriac.soil();
        let seen = soil.status(task.id()).await.unwrap();
        assert_eq!((seen.state, seen.download), (SoilState::Started, None));
        assert!(matches!(read(&celeriac, task.id(), None).await, Err(DownloadError::Missing(_))));
        celeriac.sweep_results().await.unwrap(); // takes nothing that a run holds
        gate.open();
        record(&task).await;
        let seen = soil.status(task.id()).await.unwrap();
        assert!(seen.is_ready() && seen.has_file());
        let facts = seen.download.clone().unwrap();
        assert_eq!((facts.name.as_str(), facts.size), ("cases.csv", text.len() as u64));
        assert_eq!(facts.content_type, "text/csv");
        assert_eq!((facts.owners.clone(), facts.headers.len()), (vec!["u1".to_owned()], 1));
        assert!(facts.etag.starts_with('"') && facts.etag.ends_with('"'));
        assert_eq!(read(&celeriac, task.id(), None).await.unwrap(), text.as_bytes());
        celeriac.sweep_results().await.unwrap(); // nor what a record names
        assert_eq!(read(&celeriac, task.id(), Some(5..8)).await.unwrap(), b"age");
        assert_eq!(read(&celeriac, task.id(), Some(9..u64::MAX)).await.unwrap(), b"Amina,31\n");
        for start in [18, 19, u64::MAX] {
            let beyond = read(&celeriac, task.id(), Some(start..u64::MAX)).await;
            assert!(matches!(beyond, Err(DownloadError::Range { size: 18, .. })), "{beyond:?}");
        }
        let told = serde_json::to_string(&seen).unwrap();
        assert!(told.contains("cases.csv") && !told.contains("u1"), "owners are nobody's business: {told}");
    })
    .await;
}

#[tokio::test]
async fn bytes_come_from_anywhere() {
    let files = tempfile::tempdir().unwrap();
    let (file, directory) = (files.path().join("report.bin"), files.path().join("photos"));
    let len = 12_000_000;
    std::fs::write(&file, pattern(len)).unwrap();
    std::fs::create_dir_all(directory.join("b")).unwrap();
    std::fs::write(directory.join("b/x.bin"), pattern(len)).unwrap();
    on_both(|celeriac| {
        let (file, directory) = (file.clone(), directory.clone());
        async move {
            for (kind, path, name) in [
                ("bytes", PathBuf::new(), "download"),
                ("stream", PathBuf::new(), "download"),
                ("reader", PathBuf::new(), "download"),
                ("file", file, "report.bin"),
            ] {
                let task = export_from::s(kind.into(), path, len).send(celeriac.client()).await.unwrap();
                task.get(LONG).await.unwrap();
                assert_eq!(celeriac.soil().download(task.id()).await.unwrap().name, name);
                assert!(read(&celeriac, task.id(), None).await.unwrap() == pattern(len), "{kind}");
                let range = 5_000_000..9_000_123;
                let part = read(&celeriac, task.id(), Some(range)).await.unwrap();
                assert!(part == pattern(len)[5_000_000..9_000_123], "{kind}");
            }
            let task = export_from::s("zip".into(), directory, 0).send(celeriac.client()).await.unwrap();
            task.get(LONG).await.unwrap();
            let facts = celeriac.soil().download(task.id()).await.unwrap();
            assert_eq!((facts.name.as_str(), facts.content_type.as_str()), ("photos.zip", "application/zip"));
            assert!(read(&celeriac, task.id(), None).await.unwrap().starts_with(b"PK"));
        }
    })
    .await;
}

#[tokio::test]
async fn the_run_that_succeeds_is_the_one_whose_file_is_seen() {
    on_both(|celeriac| async move {
        let task = second_try::s().send(celeriac.client()).await.unwrap();
        crate::kit::until("it is ready", async || {
            celeriac.soil().status(task.id()).await.unwrap().state == SoilState::Success
        })
        .await;
        // There is a record although its result is of no interest.
        assert_eq!(read(&celeriac, task.id(), None).await.unwrap(), b"attempt 2");
    })
    .await;
}

#[tokio::test]
async fn what_fails_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = embedded(dir.path()).await;
    for before in [true, false] {
        let task = exposes_and_fails::s(before).send(celeriac.client()).await.unwrap();
        assert_eq!(record(&task).await.errors, ["no"]);
        assert!(matches!(read(&celeriac, task.id(), None).await, Err(DownloadError::Missing(_))));
    }
    for len in [0, 1_000, 20_000_000] {
        let task =
            export_from::s("broken".into(), PathBuf::new(), len).send(celeriac.client()).await.unwrap();
        let record = record(&task).await;
        assert_eq!(record.state, State::Failure);
        assert!(record.errors[0].contains("`download` could not be read: cut off"), "{:?}", record.errors);
        assert!(!celeriac.soil().status(task.id()).await.unwrap().has_file());
    }
    let missing = dir.path().join("no such file");
    let task = export_from::s("file".into(), missing, 0).send(celeriac.client()).await.unwrap();
    assert!(record(&task).await.errors[0].contains("No such file"));
    celeriac.sweep_results().await.unwrap();
    let left: Vec<_> = files_in(&dir.path().join("downloads"));
    assert_eq!(left, ["celeriac-downloads/LAYOUT"], "the marker, and nothing else");
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_name_that_is_a_trick_fails_the_task() {
    on_both(|celeriac| async move {
        for name in ["../x", "a\r\nSet-Cookie: b", "", "/etc/passwd"] {
            let task = named::s(name.into()).send(celeriac.client()).await.unwrap();
            let record = record(&task).await;
            assert!(record.errors[0].contains("cannot be the name of a download"), "{:?}", record.errors);
        }
        let name = "Fälle \"neu\".csv";
        let task = named::s(name.into()).send(celeriac.client()).await.unwrap();
        task.get(LONG).await.unwrap();
        assert_eq!(celeriac.soil().download(task.id()).await.unwrap().name, name);
    })
    .await;
}

#[tokio::test]
async fn who_is_to_be_told_is_told_when_the_file_is_there() {
    let told = Arc::new(Mutex::new(Vec::<(TaskId, DownloadFacts)>::new()));
    let hook = Arc::clone(&told);
    let builder = builder().in_memory();
    let celeriac = builder
        .on_ready(move |ctx, facts| hook.lock().unwrap().push((ctx.id().clone(), facts.clone())))
        .start()
        .await
        .unwrap();
    let gate = Gate::new();
    gate.open();
    let task = export::s(gate.name.clone(), "x".into()).send(celeriac.client()).await.unwrap();
    let failing = exposes_and_fails::s(false).send(celeriac.client()).await.unwrap();
    record(&task).await;
    record(&failing).await;
    crate::kit::until("it is told", async || !told.lock().unwrap().is_empty()).await;
    celeriac.shutdown().await.unwrap();
    let told = told.lock().unwrap();
    let [(id, facts)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((id, facts.name.as_str()), (task.id(), "cases.csv"));
}

#[tokio::test]
async fn a_file_that_no_task_made_has_an_id_too() {
    on_both(|celeriac| async move {
        let soil = celeriac.soil();
        let hour = Duration::from_secs(3600);
        let id = soil.expose_cached_download("a,b\n", hour, ".csv").await.unwrap();
        assert!(id.as_str().starts_with("dl-") && id.as_str().len() == 35);
        let facts = soil.status(&id).await.unwrap().download.unwrap();
        assert_eq!((facts.name.as_str(), facts.content_type.as_str()), ("download.csv", "text/csv"));
        assert_eq!(facts.expires_at, facts.created + hour);
        assert_eq!(read(&celeriac, &id, None).await.unwrap(), b"a,b\n");
        assert!(soil.expose_cached_download("x", hour, "../x").await.is_err());
        assert!(soil.forget(&id).await.unwrap());
        let seen = soil.status(&id).await.unwrap();
        assert_eq!((seen.state, seen.gone), (SoilState::Missing, true));
    })
    .await;
}

#[tokio::test]
async fn a_program_without_a_place_for_files_says_so() {
    use celeriac::broker::MemoryBroker;
    use celeriac::store::MemoryStore;
    let store = Arc::new(MemoryStore::default());
    let broker = Arc::new(MemoryBroker::new(Arc::clone(&store)));
    let celeriac = builder().broker(broker, store).start().await.unwrap();
    let task = named::s("a.csv".into()).send(celeriac.client()).await.unwrap();
    let record = record(&task).await;
    assert!(record.errors[0].contains("call `downloads_in(directory)`"), "{:?}", record.errors);
    celeriac.shutdown().await.unwrap();
}

#[test]
fn large_files_flow_through() {
    crate::kit::alone("soil::downloads::large_files_flow_through_alone");
}

/// Half a gigabyte in and out, or as many MiB as `CELERIAC_TEST_DOWNLOAD_MIB` says, with the memory of 100 MiB at most.
#[tokio::test]
#[ignore = "run by large_files_flow_through, in a process of its own"]
async fn large_files_flow_through_alone() {
    use futures_util::StreamExt;

    static MOST: AtomicUsize = AtomicUsize::new(0);
    let look = || {
        MOST.fetch_max(resident(), Ordering::Relaxed);
        MOST.load(Ordering::Relaxed)
    };

    #[task(queue = "cpu")]
    fn large(ctx: &Context, chunks: usize) -> Result<(), TaskError> {
        let chunk = bytes::Bytes::from(pattern(1 << 20));
        let stream = futures_util::stream::iter(0..chunks).map(move |n| {
            if n % 16 == 0 {
                MOST.fetch_max(resident(), Ordering::Relaxed);
            }
            Ok(chunk.clone())
        });
        ctx.expose_download_blocking(Download::from_stream(stream).name("large.bin"))?;
        Ok(())
    }
    let dir = tempfile::tempdir().unwrap();
    let celeriac = embedded(dir.path()).await;
    let chunks = std::env::var("CELERIAC_TEST_DOWNLOAD_MIB").map_or(512, |mib| mib.parse().unwrap());
    let before = resident();
    let start = std::time::Instant::now();
    let task = large::s(chunks).send(celeriac.client()).await.unwrap();
    task.get(5 * LONG).await.unwrap();
    let (writing, written) = (look(), start.elapsed());
    MOST.store(resident(), Ordering::Relaxed);
    let mut body = celeriac.soil().open(task.id(), None).await.unwrap().body;
    let (mut size, mut looked) = (0, 0);
    while let Some(chunk) = body.next().await {
        size += chunk.unwrap().len();
        if size >> 24 > looked {
            looked = size >> 24;
            look();
        }
    }
    let (reading, took) = (look(), start.elapsed().saturating_sub(written));
    println!(
        "{chunks} MiB: written in {written:?}, read in {took:?}; memory {before} kB before, at most {writing} kB while it \
         was written and {reading} kB while it was read"
    );
    let most = writing.max(reading);
    assert_eq!(size, chunks << 20);
    assert!(most < before + 100 * 1024, "{before} kB grew to {most} kB");
    celeriac.shutdown().await.unwrap();
}
