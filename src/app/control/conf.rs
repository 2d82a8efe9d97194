//! The configuration in Celery's words: `conf` and `report`. No password and no key is ever in it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{CommandResult, ControlCommand};
use crate::broker::BrokerConnection;
use crate::core::address;
use crate::core::calendar::Zone;
use crate::task::TaskDefaults;

/// What stands in the place of a secret, as in Celery.
const HIDDEN: &str = "********";
/// A setting whose name holds one of these words is a secret, as in Celery.
const SECRET: [&str; 9] =
    ["API", "TOKEN", "KEY", "SECRET", "PASS", "PROFANITIES_LIST", "SIGNATURE", "DATABASE", "BEAT_DBURI"];

/// What the builder was told, as far as it is of interest to operators.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Settings {
    /// The address of the result backend, with whatever secrets it has.
    pub(in super::super) result_backend: Option<String>,
    pub(in super::super) task_track_started: bool,
    /// What holds for tasks that do not say it themselves.
    pub(in super::super) of_tasks: TaskDefaults,
    pub(in super::super) zone: Zone,
    pub(in super::super) beat: bool,
    pub(in super::super) environment: Option<String>,
    pub(in super::super) shutdown_grace: Duration,
    pub(in super::super) max_message_size: usize,
    pub(in super::super) max_result_size: usize,
    pub(in super::super) outbox: bool,
    /// The settings of the broker, in Celery's words.
    pub(in super::super) of_broker: Map<String, Value>,
}

pub(super) fn conf(command: &ControlCommand<'_>) -> CommandResult {
    let mut all = settings(command);
    if command.arguments.switch("with_defaults") {
        all.extend(constants());
        all.extend(of_tasks(&command.state().settings));
        all.extend(command.state().settings.of_broker.clone());
    }
    Ok(masked(all).into())
}

/// The text that people put into bug reports.
pub(super) fn report(command: &ControlCommand<'_>) -> Value {
    let runtime = &command.inner.runtime;
    let mut text = format!(
        "\nsoftware -> celery:5.7-protocol (celeriac {}) kombu:none rust\nplatform -> system:{} arch:{}\n\
         loader   -> celeriac\nsettings -> transport:{} results:{}\n\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
        runtime.broker.name(),
        backend(&command.state().settings).as_deref().unwrap_or("beside the messages"),
    );
    for (name, value) in masked(settings(command)) {
        text.push_str(&format!("{name}: {value}\n"));
    }
    super::ok(text)
}

/// The settings that differ from program to program.
fn settings(command: &ControlCommand<'_>) -> Map<String, Value> {
    let catalogue = command.inner.catalogue();
    let settings = &command.state().settings;
    let rows = command.rows();
    let connection = command.inner.runtime.broker.events().and_then(|events| events.connection());
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    let all = json!({
        "broker_url": connection.as_ref().map(broker_url),
        "broker_heartbeat": connection.map(|connection| connection.heartbeat.as_secs()),
        "result_backend": backend(settings),
        "task_default_queue": catalogue.default_queue,
        "task_acks_late": settings.of_tasks.acks_late.unwrap_or(true),
        "task_track_started": settings.task_track_started,
        "worker_concurrency": rows.iter().map(|row| row.workers).sum::<usize>(),
        "include": [],
        "celeriac_version": env!("CARGO_PKG_VERSION"),
        "celeriac_queues": names,
        "celeriac_environment": settings.environment,
        "celeriac_beat": settings.beat,
        "celeriac_shutdown_grace": settings.shutdown_grace.as_secs_f64(),
        "celeriac_max_message_size": settings.max_message_size,
        "celeriac_max_result_size": settings.max_result_size,
        "celeriac_outbox": settings.outbox,
    });
    match all {
        Value::Object(all) => all,
        _ => Map::new(),
    }
}

/// The settings of Celery that nobody can change here.
fn constants() -> Map<String, Value> {
    let all = json!({
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "task_protocol": 2,
        "enable_utc": true,
        "worker_enable_remote_control": true,
        "worker_pool_restarts": false,
        "worker_disable_rate_limits": false,
        "control_exchange": "celery",
    });
    match all {
        Value::Object(all) => all,
        _ => Map::new(),
    }
}

/// What holds for tasks and periodic entries that do not say it themselves, in Celery's words.
fn of_tasks(settings: &Settings) -> Map<String, Value> {
    let TaskDefaults { soft_time_limit, time_limit, result_expires, rate_limit, .. } = &settings.of_tasks;
    let seconds = |span: &Option<Duration>| span.map(|span| span.as_secs_f64());
    let kept = result_expires.map_or(24 * 60 * 60, |span| span.as_secs());
    let all = json!({
        "timezone": settings.zone.name(),
        "task_soft_time_limit": seconds(soft_time_limit),
        "task_time_limit": seconds(time_limit),
        "task_default_rate_limit": rate_limit.as_ref().map(|limit| limit.text()),
        "result_expires": kept,
    });
    match all {
        Value::Object(all) => all,
        _ => Map::new(),
    }
}

/// The address of the broker as Celery shows it: without its password.
fn broker_url(connection: &BrokerConnection) -> String {
    let BrokerConnection { hostname, port, userid, virtual_host, ssl, .. } = connection;
    let scheme = if *ssl { "amqps" } else { "amqp" };
    let path = if virtual_host == "/" { "/" } else { virtual_host };
    format!("{scheme}://{userid}:{HIDDEN}@{hostname}:{port}/{path}")
}

fn backend(settings: &Settings) -> Option<String> {
    settings.result_backend.as_deref().map(address::shown)
}

/// The settings without those whose names begin with two underscores, and without secrets.
fn masked(all: Map<String, Value>) -> Map<String, Value> {
    let is_secret = |name: &str| {
        let name = name.to_uppercase();
        SECRET.iter().any(|word| name.contains(word))
    };
    let shown = all.into_iter().filter(|(name, _)| !name.starts_with("__"));
    shown
        .map(|(name, value)| {
            let hidden = is_secret(&name) && !value.is_null();
            (name, if hidden { HIDDEN.into() } else { value })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let mut connection = BrokerConnection {
            hostname: "127.0.0.1".into(),
            port: 5690,
            userid: "guest".into(),
            virtual_host: "cap".into(),
            ..BrokerConnection::default()
        };
        // As Celery 5.7 answered (`control_replies.json` of the captures).
        assert_eq!(broker_url(&connection), "amqp://guest:********@127.0.0.1:5690/cap");
        connection.virtual_host = "/".into();
        assert_eq!(broker_url(&connection), "amqp://guest:********@127.0.0.1:5690//");
        let result_backend = Some("redis://user:geheim@h:6379/0".to_owned());
        let settings = Settings { result_backend, ..Settings::default() };
        assert_eq!(backend(&settings).as_deref(), Some("redis://***@h:6379/0"));
        let Value::Object(all) = json!({
            "s3_secret_access": "geheim", "my_api": 5, "database_url": "geheim", "passed": null, "__own": 1,
            "keyprefix": "x", "timezone": "UTC",
        }) else {
            panic!("an object")
        };
        let expected = json!({
            "s3_secret_access": HIDDEN, "my_api": HIDDEN, "database_url": HIDDEN, "passed": null, "keyprefix": HIDDEN,
            "timezone": "UTC",
        });
        assert_eq!(Value::Object(masked(all)), expected);
    }
}
