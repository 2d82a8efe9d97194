//! The directory of a store: whether it is one, which files of an unfinished one may go, and who may look into it.
//!
//! A store makes nothing, empties nothing and deletes nothing in a directory that is not its own. It knows its own
//! directory by the file `layout`, which it writes when the tables were made, and before that by the file
//! `making`, which it writes before anything else. An earlier version wrote no `making`; a store of it whose
//! making was cut short is known by holding nothing but the first empty files of a database, which are put aside
//! and not deleted.
//!
//! Nobody else may read what a store keeps, so its directories and files are open to their owner only.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::tables::{io_error, missing_tables};
use super::{hot_log, mend};
use crate::broker::BrokerError;
use crate::store::Payloads;

/// The file that says that the tables were made, and in which layout.
pub(super) const LAYOUT_FILE: &str = "layout";
const LAYOUT: &str = "celeriac store, layout 3\n";
/// The layout of stores without a [log](super::hot_log). This version opens them, and makes them stores of its own layout.
pub(super) const EARLIER_LAYOUT: &str = "celeriac store, layout 2\n";

/// The file that says that the tables are being made: until `layout` is there, whatever lies in `db` is the
/// store's own, and empty.
const MAKING_FILE: &str = "making";
const MAKING: &str = "celeriac store, being made\n";

/// What a store keeps in its directory. `downloads` is Soil's.
const OWN: [&str; 17] = [
    "lock",
    "control.sock",
    "layout",
    "layout.new",
    "making",
    "making.new",
    "claims",
    "claims.new",
    "states",
    "states.new",
    "acknowledged",
    "acknowledged.new",
    "db",
    "mending",
    "mending-copy",
    "mended",
    "downloads",
];
/// Files that lie about in directories that somebody meant for a store.
const HARMLESS: [&str; 5] = ["lost+found", ".gitignore", ".gitkeep", ".keep", ".DS_Store"];
/// The name under which a database that was never finished is put aside.
const ASIDE: &str = "db.unfinished";
/// What is put aside: such a one, and one that was damaged.
const PUT_ASIDE: [&str; 2] = [ASIDE, "db.damaged"];

fn is_aside(name: &str) -> bool {
    PUT_ASIDE.iter().any(|aside| name.starts_with(aside))
}

/// What a directory holds, as far as a store is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DirectoryContents {
    /// The directory holds nothing of a store's.
    Nothing,
    /// The directory holds a store that was being made, with nothing in it yet. `begun` says that it has files of
    /// its database. `marked` says that it has the file `making`.
    Unfinished { begun: bool, marked: bool },
    /// The directory holds all files of a store but `layout`, and no file says that the store is being made. Its
    /// database may be on its way from a mending to its place.
    Unnamed,
    /// The directory holds a store that an earlier version made whole. It has no log, or one without a write.
    Earlier,
    /// The directory holds a store that was made whole.
    Made,
}

impl DirectoryContents {
    /// Whether the tables were made, so that each of them must be there.
    pub(super) fn is_made(self) -> bool {
        matches!(self, Self::Unnamed | Self::Earlier | Self::Made)
    }

    /// Whether an earlier version has written commits to the database's journal. `has_log`: the database has a log. That of an
    /// earlier layout has no commit, because this version writes its own layout before the first one.
    pub(super) fn has_journal(self, has_log: bool) -> bool {
        self == Self::Earlier || self == Self::Unnamed && !has_log
    }
}

