//! The numbers of this process: Celery's `stats`. Flower's page of a worker needs `total`, `pool` and `broker`.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::request_info::seconds;
use super::{CommandResult, ControlCommand, MOST, process};
use crate::actors::held::{HeldTasks, StuckBody};
use crate::broker::BrokerConnection;

/// The seconds that kombu waits for a connection, which `broker` shows.
const CONNECT_TIMEOUT: u32 = 4;
/// The most stuck bodies of a queue that are named: each holds a thread, so more than a few are a sickness that shows anyway.
const MOST_STUCK: usize = 20;

pub(super) async fn stats(command: &ControlCommand<'_>) -> CommandResult {
    let runtime = &command.inner.runtime;
    let held = command.held(None, 0).await;
    let held: HashMap<&str, &HeldTasks> = held.iter().map(|held| (held.queue.as_str(), held)).collect();
    let rows = command.rows();
    let (mut workers, mut prefetch, mut queues) = (0, 0, Map::new());
    for row in &rows {
        let held = held.get(row.name.as_str());
        workers += held.map_or(row.workers, |held| held.workers);
        prefetch += held.map_or(row.max_deliveries(), |held| held.prefetch);
        // Of a queue that does not answer in time, what its row says.
        let shown = match held {
            Some(held) => json!({
                "running": held.all_running, "reserved": held.all_reserved, "workers": held.workers,
                "paused": held.is_paused, "consuming": held.is_consuming, "stuck": stuck(&held.stuck),
            }),
            None => json!({ "workers": row.workers, "answering": false }),
        };
        queues.insert(row.name.clone(), shown);
    }
    let total: Map<String, Value> =
        runtime.levers.accepted().into_iter().map(|(name, count)| (name, count.into())).collect();
    let pid = std::process::id();
    let mut stats = json!({
        "total": total,
        "pid": pid,
        // The one place where Celery writes the clock as a text.
        "clock": command.clock.to_string(),
        "uptime": command.state().started_at.elapsed().as_secs(),
        "pool": pool(pid, workers),
        "broker": runtime.broker.events().and_then(|events| events.connection()).map_or(json!({}), |c| broker(&c)),
        "prefetch_count": prefetch,
        "rusage": process::rusage(),
        "queues": queues,
    });
    if let (Some(stats), Some(autoscaler)) = (stats.as_object_mut(), autoscaler(held.into_values())) {
        stats.insert("autoscaler".to_owned(), autoscaler);
    }
    Ok(stats)
}

/// Bodies that go on although their runs were given up, so that they are not among the active tasks: some of them.
fn stuck(bodies: &[StuckBody]) -> Vec<Value> {
    let body = |StuckBody { message, started_at }: &StuckBody| json!({ "id": message.id, "name": message.task, "time_start": seconds(*started_at) });
    bodies.iter().take(MOST_STUCK).map(body).collect()
}

/// The queues whose number of workers follows their load, as one autoscaler of Celery's. `None`: there are none.
fn autoscaler<'a>(held: impl Iterator<Item = &'a HeldTasks>) -> Option<Value> {
    let (mut max, mut min, mut current, mut qty) = (0, 0, 0, 0);
    for (held, range) in held.filter_map(|held| Some((held, held.range?))) {
        max += range.max();
        min += range.min();
        current += held.workers;
        qty += held.all_running + held.all_reserved;
    }
    (max > 0).then(|| json!({ "max": max, "min": min, "current": current, "qty": qty }))
}

/// The slots of all queues. The exporters count the processes, so each slot shows this one.
fn pool(pid: u32, workers: usize) -> Value {
    json!({
        "implementation": "celeriac:io+cpu",
        "max-concurrency": workers,
        "processes": vec![pid; workers.min(MOST)],
        "max-tasks-per-child": "N/A",
        "put-guarded-by-semaphore": false,
        "timeouts": [0, 0],
        "writes": "N/A",
    })
}

/// The connection, as kombu's `Connection.info()`. It has no password.
fn broker(connection: &BrokerConnection) -> Value {
    json!({
        "hostname": connection.hostname,
        "userid": connection.userid,
        "virtual_host": connection.virtual_host,
        "port": connection.port,
        "insist": false,
        "ssl": connection.ssl,
        "transport": "amqp",
        "connect_timeout": CONNECT_TIMEOUT,
        "transport_options": {},
        "login_method": "PLAIN",
        "uri_prefix": null,
        "heartbeat": connection.heartbeat.as_secs_f64(),
        "failover_strategy": "round-robin",
        "alternates": connection.alternates,
        "credential_provider": null,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::autoscale::WorkerRange;

    #[test]
    fn the_connection_is_shown_as_kombu_does_and_without_a_password() {
        let connection = BrokerConnection {
            hostname: "127.0.0.1".into(),
            port: 5690,
            userid: "guest".into(),
            virtual_host: "cap".into(),
            heartbeat: Duration::from_secs(120),
            ..BrokerConnection::default()
        };
        // As Celery 5.7 answered (`control_replies.json` of the captures).
        let captured = json!({
            "hostname": "127.0.0.1", "userid": "guest", "virtual_host": "cap", "port": 5690, "insist": false,
            "ssl": false, "transport": "amqp", "connect_timeout": 4, "transport_options": {},
            "login_method": "PLAIN", "uri_prefix": null, "heartbeat": 120.0, "failover_strategy": "round-robin",
            "alternates": [], "credential_provider": null,
        });
        assert_eq!(broker(&connection), captured);
    }

    #[test]
    fn the_queues_that_follow_their_load_are_one_autoscaler() {
        let held = |workers, range| HeldTasks { workers, range, all_running: 2, ..HeldTasks::default() };
        let range = |min, max| Some(WorkerRange::new(min, max));
        assert_eq!(autoscaler([held(5, None)].iter()), None);
        let three = [held(5, None), held(3, range(1, 4)), held(2, range(2, 10))];
        let told = json!({ "max": 14, "min": 3, "current": 5, "qty": 4 });
        assert_eq!(autoscaler(three.iter()), Some(told));
    }

    #[test]
    fn there_is_a_process_for_each_slot_up_to_a_bound() {
        assert_eq!(pool(7, 2)["processes"], json!([7, 7]));
        assert_eq!((&pool(7, 2)["max-concurrency"], &pool(7, 2)["timeouts"]), (&json!(2), &json!([0, 0])));
        let many = pool(7, 5_000);
        assert_eq!(many["max-concurrency"], 5_000);
        assert_eq!(many["processes"].as_array().map(Vec::len), Some(MOST));
    }
}
