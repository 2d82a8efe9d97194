//! The example program as a user runs it: the fixed load, the server, bad input, signals, and a kill in the middle.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The example's binary, which `cargo test` builds beside this one.
fn binary() -> PathBuf {
    let this = std::env::current_exe().expect("the test has a path");
    let target = this.ancestors().nth(2).expect("target/PROFILE/deps/test");
    let binary = target.join("examples").join("commcare");
    assert!(
        binary.exists(),
        "{} is missing: run `cargo test`, or `cargo build --example commcare` first",
        binary.display()
    );
    binary
}

/// A running server.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(data: &Path) -> Self {
        let mut child = Command::new(binary())
            .args(["--port", "0", "--grace", "5", "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the example starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = lines.next().expect("it says where it listens").expect("text");
        let address = line.split("http://").nth(1).unwrap_or_else(|| panic!("no URL in {line:?}")).to_owned();
        Self { child, address }
    }

    /// One request over a connection of its own: status, and body.
    fn ask(&self, method: &str, target: &str, body: &str) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let length = body.len();
        write!(stream, "{method} {target} HTTP/1.1\r\nHost: commcare\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
            .expect("it reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it answers");
        let split = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a header ends");
        let head = String::from_utf8_lossy(&answer[..split]).into_owned();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        let body = answer.split_off(split + 4);
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        (status, if chunked { join_chunks(&body) } else { body })
    }

    fn json(&self, method: &str, target: &str, body: &str) -> (u16, Value) {
        let (status, body) = self.ask(method, target, body);
        let value = serde_json::from_slice(&body)
            .unwrap_or_else(|e| panic!("{target}: {e}: {}", String::from_utf8_lossy(&body)));
        (status, value)
    }

    /// Follows a task to its end and returns its record.
    fn follow(&self, id: &str) -> Value {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let (status, task) = self.json("GET", &format!("/tasks/{id}"), "");
            assert_eq!(status, 200, "{task}");
            if !task["result"].is_null() {
                return task["result"].clone();
            }
            assert!(Instant::now() < deadline, "{task}");
            std::thread::yield_now();
        }
    }

    fn signal(&self, signal: &str) {
        let sent =
            Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn join_chunks(mut rest: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(&String::from_utf8_lossy(&rest[..end]), 16).expect("a chunk's size");
        whole.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
    whole
}

fn cases(count: usize) -> String {
    let rows = (0..count).map(|n| format!("case-{n},demo,Name {n},2026-01-02,open\n"));
    "case_id,domain,name,opened_on,status\n".to_owned() + &rows.collect::<String>()
}

fn once(data: &Path) -> String {
    let run = Command::new(binary()).args(["--once", "--data"]).arg(data).output().expect("the example runs");
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    assert!(said.contains("lost 0, left 0, other findings 0"), "{said}");
    said
}

#[test]
fn once_ends_with_nothing_lost_also_on_old_data_and_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let said = once(dir.path());
    assert_eq!(said.lines().filter(|line| line.contains("ms ")).count(), 24, "24 queues had work:\n{said}");
    once(dir.path());
    let mut child = Command::new(binary())
        .args(["--once", "--data"])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    // It listens, so its load is under way or about to be.
    child.kill().unwrap();
    child.wait().unwrap();
    once(dir.path());
}

#[test]
fn the_page_and_the_figures_of_24_queues() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let (status, page) = server.ask("GET", "/", "");
    let page = String::from_utf8(page).unwrap();
    assert_eq!(status, 200);
    assert!(page.contains("CommCare queues") && page.contains("/queues.json"));
    let (status, queues) = server.json("GET", "/queues.json", "");
    assert_eq!((status, queues.as_array().map(Vec::len)), (200, Some(24)));
    let email = queues.as_array().unwrap().iter().find(|q| q["status"]["name"] == "email_queue").unwrap();
    assert_eq!((&email["io_bound"], &email["target_class"]), (&Value::Bool(true), &Value::from("seconds")));
    assert_eq!(email["status"]["time_to_start"]["target"]["secs"], 30);
    assert_eq!(email["status"]["workers"], 50);
}

