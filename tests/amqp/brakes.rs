//! Brakes of a fleet on RabbitMQ: Redis keeps them, and every process obeys, whoever has set them.

use std::process::Command;

use celeriac::app::BrakeScope;
use celeriac::broker::amqp::AmqpOptions;
use celeriac::core::brake::{Brake, BrakeAction, BrakeRule};
use celeriac::store::RedisOptions;
use celeriac::task::TENANT;
use celeriac::{Builder, Celeriac, State, TaskId};
use serde_json::Value;

use crate::kit::{LONG, add, io_queue, record, until, until_status};
use crate::rabbit::{runtime, steady, vhost};
use crate::services::{Redis, blocking};

/// A program of the fleet. It serves its queues if it is to.
fn program(url: &str, redis: &str, prefix: &str, node: &str, served: bool) -> Builder {
    let mut options = RedisOptions::default();
    options.global_keyprefix = Some(prefix.to_owned());
    Celeriac::builder()
        .queue(io_queue("io", 4).with_served(served))
        .queue(io_queue("one", 1).with_served(served))
        .amqp(steady(url))
        .amqp_options(AmqpOptions::default().with_node(node))
        .redis(redis, options)
}

async fn places() -> (String, String, String) {
    let redis = blocking(Redis::shared).await.url_of(6);
    (vhost().await, redis, TaskId::new().to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_sets_and_takes_away_holds_in_the_others() {
    let (url, redis, prefix) = places().await;
    let operator = program(&url, &redis, &prefix, "operator@h", false).start().await.unwrap();
    assert_eq!(operator.brakes().scope(), BrakeScope::Fleet);
    let pause = Brake::new(BrakeRule::new().tenant("acme"), BrakeAction::Pause);
    let pause = operator.brakes().set(pause).await.unwrap();
    // It holds here from the start.
    let worker = program(&url, &redis, &prefix, "worker@h", true).start().await.unwrap();
    let (mut held, mut free) = (Vec::new(), Vec::new());
    for n in 0..5 {
        held.push(add::s(n, 1).header(TENANT, "acme").send(operator.client()).await.unwrap());
        free.push(add::s(n, 1).header(TENANT, "other").send(operator.client()).await.unwrap());
    }
    for (n, task) in (1..).zip(&free) {
        assert_eq!(task.get(LONG).await, Ok(n));
    }
    until_status(&worker, "io", |status| (status.done, status.held, status.running) == (5, 5, 0)).await;
    let found = operator.brakes().dry_run(&pause.rule).await.unwrap();
    assert_eq!(found.waiting.tasks, 0, "nobody can look into RabbitMQ");

    // Nothing but the watch of the worker's own sees that.
    assert_eq!(operator.brakes().remove(&pause.id).await, Ok(Some(pause)));
    for (n, task) in (1..).zip(&held) {
        assert_eq!(task.get(LONG).await, Ok(n));
    }
    // And so what is new.
    let expire = Brake::new(BrakeRule::new().tenant("gone"), BrakeAction::Expire).id("gone");
    operator.brakes().set(expire).await.unwrap();
    until("the worker ends what comes", async || {
        let task = add::s(1, 1).header(TENANT, "gone").send(operator.client()).await.unwrap();
        record(&task).await.state == State::Revoked
    })
    .await;
    for celeriac in [operator, worker] {
        celeriac.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_divert_publishes_to_the_other_queue() {
    let (url, redis, prefix) = places().await;
    let celeriac = program(&url, &redis, &prefix, "divert@h", true).start().await.unwrap();
    let divert = Brake::new(BrakeRule::new().tenant("acme"), BrakeAction::divert("one"));
    celeriac.brakes().set(divert).await.unwrap();
    let mut sent = Vec::new();
    for n in 0..5 {
        sent.push(add::s(n, 1).header(TENANT, "acme").send(celeriac.client()).await.unwrap());
    }
    let stays = add::s(7, 1).send(celeriac.client()).await.unwrap();
    for (n, task) in (1..).zip(&sent) {
        assert_eq!(task.get(LONG).await, Ok(n));
    }
    assert_eq!(stays.get(LONG).await, Ok(8));
    until_status(&celeriac, "one", |status| (status.done, status.ready) == (5, 0)).await;
    until_status(&celeriac, "io", |status| (status.done, status.ready) == (1, 0)).await;
    celeriac.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_sets_a_brake_for_the_fleet() {
    // The command has no prefix, so this database is this test's own.
    let (url, redis) = (vhost().await, blocking(Redis::shared).await.url_of(7));
    let celeriac = {
        let builder = Celeriac::builder().queue(io_queue("io", 4)).amqp(steady(&url));
        builder.result_backend(redis.clone()).start().await.unwrap()
    };
    let told = async |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_celeriac"));
        command.arg("brake").args(arguments);
        command.env("CELERIAC_BROKER", &url).env("CELERIAC_RESULT_BACKEND", &redis);
        let output = blocking(move || command.output().unwrap()).await;
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, out, err) = told(&["set", "pause", "--tenant", "acme", "--queue", "io", "--json"]).await;
    assert_eq!(code, Some(0), "{err}");
    let set: Value = serde_json::from_str(&out).unwrap();
    let id = set["set"]["id"].as_str().unwrap();
    let (code, _, err) = told(&["set", "pause", "--queue", "nosuch"]).await;
    assert_eq!(code, Some(2));
    assert!(err.contains("there is no such queue"), "{err}");
    let (code, _, err) = told(&["dry-run", "--tenant", "acme"]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("nobody look into its queues"), "{err}");
    assert_eq!(celeriac.brakes().list().await.unwrap()[0].id, id);
    let held = add::s(1, 1).header(TENANT, "acme").send(celeriac.client()).await.unwrap();
    until_status(&celeriac, "io", |status| (status.held, status.running) == (1, 0)).await;
    let (code, out, _) = told(&["remove", id]).await;
    assert_eq!((code, out), (Some(0), format!("brake `{id}` is taken away.\n")));
    assert_eq!(held.get(LONG).await, Ok(2));
    celeriac.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_a_brake_holds_for_its_process_and_says_so() {
    let celeriac = runtime(&vhost().await).await;
    assert_eq!(celeriac.brakes().scope(), BrakeScope::Process);
    let pause = Brake::new(BrakeRule::new().tenant("acme"), BrakeAction::Pause);
    let pause = celeriac.brakes().set(pause).await.unwrap();
    let held = add::s(1, 1).header(TENANT, "acme").send(celeriac.client()).await.unwrap();
    let free = add::s(2, 1).send(celeriac.client()).await.unwrap();
    assert_eq!(free.get(LONG).await, Ok(3));
    let found = celeriac.brakes().dry_run(&pause.rule).await.unwrap();
    assert!(found.waiting.tasks <= 1, "it counts what was delivered here");
    celeriac.brakes().remove(&pause.id).await.unwrap();
    assert_eq!(held.get(LONG).await, Ok(2));
    celeriac.shutdown().await.unwrap();
}
