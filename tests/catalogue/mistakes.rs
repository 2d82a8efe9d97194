//! Each mistake and each doubt, by its exact text.

use celeriac::catalogue::{Catalogue, Position, Problem, QueueRow};

use crate::{errors_of, parse};

#[test]
fn all_mistakes_are_told_at_once_with_their_places() {
    let text = r#"default_queue = "celry"
colour = "red"
[[queue]]
name = "celery"
wokers = 4
workers = "ten"
io_bound = "yes"
[[queue]]
name = "email_queue"
pool = "oi"
workers = 0
prefetch = -3
target = "30 sec"
target_class = "second"
[[queue]]
name = "email_queue"
target = 30
restart_window = "0s"
workers = 5_000_000
[[queue]]
workers = 2
[[queue]]
name = ""
[[queue]]
name = "tab\there"
zzz = 1
[aliases]
mail = "emial_queue"
celery = "email_queue"
a = "b"
b = "a"
c = 7
[routes]
"shop.send" = "mial"
"shop.buy" = "warehouse"
[environment.production]
queues = 1
[environment.production.queue.emailqueue]
workers = 3
[environment.production.queue.mail]
[environment.production.queue.celery]
name = "x"
worker = 3
max_restarts = 1.5
[environment.production.aliases]
y = "nowhere"
[environment.staging.aliases]
d = "e"
e = "d"
"#;
    let expected = r#"celeriac.toml:1:17: default_queue is "celry", but there is no such queue; did you mean "celery"?
celeriac.toml:2:1: unknown key "colour" at the top level; the keys at the top level are default_queue, beat, defaults, queue, periodic, aliases, routes, route, rate_limits, limit, tenant, tenants, brake, environment, pool
celeriac.toml:5:1: unknown key "wokers" in queue "celery"; did you mean "workers"?
celeriac.toml:6:11: "workers" in queue "celery" must be a whole number such as 4, not the string "ten"
celeriac.toml:7:12: "io_bound" in queue "celery" must be true or false, not the string "yes"
celeriac.toml:10:8: "pool" in queue "email_queue" is "oi"; did you mean "io"?
celeriac.toml:11:11: "workers" in queue "email_queue" is 0; write at least 1
celeriac.toml:12:12: "prefetch" in queue "email_queue" is -3; write at least 1
celeriac.toml:13:10: "target" in queue "email_queue" is "30 sec"; write a duration such as "500ms", "30s", "15m", "6h" or "1h30m"
celeriac.toml:14:16: "target_class" in queue "email_queue" is "second"; did you mean "seconds"?
celeriac.toml:16:8: queue "email_queue" is already declared on line 9; keep one of the two
celeriac.toml:17:10: "target" in queue "email_queue" must be a duration in quotes such as "30s", not the integer 30
celeriac.toml:18:18: "restart_window" in queue "email_queue" is "0s"; write a duration above zero
celeriac.toml:19:11: "workers" in queue "email_queue" is 5_000_000; write at most 1000000
celeriac.toml:20:1: queue number 4 has no name; add name = "..."
celeriac.toml:23:8: the name "" of a queue is empty; write at least one character
celeriac.toml:25:8: the name "tab\there" of a queue contains the control character '\t'; remove it
celeriac.toml:26:1: unknown key "zzz" in queue "tab\there"; the keys in queue "tab\there" are name, io_bound, target_class, target, target_comment, description, typical_duration, notes, pool, workers, max_workers, prefetch, max_restarts, restart_window, max_tasks_per_child, max_memory_per_child, memory_limit_per_child, keep_failed, served, queue_type, max_priority, queue_arguments, broadcast, min_workers, shared, partitions, demote_above, demote_to
celeriac.toml:28:1: alias "mail" leads to "emial_queue", but there is no such queue; did you mean "email_queue"?
celeriac.toml:29:1: alias "celery" has the name of a queue; rename the alias or remove it
celeriac.toml:30:1: aliases run in a circle: "a" -> "b" -> "a"; let one of them lead to a queue
celeriac.toml:32:5: "c" in [aliases] must be a string in quotes, not the integer 7
celeriac.toml:34:1: route "shop.send" leads to "mial", but there is no such queue; did you mean "mail"?
celeriac.toml:35:1: route "shop.buy" leads to "warehouse", but there is no such queue; add a [[queue]] with name = "warehouse" or name one that is there
celeriac.toml:37:1: unknown key "queues" in environment "production"; did you mean "queue"?
celeriac.toml:38:31: environment "production" changes queue "emailqueue", but there is no such queue; did you mean "email_queue"?
celeriac.toml:40:31: environment "production" changes queue "mail", but there is no such queue; add a [[queue]] with name = "mail" or name one that is there
celeriac.toml:42:1: unknown key "name" in environment "production", queue "celery"; the keys in environment "production", queue "celery" are io_bound, target_class, target, target_comment, description, typical_duration, notes, pool, workers, max_workers, prefetch, max_restarts, restart_window, max_tasks_per_child, max_memory_per_child, memory_limit_per_child, keep_failed, served, queue_type, max_priority, queue_arguments, broadcast, min_workers, shared, partitions, demote_above, demote_to
celeriac.toml:43:1: unknown key "worker" in environment "production", queue "celery"; did you mean "workers"?
celeriac.toml:44:16: "max_restarts" in environment "production", queue "celery" must be a whole number such as 4, not the float 1.5
celeriac.toml:46:1: alias "y" leads to "nowhere", but there is no such queue; add a [[queue]] with name = "nowhere" or name one that is there
celeriac.toml:48:1: aliases run in a circle: "d" -> "e" -> "d"; let one of them lead to a queue"#;
    let found = errors_of(text);
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "{found}");
}

