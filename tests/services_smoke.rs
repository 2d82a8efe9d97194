//! The services that other tests stand on do what those tests take for granted.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use celeriac_test_support as services;
use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

use services::{
    Proxy, Python, RabbitMq, RabbitMqOptions, Redis, RedisOptions, Script, await_condition, blocking,
};

async fn channel(url: &str) -> Channel {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    connection.create_channel().await.unwrap()
}

async fn publish(channel: &Channel, queue: &str, durable: bool) {
    let declare = QueueDeclareOptions { durable, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), declare, FieldTable::default()).await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let properties = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions::default();
    let confirm = channel.basic_publish("".into(), queue.into(), options, b"1", properties).await.unwrap();
    assert!(confirm.await.unwrap().is_ack());
}

/// A durable message outlives `kill -9` and comes back on the same URL; the node's tools see it.
#[tokio::test(flavor = "multi_thread")]
async fn a_rabbitmq_node_is_killed_and_comes_back_with_its_messages() {
    let node = RabbitMq::start();
    publish(&channel(&node.url()).await, "kept", true).await;
    let (queues, node) = blocking(move || {
        node.kill();
        assert!(TcpStream::connect(node.address()).is_err(), "it was killed");
        node.start_again();
        (node.queues(), node)
    })
    .await;
    assert_eq!(queues, [("kept".to_owned(), 1)]);
    let kept = channel(&node.url()).await.basic_get("kept".into(), BasicGetOptions::default()).await.unwrap();
    assert_eq!(kept.unwrap().data, b"1");
    let log = blocking(move || {
        node.restart();
        node.log()
    })
    .await;
    assert!(log.contains("Server startup complete"), "{log}");
}

/// Each vhost has its own queues.
#[tokio::test(flavor = "multi_thread")]
async fn vhosts_of_the_shared_node_keep_tests_apart() {
    let node = RabbitMq::shared();
    let (first, second) = (node.vhost("first"), node.vhost("second"));
    publish(&channel(&first).await, "same", false).await;
    publish(&channel(&second).await, "same", false).await;
    let count =
        |vhost| node.ctl(&["list_queues", "-p", vhost, "messages", "--no-table-headers"]).trim().to_owned();
    assert_eq!((count("first").as_str(), count("second").as_str()), ("1", "1"));
}

/// Options reach the node.
#[test]
fn a_rabbitmq_node_takes_options() {
    let options = RabbitMqOptions::new().consumer_timeout(Duration::from_secs(5)).config("channel_max = 77");
    let node = options.start();
    assert_eq!(node.eval("application:get_env(rabbit, consumer_timeout).").trim(), "{ok,5000}");
    assert_eq!(node.eval("application:get_env(rabbit, channel_tick_interval).").trim(), "{ok,500}");
    assert_eq!(node.eval("application:get_env(rabbit, channel_max).").trim(), "{ok,77}");
    node.raise_alarm();
    await_condition("the alarm", || match node.eval("rabbit_alarm:get_alarms().").trim() {
        "[]" => Err("no alarm".to_owned()),
        _ => Ok(()),
    });
    node.clear_alarm();
    await_condition("no alarm", || match node.eval("rabbit_alarm:get_alarms().").trim() {
        "[]" => Ok(()),
        alarms => Err(alarms.to_owned()),
    });
}

/// Three nodes know each other; one that is killed is missed, and joins again.
#[test]
fn rabbitmq_nodes_form_a_cluster() {
    let nodes = RabbitMq::cluster(3);
    nodes[2].await_members(3);
    nodes[1].kill();
    nodes[0].await_members(2);
    nodes[1].start_again();
    nodes[0].await_members(3);
}

/// With its journal, Redis has after `kill -9` what it had before; without, nothing.
#[test]
fn redis_is_killed_and_comes_back() {
    for (options, kept) in [(RedisOptions::new().append_only(), "1"), (RedisOptions::new(), "")] {
        let redis = options.start();
        assert_eq!(redis.cli(&["set", "key", "1"]), "OK");
        redis.kill();
        assert!(TcpStream::connect(redis.address()).is_err(), "it was killed");
        redis.start_again();
        assert_eq!(redis.cli(&["get", "key"]), kept);
    }
}