/// Says what a directory is to a store, without changing anything.
///
/// # Errors
/// The directory is somebody else's, or something is missing from the store in it.
pub(super) fn examine(dir: &Path) -> Result<DirectoryContents, BrokerError> {
    if !dir.exists() {
        return Ok(DirectoryContents::Nothing);
    }
    match std::fs::read(dir.join(LAYOUT_FILE)) {
        Ok(text) if text == LAYOUT.as_bytes() => return Ok(DirectoryContents::Made),
        Ok(text) if text == EARLIER_LAYOUT.as_bytes() => return Ok(DirectoryContents::Earlier),
        Ok(text) => {
            let text = String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned();
            let error = format!("it says {:?}, not {:?}", text.trim_end(), LAYOUT.trim_end());
            return Err(BrokerError::Damaged { path: dir.join(LAYOUT_FILE), error });
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error(&dir.join(LAYOUT_FILE), error)),
    }
    let marked = is_marked(dir);
    let names = names(dir)?;
    let has = |name: &str| names.iter().any(|n| n == name);
    let lock_is_ours = std::fs::read(dir.join("lock"))
        .is_ok_and(|text| text.len() <= 20 && text.iter().all(u8::is_ascii_digit));
    if !marked && !has("db") && lock_is_ours && is_named(&dir.join(mend::MENDED)) {
        return Ok(DirectoryContents::Unnamed);
    }
    let database = if has("db") { Some(Database::look(&dir.join("db"))?) } else { None };
    if let Some(database) = &database
        && !database.strangers.is_empty()
    {
        let strangers = database.strangers.iter().map(|name| format!("db/{name}")).collect();
        return Err(not_a_store(dir, strangers));
    }
    // A store writes to these files only after it was made.
    let kept = ["claims", "states", "acknowledged"]
        .into_iter()
        .filter(|name| has(name) && std::fs::metadata(dir.join(name)).is_ok_and(|file| file.len() > 0));
    let kept: Vec<String> =
        kept.map(str::to_owned).chain(database.iter().flat_map(|db| db.kept.clone())).collect();
    // While the tables are being made, all of their files may be there although the database does not know the
    // last of them.
    if database.as_ref().is_some_and(Database::is_complete) && !(marked && kept.is_empty()) {
        return Ok(DirectoryContents::Unnamed);
    }
    let is_ours = marked || database.is_some() || has("lock");
    if is_ours && !kept.is_empty() {
        let mut missing = vec![LAYOUT_FILE.to_owned()];
        match &database {
            None => missing.push("db".to_owned()),
            Some(database) => missing.extend(database.missing.clone()),
        }
        let error = format!(
            "of a store that was made, {} {} not there, and {} {}; nothing was changed",
            list(&missing),
            if missing.len() == 1 { "is" } else { "are" },
            list(&kept),
            if kept.len() == 1 { "is" } else { "are" },
        );
        return Err(BrokerError::Damaged { path: dir.to_owned(), error });
    }
    let strangers: Vec<String> = names
        .iter()
        .filter(|name| match name.as_str() {
            "lock" => !lock_is_ours,
            // Such a file, in a directory that is no store, is not a file that a store of ours would have left.
            MAKING_FILE => !marked,
            "claims" | "states" | "acknowledged" => !kept.is_empty(),
            // A store that was not made has had nothing to mend.
            mend::LOOKED_AT | mend::MENDING | mend::MENDED => true,
            "downloads" => !Payloads::may_keep_in(&dir.join("downloads")),
            name if is_aside(name) => false,
            name => !OWN.contains(&name) && !HARMLESS.contains(&name),
        })
        .cloned()
        .collect();
    if !strangers.is_empty() {
        return Err(not_a_store(dir, strangers));
    }
    Ok(match database {
        None if marked => DirectoryContents::Unfinished { begun: false, marked },
        None => DirectoryContents::Nothing,
        Some(database) => DirectoryContents::Unfinished { begun: !database.is_bare, marked },
    })
}

/// Whether a directory says that it is a store that was made whole.
pub(super) fn is_named(dir: &Path) -> bool {
    let layouts = [LAYOUT.as_bytes(), EARLIER_LAYOUT.as_bytes()];
    std::fs::read(dir.join(LAYOUT_FILE)).is_ok_and(|text| layouts.contains(&text.as_slice()))
}

/// Whether a directory says that a store is being made there.
fn is_marked(dir: &Path) -> bool {
    std::fs::read(dir.join(MAKING_FILE)).is_ok_and(|text| text == MAKING.as_bytes())
}

