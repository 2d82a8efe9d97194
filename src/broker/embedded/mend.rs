//! A store mends itself when the database cannot merge its table files any more.
//!
//! The database rewrites table files in the background. It reads whole files then, and a block that is damaged makes it give
//! up: from then on it refuses every write, and after it was opened again it comes to the same block. It knows no way to pass
//! over one. So what can be read is copied to a new database in the same directory, as `celeriac store salvage` does, which
//! then takes the place of the old one. The old one stays beside it as `db.damaged-N`, and what it cost is logged.
//!
//! The copy is made in `mending`, which is worth nothing until it is whole; then its name is `mended`, and nothing is written
//! to the old database any more. Whoever opens the store next does the rest, should this process end in between. What the
//! store has acknowledged is in one of the two at any time, as far as it can be read at all.
//!
//! Somebody may have a directory of one of these names. So a copy is marked before anything else is written to it,
//! and what has no mark is neither deleted nor taken for a database.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::copy::Copy;
use super::ready_key::ReadyKey;
use super::salvage::{Salvaged, copy_to};
use super::tables::{NAMES, TABLES, Tables, io_error};
use super::{acknowledged, home, hot_log};
use crate::broker::BrokerError;
use crate::task::Message;

/// The copy that is looked at for damage.
pub(super) const LOOKED_AT: &str = "mending-copy";
/// The new database, of which a part is written.
pub(super) const MENDING: &str = "mending";
/// The new database when it is whole.
pub(super) const MENDED: &str = "mended";
/// A database that was damaged, put aside.
const ASIDE: &str = "db.damaged";
/// The bytes that stay free beside the copy.
const SPARE: u64 = 64 << 20;
/// What a log line names at most.
const SHOWN: usize = 20;

/// Messages that are in somebody's hands, by the keys of their rows.
pub(super) type InHand = HashMap<ReadyKey, Arc<Message>>;

/// Mends the store in a directory, whose lock is held and whose tables are closed. What is in somebody's hands is there,
/// whether its row can be read or not. Says whether there was anything to mend.
///
/// # Errors
/// There is no room for the copy, the disk refuses it, or somebody's directory is in its place. Nothing has changed
/// then.
pub(super) fn mend(dir: &Path, in_hand: &InHand) -> Result<bool, BrokerError> {
    if fs4::available_space(dir).unwrap_or(u64::MAX) < SPARE {
        return Ok(false); // that is reason enough why the database could not merge
    }
    home::require_own(&dir.join(MENDED))?; // asked before the work of copying, which would be in vain
    clear(&dir.join(LOOKED_AT))?;
    let copy = Copy::beside(dir, &dir.join(LOOKED_AT))?;
    if !is_damaged(&copy.tables()?) && copy.damage.is_empty() {
        return Ok(false);
    }
    check_room(dir)?;
    let mending = dir.join(MENDING);
    clear(&mending)?;
    home::make_own(&mending)?;
    let salvaged = copy_to(&copy, &mending, in_hand)?;
    drop(copy);
    let mended = dir.join(MENDED);
    std::fs::rename(&mending, &mended).map_err(|e| io_error(&mending, e))?;
    sync(dir)?;
    let aside = take_place(dir)?;
    tell(dir, &aside, &salvaged);
    Ok(true)
}

/// Finishes what an earlier process began, and clears away what is worth nothing. The lock is held.
pub(super) fn finish(dir: &Path) -> Result<(), BrokerError> {
    if !home::examine(dir)?.is_made() {
        return Ok(()); // nothing there was ever mended
    }
    let mended = dir.join(MENDED);
    if home::is_named(&mended) && mended.join("db").is_dir() {
        let aside = take_place(dir)?;
        let (dir, aside) = (dir.display(), aside.display());
        tracing::error!(%dir, %aside, "the store was damaged, and an earlier process copied what could be read; that has taken its place");
    }
    for name in [LOOKED_AT, MENDING, MENDED] {
        match clear(&dir.join(name)) {
            Err(error @ BrokerError::NotAStore { .. }) => {
                tracing::warn!(%error, "the store leaves this directory where it is, and cannot mend itself while it is there");
            }
            done => done?,
        }
    }
    Ok(())
}

