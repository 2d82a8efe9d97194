//! Calls of a tenant that sends more than a queue takes from one go to another queue.

use std::collections::BTreeMap;

use celeriac::core::explanation::TaskReason;
use celeriac::core::token_bucket::RateLimit;
use celeriac::task;

use crate::kit::{LONG, builder, io_queue};

#[task(name = "demotion.any")]
async fn any() {}

/// With a rate of which nothing comes back while the test lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_calls_above_the_rate_of_a_tenant_go_elsewhere() {
    let rate = RateLimit::parse("3/h").unwrap().unwrap();
    let row = io_queue("celery", 2).with_demote_above(rate).with_demote_to("celery_slow");
    let celeriac = builder().queue(row).queue(io_queue("celery_slow", 1)).in_memory().start().await.unwrap();
    let client = celeriac.client();
    let mut queues = Vec::new();
    for _ in 0..5 {
        let sent = any::s().tenant("flood").send(client.clone()).await.unwrap();
        queues.push(sent.receipt().queue.clone());
    }
    assert_eq!(queues, ["celery", "celery", "celery", "celery_slow", "celery_slow"]);
    let of_other = any::s().tenant("other").send(client.clone()).await.unwrap();
    let of_nobody = any::s().send(client.clone()).await.unwrap();
    let named = any::s().tenant("flood").queue("celery").send(client.clone()).await.unwrap();
    for sent in [of_other, of_nobody, named] {
        assert_eq!(sent.receipt().queue, "celery");
    }
    // Why a call is in the other queue is told, behind why it waits.
    celeriac.pause("celery_slow").await.unwrap();
    let demoted = any::s().tenant("flood").send(client.clone()).await.unwrap();
    let explanation = celeriac.explain(demoted.id()).await.unwrap();
    let last = explanation.reasons.last().unwrap();
    assert_eq!(last, &TaskReason::Demoted { from: "celery".to_owned() }, "{explanation:?}");
    assert_eq!(explanation.reason().code(), "paused", "{explanation:?}");
    // It keeps nothing from starting.
    celeriac.resume("celery_slow").await.unwrap();
    assert_eq!(demoted.get(LONG).await, Ok(()));
    assert_eq!(celeriac.demoted_calls(), BTreeMap::from([("celery".to_owned(), 3)]));
    celeriac.shutdown().await.unwrap();
}
