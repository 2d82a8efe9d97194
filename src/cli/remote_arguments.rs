//! The commands of remote control with their arguments by position, as Celery's `inspect` and `control` take them.

use serde_json::{Map, Value, json};

/// The type of an argument.
#[derive(Clone, Copy)]
enum ArgumentKind {
    Text,
    Whole,
    Seconds,
    Switch,
}

/// A command: its name, its arguments by position, and the name of the list that takes the rest.
struct RemoteCommand {
    name: &'static str,
    arguments: &'static [(&'static str, ArgumentKind)],
    rest: Option<&'static str>,
    /// The number of arguments that must be there.
    least: usize,
}

const fn plain(name: &'static str) -> RemoteCommand {
    takes(name, &[], 0)
}

const fn takes(
    name: &'static str,
    arguments: &'static [(&'static str, ArgumentKind)],
    least: usize,
) -> RemoteCommand {
    RemoteCommand { name, arguments, rest: None, least }
}

const fn many(
    name: &'static str,
    arguments: &'static [(&'static str, ArgumentKind)],
    rest: &'static str,
    least: usize,
) -> RemoteCommand {
    RemoteCommand { name, arguments, rest: Some(rest), least }
}

const INSPECT: [RemoteCommand; 21] = [
    plain("active"),
    plain("active_queues"),
    plain("bulk_acts"),
    plain("clock"),
    takes("conf", &[("with_defaults", ArgumentKind::Switch)], 0),
    plain("figures"),
    takes("lane", &[("scope", ArgumentKind::Text), ("key", ArgumentKind::Text)], 2),
    takes("lanes", &[("limit", ArgumentKind::Whole)], 0),
    takes("memdump", &[("samples", ArgumentKind::Whole)], 0),
    plain("memsample"),
    takes(
        "objgraph",
        &[("type", ArgumentKind::Text), ("num", ArgumentKind::Whole), ("max_depth", ArgumentKind::Whole)],
        0,
    ),
    plain("ping"),
    many("query_task", &[], "ids", 1),
    plain("queues"),
    many("registered", &[], "taskinfoitems", 0),
    plain("report"),
    plain("reserved"),
    plain("revoked"),
    plain("scheduled"),
    plain("stats"),
    takes("why", &[("id", ArgumentKind::Text)], 1),
];

const CONTROL: [RemoteCommand; 23] = [
    takes(
        "add_consumer",
        &[
            ("queue", ArgumentKind::Text),
            ("exchange", ArgumentKind::Text),
            ("exchange_type", ArgumentKind::Text),
            ("routing_key", ArgumentKind::Text),
        ],
        1,
    ),
    takes(
        "autoscale",
        &[("max", ArgumentKind::Whole), ("min", ArgumentKind::Whole), ("queue", ArgumentKind::Text)],
        0,
    ),
    takes("cancel_bulk", &[("id", ArgumentKind::Text)], 1),
    takes("cancel_consumer", &[("queue", ArgumentKind::Text)], 1),
    plain("disable_events"),
    takes(
        "election",
        &[("id", ArgumentKind::Text), ("topic", ArgumentKind::Text), ("action", ArgumentKind::Text)],
        2,
    ),
    plain("enable_events"),
    plain("heartbeat"),
    takes("pause", &[("queue", ArgumentKind::Text), ("persistent", ArgumentKind::Switch)], 1),
    takes("pool_grow", &[("n", ArgumentKind::Whole)], 0),
    plain("pool_restart"),
    takes("pool_shrink", &[("n", ArgumentKind::Whole)], 0),
    takes("rate_limit", &[("task_name", ArgumentKind::Text), ("rate_limit", ArgumentKind::Text)], 2),
    takes(
        "resize",
        &[
            ("queue", ArgumentKind::Text),
            ("workers", ArgumentKind::Whole),
            ("persistent", ArgumentKind::Switch),
        ],
        2,
    ),
    takes("resume", &[("queue", ArgumentKind::Text)], 1),
    many("revoke", &[], "task_id", 1),
    many("revoke_by_stamped_headers", &[], "headers", 1),
    takes(
        "set_concurrency",
        &[("scope", ArgumentKind::Text), ("key", ArgumentKind::Text), ("concurrency", ArgumentKind::Whole)],
        2,
    ),
    plain("shutdown"),
    many("terminate", &[("signal", ArgumentKind::Text)], "task_id", 2),
    takes(
        "time_limit",
        &[
            ("task_name", ArgumentKind::Text),
            ("soft", ArgumentKind::Seconds),
            ("hard", ArgumentKind::Seconds),
        ],
        2,
    ),
    takes("unblock", &[("scope", ArgumentKind::Text), ("key", ArgumentKind::Text)], 2),
    takes("undo_bulk", &[("id", ArgumentKind::Text)], 1),
];

