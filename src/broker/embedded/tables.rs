//! The tables on disk, and the only code that talks to the database which holds them.
//!
//! | table | key | row |
//! |---|---|---|
//! | `messages` | queue, class, then (ready) the tenant's line if there is one, inverted priority and sequence or (scheduled) due time and sequence | [`Message`](crate::task::Message) |
//! | `tasks` | task id, packed if it is a UUID | where its message is, or its [`TaskResult`](crate::task::TaskResult) |
//! | `dead` | sequence | [`DeadLetter`](crate::broker::DeadLetter) |
//! | | `0xfe`, queue, sequence | [`FailedTask`](crate::broker::FailedTask) |
//! | `expiries` | time, sequence | the ids whose results go at that time |
//! | `lanes` | see [`lanes`](super::lanes) | lanes of serial keys, and the messages that wait for them; [unique windows](super::unique_windows); the [index of arguments](super::argument_index) |
//! | `meta` | name | counts per queue and [tenant](super::tenant_lines), the last sequence, notes |
//!
//! Whatever the database does with a damaged file, even a panic, becomes an error that names the directory.

use std::collections::HashSet;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

pub(super) use fjall::Slice;
use fjall::{
    AbstractTree, CompressionType, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode,
};

use super::acknowledged::Mark;
use super::home::{self, DirectoryContents};
use super::readable::Readable;
use super::rows::SEQ;
use super::{files, journal};
use crate::broker::BrokerError;
use crate::broker::limits::LONGEST_ROW_KEY;

/// A table of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum TableName {
    Messages,
    Tasks,
    Dead,
    Expiries,
    Meta,
    Lanes,
}

pub(super) const TABLES: [TableName; 6] = [
    TableName::Messages,
    TableName::Tasks,
    TableName::Dead,
    TableName::Expiries,
    TableName::Meta,
    TableName::Lanes,
];
pub(super) const NAMES: [&str; 6] = ["messages", "tasks", "dead", "expiries", "meta", "lanes"];

/// The free bytes below which the disk counts as full: the database needs some room to open at all.
const FULL: u64 = 1 << 20;

/// A key of the table of messages that no row has, because a row's key begins with the two bytes of its queue.
const NO_ROW: [u8; 1] = [0xff];

impl TableName {
    /// The table's name in the database.
    pub(super) fn name(self) -> &'static str {
        NAMES[self as usize]
    }
}

/// A row to be written, or to be deleted if it has no value.
struct Write {
    table: TableName,
    key: Slice,
    value: Option<Slice>,
}

/// Rows to be written and deleted together.
#[derive(Default)]
pub(super) struct Writes(Vec<Write>);

impl Writes {
    /// Writes a row. A row whose key is too long for the database is left out, because with it the database would
    /// neither write the other rows nor go on. Requests for such a row are refused before they come to this (see
    /// [`limits`](crate::broker::limits)).
    pub(super) fn put(&mut self, table: TableName, key: &[u8], value: &[u8]) {
        if fits(key) {
            self.0.push(Write { table, key: key.into(), value: Some(value.into()) });
        } else {
            let (table, bytes) = (table.name(), key.len());
            tracing::error!(
                table,
                bytes,
                most = LONGEST_ROW_KEY,
                "a row is not kept, because its key is too long"
            );
        }
    }

