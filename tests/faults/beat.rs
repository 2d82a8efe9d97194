//! Beat in three processes on RabbitMQ and Redis: the one that leads is killed, frozen, cut off and ended, again and again,
//! and each tick runs once.
//!
//! The processes that beat run nothing, and each has its own way to both servers. A fourth one runs the ticks, and nothing
//! happens to it: so what runs twice was published twice, and was not recognised.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use celeriac::broker::amqp::AmqpOptions;
use celeriac::catalogue::{Pool, QueueRow};
use celeriac::core::Timestamp;
use celeriac::core::calendar::{Misfire, Overlap, Schedule, tick_id};
use celeriac::store::RedisOptions;
use celeriac::task::{Periodic, Task};
use celeriac::{Celeriac, Context, task};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::ledger::{Line, Reader, note, now};
use crate::process::{Home, Life};
use crate::scene::STEADY;
use crate::services::{Proxy, RabbitMq, Redis, await_condition};

const ENTRY: &str = "often";
pub const QUEUE: &str = "ticks";
const INTERVAL: Duration = Duration::from_millis(10);
const LEASE: Duration = Duration::from_millis(500);
const HOUR: Duration = Duration::from_secs(3600);
/// Ticks before and after each disturbance.
const SOME: usize = 40;

/// What a process that beats is told.
#[derive(Serialize, Deserialize)]
struct Orders {
    amqp: String,
    redis: String,
    beats: bool,
}

#[task(queue = "ticks", ignore_result)]
async fn tick(ctx: Context) {
    note(&Line::Tick { id: ctx.id().to_string(), at: now() });
}

/// Beats, or runs the ticks, until it is told to end.
pub async fn child(
    orders: &str,
    mut commands: mpsc::UnboundedReceiver<String>,
) -> Result<(), Box<dyn std::error::Error>> {
    let Orders { amqp, redis, beats } = serde_json::from_str(orders)?;
    let mut options = RedisOptions::default();
    options.patience = LEASE;
    let entry = Periodic::new(ENTRY, tick::Task::NAME, Schedule::Every(INTERVAL))
        .misfire(Misfire::All { within: HOUR })
        .overlap(Overlap::Allow)
        .expires(HOUR);
    let row = QueueRow::new(QUEUE).with_pool(Pool::Io).with_workers(8).with_served(!beats);
    let celeriac = Celeriac::builder()
        .amqp(amqp)
        .amqp_options(AmqpOptions::default().with_publish_timeout(2 * LEASE))
        .redis(redis, options)
        .queue(row)
        .queue(QueueRow::new(crate::child::QUEUE).with_served(false))
        .beat(beats)
        .beat_lease(LEASE)
        .periodic(entry)
        .arbiters(1)
        .start()
        .await?;
    println!("up");
    while let Some(command) = commands.recv().await {
        if command != "leads" {
            break;
        }
        println!("leads {}", celeriac.beat().entries().await.is_ok());
    }
    celeriac.shutdown().await?;
    Ok(())
}

/// A process that beats, and its ways to the servers.
struct Beater {
    life: Life,
    rabbitmq: Proxy,
    redis: Proxy,
}

impl Beater {
    fn leads(&mut self) -> bool {
        self.life.tell("leads");
        self.life.expect("leads ") == "leads true"
    }
}

struct Stage {
    rabbitmq: RabbitMq,
    redis: Redis,
    amqp: String,
    home: Home,
    reader: Reader,
    /// When the ticks began to run, by their ids.
    ran: BTreeMap<String, Vec<u64>>,
}

impl Stage {
    fn spawn(&mut self) -> Beater {
        let (rabbitmq, redis) = (Proxy::start(self.rabbitmq.address()), Proxy::start(self.redis.address()));
        let (amqp, url) = (rabbitmq.url(&self.amqp), redis.url(&self.redis.url()));
        let orders = Orders { amqp, redis: url, beats: true };
        let life = self.home.spawn("beat", &serde_json::to_string(&orders).expect("orders"));
        Beater { life, rabbitmq, redis }
    }

    fn join(&mut self) -> Beater {
        let beater = self.spawn();
        beater.life.expect("up");
        beater
    }

    fn term(&self) -> u64 {
        let term = self.redis.cli(&["HGET", "celeriac:election:beat", "term"]);
        term.parse().unwrap_or(0)
    }

    /// Waits until a later term than this has begun; how long that took.
    fn until_later_than(&self, term: u64) -> Duration {
        let start = Instant::now();
        await_condition("another one leads", || match self.term() {
            new if new > term => Ok(()),
            same => Err(format!("still term {same}")),
        });
        start.elapsed()
    }

    fn read(&mut self) {
        for line in self.reader.lines::<Line>() {
            if let Line::Tick { id, at } = line {
                self.ran.entry(id).or_default().push(at);
            }
        }
    }

    /// Waits until so many more ticks have run.
    fn progress(&mut self, by: usize) {
        self.read();
        let goal = self.ran.len() + by;
        await_condition("ticks run", || {
            self.read();
            if self.ran.len() >= goal { Ok(()) } else { Err(format!("{} of {goal}", self.ran.len())) }
        });
    }

