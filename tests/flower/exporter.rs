//! celery-exporter, which Grafana boards and alerts stand on: it asks and listens to our worker as to a Python one.

use celeriac::Celeriac;
use celeriac::catalogue::{Pool, QueueRow};

use crate::flower::{Answer, ask};
use crate::services::{PATIENCE, Python, RabbitMq, Script, Server, await_condition, blocking, free_port};
use crate::{add, fails, options, rabbitmq, workers};

/// The exporter, and where its metrics are.
struct Exporter {
    port: u16,
    _server: Server,
}

impl Exporter {
    fn start(broker: &str) -> Self {
        let port = free_port();
        let arguments = ["--broker-url", broker, "--host", "127.0.0.1", "--port", &port.to_string()];
        let code = "from src.cli import cli; cli()";
        let server = Python::with_exporter().code("celery-exporter", code, &arguments.map(str::to_owned));
        Self { port, _server: server }
    }

    fn metrics(&self) -> std::io::Result<Answer> {
        ask(self.port, "GET", "/metrics")
    }

    /// The value of the metric of this name with all of these labels; asked until it is there.
    fn until(&self, name: &str, labels: &[(&str, &str)], wanted: impl Fn(f64) -> bool) {
        await_condition(&format!("{name} {labels:?}"), || {
            let answer = self.metrics().map_err(|error| error.to_string())?;
            if answer.status != 200 {
                return Err(format!("{answer:?}"));
            }
            let found = answer.body.lines().find_map(|line| {
                let (key, value) = line.rsplit_once(' ')?;
                let named = key.split('{').next() == Some(name);
                let labelled =
                    labels.iter().all(|(label, text)| key.contains(&format!("{label}=\"{text}\"")));
                (named && labelled).then(|| value.parse::<f64>().ok()).flatten()
            });
            found
                .filter(|value| wanted(*value))
                .map(drop)
                .ok_or_else(|| format!("{found:?} in {}", answer.body))
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exporter_counts_our_tasks_and_queues_as_those_of_python() {
    let (broker, exporter, python) = blocking(|| {
        let node: RabbitMq = rabbitmq();
        let broker = node.vhost("exporter");
        let exporter = Exporter::start(&broker.replace("amqp://", "pyamqp://"));
        await_condition("the exporter answers", || exporter.metrics().map(drop).map_err(|e| e.to_string()));
        let script = Script::new("tests/flower/app.py")
            .env("FLEET_BROKER", broker.replace("amqp://", "pyamqp://"))
            .env("FLEET_BACKEND", "cache+memory://");
        let python = Python::with_flower().worker(&script.arg("--concurrency=1"), "python");
        (broker, exporter, python)
    })
    .await;
    let mut row = QueueRow::new("rust");
    (row.pool, row.workers) = (Pool::Io, 4);
    let celeriac = Celeriac::builder()
        .amqp(&broker)
        .amqp_options(options().with_node("celeriac@ours").with_task_events(true))
        .result_backend(broker.replace("amqp://", "rpc://"))
        .queue(row)
        .start()
        .await
        .expect("our worker starts");
    // What happens before the exporter listens it does not count.
    let exporter = blocking(move || {
        exporter.until("celery_worker_up", &[("hostname", "ours")], |up| up == 1.0);
        exporter
    })
    .await;
    for n in 0..3 {
        let sum = add::s(n, n).send(celeriac.client()).await.unwrap();
        assert_eq!(sum.get(PATIENCE).await, Ok(2 * n));
    }
    let failed = fails::s("no such order".into()).send(celeriac.client()).await.unwrap();
    failed.get(PATIENCE).await.unwrap_err();
    // Celery's worker has one pool for all of its queues, so the exporter takes all slots of ours for those of each queue.
    let slots = workers(&celeriac).await;
    blocking(move || {
        let ours = ("hostname", "ours");
        let of_ours = [ours, ("name", "shop.add")];
        exporter.until("celery_task_succeeded_total", &of_ours, |count| count == 3.0);
        exporter.until("celery_task_received_total", &of_ours, |count| count == 3.0);
        exporter.until("celery_task_runtime_count", &of_ours, |count| count == 3.0);
        // There is a series for each exception, and one without.
        let failed = [ours, ("name", "shop.fails"), ("exception", "String")];
        exporter.until("celery_task_failed_total", &failed, |count| count == 1.0);
        // Both workers are told of in the same words.
        for (host, queue, slots) in [("ours", "rust", slots), ("localhost", "python", 1)] {
            exporter.until("celery_worker_up", &[("hostname", host)], |up| up == 1.0);
            exporter.until("celery_worker_tasks_active", &[("hostname", host)], |active| active == 0.0);
            let queue = [("queue_name", queue)];
            exporter.until("celery_active_worker_count", &queue, |count| count == 1.0);
            exporter.until("celery_active_process_count", &queue, |count| count == slots as f64);
            exporter.until("celery_active_consumer_count", &queue, |count| count >= 1.0);
            exporter.until("celery_queue_length", &queue, |length| length == 0.0);
        }
        drop(python);
    })
    .await;
    celeriac.shutdown().await.unwrap();
}
