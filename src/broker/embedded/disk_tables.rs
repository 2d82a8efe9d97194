//! The database on disk, and the only code that talks to it.
//!
//! It gets rows from the [log](super::hot_log), a whole memtable at a time, in order. Each table of a memtable becomes a sorted table
//! file past the database's own journal and memory. So the database's journal stays empty, but for the commits of an earlier
//! version, which wrote each commit there; they go to table files when this version opens the store first.
//!
//! Whatever the database does with a damaged file, even a panic, becomes an error that names the directory.

use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fjall::{
    AbstractTree, CompressionType, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode,
    Readable, Snapshot,
};

use super::home;
use super::tables::{NAMES, Slice, TABLES, TableName, io_error};
use crate::broker::BrokerError;

/// A key of the table of messages that no row has, because a row's key begins with the two bytes of its queue.
const NO_ROW: [u8; 1] = [0xff];
/// The key in the table `meta` of how far the log has come to the database. No other row has it, and none of the log.
pub(super) const FLUSHED: &[u8] = b"log";

/// How far the log has come to the database: the epoch of the last segment that it has whole, and the number of the last
/// frame in that. Both are 0 before the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flushed {
    pub(super) epoch: u64,
    pub(super) number: u64,
}

impl Flushed {
    fn encode(self) -> [u8; 16] {
        let mut row = [0; 16];
        row[..8].copy_from_slice(&self.epoch.to_be_bytes());
        row[8..].copy_from_slice(&self.number.to_be_bytes());
        row
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let (epoch, number) = row.split_first_chunk::<8>()?;
        let number = u64::from_be_bytes(number.try_into().ok()?);
        Some(Self { epoch: u64::from_be_bytes(*epoch), number })
    }
}

/// Handles on the open database. They are cheap to clone and work on any thread.
#[derive(Clone)]
pub(super) struct DiskTables {
    db: Database,
    keyspaces: [Keyspace; NAMES.len()],
    dir: PathBuf,
    /// What is read, if it is not the newest rows.
    snapshot: Option<Snapshot>,
    /// The number of the database's files when they were last closed to other users.
    closed: Arc<AtomicUsize>,
}

impl DiskTables {
    /// Opens or makes the database in the directory `db` of the store in `dir`. `is_made`: it has all its tables.
    pub(super) fn open(dir: &Path, is_made: bool) -> Result<Self, BrokerError> {
        let path = dir.join("db");
        let db = caught(&path, || open_database(&path))?;
        check_names(dir, &db, is_made)?;
        let keyspaces = caught(&path, || open_tables(&db))?;
        Ok(Self { db, keyspaces, dir: dir.to_owned(), snapshot: None, closed: Arc::default() })
    }

    /// A handle that reads the rows as they are now, whatever is written later.
    pub(super) fn as_of_now(&self) -> Self {
        Self { snapshot: Some(self.db.snapshot()), ..self.clone() }
    }

    /// Reads a row. The key fits.
    pub(super) fn get(&self, table: TableName, key: &[u8]) -> Result<Option<Slice>, BrokerError> {
        let keyspace = &self.keyspaces[table as usize];
        caught(&self.dir, || match &self.snapshot {
            Some(snapshot) => snapshot.get(keyspace, key),
            None => keyspace.get(key),
        })
    }

