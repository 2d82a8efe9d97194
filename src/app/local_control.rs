//! The local endpoint of a program that owns an embedded store: a socket in the directory of the store, over which `celeriac`
//! asks the running program what it would otherwise read from the store. A question is a line of JSON with `method` and
//! `arguments`, and is answered by the same code as [remote control](super::control). Besides, `console` asks where the console
//! of the program is.
//!
//! Invariants:
//! - Who holds the lock of the store has the socket. So one that is found is of a program that was killed, and is replaced.
//! - Only the user of the program, and root, is answered: by the mode of the socket, by the directory, and by who the kernel says
//!   is on the other side.
//! - Whatever comes costs a bounded amount: connections, the bytes of a question, the time for a question and for its answer.
//! - A program whose socket cannot be made runs without it. The log says so once.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::codec::{Framed, LinesCodec};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::control;
use super::handle::{Celeriac, CeleriacInner};
use crate::broker::ControlRequest;
use crate::core::text::shortened;
use crate::protocol::control::Request;
use crate::protocol::host;

/// The name of the socket in the directory of the store.
pub(crate) const SOCKET: &str = "control.sock";
/// The most bytes of its path. The systems differ in what they take; all take so many.
const LONGEST_PATH: usize = 100;
/// The most connections at a time.
const MOST: usize = 16;
/// The most bytes of a question.
const LONGEST: usize = 64 << 10;
/// How long a connection may be silent, and how long it may take an answer.
const SILENCE: Duration = Duration::from_secs(5);
/// How long an answer may take. The program's own commands have ten seconds.
const ANSWER: Duration = Duration::from_secs(15);
/// The pause after a connection that could not be accepted.
const PAUSE: Duration = Duration::from_secs(1);

type LineConnection = Framed<UnixStream, LinesCodec>;

/// The socket, which goes with this value, and with it whoever answers there.
pub(super) struct LocalSocket {
    path: PathBuf,
    /// Tells the file from another one: the next program may have a socket of the same name by the time that this goes.
    file: FileMark,
    _listens: DropGuard,
}

impl LocalSocket {
    /// The socket that is at this path. `listens` is cancelled when it goes.
    fn at(path: PathBuf, listens: CancellationToken) -> io::Result<Self> {
        let file = file_at(&path)?;
        Ok(Self { path, file, _listens: listens.drop_guard() })
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        if file_at(&self.path).ok() != Some(self.file) {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the socket of the store stays; the next program replaces it");
        }
    }
}

/// What a file is told by from those before it and after it at its path: its device, its number there, which another file may get
/// when it is gone, and when it was made or changed, in seconds and nanoseconds.
type FileMark = (u64, u64, i64, i64);

fn file_at(path: &Path) -> io::Result<FileMark> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino(), found.ctime(), found.ctime_nsec()))
}

impl Celeriac {
    /// Answers questions that come over the socket in this directory, whose store this program has open, until the shutdown.
    pub(super) fn answer_locally(&self, dir: &Path) {
        let path = dir.join(SOCKET);
        let listens = self.inner.ending.child_token();
        let bound =
            bind(&path).and_then(|listener| Ok((listener, LocalSocket::at(path.clone(), listens.clone())?)));
        let (listener, socket) = match bound {
            Ok(bound) => bound,
            Err(error) => {
                tracing::warn!(target: "celeriac", path = %path.display(), %error, "the program runs without its socket, so `celeriac --directory` cannot ask it");
                return;
            }
        };
        *self.inner.control.local.lock() = Some(socket);
        let inner = Arc::downgrade(&self.inner);
        let serve = async move {
            listens.run_until_cancelled(accept(&listener, &inner)).await;
        };
        self.inner.bulk.handle().spawn(serve);
    }
}

/// Makes the socket, in the place of one that a program has left that was killed.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let length = path.as_os_str().len();
    if length > LONGEST_PATH {
        let text = format!("its path has {length} bytes, and may have {LONGEST_PATH}: use a shorter one");
        return Err(io::Error::other(text));
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::other("something else has its name")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // A runtime that was built without I/O has no listeners, and says so by a panic.
    let listener = std::panic::catch_unwind(|| UnixListener::bind(path)).unwrap_or_else(|_| {
        let _ = std::fs::remove_file(path);
        Err(io::Error::other(
            "the runtime in which the program was started has no I/O: build it with `enable_all`",
        ))
    })?;
    if let Err(error) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)) {
        let _ = std::fs::remove_file(path); // nobody listens there
        return Err(error);
    }
    Ok(listener)
}

