//! The shortest program, over RabbitMQ.

use std::future::IntoFuture;

use celeriac::{Celeriac, task};

use crate::kit::LONG;
use crate::rabbit::steady;
use crate::services::{RabbitMq, blocking};

#[task]
async fn greet(name: String) -> String {
    format!("hello {name}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_runs_over_rabbitmq_and_its_result_comes_back() {
    let url = blocking(|| RabbitMq::shared().vhost("quickstart")).await;
    let celeriac = Celeriac::builder().amqp(steady(&url)).start().await.unwrap();
    // Many programs are in this process, so the call names its own.
    let greeting = |name: String| greet::s(name).send(celeriac.client()).into_future();
    assert_eq!(greeting("world".into()).await.unwrap().get(LONG).await.unwrap(), "hello world");
    let all: Vec<_> = futures_util::future::join_all((0..500).map(|n| greeting(n.to_string()))).await;
    for (n, one) in all.into_iter().enumerate() {
        assert_eq!(one.unwrap().get(LONG).await.unwrap(), format!("hello {n}"));
    }
    celeriac.shutdown().await.unwrap();
}
