//! A copy of a store that is examined in place of the store, so that the store itself stays as it is.
//!
//! The database changes its files when it opens them: it cuts off journals, merges table files, and deletes files
//! that it does not know. So a damaged store is never opened where it lies. Table files do not change once they
//! are written; they are linked and take no room. The other files are copied, those of the log among them.

use std::path::{Path, PathBuf};

use super::lock::DirLock;
use super::tables::{Tables, io_error};
use super::{acknowledged, files, home, hot_log, journal};
use crate::broker::BrokerError;

/// The content of the database's file `version`, written if that file is lost.
const VERSION: &[u8] = b"FJL\x03";

/// The copy. Dropping it deletes it.
pub(super) struct Copy {
    store: PathBuf,
    dir: PathBuf,
    tables: Option<Tables>,
    /// Damage that was found while copying, in words.
    pub(super) damage: Vec<String>,
    /// What a crash has left unfinished and does no harm, in words.
    pub(super) notes: Vec<String>,
    _lock: Option<DirLock>,
}

impl Copy {
    /// Copies what can be opened of the store in `store`.
    pub(super) fn of(store: &Path) -> Result<Self, BrokerError> {
        let (mut damage, notes) = (Vec::new(), Vec::new());
        let mut is_made = true;
        match home::examine(store) {
            Ok(found) => is_made = found.is_made(),
            Err(BrokerError::Damaged { path, error }) => damage.push(format!("{}: {error}", path.display())),
            Err(error) => return Err(error),
        }
        if !is_made || !store.join("db").is_dir() {
            super::require_store(store)?;
        }
        let lock = DirLock::take_of(store)?;
        // A process of the same id may have been killed and have left a copy. Nothing is written to that one, because
        // its table files are those of the store.
        let name = |n: u32| store.join(format!("copy-{}-{n}", std::process::id()));
        let dir = (0..).map(name).find(|dir| dir.symlink_metadata().is_err());
        Self::copied(store, dir.unwrap_or_else(|| name(0)), damage, notes, Some(lock))
    }

    /// As [`of`](Self::of), of a store whose lock is held and whose tables are closed, in this directory.
    pub(super) fn beside(store: &Path, dir: &Path) -> Result<Self, BrokerError> {
        Self::copied(store, dir.to_owned(), Vec::new(), Vec::new(), None)
    }

    fn copied(
        store: &Path,
        dir: PathBuf,
        mut damage: Vec<String>,
        mut notes: Vec<String>,
        lock: Option<DirLock>,
    ) -> Result<Self, BrokerError> {
        let mark = acknowledged::read(store).map_err(|e| io_error(store, e))?;
        let has_log = hot_log::is_there(&store.join("db"));
        let found = home::examine(store).ok();
        let has_journal = found.map_or(!has_log, |found| found.has_journal(has_log));
        match journal::examine(&store.join("db"), true, mark.filter(|_| has_journal)) {
            Ok(torn) => notes.extend(torn.iter().map(|torn| {
                format!(
                    "db/{}: the last write was cut short, and not acknowledged",
                    torn.path.file_name().unwrap_or_default().to_string_lossy()
                )
            })),
            Err(BrokerError::Damaged { path, error }) => damage.push(format!("{}: {error}", path.display())),
            Err(error) => return Err(error),
        }
        home::make_own(&dir)?;
        let mut copy = Self { store: store.to_owned(), dir, tables: None, damage, notes, _lock: lock };
        copy_all(&store.join("db"), &copy.dir.join("db"))?;
        let tables = copy.open()?;
        let log = store.join("db").join(hot_log::DIR);
        if !has_log && (found == Some(home::DirectoryContents::Made) || tables.has_had_log()) {
            copy.damage.push(format!("{}: the log is not there", log.display()));
        }
        // Damage that hides the last commit is told when the rows are read.
        match tables.check_reaches(&log, mark.filter(|_| !has_journal)) {
            Err(BrokerError::Damaged { path, error }) if path == log => {
                copy.damage.push(format!("{}: {error}", path.display()));
            }
            _ => {}
        }
        Ok(copy)
    }

    fn open(&mut self) -> Result<Tables, BrokerError> {
        let db = self.dir.join("db");
        let version = db.join("version");
        if std::fs::read(&version).ok().as_deref() != Some(VERSION) {
            self.damage.push("db/version: it is damaged or lost".to_owned());
            std::fs::write(&version, VERSION).map_err(|e| io_error(&version, e))?;
        }
        let unread = journal::keep_readable(&db)?;
        if self.notes.is_empty() {
            self.damage.extend(unread); // otherwise it is the write that was cut short
        }
        self.damage.extend(files::keep_readable(&db)?);
        let (tables, mut damage, mut notes) = Tables::open_copy(&self.dir)?;
        self.damage.append(&mut damage);
        self.notes.append(&mut notes);
        self.tables = Some(tables.clone());
        Ok(tables)
    }

    /// The table files of the store that are damaged, in words, if there is any damage: the database does not say in
    /// which file the rows lie that it cannot read. Files that `damage` names are left out.
    pub(super) fn damaged_files(&self, damage: &[String]) -> Vec<String> {
        if damage.is_empty() {
            return Vec::new();
        }
        let mut files = files::unsound(&self.store.join("db"));
        files.retain(|file| !damage.iter().any(|text| text.starts_with(&format!("{file}:"))));
        let tell = |file: String| format!("{file}: its checksum does not match, so a part of it is damaged");
        files.into_iter().map(tell).collect()
    }

    pub(super) fn tables(&self) -> Result<Tables, BrokerError> {
        self.tables.clone().ok_or(BrokerError::Closed)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Some(tables) = self.tables.take() {
            tables.close();
        }
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::warn!(path = %self.dir.display(), %error, "the copy that was looked at is left; it may be deleted");
        }
    }
}

fn copy_all(from: &Path, to: &Path) -> Result<(), BrokerError> {
    home::make(to)?;
    for entry in std::fs::read_dir(from).map_err(|e| io_error(from, e))? {
        let entry = entry.map_err(|e| io_error(from, e))?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        let is_table = from.ends_with("tables");
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            copy_all(&path, &copy)?;
        } else if !(is_table && std::fs::hard_link(&path, &copy).is_ok()) {
            std::fs::copy(&path, &copy).map_err(|e| io_error(&path, e))?;
        }
    }
    Ok(())
}
