//! Errors as users see them: whatever prints one, `Debug` included, prints its text.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::{Debug, Display};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use celeriac::app::{ControlError, StartError};
use celeriac::broker::BrokerError;
use celeriac::catalogue::{Catalogue, QueueRow};
use celeriac::core::calendar::{Crontab, Schedule, Zone};
use celeriac::soil::{DownloadError, SoilError};
use celeriac::store::StoreError;
use celeriac::task::registry::DuplicateTask;
use celeriac::task::{CommitTableError, Interrupt, PermitError, UpdateStateError};
use celeriac::web::{Colour, SoilPages, Theme};
use celeriac::{
    Builder, Celeriac, Due, EnqueueError, GetError, Periodic, Source, SourcePoller, TaskError, async_trait,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a directory.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The name after `struct` or `enum`, if this line declares a type.
fn declared(line: &str) -> Option<&str> {
    let line = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
    let rest = line.strip_prefix("enum ").or_else(|| line.strip_prefix("struct "))?;
    rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

/// The error types of the library that would print how they are built: those that derive `Debug`.
fn dumps(source: &str) -> Vec<String> {
    // Tests may have errors of their own.
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut found = Vec::new();
    let mut attributes = String::new();
    for line in source.lines() {
        if line.trim_start().starts_with("#[derive(") {
            line.trim().clone_into(&mut attributes);
        }
        let Some(name) = declared(line) else { continue };
        let is_error = attributes.contains("thiserror::Error")
            || source.contains(&format!("error::Error for {name} "))
            || source.contains(&format!("error::Error for {name}<"));
        if is_error && attributes.contains("Debug") {
            found.push(name.to_owned());
        }
        attributes.clear();
    }
    found
}

#[test]
fn no_error_of_the_library_derives_its_debug() {
    assert_eq!(dumps("#[derive(Debug, thiserror::Error)]\n#[error(\"x\")]\npub enum A {"), ["A"]);
    assert_eq!(dumps("#[derive(Debug)]\npub struct B {}\nimpl std::error::Error for B {}"), ["B"]);
    assert!(dumps("#[derive(Debug)]\npub struct C;\n#[derive(thiserror::Error)]\nenum D {}").is_empty());
    let files = sources(&root().join("src"));
    let found: Vec<_> = files
        .iter()
        .flat_map(|file| {
            let names = dumps(&std::fs::read_to_string(file).unwrap());
            names.into_iter().map(move |name| format!("{}: {name}", file.display()))
        })
        .collect();
    assert!(found.is_empty(), "say `debug_as_display!` for these: {found:#?}");
    let told = files.iter().map(|file| std::fs::read_to_string(file).unwrap());
    let told = told.filter(|text| text.contains("debug_as_display!(")).count();
    assert!(told > 20, "only {told} files have errors: the search is broken");
}

fn prints_its_text(error: &(impl Debug + Display)) {
    let text = error.to_string();
    assert!(!text.is_empty());
    assert_eq!(format!("{error:?}"), text);
    assert_eq!(format!("{error:#?}"), text);
}

#[test]
fn each_error_prints_its_text() {
    let io = || StoreError::io("redis at h:6379: gone".to_owned());
    let broker = || BrokerError::Full("no room".to_owned());
    let catalogue = Catalogue::parse("[[queue]]\nname = \"a\"\nwokers = 3\n", "celeriac.toml").unwrap_err();
    assert!(format!("{catalogue:?}").starts_with("celeriac.toml:3:1: unknown key"), "{catalogue:?}");
    for mistake in &catalogue.errors {
        prints_its_text(mistake);
        prints_its_text(&mistake.problem);
        assert!(format!("{mistake:?}").starts_with("3:1: unknown key"), "{mistake:?}");
    }
    prints_its_text(&catalogue);
    let in_code = Catalogue::new().with_queue(QueueRow::new("")).validate().unwrap_err();
    prints_its_text(&in_code);
    for warning in Catalogue::new().with_queue(QueueRow::new("a")).warnings() {
        prints_its_text(&warning);
        prints_its_text(&warning.kind);
    }
    prints_its_text(&StartError::Catalogue(catalogue));
    prints_its_text(&StartError::Downloads("no".to_owned()));
    prints_its_text(&StartError::ControlCommand { name: "ping".to_owned(), why: "it is taken" });
    prints_its_text(&StartError::Broker(broker()));
    prints_its_text(&StartError::Store(io()));
    prints_its_text(&StartError::System(std::io::Error::other("no threads")));
    prints_its_text(&broker());
    prints_its_text(&io());
    prints_its_text(&ControlError::Store(io()));
    prints_its_text(&ControlError::NoWorkers);
    prints_its_text(&SoilError::Broker(broker()));
    prints_its_text(&EnqueueError::Canvas("no".to_owned()));
    prints_its_text(&GetError::Timeout { id: "a".into(), waited: Duration::from_secs(1) });
    prints_its_text(&DownloadError::NoPlace);
    prints_its_text(&PermitError::Name(0));
    prints_its_text(&UpdateStateError::Name(0));
    prints_its_text(&Interrupt::SoftTimeLimit);
    prints_its_text(&SoilPages::new("short").unwrap_err());
    prints_its_text(&SoilPages::new([7; 32]).unwrap().home("exports").unwrap_err());
    prints_its_text(&Theme::new().colour(Colour::Ink, "red", "#fff").unwrap_err());
    prints_its_text(&"61 * * * *".parse::<Crontab>().unwrap_err());
    prints_its_text(&"Mars/Olympus".parse::<Zone>().unwrap_err());
    for ended in [
        TaskError::failure(["a", "b"]),
        TaskError::fail(["a"]),
        TaskError::permanent("gone"),
        TaskError::reject("no"),
        TaskError::postpone(Duration::from_secs(1)),
    ] {
        prints_its_text(&ended);
    }
    // What `main` makes of it.
    let boxed: Box<dyn Error> = Box::new(StartError::Broker(broker()));
    assert_eq!(format!("Error: {boxed:?}"), "Error: no room");
}

/// What `fn main() -> Result<(), Box<dyn Error>>` prints of an error.
fn from_main(error: StartError) -> String {
    let boxed: Box<dyn Error> = Box::new(error);
    format!("Error: {boxed:?}")
}

/// Fails unless each line of a text is a sentence for people: words, and nothing of how Rust holds the error.
fn reads_as_a_sentence(text: &str) {
    for line in text.lines() {
        assert!(line.split_whitespace().count() > 5, "too short to say what to do: {line}");
        assert!(line.matches('`').count() % 2 == 0, "a name that does not end: {line}");
        let dumps =
            ["Error(", "Some(", "Ok(", "Err(", "Os {", "kind:", "{ ", " }", "\\n", "\\\"", ": :", ";;"];
        for dump in dumps {
            assert!(!line.contains(dump), "`{dump}` is in: {line}");
        }
        assert!(!line.ends_with([':', ';', ',', ' ']), "it does not end: {line}");
    }
}

/// The variant of a start error. The test below has an example of each.
fn variant(error: &StartError) -> &'static str {
    match error {
        StartError::Catalogue(_) => "Catalogue",
        StartError::DuplicateTask(_) => "DuplicateTask",
        StartError::Schedule(_) => "Schedule",
        StartError::DataNotGiven { .. } => "DataNotGiven",
        StartError::Broadcast { .. } => "Broadcast",
        StartError::TenantArgument { .. } => "TenantArgument",
        StartError::DuplicatePoller(_) => "DuplicatePoller",
        StartError::ControlCommand { .. } => "ControlCommand",
        StartError::Limit { .. } => "Limit",
        StartError::PollerWithoutWindows(_) => "PollerWithoutWindows",
        StartError::Broker(_) => "Broker",
        StartError::Store(_) => "Store",
        StartError::Downloads(_) => "Downloads",
        StartError::Variable { .. } => "Variable",
        StartError::OfVariable { .. } => "OfVariable",
        StartError::CommitTable(_) => "CommitTable",
        StartError::Processes { .. } => "Processes",
        StartError::Child(_) => "Child",
        StartError::System(_) => "System",
        _ => panic!("name this variant, and add an example of it: {error}"),
    }
}

/// The variants that `StartError` declares.
fn declared_variants() -> BTreeSet<String> {
    let source = std::fs::read_to_string(root().join("src/app/start_error.rs")).unwrap();
    let (_, body) = source.split_once("pub enum StartError {").unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let variants = body.lines().filter_map(|line| line.strip_prefix("    "));
    let variants = variants.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    variants.map(|line| line.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned()).collect()
}

struct NoRows;

#[async_trait]
impl Source for NoRows {
    async fn due(&self, _: usize) -> Result<Vec<Due>, TaskError> {
        Ok(Vec::new())
    }
}

/// Programs that do not start, each with a part of what it says.
fn programs_that_do_not_start(dir: &Path) -> Vec<(Builder, &'static str)> {
    let memory = || Celeriac::builder().in_memory();
    let mistakes = dir.join("mistakes.toml");
    std::fs::write(&mistakes, "[[queue]]\nname = \"a\"\nwokers = 3\nworkers = 0\n").unwrap();
    std::fs::write(dir.join("file"), "in the way").unwrap();
    std::fs::create_dir(dir.join("photos")).unwrap();
    std::fs::write(dir.join("photos/holiday.jpg"), "x").unwrap();
    let unknown = Periodic::new("clean up", "app.clean_up", Schedule::Every(Duration::from_secs(60)));
    let poller = || SourcePoller::new("rows", NoRows);
    let control = memory().control_command("ping", |_| async { Ok(serde_json::json!(null)) });
    vec![
        (memory().catalogue_file(dir.join("nowhere.toml")), "cannot read the file"),
        (memory().catalogue_file(mistakes), "did you mean \"workers\"?"),
        (memory().queue(QueueRow::new("")), "the name"),
        (memory().environment("prodution"), "unknown environment"),
        (memory().periodic(unknown), "has no task of that name"),
        (memory().poller(poller()).poller(poller()), "two source pollers are named `rows`"),
        (control, "choose another one"),
        (Celeriac::builder().directory(dir.join("file")), "needs a directory of its own"),
        (Celeriac::builder().directory(dir.join("photos")), "Nothing there was touched"),
        (Celeriac::builder().directory(dir.join("taken")), "in use by process"),
        (Celeriac::builder().amqp("amqp://user:password@127.0.0.1:1/hq"), "start it, or correct the address"),
        (memory().result_backend("mongodb://h"), "is no result backend"),
        (memory().result_backend("amqp://h"), "`rpc://"),
        (memory().downloads_at("ftp://h/exports"), "`s3://bucket/prefix`"),
    ]
}

/// Start errors that need more than a builder, as the library makes them.
fn made_by_hand() -> Vec<StartError> {
    let (task, location) = ("shop::order", "src/orders.rs:7");
    let (first, second) = (location.to_owned(), "src/old.rs:3".to_owned());
    vec![
        StartError::DuplicateTask(DuplicateTask { name: task.to_owned(), first, second }),
        StartError::DataNotGiven { task, location, data: "shop::Pool" },
        StartError::Broadcast { task, location, queue: "news".to_owned(), what: "is serial" },
        StartError::TenantArgument {
            task: task.to_owned(),
            argument: "domian".to_owned(),
            parameters: "its parameters are: order, domain".to_owned(),
            hint: "; did you mean `domain`?".to_owned(),
        },
        StartError::PollerWithoutWindows("rows".to_owned()),
        StartError::Limit {
            name: "sms gateway".to_owned(),
            fault: "its key `gatway` is no parameter of task `shop::order` (src/orders.rs:7), whose parameters are: gateway, to; a key may also be \"tenant\"; did you mean `gateway`?".to_owned(),
        },
        StartError::Variable {
            variable: "CELERIAC_BROKER",
            problem: "`redis://h` is no broker of Celeriac".to_owned(),
        },
        StartError::OfVariable {
            variable: "CELERIAC_DIRECTORY",
            error: Box::new(StartError::Broker(BrokerError::Full("the disk of data is full".to_owned()))),
        },
        StartError::CommitTable(CommitTableError::of(std::io::Error::other("no such table"), true)),
        StartError::CommitTable(CommitTableError::of(std::io::Error::other("the disk is full"), false)),
        StartError::Processes {
            queue: "reports".to_owned(),
            problem: "this system has no child processes that Celeriac could use: set pool = \"cpu\"",
        },
        StartError::Child(std::io::ErrorKind::BrokenPipe.into()),
        StartError::System(std::io::ErrorKind::WouldBlock.into()),
    ]
}

#[tokio::test]
async fn each_start_error_reads_as_a_sentence_from_main() {
    let dir = tempfile::tempdir().unwrap();
    let owner = Celeriac::builder().directory(dir.path().join("taken")).start().await.unwrap();
    let mut seen = BTreeSet::new();
    for (builder, part) in programs_that_do_not_start(dir.path()) {
        let Err(error) = builder.start().await else { panic!("it starts: {part}") };
        seen.insert(variant(&error).to_owned());
        let told = from_main(error);
        assert!(told.contains(part), "`{part}` is not in: {told}");
        reads_as_a_sentence(&told);
    }
    for error in made_by_hand() {
        seen.insert(variant(&error).to_owned());
        reads_as_a_sentence(&from_main(error));
    }
    assert_eq!(seen, declared_variants(), "each variant has an example");
    owner.shutdown().await.unwrap();
}

/// Addresses with a password in it, and none that a program could be started with.
const WRONG: [&str; 14] = [
    "user:geheim@h",
    "geheim@h",
    ":geheim@h",
    "redis//:geheim@h/0",
    "amqp//user:geheim@h",
    "redis://:geheim@h/x",
    "redis://user:geheim",
    "REDIS://:geheim@h/x",
    "amqp://user:geheim@h:x/",
    "AMQP://user:geheim@h:x/",
    "amqp://one;redis://:geheim@two",
    "amqp://u:gehe%69m@h:x;geheim@h",
    "s3://key:geheim@bucket",
    "http://h/?password=geheim",
];

#[tokio::test]
async fn no_start_error_shows_a_password() {
    for url in WRONG {
        let started = [
            Celeriac::builder().amqp(url).start().await,
            Celeriac::builder().in_memory().result_backend(url).start().await,
            Celeriac::builder().in_memory().downloads_at(url).start().await,
        ];
        for (at, started) in started.into_iter().enumerate() {
            let error = started.err().unwrap_or_else(|| panic!("{at}: {url} is no address"));
            for told in [error.to_string(), format!("{error:?}"), format!("{error:#?}")] {
                assert!(!told.contains("geheim") && !told.contains("gehe%69m"), "{at} {url}: {told}");
                assert!(told.contains("***") || !told.contains("@h"), "{at} {url}: {told}");
            }
        }
    }
    // One that is right, and nobody listens there.
    for error in [
        Celeriac::builder().amqp("amqp://user:geheim@127.0.0.1:1/hq").start().await.err(),
        Celeriac::builder()
            .in_memory()
            .result_backend("rpc://user:geheim@127.0.0.1:1/hq")
            .start()
            .await
            .err(),
    ] {
        let told = format!("{:?}", error.expect("nobody listens there"));
        assert!(told.contains("127.0.0.1:1") && !told.contains("geheim"), "{told}");
    }
}

/// An example that was built along with this test.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).unwrap();
    let program = target.join("examples").join(name);
    let missing = "is not built: run `cargo test`, or build the example before this test alone";
    assert!(program.is_file(), "{} {missing}", program.display());
    program
}

#[test]
fn the_quickstart_says_why_it_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    // Where the example wants its directory there is a file.
    std::fs::write(dir.path().join("data"), "in the way").unwrap();
    let ended = Command::new(example("quickstart")).current_dir(dir.path()).output().unwrap();
    assert!(!ended.status.success());
    let told = String::from_utf8(ended.stderr).unwrap();
    let told = told.lines().find(|line| line.starts_with("Error: ")).unwrap_or_else(|| panic!("{told}"));
    assert!(told.contains("data"), "it names the directory: {told}");
    for dump in ["Broker(", "Store(", "Io(", "Damaged", "Os {", "{ path", "\\n"] {
        assert!(!told.contains(dump), "{told}");
    }
}
