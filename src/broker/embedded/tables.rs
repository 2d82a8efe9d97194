//! The tables on disk, and the one place that talks to the database which holds them.
//!
//! | table | key | row |
//! |---|---|---|
//! | `messages` | queue, class, then (ready) inverted priority and sequence or (scheduled) due time and sequence | [`Message`](crate::task::Message) |
//! | `tasks` | task id, packed if it is a UUID | where its message is, or its [`TaskResult`](crate::task::TaskResult) |
//! | `dead` | sequence | [`DeadLetter`](crate::broker::DeadLetter) |
//! | `expiries` | time, sequence | the ids whose results go at that time |
//! | `lanes` | see [`lanes`](super::lanes) | lanes of serial keys, and the messages that wait for them; [dedupe windows](super::dedupe) |
//! | `meta` | name | counts per queue, the last sequence, notes |
//!
//! Whatever the database does with a damaged file, also a panic, is an error that names the directory.

use std::fs::File;
use std::io::Write as _;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

pub(super) use fjall::Slice;
use fjall::{
    AbstractTree, CompressionType, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode,
};

use super::{files, journal};
use crate::broker::BrokerError;

/// One of the tables.
#[derive(Clone, Copy)]
pub(super) enum Table {
    Messages,
    Tasks,
    Dead,
    Expiries,
    Meta,
    Lanes,
}

const NAMES: [&str; 6] = ["messages", "tasks", "dead", "expiries", "meta", "lanes"];

/// The file that says that the tables were made, and in which layout.
const LAYOUT_FILE: &str = "layout";
const LAYOUT: &str = "celeriac store, layout 2\n";

/// Less than this on the disk counts as full: the database needs some room to open at all.
const FULL: u64 = 1 << 20;

/// A key of the table of messages that no row has: queues are known by two bytes.
const NO_ROW: [u8; 1] = [0xff];

/// One row written, or (no value) deleted.
struct Write {
    table: Table,
    key: Slice,
    value: Option<Slice>,
}

/// Rows to write.
#[derive(Default)]
pub(super) struct Writes(Vec<Write>);

