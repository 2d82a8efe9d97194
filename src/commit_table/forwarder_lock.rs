//! The lock by which one process at a time forwards the rows of a SQLite database.
//!
//! SQLite has no lock that a reader could keep while it forwards and that others could write beside. So the lock is one of
//! the operating system, on a file beside the database. It ends with its process, however that ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use crate::task::CommitTableError;

/// What the name of the lock's file has after the name of the database.
const SUFFIX: &str = "-celeriac";

/// Keeps other processes from forwarding for as long as it lives.
pub(super) struct ForwarderLock {
    file: File,
}

/// Unlocks the file and does not only close it: a child that this process has just forked shares the open file.
impl Drop for ForwarderLock {
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::debug!(%error, "the lock of a commit table goes when its file is closed");
        }
    }
}

impl ForwarderLock {
    /// Takes the lock of this database. `None`: another forwarder has it.
    pub(super) fn take(database: &Path) -> Result<Option<Self>, CommitTableError> {
        let mut name = database.as_os_str().to_owned();
        name.push(SUFFIX);
        let path = PathBuf::from(name);
        let failed = |error: std::io::Error| {
            let text = format!("the lock {} cannot be taken: {error}", path.display());
            CommitTableError::of(std::io::Error::new(error.kind(), text), false)
        };
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = opened.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_the_lock_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("orders.db");
        let first = ForwarderLock::take(&database).unwrap().expect("nobody has it");
        assert!(ForwarderLock::take(&database).unwrap().is_none());
        drop(first);
        assert!(ForwarderLock::take(&database).unwrap().is_some());
        let nowhere = ForwarderLock::take(&dir.path().join("no/orders.db")).err().unwrap();
        assert!(nowhere.to_string().contains("no/orders.db-celeriac cannot be taken"), "{nowhere}");
    }
}
