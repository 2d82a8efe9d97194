//! The shortest program, over RabbitMQ.

use std::future::IntoFuture;
use std::time::Duration;

use celeriac::{Celeriac, task};

use crate::services::{RabbitMq, blocking};

#[task]
async fn greet(name: String) -> String {
    format!("hello {name}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_runs_over_rabbitmq_and_its_result_comes_back() {
    let url = blocking(|| RabbitMq::shared().vhost("quickstart")).await;
    let celeriac = Celeriac::builder().amqp(url).start().await.unwrap();
    let greeting = greet::delay("world".into()).await.unwrap();
    assert_eq!(greeting.get(Duration::from_secs(20)).await.unwrap(), "hello world");
    let all: Vec<_> =
        futures_util::future::join_all((0..500).map(|n| greet::delay(n.to_string()).into_future())).await;
    for (n, one) in all.into_iter().enumerate() {
        assert_eq!(one.unwrap().get(Duration::from_secs(20)).await.unwrap(), format!("hello {n}"));
    }
    celeriac.shutdown().await.unwrap();
}