#[test]
fn what_rabbitmq_would_not_take_is_told() {
    let text = r#"[[queue]]
name = "a"
queue_type = "quorm"
max_priority = 256
queue_arguments = [1]
[[queue]]
name = "b"
queue_type = "quorum"
max_priority = 10
queue_arguments = { x-max-length = 1979-05-27, x-queue-type = "quorum", x-max-priority = 3 }
[environment.e.queue.b]
max_priority = 0
"#;
    let expected = r#"celeriac.toml:3:14: "queue_type" in queue "a" is "quorm"; did you mean "quorum"?
celeriac.toml:4:16: "max_priority" in queue "a" is 256; write at most 255
celeriac.toml:5:19: "queue_arguments" in queue "a" must be a table such as { x-max-length = 1000 }, not an array
celeriac.toml:7:8: "max_priority" in queue "b" is 10; quorum queues take none: remove it, or write queue_type = "classic"
celeriac.toml:7:8: "queue_arguments" in queue "b" is x-queue-type = "quorum"; it has a column of its own: write queue_type = "quorum"
celeriac.toml:7:8: "queue_arguments" in queue "b" is x-max-priority = 3; it has a column of its own: write max_priority = 3
celeriac.toml:10:36: "x-max-length" in queue_arguments in queue "b" must be text, a number, true, false, or an array or table of these, not the datetime 1979-05-27
celeriac.toml:12:16: "max_priority" in environment "e", queue "b" is 0; write at least 1"#;
    assert_eq!(errors_of(text), expected);
}

#[test]
fn mistakes_in_defaults_and_rate_limits_are_told() {
    let text = r#"[[queue]]
name = "celery"
[defaults]
soft_time_limit = "2h"
time_limit = "1h"
time_limt = "1h"
max_retries = -1
default_retry_delay = 10
autoretry = "yes"
expires_except = "a.*"
rate_limit = "0"
zone = "Asia/Calcuta"
[rate_limits]
"a.b" = "10/week"
"a.c" = 10
"a.d" = "0"
"" = "1/s"
[environment.live.defaults]
time_limit = "30m"
expires = "0s"
expires_except = ["[z-a]"]
[environment.live.rate_limits]
"a.b" = "x"
[environment.live.routes]
"a.b" = "celry"
[[environment.live.route]]
task = "a.*"
"#;
    let expected = r#"celeriac.toml:4:1: "soft_time_limit" in [defaults] is "2h"; write less than time_limit, which is "1h": a body that is told to end needs time to do so
celeriac.toml:6:1: unknown key "time_limt" in [defaults]; did you mean "time_limit"?
celeriac.toml:7:15: "max_retries" in [defaults] is -1; write at least 0
celeriac.toml:8:23: "default_retry_delay" in [defaults] must be a duration in quotes such as "30s", not the integer 10
celeriac.toml:9:13: "autoretry" in [defaults] must be true or false, not the string "yes"
celeriac.toml:10:18: "expires_except" in [defaults] must be an array of names of tasks such as ["billing.*"], not the string "a.*"
celeriac.toml:11:14: "rate_limit" in [defaults] is "0"; remove it: without it there is no limit
celeriac.toml:12:8: "zone" in [defaults] is "Asia/Calcuta"; there is no time zone `Asia/Calcuta`; did you mean `Asia/Calcutta`?
celeriac.toml:14:9: "a.b" in [rate_limits] is "10/week"; write a rate such as "10/s", "10/m" or "10/h", or "0" for no limit
celeriac.toml:15:9: "a.c" in [rate_limits] must be a rate in quotes such as "10/m", not the integer 10
celeriac.toml:17:1: the name "" of a task is empty; write at least one character
celeriac.toml:19:1: "soft_time_limit" in environment "live" under defaults is "2h"; write less than time_limit, which is "30m": a body that is told to end needs time to do so
celeriac.toml:20:11: "expires" in environment "live" under defaults is "0s"; write a duration above zero
celeriac.toml:23:9: "a.b" in environment "live" under rate_limits is "x"; write a rate such as "10/s", "10/m" or "10/h", or "0" for no limit
celeriac.toml:25:1: route "a.b" leads to "celry", but there is no such queue; did you mean "celery"?
celeriac.toml:26:1: environment "live", route number 1 has no queue; add queue = "...""#;
    let found = errors_of(text);
    let found: Vec<_> =
        found.lines().filter(|line| !line.contains("expires_except\" in environment")).collect();
    for (found, expected) in found.iter().zip(expected.lines()) {
        assert_eq!(*found, expected);
    }
    assert_eq!(found.len(), expected.lines().count(), "{found:#?}");
    // A set that is none is no pattern, and the parser of regular expressions says why.
    let pattern = errors_of("[defaults]\nexpires_except = [\"[z-a]\"]\n");
    assert!(
        pattern.contains("\"expires_except\" in [defaults] is \"[z-a]\"; write names of tasks"),
        "{pattern}"
    );
}