/// The arguments of a question, by name.
pub(super) fn inspect(method: &str, given: &[String]) -> Result<Map<String, Value>, String> {
    match CONTROL.iter().any(|command| command.name == method) {
        true => Err(no_command("inspect", &INSPECT, method)),
        false => by_name("inspect", &INSPECT, method, given),
    }
}

/// The arguments of a command, by name.
pub(super) fn control(method: &str, given: &[String]) -> Result<Map<String, Value>, String> {
    match INSPECT.iter().any(|command| command.name == method) {
        true => Err(no_command("control", &CONTROL, method)),
        false => by_name("control", &CONTROL, method, given),
    }
}

/// What to say if nobody answers this question; `None`: every node knows it.
pub(super) fn unknown_question(method: &str) -> Option<String> {
    let is_known = INSPECT.iter().any(|command| command.name == method);
    (!is_known).then(|| no_command("inspect", &INSPECT, method))
}

/// What to say if nobody obeys this command; `None`: every node knows it.
pub(super) fn unknown_command(method: &str) -> Option<String> {
    let is_known = CONTROL.iter().any(|command| command.name == method);
    (!is_known).then(|| no_command("control", &CONTROL, method))
}

fn no_command(group: &str, commands: &[RemoteCommand], method: &str) -> String {
    let names: Vec<_> = commands.iter().map(|command| command.name).collect();
    format!("`{method}` is no {group} command; there are: {}", names.join(", "))
}

/// The arguments of a command that a program has added: `name=value`, with a value in JSON or as a text.
fn of_program(given: &[String]) -> Result<Map<String, Value>, String> {
    let mut arguments = Map::new();
    for text in given {
        let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
            format!("`{text}`: an argument of a program's own command is written as name=value")
        })?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        arguments.insert(name.to_owned(), value);
    }
    Ok(arguments)
}

fn by_name(
    group: &str,
    commands: &[RemoteCommand],
    method: &str,
    given: &[String],
) -> Result<Map<String, Value>, String> {
    let Some(command) = commands.iter().find(|command| command.name == method) else {
        // A program may have added it.
        return of_program(given);
    };
    let most = command.rest.map_or(command.arguments.len(), |_| usize::MAX);
    if given.len() < command.least || given.len() > most {
        return Err(format!("`{group} {method}` takes: {}", usage(command)));
    }
    let mut arguments = Map::new();
    for ((name, kind), text) in command.arguments.iter().zip(given) {
        arguments.insert((*name).to_owned(), read(name, *kind, text)?);
    }
    if let Some(rest) = command.rest {
        let texts: Vec<&String> = given.iter().skip(command.arguments.len()).collect();
        arguments.insert(rest.to_owned(), json!(texts));
    }
    Ok(arguments)
}

fn read(name: &str, kind: ArgumentKind, text: &str) -> Result<Value, String> {
    let wrong = |what: &str| format!("{name} is to be {what}, not `{text}`");
    Ok(match kind {
        ArgumentKind::Text => text.into(),
        ArgumentKind::Whole => text.parse::<i64>().map_err(|_| wrong("a whole number"))?.into(),
        ArgumentKind::Seconds => {
            let seconds: f64 = text.parse().map_err(|_| wrong("a number of seconds"))?;
            serde_json::Number::from_f64(seconds).ok_or_else(|| wrong("a number of seconds"))?.into()
        }
        ArgumentKind::Switch => match text.to_lowercase().as_str() {
            "yes" | "1" | "on" | "true" => true.into(),
            "no" | "0" | "off" | "false" => false.into(),
            _ => return Err(wrong("true or false")),
        },
    })
}

