//! A Postgres server of the test's own.
//!
//! Postgres does not run as root. So where the test does, the server runs as the user `postgres`, which Debian's package
//! makes, and its data is below the directory for temporary files, to which that user has a way.

use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;

use super::home::Home;
use super::process::{Process, program, run};
use super::{await_condition, ports};

/// A server, which ends when it is dropped.
pub struct Postgres {
    process: Process,
    port: u16,
    _data: DataDirectory,
    _home: Home,
}

impl Postgres {
    /// A server with one database, `postgres`, and a user of that name. It does not wait for its disk.
    pub fn start() -> Self {
        let (home, data, port) = (Home::new("postgres"), DataDirectory::new(), ports::free());
        let made = run("initdb", "setpriv", |command| {
            data.as_its_owner(command, "initdb");
            command.args([
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ]);
            command.arg("-D").arg(data.cluster());
        });
        made.expect_success("initdb");
        let mut process = Process::start("postgres", "setpriv", home.join("log"), |command| {
            data.as_its_owner(command, "postgres");
            command.arg("-D").arg(data.cluster()).args(["-p", &port.to_string()]);
            command.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
            command.args(["-c", "fsync=off", "-c", "max_connections=200"]);
        });
        let log = home.join("log");
        process.await_condition("it serves", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if !text.contains("ready to accept connections") {
                return Err("it still starts".to_owned());
            }
            TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string())
        });
        Self { process, port, _data: data, _home: home }
    }

    /// `postgres://` with user and database.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    pub fn log(&self) -> String {
        self.process.log()
    }
}

impl Drop for Postgres {
    /// A fast shutdown, which frees what the server has of the system's shared memory. A killed one would not.
    fn drop(&mut self) {
        self.process.signal(Signal::INT);
        let process = &mut self.process;
        await_condition("the end of postgres", || {
            if process.has_ended() { Ok(()) } else { Err(process.last_of_log()) }
        });
    }
}

/// A directory of the server's user, removed with the server.
struct DataDirectory {
    path: PathBuf,
    /// Whether the test is root, and the server another user.
    is_shared: bool,
}

impl DataDirectory {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let root = std::env::temp_dir();
        sweep(&root);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("{PREFIX}{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path); // of an earlier process that had this pid
        std::fs::create_dir(&path).expect("a directory for Postgres");
        let is_shared = std::fs::metadata(&path).expect("it was just made").uid() == 0;
        if is_shared {
            chown(&path, Some(id_of_postgres("-u")), Some(id_of_postgres("-g")))
                .expect("root may give it away");
        }
        Self { path, is_shared }
    }

    fn cluster(&self) -> PathBuf {
        self.path.join("cluster")
    }

    /// The rest of a command `setpriv`, up to the arguments of this program of Postgres.
    fn as_its_owner(&self, command: &mut Command, name: &str) {
        if self.is_shared {
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        }
        // The change of the user has cancelled the signal that ends it with the test.
        command.args(["--pdeathsig", "KILL", "--"]).arg(binary(name));
        command.current_dir(&self.path).env("LC_ALL", "C").env_remove("PGDATA");
    }
}

impl Drop for DataDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

const PREFIX: &str = "celeriac-postgres-";

/// Removes what processes left that were killed.
fn sweep(root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let pid = ours.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn id_of_postgres(kind: &str) -> u32 {
    let said = run("id", "id", |command| {
        command.args([kind, "postgres"]);
    });
    let id = said.expect_success("id of the user postgres: run ./test.sh, or 'apt-get install postgresql'");
    id.trim().parse().expect("a number")
}

/// A program of Postgres: Debian keeps those of each version in a directory of its own, which is not in the path.
fn binary(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> =
        versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.exists()).collect();
    found.sort();
    found.pop().unwrap_or_else(|| program(&[name], "postgresql"))
}