#[test]
fn what_says_nothing_about_child_processes_is_told() {
    let text = r#"[[queue]]
name = "a"
pool = "proces"
max_tasks_per_child = 0
max_memory_per_child = "400"
memory_limit_per_child = true
[[queue]]
name = "b"
max_memory_per_child = -1
memory_limit_per_child = "0MB"
"#;
    let expected = r#"celeriac.toml:3:8: "pool" in queue "a" is "proces"; did you mean "process"?
celeriac.toml:4:23: "max_tasks_per_child" in queue "a" is 0; write at least 1
celeriac.toml:5:24: "max_memory_per_child" in queue "a" is "400"; write a size above zero such as "400MB" or "2GiB", or a number of kilobytes
celeriac.toml:6:26: "memory_limit_per_child" in queue "a" must be a size in quotes such as "400MB", or a number of kilobytes, not the boolean true
celeriac.toml:9:24: "max_memory_per_child" in queue "b" is -1; write a size above zero such as "400MB" or "2GiB", or a number of kilobytes
celeriac.toml:10:26: "memory_limit_per_child" in queue "b" is "0MB"; write a size above zero such as "400MB" or "2GiB", or a number of kilobytes"#;
    assert_eq!(errors_of(text), expected);
}

#[test]
fn a_row_says_when_its_child_processes_are_replaced() {
    let text = "[[queue]]\nname = \"celery\"\npool = \"process\"\nworkers = 65\ntarget = \"1h\"\nmax_tasks_per_child = 5\n\
                max_memory_per_child = 400_000\nmemory_limit_per_child = \"1GiB\"\n\
                [[queue]]\nname = \"b\"\ntarget = \"1h\"\nmax_memory_per_child = \"1GB\"\n";
    let catalogue = parse(text);
    let row = &catalogue.queues[0];
    assert_eq!((row.max_tasks_per_child, row.max_memory_per_child), (Some(5), Some(400_000 << 10)));
    assert_eq!(
        row.explain(),
        "celery: a task starts at most 1h after it is due; 65 run at a time in child processes (each replaced after \
         5 tasks, replaced above 400000KiB, ended at 1GiB), up to 65 held over RabbitMQ, up to 1024 of the embedded store"
    );
    assert!(
        catalogue.summary().contains("\n  pool process: 1 queue with 65 workers"),
        "{}",
        catalogue.summary()
    );
    let warnings: Vec<_> = catalogue.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "celeriac.toml:2:8: warning: queue \"celery\" has 65 workers in the process pool, and each is a process with \
             all of the program in it; lower workers",
            "celeriac.toml:10:8: warning: queue \"b\" states max_memory_per_child, which says something in the process \
             pool only; set pool = \"process\" or remove it",
        ]
    );
}

