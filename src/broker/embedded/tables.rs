//! The tables of the store: the rows in the [log](super::hot_log), over those in the [database](super::disk_tables), and the
//! [writes](Writes) of one commit to them.
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

use std::collections::HashSet;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

pub(super) use fjall::Slice;

use super::acknowledged::{self, CommitMark};
use super::disk_tables::DiskTables;
use super::home::{self, DirectoryContents};
use super::hot_log::{self, HotLog, Memtables};
pub(super) use super::merged_rows::MergedRows;
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

impl TableName {
    /// The table's name in the database.
    pub(super) fn name(self) -> &'static str {
        NAMES[self as usize]
    }
}

/// A row to be written, or to be deleted if it has no value.
pub(super) struct Write {
    pub(super) table: TableName,
    pub(super) key: Slice,
    pub(super) value: Option<Slice>,
    /// Whether no row had this key before, in no commit. Such a row can be forgotten altogether when it is deleted.
    pub(super) is_new: bool,
}

/// Rows to be written and deleted together.
#[derive(Default)]
pub(super) struct Writes(Vec<Write>);

impl Writes {
    /// Writes a row. A row whose key is too long for the database is left out, because with it the database would
    /// neither write the other rows nor go on. Requests for such a row are refused before they come to this (see
    /// [`limits`](crate::broker::limits)).
    pub(super) fn put(&mut self, table: TableName, key: &[u8], value: &[u8]) {
        self.add(table, key, value, false);
    }

    /// As [`put`](Self::put), for a key that no row ever had: it has a sequence that was given out for it.
    pub(super) fn put_new(&mut self, table: TableName, key: &[u8], value: &[u8]) {
        self.add(table, key, value, true);
    }

