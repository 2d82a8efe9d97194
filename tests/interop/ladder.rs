//! Celery's native delays, declared by both sides in either order: neither finds the other's different from its own.

use std::time::Duration;

use celeriac::broker::QueueType;
use celeriac::catalogue::{Pool, QueueRow};
use celeriac::{Celeriac, task};

use crate::services::{Python, RabbitMq, Script, blocking};

#[task(queue = "delays")]
async fn delayed(n: u32) -> u32 {
    n
}

async fn ours(url: &str) {
    let row = |name: &str| QueueRow::new(name).with_pool(Pool::Io);
    let celeriac = Celeriac::builder()
        .amqp(url)
        .queue(row("delays"))
        .queue(row("python-delays").with_queue_type(QueueType::Quorum))
        .start()
        .await
        .unwrap();
    let soon = Duration::from_secs(2);
    // Through a queue that is ours alone, and one that Python declares too.
    for queue in ["delays", "python-delays"] {
        let task = delayed::s(7).countdown(soon).queue(queue).send(celeriac.client()).await.unwrap();
        assert_eq!(task.get(Duration::from_secs(120)).await, Ok(7));
    }
    celeriac.shutdown().await.unwrap();
}

async fn theirs(url: &str) {
    let script = Script::new("tests/interop/python/ladder.py").arg(url).arg("python-delays");
    let said =
        blocking(move || Python::with_celery().run(&script).expect_success("ladder.py").to_owned()).await;
    assert_eq!(said, "declared\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ours_first() {
    let url = blocking(|| RabbitMq::shared().vhost("ladder-ours")).await;
    ours(&url).await;
    theirs(&url).await;
    ours(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn theirs_first() {
    let url = blocking(|| RabbitMq::shared().vhost("ladder-theirs")).await;
    theirs(&url).await;
    ours(&url).await;
    theirs(&url).await;
}
