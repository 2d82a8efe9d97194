//! `celeriac console` on an embedded store whose program does not run: it answers on this machine, and lets in who has the
//! address that it prints.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use celeriac::catalogue::QueueRow;
use celeriac::{Celeriac, task};

/// Longer than anything takes, even on a slow machine.
const LONG: Duration = Duration::from_secs(120);

#[task(queue = "letters")]
async fn write_letter(to: String) -> String {
    to
}

async fn start(dir: &Path, is_served: bool) -> Celeriac {
    let rows = ["letters", "celery"].map(|name| QueueRow::new(name).with_served(is_served));
    let builder = rows.into_iter().fold(Celeriac::builder(), celeriac::Builder::queue);
    builder.directory(dir).start().await.expect("a start")
}

/// A console that runs until this is dropped.
struct Running {
    child: Child,
    address: String,
    /// The path that opens it, with its token.
    door: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(dir: &Path, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_celeriac"))
            .args(["console", "--directory", &dir.display().to_string()])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run celeriac: {error}"));
        let mut line = String::new();
        let out = child.stdout.take().expect("a pipe");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let rest = line.trim().strip_prefix("http://").unwrap_or_else(|| panic!("no address: {line:?}"));
        let (address, door) = rest.split_once('/').expect("a path");
        let (address, door) = (address.to_owned(), format!("/{door}"));
        Self { child, address, door }
    }

    /// The answer to a request: its head, with the names in lower case, and its body.
    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.address).expect("it answers");
        stream.set_read_timeout(Some(LONG)).expect("a timeout");
        let length = body.len();
        let host = &self.address;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head.to_owned(), body.to_owned())
    }

    fn get(&self, path: &str, headers: &str) -> (String, String) {
        self.ask("GET", path, headers, "")
    }

    /// Shows the token, and returns the header with the cookie that it gives.
    fn let_in(&self) -> String {
        let (head, _) = self.get(&self.door, "");
        assert!(head.starts_with("HTTP/1.1 303"), "{head}");
        let cookie = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("set-cookie")
                .then(|| value.split(';').next().unwrap_or_default().to_owned())
        });
        format!("Cookie: {}\r\n", cookie.expect("a cookie"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_console_shows_a_store_to_whoever_has_its_address_and_lets_nobody_else_in() {
    let dir = tempfile::tempdir().expect("a directory");
    start(dir.path(), true).await.shutdown().await.expect("an end");
    let program = start(dir.path(), false).await;
    let letter = write_letter::s("amina".to_owned()).id("letter").tenant("acme");
    letter.send(program.client()).await.expect("an enqueue");
    program.shutdown().await.expect("an end");

    let console = Running::start(dir.path(), &[]);
    assert!(console.address.starts_with("127.0.0.1:"), "{}", console.address);
    for (path, headers) in [
        ("/console", ""),
        ("/console?format=json", ""),
        ("/console/tasks", "Cookie: celeriac_session=00000000000000000000000000000000\r\n"),
        ("/open?token=00000000000000000000000000000000", ""),
    ] {
        let (head, body) = console.get(path, headers);
        assert!(head.starts_with("HTTP/1.1 403"), "{path}: {head}");
        assert!(!body.contains("letter"), "{path}: {body}");
    }
    let cookie = console.let_in();
    let (_, port) = console.address.rsplit_once(':').expect("a port");
    assert!(cookie.starts_with(&format!("Cookie: celeriac_session_{port}=")), "{cookie}");
    let (head, _) = console.get(&console.door, "");
    assert!(head.starts_with("HTTP/1.1 403"), "the address works once: {head}");
    let (head, body) = console.get("/console?format=json", &cookie);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(body.contains("\"name\":\"letters\"") && body.contains("\"ready\":1"), "{body}");
    assert!(body.contains("\"condition\":\"unserved\""), "its program does not run: {body}");
    let why = "No program that has answered serves it.";
    let mut looks = (0..100).map(|_| console.get("/console/queue?name=letters", &cookie).1);
    assert!(looks.any(|body| body.contains(why)), "the page of the queue says what presses it");
    let (_, body) = console.get("/console", &cookie);
    assert!(
        body.contains("1 queue is served by nobody.") && body.contains("is served by nobody, and"),
        "{body}"
    );
    let (head, body) = console.get("/console/task?id=letter", &cookie);
    assert!(head.starts_with("HTTP/1.1 200") && body.contains("amina"), "{head}: {body}");
    let (head, body) = console.get("/console/tenants?format=json", &cookie);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    for told in ["\"name\":\"acme\"", "\"ready\":1", "\"delivered\":0"] {
        assert!(body.contains(told), "{told}: {body}");
    }

    // It only shows.
    let revoke = "act=revoke&id=letter";
    let script = "Celeriac-Console: act\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let (head, body) = console.ask("POST", "/console/act", &format!("{cookie}{script}"), revoke);
    assert!(head.starts_with("HTTP/1.1 403") && body.contains("revoke"), "{head}: {body}");
    drop(console);

    let console = Running::start(dir.path(), &["--allow-acts"]);
    let cookie = console.let_in();
    let (head, body) = console.ask("POST", "/console/act", script, revoke);
    assert!(head.starts_with("HTTP/1.1 403"), "{head}: {body}");
    let (head, body) = console.ask("POST", "/console/act", &format!("{cookie}{script}"), revoke);
    assert!(!head.starts_with("HTTP/1.1 4") && !head.starts_with("HTTP/1.1 5"), "{head}: {body}");
    let (_, body) = console.get("/console/task?id=letter&format=json", &cookie);
    assert!(body.contains("REVOKED"), "{body}");
}

#[test]
fn what_cannot_be_opened_says_why() {
    let (code, out, err) = super::run(&["console", "--directory", "nowhere"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("there is no directory `nowhere`"), "{err}");
    assert_eq!(super::run(&["console"]).0, Some(2));
    assert_eq!(super::run(&["console", "--read-only", "--allow-acts", "--directory", "."]).0, Some(2));
    assert_eq!(super::run(&["console", "--bind", "here", "--directory", "."]).0, Some(2));
}
