//! `[[limit]]`: what its rows say, what an environment changes, and what is told of mistakes.

use std::time::Duration;

use celeriac::catalogue::{Catalogue, LimitRow, TENANT_KEY, TaskPattern};
use celeriac::core::start_limit::{Breaker, RateScope, StartLimit};

use crate::{errors_of, parse};

const FILE: &str = r#"
[[queue]]
name = "celery"

[defaults]
zone = "Africa/Nairobi"

[[limit]]
name = "sms gateway"
task = "sms.send_*"
key = "gateway"
rate = "8/s"
max_running = 3
breaker = { errors = 3, of = 5, pause = "30s" }

[[limit]]
task = "reports.send"
key = "tenant"
daily = 1000
hours = "09:00-21:00"
days = "mon-fri"
zone = "Asia/Kolkata"

[[limit]]
task_pattern = "feed\\.(a|b)"
rate = "10/m"
scope = "process"
breaker = true
days = "sat,sun"

[[environment.live.limit]]
name = "sms gateway"
task = "sms.send_*"
max_running = 30

[[environment.live.limit]]
task = "live.only"
daily = 1
"#;

#[test]
fn rows_say_what_they_say() {
    let catalogue = parse(FILE);
    let told: Vec<String> = catalogue.limits.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            r#""sms gateway" of "sms.send_*" by "gateway": 8/s, 3 at a time in each process, a pause of 30s up to 3600s after 3 errors of 5 runs"#,
            r#""reports.send" by "tenant": 1000 a day, 09:00-21:00 mon-fri, by the clocks of Asia/Kolkata"#,
            r#""feed\\.(a|b)" of /feed\.(a|b)/: 10/m in each process, 00:00-24:00 sat,sun, by the clocks of UTC, a pause of 60s up to 3600s after 5 errors of 10 runs"#,
        ]
    );
    let [sms, reports, feed] = &catalogue.limits[..] else { panic!("{told:?}") };
    assert_eq!((sms.task.clone(), sms.zone), (TaskPattern::Glob("sms.send_*".to_owned()), None));
    let pause = Duration::from_secs(30);
    assert_eq!(sms.limit.breaker, Some(Breaker::new(3, 5, pause, Breaker::default().longest)));
    assert_eq!((sms.limit.scope, feed.limit.scope), (RateScope::Cluster, RateScope::Process));
    assert_eq!((reports.key.as_deref(), reports.limit.daily), (Some(TENANT_KEY), Some(1000)));
    assert!(
        catalogue.summary().contains("0 routes, 3 limits, environments: live"),
        "{}",
        catalogue.summary()
    );
}

#[test]
fn an_environment_adds_limits_and_takes_the_place_of_those_of_its_names() {
    let live = parse(FILE).for_environment("live").unwrap_or_else(|errors| panic!("{errors}"));
    let names: Vec<&str> = live.limits.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["reports.send", "feed\\.(a|b)", "sms gateway", "live.only"]);
    let sms = &live.limits[2].limit;
    assert_eq!((sms.max_running, sms.rate.is_none()), (Some(30), true));
}

#[test]
fn mistakes_are_told_with_their_places() {
    let text = r#"[[limit]]
task = "a"
rat = "8/s"
rate = "0"
[[limit]]
task = "b"
max_running = 0
hours = "9-21"
[[limit]]
task = "c"
hours = "09:00-09:00"
daily = "many"
[[limit]]
task = "d"
days = "mon-fry"
rate = "-1/s"
zone = "Asia/Calcuta"
[[limit]]
rate = "1/s"
[[limit]]
task = "e"
[[limit]]
task = "f"
daily = 1
scope = "clustr"
[[limit]]
task = "g"
breaker = { errors = 6, of = 5, pase = "1s" }
[[limit]]
task = "g"
breaker = 5
[[limit]]
task = "h"
key = ""
daily = 1
[[limit]]
task = "h"
daily = 2
"#;
    let expected = r#"celeriac.toml:3:1: unknown key "rat" in limit number 1; did you mean "rate"?
celeriac.toml:4:8: "rate" in limit number 1 is "0"; write a rate above zero such as "8/s", or remove it
celeriac.toml:7:15: "max_running" in limit number 2 is 0; write at least 1
celeriac.toml:8:9: "hours" in limit number 2 is "9-21"; write two times of a day, such as "09:00-21:00", or "22:00-06:00" over midnight
celeriac.toml:11:9: "hours" in limit number 3 is "09:00-09:00"; these hours are empty, so nothing would ever start; write "00:00-24:00" for the whole day
celeriac.toml:12:9: "daily" in limit number 3 must be a whole number such as 4, not the string "many"
celeriac.toml:16:8: "rate" in limit number 4 is "-1/s"; write a rate such as "10/s", "10/m" or "10/h", or "0" for no limit
celeriac.toml:17:8: "zone" in limit number 4 is "Asia/Calcuta"; there is no time zone `Asia/Calcuta`; did you mean `Asia/Calcutta`?
celeriac.toml:18:1: limit number 5 has no task; add task = "..."
celeriac.toml:20:1: limit number 6: it limits nothing; add rate = "8/s", max_running = 3, daily = 1000, hours = "09:00-21:00" or breaker = true
celeriac.toml:22:1: limit number 7: scope says who counts a rate together, and it has none; add rate = "8/s" or take scope out
celeriac.toml:25:9: "scope" in limit number 7 is "clustr"; did you mean "cluster"?
celeriac.toml:26:1: "of" in limit "g" is 5; write at least 6, as many as `errors` says
celeriac.toml:28:33: unknown key "pase" in limit number 8, breaker; did you mean "pause"?
celeriac.toml:31:11: "breaker" in limit number 9 must be a table such as { errors = 5, of = 10, pause = "1m", longest = "1h" }, or true, not the integer 5
celeriac.toml:32:1: "key" in limit "h" is ""; name a parameter or "tenant", or remove it
celeriac.toml:36:1: "name" in limit "h" is "h"; another limit has this name: give one of them a name of its own"#;
    let found = errors_of(text);
    let found: Vec<&str> =
        found.lines().filter(|line| !line.contains("\"days\" in limit number 4")).collect();
    for (found, expected) in found.iter().zip(expected.lines()) {
        assert_eq!(*found, expected);
    }
    assert_eq!(found.len(), expected.lines().count(), "{found:#?}");
    let days = errors_of("[[limit]]\ntask = \"d\"\ndays = \"7\"\n");
    assert!(
        days.contains("\"days\" in limit number 1 is \"7\"; day_of_week = \"7\": 7 is no day of the week"),
        "{days}"
    );
    assert!(days.contains("write days such as \"mon-fri\""), "{days}");
}

#[test]
fn a_limit_that_is_built_in_code_is_checked_too() {
    let nothing = Catalogue::new().with_limit(LimitRow::new("a", StartLimit::default()));
    let error = nothing.validate().expect_err("it limits nothing").to_string();
    assert!(error.contains("\"limit\" in limit \"a\" is empty; state rate, max_running"), "{error}");
}
