//! The `celeriac` command, run as its users run it.

#[path = "cli/brakes.rs"]
mod brakes;
#[path = "cli/bulk.rs"]
mod bulk;
#[path = "cli/console.rs"]
mod console;
#[path = "embedded_store/damaged_block.rs"]
mod damaged_block;
#[path = "cli/failed_tasks.rs"]
mod failed_tasks;
#[path = "cli/history.rs"]
mod history;
#[path = "cli/new.rs"]
mod new;
#[path = "cli/report.rs"]
mod report;
#[path = "cli/running_program.rs"]
mod running_program;
#[path = "cli/simulate.rs"]
mod simulate;
#[path = "cli/waiting_tasks.rs"]
mod waiting_tasks;
#[path = "cli/why.rs"]
mod why;

use std::path::Path;
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn celeriac(arguments: &[&str], directory: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_celeriac"))
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap_or_else(|error| panic!("cannot run celeriac: {error}"))
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    text(celeriac(arguments, Path::new(ROOT)))
}

fn text(output: Output) -> (Option<i32>, String, String) {
    let utf8 = |bytes| String::from_utf8(bytes).unwrap_or_else(|error| panic!("{error}"));
    (output.status.code(), utf8(output.stdout), utf8(output.stderr))
}

#[test]
fn check_explains_a_good_file() {
    let (code, out, err) = run(&["check", "celeriac.toml"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let beginning = "celeriac.toml is valid.\n24 queues, 275 workers in all:\n  pool io: 7 queues with 240 workers\n  \
                     pool cpu: 17 queues with 35 workers\n  tasks without a queue go to celery\n  5 aliases, 1 \
                     route, environments: production\n\n";
    assert!(out.starts_with(beginning), "{out}");
    assert_eq!(out.matches("warning: ").count(), 4);
    let email = "\nemail_queue: a task starts at most 30s after it is due; 50 run at a time on the event loop (I/O \
                 bound), up to 100 held over RabbitMQ, up to 1024 of the embedded store; a typical one takes: seconds\n";
    assert!(out.contains(email), "{out}");
    let end = "\n\nroute: \"*send_report\" with \"domain\" like /ews-ghana$/ or /mvp-/ goes to send_report_throttled\n\
               defaults: soft_time_limit 2d\n";
    assert!(out.ends_with(end), "{out}");
    assert!(
        out.contains("\nlogistics_reminder_queue: no promise on when a task starts; 1 runs at a time on ")
    );
    assert!(
        out.contains("\nicds_dashboard_reports_queue: a task should start within seconds, but no number is ")
    );
}

#[test]
fn check_shows_routes_by_run_times_and_their_mistakes() {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let check = |by: &str| {
        let file = format!(
            "[[queue]]\nname = \"celery\"\n[[route]]\ntask = \"export\"\nargument = \"build_id\"\nlonger_than = \"10m\"\n\
             by = \"{by}\"\nqueue = \"celery\"\n"
        );
        std::fs::write(dir.path().join("celeriac.toml"), file).unwrap_or_else(|error| panic!("{error}"));
        text(celeriac(&["check"], dir.path()))
    };
    let (code, out, _) = check("p95");
    let route = "\n\nroute: \"export\" whose p95 run time with the same \"build_id\" is longer than 10m goes to celery\n";
    assert!(code == Some(0) && out.ends_with(route), "{out}");
    let (code, _, err) = check("men");
    let mistake = "celeriac.toml:7:6: \"by\" in route number 1 is \"men\"; did you mean \"mean\"?\n";
    assert_eq!((code, err.as_str()), (Some(1), mistake));
}

#[test]
fn check_tells_every_mistake_and_fails() {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let file = "[[queue]]\nname = \"celery\"\nwokers = 3\ntarget = \"soon\"\n";
    std::fs::write(dir.path().join("celeriac.toml"), file).unwrap_or_else(|error| panic!("{error}"));
    let (code, out, err) = text(celeriac(&["check"], dir.path()));
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert_eq!(
        err,
        "celeriac.toml:3:1: unknown key \"wokers\" in queue \"celery\"; did you mean \"workers\"?\n\
         celeriac.toml:4:10: \"target\" in queue \"celery\" is \"soon\"; write a duration such as \"500ms\", \"30s\", \
         \"15m\", \"6h\" or \"1h30m\"\n"
    );
}

#[test]
fn check_warns_of_more_blocking_workers_than_threads() {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let file = "[[queue]]\nname = \"celery\"\nworkers = 60\ntarget = \"30s\"\n";
    std::fs::write(dir.path().join("celeriac.toml"), file).unwrap_or_else(|error| panic!("{error}"));
    let with = |threads: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_celeriac"));
        command.arg("check").current_dir(dir.path()).env("BLOCKING_MAX_THREADS", threads);
        text(command.output().unwrap_or_else(|error| panic!("cannot run celeriac: {error}")))
    };
    let (code, out, _) = with("50");
    let warning = "celeriac.toml: warning: the queues of pool cpu have 60 workers together, and a process has at most 50";
    assert!(code == Some(0) && out.contains(warning), "{out}");
    let (code, out, _) = with("60");
    assert!(code == Some(0) && !out.contains("warning"), "{out}");
}

#[test]
fn environments_change_what_is_shown() {
    let (code, out, _) = run(&["check", "celeriac.toml", "--environment", "production"]);
    assert_eq!(code, Some(0));
    assert!(
        out.starts_with("celeriac.toml is valid for production.\n24 queues, 1891 workers in all:"),
        "{out}"
    );
    let (code, out, _) = run(&["queues", "celeriac.toml", "--environment", "production"]);
    assert_eq!(code, Some(0));
    let email = out.lines().find(|line| line.starts_with("email_queue")).unwrap_or_default();
    assert_eq!(
        email.split_whitespace().collect::<Vec<_>>(),
        ["email_queue", "yes", "seconds", "30s", "536", "io", "seconds", "Send", "emails."]
    );
    let (code, out, err) = run(&["queues", "celeriac.toml", "--environment", "prodution"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert_eq!(err, "celeriac.toml: unknown environment \"prodution\"; did you mean \"production\"?\n");
}

#[test]
fn queues_are_printed_as_a_table() {
    let (code, out, err) = run(&["queues", "celeriac.toml"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let mut lines = out.lines();
    let heading: Vec<_> = lines.next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(heading, ["QUEUE", "I/O", "CLASS", "TARGET", "WORKERS", "POOL", "TYPICAL", "DESCRIPTION"]);
    let queues = lines.skip(1).filter(|line| !line.starts_with(' ')).count();
    assert_eq!(queues, 24);
    assert!(out.lines().all(|line| line.chars().count() <= 160 && line.trim_end() == line), "{out}");
    let background = "background_queue                                10m        2  cpu   varies wildly\n";
    assert!(out.contains(background), "{out}");
    assert!(!out.contains('\u{1b}'), "no colours");
}

#[test]
fn what_is_said_about_targets_and_queues_is_printed() {
    let (code, out, err) = run(&["queues", "--notes", "celeriac.toml"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let heading: Vec<_> = out.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(heading, ["QUEUE", "TARGET", "ABOUT", "THE", "TARGET", "NOTES"]);
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let background = out.lines().find(|line| line.starts_with("background_queue")).unwrap_or_default();
    assert!(!words(background).is_empty(), "{out}");
    assert!(out.contains("OK for this to get behind") && out.contains("Non-essential queue"), "{out}");
    assert!(out.lines().all(|line| line.chars().count() <= 160 && line.trim_end() == line), "{out}");
}

#[test]
fn a_missing_file_and_a_wrong_command_line_are_told_apart() {
    let (code, out, err) = run(&["check", "nowhere.toml"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.starts_with("nowhere.toml: cannot read the file: "), "{err}");
    assert!(err.ends_with("; check the path and who may read it\n"), "{err}");
    assert_eq!(run(&["chek"]).0, Some(2));
    assert_eq!(run(&["check", "--enviroment", "x"]).0, Some(2));
    assert_eq!(run(&[]).0, Some(2));
}

#[test]
fn help_names_the_commands() {
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("check") && out.contains("queues") && out.contains("Exit codes"), "{out}");
    let (code, out, _) = run(&["check", "--help"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("--environment <NAME>"), "{out}");
}

#[test]
fn texts_of_the_file_cannot_steer_the_terminal() {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let file =
        "[[queue]]\nname = \"celery\"\ndescription = \"a\\u001b[31m\\nb\"\ntypical_duration = \"\\u0007x\"\n";
    std::fs::write(dir.path().join("celeriac.toml"), file).unwrap_or_else(|error| panic!("{error}"));
    for command in ["check", "queues"] {
        let (code, out, _) = text(celeriac(&[command], dir.path()));
        assert_eq!(code, Some(0));
        assert!(!out.chars().any(|c| c.is_control() && c != '\n'), "{out:?}");
    }
}

const SCHEDULE: &str = r#"
beat = false

[[queue]]
name = "celery_periodic"

[[periodic]]
name = "monthly invoices"
task = "accounting.generate"
crontab = { minute = 0, hour = 5, day_of_month = 1 }
zone = "America/New_York"
queue = "celery_periodic"
args = ["USD", 1]
misfire = "all"
misfire_within = "2h"
overlap = "skip"
environments = ["production"]

[[periodic]]
name = "noisy"
task = "app.noise"
crontab = "* 8 * * *"

[[periodic]]
name = "beats"
task = "app.beat"
every = "90s"

[environment.staging]
beat = true
"#;

#[test]
fn schedule_shows_when_each_entry_fires_and_what_is_doubtful() {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    std::fs::write(dir.path().join("celeriac.toml"), SCHEDULE).unwrap_or_else(|error| panic!("{error}"));
    let show = |environment: &str| {
        let from = "2026-02-28T23:59:00Z";
        text(celeriac(&["schedule", "-n", "2", "--from", from, "--environment", environment], dir.path()))
    };
    let expected = r#"monthly invoices
  0 5 1 * *  in America/New_York
  calls accounting.generate in celery_periodic
  misfire all within 2h, overlap skip
  only on production: not here
  2026-03-01 05:00:00 -05:00 (EST)  = 2026-03-01 10:00:00 +00:00 (UTC)
  2026-04-01 05:00:00 -04:00 (EDT)  = 2026-04-01 09:00:00 +00:00 (UTC)

noisy
  * 8 * * *  in UTC
  calls app.noise
  misfire once, overlap buffer_one
  warning: runs every minute of that hour, because minute is "*"; write minute = 0 if hour = "8" was to run once
  2026-03-01 08:00:00 +00:00 (UTC)
  2026-03-01 08:01:00 +00:00 (UTC)

beats
  every 1m30s
  calls app.beat
  misfire once, overlap buffer_one
  2026-03-01 00:00:00 +00:00 (UTC)
  2026-03-01 00:01:30 +00:00 (UTC)
"#;
    assert_eq!(show("staging"), (Some(0), expected.to_owned(), String::new()));
    let (code, out, _) = show("production");
    assert_eq!(code, Some(0));
    assert!(out.starts_with("beat = false: none of these fires here\n\nmonthly invoices\n"), "{out}");
    assert!(out.contains("  only on production\n"), "{out}");
    let (code, _, err) = text(celeriac(&["schedule", "--from", "tomorrow"], dir.path()));
    assert_eq!(code, Some(2));
    assert!(err.contains("write a time such as 2026-03-08T00:00:00Z"), "{err}");
}

/// A command about a store makes none, wherever it is pointed at, and says what to do.
#[test]
fn commands_make_no_store() {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    std::fs::create_dir(dir.path().join("empty")).unwrap_or_else(|error| panic!("{error}"));
    std::fs::create_dir_all(dir.path().join("shop/db")).unwrap_or_else(|error| panic!("{error}"));
    std::fs::write(dir.path().join("shop/db/production.sqlite3"), "rows")
        .unwrap_or_else(|error| panic!("{error}"));
    let commands: [&[&str]; 4] = [
        &["requeue"],
        &["requeue", "--dry-run"],
        &["store", "verify"],
        &["store", "salvage", "--into", "new"],
    ];
    for command in commands {
        for directory in ["empty", "shop", "nowhere", "."] {
            let (code, out, err) =
                text(celeriac(&[command, &["--directory", directory]].concat(), dir.path()));
            assert_eq!((code, out.as_str()), (Some(1), ""), "{command:?} {directory}: {err}");
            assert!(err.contains(directory) && !err.contains('{'), "{command:?} {directory}: {err}");
            let says = if directory == "empty" || directory == "nowhere" {
                "`Builder::directory`"
            } else {
                "is not a store of Celeriac's"
            };
            assert!(err.contains(says), "{command:?} {directory}: {err}");
        }
    }
    let left = |path: &str| std::fs::read_dir(dir.path().join(path)).map_or(0, Iterator::count);
    assert_eq!((left("empty"), left("shop"), left("shop/db"), left(".")), (0, 1, 1, 2));
}

/// Nor do those about the tasks in it.
#[test]
fn commands_about_tasks_need_a_place_and_something_to_do() {
    let unplaced: [&[&str]; 4] =
        [&["purge", "q"], &["revoke", "some-id"], &["failed", "list"], &["why", "some-id"]];
    for command in unplaced {
        let (code, out, err) = run(command);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{command:?}");
        assert!(err.contains("--directory DIR") && err.contains("CELERIAC_BROKER"), "{err}");
        let (code, _, err) = run(&[command, &["--directory", "nowhere"]].concat());
        assert_eq!(code, Some(1), "{command:?}");
        assert!(err.contains("there is no directory `nowhere`"), "{err}");
    }
    let wrong: [&[&str]; 7] = [
        &["purge"],
        &["purge", ""],
        &["revoke"],
        &["revoke", "id", "--task", "t"],
        &["events", "-n", "0"],
        &["why"],
        &["why", "", "--directory", "."],
    ];
    for command in wrong {
        assert_eq!(run(command).0, Some(2), "{command:?}");
    }
    let (code, _, err) = run(&["events"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("say where the fleet is: --broker URL"), "{err}");
}

/// An address has a password in it, so it may stand in the environment, and is not shown.
#[test]
fn a_broker_may_be_named_by_the_environment() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_celeriac"));
        command.args(arguments).env("CELERIAC_BROKER", "amqp://user:geheim@127.0.0.1:1/vhost");
        text(command.output().unwrap_or_else(|error| panic!("cannot run celeriac: {error}")))
    };
    let (code, out, _) = run(&["requeue", "--help"]);
    assert_eq!(code, Some(0));
    assert!(
        out.contains("[env: CELERIAC_BROKER]") && out.contains("[env: CELERIAC_RESULT_BACKEND]"),
        "{out}"
    );
    assert!(!out.contains("geheim"), "{out}");
    let (code, _, err) = run(&["requeue", "--dry-run"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("127.0.0.1:1") && !err.contains("geheim"), "{err}");
    let (code, _, err) = run(&["requeue", "--directory", "nowhere"]);
    assert_eq!(code, Some(1), "what stands on the command line wins: {err}");
    assert!(err.contains("there is no directory `nowhere`"), "{err}");
    let (code, _, err) = run(&["requeue", "--directory", "nowhere", "--broker", "amqp://other/"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("leave one of the two out"), "{err}");
    let nothing = celeriac(&["requeue"], Path::new(ROOT));
    let (code, _, err) = text(nothing);
    assert_eq!(code, Some(2));
    assert!(err.contains("--directory DIR") && err.contains("CELERIAC_BROKER"), "{err}");
}

mod damaged_store {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use celeriac::broker::conformance::{Inbox, sample};
    use celeriac::broker::embedded::EmbeddedOptions;
    use celeriac::broker::{Broker, EmbeddedBroker, Settle};
    use celeriac::task::Durability;

    use super::damaged_block::{damage, flush, table};
    use super::{celeriac as command, text};

    const TASKS: usize = 2000;

    fn open(dir: &str) -> Arc<dyn Broker> {
        Arc::new(EmbeddedBroker::open(dir, EmbeddedOptions::default()).expect("a store"))
    }

    /// The ids of the tasks that a command says are lost.
    fn lost(out: &str, what: &str) -> BTreeSet<String> {
        let ids = out.lines().filter_map(|line| line.strip_prefix("task ")?.strip_suffix(what));
        ids.map(str::to_owned).collect()
    }

    /// The table files that a command says are damaged.
    fn files(out: &str) -> Vec<&str> {
        let what = ": its checksum does not match, so a part of it is damaged";
        out.lines().filter_map(|line| line.strip_suffix(what)).collect()
    }

    /// The file that is damaged and the tasks that this costs are named, and the new store has all others.
    #[tokio::test]
    async fn is_told_and_salvaged() {
        let home = tempfile::tempdir().expect("a directory");
        let directory = home.path().join("data").display().to_string();
        let broker = open(&directory);
        let messages = (0..TASKS).map(|n| broker.publish(sample("q", n, Durability::Disk), false));
        futures_util::future::try_join_all(messages).await.expect("room");
        broker.close().await.expect("a close");
        drop(broker);
        flush(directory.as_ref());
        let file = table(directory.as_ref(), 1);
        damage(&file, 50);
        let file = file.file_name().expect("a name").to_string_lossy();
        let file = format!("keyspaces/1/tables/{file}");

        let (code, out, err) = text(command(&["store", "verify", "--directory", &directory], home.path()));
        assert_eq!(code, Some(1), "{out}{err}");
        assert!(err.starts_with(&format!("The store {directory} is damaged. ")), "{err}");
        assert_eq!(files(&out), [file.as_str()]);
        let gone = lost(&out, " waited and cannot be read");
        assert!((1..200).contains(&gone.len()), "{} are lost: {out}", gone.len());
        let left = TASKS - gone.len();
        let said = format!("{left} waiting tasks, 0 results and 0 dead letters can be read.\n");
        assert!(out.ends_with(&said), "{out}");

        let into = home.path().join("new").display().to_string();
        let (code, out, err) =
            text(command(&["store", "salvage", "--directory", &directory, "--into", &into], home.path()));
        assert_eq!((code, err.as_str()), (Some(0), ""));
        assert_eq!(files(&out), [file.as_str()]);
        assert_eq!(lost(&out, " waited and is lost"), gone);
        let said = format!("{left} waiting tasks, 0 results and 0 dead letters are in {into}.\n");
        assert!(out.ends_with(&said), "{out}");
        let (code, out, err) = text(command(&["store", "verify", "--directory", &into], home.path()));
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");

        let broker = open(&into);
        let mut inbox = Inbox::open(&broker, "q", TASKS);
        let deliveries = inbox.take(left).await;
        let rest: BTreeSet<_> = deliveries.iter().map(|one| one.message().id.to_string()).collect();
        let all = (0..TASKS).map(|n| sample("q", n, Durability::Disk).id.to_string());
        assert_eq!(rest, all.filter(|id| !gone.contains(id)).collect());
        let ends = deliveries
            .into_iter()
            .map(|one| one.settle_and_wait(Settle::Ack { result: None, follow_ups: None }));
        futures_util::future::try_join_all(ends).await.expect("ends");
        inbox.is_quiet(&broker, "q").await;
    }
}

mod dead_letters {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use celeriac::catalogue::QueueRow;
    use celeriac::{Celeriac, State, TaskError, task};

    use super::{celeriac as command, text};

    static WILLING: AtomicBool = AtomicBool::new(false);

    #[task(queue = "refused")]
    async fn refuses_at_first(n: u32) -> Result<u32, TaskError> {
        if WILLING.load(Ordering::SeqCst) { Ok(n) } else { Err(TaskError::reject(format!("not {n} today"))) }
    }

    /// Of an embedded store whose program does not run: their records go with them, and their next runs leave others.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn go_back_into_an_embedded_store() {
        let dir = tempfile::tempdir().expect("a directory");
        let start = async || {
            let builder =
                Celeriac::builder().directory(dir.path()).queue(QueueRow::new("refused").with_workers(4));
            builder.start().await.expect("a start")
        };
        let requeue = |more: &[&str]| {
            let directory = dir.path().display().to_string();
            text(command(&[&["requeue", "--directory", &directory], more].concat(), dir.path()))
        };
        let wait = Duration::from_secs(120);
        let runtime = start().await;
        let client = runtime.client();
        let mut ids = Vec::new();
        for n in 0..300 {
            ids.push(refuses_at_first::s(n).send(runtime.client()).await.expect("an enqueue").id().clone());
        }
        for id in &ids {
            let record =
                tokio::time::timeout(wait, client.wait(id)).await.expect("in time").expect("a record");
            assert_eq!(record.state, State::Rejected);
        }
        let (code, _, err) = requeue(&[]);
        assert_eq!(code, Some(1), "the program still runs");
        assert!(err.contains("in use by process"), "{err}");
        runtime.shutdown().await.expect("an end");

        let directory = dir.path().display().to_string();
        let (code, out, err) = text(command(&["store", "verify", "--directory", &directory], dir.path()));
        assert_eq!((code, err.as_str()), (Some(0), ""));
        let said = "0 waiting tasks, 300 results and 300 dead letters can be read.\n";
        assert!(out.starts_with(said) && out.ends_with("is sound.\n"), "{out}");
        let salvaged = tempfile::tempdir().expect("a directory");
        let into = salvaged.path().join("new").display().to_string();
        let (code, out, err) =
            text(command(&["store", "salvage", "--directory", &directory, "--into", &into], dir.path()));
        assert_eq!((code, err.as_str()), (Some(0), ""));
        assert!(out.starts_with("0 waiting tasks, 300 results and 300 dead letters are in "), "{out}");
        let (code, out, err) = text(command(&["requeue", "--dry-run", "--directory", &into], dir.path()));
        assert_eq!((code, err.as_str()), (Some(0), ""));
        assert!(out.ends_with("300 of 300 dead letters would go back to their queues.\n"), "{out}");
        let (_, out, _) = requeue(&["--queue", "refusd", "--task", "*refuses*"]);
        let said = "0 of 300 dead letters went back to their queues.\nOf them 0 are of the queue `refusd`, 300 are of tasks like `*refuses*`.\n";
        assert_eq!(out, said);

        let (code, out, err) = requeue(&["--dry-run", "--reason", "not 7 today"]);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        assert!(out.ends_with("1 of 300 dead letters would go back to their queues.\n"), "{out}");
        let (_, out, _) = requeue(&["--limit", "290"]);
        assert!(out.ends_with("290 of 300 dead letters went back to their queues.\n"), "{out}");
        WILLING.store(true, Ordering::SeqCst);
        let runtime = start().await;
        let client = runtime.client();
        // Four workers refuse them, so those that were refused last are not quite those that were sent last.
        let mut states = std::collections::HashMap::new();
        for id in &ids {
            let record =
                tokio::time::timeout(wait, client.wait(id)).await.expect("in time").expect("a record");
            *states.entry(record.state).or_insert(0) += 1;
        }
        assert_eq!(states, [(State::Success, 290), (State::Rejected, 10)].into());
        // Where its event loop has no time to answer, it is asked again.
        let asked = async {
            loop {
                if let Ok(status) = runtime.queue("refused").await {
                    return status.dead;
                }
            }
        };
        assert_eq!(tokio::time::timeout(wait, asked).await, Ok(10));
        runtime.shutdown().await.expect("an end");
    }
}
