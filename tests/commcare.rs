//! The commcare example as a user runs it: the program itself, over HTTP, by signals, and killed in the middle.
//!
//! `cargo test` builds examples along with the tests; with `--test commcare` alone, build the example first.

#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at what nobody tells.
const MOMENT: Duration = Duration::from_millis(20);

fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    let target = test.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps");
    let program = target.join("examples/commcare");
    assert!(
        program.is_file(),
        "{} is not built: run `cargo test`, or `cargo build --example commcare` before this test alone",
        program.display()
    );
    program
}

fn data() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A running program. Its lines arrive as they are written; dropped, it is killed.
struct Program {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (line, lines) = channel();
    std::thread::spawn(move || {
        for text in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = line.send(text); // read on, or the program would stop at a full pipe
        }
    });
    lines
}

impl Program {
    fn start(data: &Path, options: &[&str]) -> Self {
        let mut child = Command::new(program())
            .arg("--data")
            .arg(data)
            .args(options)
            .env("RUST_LOG", "commcare=info")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (out, err) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Self { child, out, err }
    }

    /// The rest of its output, and how it ended.
    fn end(mut self) -> (String, ExitStatus) {
        // It has the same patience with each phase of its load.
        let deadline = Instant::now() + 5 * PATIENCE;
        let mut text = String::new();
        for lines in [&self.out, &self.err] {
            loop {
                match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok(line) => text += &format!("{line}\n"),
                    Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => panic!("it does not end: {text}"),
                }
            }
        }
        (text, self.child.wait().unwrap())
    }

    /// Waits until it has logged this.
    fn logged(&self, wanted: &str) {
        while !self.err.recv_timeout(PATIENCE).expect(wanted).contains(wanted) {}
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn terminate(self) -> (String, ExitStatus) {
        let told = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(told.success());
        self.end()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that serves, and where.
struct Server {
    program: Program,
    address: String,
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

impl Server {
    fn start(data: &Path) -> Self {
        let program = Program::start(data, &["--port", "0"]);
        let line = program.out.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            panic!("it prints no URL: {}", program.err.try_iter().collect::<Vec<_>>().join("\n"))
        });
        let address = line
            .split("http://")
            .nth(1)
            .and_then(|url| url.split('/').next())
            .expect("the line has the URL")
            .to_owned();
        Self { program, address }
    }

    /// A request as it is written here: nobody tidies the path up. Where a queue has no time to answer, it is made again.
    fn ask(&self, method: &str, path: &str, kind: &str, body: &str) -> Answer {
        let start = Instant::now();
        loop {
            let answer = self.ask_once(method, path, kind, body);
            if answer.status != 503 || start.elapsed() > PATIENCE {
                return answer;
            }
            std::thread::sleep(MOMENT);
        }
    }

    fn ask_once(&self, method: &str, path: &str, kind: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (host, length) = (&self.address, body.len());
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        let head = format!("{head}Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("an HTTP answer");
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        Answer { status, head, body: answer[end + 4..].to_vec() }
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "text/plain", "")
    }

    fn post(&self, path: &str, json: &str) -> Answer {
        self.ask("POST", path, "application/json", json)
    }

    /// Uploads a CSV and says which task imports it.
    fn upload(&self, csv: &str) -> String {
        let answer = self.ask("POST", "/cases?domain=test", "text/csv", csv);
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()["task"].as_str().unwrap().to_owned()
    }

    /// What the program tells, as soon as every actor had the time to answer.
    fn complete(&self, path: &str) -> Value {
        let start = Instant::now();
        loop {
            let all = self.get(path).json();
            if all["missing"].as_array().is_some_and(Vec::is_empty) {
                return all;
            }
            assert!(start.elapsed() < PATIENCE, "{path}: {all}");
            std::thread::sleep(MOMENT);
        }
    }

    /// A source poller as the program tells it.
    fn poller(&self, name: &str) -> Value {
        let all = self.complete("/pollers.json");
        let pollers = all["pollers"].as_array().unwrap();
        pollers.iter().find(|poller| poller["name"] == name).unwrap_or_else(|| panic!("{all}")).clone()
    }

    /// Has a source poller look now, and waits until it has.
    fn look(&self, poller: &str, has_looked: impl Fn() -> bool) {
        let answer = self.post(&format!("/pollers/{poller}/run"), "{}");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let start = Instant::now();
        while !has_looked() {
            assert!(start.elapsed() < PATIENCE, "it does not look: {}", self.poller(poller));
            std::thread::sleep(MOMENT);
        }
    }

    /// The record of a task, when it is over.
    fn result(&self, task: &str) -> Value {
        let start = Instant::now();
        loop {
            let answer = self.get(&format!("/tasks/{task}?wait=60"));
            assert_eq!(answer.status, 200, "{}", answer.text());
            if answer.json()["finished"] == true {
                return answer.json();
            }
            assert!(start.elapsed() < PATIENCE, "it does not end: {}", answer.text());
        }
    }
}

fn many_cases(count: usize) -> String {
    let mut csv = "case_id,name,visits\n".to_owned();
    csv.extend((0..count).map(|i| format!("c{i},\"Name, the {i}th\",{}\n", i % 9)));
    csv
}

/// Has an import of so many rows stopped in its middle: some rows are there, and some are not. What it leaves, and its task.
fn half_done(count: usize, stop: impl Fn(Program)) -> (tempfile::TempDir, String) {
    let start = Instant::now();
    loop {
        let data = data();
        let server = Server::start(data.path());
        let task = server.upload(&many_cases(count));
        server.program.logged("rows=3000");
        stop(server.program);
        let db = rusqlite::Connection::open(data.path().join("hq.sqlite3")).unwrap();
        let sql = "SELECT count(*) FROM cases WHERE domain = 'test'";
        let rows: usize = db.query_row(sql, [], |r| r.get(0)).unwrap();
        assert!((3000..=count).contains(&rows), "{rows} rows");
        if rows < count {
            return (data, task);
        }
        // We got no time before its end.
        assert!(start.elapsed() < PATIENCE, "no import is stopped before its end");
    }
}

/// The rows in the database are those of `many_cases`.
fn assert_imported(data: &Path, count: usize) {
    let db = rusqlite::Connection::open(data.join("hq.sqlite3")).unwrap();
    let mut rows = db.prepare("SELECT case_id, name, visits FROM cases WHERE domain = 'test'").unwrap();
    let rows = rows.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).unwrap();
    let mut rows: Vec<(String, String, usize)> = rows.map(Result::unwrap).collect();
    rows.sort();
    let mut wanted: Vec<_> =
        (0..count).map(|i| (format!("c{i}"), format!("Name, the {i}th"), i % 9)).collect();
    wanted.sort();
    assert!(rows == wanted, "{} rows, {} wanted", rows.len(), wanted.len());
}

