//! Ten ways in which rusty-celery 0.5.5 was seen to break on RabbitMQ, one test each: here they hold.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use celeriac::broker::Broker;
use celeriac::broker::amqp::{AmqpBroker, AmqpOptions};
use celeriac::broker::conformance::sample;
use celeriac::task::{Durability, Task};
use celeriac::{Celeriac, Context, State, TaskId, task};
use lapin::options::{BasicAckOptions, BasicGetOptions};
use lapin::types::AMQPValue;

use crate::kit::{Gate, LONG, add, hold, record, status_of, until};
use crate::rabbit::{Peer, runtime, task as python, vhost};
use crate::services::{Proxy, RabbitMq, blocking};

#[task(queue = "io", acks_late = false)]
async fn early(ctx: Context, gate: String) -> u32 {
    Gate::named(&gate).pass().await;
    ctx.attempt()
}

#[task(queue = "io", max_retries = 0)]
async fn panics() {
    panic!("as it should");
}

#[task(queue = "io", expires = "1h")]
async fn expiring() {}

/// 1: with early acknowledgement nothing bounded how many ran at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_1_early_acknowledgement_is_bounded_too() {
    let celeriac = runtime(&vhost().await).await;
    let gate = Gate::new();
    let mut sent = Vec::new();
    for _ in 0..50 {
        sent.push(early::s(gate.name.clone()).send(celeriac.client()).await.unwrap());
    }
    gate.entered(4).await;
    assert_eq!(status_of(&celeriac, "io").await.running, 4);
    gate.open();
    for task in sent {
        assert_eq!(task.get(LONG).await, Ok(1));
    }
    assert!(gate.gauge.most() <= 4, "{} at once", gate.gauge.most());
    celeriac.shutdown().await.unwrap();
}

/// 2: after a reconnection there was no prefetch any more, and what ran was run twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_2_the_prefetch_outlives_a_connection() {
    let url = vhost().await;
    let proxy = blocking(|| Proxy::start(RabbitMq::shared().address())).await;
    let celeriac = runtime(&proxy.url(&url)).await;
    let gate = Gate::new();
    let mut sent = Vec::new();
    for _ in 0..60 {
        sent.push(hold::s(gate.name.clone()).send(celeriac.client()).await.unwrap());
    }
    gate.entered(4).await;
    let peer = Peer::connect(&url).await;
    until("eight are out", async || peer.ready("io").await == 52).await;
    let accepted = proxy.accepted();
    proxy.cut();
    until("it is connected again", async || proxy.accepted() >= accepted + 2).await;
    until("eight are out again", async || peer.ready("io").await == 52).await;
    gate.open();
    for task in sent {
        assert_eq!(task.get(LONG).await, Ok(1));
    }
    assert_eq!((gate.gauge.most(), gate.gauge.all()), (4, 60), "four at a time, and each once");
    celeriac.shutdown().await.unwrap();
}

/// 3: a queue deleted under its consumer made it spin for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_3_a_cancelled_consumer_consumes_again() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    assert_eq!(add::s(1, 1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2));
    let peer = Peer::connect(&url).await;
    peer.channel.queue_delete("io".into(), Default::default()).await.unwrap();
    assert_eq!(add::s(2, 2).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(4));
    celeriac.shutdown().await.unwrap();
}

/// 4: as many panics as the prefetch wedged the worker for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_4_panics_do_not_wedge_a_worker() {
    let celeriac = runtime(&vhost().await).await;
    for _ in 0..20 {
        let task = panics::s().send(celeriac.client()).await.unwrap();
        assert_eq!(record(&task).await.state, State::Failure);
    }
    assert_eq!(add::s(1, 1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2));
    celeriac.shutdown().await.unwrap();
}

/// 5: after one panic a shutdown never ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_5_a_shutdown_ends_after_a_panic() {
    let celeriac = runtime(&vhost().await).await;
    let task = panics::s().send(celeriac.client()).await.unwrap();
    assert_eq!(record(&task).await.state, State::Failure);
    let report = tokio::time::timeout(LONG, celeriac.shutdown()).await.expect("it ends");
    report.unwrap();
}

/// 6: what was sent was lost with its process, for it had only been put into a buffer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_6_what_was_accepted_is_there_when_the_process_is_not() {
    let url = vhost().await;
    let proxy = blocking(|| Proxy::start(RabbitMq::shared().address())).await;
    let options = AmqpOptions::default().with_heartbeat(Duration::from_secs(60));
    let broker = Arc::new(AmqpBroker::connect(&proxy.url(&url), options).await.unwrap());
    let all = (0..2000).map(|n| {
        let broker = Arc::clone(&broker);
        async move { broker.publish(sample("io", n, Durability::Disk), false).await }
    });
    for receipt in futures_util::future::join_all(all).await {
        receipt.unwrap();
    }
    proxy.refuse();
    proxy.cut(); // no goodbye, as a process that is killed says none
    let peer = Peer::connect(&url).await;
    assert_eq!(peer.ready("io").await, 2000);
}

