//! Directories of services.
//!
//! They are below `target/`, named after the test's process. Services that many tests share live as long as their
//! process, and nobody is left to tidy up after them: whoever makes a directory removes those of processes that are gone.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of its own, removed with its last user.
pub struct Home(PathBuf);

impl Home {
    pub fn new(service: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let root = target().join("tmp/services");
        std::fs::create_dir_all(&root).expect("a directory below target/");
        sweep(&root);
        let name = format!("{}-{}-{service}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = root.join(name);
        let _ = std::fs::remove_dir_all(&path); // of an earlier process that had this pid
        std::fs::create_dir(&path).expect("a directory for a service");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Home {
    /// What a failed test leaves is kept until the next test, for whoever wants to know why.
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the files of the service are in {}", self.0.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// The directory `target/`. Cargo tells it to tests and not to a library, but a test lies in `target/PROFILE/deps/`.
pub(super) fn target() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    test.ancestors().nth(3).expect("tests lie in target/PROFILE/deps").to_owned()
}

fn sweep(root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
