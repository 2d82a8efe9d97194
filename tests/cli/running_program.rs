//! `celeriac` on an embedded store whose program runs: the program answers by the socket in the directory of the store.

#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use actix_web::App;
use actix_web::test::init_service;
use celeriac::catalogue::QueueRow;
use celeriac::core::brake::BrakeRule;
use celeriac::web::Console;
use celeriac::{Celeriac, State, task};
use serde_json::{Value, json};

use super::{celeriac as command, text};

/// Longer than anything takes, even on a slow machine.
const LONG: Duration = Duration::from_secs(120);

#[task(name = "running.deliver", queue = "parcels")]
async fn deliver(to: String) -> String {
    to
}

async fn start(dir: &Path) -> Celeriac {
    let rows = ["parcels", "celery"].map(QueueRow::new);
    let builder = rows.into_iter().fold(Celeriac::builder(), celeriac::Builder::queue);
    builder.directory(dir).start().await.expect("a start")
}

/// What a command says; it runs beside this program, which answers it.
async fn told(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let directory = dir.display().to_string();
    let arguments: Vec<String> =
        arguments.iter().copied().chain(["--directory", &directory]).map(str::to_owned).collect();
    let dir = dir.to_owned();
    let run = move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        text(command(&arguments, &dir))
    };
    tokio::task::spawn_blocking(run).await.expect("a thread")
}

