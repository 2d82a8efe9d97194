//! Calls that RabbitMQ need not confirm.

use std::time::Duration;

use celeriac::task;
use celeriac::task::Durability;

use crate::kit::LONG;
use crate::rabbit::{runtime, vhost};

#[task(queue = "io", confirm = false)]
async fn beacon(n: u32) -> u32 {
    n
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_need_not_be_confirmed_runs_and_its_receipt_promises_less() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let client = || celeriac.client();
    // There is no channel without confirms yet: the first call opens it, and is confirmed.
    let first = beacon::s(0).send(client()).await.unwrap();
    assert_eq!(first.receipt().durability, Durability::Disk);
    let mut sent = vec![first];
    for n in 1..200 {
        sent.push(beacon::s(n).send(client()).await.unwrap());
    }
    // A call that finds another publish before it is confirmed, too.
    assert!(sent.iter().any(|result| result.receipt().durability == Durability::Memory));
    for (n, result) in (0..).zip(&sent) {
        assert_eq!(result.get(LONG).await, Ok(n));
    }
    let confirmed = beacon::s(1).confirm(true).send(client()).await.unwrap();
    assert_eq!(confirmed.receipt().durability, Durability::Disk);
    let delayed = beacon::s(2).countdown(Duration::from_secs(2)).send(client()).await.unwrap();
    assert_eq!(delayed.receipt().durability, Durability::Disk, "what goes through the delays is confirmed");
    assert_eq!((confirmed.get(LONG).await, delayed.get(LONG).await), (Ok(1), Ok(2)));
    celeriac.shutdown().await.unwrap();
}
