//! Calls and steps that are published to an exchange by a key, and other options of a call's message.

use std::time::Duration;

use celeriac::task::Task;
use celeriac::{EnqueueError, State};
use lapin::ExchangeKind;
use lapin::options::{BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};

use crate::kit::{self, LONG, add, until};
use crate::rabbit::{Peer, runtime, task as python, text, vhost};

/// The topic exchange `orders`, with these queues bound by `orders.eu.#`, and with the queue `seen`.
async fn exchange(peer: &Peer, bound: &[&str]) {
    let (channel, none) = (&peer.channel, FieldTable::default);
    let options = ExchangeDeclareOptions::default();
    channel.exchange_declare("orders".into(), ExchangeKind::Topic, options, none()).await.unwrap();
    let alone = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("seen".into(), alone, none()).await.unwrap();
    for queue in bound.iter().chain(&["seen"]) {
        let (bind, key) = (QueueBindOptions::default(), "orders.eu.#".into());
        channel.queue_bind((*queue).into(), "orders".into(), key, bind, none()).await.unwrap();
    }
}

/// The next message in `seen`.
async fn seen(peer: &Peer) -> lapin::message::Delivery {
    until("it is seen", async || peer.ready("seen").await > 0).await;
    let no_ack = BasicGetOptions { no_ack: true };
    peer.channel.basic_get("seen".into(), no_ack).await.unwrap().unwrap().delivery
}

fn header(delivery: &lapin::message::Delivery, name: &str) -> Option<AMQPValue> {
    delivery.properties.headers().as_ref()?.inner().get(name).cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_goes_to_the_exchange_that_it_names() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let peer = Peer::connect(&url).await;
    exchange(&peer, &["io"]).await;
    let call = || add::s(20, 22).exchange("orders").routing_key("orders.eu.de");
    let sum = call().compression("gzip").shadow("nick").send(celeriac.client()).await.unwrap();
    let came = seen(&peer).await;
    assert_eq!((came.exchange.as_str(), came.routing_key.as_str()), ("orders", "orders.eu.de"));
    assert_eq!(header(&came, "id"), Some(text(sum.id().as_str())));
    assert_eq!(header(&came, "shadow"), Some(text("nick")));
    assert_eq!(header(&came, "compression"), Some(text("application/x-gzip")));
    assert_eq!((came.data[0], header(&came, "celeriac-properties")), (0x78, None), "kombu's gzip is zlib");
    assert_eq!(sum.get(LONG).await, Ok(42), "the worker of the queue that is bound there has run it");

    // Its time is in its header, and whoever takes it keeps it until then.
    let later = call().countdown(Duration::from_millis(1100)).send(celeriac.client()).await.unwrap();
    assert_eq!(header(&seen(&peer).await, "id"), Some(text(later.id().as_str())));
    assert_eq!(later.get(LONG).await, Ok(42));

    // A step of a canvas, too.
    let steps = add::s(1, 1).then(call()).send(celeriac.client()).await.unwrap();
    assert_eq!(steps.get(LONG).await, Ok(42));
    assert_eq!(seen(&peer).await.exchange.as_str(), "orders");

    for (exchange, key, part) in [
        ("orders", "orders.us", "RabbitMQ has no queue for the message to the exchange `orders`"),
        ("nowhere", "orders.us", "RabbitMQ has no exchange `nowhere`"),
    ] {
        let refused = add::s(1, 1).exchange(exchange).routing_key(key).send(celeriac.client()).await;
        let error = refused.unwrap_err();
        assert!(matches!(&error, EnqueueError::Refused { reason } if reason.contains(part)), "{error}");
    }
    let alone = add::s(1, 1).exchange("orders").send(celeriac.client()).await.unwrap_err();
    assert!(alone.to_string().contains("is named without a `routing_key`"), "{alone}");
    let odd = add::s(1, 1).compression("zip").send(celeriac.client()).await.unwrap_err();
    assert!(odd.to_string().contains("there is no compression `zip`"), "{odd}");
    celeriac.shutdown().await.unwrap();

    let memory = kit::memory().await;
    let nowhere = call().send(memory.client()).await.unwrap_err();
    assert!(matches!(&nowhere, EnqueueError::NoExchanges { .. }), "{nowhere}");
    assert_eq!(add::s(1, 1).compression("gzip").send(memory.client()).await.unwrap().get(LONG).await, Ok(2));
    memory.shutdown().await.unwrap();
}

/// As `chain(add.s(1, 1), other.s().set(exchange="orders", routing_key="orders.eu.fr"))` of a Python client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_python_wrote_goes_where_it_says() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let peer = Peer::connect(&url).await;
    exchange(&peer, &[]).await;
    let step = |options: &str| {
        format!(
            r#"{{"task":"python.other","args":[],"kwargs":{{}},"options":{options},"subtask_type":null,"immutable":false}}"#
        )
    };
    let send = async |id: &str, options: &str| {
        let step = step(options);
        let body =
            format!(r#"[[1,1],{{}},{{"callbacks":null,"errbacks":null,"chain":[{step}],"chord":null}}]"#);
        peer.send("io", python(add::Task::NAME, id), body.as_bytes()).await;
    };
    let options = r#""exchange":"orders","routing_key":"orders.eu.fr","compression":"bzip2""#;
    send("first", &format!(r#"{{"task_id":"second",{options}}}"#)).await;
    let came = seen(&peer).await;
    assert_eq!((came.exchange.as_str(), came.routing_key.as_str()), ("orders", "orders.eu.fr"));
    assert_eq!(header(&came, "id"), Some(text("second")));
    assert_eq!(header(&came, "compression"), Some(text("application/x-bz2")));

    // No queue is bound there: the task fails, and its letter is kept.
    send("third", r#"{"task_id":"fourth","exchange":"orders","routing_key":"orders.us"}"#).await;
    until("it has failed", async || {
        celeriac.client().state(&"fourth".into()).await.unwrap() == State::Failure
    })
    .await;
    let letters = celeriac.dead_letters(10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].message.id.as_str(), "fourth");
    assert!(letters[0].reason.contains("RabbitMQ has no queue for the message"), "{}", letters[0].reason);
    celeriac.shutdown().await.unwrap();
}