    fn add(&mut self, table: TableName, key: &[u8], value: &[u8], is_new: bool) {
        if fits(key) {
            self.0.push(Write { table, key: key.into(), value: Some(value.into()), is_new });
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
            self.0.push(Write { table, key: key.into(), value: None, is_new: false });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Write> {
        self.0.iter()
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

/// A row as it is stored: its key and its bytes.
pub(super) type RawRow = (Slice, Slice);

/// Places from which rows could not be read: a table and a key.
type UnreadableRows = HashSet<(TableName, Vec<u8>)>;

/// Handles on the open tables. They are cheap to clone and work on any thread.
#[derive(Clone)]
pub(super) struct Tables {
    /// `None`: the tables are only read. Declared before the database, which it writes to, so that it is closed first.
    log: Option<Arc<HotLog>>,
    memtables: Memtables,
    disk: DiskTables,
    dir: PathBuf,
    /// The places where rows could not be read that were logged already.
    reported: Arc<Mutex<UnreadableRows>>,
    /// The database's background work has failed, and not for want of room.
    broken: Arc<AtomicBool>,
}

impl Tables {
    /// Opens or makes the tables in `dir`, whose lock is held. A tail that a crash has torn is cut off; a file
    /// that cannot be read is an error that names the file or the directory. `acknowledged`: the last acknowledged
    /// commit, which the log must reach.
    pub(super) fn open(dir: &Path, acknowledged: Option<CommitMark>) -> Result<Self, BrokerError> {
        let path = dir.join("db");
        let log = path.join(hot_log::DIR);
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
        let has_log = hot_log::is_there(&path);
        if found == DirectoryContents::Made && !has_log {
            return Err(no_log(log));
        }
        let has_journal = found.has_journal(has_log);
        journal::check(&path, is_made, acknowledged.filter(|_| has_journal))?;
        let mut disk = DiskTables::open(dir, is_made)?;
        if !has_log && disk.has_had_log()? {
            return Err(no_log(log)); // and neither is `layout`, or it is of before
        }
        if has_journal {
            disk = without_journal(dir, disk, acknowledged)?;
        }
        let mut replayed = hot_log::replay(&log, disk.flushed()?)?;
        let mut tables = Self::over(dir, Memtables::of(replayed.take_memtables()), disk);
        tables.check_reaches(&log, acknowledged)?;
        // Nothing was changed in the log so far.
        tables.log = Some(Arc::new(HotLog::start(dir, &tables.disk, tables.memtables.clone(), replayed)?));
        // `layout` is written last, when all tables are there and were read.
        home::finish(dir, found)?;
        home::close_to_others(dir);
        Ok(tables)
    }

    /// Opens the tables of a copy, of which only readable files are left, so nothing is checked. Also says what of its log cannot
    /// be read, and what a crash has left there.
    pub(super) fn open_copy(dir: &Path) -> Result<(Self, Vec<String>, Vec<String>), BrokerError> {
        let disk = DiskTables::open(dir, false)?;
        let read = hot_log::readable(&dir.join("db").join(hot_log::DIR), disk.flushed().ok())?;
        Ok((Self::over(dir, Memtables::of(vec![read.memtable]), disk), read.damage, read.notes))
    }

    /// Whether the database has rows from a log.
    pub(super) fn has_had_log(&self) -> bool {
        self.disk.has_had_log().unwrap_or(false) // what cannot be read is told when the rows are read
    }

    /// Tables that can be read.
    fn over(dir: &Path, memtables: Memtables, disk: DiskTables) -> Self {
        let (reported, broken) = (Arc::default(), Arc::default());
        Self { log: None, memtables, disk, dir: dir.to_owned(), reported, broken }
    }

    /// Whether the database refuses all writes because its background work has failed, and not for want of room.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Checks that the last acknowledged commit was read back. `path`: where it should be.
    pub(super) fn check_reaches(
        &self,
        path: &Path,
        acknowledged: Option<CommitMark>,
    ) -> Result<(), BrokerError> {
        let Some(mark) = acknowledged else { return Ok(()) };
        let seq = self.get(TableName::Meta, SEQ)?.and_then(|row| <[u8; 8]>::try_from(&*row).ok());
        let seq = seq.map_or(0, u64::from_be_bytes);
        if seq < mark.seq { Err(mark.lost(path.to_owned(), seq)) } else { Ok(()) }
    }

    pub(super) fn get(&self, table: TableName, key: &[u8]) -> Result<Option<Slice>, BrokerError> {
        if !fits(key) {
            return Ok(None); // the database has no row of such a key
        }
        match self.memtables.get(table, key) {
            Some(row) => Ok(row),
            None => self.disk.get(table, key),
        }
    }

    /// As [`range`](Self::range), but goes on behind rows that cannot be read.
    pub(super) fn readable(&self, table: TableName, start: &[u8], end: Bound<&[u8]>) -> Readable {
        Readable::new(self.clone(), table, start, end)
    }

    /// Notes that the rows from this key on cannot be read. Says whether that was not known before.
    pub(super) fn tell(&self, table: TableName, from: &[u8]) -> bool {
        /// The most places that are remembered.
        const MOST: usize = 1024;
        let mut reported = self.reported.lock();
        reported.len() < MOST && reported.insert((table, from.to_vec()))
    }

    /// The rows from `start` to `end`, in order.
    pub(super) fn range(
        &self,
        table: TableName,
        start: &[u8],
        end: Bound<&[u8]>,
    ) -> Result<MergedRows, BrokerError> {
        let too_long =
            !fits(start) || matches!(end, Bound::Included(key) | Bound::Excluded(key) if !fits(key));
        if too_long {
            return Ok(MergedRows::none()); // no row has such a key, or a key that begins with it
        }
        let bounds = (Bound::Included(start), end);
        // The memtables come first: what leaves them has come to the database before.
        let memtables = self.memtables.newest_first();
        Ok(MergedRows::merged(memtables, Some(self.disk.range(table, bounds)?), table, bounds))
    }

    /// The rows from `start` to `end` that the log has, in order. They can be read whatever is damaged in the database.
    pub(super) fn in_log(&self, table: TableName, start: &[u8], end: Bound<&[u8]>) -> MergedRows {
        MergedRows::merged(self.memtables.newest_first(), None, table, (Bound::Included(start), end))
    }

    /// A handle that reads all tables as they are now, whatever is written later. It cannot write.
    pub(super) fn as_of_now(&self) -> Self {
        let (memtables, disk) = self.memtables.as_of_now(|| self.disk.as_of_now());
        Self { log: None, memtables, disk, ..self.clone() }
    }

    /// Writes all of `parts` in one step and syncs them.
    pub(super) fn write(&self, parts: &[&Writes]) -> Result<(), BrokerError> {
        let Some(log) = &self.log else { return Err(BrokerError::Closed) };
        log.write(parts).map_err(|error| match error {
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

    /// The number of bytes that are in memory and in the log only and that will come to table files by and by.
    pub(super) fn to_be_flushed(&self) -> u64 {
        self.memtables.alive().saturating_add(self.disk.to_be_flushed())
    }

    /// Writes all rows of the log to table files, and gives back the room that the log does not need then.
    pub(super) fn flush(&self) -> Result<(), BrokerError> {
        self.log.as_ref().map_or(Ok(()), |log| log.flush())
    }

    /// As [`flush`](Self::flush). Then drops the deleted rows from the table of messages, of which `waiting` rows are alive.
    pub(super) fn reclaim(&self, waiting: u64) -> Result<(), BrokerError> {
        self.flush()?;
        self.disk.reclaim(waiting)
    }

    /// Ends all writing, whoever else has a handle on the tables. What was written can be read on.
    pub(super) fn stop(&self) {
        if let Some(log) = &self.log {
            log.stop();
        }
    }

    /// Closes the files, if nobody else has a handle on them.
    pub(super) fn close(self) {
        let Self { log, disk, .. } = self;
        drop(log);
        disk.close();
    }
}

/// The error for a store whose log is lost. `log`: where it should be.
fn no_log(log: PathBuf) -> BrokerError {
    BrokerError::Damaged { path: log, error: "the log is not there".to_owned() }
}

/// Empties the database's journal, to which an earlier version wrote its commits. The rows of the log come to the database past
/// the journal, so a later replay of the journal could bring back rows that were deleted since.
fn without_journal(
    dir: &Path,
    disk: DiskTables,
    acknowledged: Option<CommitMark>,
) -> Result<DiskTables, BrokerError> {
    let db = dir.join("db");
    let tables = Tables::over(dir, Memtables::of(Vec::new()), disk);
    tables.check_reaches(&db, acknowledged)?;
    tables.disk.flush()?;
    tables.close();
    // The file says in which journal the last commit is. From here on it is in no journal.
    acknowledged::forget(dir).map_err(|e| io_error(dir, e))?;
    journal::empty(&db)?;
    DiskTables::open(dir, true)
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
