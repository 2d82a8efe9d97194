//! The lock on a store's directory: one process owns a store.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::home;
use super::tables::io_error;
use crate::broker::BrokerError;

/// Keeps other processes out of a store for as long as it lives.
pub(super) struct DirLock {
    file: File,
}

/// Unlocks the file and does not only close it: a child that this process has just forked shares the open file
/// until the child has become another program, and would hold the lock for that long.
impl Drop for DirLock {
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::debug!(%error, "the lock of a store goes when its file is closed");
        }
    }
}

impl DirLock {
    /// Makes the directory if needed and takes its lock. Refuses a directory that is not a store's before it
    /// changes anything.
    pub(super) fn take(dir: &Path) -> Result<Self, BrokerError> {
        home::examine(dir)?;
        home::make(dir)?;
        Self::take_of(dir)
    }

    /// Takes the lock of a directory that is there, whatever else is in it.
    pub(super) fn take_of(dir: &Path) -> Result<Self, BrokerError> {
        let path: PathBuf = dir.join("lock");
        let mut file = home::private()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| io_error(&path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = file.read_to_string(&mut owner);
                let owner = Some(owner.trim()).filter(|o| !o.is_empty()).unwrap_or("(not known)").to_owned();
                return Err(BrokerError::InUse { path: dir.to_owned(), owner });
            }
            Err(TryLockError::Error(error)) => {
                let text = format!(
                    "the lock {} cannot be taken: {error}; the store needs a file system with locks",
                    path.display()
                );
                return Err(BrokerError::io_because(text, error));
            }
        }
        let stamped = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
        if let Err(error) = stamped {
            tracing::debug!(%error, "the lock is held, but its file does not say by whom");
        }
        Ok(Self { file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let held = DirLock::take(dir.path()).unwrap();
        let error = DirLock::take(dir.path()).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(held);
        assert!(DirLock::take(dir.path()).is_ok());
    }

    #[test]
    fn a_child_that_was_just_forked_does_not_hold_it() {
        let dir = tempfile::tempdir().unwrap();
        let held = DirLock::take(dir.path()).unwrap();
        let of_the_child = held.file.try_clone().unwrap();
        drop(held);
        assert!(DirLock::take(dir.path()).is_ok());
        drop(of_the_child);
    }
}