/// The mended database takes the place of the damaged one; where that is now.
fn take_place(dir: &Path) -> Result<PathBuf, BrokerError> {
    let (db, mended) = (dir.join("db"), dir.join(MENDED));
    // How far the old log was acknowledged says nothing of the new one.
    acknowledged::forget(dir).map_err(|e| io_error(dir, e))?;
    let last = (0..).map(|n| dir.join(format!("{ASIDE}-{n}"))).find(|path| !path.exists());
    let mut aside = last.unwrap_or_else(|| dir.join(ASIDE));
    if db.exists() {
        std::fs::rename(&db, &aside).map_err(|e| io_error(&db, e))?;
    } else if let Some(before) = newest_aside(dir) {
        aside = before;
    }
    std::fs::rename(mended.join("db"), &db).map_err(|e| io_error(&mended, e))?;
    sync(dir)?;
    clear(&mended)?;
    Ok(aside)
}

fn newest_aside(dir: &Path) -> Option<PathBuf> {
    (0..).map(|n| dir.join(format!("{ASIDE}-{n}"))).take_while(|path| path.exists()).last()
}

/// Whether a row of any table cannot be read.
fn is_damaged(tables: &Tables) -> bool {
    TABLES.iter().any(|table| {
        let mut rows = tables.readable(*table, &[], Bound::Unbounded);
        while rows.gaps.is_empty() && rows.next().is_some() {}
        !rows.gaps.is_empty()
    })
}

/// The copy takes as much room as the tables and the log, at most.
fn check_room(dir: &Path) -> Result<(), BrokerError> {
    let tables = (0..=NAMES.len()).map(|n| dir.join(format!("db/keyspaces/{n}/tables")));
    let files = tables.flat_map(|tables| std::fs::read_dir(tables).into_iter().flatten().flatten());
    let tables: u64 = files.map(|file| file.metadata().map_or(0, |file| file.len())).sum();
    let needed = tables.saturating_add(hot_log::disk_space(&dir.join("db")));
    let free = fs4::available_space(dir).unwrap_or(u64::MAX);
    if free > needed.saturating_add(SPARE) {
        return Ok(());
    }
    Err(BrokerError::Full(format!(
        "a file of the store {} is damaged, and there is no room to copy the rest: {} MiB are free and {} MiB are needed; make room, or stop the program and run `celeriac store salvage` with a directory on another disk",
        dir.display(),
        free >> 20,
        needed.saturating_add(SPARE) >> 20
    )))
}

fn tell(dir: &Path, aside: &Path, salvaged: &Salvaged) {
    let Salvaged { damage, waiting, lost, .. } = salvaged;
    let ids: Vec<&str> = lost.iter().take(SHOWN).map(|id| id.as_str()).collect();
    let damage: Vec<&String> = damage.iter().take(SHOWN).collect();
    let (dir, aside) = (dir.display(), aside.display());
    tracing::error!(
        %dir, %aside, waiting, lost = lost.len(), ?ids, ?damage,
        "a file of the store was damaged: all that can be read was copied, and the store goes on with the copy; the damaged one is put aside, for `celeriac store verify` or for whoever can read more of it, and may be deleted"
    );
}

/// Deletes a directory that the store has made to mend itself.
///
/// # Errors
/// It is somebody else's, or the disk refuses it.
fn clear(path: &Path) -> Result<(), BrokerError> {
    home::require_own(path)?;
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error(path, error)),
        _ => Ok(()),
    }
}

fn sync(dir: &Path) -> Result<(), BrokerError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| io_error(dir, e))
}