/// 7: a message of a chain or with a callback could not be read, and was acknowledged and lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_7_workflows_from_python_are_read() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let peer = Peer::connect(&url).await;
    let signature = |id: &str| {
        format!(
            r#"{{"task":"py.only","args":[1],"kwargs":{{}},"options":{{"task_id":"{id}","reply_to":"r"}},"subtask_type":null,"immutable":false}}"#
        )
    };
    let (callback, next) = (signature("callback"), signature("next"));
    let embed = format!(r#"{{"callbacks":[{callback}],"errbacks":null,"chain":[{next}],"chord":null}}"#);
    let body = format!("[[2,3],{{}},{embed}]");
    peer.send("io", python(add::Task::NAME, "linked"), body.as_bytes()).await;
    let ended =
        tokio::time::timeout(LONG, celeriac.client().wait(&TaskId::from("linked"))).await.unwrap().unwrap();
    assert_eq!((ended.state, ended.result.as_deref()), (State::Success, Some("5")));
    // What follows has tasks that nobody here knows, and may be there by now.
    let letters = celeriac.dead_letters(10).await.unwrap();
    assert!(letters.iter().all(|letter| letter.message.id.as_str() != "linked"), "{letters:?}");
    celeriac.shutdown().await.unwrap();
}

/// The `expires` header of the next message in a queue, as seconds from now.
async fn expires_in(peer: &Peer, queue: &str) -> f64 {
    let got =
        peer.channel.basic_get(queue.into(), BasicGetOptions::default()).await.unwrap().expect("a message");
    let headers = got.delivery.properties.headers().clone().unwrap();
    peer.channel.basic_ack(got.delivery.delivery_tag, BasicAckOptions::default()).await.unwrap();
    let Some(AMQPValue::LongString(text)) = headers.inner().get("expires") else {
        panic!("no expires in {headers:?}")
    };
    let at = chrono::DateTime::parse_from_rfc3339(std::str::from_utf8(text.as_bytes()).unwrap()).unwrap();
    (at.to_utc() - chrono::Utc::now()).as_seconds_f64()
}

/// A runtime whose queue `one` has taken all that it may, so that what is sent there can be looked at in RabbitMQ.
async fn saturated(url: &str) -> (Celeriac, Arc<Gate>) {
    let celeriac = runtime(url).await;
    let gate = Gate::new();
    for _ in 0..2 {
        hold::s(gate.name.clone()).queue("one").send(celeriac.client()).await.unwrap();
    }
    gate.entered(1).await;
    let peer = Peer::connect(url).await;
    until("both are out", async || peer.ready("one").await == 0).await;
    (celeriac, gate)
}

/// 8: a task with a default `expires`, and one for this call, was sent with none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_8_an_expiry_of_the_call_wins_over_the_tasks() {
    let url = vhost().await;
    let (celeriac, gate) = saturated(&url).await;
    let peer = Peer::connect(&url).await;
    for (call, expected) in
        [(expiring::s(), 3600.0), (expiring::s().expires(Duration::from_secs(600)), 600.0)]
    {
        call.queue("one").send(celeriac.client()).await.unwrap();
        let found = expires_in(&peer, "one").await;
        assert!((expected - 120.0..=expected).contains(&found), "{found} of {expected}");
    }
    gate.open();
    celeriac.shutdown().await.unwrap();
}

/// 9: of two expiries of one call, the log named the one and the message bore the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_9_of_two_expiries_the_last_one_holds() {
    let url = vhost().await;
    let (celeriac, gate) = saturated(&url).await;
    let peer = Peer::connect(&url).await;
    let at = SystemTime::now() + Duration::from_secs(1000);
    let both = [
        expiring::s().expires(Duration::from_secs(300)).expires_at(at),
        expiring::s().expires_at(at).expires(Duration::from_secs(300)),
    ];
    let mut found = Vec::new();
    for call in both {
        call.queue("one").send(celeriac.client()).await.unwrap();
        found.push(expires_in(&peer, "one").await);
    }
    assert!((880.0..=1000.0).contains(&found[0]), "{found:?}");
    assert!((180.0..=300.0).contains(&found[1]), "{found:?}");
    gate.open();
    celeriac.shutdown().await.unwrap();
}

/// 10: surplus positional arguments were dropped in silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_10_surplus_arguments_are_an_error() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let peer = Peer::connect(&url).await;
    let body = br#"[[2,3,4],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]"#;
    peer.send("io", python(add::Task::NAME, "surplus"), body).await;
    let id = TaskId::from("surplus");
    let ended = tokio::time::timeout(LONG, celeriac.client().wait(&id)).await.unwrap().unwrap();
    assert_ne!(ended.state, State::Success);
    assert!(ended.errors.join(" ").contains("argument"), "{:?}", ended.errors);
    celeriac.shutdown().await.unwrap();
}