#[test]
fn once_loses_nothing_also_after_a_kill_and_on_the_same_data() {
    /// Whether it found something left over.
    fn once(data: &Path) -> bool {
        let (text, status) = Program::start(data, &["--once"]).end();
        assert!(status.success(), "{text}");
        let last = text.lines().find(|line| line.starts_with("lost ")).expect("a closing line");
        assert!(last.starts_with("lost 0, left 0, wrong 0: "), "{text}");
        let queues = text.lines().skip(1).take_while(|line| !line.is_empty()).count();
        assert_eq!(queues, 24, "{text}");
        !last.contains(" 0 left over")
    }
    let start = Instant::now();
    loop {
        let data = data();
        let killed = Program::start(data.path(), &["--once"]);
        killed.logged("rows=2000");
        killed.kill();
        let left = once(data.path());
        assert!(!once(data.path()), "something was left over by a run that went well");
        if left {
            return;
        }
        // We got no time before its end.
        assert!(start.elapsed() < 3 * PATIENCE, "nothing is left over by a program that is killed");
    }
}

#[test]
fn the_console_the_queues_an_import_and_an_export() {
    let data = data();
    let server = Server::start(data.path());

    let first = server.get("/");
    assert_eq!(first.status, 302);
    assert!(first.head.to_lowercase().contains("location: /console"), "{}", first.head);
    // A queue that has no time to answer is not on it.
    let start = Instant::now();
    let has_all = |page: &Answer| {
        ["sms_queue", "export_download_queue", "celery_periodic"]
            .iter()
            .all(|name| page.text().contains(name))
    };
    let mut page = server.get("/console");
    while !has_all(&page) && start.elapsed() < PATIENCE {
        std::thread::sleep(MOMENT);
        page = server.get("/console");
    }
    assert_eq!((page.status, has_all(&page)), (200, true), "{}", page.text());
    assert!(page.text().starts_with("<!DOCTYPE html>"), "{}", page.text());
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);

    let queues = server.complete("/queues.json");
    let queues = queues["queues"].as_array().unwrap();
    assert_eq!(queues.len(), 24);
    let columns = "name io_bound target_class target workers ready scheduled running done failed retried dead paused halted";
    for queue in queues {
        for column in columns.split(' ') {
            assert!(queue.get(column).is_some(), "{column}: {queue}");
        }
        for column in ["p50_ms", "p95_ms", "max_ms", "within_target_percent"] {
            assert!(queue["time_to_start"].get(column).is_some(), "{column}: {queue}");
        }
    }
    assert_eq!(server.get("/health/live").status, 200);
    let health = server.get("/health").json();
    assert!(health["severity"].is_null() && health["troubles"] == serde_json::json!([]), "{health}");

    let csv = "case_id,name,visits\na,<script>alert(1)</script>,1\nb,B,many\nc,C\n a ,A again,2\n";
    let import = server.result(&server.upload(csv));
    assert_eq!(import["state"], "SUCCESS", "{import}");
    let errors =
        ["line 3: `visits` is `many`, which is no whole number", "line 4: 2 fields where the header has 3"];
    assert_eq!(
        import["result"],
        serde_json::json!({ "created": 1, "updated": 1, "refused": 2, "errors": errors })
    );

    let export = server.post("/exports", "{\"domain\": \"test\"}").json();
    assert_eq!(server.result(export["task"].as_str().unwrap())["result"], 1);
    let file = server.get(export["download_url"].as_str().unwrap());
    assert_eq!((file.status, file.body.starts_with(b"PK")), (200, true), "{}", file.head);

    let asked = server.post("/downloads", r#"{"domain": "test", "parts": 2, "owner": "amina"}"#).json();
    let ids: Vec<_> = asked["tasks"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    let rows: u64 = ids.iter().map(|id| server.result(id)["result"].as_u64().unwrap()).sum();
    assert_eq!((ids.len(), rows), (2, 1));
    let group = server.get(asked["status_url"].as_str().unwrap()).json();
    assert_eq!(
        (&group["state"], &group["done"], &group["failed"]),
        (&"success".into(), &2.into(), &0.into())
    );
    assert_eq!(group["members"][1]["download"]["name"], "test-2.csv", "{group}");
    for option in ["1", "2"] {
        let asked = server.post("/downloads", &format!(r#"{{"fail": {option}}}"#)).json();
        assert_eq!(server.result(asked["tasks"][0].as_str().unwrap())["state"], "FAILURE");
        let group = server.get(asked["status_url"].as_str().unwrap()).json();
        let errors = serde_json::json!(["`demo` has no form to export", "row 7: the owner is not a user"]);
        assert_eq!((&group["state"], &group["errors"][0]["errors"]), (&"failed".into(), &errors));
    }

    let mail =
        server.post("/mails", r#"{"to": "A <a@b.example>", "subject": "Hi\r\nBcc: x@y.example"}"#).json();
    assert_eq!(server.result(mail["task"].as_str().unwrap())["state"], "SUCCESS");
    let mails: Vec<_> =
        std::fs::read_dir(data.path().join("mail")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(mails.len(), 1);
    let mail = std::fs::read_to_string(&mails[0]).unwrap();
    assert!(mail.contains("To: A <a@b.example>\r\n") && !mail.contains("\nBcc:"), "{mail}");

    assert_eq!(server.post("/queues/sms_queue/resize", "{\"workers\": 7}").status, 200);
    assert_eq!(server.post("/queues/sms_queue/pause", "{}").status, 200);
    let queues = server.complete("/queues.json");
    let sms = queues["queues"].as_array().unwrap().iter().find(|q| q["name"] == "sms_queue").unwrap();
    assert_eq!((&sms["workers"], &sms["paused"]), (&7.into(), &true.into()));

    let (text, status) = server.program.terminate();
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(text.contains("all running tasks ended"), "{text}");
}

/// The text of a mail as its reader sees it: lines that are long or have a `=` come quoted.
fn unquoted(mail: &str) -> String {
    mail.replace("=\r\n", "").replace("=3D", "=")
}

#[test]
fn a_mail_with_the_link_says_that_all_parts_are_ready() {
    let data = data();
    let server = Server::start(data.path());
    server.result(&server.upload("case_id,name\na,A\nb,B\n"));
    let wanted = r#"{"domain": "test", "parts": 2, "owner": "amina", "mail_to": "Amina <amina@hq.example>"}"#;
    // The first may have parts that are over before the wish is noted; the second finds all of them over, or joins.
    for _ in 0..2 {
        let asked = server.post("/downloads", wanted).json();
        let id = asked["download_id"].as_str().unwrap();
        let mail = format!("/tasks/mail:ready:{id}?wait=60");
        let start = Instant::now();
        while server.get(&mail).json()["state"] != "SUCCESS" {
            assert!(start.elapsed() < PATIENCE, "no mail: {}", server.get(&mail).text());
            std::thread::sleep(MOMENT);
        }
        let mails = std::fs::read_dir(data.path().join("mail")).unwrap();
        let mails = mails.map(|mail| std::fs::read_to_string(mail.unwrap().path()).unwrap());
        let mails: Vec<_> = mails.map(|mail| unquoted(&mail)).filter(|mail| mail.contains(id)).collect();
        let [mail] = &mails[..] else { panic!("{mails:?}") };
        for line in ["To: Amina <amina@hq.example>", "Subject: Your export of test is ready"] {
            assert!(mail.contains(&format!("{line}\r\n")), "{mail}");
        }
        let link = mail.lines().find(|line| line.starts_with("http")).expect("a link");
        let path = link.strip_prefix(&format!("http://{}", server.address)).expect("our own address");
        let page = server.get(path);
        assert_eq!(page.status, 200, "{link}: {}", page.text());
        assert!(page.text().contains(&format!("id=\"ready_{id}\"")), "{}", page.text());
        let (path, key) = path.split_once('?').unwrap();
        let files = [0, 1].map(|part| server.get(&format!("{path}/file/{part}?{key}")));
        let rows: usize = files.iter().map(|file| file.text().lines().count() - 1).sum();
        assert_eq!((files[0].status, files[1].status, rows), (200, 200, 2));
    }
}

#[test]
fn bad_input_is_told_what_is_wrong() {
    let data = data();
    let server = Server::start(data.path());
    let csv = |body| ("POST", "/cases", "text/csv", body);
    let get = |path| ("GET", path, "text/plain", "");
    let post = |path, body| ("POST", path, "application/json", body);
    let cases = [
        (csv(""), 400, "there is no column `case_id`"),
        (csv("name,visits\nA,1\n"), 400, "there is no column `case_id`"),
        (csv("case_id,name,colour\na,b,c\n"), 400, "unknown column `colour`; the columns are"),
        (csv("case_id,name,name\na,b,c\n"), 400, "column `name` is there twice"),
        (csv("case_id,name\n"), 400, "a header and no rows"),
        (("POST", "/cases?domain=../x", "text/csv", "case_id,name\na,b\n"), 400, "`../x` is no domain"),
        (
            ("POST", "/cases", "multipart/form-data; boundary=x", "--x--"),
            400,
            "send the file itself, as `text/csv`",
        ),
        (get("/tasks/nobody"), 404, "no task of id `nobody` waits, runs or left a result"),
        (get("/exports/../hq.sqlite3"), 404, "there is no GET /exports/../hq.sqlite3"),
        (get("/exports/..%2fhq.sqlite3"), 400, "is no name of an export"),
        (get("/exports/%2e%2e%2fhq.xlsx"), 400, "is no name of an export"),
        (get("/exports/none.xlsx"), 404, "there is no export `none.xlsx`"),
        (post("/exports", "{\"domain\": \"nowhere\"}"), 404, "there is no domain `nowhere`"),
        (post("/exports", "{"), 400, "EOF"),
        (post("/mails", "{\"to\": \"nobody\", \"subject\": \"x\"}"), 400, "`nobody` is no mail address"),
        (post("/queues/nothing/pause", ""), 404, "no queue `nothing`; there are: send_report_throttled"),
        (
            post("/queues/sms_queue/resize", "{\"workers\": \"many\"}"),
            400,
            "{\\\"workers\\\": a whole number}",
        ),
        (post("/pollers/nothing/run", ""), 404, "no source poller `nothing`; there are: run_sms_queue"),
        (post("/queues/sms_queue/resize", "{\"workers\": -1}"), 400, "a whole number"),
        (post("/queues/sms_queue/resize", "{\"workers\": 0}"), 400, "needs at least one worker"),
        (post("/queues/sms_queue/resize", "{\"workers\": 1000000}"), 400, "more than this page gives"),
        (post("/sink/fax", "{}"), 404, "this sink takes no `fax`"),
        (get("/downloads/none"), 404, "there is no download `none`"),
        (post("/downloads", r#"{"mail_to": "nobody"}"#), 400, "`nobody` is no mail address"),
        (get("/nothing"), 404, "there is no GET /nothing"),
    ];
    for ((method, path, kind, body), status, text) in cases {
        let answer = server.ask(method, path, kind, body);
        let told = answer.text();
        assert_eq!(answer.status, status, "{method} {path} {body}: {told}");
        assert!(told.contains(text) && answer.json()["error"].is_string(), "{method} {path} {body}: {told}");
    }
    // A button is not pressed by a page from elsewhere.
    let foreign = server.ask(
        "POST",
        "/queues/sms_queue/pause",
        "application/json\r\nOrigin: http://evil.example",
        "{}",
    );
    assert_eq!((foreign.status, foreign.text().contains("may not do this")), (403, true));
    // Nothing is left of what was refused, and the program is well.
    assert_eq!(std::fs::read_dir(data.path().join("uploads")).unwrap().count(), 0);
    assert_eq!(server.get("/health").status, 200);
}

/// A record whose customer is being migrated. However often the loop finds it, that burns none of its attempts.
#[test]
fn a_record_of_a_customer_who_is_migrated_is_not_tried() {
    const LOOP: &str = "process_repeaters";
    let data = data();
    let server = Server::start(data.path());
    let db = rusqlite::Connection::open(data.path().join("hq.sqlite3")).unwrap();
    db.busy_timeout(PATIENCE).unwrap();
    db.execute_batch(
        "INSERT INTO migrating VALUES ('test');
         INSERT INTO outgoing (id, kind, payload) VALUES ('moving-1', 'repeater', '{}');
         INSERT INTO queued_record (id, domain, next_try) VALUES ('moving-1', 'test', 0);",
    )
    .unwrap();
    let number = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let attempts = || number("SELECT attempts FROM queued_record WHERE id = 'moving-1'");
    let skipped = || server.poller(LOOP)["skipped"].as_i64().unwrap();
    for _ in 0..20 {
        let before = skipped();
        server.look(LOOP, || skipped() > before);
    }
    let told = server.poller(LOOP);
    assert!(skipped() >= 20, "{told}");
    assert_eq!((attempts(), &told["enqueued"], &told["last_error"]), (0, &0.into(), &Value::Null), "{told}");

    db.execute("DELETE FROM migrating WHERE domain = 'test'", []).unwrap();
    server.look(LOOP, || attempts() > 0);
    let start = Instant::now();
    while number("SELECT count(*) FROM outgoing WHERE id = 'moving-1' AND delivered_at > 0") == 0
        || server.poller(LOOP)["enqueued"] == 0
    {
        assert!(start.elapsed() < PATIENCE, "it was not delivered: {}", server.poller(LOOP));
        std::thread::sleep(MOMENT);
    }
    assert_eq!((attempts(), &server.poller(LOOP)["enqueued"]), (1, &1.into()));
}

#[test]
fn an_import_survives_a_kill() {
    const ROWS: usize = 20_000;
    let (data, task) = half_done(ROWS, Program::kill);
    let server = Server::start(data.path());
    let import = server.result(&task);
    assert_eq!(import["state"], "SUCCESS", "{import}");
    assert_eq!((&import["result"]["created"], &import["result"]["updated"]), (&ROWS.into(), &0.into()));
    assert_imported(data.path(), ROWS);
}

#[test]
fn an_import_goes_on_after_a_shutdown_that_burns_no_attempt() {
    const ROWS: usize = 20_000;
    let (data, task) = half_done(ROWS, |program| {
        let (text, status) = program.terminate();
        assert_eq!(status.code(), Some(0), "{text}");
    });
    let server = Server::start(data.path());
    let import = server.result(&task);
    assert_eq!((&import["state"], &import["attempts"]), (&"SUCCESS".into(), &1.into()), "{import}");
    assert_imported(data.path(), ROWS);
}

#[test]
fn a_second_program_on_the_same_data_is_told_off() {
    let data = data();
    let _first = Server::start(data.path());
    let (text, status) = Program::start(data.path(), &["--port", "0"]).end();
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("is in use by process"), "{text}");
}
