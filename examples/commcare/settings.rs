//! What the program was started with.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use clap::Parser;

use crate::AnyError;

/// A program in the likeness of CommCare HQ, with its 24 queues.
#[derive(Parser)]
pub struct Arguments {
    /// Send a fixed load through all queues, print their table, and fail if anything was lost or left
    #[arg(long)]
    pub once: bool,
    /// Where the database, the files and the queues are
    #[arg(long, default_value = "data/commcare")]
    pub data: PathBuf,
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// The port to listen on; 0 takes any free one
    #[arg(long, default_value_t = 8024)]
    pub port: u16,
    /// The queue catalogue
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/celeriac.toml"))]
    pub catalogue: PathBuf,
    /// Which environment of the catalogue applies
    #[arg(long)]
    pub environment: Option<String>,
    /// Send e-mails to this SMTP server (HOST:PORT) instead of writing them to files
    #[arg(long)]
    pub smtp: Option<String>,
    /// Post analytics, logs, SMS and repeats here instead of to this program's own sink
    #[arg(long)]
    pub endpoint: Option<String>,
    /// How long running tasks may go on after a signal, in seconds
    #[arg(long, default_value_t = 10)]
    pub grace: u64,
}

/// The settings, as tasks see them.
pub struct Settings {
    data: PathBuf,
    /// Where posts go; `/{kind}/{id}` is appended.
    pub endpoint: String,
    /// `HOST:PORT` of the mail server.
    pub smtp: Option<String>,
}

static SETTINGS: OnceLock<Settings> = OnceLock::new();

impl Settings {
    pub fn install(arguments: &Arguments, url: &str) -> Result<(), AnyError> {
        let endpoint = arguments.endpoint.clone().unwrap_or_else(|| format!("{url}/sink"));
        let settings = Self { data: arguments.data.clone(), endpoint, smtp: arguments.smtp.clone() };
        for folder in ["uploads", "exports", "mail", "restores", "reports"] {
            std::fs::create_dir_all(settings.data.join(folder))?;
        }
        SETTINGS.set(settings).map_err(|_| "the settings are installed already".into())
    }
}

/// The settings in force.
pub fn settings() -> &'static Settings {
    SETTINGS.get().expect("main installs the settings before any task can run")
}

/// A file or folder below the data directory.
pub fn path(relative: impl AsRef<Path>) -> PathBuf {
    settings().data.join(relative)
}

/// Writes a file so that it is whole or not there.
pub fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    std::fs::write(&unfinished, bytes)?;
    std::fs::rename(unfinished, path)
}