fn ping(stream: &mut TcpStream) -> std::io::Result<()> {
    ping_within(services::PATIENCE, stream)
}

fn ping_within(patience: Duration, stream: &mut TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    assert_eq!(&answer, b"+PONG\r\n");
    Ok(())
}

#[test]
fn the_proxy_breaks_and_mends_the_way() {
    let redis = Redis::shared();
    let proxy = Proxy::start(redis.address());
    assert_eq!(proxy.url(&redis.url()), format!("redis://{}/0", proxy.address()));
    let connect = || TcpStream::connect(proxy.address());

    let mut stream = connect().unwrap();
    ping(&mut stream).unwrap();
    assert_eq!((proxy.connections(), proxy.accepted()), (1, 1));

    proxy.cut();
    let cut = ping(&mut stream).unwrap_err().kind();
    let of_a_cut = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::UnexpectedEof];
    assert!(of_a_cut.contains(&cut), "{cut:?}");
    let mut stream = connect().unwrap();
    ping(&mut stream).unwrap();

    proxy.swallow();
    let nothing = ping_within(Duration::from_millis(300), &mut stream);
    assert_eq!(nothing.unwrap_err().kind(), ErrorKind::WouldBlock);
    proxy.resume();
    stream.set_read_timeout(Some(services::PATIENCE)).unwrap();
    stream.read_exact(&mut [0; 7]).unwrap();

    let delay = Duration::from_millis(50);
    proxy.delay(delay);
    let start = std::time::Instant::now();
    stream.write_all(b"PING\r\n").unwrap();
    stream.read_exact(&mut [0; 7]).unwrap();
    assert!(start.elapsed() >= 2 * delay, "{:?}", start.elapsed());

    proxy.refuse();
    assert_eq!(connect().unwrap_err().kind(), ErrorKind::ConnectionRefused);
    proxy.resume();
    ping(&mut connect().unwrap()).unwrap();
}

#[test]
fn python_has_celery_5_7() {
    let python = Python::with_celery();
    let output = python.run(&Script::new("tests/interop/python/versions.py"));
    let versions = output.expect_success("versions.py");
    assert!(versions.starts_with("celery 5.7."), "{versions}");
    assert!(versions.contains("redis "), "{versions}");
}

/// A copy of this program starts a service and is killed: the service does not outlive it.
#[test]
fn a_service_ends_with_its_test() {
    let mut copy = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holds_a_service", "--nocapture"])
        .env("SERVICES_SMOKE_HOLD", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut stdout = std::io::BufReader::new(copy.stdout.take().unwrap());
    let port: u16 = loop {
        said.clear();
        assert!(std::io::BufRead::read_line(&mut stdout, &mut said).unwrap() > 0, "the copy ended");
        if let Some(port) = said.trim().strip_prefix("serving on ") {
            break port.parse().unwrap();
        }
    };
    ping(&mut TcpStream::connect(("127.0.0.1", port)).unwrap()).unwrap();
    copy.kill().unwrap();
    copy.wait().unwrap();
    await_condition("the service ends", || match TcpStream::connect(("127.0.0.1", port)) {
        Ok(_) => Err("it still serves".to_owned()),
        Err(_) => Ok(()),
    });
}

/// The copy's part of [`a_service_ends_with_its_test`]; by itself it has nothing to do.
#[test]
fn holds_a_service() {
    if std::env::var_os("SERVICES_SMOKE_HOLD").is_some() {
        let redis = Redis::start();
        println!("serving on {}", redis.address().port());
        let _ = std::io::stdin().read(&mut [0]);
    }
    assert!(Path::new("/proc/self").exists(), "services are found by their pid, as Linux shows it");
}
