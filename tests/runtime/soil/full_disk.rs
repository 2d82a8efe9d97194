//! A payload disk that is full: the task fails and says so, no half file is served or left, and it goes on when there is room.
//!
//! It mounts a small disk in memory, which takes the right to do so.

use std::process::Command;

use celeriac::State;

use super::files::{export_from, files_in, pattern, read};
use crate::kit::{builder, record};

const MIB: usize = 1 << 20;

/// A disk of some MiB.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount(mib: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).status();
        assert!(mounted.unwrap().success(), "this test mounts a small disk: run it as root");
        Self(dir)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "the disk is unmounted");
    }
}

#[tokio::test]
async fn a_full_payload_disk_fails_the_task_and_nothing_else() {
    let (home, disk) = (tempfile::tempdir().unwrap(), Disk::mount(8));
    let files = disk.0.path().join("files");
    let celeriac = builder().directory(home.path()).downloads_in(&files).start().await.unwrap();
    let source = home.path().join("source.bin");
    std::fs::write(&source, pattern(12 * MIB)).unwrap();
    for kind in ["bytes", "file", "reader", "stream"] {
        let task =
            export_from::s(kind.into(), source.clone(), 12 * MIB).send(celeriac.client()).await.unwrap();
        let record = record(&task).await;
        assert_eq!(record.state, State::Failure, "{kind}");
        assert!(record.errors[0].contains("there is no room for download"), "{kind}: {:?}", record.errors);
        assert!(!celeriac.soil().status(task.id()).await.unwrap().has_file(), "{kind}");
        assert!(read(&celeriac, task.id(), None).await.is_err(), "{kind}");
        celeriac.sweep_results().await.unwrap();
        let left = files_in(&files);
        // The marker, and what says that a forgotten one was there, may stay.
        let is_payload =
            |file: &&String| file.starts_with("celeriac-downloads/payload/") || file.contains('#');
        let left: Vec<&String> = left.iter().filter(is_payload).collect();
        assert!(left.is_empty(), "{kind}: {left:?}");
        let small = export_from::s(kind.into(), source.clone(), MIB);
        if kind != "file" {
            let task = small.send(celeriac.client()).await.unwrap();
            assert_eq!(
                crate::kit::record(&task).await.state,
                State::Success,
                "{kind}: there is room for this one"
            );
            assert!(read(&celeriac, task.id(), None).await.unwrap() == pattern(MIB), "{kind}");
            assert!(task.forget().await.unwrap());
            celeriac.sweep_results().await.unwrap();
        }
    }
    celeriac.shutdown().await.unwrap();
}
