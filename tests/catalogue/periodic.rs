//! `[[periodic]]`: what is read, and every mistake at once.

use std::time::Duration;

use celeriac::catalogue::Catalogue;
use celeriac::core::calendar::{Misfire, Overlap, Schedule};
use celeriac::task::Periodic;

#[test]
fn every_key_arrives() {
    let text = r#"
        beat = false
        [[queue]]
        name = "q"
        [[periodic]]
        name = "all"
        task = "app.task"
        crontab = { minute = [0, 30], hour = "8-17", day_of_week = "mon-fri" }
        zone = "Asia/Kolkata"
        args = [1, "a", [true], { x = 1.5 }]
        queue = "q"
        expires = "90s"
        misfire = "all"
        misfire_within = "2h"
        overlap = "allow"
        environments = ["production", "india"]
        [periodic.kwargs]
        days = 7
        [[periodic]]
        name = "little"
        task = "app.task"
        every = "30s"
        [environment.staging]
        beat = true
    "#;
    let catalogue = Catalogue::parse(text, "celeriac.toml").unwrap();
    let [all, little] = catalogue.periodic.as_slice() else { panic!("{:?}", catalogue.periodic) };
    assert_eq!(all.to_string(), "all: app.task at 0,30 8-17 * * mon-fri (Asia/Kolkata)");
    assert_eq!(all.arguments.args, r#"[1,"a",[true],{"x":1.5}]"#);
    assert_eq!(all.arguments.kwargs, r#"{"days":7}"#);
    assert_eq!((all.queue.as_deref(), all.expires), (Some("q"), Some(Duration::from_secs(90))));
    assert_eq!(all.misfire, Misfire::All { within: Duration::from_secs(7200) });
    assert_eq!((all.overlap, all.environments.join(" ")), (Overlap::Allow, "production india".to_owned()));
    assert_eq!((little.misfire, little.overlap), (Misfire::Once, Overlap::BufferOne));
    assert_eq!(little.schedule.to_string(), "every 30s");
    // An environment that only an entry names is one; switched off but where it is switched on.
    assert_eq!(catalogue.for_environment("india").unwrap().beat, Some(false));
    assert_eq!(catalogue.for_environment("staging").unwrap().beat, Some(true));
    assert!(catalogue.for_environment("indai").is_err());
}

/// Of Celery's forms of a field: a number, a list of them, a text; and floats that can only mean one thing.
#[test]
fn a_field_of_a_crontab_is_a_number_a_list_or_text() {
    let parsed = |hour: &str| {
        let text = format!(
            r#"
            [[queue]]
            name = "q"
            [[periodic]]
            name = "p"
            task = "t"
            crontab = {{ minute = 0, hour = {hour} }}
            zone = "Asia/Kolkata"
            "#
        );
        let catalogue = Catalogue::parse(&text, "celeriac.toml").map_err(|error| error.to_string())?;
        Ok::<_, String>(catalogue.periodic[0].to_string())
    };
    for (hour, field) in [("7", "7"), ("7.0", "7"), ("[7.0]", "7"), ("[7.0, 8]", "7,8"), ("\"7-9\"", "7-9")] {
        assert_eq!(parsed(hour), Ok(format!("p: t at 0 {field} * * * (Asia/Kolkata)")), "{hour}");
    }
    for wrong in ["7.5", "[7.5]", "-1.0", "[\"7\"]", "true", "nan"] {
        let error = parsed(wrong).unwrap_err();
        assert!(error.contains("\"hour\"") && error.contains("a list of numbers"), "{wrong}: {error}");
    }
}

#[test]
fn an_entry_that_code_adds_stands_behind_those_of_the_file() {
    let text = "[[periodic]]\nname = \"of the file\"\ntask = \"app.task\"\nevery = \"1h\"\n";
    let of_code = Periodic::new("of code", "app.other", Schedule::Every(Duration::from_secs(30)));
    let catalogue = Catalogue::parse(text, "celeriac.toml").unwrap().with_periodic(of_code);
    let entries: Vec<_> = catalogue.periodic.iter().map(|entry| (&*entry.name, &*entry.task)).collect();
    assert_eq!(entries, [("of the file", "app.task"), ("of code", "app.other")]);
    assert_eq!(catalogue.periodic[1].schedule, Schedule::Every(Duration::from_secs(30)));
}

#[test]
fn every_mistake_at_once() {
    let text = r#"[[periodic]]
name = "twice"
task = "t"
every = "30s"
[[periodic]]
name = "twice"
task = "t"
every = "30s"
[[periodic]]
name = "february"
task = "t"
crontab = "0 0 30 2 *"
[[periodic]]
name = "saturday"
task = "t"
crontab = { day_of_week = 6 }
[[periodic]]
name = "nowhere"
task = "t"
crontab = "0 0 * * *"
zone = "Asia/Calcuta"
queue = "q"
[[periodic]]
name = "never"
task = "t"
[[periodic]]
name = "both"
task = "t"
crontab = "0 0 * * *"
every = "1h"
[[periodic]]
name = "words"
every = "1h"
zone = "UTC"
misfire = "all"
overlap = "never"
arg = []
args = { a = 1 }
[[periodic]]
task = "t"
every = "0s"
crontab_ = "x"
[[periodic]]
name = "lost queue"
task = "t"
every = "1h"
queue = "qq"
"#;
    let errors = Catalogue::parse(text, "celeriac.toml").unwrap_err().to_string();
    let expected = r#"celeriac.toml:6:8: periodic entry "twice" is already declared on line 2; rename one of the two
celeriac.toml:12:11: "crontab" in periodic entry "february" is "0 0 30 2 *"; day_of_month = "30" with month_of_year = "2" is no date of any year; change one of them
celeriac.toml:16:11: "crontab" in periodic entry "saturday" is { day_of_week = 6 }; day_of_week is named and minute is not, so it would run every minute of that day; write minute = 0, or minute = "*" if that is meant
celeriac.toml:21:8: "zone" in periodic entry "nowhere" is "Asia/Calcuta"; there is no time zone `Asia/Calcuta`; did you mean `Asia/Calcutta`?
celeriac.toml:23:1: in periodic entry "never": it says not when; add crontab = "0 0 * * *" or every = "30s"
celeriac.toml:26:1: in periodic entry "both": it has both crontab and every; keep one of the two
celeriac.toml:31:1: in periodic entry "words": it calls no task; add task = "..."
celeriac.toml:31:1: in periodic entry "words": every = "..." knows no zone; take zone out or write a crontab
celeriac.toml:31:1: in periodic entry "words": misfire = "all" needs a bound; add misfire_within = "1h"
celeriac.toml:36:11: "overlap" in periodic entry "words" is "never"; write "buffer_one" or "skip" or "allow"
celeriac.toml:37:1: unknown key "arg" in periodic entry "words"; did you mean "args"?
celeriac.toml:38:8: "args" in periodic entry "words" must be a list such as [1, "a"], not a table
celeriac.toml:39:1: periodic entry number 9 has no name; add name = "..."
celeriac.toml:41:9: "every" in periodic entry number 9 is "0s"; write a duration above zero
celeriac.toml:42:1: unknown key "crontab_" in periodic entry number 9; did you mean "crontab"?
celeriac.toml:44:8: periodic entry "lost queue" goes to "qq", but there is no such queue; add a [[queue]] with name = "qq" or name one that is there"#;
    assert_eq!(errors, expected);
}
