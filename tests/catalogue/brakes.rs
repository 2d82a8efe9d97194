//! `[[brake]]` rows: what they say, and each mistake by its exact text.

use celeriac::catalogue::BrakeRow;
use celeriac::core::brake::{BrakeAction, BrakeRule};

use crate::{errors_of, parse};

const QUEUES: &str =
    "queue = [{ name = \"email_queue\" }, { name = \"bulk\" }]\naliases = { mail = \"email_queue\" }\n";

#[test]
fn rows_are_read_as_they_are_written() {
    let text = r#"
[[brake]]
task = "reports.*"
queue = "mail"
tenant = "acme"
argument = "domain"
matches = ["mvp-", "ews$"]
action = "slow"
rate = "6/m"
reason = "they take an hour each"
[[brake]]
argument = 1
matches = ["x"]
action = "divert"
divert_to = "bulk"
[[environment.live.brake]]
all = true
action = "pause"
[[environment.live.brake]]
tenant = "gone"
action = "expire"
"#;
    let catalogue = parse(&format!("{QUEUES}{text}"));
    let slow =
        BrakeRule::new().task("reports.*").queue("mail").tenant("acme").argument("domain", ["mvp-", "ews$"]);
    let slow = BrakeRow::new(slow, BrakeAction::slow("6/m")).with_reason("they take an hour each");
    let divert = BrakeRow::new(BrakeRule::new().argument("1", ["x"]), BrakeAction::divert("bulk"));
    assert_eq!(catalogue.brakes, [slow, divert]);
    assert_eq!(catalogue.brakes[1].to_string(), "divert to bulk for argument 1 like /x/");
    let live = catalogue.for_environment("live").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(live.brakes.len(), 4);
    assert_eq!(live.brakes[2].to_string(), "pause for all tasks");
    assert_eq!(live.validate(), Ok(()));
    assert!(live.summary().contains(", 4 brakes"), "{}", live.summary());
}

#[test]
fn each_mistake_is_told_with_its_place() {
    let text = r#"[[brake]]
action = "pause"
[[brake]]
task = "a"
[[brake]]
task = "a"
action = "halt"
[[brake]]
task = "a"
action = "slow"
[[brake]]
task = "a"
action = "slow"
rate = "0/m"
[[brake]]
task = "a"
action = "divert"
[[brake]]
task = "a"
queue = "emial_queue"
action = "divert"
divert_to = "bulkk"
[[brake]]
task = 5
action = "expire"
[[brake]]
task = "a"
argument = "x"
action = "pause"
[[brake]]
task = "a"
matches = ["x"]
action = "pause"
[[brake]]
task = "a"
argument = -1
matches = ["x"]
action = "pause"
[[brake]]
task = "a"
argument = "x"
matches = ["a)(b"]
action = "pause"
[[brake]]
task = "a"
all = true
action = "pause"
rate = "1/s"
[[brake]]
tsk = "a"
tenant = "t"
action = "pause"
"#;
    let expected = r#"celeriac.toml:3:1: in brake on "no task": the rule of the brake has no condition, so it would be about every task: name a task, a queue, a tenant or an argument; if every task is meant, say so: BrakeRule::all(), `--all`, or `all = true`
celeriac.toml:5:1: brake number 2 has no action; add action = "pause"
celeriac.toml:9:10: "action" in brake number 3 is "halt"; write "pause" or "slow" or "divert" or "expire"
celeriac.toml:10:1: brake number 4 has no rate; add rate = "10/m"
celeriac.toml:13:1: "rate" in brake on "task a" is "0/m"; write a rate above zero; `pause` stops the tasks
celeriac.toml:17:1: brake number 6 has no divert_to; add divert_to = "..."
celeriac.toml:20:1: brake on "task a, queue emial_queue" is about "emial_queue", but there is no such queue; did you mean "email_queue"?
celeriac.toml:20:1: brake on "task a, queue emial_queue" diverts to "bulkk", but there is no such queue; did you mean "bulk"?
celeriac.toml:26:8: "task" in brake number 8 must be a string in quotes, not the integer 5
celeriac.toml:28:1: brake number 9 has no matches; add matches = ["..."]
celeriac.toml:32:1: brake number 10 has no argument; add argument = "..."
celeriac.toml:38:12: "argument" in brake number 11 must be a name, or a position from 0, not the integer -1
celeriac.toml:41:1: "matches" in brake on "task a, argument x like /a)(b/" is "a)(b"; write a regular expression: unopened group
celeriac.toml:46:1: in brake on "task a": the rule of the brake says that all tasks are meant, and has conditions as well: leave one of the two out
celeriac.toml:50:8: "rate" in brake number 13 is "1/s"; it belongs to action = "slow": take it out
celeriac.toml:52:1: unknown key "tsk" in brake number 14; did you mean "task"?"#;
    let found = errors_of(&format!("{QUEUES}{text}"));
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "{found}");
    assert_eq!(
        errors_of("[brake]\naction = \"pause\"\n"),
        "celeriac.toml:1:2: \"brake\" at the top level must be an array of tables: begin each brake with [[brake]] and \
         action = \"...\", not a table"
    );
}
