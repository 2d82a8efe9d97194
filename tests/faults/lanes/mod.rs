//! Serial tasks on RabbitMQ and Redis, in three processes, of which one is killed each second and one is frozen for longer than
//! the lease, while connections are cut: of a key no runs overlap, none passes another, and none is lost.
//!
//! It goes on until each kind of disturbance has met somebody who was inside, and a process is killed only after it has run
//! something: so a slow machine takes longer, and does the same.

mod book;
pub mod child;

use std::ops::Range;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::ledger::{Reader, now};
use crate::process::{Home, Life};
use crate::services::{Proxy, RabbitMq, Redis};
use crate::witness::Witness;
use book::Book;
use child::Orders;

const WORKERS: usize = 3;
/// A process that is only slow renews it in time.
const LEASE: Duration = Duration::from_secs(6);
/// The least time for which they are disturbed.
const DISTURBED: Duration = Duration::from_secs(40);
/// Longer than all takes that is left then.
const PATIENCE: Duration = Duration::from_secs(300);
/// Fewer than these are to do when another round is enqueued.
const FEW: u64 = 1000;

struct Producer {
    life: Life,
    /// It was told to enqueue, and has not said yet that it has.
    enqueuing: bool,
}

struct Fleet {
    home: Home,
    orders: Orders,
    workers: Vec<(u64, Life)>,
    producers: Vec<Producer>,
    book: Book,
    reader: Reader,
}

impl Fleet {
    fn at(amqp: String, redis: String) -> Self {
        let home = Home::new();
        let orders = Orders {
            amqp,
            redis,
            lease: u64::try_from(LEASE.as_millis()).expect("it is short"),
            neighbours: true,
            workers: 0,
            keys: 0..0,
            hot: 150,
        };
        let reader = Reader::open(&home.ledger());
        let mut book = Book::default();
        book.apart_from = u64::MAX;
        Self { home, orders, workers: Vec::new(), producers: Vec::new(), book, reader }
    }

    fn spawn(&mut self, workers: usize, keys: Range<u64>) -> (u64, Life) {
        let orders = Orders { workers, keys, ..self.orders.clone() };
        let orders = serde_json::to_string(&orders).expect("orders have a form in JSON");
        let life = self.home.spawn("lanes", &orders);
        (self.home.lives(), life)
    }

    fn works(&mut self) {
        let worker = self.spawn(8, 0..0);
        self.workers.push(worker);
    }

    fn produces(&mut self, keys: Range<u64>) {
        let (_, life) = self.spawn(0, keys);
        self.producers.push(Producer { life, enqueuing: false });
    }

    /// `kill -9`, if it has run something; another one takes its place.
    fn kill(&mut self, which: usize) {
        if !self.book.started.contains(&self.workers[which].0) {
            return;
        }
        let (life, process) = self.workers.remove(which);
        self.book.killed.insert(life, now()); // before anybody can take over
        assert!(process.kill_9().was_killed());
        self.works();
    }

    fn freeze(&mut self, which: usize) {
        let (life, process) = &self.workers[which];
        self.book.frozen.insert(*life, now());
        process.signal(Signal::STOP);
    }

    fn read(&mut self) {
        self.book.enter(self.reader.lines());
    }

    /// Reads, and keeps enough to do.
    fn tend(&mut self) {
        self.read();
        for producer in &mut self.producers {
            producer.enqueuing &= !producer.life.has_said("produced");
        }
        let left = self.book.acked.saturating_sub(self.book.done);
        if left < FEW && self.producers.iter().all(|producer| !producer.enqueuing) {
            for producer in &mut self.producers {
                producer.life.tell("round");
                producer.enqueuing = true;
            }
        }
    }

    /// Nothing more is enqueued.
    fn enough(&mut self) {
        for producer in &mut self.producers {
            if producer.enqueuing {
                producer.life.expect("produced");
            }
            producer.life.tell("enough");
            producer.life.expect("produced");
        }
    }