/// Makes sure that a directory which a store makes beside its database is not somebody else's of the same name. Its own
/// one says so, or holds nothing yet; an earlier version left a database there that says nothing.
///
/// # Errors
/// The directory is somebody else's.
pub(super) fn require_own(dir: &Path) -> Result<(), BrokerError> {
    if dir.symlink_metadata().is_err() || is_named(dir) || is_marked(dir) {
        return Ok(());
    }
    if !dir.is_dir() {
        return Err(not_a_store(dir, vec![String::from("(a file)")]));
    }
    let found = names(dir)?;
    let is_bare = found.iter().all(|name| ["db", "making.new"].contains(&name.as_str()));
    let is_ours = |db: &Path| !db.exists() || Database::look(db).is_ok_and(|db| db.strangers.is_empty());
    if is_bare && is_ours(&dir.join("db")) { Ok(()) } else { Err(not_a_store(dir, found)) }
}

/// The names of the entries of a directory, sorted.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, BrokerError> {
    let entries = std::fs::read_dir(dir).map_err(|e| io_error(dir, e))?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()).map_err(|e| io_error(dir, e)));
    let mut names: Vec<String> =
        names.map(|name| Ok(name?.to_string_lossy().into_owned())).collect::<Result<_, BrokerError>>()?;
    names.sort_unstable();
    Ok(names)
}

fn not_a_store(dir: &Path, found: Vec<String>) -> BrokerError {
    BrokerError::NotAStore { path: dir.to_owned(), found: list(&found) }
}

/// Some of these names in words, for an error.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    match names.len().checked_sub(SHOWN + 1) {
        Some(rest) => format!("{} and {} more", shown.join(", "), rest + 1),
        None => shown.join(", "),
    }
}

/// What is in the directory `db` of a store that has no `layout`.
struct Database {
    strangers: Vec<String>,
    /// Whether the directory is empty.
    is_bare: bool,
    /// The files in it that are not empty.
    kept: Vec<String>,
    /// The files that a complete database has and this one lacks.
    missing: Vec<String>,
}

impl Database {
    fn look(db: &Path) -> Result<Self, BrokerError> {
        if !db.is_dir() {
            let strangers = vec![String::from("(a file)")];
            let (kept, missing) = (Vec::new(), Vec::new());
            return Ok(Self { strangers, is_bare: false, kept, missing });
        }
        let (mut strangers, mut kept, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        let mut journals = 0;
        let found = names(db)?;
        let is_bare = found.is_empty();
        for name in found {
            let is_journal = name.strip_suffix(".jnl").is_some_and(|n| n.parse::<u64>().is_ok());
            match name.as_str() {
                "lock" | "version" | "keyspaces" => {}
                hot_log::DIR => {
                    let log = db.join(&name);
                    for file in if log.is_dir() { names(&log)? } else { vec![String::new()] } {
                        let path = log.join(&file);
                        if !hot_log::is_name(&file) {
                            strangers.push(format!("{name}/{file}"));
                        } else if super::journal::has_content(&path)? {
                            kept.push(format!("db/{name}/{file}"));
                        }
                    }
                }
                _ if is_journal => {
                    journals += 1;
                    if super::journal::has_content(&db.join(&name))? {
                        kept.push(format!("db/{name}"));
                    }
                }
                _ => strangers.push(name),
            }
        }
        // The database makes this file after its first journal, and makes it empty at first.
        let has_version = std::fs::read(db.join("version")).is_ok_and(|text| text.starts_with(b"FJL"));
        if !has_version {
            missing.push("db/version".to_owned());
        }
        if journals == 0 {
            missing.push("db/0.jnl".to_owned());
        }
        let shown = |path: PathBuf| path.strip_prefix(db).map(|p| format!("db/{}", p.display()));
        missing.extend(missing_tables(db)?.into_iter().flat_map(shown));
        let keyspaces = db.join("keyspaces");
        for name in if keyspaces.is_dir() { names(&keyspaces)? } else { Vec::new() } {
            let tables = keyspaces.join(&name).join("tables");
            match name.parse::<u64>() {
                Err(_) => strangers.push(format!("keyspaces/{name}")),
                Ok(1..) if tables.is_dir() && !self::names(&tables)?.is_empty() => {
                    kept.push(format!("db/keyspaces/{name}/tables"));
                }
                Ok(_) => {}
            }
        }
        Ok(Self { strangers, is_bare, kept, missing })
    }

    fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }
}