impl Writes {
    pub(super) fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.0.push(Write { table, key: key.into(), value: Some(value.into()) });
    }

    pub(super) fn delete(&mut self, table: Table, key: &[u8]) {
        self.0.push(Write { table, key: key.into(), value: None });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn append(&mut self, other: &mut Self) {
        self.0.append(&mut other.0);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Handles on the open tables; cheap to clone, usable from any thread.
#[derive(Clone)]
pub(super) struct Tables {
    db: Database,
    keyspaces: [Keyspace; NAMES.len()],
    dir: PathBuf,
}

impl Tables {
    /// Opens or makes the database in `dir`. A tail torn by a crash is cut off; what cannot be read is an error that
    /// names the file or the directory.
    pub(super) fn open(dir: &Path) -> Result<Self, BrokerError> {
        let path = dir.join("db");
        let is_made = check_layout(dir, &path)?;
        files::check(&path, is_made)?;
        journal::check(&path, is_made)?;
        let (db, keyspaces) = caught(&path, || open_tables(&path))?;
        if !is_made {
            mark_layout(dir).map_err(|e| io_error(&dir.join(LAYOUT_FILE), &e))?;
        }
        Ok(Self { db, keyspaces, dir: dir.to_owned() })
    }

    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Slice>, BrokerError> {
        caught(&self.dir, || self.keyspaces[table as usize].get(key))
    }

    /// The rows from `start` to before `end`, in order.
    pub(super) fn range(&self, table: Table, start: &[u8], end: Bound<&[u8]>) -> Result<Rows, BrokerError> {
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
        written.map_err(|error| match error {
            // The database may only say that its background work failed; the likely reason is for us to find out.
            BrokerError::Damaged { error, .. } if !is_full(&self.dir) => {
                BrokerError::Io(format!("the store {} could not be written: {error}", self.dir.display()))
            }
            BrokerError::Damaged { .. } => full_error(&self.dir),
            other => other,
        })
    }

    /// The database holds up a writer while its background work is behind, for ever when that work has failed in the
    /// meantime. So that is waited for here, a bit earlier, where a failure is noticed.
    fn wait_for_background(&self) -> fjall::Result<()> {
        let is_behind = |k: &Keyspace| k.tree.sealed_memtable_count() >= 3 || k.tree.l0_run_count() >= 28;
        while self.keyspaces.iter().any(is_behind) {
            self.db.persist(PersistMode::Buffer)?; // fails if the background work has failed
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Ok(())
    }

    /// Bytes that are in the journal only and will be written to table files by and by.
    pub(super) fn to_be_flushed(&self) -> u64 {
        self.db.write_buffer_size()
    }

    /// Has what is in the journal written to table files, so that old journals can go, and then drops what was
    /// deleted from the table of messages, of which `waiting` rows are alive.
    pub(super) fn reclaim(&self, waiting: u64) -> Result<(), BrokerError> {
        let messages = &self.keyspaces[Table::Messages as usize];
        caught(&self.dir, || self.flush(&self.keyspaces))?;
        // What is alive is written once more, which must not take the room of tasks that are under way.
        let rows = messages.approximate_len().max(1) as u128;
        let alive = u128::from(messages.disk_space()) * u128::from(waiting).min(rows) / rows;
        if alive > u128::from(fs4::available_space(&self.dir).unwrap_or(0) / 2) {
            return Ok(());
        }
        caught(&self.dir, || messages.major_compact())?;
        // The old files go when the table is flushed after the readers of its old state are known to be gone. So
        // there must be something to flush: a row that never was is deleted.
        let mut nothing = Writes::default();
        nothing.delete(Table::Messages, &NO_ROW);
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

    /// Lets go of the files.
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

/// Whether so little room is left that this is what ails the store.
pub(super) fn is_full(dir: &Path) -> bool {
    fs4::available_space(dir).is_ok_and(|free| free < FULL)
}

pub(super) fn full_error(path: &Path) -> BrokerError {
    BrokerError::Full(format!("the disk of {} is full", path.display()))
}

/// Says what went wrong with a file while opening: no room, no permission, or what it holds.
pub(super) fn io_error(path: &Path, error: &std::io::Error) -> BrokerError {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => full_error(path),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => BrokerError::Io(format!(
            "{} cannot be written: {error}; give this user the right to, or choose another directory",
            path.display()
        )),
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists if !path.is_dir() => BrokerError::Io(format!(
            "{} cannot be used: {error}; the store needs a directory of its own",
            path.display()
        )),
        ErrorKind::UnexpectedEof
        | ErrorKind::InvalidData
        | ErrorKind::InvalidInput
        | ErrorKind::NotFound
        | ErrorKind::AlreadyExists => {
            BrokerError::Damaged { path: path.to_owned(), error: error.to_string() }
        }
        _ => BrokerError::Io(format!("{} cannot be used: {error}", path.display())),
    }
}

/// Calls the database; a panic of it is an error like any other.
fn caught<T>(path: &Path, call: impl FnOnce() -> fjall::Result<T>) -> Result<T, BrokerError> {
    let damaged = |error| BrokerError::Damaged { path: path.to_owned(), error };
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)))) => {
            Err(io_error(path, &e))
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

fn open_tables(path: &Path) -> fjall::Result<(Database, [Keyspace; NAMES.len()])> {
    let db = Database::builder(path)
        .cache_size(32 << 20)
        .max_journaling_size(256 << 20)
        // The replay compresses again to compare checksums, which another version of the compressor would not survive.
        .journal_compression(CompressionType::None)
        .worker_threads(1)
        .open()?;
    let table =
        |name: &str| db.keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(24 << 20));
    let [messages, tasks, dead, expiries, meta, lanes] = NAMES;
    let (messages, tasks, dead) = (table(messages)?, table(tasks)?, table(dead)?);
    Ok((db.clone(), [messages, tasks, dead, table(expiries)?, table(meta)?, table(lanes)?]))
}

/// Whether the tables were made before. The database makes a table anew when its files are gone, so that they are
/// all there is checked first; and what a first start left that did not get that far is cleared away.
fn check_layout(dir: &Path, db: &Path) -> Result<bool, BrokerError> {
    let file = dir.join(LAYOUT_FILE);
    match std::fs::read(&file) {
        Ok(text) if text == LAYOUT.as_bytes() => {}
        Ok(text) => {
            let error =
                format!("it says {:?}, not {LAYOUT:?}", String::from_utf8_lossy(&text[..text.len().min(60)]));
            return Err(BrokerError::Damaged { path: file, error });
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // The database writes it last, and first makes it empty.
            let is_complete = std::fs::metadata(db.join("version")).is_ok_and(|version| version.len() > 0);
            if db.exists() && !is_complete {
                std::fs::remove_dir_all(db).map_err(|e| io_error(db, &e))?;
            }
            return Ok(false);
        }
        Err(error) => return Err(io_error(&file, &error)),
    }
    let missing = |path: PathBuf| BrokerError::Damaged { path, error: "it is not there".to_owned() };
    let version = db.join("version");
    if !version.is_file() {
        return Err(missing(version));
    }
    let keyspaces = db.join("keyspaces");
    // One for each table, and the database's own.
    for number in 0..=NAMES.len() {
        let current = keyspaces.join(number.to_string()).join("current");
        if !current.is_file() {
            return Err(missing(current));
        }
    }
    Ok(true)
}

fn mark_layout(dir: &Path) -> std::io::Result<()> {
    let fresh = dir.join("layout.new");
    let mut file = File::create(&fresh)?;
    file.write_all(LAYOUT.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, dir.join(LAYOUT_FILE))?;
    File::open(dir)?.sync_all()
}
