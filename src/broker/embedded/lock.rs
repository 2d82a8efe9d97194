//! One process owns a store.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::tables::io_error;
use crate::broker::BrokerError;

/// Keeps other processes out of a store as long as it lives.
pub(super) struct DirLock {
    _file: File,
}

impl DirLock {
    /// Makes the directory if needed and takes its lock.
    pub(super) fn take(dir: &Path) -> Result<Self, BrokerError> {
        std::fs::create_dir_all(dir).map_err(|e| io_error(dir, &e))?;
        let path: PathBuf = dir.join("lock");
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| io_error(&path, &e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = file.read_to_string(&mut owner);
                let owner = Some(owner.trim()).filter(|o| !o.is_empty()).unwrap_or("(not known)").to_owned();
                return Err(BrokerError::InUse { path: dir.to_owned(), owner });
            }
            Err(TryLockError::Error(error)) => {
                return Err(BrokerError::Io(format!(
                    "the lock {} cannot be taken: {error}; the store needs a file system with locks",
                    path.display()
                )));
            }
        }
        let stamped = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
        if let Err(error) = stamped {
            tracing::debug!(%error, "the lock is held, but its file does not say by whom");
        }
        Ok(Self { _file: file })
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
}
