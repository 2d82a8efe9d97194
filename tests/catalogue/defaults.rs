//! `[defaults]` and `[rate_limits]`: what they say, what an environment changes, and that calls and runs have it.

use std::time::Duration;

use celeriac::catalogue::Catalogue;
use celeriac::core::token_bucket::RateLimit;
use celeriac::task::{NewTask, TaskDefaults, TaskOptions};
use celeriac::{assert_enqueued, task, testing};

use crate::parse;

#[task(name = "defaults.plain")]
fn plain() {}

#[task(
    name = "defaults.states",
    time_limit = "10s",
    max_retries = 3,
    result_expires = "1d",
    expires = "5s",
    rate_limit = "1/s"
)]
fn states() {}

#[task(name = "defaults.kept")]
fn kept() {}

const TEXT: &str = r#"
[defaults]
soft_time_limit = "1h"
time_limit = "2h"
expires = "1d"
expires_except = ["*.kept"]
max_retries = 7
default_retry_delay = "1s"
retry_backoff = false
retry_backoff_max = "1m"
retry_jitter = false
result_expires = "2h"
rate_limit = "100/s"
zone = "Asia/Kolkata"

[rate_limits]
"defaults.states" = "6/m"

[environment.live.defaults]
max_retries = 9
zone = "Africa/Nairobi"

[environment.live.rate_limits]
"defaults.states" = "0"
"#;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn live() -> Catalogue {
    parse(TEXT).for_environment("live").unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn what_the_file_says_is_what_is_read_and_an_environment_changes_a_part_of_it() {
    let (base, live) = (parse(TEXT), live());
    let defaults = &base.defaults;
    assert_eq!((defaults.soft_time_limit, defaults.time_limit), (Some(seconds(3600)), Some(seconds(7200))));
    assert_eq!((defaults.max_retries, defaults.retry_backoff), (Some(7), Some(false)));
    assert_eq!(defaults.autoretry, None);
    assert_eq!(base.zone.map(|zone| zone.name()), Some("Asia/Kolkata"));
    let limit = |catalogue: &Catalogue| catalogue.rate_limits["defaults.states"].clone();
    assert_eq!(limit(&base).map(|limit| limit.text().to_owned()).as_deref(), Some("6/m"));
    assert_eq!((live.defaults.max_retries, live.defaults.time_limit), (Some(9), Some(seconds(7200))));
    assert_eq!(live.defaults.expires_except, ["*.kept"]);
    assert_eq!((live.zone.map(|zone| zone.name()), limit(&live)), (Some("Africa/Nairobi"), None));
    let mut own = TaskDefaults::default();
    own.max_retries = Some(1);
    let changed = base.with_defaults(own).with_rate_limit("x", RateLimit::parse("1/h").unwrap());
    assert_eq!((changed.defaults.max_retries, changed.defaults.expires), (Some(1), Some(seconds(86_400))));
    assert_eq!(changed.validate(), Ok(()));
}

#[tokio::test]
async fn a_call_has_what_neither_it_nor_its_task_states_from_the_defaults() {
    let program = celeriac::Celeriac::builder().catalogue(live());
    let app = testing::builder().program(program).start().await.unwrap();
    plain::delay().await.unwrap();
    states::delay().await.unwrap();
    kept::s().max_retries(3).delay().await.unwrap();
    plain::s().countdown(seconds(7 * 86_400)).delay().await.unwrap();
    let python = NewTask::new("python.task", TaskOptions::default());
    app.celeriac().client().enqueue(Box::new(python)).await.unwrap();
    let sent = app.enqueued();
    assert_enqueued!(app, plain(), times = 2);
    let [first, own, exempt, later, foreign] = &sent[..] else { panic!("{} were sent", sent.len()) };
    assert_eq!(
        (first.soft_time_limit, first.time_limit, first.result_expires),
        (Some(seconds(3600)), Some(seconds(7200)), seconds(7200))
    );
    assert_eq!((first.retry.max_retries, first.retry.delay, first.retry.backoff), (9, seconds(1), false));
    assert_eq!(first.expires, Some(first.enqueued_at + seconds(86_400)));
    // What is stated holds, also where it says what Celeriac's own default says.
    assert_eq!((own.soft_time_limit, own.time_limit), (None, Some(seconds(10))));
    assert_eq!((own.retry.max_retries, own.result_expires), (3, seconds(86_400)));
    assert_eq!(own.expires, Some(own.enqueued_at + seconds(5)));
    assert_eq!((exempt.expires, exempt.retry.max_retries), (None, 3));
    // A task for next week is not taken away before it is due.
    assert_eq!(later.expires, later.eta.map(|eta| eta + seconds(86_400)));
    // The limits of another program's task are that program's.
    assert_eq!((foreign.time_limit, foreign.expires, foreign.retry.max_retries), (None, None, 20));
}

#[tokio::test]
async fn entries_that_state_no_zone_have_the_default_one() {
    let text = format!(
        "{TEXT}[[periodic]]\nname = \"own\"\ntask = \"defaults.plain\"\ncrontab = \"0 0 * * *\"\nzone = \"UTC\"\n\
         [[periodic]]\nname = \"theirs\"\ntask = \"defaults.plain\"\ncrontab = \"0 0 * * *\"\n"
    );
    for (in_code, expected) in [(None, "Asia/Kolkata"), (Some("Asia/Tokyo"), "Asia/Tokyo")] {
        let mut program = celeriac::Celeriac::builder().catalogue(parse(&text));
        if let Some(zone) = in_code {
            program = program.zone(zone.parse().unwrap());
        }
        let app = testing::builder().program(program).beat(true).start().await.unwrap();
        let entries = app.celeriac().beat().entries().await.unwrap();
        let schedule = |name: &str| entries.iter().find(|entry| entry.name == name).unwrap().schedule.clone();
        assert_eq!(schedule("own"), "0 0 * * * (UTC)");
        assert_eq!(schedule("theirs"), format!("0 0 * * * ({expected})"));
    }
}
