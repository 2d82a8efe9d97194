//! What an operator sets for good: it holds through restarts, until it is taken back.

use celeriac::app::ControlError;

use crate::kit::{LONG, add, embedded, status_of, until_status};

#[tokio::test]
async fn a_pause_and_a_size_that_are_kept_hold_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = embedded(dir.path()).await;
    celeriac.persistent().pause("io").await.unwrap();
    celeriac.persistent().resize("cpu", 7).await.unwrap();
    // These are for now only.
    celeriac.pause("one").await.unwrap();
    celeriac.resize("threads", 9).await.unwrap();
    let waiting = add::s(1, 1).queue("io").send(celeriac.client()).await.unwrap();
    celeriac.shutdown().await.unwrap();

    let celeriac = embedded(dir.path()).await;
    let paused = until_status(&celeriac, "io", |status| status.ready == 1).await;
    assert!(paused.paused && paused.running == 0 && paused.done == 0, "{paused:?}");
    let status = async |name: &str| status_of(&celeriac, name).await;
    assert_eq!((status("cpu").await.workers, status("threads").await.workers), (7, 2));
    assert!(!status("one").await.paused);
    // The row is still what the catalogue says.
    assert_eq!(celeriac.catalogue().queue("cpu").unwrap().workers, 2);
    celeriac.resume("io").await.unwrap();
    let client = celeriac.client();
    let record = tokio::time::timeout(LONG, client.wait(waiting.id())).await.unwrap().unwrap();
    assert_eq!(record.result.as_deref(), Some("2"));
    celeriac.shutdown().await.unwrap();

    let celeriac = embedded(dir.path()).await;
    assert!(!status_of(&celeriac, "io").await.paused, "the resume has ended the pause for good");
    assert_eq!(status_of(&celeriac, "cpu").await.workers, 7);
    celeriac.persistent().pause("cpu").await.unwrap();
    celeriac.persistent().reset("cpu").await.unwrap();
    let now = status_of(&celeriac, "cpu").await;
    assert_eq!((now.workers, now.paused), (2, false));
    celeriac.shutdown().await.unwrap();

    let celeriac = embedded(dir.path()).await;
    let after = status_of(&celeriac, "cpu").await;
    assert_eq!((after.workers, after.paused), (2, false));
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_lever_that_is_refused_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = embedded(dir.path()).await;
    assert_eq!(celeriac.persistent().resize("io", 0).await, Err(ControlError::NoWorkers));
    let unknown = celeriac.persistent().pause("oi").await.unwrap_err();
    assert!(matches!(unknown, ControlError::UnknownQueue { .. }), "{unknown}");
    celeriac.shutdown().await.unwrap();
    let celeriac = embedded(dir.path()).await;
    assert_eq!(status_of(&celeriac, "io").await.workers, 4);
    celeriac.shutdown().await.unwrap();
}