async fn accept(listener: &UnixListener, inner: &Weak<CeleriacInner>) {
    let room = Arc::new(Semaphore::new(MOST));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the socket of the store cannot be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if !is_own_user(&stream) {
            continue;
        }
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            // Whoever does not read it has come for nothing.
            let _ = stream
                .try_write(format!("{}\n", refused("the program answers others; try again")).as_bytes());
            continue;
        };
        let inner = Weak::clone(inner);
        tokio::spawn(async move {
            let _place = place;
            let Some(ending) = inner.upgrade().map(|inner| inner.ending.clone()) else { return };
            ending.run_until_cancelled(converse(stream, &inner)).await;
        });
    }
}

/// Whether the user of this program, or root, is on the other side.
fn is_own_user(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

/// Answers one question after the other.
async fn converse(stream: UnixStream, inner: &Weak<CeleriacInner>) {
    let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(LONGEST));
    loop {
        let told = match timeout(SILENCE, lines.next()).await {
            Err(_) | Ok(None) => return,
            Ok(Some(Ok(line))) => tell(&mut lines, &answer(inner, &line).await).await,
            Ok(Some(Err(error))) => {
                let text = format!("a question is a line of text of at most {LONGEST} bytes: {error}");
                tell(&mut lines, &refused(&text)).await;
                return;
            }
        };
        if !told {
            return;
        }
    }
}

/// Says whether the other side has taken the line.
async fn tell(lines: &mut LineConnection, answer: &Value) -> bool {
    matches!(timeout(SILENCE, lines.send(answer.to_string())).await, Ok(Ok(())))
}

/// The answer to a line: `node` and `answer`, or `error`.
async fn answer(inner: &Weak<CeleriacInner>, line: &str) -> Value {
    let Request { method, arguments, .. } = match serde_json::from_str(line) {
        Ok(request) => request,
        Err(error) => {
            return refused(&format!("a question is an object with `method` and `arguments`: {error}"));
        }
    };
    let Some(inner) = inner.upgrade() else { return refused("the program ends") };
    let node = format!("celeriac@{}", host());
    let told = |answer: Value| json!({ "node": node, "answer": answer });
    if method == "ping" {
        return told(json!({ "ok": "pong" }));
    }
    if method == "console" {
        return told(json!({ "url": inner.control.console().as_deref() }));
    }
    let request = ControlRequest::new(method.as_str(), arguments, node.as_str(), 0);
    match timeout(ANSWER, control::answer(&inner, request)).await {
        Ok(Some(answer)) => told(answer),
        // Celery's workers do not answer it.
        Ok(None) if method == "shutdown" => told(json!({ "ok": "the program ends" })),
        Ok(None) => refused(&format!("the program has no command `{}` here", shortened(&method, 80))),
        Err(_) => refused(&format!("the program has not answered within {} s", ANSWER.as_secs())),
    }
}

fn refused(text: &str) -> Value {
    json!({ "error": text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_replaces_one_that_was_left_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SOCKET);
        drop(bind(&path).unwrap());
        assert!(path.exists(), "as after a kill");
        let listener = bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let client = UnixStream::connect(&path).await.unwrap();
        assert!(is_own_user(&listener.accept().await.unwrap().0));
        let listens = CancellationToken::new();
        let of_before = LocalSocket::at(path.clone(), CancellationToken::new()).unwrap();
        let _next = bind(&path).unwrap();
        drop((of_before, client, listener));
        assert!(path.exists(), "it is the next program's by now");
        drop(LocalSocket::at(path.clone(), listens.clone()).unwrap());
        assert!(!path.exists() && listens.is_cancelled());
        std::fs::write(&path, "a file").unwrap();
        assert!(bind(&path).unwrap_err().to_string().contains("something else"));
        assert_eq!(std::fs::read(&path).unwrap(), b"a file");
        let deep = dir.path().join("x".repeat(LONGEST_PATH));
        assert!(bind(&deep).unwrap_err().to_string().contains("use a shorter one"));
    }
}