fn json_of(out: &str) -> Value {
    serde_json::from_str(out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

fn connect(dir: &Path) -> BufReader<UnixStream> {
    let stream = UnixStream::connect(dir.join("control.sock")).expect("the program listens");
    stream.set_read_timeout(Some(LONG)).expect("a timeout");
    BufReader::new(stream)
}

fn ask(connection: &mut BufReader<UnixStream>, line: &str) -> Value {
    connection.get_mut().write_all(line.as_bytes()).expect("it is sent");
    let mut answer = String::new();
    connection.read_line(&mut answer).expect("an answer");
    json_of(&answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_that_runs_answers_for_its_store() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = start(dir.path()).await;
    let mode = std::fs::metadata(dir.path().join("control.sock")).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let (code, out, err) = told(dir.path(), &["control", "pause", "parcels", "--json"]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let replies = json_of(&out);
    let reply = replies[0].as_object().and_then(|reply| reply.values().next()).expect("a reply");
    assert_eq!(reply, &json!({ "ok": "paused parcels" }));
    let sent = deliver::s("amina".to_owned()).id("parcel").send(program.client()).await.expect("an enqueue");

    let (code, out, _) = told(dir.path(), &["why", "parcel"]).await;
    assert!(code == Some(0) && out.contains("its queue `parcels` is paused"), "{out}");
    let (_, out, _) = told(dir.path(), &["report", "--json"]).await;
    let report = json_of(&out);
    let queues = report["queues"].as_array().expect("queues");
    let parcels = queues.iter().find(|queue| queue["name"] == "parcels").expect("the queue");
    assert_eq!(parcels["paused"], json!(true), "{parcels}");
    let (code, out, _) = told(dir.path(), &["top", "--once"]).await;
    assert!(code == Some(0) && out.contains("the program of the store") && out.contains("parcels"), "{out}");
    let (code, out, _) = told(dir.path(), &["inspect", "queues"]).await;
    assert!(code == Some(0) && out.contains("parcels") && out.ends_with("1 node online.\n"), "{out}");
    let (code, _, err) = told(dir.path(), &["inspect", "nosuch"]).await;
    assert!(code == Some(1) && err.contains("no command `nosuch`"), "{err}");

    let act = program.bulk().revoke(&BrakeRule::new().tenant("nobody")).await.expect("an act");
    program.bulk().wait(&act.id).await.expect("its end");
    let (_, out, _) = told(dir.path(), &["bulk", "list"]).await;
    assert!(out.contains(&act.id) && out.ends_with("1 act, 0 not over.\n"), "{out}");
    let (code, _, err) = told(dir.path(), &["bulk", "cancel", &act.id]).await;
    assert!(code == Some(1) && err.contains("cannot be cancelled: it was over at"), "{err}");
    // What needs the store itself says who has it.
    let (code, _, err) = told(dir.path(), &["bulk", "purge", "--all"]).await;
    assert!(code == Some(1) && err.contains("is in use by process"), "{err}");

    let (code, _, err) = told(dir.path(), &["control", "resume", "parcels"]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let record = tokio::time::timeout(LONG, program.client().wait(sent.id()))
        .await
        .expect("in time")
        .expect("a record");
    assert_eq!(record.state, State::Success);
    program.shutdown().await.expect("an end");
    assert!(!dir.path().join("control.sock").exists());
    let (code, _, err) = told(dir.path(), &["inspect", "queues"]).await;
    assert!(code == Some(1) && err.contains("does not run, so nobody can be asked"), "{err}");
}

/// Nobody else can open the store meanwhile, so the command says where the program shows itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_console_for_a_store_whose_program_runs_leads_to_that_program() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = start(dir.path()).await;
    let (code, out, err) = told(dir.path(), &["console"]).await;
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    for text in [
        "has mounted no console. Mount one in that program, by `App::new().service(celeriac::web::Console",
        "or stop the program and run this command again.",
        "`celeriac top --directory ",
        "`celeriac report --directory ",
    ] {
        assert!(err.contains(text), "{text}: {err}");
    }
    let console = Console::new(&program).at("admin/tasks");
    for (console, url) in [
        (console.clone(), "open http://127.0.0.1:8080/admin/tasks, or"),
        (console.public_url("https://www.example.org/tasks/"), "open https://www.example.org/tasks, or"),
    ] {
        let _app = init_service(App::new().service(console)).await;
        let (code, _, err) = told(dir.path(), &["console"]).await;
        assert!(code == Some(1) && err.contains(url), "{err}");
    }
    // Neither is mounted any more.
    let (code, _, err) = told(dir.path(), &["console"]).await;
    assert!(code == Some(1) && err.contains("has mounted no console"), "{err}");
    let first = init_service(App::new().service(Console::new(&program).at("first"))).await;
    let second = init_service(App::new().service(Console::new(&program).at("second"))).await;
    let leads_to = async |path: &str| {
        let (_, _, err) = told(dir.path(), &["console"]).await;
        assert!(err.contains(&format!("open http://127.0.0.1:8080/{path}, or")), "{err}");
    };
    leads_to("second").await;
    drop(second);
    leads_to("first").await;
    drop(first);
    program.shutdown().await.expect("an end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_over_the_socket_costs_its_own_connection_at_most() {
    let dir = tempfile::tempdir().expect("a directory");
    // As a program leaves it that was killed.
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("control.sock")).expect("a socket"));
    let program = start(dir.path()).await;
    let path = dir.path().to_owned();
    let talk = move || {
        let mut connection = connect(&path);
        for garbage in ["x\n", "[]\n", "{}\n", "{\"method\": 5}\n", "\n", "{\"method\": \"lane\"}\n"] {
            let answer = ask(&mut connection, garbage);
            let error = answer.get("error").or_else(|| answer.get("answer")?.get("error"));
            assert!(error.is_some_and(Value::is_string), "{garbage:?}: {answer}");
        }
        let pong = ask(&mut connection, "{\"method\": \"ping\"}\n");
        assert_eq!(pong["answer"], json!({ "ok": "pong" }), "the connection goes on");

        // A line of five megabytes ends its connection, and whether its sender still hears why is left open.
        let mut long = connect(&path);
        let _ = long.get_mut().write_all(&vec![b'x'; 5 << 20]);
        let mut heard = String::new();
        let _ = long.read_to_string(&mut heard);
        assert!(heard.is_empty() || heard.contains("at most 65536 bytes"), "{heard}");
        // What is no text ends its connection, too.
        let mut bytes = connect(&path);
        bytes.get_mut().write_all(&[0xff, 0xfe, b'\n']).expect("it is sent");
        let mut heard = String::new();
        bytes.read_to_string(&mut heard).expect("the end");
        assert!(heard.contains("a line of text"), "{heard}");

        // Clients that say nothing take all places, and give them back when their time is over.
        drop(connection);
        let silent: Vec<_> = (0..40).map(|_| connect(&path)).collect();
        let start = std::time::Instant::now();
        loop {
            let mut connection = connect(&path);
            let _ = connection.get_mut().write_all(b"{\"method\": \"ping\"}\n");
            let mut answer = String::new();
            if connection.read_line(&mut answer).is_ok() && answer.contains("pong") {
                break;
            }
            assert!(start.elapsed() < LONG, "nobody is answered any more");
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(silent);
    };
    tokio::task::spawn_blocking(talk).await.expect("a thread");
    program.shutdown().await.expect("an end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_whose_socket_cannot_be_made_runs_on() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("d".repeat(120));
    let program = start(&dir).await;
    assert!(!dir.join("control.sock").exists());
    let sent = deliver::s("amina".to_owned()).send(program.client()).await.expect("an enqueue");
    let record = tokio::time::timeout(LONG, program.client().wait(sent.id()))
        .await
        .expect("in time")
        .expect("a record");
    assert_eq!(record.state, State::Success);
    let (code, _, err) = told(&dir, &["report"]).await;
    assert!(code == Some(1) && err.contains("While it runs, the program answers for itself"), "{err}");
    program.shutdown().await.expect("an end");
}