/// Makes the directory if it is not there, for its owner only.
pub(super) fn make(dir: &Path) -> Result<(), BrokerError> {
    builder().recursive(true).create(dir).map_err(|e| io_error(dir, e))
}

/// Makes a directory that is not there, for its owner only, and marks it as a store's own: whoever finds it later may
/// delete it.
///
/// # Errors
/// There is something of that name.
pub(super) fn make_own(dir: &Path) -> Result<(), BrokerError> {
    builder().create(dir).map_err(|e| io_error(dir, e))?;
    begin(dir, DirectoryContents::Nothing)
}

fn builder() -> DirBuilder {
    #[cfg_attr(not(unix), allow(unused_mut))]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// Notes in the directory that a store is being made there, and clears away what an earlier attempt left. The
/// caller holds the lock.
pub(super) fn begin(dir: &Path, found: DirectoryContents) -> Result<(), BrokerError> {
    let (begun, marked) = match found {
        DirectoryContents::Made | DirectoryContents::Earlier | DirectoryContents::Unnamed => return Ok(()),
        DirectoryContents::Nothing => (false, false),
        DirectoryContents::Unfinished { begun, marked } => (begun, marked),
    };
    let db = dir.join("db");
    // The database is made anew and not finished, because it would go on with the number of a table that it never
    // made whole.
    if begun && db.exists() {
        if marked {
            std::fs::remove_dir_all(&db).map_err(|e| io_error(&db, e))?;
        } else {
            let aside = (0..).map(|n| dir.join(format!("{ASIDE}-{n}"))).find(|path| !path.exists());
            let aside = aside.unwrap_or_else(|| dir.join(ASIDE));
            std::fs::rename(&db, &aside).map_err(|e| io_error(&db, e))?;
            tracing::warn!(path = %aside.display(), "a database that was never finished, and is empty, is put aside; it may be deleted");
        }
    }
    if !marked {
        write_whole(dir, MAKING_FILE, MAKING).map_err(|e| io_error(&dir.join(MAKING_FILE), e))?;
    }
    Ok(())
}

/// Notes that the tables were made.
pub(super) fn finish(dir: &Path, found: DirectoryContents) -> Result<(), BrokerError> {
    if found != DirectoryContents::Made {
        write_whole(dir, LAYOUT_FILE, LAYOUT).map_err(|e| io_error(&dir.join(LAYOUT_FILE), e))?;
    }
    // The mark may also be left from a start that ended after `layout` was written.
    match std::fs::remove_file(dir.join(MAKING_FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io_error(&dir.join(MAKING_FILE), error))
        }
        _ => Ok(()),
    }
}

/// Writes a file wholly or not at all, and syncs it.
fn write_whole(dir: &Path, name: &str, text: &str) -> std::io::Result<()> {
    let fresh = dir.join(format!("{name}.new"));
    let mut file = private().create(true).truncate(true).write(true).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, dir.join(name))?;
    File::open(dir)?.sync_all()
}

/// Options that make files which only their owner may read.
pub(super) fn private() -> OpenOptions {
    #[cfg_attr(not(unix), allow(unused_mut))]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Takes from everybody but the owner the rights to the directory and to the store's own files in it; an earlier
/// version left the rights that the process's umask gave. Logs a warning if the rights cannot be changed.
pub(super) fn close_to_others(dir: &Path) {
    #[cfg(unix)]
    {
        let mut open = Vec::new();
        // If others use the directory as well, which an earlier version allowed, the directory keeps its rights.
        let is_own = |name: &String| OWN.contains(&name.as_str()) || HARMLESS.contains(&name.as_str());
        if names(dir).is_ok_and(|names| names.iter().all(|name| is_own(name) || is_aside(name))) {
            tighten(dir, 0o700, &mut open);
        }
        for name in OWN
            .iter()
            .filter(|name| !matches!(**name, "downloads" | "db" | "mending" | "mending-copy" | "mended"))
        {
            tighten(&dir.join(name), 0o600, &mut open);
        }
        tighten_all(&dir.join("db"), &mut open);
        if let Some((path, error)) = open.first() {
            let (path, files) = (path.display(), open.len());
            tracing::warn!(%path, files, %error, "others may read what the store keeps, and that cannot be changed; the arguments and results of tasks are in it");
        }
    }
    #[cfg(not(unix))]
    let _ = dir;
}

/// As [`close_to_others`], for a directory of the database and everything in it.
#[cfg(unix)]
fn tighten_all(path: &Path, open: &mut Vec<(PathBuf, std::io::Error)>) {
    tighten(path, 0o700, open);
    let Ok(entries) = std::fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => tighten_all(&entry.path(), open),
            Ok(kind) if kind.is_file() => tighten(&entry.path(), 0o600, open),
            _ => {}
        }
    }
}

