//! What a fan-out takes of memory over RabbitMQ and Redis: in a process of its own, which says how much it had at most.

use std::process::Command;

use celeriac::task;
use celeriac::task::canvas::group;

use crate::kit::LONG;
use crate::rabbit::{builder, vhost};
use crate::services::{Redis, blocking};

const RABBITMQ: &str = "CELERIAC_FAN_OUT_RABBITMQ";
const REDIS: &str = "CELERIAC_FAN_OUT_REDIS";

/// So many members are given so many KiB each: together they are just within the limit, in MiB.
const MEMBERS: usize = 1500;
const EACH: usize = 20;
const LIMIT: usize = 32;

#[task(queue = "io", max_retries = 0)]
async fn makes_kib(kib: usize) -> String {
    "x".repeat(kib << 10)
}

#[task(queue = "io", max_retries = 0)]
async fn takes_it(text: String) -> usize {
    text.len()
}

/// The most memory that this process had, in MiB.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() >> 10
}

/// What is sent is there once, and what is on its way a part at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fan_out_takes_a_few_times_what_travels() {
    let url = vhost().await;
    let redis = blocking(|| Redis::shared().url_of(4)).await;
    let run = move || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "fan_out::child", "--ignored", "--nocapture", "--test-threads=1"])
            .envs([(RABBITMQ, url), (REDIS, redis)])
            .output()
            .unwrap()
    };
    let run = blocking(run).await;
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    let (_, growth) = said.split_once("GROWTH ").unwrap_or_else(|| panic!("{said}"));
    let growth: usize = growth.split_whitespace().next().unwrap().parse().unwrap();
    println!("{growth} MiB for {LIMIT}");
    assert!(growth < 5 * LIMIT, "{growth} MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the other one, in a process of its own"]
async fn child() {
    let [url, redis] = [RABBITMQ, REDIS].map(|name| std::env::var(name).expect("an address"));
    let celeriac = builder(&url).result_backend(redis).max_canvas_size(LIMIT << 20).start().await.unwrap();
    let before = peak();
    let canvas = makes_kib::s(EACH).then(group((0..MEMBERS).map(|_| takes_it::Task)));
    let lengths = canvas.send(celeriac.client()).await.unwrap().get(LONG).await.unwrap();
    assert_eq!((lengths.len(), lengths[0]), (MEMBERS, EACH << 10));
    println!("GROWTH {} from {before} MiB", peak() - before);
    celeriac.shutdown().await.unwrap();
}