    /// Up to when the ticks are decided.
    fn decided(&self) -> Timestamp {
        let text = self.redis.cli(&["HGET", "celeriac:notes", &format!("beat/fired/{ENTRY}")]);
        let note: serde_json::Value = serde_json::from_str(&text).expect("a note");
        Timestamp::from_micros(note["last"].as_u64().expect("a time"))
    }
}

/// The one that leads, and its term.
fn leader(stage: &Stage, beaters: &mut [Beater]) -> (usize, u64) {
    await_condition("one of them leads", || {
        let term = stage.term();
        let leading: Vec<usize> = (0..beaters.len()).filter(|n| beaters[*n].leads()).collect();
        // Else another one took over meanwhile, or one does not know yet that another one has.
        match (&leading[..], stage.term() == term) {
            ([one], true) => Ok((*one, term)),
            (all, _) => Err(format!("{all:?} do, since term {term}")),
        }
    })
}

pub fn each_tick_once() {
    // A server of its own: the notes have no other prefix than those of other cases.
    let (rabbitmq, redis) = (RabbitMq::shared(), Redis::start());
    let amqp = format!("{}?{STEADY}", rabbitmq.vhost("beat"));
    let home = Home::new();
    let reader = Reader::open(&home.ledger());
    let mut stage = Stage { rabbitmq, redis, amqp, home, reader, ran: BTreeMap::new() };
    let orders = Orders { amqp: stage.amqp.clone(), redis: stage.redis.url(), beats: false };
    let orders = serde_json::to_string(&orders).expect("orders");
    let mut runs = stage.home.spawn_with("beat", &orders, |command| command.env("FAULTS_LOG", "info"));
    let log = stage.home.path().join(format!("stderr-{}", stage.home.lives()));
    runs.expect("up");
    let begin: Timestamp = std::time::SystemTime::now().into();
    let mut beaters: Vec<Beater> = (0..3).map(|_| stage.join()).collect();
    let mut took: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for round in 0..15 {
        stage.progress(SOME);
        let (at, term) = leader(&stage, &mut beaters);
        let how = ["killed", "frozen", "cut off", "without RabbitMQ", "ended"][round % 5];
        match how {
            "killed" => {
                let killed = beaters.swap_remove(at);
                killed.life.signal(Signal::KILL);
                took.entry(how).or_default().push(stage.until_later_than(term));
                assert!(killed.life.death().was_killed());
                beaters.push(stage.join());
            }
            "frozen" => {
                beaters[at].life.signal(Signal::STOP);
                took.entry(how).or_default().push(stage.until_later_than(term));
                stage.progress(SOME);
                beaters[at].life.signal(Signal::CONT);
            }
            "cut off" | "without RabbitMQ" => {
                beaters[at].rabbitmq.refuse();
                if how == "cut off" {
                    beaters[at].redis.refuse();
                }
                took.entry(how).or_default().push(stage.until_later_than(term));
                stage.progress(SOME);
                beaters[at].rabbitmq.resume();
                beaters[at].redis.resume();
            }
            _ => {
                let mut ended = beaters.swap_remove(at);
                ended.life.tell("end");
                took.entry(how).or_default().push(stage.until_later_than(term));
                ended.life.death().assert_clean();
                beaters.push(stage.join());
            }
        }
    }
    stage.progress(SOME);
    let terms = stage.term();
    // What one of them has decided and could not publish, the last one that leads has published.
    for mut beater in beaters {
        beater.life.tell("end");
        beater.life.death().assert_clean();
    }
    let last = stage.decided();
    let schedule = Schedule::Every(INTERVAL);
    let all = std::iter::successors(schedule.next_after(begin), |at| schedule.next_after(*at));
    let all: Vec<_> = all.take_while(|at| *at <= last).map(|at| (at, tick_id(ENTRY, at))).collect();
    let first = all.iter().position(|(_, id)| stage.ran.contains_key(id)).expect("some ran");
    let all = &all[first..];
    await_condition("all that was decided has run", || {
        stage.read();
        match all.iter().filter(|(_, id)| !stage.ran.contains_key(id)).count() {
            0 => Ok(()),
            left => Err(format!("{left} of {} ticks are lost", all.len())),
        }
    });
    runs.tell("end");
    runs.death().assert_clean();
    stage.read();
    let twice: Vec<_> = stage.ran.iter().filter(|(_, starts)| starts.len() > 1).collect();
    let dropped = std::fs::read_to_string(log).expect("its log").matches("another copy of it").count();
    let late = all.iter().map(|(at, id)| stage.ran[id][0].saturating_sub(at.as_micros()) / 1000);
    println!(
        "    {} ticks, each once; {terms} terms; {dropped} copies dropped; worst lateness {} ms with a lease of {} ms",
        all.len(),
        late.max().expect("there are some"),
        LEASE.as_millis()
    );
    for (how, took) in &took {
        println!("    taken over from one that was {how} after {took:.0?}");
    }
    assert!(twice.is_empty(), "ran twice: {twice:?}");
    assert_eq!(stage.ran.len(), all.len(), "something ran that is no tick");
    assert!(all.len() > 1000 && terms > 15, "too little happened to mean anything");
}
