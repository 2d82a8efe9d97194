//! What every task of the program shares: where its data lies and whom it talks to.
//!
//! Tasks carry ids and nothing else (HQ's own advice), so whatever else they need they find here. It is set once,
//! before the runtime starts, because tasks left over from the last run start with it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use celeriac::task::{Signature, Task};
use celeriac::{EnqueueError, TaskError};

use crate::db::Database;

static HQ: OnceLock<Hq> = OnceLock::new();

/// The program's surroundings.
pub struct Hq {
    /// SQLite with the cases and all that belongs to them.
    pub db: Database,
    /// Uploaded CSV files, until they are imported.
    pub uploads: PathBuf,
    /// Spreadsheets to download.
    pub exports: PathBuf,
    /// Restore payloads for phones.
    pub restores: PathBuf,
    /// Mails, when no SMTP server is set.
    pub mail: PathBuf,
    /// An SMTP server, `host:port`.
    pub smtp: Option<(String, u16)>,
    /// Where this program is, for links in mails.
    pub url: String,
    /// Where analytics, SMS, logs and repeat records are posted to.
    pub endpoint: String,
}

impl Hq {
    /// Opens the database and makes the directories under `data`.
    pub fn open(
        data: &Path,
        url: String,
        endpoint: String,
        smtp: Option<(String, u16)>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let directory = |name: &str| {
            let path = data.join(name);
            create_private_dir(&path)?;
            Ok::<_, String>(path)
        };
        Ok(Self {
            uploads: directory("uploads")?,
            exports: directory("exports")?,
            restores: directory("restores")?,
            mail: directory("mail")?,
            db: Database::open(&data.join("hq.sqlite3"))?,
            smtp,
            url,
            endpoint,
        })
    }

    /// Makes this the surroundings of all tasks.
    pub fn install(self) -> &'static Self {
        HQ.get_or_init(|| self)
    }
}

/// Makes a directory that no other account of the machine can look into: there are people's data in it.
pub fn create_private_dir(path: &Path) -> Result<(), String> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|e| format!("cannot make {}: {e}", path.display()))
}

/// Creates a file that no other account of the machine can read.
pub fn create_private(path: &Path) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// The program's surroundings.
pub fn hq() -> &'static Hq {
    HQ.get().expect("`main` installs it before anything runs")
}

/// Milliseconds since 1970, as the tables keep times.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Enqueues a task that follows from another one, from within that one's body.
///
/// The id says what it follows from. A body that runs a second time, because its worker died after this line,
/// enqueues the same id again and learns that this is done.
pub fn follow<T: Task>(next: Signature<T>, id: String) -> Result<(), TaskError> {
    match next.id(id).delay().wait() {
        Ok(_) | Err(EnqueueError::DuplicateId { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Writes a file so that whoever sees its name sees all of it: under another name first, synced, then renamed.
pub fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut std::io::BufWriter<std::fs::File>) -> Result<(), TaskError>,
) -> Result<u64, TaskError> {
    use std::io::Write;
    let part = path.with_extension("part");
    let mut file = std::io::BufWriter::new(create_private(&part)?);
    write(&mut file)?;
    file.flush()?;
    let file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.sync_all()?;
    let bytes = file.metadata()?.len();
    std::fs::rename(&part, path)?;
    Ok(bytes)
}