/// Closes the database's directory to others, and the files in it: new files get the rights that the process's
/// umask gives.
pub(super) fn close_database(db: &Path) {
    #[cfg(unix)]
    tighten_all(db, &mut Vec::new());
    #[cfg(not(unix))]
    let _ = db;
}

#[cfg(unix)]
fn tighten(path: &Path, mode: u32, open: &mut Vec<(PathBuf, std::io::Error)>) {
    use std::os::unix::fs::PermissionsExt;
    // A file that is not there, or that went in the meantime, is open to nobody.
    let Ok(file) = std::fs::symlink_metadata(path) else { return };
    let is = file.permissions().mode() & 0o777;
    if file.is_symlink() || is & !mode == 0 {
        return;
    }
    match std::fs::set_permissions(path, std::fs::Permissions::from_mode(is & mode)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => open.push((path.to_owned(), error)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(dir: &Path) -> String {
        examine(dir).unwrap_err().to_string()
    }

    #[test]
    fn a_directory_is_ours_by_what_says_so() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path();
        assert_eq!(examine(&dir.join("none")).unwrap(), DirectoryContents::Nothing);
        assert_eq!(examine(dir).unwrap(), DirectoryContents::Nothing);
        std::fs::write(dir.join("lock"), "4711").unwrap();
        std::fs::write(dir.join("claims"), "").unwrap();
        std::fs::create_dir(dir.join("downloads")).unwrap();
        assert_eq!(examine(dir).unwrap(), DirectoryContents::Nothing);
        begin(dir, DirectoryContents::Nothing).unwrap();
        let unfinished = DirectoryContents::Unfinished { begun: false, marked: true };
        assert_eq!(examine(dir).unwrap(), unfinished);
        finish(dir, unfinished).unwrap();
        assert_eq!(examine(dir).unwrap(), DirectoryContents::Made);
        assert!(!dir.join(MAKING_FILE).exists());
    }

    #[test]
    fn what_is_somebody_elses_is_named() {
        for (name, content) in [
            ("notes.txt", "x"),
            ("lock", "held by apt\n"),
            ("making", "tea"),
            ("db", "a file"),
            ("mended", "a bike"),
        ] {
            let home = tempfile::tempdir().unwrap();
            std::fs::write(home.path().join(name), content).unwrap();
            let text = error_of(home.path());
            assert!(text.contains(name) && text.contains("of its own"), "{text}");
        }
    }

    #[test]
    fn what_a_store_made_to_mend_itself_is_told_from_what_somebody_put_there() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("mending");
        assert!(require_own(&dir).is_ok(), "there is nothing");
        make_own(&dir).unwrap();
        assert!(make_own(&dir).is_err(), "it is there");
        std::fs::write(dir.join("anything"), "x").unwrap();
        assert!(require_own(&dir).is_ok(), "it is marked");
        std::fs::remove_file(dir.join(MAKING_FILE)).unwrap();
        let text = require_own(&dir).unwrap_err().to_string();
        assert!(text.contains("`anything`") && text.contains("mending"), "{text}");
        std::fs::rename(dir.join("anything"), dir.join(MAKING_FILE)).unwrap();
        assert!(require_own(&dir).is_err(), "it says something else");
        std::fs::remove_file(dir.join(MAKING_FILE)).unwrap();
        assert!(require_own(&dir).is_ok(), "it is empty");
        std::fs::create_dir_all(dir.join("db/keyspaces/1")).unwrap();
        assert!(require_own(&dir).is_ok(), "an earlier version left it");
        std::fs::write(dir.join("db/production.sqlite3"), "rows").unwrap();
        assert!(require_own(&dir).is_err());
    }
}
