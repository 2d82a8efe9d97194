//! Entries that are declared: `#[periodic_task]`, found at link time, and `[[periodic]]` of a catalogue.
//!
//! All tests of this program link these tasks, so they name an environment.

use std::time::Duration;

use celeriac::actors::EntryOrigin;
use celeriac::app::StartError;
use celeriac::core::calendar::{Misfire, Overlap, Tenant};
use celeriac::task::PeriodicDefinition;
use celeriac::{Celeriac, Context, TaskError, periodic_task};

use crate::kit::{builder, ran, status, tick, until, until_ran, write_down};

/// All options at once.
#[periodic_task(
    crontab(minute = "*/5", hour = "8-17", day_of_week = "mon-fri"),
    zone = "Asia/Kolkata",
    entry = "office hours",
    misfire = "all",
    misfire_within = "1h",
    overlap = "allow",
    environments = ["declared", "other"],
    queue = "io",
    expires = "90s",
    max_retries = 1
)]
async fn in_office_hours(ctx: Context) {
    let _ = ctx;
}

#[periodic_task(every = "20ms", environments = "declared", queue = "io", ignore_result)]
async fn often(ctx: &Context) {
    write_down(ctx, "often".into());
}

/// Fields in all forms of a number.
#[periodic_task(
    crontab(minute = [0, 30.0], hour = 7.0, day_of_month = [1.0], month_of_year = 2),
    zone = "Asia/Kolkata",
    entry = "at seven",
    environments = "other",
    queue = "io"
)]
fn at_seven() {}

/// At midnight where the domain is.
#[periodic_task(crontab("0 0 * * *"), tenants = domains, spread = "4h", environments = ["declared"], queue = "io")]
fn at_midnight(domain: String) -> Result<(), TaskError> {
    let _ = domain;
    Ok(())
}

async fn domains() -> Result<Vec<Tenant>, std::io::Error> {
    Ok(vec![Tenant::new("a", "Africa/Blantyre".parse().map_err(std::io::Error::other)?)])
}

#[test]
fn an_attribute_says_what_the_entry_is() {
    let entry = |name: &str| {
        let definition = PeriodicDefinition::all().find(|definition| definition.name == name);
        let definition = definition.unwrap_or_else(|| panic!("no {name}"));
        assert!(definition.location.contains("declared.rs:"), "{}", definition.location);
        (definition.entry)().unwrap()
    };
    let office = entry("office hours");
    assert_eq!(
        office.to_string(),
        "office hours: beat::declared::in_office_hours at */5 8-17 * * mon-fri (Asia/Kolkata)"
    );
    assert_eq!(office.misfire, Misfire::All { within: Duration::from_secs(3600) });
    assert_eq!(office.overlap, Overlap::Allow);
    assert_eq!(office.environments, ["declared", "other"]);
    let options = <in_office_hours::Task as celeriac::task::Task>::options();
    assert_eq!((options.expires, options.retry.max_retries), (Some(Duration::from_secs(90)), 1));
    let seven = entry("at seven");
    assert_eq!(seven.to_string(), "at seven: beat::declared::at_seven at 0,30 7 1 2 * (Asia/Kolkata)");
    let often = entry("beat::declared::often");
    assert_eq!(often.schedule.to_string(), "every 20ms");
    assert_eq!((often.misfire, often.overlap), (Misfire::Once, Overlap::BufferOne));
    let midnight = entry("beat::declared::at_midnight");
    assert_eq!(midnight.tenants.unwrap().spread, Duration::from_secs(4 * 3600));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_on_its_environments() {
    let celeriac = builder().in_memory().environment("declared").start().await.unwrap();
    until_ran("often", 3).await;
    let all = celeriac.beat().entries().await.unwrap();
    let names: Vec<_> = all.iter().map(|entry| (entry.name.as_str(), entry.origin)).collect();
    assert_eq!(
        names,
        [
            ("beat::declared::at_midnight", EntryOrigin::Program),
            ("beat::declared::often", EntryOrigin::Program),
            ("office hours", EntryOrigin::Program)
        ]
    );
    until("its tenants are listed", async || {
        status(&celeriac, "beat::declared::at_midnight").await.tenants == Some(1)
    })
    .await;
    // It is a task like any other.
    often::s().send(celeriac.client()).await.unwrap();
    celeriac.shutdown().await.unwrap();

    let elsewhere = builder().in_memory().start().await.unwrap();
    assert_eq!(elsewhere.beat().entries().await.unwrap(), []);
    elsewhere.shutdown().await.unwrap();
}

fn catalogue(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalogue_says_what_is_called() {
    let task = <tick::Task as celeriac::task::Task>::NAME;
    let file = catalogue(&format!(
        r#"
        [[queue]]
        name = "io"
        [[periodic]]
        name = "from the file"
        task = "{task}"
        every = "20ms"
        args = ["from the file"]
        queue = "io"
        [environment.quiet]
        beat = false
        "#
    ));
    let start = |environment: Option<&str>| {
        let builder = Celeriac::builder().in_memory().catalogue_file(file.path());
        match environment {
            Some(environment) => builder.environment(environment).start(),
            None => builder.start(),
        }
    };
    let celeriac = start(None).await.unwrap();
    until_ran("from the file", 3).await;
    celeriac.shutdown().await.unwrap();
    let ran_by_then = ran("from the file").len();
    let quiet = start(Some("quiet")).await.unwrap();
    assert_eq!(quiet.beat().entries().await, Err(celeriac::actors::BeatError::Off));
    assert_eq!(ran("from the file").len(), ran_by_then);
    quiet.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_nobody_has_is_a_mistake() {
    let file = catalogue(
        r#"
        [[periodic]]
        name = "typo"
        task = "beat::kit::tik"
        every = "1h"
        [[periodic]]
        name = "office hours"
        task = "beat::kit::tick"
        every = "1h"
        "#,
    );
    let error = Celeriac::builder().in_memory().catalogue_file(file.path()).start().await.err().unwrap();
    assert!(matches!(error, StartError::Schedule(_)), "{error:?}");
    let text = error.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[0],
        "the catalogue: the periodic entry `typo`: it calls `beat::kit::tik`, and this program has no task of that name; did you mean `beat::kit::tick`?"
    );
    assert!(
        lines[1].starts_with("two periodic entries are named `office hours`: one at tests/beat/declared.rs:"),
        "{text}"
    );
    assert!(lines[1].contains("one at the catalogue"), "{text}");
}

/// The macros check crontabs with a copy of the crate's grammar; their own test reads the same file.
#[test]
fn the_crate_accepts_the_crontabs_that_the_macros_accept() {
    for line in include_str!("../../macros/src/crontabs.tsv").lines() {
        let (accepted, text) = line.split_once('\t').unwrap();
        assert_eq!(text.parse::<celeriac::core::calendar::Crontab>().is_ok(), accepted == "yes", "{text}");
    }
}