    /// The rows between these bounds, in order.
    pub(super) fn range(
        &self,
        table: TableName,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Result<DiskRows, BrokerError> {
        let keyspace = &self.keyspaces[table as usize];
        let rows = caught(&self.dir, || {
            Ok(match &self.snapshot {
                Some(snapshot) => snapshot.range::<&[u8], _>(keyspace, bounds),
                None => keyspace.range::<&[u8], _>(bounds),
            })
        })?;
        Ok(DiskRows { rows: Some(rows), dir: self.dir.clone() })
    }

    /// How far the log has come to the database.
    pub(super) fn flushed(&self) -> Result<Flushed, BrokerError> {
        let row = self.get(TableName::Meta, FLUSHED)?;
        Ok(row.as_deref().and_then(Flushed::decode).unwrap_or_default())
    }

    /// Whether any of its rows came from a log.
    pub(super) fn has_had_log(&self) -> Result<bool, BrokerError> {
        Ok(self.get(TableName::Meta, FLUSHED)?.is_some())
    }

    /// Fails if the database's background work has failed.
    pub(super) fn check(&self) -> Result<(), BrokerError> {
        caught(&self.dir, || self.db.persist(PersistMode::Buffer))
    }

    /// Writes the rows of a memtable, and then how far the log has come with them, if it is the last one of its segment. When
    /// this returns, all of it is synced. After a failure a part of it may be there, and the same rows can be written again.
    ///
    /// `rows` gives the rows of a table in the order of their keys; a row without a value is deleted.
    pub(super) fn flush_memtable<Rows>(
        &self,
        flushed: Option<Flushed>,
        rows: impl Fn(TableName) -> Rows,
    ) -> Result<(), BrokerError>
    where
        Rows: Iterator<Item = (Slice, Option<Slice>)>,
    {
        // The row that says how far it is comes last, so all others are there when it is.
        let others = TABLES.into_iter().filter(|table| *table != TableName::Meta);
        for table in others {
            self.ingest(table, rows(table))?;
        }
        let mut mark = flushed.map(|flushed| (Slice::from(FLUSHED), Some(Slice::from(flushed.encode()))));
        let mut meta = rows(TableName::Meta).peekable();
        let merged = std::iter::from_fn(|| {
            let is_before = meta.peek().is_some_and(|(key, _)| key[..] < *FLUSHED);
            if is_before { meta.next() } else { mark.take().or_else(|| meta.next()) }
        });
        self.ingest(TableName::Meta, merged)?;
        self.close_new_files();
        Ok(())
    }

    fn ingest(
        &self,
        table: TableName,
        rows: impl Iterator<Item = (Slice, Option<Slice>)>,
    ) -> Result<(), BrokerError> {
        let keyspace = &self.keyspaces[table as usize];
        caught(&self.dir, || {
            let mut rows = rows.peekable();
            if rows.peek().is_none() {
                return Ok(()); // it would leave an empty file
            }
            let mut ingestion = keyspace.start_ingestion()?;
            for (key, value) in rows {
                match value {
                    Some(value) => ingestion.write(key, value)?,
                    None => ingestion.write_tombstone(key)?,
                }
            }
            ingestion.finish()
        })
    }

    /// Whether the merging of table files is so far behind that the database should get no more of them.
    pub(super) fn is_behind(&self) -> bool {
        self.keyspaces.iter().any(|k| k.tree.sealed_memtable_count() >= 3 || k.tree.l0_run_count() >= 28)
    }

    /// Closes the files to other users that the database has made since the last call.
    fn close_new_files(&self) {
        let tables: usize = self.keyspaces.iter().map(Keyspace::table_count).sum();
        let files = (self.db.journal_count() << 32) + tables;
        if self.closed.swap(files, Ordering::Relaxed) != files {
            home::close_database(&self.dir.join("db"));
        }
    }

    /// The number of bytes that are in the database's memory only and that it will write to table files by and by.
    pub(super) fn to_be_flushed(&self) -> u64 {
        self.db.write_buffer_size()
    }

    /// Drops the deleted rows from the table of messages, of which `waiting` rows are alive.
    pub(super) fn reclaim(&self, waiting: u64) -> Result<(), BrokerError> {
        let messages = &self.keyspaces[TableName::Messages as usize];
        self.flush()?;
        // The live rows are written once more, which must not take the room of the tasks that are under way.
        let rows = messages.approximate_len().max(1) as u128;
        let alive = u128::from(messages.disk_space()) * u128::from(waiting).min(rows) / rows;
        if alive > u128::from(fs4::available_space(&self.dir).unwrap_or(0) / 2) {
            return Ok(());
        }
        caught(&self.dir, || messages.major_compact())?;
        // The old files go when the table is flushed after the readers of its old state are known to be gone. So
        // there must be something to flush: a row that never was is deleted.
        for _ in 0..2 {
            caught(&self.dir, || {
                let mut nothing = OwnedWriteBatch::with_capacity(self.db.clone(), 1);
                nothing.remove(messages, Slice::from(NO_ROW));
                nothing.durability(Some(PersistMode::SyncData)).commit()?;
                flush(&self.db, std::slice::from_ref(messages))
            })?;
        }
        self.close_new_files();
        Ok(())
    }

    /// Writes the rows that are only in the database's journal to table files.
    pub(super) fn flush(&self) -> Result<(), BrokerError> {
        caught(&self.dir, || flush(&self.db, &self.keyspaces))
    }

    /// Closes the files of the database, if nobody else has a handle on it.
    pub(super) fn close(self) {
        if catch_unwind(AssertUnwindSafe(|| drop(self))).is_err() {
            tracing::error!("the store's database panicked while it closed");
        }
    }
}

fn flush(db: &Database, keyspaces: &[Keyspace]) -> fjall::Result<()> {
    for keyspace in keyspaces {
        keyspace.rotate_memtable()?;
    }
    while keyspaces.iter().any(|k| k.tree.sealed_memtable_count() > 0) {
        db.persist(PersistMode::Buffer)?; // fails if the background work has failed
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Ok(())
}

/// Rows as they come off the disk; the first error is the last item.
pub(super) struct DiskRows {
    rows: Option<fjall::Iter>,
    dir: PathBuf,
}

impl DiskRows {
    fn stop_unless_row(&mut self, row: &Result<Option<(Slice, Slice)>, BrokerError>) {
        if !matches!(row, Ok(Some(_))) {
            self.rows = None;
        }
    }
}

impl Iterator for DiskRows {
    type Item = Result<(Slice, Slice), BrokerError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = self.rows.as_mut()?;
        let row = caught(&self.dir, || rows.next().map(fjall::Guard::into_inner).transpose());
        self.stop_unless_row(&row);
        row.transpose()
    }
}

impl DoubleEndedIterator for DiskRows {
    fn next_back(&mut self) -> Option<Self::Item> {
        let rows = self.rows.as_mut()?;
        let row = caught(&self.dir, || rows.next_back().map(fjall::Guard::into_inner).transpose());
        self.stop_unless_row(&row);
        row.transpose()
    }
}

/// Calls the database, and makes a panic of it an error like any other.
fn caught<T>(path: &Path, call: impl FnOnce() -> fjall::Result<T>) -> Result<T, BrokerError> {
    let damaged = |error| BrokerError::Damaged { path: path.to_owned(), error };
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)))) => {
            Err(io_error(path, e))
        }
        Ok(Err(fjall::Error::Locked)) => {
            Err(BrokerError::InUse { path: path.to_owned(), owner: "(not known)".to_owned() })
        }
        Ok(Err(fjall::Error::Poisoned)) => Err(damaged(
            "an earlier write or the database's background work failed; its log says why".to_owned(),
        )),
        Ok(Err(error)) => Err(damaged(error.to_string())),
        Err(panic) => Err(damaged(crate::task::panic_message(panic))),
    }
}