fn usage(command: &RemoteCommand) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (n, (name, _)) in command.arguments.iter().enumerate() {
        parts.push(if n < command.least { format!("<{name}>") } else { format!("[{name}]") });
    }
    parts.extend(command.rest.map(|rest| format!("[{rest} ...]")));
    if parts.is_empty() { "no arguments".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A function that makes the arguments of a command from the words after its name.
    type Arguments = fn(&str, &[String]) -> Result<Map<String, Value>, String>;

    fn told(of: Arguments, line: &str) -> Result<Value, String> {
        let mut words = line.split(' ').map(str::to_owned);
        let method = words.next().unwrap_or_default();
        of(&method, &words.collect::<Vec<_>>()).map(Value::Object)
    }

    #[test]
    fn those_of_a_programs_own_command_have_names() {
        let expected = json!({"n": 5, "name": "Ann", "of": ["a", 1], "text": "a=b", "empty": ""});
        let line = r#"own n=5 name=Ann of=["a",1] text=a=b empty="#;
        assert_eq!(told(control, line), Ok(expected.clone()));
        assert_eq!(told(inspect, line), Ok(expected));
        assert_eq!(told(inspect, "own"), Ok(json!({})));
        for wrong in ["own 5", "own =5"] {
            assert!(told(control, wrong).unwrap_err().contains("name=value"), "{wrong}");
        }
    }

    #[test]
    fn arguments_are_taken_by_position_as_celery_does() {
        for (line, expected) in [
            ("active", json!({})),
            ("conf true", json!({"with_defaults": true})),
            ("memdump 5", json!({"samples": 5})),
            ("query_task a b", json!({"ids": ["a", "b"]})),
            ("why a", json!({"id": "a"})),
            ("registered name max_retries", json!({"taskinfoitems": ["name", "max_retries"]})),
            ("registered", json!({"taskinfoitems": []})),
            ("lane shop.sync demo", json!({"scope": "shop.sync", "key": "demo"})),
        ] {
            assert_eq!(told(inspect, line), Ok(expected), "{line}");
        }
        for (line, expected) in [
            ("rate_limit app.add 10/m", json!({"task_name": "app.add", "rate_limit": "10/m"})),
            ("time_limit app.add 5 10.5", json!({"task_name": "app.add", "soft": 5.0, "hard": 10.5})),
            ("time_limit app.add 5", json!({"task_name": "app.add", "soft": 5.0})),
            ("pool_grow", json!({})),
            ("pool_grow 3", json!({"n": 3})),
            ("autoscale 4 1", json!({"max": 4, "min": 1})),
            ("autoscale 4 1 q", json!({"max": 4, "min": 1, "queue": "q"})),
            ("set_concurrency s k", json!({"scope": "s", "key": "k"})),
            ("set_concurrency s k 3", json!({"scope": "s", "key": "k", "concurrency": 3})),
            (
                "add_consumer q x direct k",
                json!({"queue": "q", "exchange": "x", "exchange_type": "direct", "routing_key": "k"}),
            ),
            ("terminate SIGTERM a b", json!({"signal": "SIGTERM", "task_id": ["a", "b"]})),
            ("revoke a", json!({"task_id": ["a"]})),
            ("revoke_by_stamped_headers k=v", json!({"headers": ["k=v"]})),
            ("resize q 4", json!({"queue": "q", "workers": 4})),
        ] {
            assert_eq!(told(control, line), Ok(expected), "{line}");
        }
        assert!(unknown_question("nosuch").is_some_and(|text| text.contains("active, active_queues")));
        assert!(unknown_command("nosuch").is_some_and(|text| text.contains("add_consumer, autoscale")));
        assert_eq!((unknown_question("active"), unknown_command("pause")), (None, None));
        assert!(told(inspect, "rate_limit a b").unwrap_err().contains("no inspect command"));
        assert!(told(inspect, "active x").unwrap_err().contains("no arguments"));
        assert!(told(control, "active").unwrap_err().contains("no control command"));
        assert!(told(control, "rate_limit a").unwrap_err().contains("<task_name> <rate_limit>"));
        assert!(told(control, "pool_grow many").unwrap_err().contains("`many`"));
        assert!(told(control, "time_limit a nan").is_err());
    }
}
