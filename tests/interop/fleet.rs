//! The fleet: one RabbitMQ, one Redis, Celery workers, and a Python client that runs cases.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::services::{CeleryWorker, Dialogue, Python, RabbitMq, Redis, Script};

/// Where Python keeps results.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    Redis,
    Rpc,
}

/// A vhost with its workers.
pub struct Fleet {
    pub broker: String,
    pub backend: String,
    client: Mutex<Dialogue>,
    workers: Vec<CeleryWorker>,
}

/// A database of Redis for what tests tell each other, apart from that of the results.
pub fn gates_url() -> String {
    Redis::shared().url_of(15)
}

impl Fleet {
    /// Celery workers for these sides in a vhost of this name, and a client.
    pub fn start(vhost: &str, backend: Backend, sides: &[&str]) -> Self {
        let broker = RabbitMq::shared().vhost(vhost);
        let backend = match backend {
            Backend::Redis => Redis::shared().url(),
            Backend::Rpc => "rpc://".to_owned(),
        };
        let python = Python::with_celery();
        let script = |file: &str| {
            Script::new(&format!("tests/interop/python/{file}"))
                .env("INTEROP_BROKER", broker.replace("amqp://", "pyamqp://"))
                .env("INTEROP_BACKEND", backend.clone())
                .env("INTEROP_GATES", gates_url())
        };
        let worker = |side: &str, name: &str, queues: String, concurrency: &str| {
            let script = script("app.py").env("INTEROP_SIDE", side);
            let options = ["-Q", &queues, "--concurrency", concurrency, "--prefetch-multiplier", "1"];
            let script = options.into_iter().fold(script, Script::arg);
            python.worker(&script.arg("--without-gossip").arg("--without-mingle"), &format!("{side}-{name}"))
        };
        // Started side by side: most of a start is waiting.
        let workers = std::thread::scope(|scope| {
            let starting: Vec<_> = sides
                .iter()
                .flat_map(|side| {
                    let one = match *side {
                        "rust" => "rust-one,rust-priority".to_owned(),
                        side => format!("{side}-one"),
                    };
                    [("many", (*side).to_owned(), "4"), ("one", one, "1")].map(|rest| (*side, rest))
                })
                .map(|(side, (name, queues, concurrency))| {
                    let worker = &worker;
                    scope.spawn(move || worker(side, name, queues, concurrency))
                })
                .collect();
            starting.into_iter().map(|worker| worker.join().expect("a worker")).collect()
        });
        let client = Mutex::new(python.converse(&script("client.py")));
        Self { broker, backend, client, workers }
    }

    /// Has the Python client run a case; panics with its traceback when it fails.
    pub fn case(&self, case: &str, arguments: Value) -> Value {
        let order = json!({ "case": case, "arguments": arguments });
        let answer = self.client().ask(&order.to_string());
        let mut answer: Value = serde_json::from_str(&answer).expect("an answer in JSON");
        match answer.get("error").and_then(Value::as_str) {
            None => answer["value"].take(),
            Some(traceback) => panic!("{case} {arguments}: {traceback}\n{}", self.logs()),
        }
    }

    fn client(&self) -> MutexGuard<'_, Dialogue> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn logs(&self) -> String {
        self.workers
            .iter()
            .map(|worker| {
                let log = worker.log();
                let from = log.ceil_char_boundary(log.len().saturating_sub(3000));
                format!("-- {}:\n{}\n", worker.node(), &log[from..])
            })
            .collect()
    }
}
