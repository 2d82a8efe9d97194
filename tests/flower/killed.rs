//! A worker of ours that dies without a word: Flower shows it offline when its heartbeats stay out.

use std::process::{Command, Stdio};
use std::time::Instant;

use celeriac::Celeriac;
use celeriac::broker::amqp::AmqpOptions;
use celeriac::catalogue::QueueRow;
use serde_json::json;

use crate::flower::Flower;
use crate::rabbitmq;
use crate::services::{Script, blocking};

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
        let mut worker = Command::new(std::env::current_exe().expect("a test knows where it is"))
            .args(["--exact", "killed::child", "--ignored", "--nocapture", "--test-threads=1"])
            .env(BROKER, broker)
            .stdout(Stdio::null())
            .spawn()
            .expect("this program starts once more");
        let online = |wanted: bool| {
            flower
                .until("/api/workers?status=true", |workers| (workers[NODE] == json!(wanted)).then_some(()));
        };
        online(true);
        let killed_at = Instant::now();
        worker.kill().expect("kill -9");
        worker.wait().expect("it is dead");
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
        .amqp_options(AmqpOptions::default().with_node(NODE))
        .queue(QueueRow::new("doomed"))
        .start()
        .await
        .expect("our worker starts");
    assert_eq!(celeriac.node().as_deref(), Some(NODE));
    std::future::pending::<()>().await;
}
