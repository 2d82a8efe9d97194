//! Chains, chords, nested canvas and errbacks on RabbitMQ and Redis, whose workers are killed before each step of each
//! settlement in turn, and at random moments: nothing is lost, and nothing that follows runs twice.
//!
//! The two servers have no transaction in common, so what is one commit in `tests/crash/workflows.rs` is a series of steps
//! here: the record, the count of a chord, the publish of what follows, the acknowledgement, the close of the chord. The
//! [`tripwire`] knows none of them by name: it kills before the first thing that a worker changes on either server, before the
//! second, and so on, until a flow gets by.

mod book;
pub mod child;
mod flow;
mod tripwire;

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::ledger::Reader;
use crate::process::{Home, Life};
use crate::scene::STEADY;
use crate::services::{RabbitMq, Redis};
use book::Book;
use child::{Orders, PATIENCE};
use flow::Shape;
use tripwire::Tripwire;

struct Stage {
    home: Home,
    amqp: String,
    redis: Redis,
    reader: Reader,
    book: Book,
    producer: Life,
    flows: u64,
}

impl Stage {
    fn new(vhost: &str) -> Self {
        let amqp = format!("{}?{STEADY}", RabbitMq::shared().vhost(vhost));
        let redis = Redis::shared();
        let mut home = Home::new();
        let reader = Reader::open(&home.ledger());
        let orders = Orders { amqp: amqp.clone(), redis: redis.url(), workers: 0, chord_lease: 1000 };
        let producer = spawn(&mut home, &orders);
        producer.expect("up");
        Self { home, amqp, redis, reader, book: Book::default(), producer, flows: 0 }
    }

    /// The number of the next flow of this shape.
    fn next(&mut self, shape: Shape) -> u64 {
        let flow = (self.flows..).find(|flow| Shape::of(*flow) == shape).expect("there is one");
        self.flows = flow + 1;
        flow
    }

    fn send(&mut self, flow: u64) {
        self.producer.tell(&flow.to_string());
    }

    fn read(&mut self) {
        self.book.enter(self.reader.lines());
    }

    /// Waits until this holds, and says what is open if it does not.
    fn until(&mut self, what: &str, worker: &Life, mut holds: impl FnMut(&Book) -> bool) {
        let begin = Instant::now();
        loop {
            self.read();
            if holds(&self.book) {
                return;
            }
            if begin.elapsed() > PATIENCE {
                panic!("not within {PATIENCE:?}: {what}; {:#?}; {}", self.book.open(), worker.stderr());
            }
            std::thread::sleep(Duration::from_millis(2)); // between two looks at a file that others write
        }
    }

    fn end(mut self) -> Book {
        self.producer.tell("end");
        self.producer.death().assert_clean();
        self.book.enter(self.reader.lines());
        self.book.print();
        self.book.assert_kept();
        let open = self.book.open();
        assert!(open.is_empty(), "acknowledged and lost: {open:#?}");
        self.book
    }
}

fn spawn(home: &mut Home, orders: &Orders) -> Life {
    home.spawn("workflows", &serde_json::to_string(orders).expect("orders have a form in JSON"))
}

/// A URL by way of this port.
fn by_way_of(url: &str, port: u16) -> String {
    let at = url.rfind("127.0.0.1:").expect("services are on 127.0.0.1") + "127.0.0.1:".len();
    let end = url[at..].find('/').map_or(url.len(), |length| at + length);
    format!("{}{port}{}", &url[..at], &url[end..])
}

/// Each flow is sent again and again, and its worker dies one step later each time.
pub fn killed_between_steps() {
    let mut stage = Stage::new("steps");
    let wire = Tripwire::start(RabbitMq::shared().address(), stage.redis.address());
    let orders = Orders {
        amqp: by_way_of(&stage.amqp, wire.amqp.port()),
        redis: by_way_of(&stage.redis.url(), wire.redis.port()),
        workers: 2,
        // One process works at a time: only one that has died lets it expire.
        chord_lease: 1000,
    };
    let mut worker = spawn(&mut stage.home, &orders);
    worker.expect("up");
    for shape in Shape::ALL {
        let mut steps = 0;
        loop {
            let flow = stage.next(shape);
            wire.arm(worker.pid(), steps + 1);
            stage.send(flow);
            let life = stage.home.lives();
            stage.until("its end or its worker's", &worker, |book| {
                wire.has_tripped() || (book.acked.contains(&flow) && book.open().is_empty())
            });
            if !wire.has_tripped() {
                // What is left of the last settlement.
                worker.tell_if_alive("idle");
                worker.hears("idle");
            }
            let (passed, tripped) = wire.disarm();
            let Some(step) = tripped else {
                println!("    {shape:?}: killed before each of {steps} steps, from {:?}", passed.first());
                break;
            };
            stage.book.killed.insert(life);
            assert!(worker.death().was_killed(), "before {step}");
            steps += 1;
            worker = spawn(&mut stage.home, &orders);
            worker.expect("up");
            stage.until(&format!("the end of a flow whose worker died before `{step}`"), &worker, |book| {
                book.acked.contains(&flow) && book.open().is_empty()
            });
            worker.tell("idle");
            worker.expect("idle");
            stage.read();
            if !stage.book.twice.is_empty() {
                println!("    {shape:?}: died before step {steps}, `{step}`, after {passed:?}");
            }
        }
        assert!(steps > 5, "{shape:?} has settlements of more steps than that");
    }
    worker.tell("end");
    worker.death().assert_clean();
    let book = stage.end();
    assert!(book.reruns > 0, "nothing was interrupted");
}

/// Several workers and many flows at a time.
pub fn killed_at_random() {
    let seed = std::env::var("FAULTS_SEED").map_or_else(
        |_| rand::rng().random_range(0..1_000_000),
        |text| text.parse().unwrap_or_else(|_| panic!("FAULTS_SEED={text} is not a number")),
    );
    println!("    FAULTS_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut stage = Stage::new("at-random");
    // One that is slow is not one that has died.
    let orders =
        Orders { amqp: stage.amqp.clone(), redis: stage.redis.url(), workers: 4, chord_lease: 10_000 };
    let mut workers: Vec<_> = (0..3).map(|_| (spawn(&mut stage.home, &orders), stage.home.lives())).collect();
    workers.iter().for_each(|(worker, _)| drop(worker.expect("up")));
    for _ in 0..20 {
        for _ in 0..30 {
            let flow = stage.flows;
            stage.flows += 1;
            stage.send(flow);
        }
        // The moments of the kills are what this is about, so this is a sleep that is meant.
        std::thread::sleep(Duration::from_micros(random.random_range(1000..300_000)));
        let (worker, life) = workers.remove(0);
        // Before anybody can take over.
        stage.read();
        stage.book.killed.insert(life);
        assert!(worker.kill_9().was_killed());
        workers.push((spawn(&mut stage.home, &orders), stage.home.lives()));
    }
    let (last, _) = workers.pop().expect("there are three");
    last.expect("up");
    let flows = usize::try_from(stage.flows).expect("it is small");
    stage.until("the end of all flows", &last, |book| book.acked.len() == flows && book.open().is_empty());
    for (mut worker, _) in workers.into_iter().chain([(last, 0)]) {
        worker.tell("idle");
        worker.expect("idle");
        worker.tell("end");
        worker.death().assert_clean();
    }
    let book = stage.end();
    assert!(book.reruns > 0, "nothing was interrupted");
}