    /// Reads until all that was acknowledged is done.
    fn settle(&mut self) {
        let start = Instant::now();
        loop {
            self.read();
            let open = self.book.open();
            if open.is_empty() {
                return;
            }
            if start.elapsed() > PATIENCE {
                for (_, life) in &self.workers {
                    println!("    process {}: {}", life.pid(), life.stderr());
                }
                panic!(
                    "{} were acknowledged and are not done: {:?}",
                    open.len(),
                    &open[..open.len().min(20)]
                );
            }
            std::thread::sleep(Duration::from_millis(50)); // between two looks at a file that others write
        }
    }

    fn end(&mut self) {
        let workers = self.workers.drain(..).map(|(_, life)| life);
        for mut life in workers.chain(self.producers.drain(..).map(|producer| producer.life)) {
            life.tell("end");
            life.death().assert_clean();
        }
        self.read();
    }
}

pub fn killed_frozen_and_cut() {
    let node = RabbitMq::shared();
    let proxy = Proxy::start(node.address());
    let redis = Redis::shared().url();
    let witness = Witness::start(&redis);
    let mut fleet = Fleet::at(proxy.url(&node.vhost("lanes")), redis);
    (0..WORKERS).for_each(|_| fleet.works());
    fleet.produces(0..1000);
    fleet.produces(1000..2000);
    let producers = fleet.producers.iter().map(|producer| &producer.life);
    for life in fleet.workers.iter().map(|(_, life)| life).chain(producers) {
        life.expect("up");
    }
    let start = Instant::now();
    let mut frozen: Option<Instant> = None;
    for tick in 1.. {
        std::thread::sleep(Duration::from_millis(500)); // between two strikes
        fleet.tend();
        if frozen.take_if(|since| since.elapsed() > LEASE * 2).is_some() {
            fleet.workers[0].1.signal(Signal::CONT);
        }
        let enough = fleet.book.has_seen_all() || start.elapsed() > PATIENCE;
        if start.elapsed() > DISTURBED && frozen.is_none() && enough {
            break;
        }
        if start.elapsed() > DISTURBED / 2 && fleet.orders.neighbours {
            // Those that come now wait for the lease, as if the others were on machines of their own.
            fleet.orders.neighbours = false;
            fleet.book.apart_from = now();
        }
        if tick % 2 == 0 {
            fleet.kill(1); // the older one of those that are not frozen
        }
        if tick % 7 == 0 {
            proxy.cut();
        }
        if tick % 20 == 5 && frozen.is_none() {
            fleet.freeze(0);
            frozen = Some(Instant::now());
        }
    }
    fleet.enough();
    let disturbed = start.elapsed();
    fleet.settle();
    fleet.end();
    let kept = witness.kept();
    let book = &mut fleet.book;
    println!(
        "    {} keys, acked {}, refused {}, done {}, reruns {}, stale lines {}, killed {}, frozen {}, in {:.0} + {:.0} s",
        book.keys(),
        book.acked,
        book.refused.values().sum::<u64>(),
        book.done,
        book.reruns,
        book.stale,
        book.killed.len(),
        book.frozen.len(),
        disturbed.as_secs_f64(),
        (start.elapsed() - disturbed).as_secs_f64(),
    );
    for (why, count) in &book.refused {
        println!("    refused {count} times: {why}");
    }
    for (what, times) in [
        ("killed beside", &mut book.after_kill),
        ("killed apart", &mut book.after_kill_apart),
        ("frozen", &mut book.after_freeze),
    ] {
        times.sort_unstable();
        let at = |tenths: usize| times.get((times.len() * tenths / 10).min(times.len().saturating_sub(1)));
        let [half, most, longest] = [5, 9, 10].map(|tenths| at(tenths).copied().unwrap_or_default() / 1000);
        println!(
            "    {} keys whose holder was {what} went on after: p50 {half} ms, p90 {most} ms, longest {longest} ms",
            times.len()
        );
        assert!(!times.is_empty(), "nobody was inside when it was {what}");
    }
    let broken = book.broken();
    let shown = broken.iter().take(20).map(String::as_str).collect::<Vec<_>>().join("\n  ");
    assert!(broken.is_empty(), "{} promises broken:\n  {shown}", broken.len());
    let without =
        book.ids().filter(|id| kept.get(*id).is_none_or(|record| record.state != "SUCCESS")).count();
    assert_eq!(without, 0, "all that were acknowledged have succeeded, and their records say so");
}