#[test]
fn an_import_an_export_and_the_levers() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let (status, import) = server.json("POST", "/cases", &cases(2500));
    assert_eq!(status, 200, "{import}");
    let record = server.follow(import["task"].as_str().unwrap());
    assert_eq!((&record["state"], &record["result"]), (&Value::from("SUCCESS"), &Value::from("2500")));

    let (status, export) = server.json("POST", "/exports?domain=demo", "");
    assert_eq!(status, 200, "{export}");
    let record = server.follow(export["task"].as_str().unwrap());
    assert_eq!(record["state"], "SUCCESS", "{record}");
    let (status, file) = server.ask("GET", export["file"].as_str().unwrap(), "");
    assert_eq!(status, 200);
    assert!(file.starts_with(b"PK") && file.len() > 10_000, "a spreadsheet is a zip file");

    assert_eq!(server.ask("POST", "/queues/email_queue/pause", "").0, 200);
    assert_eq!(server.ask("POST", "/queues/email_queue/resize?workers=7", "").0, 200);
    let (_, queues) = server.json("GET", "/queues.json", "");
    let email = queues.as_array().unwrap().iter().find(|q| q["status"]["name"] == "email_queue").unwrap();
    assert_eq!(
        (&email["status"]["paused"], &email["status"]["workers"]),
        (&Value::Bool(true), &Value::from(7))
    );
    assert_eq!(server.ask("POST", "/queues/email_queue/resume", "").0, 200);
}

#[test]
fn bad_input_is_told_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let told = |method: &str, target: &str, body: &str| {
        let (status, answer) = server.json(method, target, body);
        (status, answer["error"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(told("POST", "/cases", "").0, 400);
    assert_eq!(told("GET", "/tasks/nobody", ""), (404, "no task nobody".into()));
    assert_eq!(told("GET", "/exports/..%2Fcommcare.sqlite", "").0, 404);
    assert_eq!(told("GET", "/exports/none.xlsx", "").0, 404);
    let (status, text) = told("POST", "/queues/emial_queue/pause", "");
    assert!(status == 404 && text.contains("email_queue"), "{status} {text}");
    let (status, text) = told("POST", "/queues/email_queue/resize?workers=many", "");
    assert_eq!((status, text.as_str()), (400, "workers=\"many\" is not a number from 1 to 10000"));
    assert_eq!(told("POST", "/queues/email_queue/resize?workers=0", "").0, 400);

    let (_, import) = server.json(
        "POST",
        "/cases",
        "case_id,domain,name,opened_on,status\n,demo,x,2026-01-01,open\nshort\n",
    );
    let record = server.follow(import["task"].as_str().unwrap());
    assert_eq!(record["state"], "FAILURE");
    let errors: Vec<_> = record["errors"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(errors[0], "line 2: the case_id is empty");
    assert!(errors[1].contains("line: 3"), "each faulty line is told: {errors:?}");
}

#[test]
fn sigterm_ends_it_in_good_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    server.json("POST", "/cases", &cases(3000));
    server.signal("-TERM");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn an_import_survives_a_kill_in_its_middle() {
    const CASES: usize = 40_000;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let (_, import) = server.json("POST", "/cases", &cases(CASES));
    let id = import["task"].as_str().unwrap().to_owned();
    server.signal("-KILL"); // accepted, so it is on disk; the import has hardly begun
    drop(server);
    let server = Server::start(dir.path());
    let record = server.follow(&id);
    assert_eq!(
        (&record["state"], &record["result"]),
        (&Value::from("SUCCESS"), &Value::from(CASES.to_string()))
    );
    let database = rusqlite::Connection::open(dir.path().join("commcare.sqlite")).unwrap();
    let rows: usize = database.query_row("SELECT count(*) FROM cases", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, CASES);
}