    /// Deletes a row. The database has no row whose key is too long for it.
    pub(super) fn delete(&mut self, table: TableName, key: &[u8]) {
        if fits(key) {
            self.0.push(Write { table, key: key.into(), value: None });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn append(&mut self, other: &mut Self) {
        self.0.append(&mut other.0);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Whether the database takes a key. It does not refuse a longer one: it writes what it cannot read again, and
/// panics.
fn fits(key: &[u8]) -> bool {
    key.len() <= LONGEST_ROW_KEY
}

/// Places from which rows could not be read: a table and a key.
type Told = HashSet<(TableName, Vec<u8>)>;

/// Handles on the open tables. They are cheap to clone and work on any thread.
#[derive(Clone)]
pub(super) struct Tables {
    db: Database,
    keyspaces: [Keyspace; NAMES.len()],
    dir: PathBuf,
    /// The number of the database's files when they were last closed to other users.
    closed: Arc<AtomicUsize>,
    /// The places where rows could not be read that were logged already.
    told: Arc<Mutex<Told>>,
    /// The database's background work has failed, and not for want of room.
    broken: Arc<AtomicBool>,
}

impl Tables {
    /// Opens or makes the database in `dir`, whose lock is held. A tail that a crash has torn is cut off; a file
    /// that cannot be read is an error that names the file or the directory. `acknowledged`: the last acknowledged
    /// commit, which the journal must reach.
    pub(super) fn open(dir: &Path, acknowledged: Option<Mark>) -> Result<Self, BrokerError> {
        let path = dir.join("db");
        let found = home::examine(dir)?;
        let is_made = found.is_made();
        if found == DirectoryContents::Unnamed {
            tracing::warn!(dir = %dir.display(), "the store has lost its file `layout`; all else is there, and it is written again");
        }
        // Whether this is a store is known before anything is made or cleared away.
        home::begin(dir, found)?;
        // The files are checked before the database reads them: it would make lost ones anew, and believe damaged
        // ones.
        require_all(&path, is_made)?;
        files::check(&path, is_made)?;
        journal::check(&path, is_made, acknowledged)?;
        let db = caught(&path, || open_database(&path))?;
        check_names(dir, &db, is_made)?;
        let keyspaces = caught(&path, || open_tables(&db))?;
        let tables = Self::of(dir, db, keyspaces);
        tables.check_reaches(acknowledged)?;
        // `layout` is written last, when all tables are there and were read.
        home::finish(dir, found)?;
        home::close_to_others(dir);
        Ok(tables)
    }

    /// Opens the database of a copy, of which only readable files are left, so nothing is checked.
    pub(super) fn open_copy(dir: &Path) -> Result<Self, BrokerError> {
        let path = dir.join("db");
        let db = caught(&path, || open_database(&path))?;
        check_names(dir, &db, false)?;
        let keyspaces = caught(&path, || open_tables(&db))?;
        Ok(Self::of(dir, db, keyspaces))
    }

    fn of(dir: &Path, db: Database, keyspaces: [Keyspace; NAMES.len()]) -> Self {
        let (closed, told, broken) = (Arc::default(), Arc::default(), Arc::default());
        Self { db, keyspaces, dir: dir.to_owned(), closed, told, broken }
    }

    /// Whether the database refuses all writes because its background work has failed, and not for want of room.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Checks that the last acknowledged commit was read back, from the journal or from the tables.
    fn check_reaches(&self, acknowledged: Option<Mark>) -> Result<(), BrokerError> {
        let Some(mark) = acknowledged else { return Ok(()) };
        let seq = self.get(TableName::Meta, SEQ)?.and_then(|row| <[u8; 8]>::try_from(&*row).ok());
        let seq = seq.map_or(0, u64::from_be_bytes);
        if seq < mark.seq { Err(mark.lost(self.dir.join("db"), seq)) } else { Ok(()) }
    }

    /// The number of journals, which changes whenever the database begins a new one.
    pub(super) fn journals(&self) -> usize {
        self.db.journal_count()
    }

    pub(super) fn get(&self, table: TableName, key: &[u8]) -> Result<Option<Slice>, BrokerError> {
        if !fits(key) {
            return Ok(None); // the database has no row of such a key
        }
        caught(&self.dir, || self.keyspaces[table as usize].get(key))
    }

    /// As [`range`](Self::range), but goes on behind rows that cannot be read.
    pub(super) fn readable(&self, table: TableName, start: &[u8], end: Bound<&[u8]>) -> Readable {
        Readable::new(self.clone(), table, start, end)
    }

    /// Notes that the rows from this key on cannot be read. Says whether that was not known before.
    pub(super) fn tell(&self, table: TableName, from: &[u8]) -> bool {
        /// The most places that are remembered.
        const MOST: usize = 1024;
        let mut told = self.told.lock();
        told.len() < MOST && told.insert((table, from.to_vec()))
    }

    /// The rows from `start` to `end`, in order.
    pub(super) fn range(
        &self,
        table: TableName,
        start: &[u8],
        end: Bound<&[u8]>,
    ) -> Result<Rows, BrokerError> {
        let too_long =
            !fits(start) || matches!(end, Bound::Included(key) | Bound::Excluded(key) if !fits(key));
        if too_long {
            return Ok(Rows { rows: None, dir: self.dir.clone() }); // no row has such a key, or a key that begins with it
        }
        let bounds = (Bound::Included(start), end);
        let rows = caught(&self.dir, || Ok(self.keyspaces[table as usize].range::<&[u8], _>(bounds)))?;
        Ok(Rows { rows: Some(rows), dir: self.dir.clone() })
    }

    /// Writes all of `parts` in one step and syncs them.
    pub(super) fn write(&self, parts: &[&Writes]) -> Result<(), BrokerError> {
        let size = parts.iter().map(|p| p.0.len()).sum();
        let written = caught(&self.dir, || {
            self.wait_for_background()?;
            let mut batch = OwnedWriteBatch::with_capacity(self.db.clone(), size);
            for write in parts.iter().flat_map(|part| &part.0) {
                let keyspace = &self.keyspaces[write.table as usize];
                match &write.value {
                    Some(value) => batch.insert(keyspace, write.key.clone(), value.clone()),
                    None => batch.remove(keyspace, write.key.clone()),
                }
            }
            batch.durability(Some(PersistMode::SyncData)).commit()
        });
        if written.is_ok() {
            self.close_new_files();
        }
        written.map_err(|error| match error {
            // The database may say only that its background work failed, so the likely reason is found out here.
            BrokerError::Damaged { error, .. } if !is_full(&self.dir) => {
                self.broken.store(true, Ordering::Relaxed);
                let dir = self.dir.display();
                BrokerError::io(format!(
                    "the store {dir} could not be written: {error}. If a file of it is damaged, what can be read is copied now; try again in a moment. If that goes on, stop the program, and `celeriac store verify` says which file it is"
                ))
            }
            BrokerError::Damaged { .. } => full_error(&self.dir),
            other => other,
        })
    }

    /// Closes the files to other users that the database has made since the last call.
    fn close_new_files(&self) {
        let tables: usize = self.keyspaces.iter().map(Keyspace::table_count).sum();
        let files = (self.db.journal_count() << 32) + tables;
        if self.closed.swap(files, Ordering::Relaxed) != files {
            home::close_database(&self.dir.join("db"));
        }
    }

    /// Waits until the database's background work has caught up. The database itself holds up a writer while that
    /// work is behind, and does so for ever if the work has failed in the meantime. This waits a bit earlier, and
    /// notices a failure.
    fn wait_for_background(&self) -> fjall::Result<()> {
        let is_behind = |k: &Keyspace| k.tree.sealed_memtable_count() >= 3 || k.tree.l0_run_count() >= 28;
        while self.keyspaces.iter().any(is_behind) {
            self.db.persist(PersistMode::Buffer)?; // fails if the background work has failed
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Ok(())
    }

    /// The number of bytes that are in the journal only and that the database will write to table files by and by.
    pub(super) fn to_be_flushed(&self) -> u64 {
        self.db.write_buffer_size()
    }

    /// Writes the rows that are only in the journal to table files, so that old journals can go. Then drops the
    /// deleted rows from the table of messages, of which `waiting` rows are alive.
    pub(super) fn reclaim(&self, waiting: u64) -> Result<(), BrokerError> {
        let messages = &self.keyspaces[TableName::Messages as usize];
        caught(&self.dir, || self.flush(&self.keyspaces))?;
        // The live rows are written once more, which must not take the room of the tasks that are under way.
        let rows = messages.approximate_len().max(1) as u128;
        let alive = u128::from(messages.disk_space()) * u128::from(waiting).min(rows) / rows;
        if alive > u128::from(fs4::available_space(&self.dir).unwrap_or(0) / 2) {
            return Ok(());
        }
        caught(&self.dir, || messages.major_compact())?;
        // The old files go when the table is flushed after the readers of its old state are known to be gone. So
        // there must be something to flush: a row that never was is deleted.
        let mut nothing = Writes::default();
        nothing.delete(TableName::Messages, &NO_ROW);
        for _ in 0..2 {
            self.write(&[&nothing])?;
            caught(&self.dir, || self.flush(std::slice::from_ref(messages)))?;
        }
        Ok(())
    }

    fn flush(&self, keyspaces: &[Keyspace]) -> fjall::Result<()> {
        for keyspace in keyspaces {
            keyspace.rotate_memtable()?;
        }
        while keyspaces.iter().any(|k| k.tree.sealed_memtable_count() > 0) {
            self.db.persist(PersistMode::Buffer)?; // fails if the background work has failed
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Ok(())
    }

    /// Closes the files.
    pub(super) fn close(self) {
        if catch_unwind(AssertUnwindSafe(|| drop(self))).is_err() {
            tracing::error!("the store's database panicked while it closed");
        }
    }
}

/// Rows as they come off the disk; the first error is the last item.
pub(super) struct Rows {
    rows: Option<fjall::Iter>,
    dir: PathBuf,
}

impl Iterator for Rows {
    type Item = Result<(Slice, Slice), BrokerError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = self.rows.as_mut()?;
        let row = caught(&self.dir, || rows.next().map(fjall::Guard::into_inner).transpose());
        if !matches!(row, Ok(Some(_))) {
            self.rows = None;
        }
        row.transpose()
    }
}

impl DoubleEndedIterator for Rows {
    fn next_back(&mut self) -> Option<Self::Item> {
        let rows = self.rows.as_mut()?;
        let row = caught(&self.dir, || rows.next_back().map(fjall::Guard::into_inner).transpose());
        if !matches!(row, Ok(Some(_))) {
            self.rows = None;
        }
        row.transpose()
    }
}

/// Whether so little room is left on the disk that this is what ails the store.
pub(super) fn is_full(dir: &Path) -> bool {
    fs4::available_space(dir).is_ok_and(|free| free < FULL)
}

pub(super) fn full_error(path: &Path) -> BrokerError {
    BrokerError::Full(format!("the disk of {} is full", path.display()))
}

/// The error for a file that could not be opened: there is no room, no permission, or what it holds is damaged.
pub(super) fn io_error(path: &Path, error: std::io::Error) -> BrokerError {
    use std::io::ErrorKind;
    let shown = path.display();
    let what_to_do = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => return full_error(path),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            format!(
                "{shown} cannot be written: {error}; give this user the right to, or choose another directory"
            )
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists if !path.is_dir() => {
            format!("{shown} cannot be used: {error}; the store needs a directory of its own")
        }
        ErrorKind::UnexpectedEof
        | ErrorKind::InvalidData
        | ErrorKind::InvalidInput
        | ErrorKind::NotFound
        | ErrorKind::AlreadyExists => {
            return BrokerError::Damaged { path: path.to_owned(), error: error.to_string() };
        }
        _ => format!("{shown} cannot be used: {error}"),
    };
    BrokerError::io_because(what_to_do, error)
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

/// Checks that all tables are there, because the database would make a table anew whose files are gone.
fn require_all(db: &Path, is_made: bool) -> Result<(), BrokerError> {
    if !is_made {
        return Ok(());
    }
    let missing = |path: PathBuf| BrokerError::Damaged { path, error: "it is not there".to_owned() };
    let version = db.join("version");
    if !version.is_file() {
        return Err(missing(version));
    }
    match missing_tables(db)?.into_iter().next() {
        Some(current) => Err(missing(current)),
        None => Ok(()),
    }
}

/// The files `current` that a complete database has and this one lacks.
///
/// The database numbers its tables from 1 on, and gives no number twice. If its making was cut short and then went
/// on, which an earlier version allowed, the numbers are higher. So this function counts the tables. Table 0 is
/// the database's own.
pub(super) fn missing_tables(db: &Path) -> Result<Vec<PathBuf>, BrokerError> {
    let keyspaces = db.join("keyspaces");
    let current = |number: u64| keyspaces.join(number.to_string()).join("current");
    let mut numbers: Vec<u64> = match keyspaces.is_dir() {
        true => home::names(&keyspaces)?.iter().filter_map(|name| name.parse().ok()).collect(),
        false => Vec::new(),
    };
    numbers.sort_unstable();
    let (there, mut missing): (Vec<u64>, Vec<u64>) = numbers.into_iter().partition(|n| current(*n).is_file());
    let tables = there.iter().filter(|n| **n > 0).count();
    let mut lost = NAMES.len().saturating_sub(tables + missing.iter().filter(|n| **n > 0).count());
    let last = there.iter().chain(&missing).copied().max().unwrap_or(0).max(NAMES.len() as u64);
    // Tables whose directories are gone as well are gaps among the numbers; they are taken from the last number
    // down.
    for number in (1..=last).rev().filter(|n| !there.contains(n)) {
        if lost > 0 && !missing.contains(&number) {
            missing.push(number);
            lost -= 1;
        }
    }
    if !there.contains(&0) && !missing.contains(&0) {
        missing.push(0);
    }
    missing.sort_unstable();
    Ok(missing.into_iter().map(current).collect())
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
        home::finish(home.path(), home::DirectoryContents::Nothing).unwrap();
        for _ in 0..2 {
            drop(Tables::open(home.path(), None).unwrap());
        }
        std::fs::remove_file(home.path().join(home::LAYOUT_FILE)).unwrap();
        drop(Tables::open(home.path(), None).unwrap()); // a store is also known without its file `layout`
        for gone in ["keyspaces/4", "keyspaces/4/current", "keyspaces/0/current", "keyspaces"] {
            let aside = home.path().join("db").join("aside");
            std::fs::rename(db.join(gone), &aside).unwrap();
            let error = Tables::open(home.path(), None).map(drop).unwrap_err();
            std::fs::rename(&aside, db.join(gone)).unwrap();
            assert!(matches!(error, BrokerError::Damaged { .. }), "{gone}: {error}");
        }
        drop(Tables::open(home.path(), None).unwrap());
    }
}
