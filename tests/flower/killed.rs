//! A worker of ours that dies without a word: Flower shows it offline when its heartbeats stay out.

use std::time::Instant;

use celeriac::Celeriac;
use celeriac::catalogue::QueueRow;
use serde_json::json;

use crate::flower::Flower;
use crate::services::{Home, Process, Script, blocking};
use crate::{options, rabbitmq};

const BROKER: &str = "CELERIAC_TEST_KILLED_BROKER";
const NODE: &str = "celeriac@doomed";

/// Celery takes a worker for gone whose heartbeats, one in two seconds, stay out for two of them. So it does with ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_killed_is_offline_when_its_heartbeats_stay_out() {
    let gone = blocking(|| {
        let broker = rabbitmq().vhost("killed");
        let script = Script::new("tests/flower/app.py")
            .env("FLEET_BROKER", broker.replace("amqp://", "pyamqp://"))
            .env("FLEET_BACKEND", "cache+memory://");
        let flower = Flower::start(&script, &rabbitmq().management_api());
        let (home, program) =
            (Home::new("doomed"), std::env::current_exe().expect("a test knows where it is"));
        let mut worker = Process::start("the worker", program, home.join("log"), |command| {
            command.args(["--exact", "killed::child", "--ignored", "--nocapture", "--test-threads=1"]);
            command.env(BROKER, broker);
        });
        let online = |wanted: bool| {
            flower
                .until("/api/workers?status=true", |workers| (workers[NODE] == json!(wanted)).then_some(()));
        };
        online(true);
        let killed_at = Instant::now();
        worker.kill();
        online(false);
        killed_at.elapsed()
    })
    .await;
    println!("Flower shows a worker offline {gone:?} after kill -9");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the other one, in a process of its own"]
async fn child() {
    let broker = std::env::var(BROKER).expect("an address");
    let celeriac = Celeriac::builder()
        .amqp(&broker)
        .amqp_options(options().with_node(NODE))
        .queue(QueueRow::new("doomed"))
        .start()
        .await
        .expect("our worker starts");
    assert_eq!(celeriac.node().as_deref(), Some(NODE));
    std::future::pending::<()>().await;
}