#[test]
fn shapes_that_do_not_fit_are_told() {
    assert_eq!(
        errors_of("[queue.email]\nworkers = 3\n"),
        "celeriac.toml:1:2: \"queue\" at the top level must be an array of tables: begin each queue with [[queue]] \
         and name = \"...\", not a table"
    );
    assert_eq!(
        errors_of("aliases = 3\nroutes = []\nenvironment = { production = 7 }\n"),
        "celeriac.toml:1:11: \"aliases\" at the top level must be a table, not the integer 3\n\
         celeriac.toml:2:10: \"routes\" at the top level must be a table, not an array\n\
         celeriac.toml:3:30: \"production\" in [environment] must be a table, not the integer 7"
    );
    // The parser's own first mistake, and nothing made up about the rest.
    let errors = errors_of("[[queue]]\nname = \nworkers = 0\n");
    assert!(errors.starts_with("celeriac.toml:2:8: not valid TOML: "), "{errors}");
    assert_eq!(errors.lines().count(), 1);
    assert!(
        errors_of("[aliases]\na = \"x\"\na = \"y\"\n")
            .starts_with("celeriac.toml:3:1: not valid TOML: duplicate")
    );
    let long = format!("[[queue]]\nname = \"{}\"\n", "é".repeat(200));
    assert!(
        errors_of(&long).ends_with("…\" of a queue has 400 bytes; write at most 255"),
        "{}",
        errors_of(&long)
    );
    // Columns count characters, not bytes.
    let inline = "queue = [{ name = \"é\" }, { name = \"b\", colour = 1 }]";
    assert!(errors_of(inline).starts_with("celeriac.toml:1:40: unknown key \"colour\" in queue \"b\""));
}

#[test]
fn catalogues_built_in_code_are_held_to_the_same_rules() {
    let good =
        Catalogue::new().with_queue(QueueRow::new("mail")).with_alias("post", "mail").with_route("t", "post");
    assert_eq!(good.clone().with_default_queue("post").validate(), Ok(()));
    let bad = good
        .with_queue(QueueRow::new("mail").with_workers(0))
        .with_default_queue("mial")
        .with_alias("loop", "loop")
        .with_route("", "mail");
    let errors = bad.validate().err().map(|errors| errors.to_string());
    assert_eq!(
        errors.as_deref(),
        Some(
            "catalogue: \"workers\" in queue \"mail\" is 0; set at least 1\n\
             catalogue: queue \"mail\" is already declared; keep one of the two\n\
             catalogue: aliases run in a circle: \"loop\" -> \"loop\"; let one of them lead to a queue\n\
             catalogue: the name \"\" of a task is empty; write at least one character\n\
             catalogue: default_queue is \"mial\", but there is no such queue; did you mean \"mail\"?"
        )
    );
}

#[test]
fn doubtful_rows_are_warned_about() {
    let text = "[[queue]]\nname = \"a\"\ntarget = \"2h\"\ntarget_class = \"seconds\"\nworkers = 65\n\
                [[queue]]\nname = \"b\"\nio_bound = false\npool = \"io\"\nprefetch = 9\n\
                [[queue]]\nname = \"c\"\ntarget = \"1h\"\nworkers = 9\nmax_workers = 3\n\
                [[queue]]\nname = \"d\"\ntarget = \"1h\"\nworkers = 1\nmax_workers = 70\n";
    let catalogue = parse(text);
    let warnings: Vec<_> = catalogue.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "celeriac.toml: warning: queue \"celery\" is where tasks without a queue go, but it has no row; add a [[queue]] for \
             it or set default_queue",
            "celeriac.toml:2:8: warning: queue \"a\" promises seconds, but its target is 2h; change one of them",
            "celeriac.toml:2:8: warning: queue \"a\" has 65 workers in the cpu pool, one thread each; lower workers, or set \
             pool = \"io\" if they wait",
            "celeriac.toml:7:8: warning: queue \"b\" has no target, so nobody can tell when it is late; add target = \"...\"",
            "celeriac.toml:7:8: warning: queue \"b\" is not I/O bound but in the io pool, where a long computation holds up \
             others; set pool = \"cpu\"",
            "celeriac.toml:7:8: warning: queue \"b\" holds at most 9 deliveries for 50 workers, so some never work; raise prefetch",
            "celeriac.toml:12:8: warning: queue \"c\" has 9 workers and max_workers = 3, so it never grows; raise max_workers or \
             lower workers",
            "celeriac.toml:17:8: warning: queue \"d\" has 70 workers in the cpu pool, one thread each; lower workers, or set \
             pool = \"io\" if they wait",
        ]
    );
}

#[test]
fn files_that_cannot_be_read_are_told() {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let missing = Catalogue::load(dir.path().join("none.toml")).err();
    let problem = missing.and_then(|errors| errors.errors.into_iter().next()).map(|error| error.problem);
    assert!(matches!(problem, Some(Problem::Unreadable { .. })), "{problem:?}");
    let path = dir.path().join("latin1.toml");
    std::fs::write(&path, b"# fine\n# \xc3\xa9 na\xefve\n").unwrap_or_else(|error| panic!("{error}"));
    let error = Catalogue::load(&path).err().and_then(|errors| errors.errors.into_iter().next());
    let error = error.map(|error| (error.position, error.problem));
    assert_eq!(error, Some((Some(Position { line: 2, column: 7 }), Problem::NotUtf8 { byte: 0xef })));
}