fn open_database(path: &Path) -> fjall::Result<Database> {
    Database::builder(path)
        .cache_size(32 << 20)
        .max_journaling_size(256 << 20)
        // A replay compresses again to compare checksums, which would fail with another version of the compressor.
        .journal_compression(CompressionType::None)
        .worker_threads(1)
        .open()
}

/// Checks the names of the tables. A database of somebody else's may lie in a directory of the same name. A
/// database that was made has all tables: it would make a table anew that it does not know, and nobody would miss
/// what was in it.
fn check_names(dir: &Path, db: &Database, is_made: bool) -> Result<(), BrokerError> {
    let names = caught(dir, || Ok(db.list_keyspace_names()))?;
    if let Some(name) = names.iter().find(|name| !NAMES.contains(&&***name)) {
        let found = format!("a database with the table `{}`", &**name);
        return Err(BrokerError::NotAStore { path: dir.to_owned(), found });
    }
    match NAMES.iter().find(|name| is_made && !names.iter().any(|known| &**known == **name)) {
        Some(name) => {
            let error = format!("the database does not know its table `{name}`");
            Err(BrokerError::Damaged { path: dir.join("db/keyspaces/0"), error })
        }
        None => Ok(()),
    }
}

fn open_tables(db: &Database) -> fjall::Result<[Keyspace; NAMES.len()]> {
    let table =
        |name: &str| db.keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(24 << 20));
    let [messages, tasks, dead, expiries, meta, lanes] = NAMES;
    let (messages, tasks, dead) = (table(messages)?, table(tasks)?, table(dead)?);
    Ok([messages, tasks, dead, table(expiries)?, table(meta)?, table(lanes)?])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::tables::{Tables, Writes};
    use super::*;

    /// An earlier version went on with a database whose making was cut short, and whose tables then have numbers
    /// from 2 on.
    #[test]
    fn tables_are_known_by_their_names_whatever_their_numbers() {
        let home = tempfile::tempdir().unwrap();
        let db = home.path().join("db");
        drop(open_database(&db).unwrap());
        let unfinished = open_database(&db).unwrap();
        drop((open_tables(&unfinished).unwrap(), unfinished));
        assert!(!db.join("keyspaces/1").exists() && db.join("keyspaces/7/current").exists());
        std::fs::write(home.path().join(home::LAYOUT_FILE), home::EARLIER_LAYOUT).unwrap();
        for _ in 0..2 {
            drop(Tables::open(home.path(), None).unwrap());
        }
        std::fs::remove_file(home.path().join(home::LAYOUT_FILE)).unwrap();
        drop(Tables::open(home.path(), None).unwrap()); // a store is also known without its file `layout`
        for gone in ["keyspaces/4", "keyspaces/4/current", "keyspaces/0/current", "keyspaces", "log"] {
            let aside = home.path().join("db").join("aside");
            std::fs::rename(db.join(gone), &aside).unwrap();
            let error = Tables::open(home.path(), None).map(drop).unwrap_err();
            std::fs::rename(&aside, db.join(gone)).unwrap();
            assert!(matches!(error, BrokerError::Damaged { .. }), "{gone}: {error}");
        }
        drop(Tables::open(home.path(), None).unwrap());
    }

    /// The database says that it had a log, which is missed although no other file tells of it.
    #[test]
    fn a_log_that_is_lost_with_all_that_tells_of_it_is_missed() {
        let home = tempfile::tempdir().unwrap();
        let tables = Tables::open(home.path(), None).unwrap();
        let mut writes = Writes::default();
        writes.put(TableName::Tasks, b"task", b"row");
        tables.write(&[&writes]).unwrap();
        tables.flush().unwrap();
        tables.close();
        std::fs::remove_file(home.path().join(home::LAYOUT_FILE)).unwrap();
        std::fs::remove_dir_all(home.path().join("db/log")).unwrap();
        let error = Tables::open(home.path(), None).map(drop).unwrap_err();
        assert!(matches!(&error, BrokerError::Damaged { path, .. } if path.ends_with("db/log")), "{error}");
    }

    /// What the log hands over is there when the database is opened again, although its journal has nothing of it; it can be
    /// handed over again.
    #[test]
    fn what_it_took_is_there_after_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let row = |n: u8| (Slice::from([n]), Some(Slice::from([n, n])));
        let rows = |table: TableName| -> BTreeMap<Slice, Option<Slice>> {
            match table {
                TableName::Messages => [row(1), row(2)].into(),
                TableName::Meta => [row(b'a'), row(b'z')].into(),
                _ => BTreeMap::new(),
            }
        };
        let mark = |epoch| Flushed { epoch, number: 10 * epoch };
        let disk = DiskTables::open(home.path(), false).unwrap();
        assert_eq!(disk.flushed().unwrap(), Flushed::default());
        disk.flush_memtable(Some(mark(1)), |table| rows(table).into_iter()).unwrap();
        disk.close();
        for again in 2..4 {
            let disk = DiskTables::open(home.path(), true).unwrap();
            assert_eq!(disk.flushed().unwrap(), mark(again - 1));
            for table in TABLES {
                let found = disk.range(table, (Bound::Unbounded, Bound::Unbounded)).unwrap();
                let found: BTreeMap<_, _> = found.map(Result::unwrap).map(|(k, v)| (k, Some(v))).collect();
                let mut expected = rows(table);
                if table == TableName::Meta {
                    expected.insert(Slice::from(FLUSHED), Some(Slice::from(mark(again - 1).encode())));
                }
                assert_eq!(found, expected);
            }
            disk.flush_memtable(Some(mark(again)), |table| rows(table).into_iter()).unwrap();
            disk.close();
        }
        // A deleted row stays deleted, although its table may have no file left then.
        let disk = DiskTables::open(home.path(), true).unwrap();
        let deleted = |table: TableName| rows(table).into_keys().map(|key| (key, None));
        disk.flush_memtable(Some(mark(4)), deleted).unwrap();
        disk.keyspaces.iter().for_each(|keyspace| keyspace.major_compact().unwrap());
        disk.close();
        let disk = DiskTables::open(home.path(), true).unwrap();
        assert_eq!(disk.get(TableName::Messages, &[1]).unwrap(), None);
        assert_eq!(disk.flushed().unwrap(), mark(4));
    }
}
