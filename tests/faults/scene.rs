//! A scene: a virtual host, a fleet of processes, and more tasks in flight than they can take for as long as things break.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::book::{Book, Sums};
use crate::child::Orders;
use crate::ledger::{Reader, now};
use crate::process::{Home, Life};
use crate::services::{RabbitMq, Redis};
use crate::witness::Witness;

/// Longer than anything takes on a slow machine; who waits this long has hung.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// Only what is cut here is cut: on a machine that has no time for heartbeats they would cut as well.
pub const STEADY: &str = "heartbeat=60";
/// Workers of each process.
pub const WORKERS: usize = 8;

/// How many tasks a case takes.
pub static TASKS: LazyLock<u64> = LazyLock::new(|| {
    let text = std::env::var("FAULTS_TASKS").ok();
    text.map_or(2500, |text| text.parse().unwrap_or_else(|_| panic!("FAULTS_TASKS={text} is not a number")))
});

/// A process of the fleet.
pub struct Member {
    pub life: Life,
    /// It was told to enqueue, and has not said yet that it has.
    enqueuing: bool,
}

pub struct Scene {
    pub orders: Orders,
    pub home: Home,
    pub members: Vec<Member>,
    pub book: Book,
    pub witness: Witness,
    reader: Reader,
    /// How many tasks are to be enqueued in all, and what is left of them.
    tasks: u64,
    left: u64,
    /// Processes that were killed.
    pub kills: u64,
    /// Where consumption began to be disturbed.
    pub disturbed_from: u64,
}

impl Scene {
    /// On the node that all cases share, in a virtual host of its own. Cases run one after the other, and leave the node as it was.
    pub fn shared() -> Self {
        static SCENES: AtomicU32 = AtomicU32::new(0);
        let url = RabbitMq::shared().vhost(&format!("scene-{}", SCENES.fetch_add(1, Ordering::Relaxed)));
        Self::at(format!("{url}?{STEADY}"))
    }

    /// Tasks do not end until it is opened again.
    pub fn close_gate(&self) {
        std::fs::write(&self.orders.gate, "").expect("a file");
    }

    pub fn open_gate(&self) {
        std::fs::remove_file(&self.orders.gate).expect("it was closed");
    }

    pub fn at(amqp: String) -> Self {
        let redis = Redis::shared().url();
        let home = Home::new();
        Self {
            witness: Witness::start(&redis),
            orders: Orders {
                amqp,
                redis,
                workers: WORKERS,
                none_in_reserve: false,
                quorum: false,
                outbox: None,
                gate: home.path().join("gate"),
                takes: 20,
            },
            reader: Reader::open(&home.ledger()),
            home,
            members: Vec::new(),
            book: Book::default(),
            tasks: *TASKS,
            left: *TASKS,
            kills: 0,
            disturbed_from: 0,
        }
    }

    /// How many tasks are enqueued in all.
    pub fn tasks(mut self, tasks: u64) -> Self {
        (self.tasks, self.left) = (tasks, tasks);
        self
    }

    /// Enqueues no more.
    pub fn enough(&mut self) {
        self.tend();
        (self.tasks, self.left) = (0, 0);
    }

    /// One more process, up and working.
    pub fn join(&mut self) {
        let member = self.spawn();
        member.life.expect("up");
        self.members.push(member);
    }

    /// So many more, which start at the same time.
    pub fn join_all(&mut self, count: usize) {
        let members: Vec<_> = (0..count).map(|_| self.spawn()).collect();
        for member in members {
            member.life.expect("up");
            self.members.push(member);
        }
    }

    fn spawn(&mut self) -> Member {
        let orders = serde_json::to_string(&self.orders).expect("orders have a form in JSON");
        Member { life: self.home.spawn("fleet", &orders), enqueuing: false }
    }

    /// `kill -9`, of these members at the same time.
    pub fn kill(&mut self, which: &[usize]) {
        let mut which = which.to_vec();
        which.sort_unstable_by(|a, b| b.cmp(a));
        let killed: Vec<_> = which.into_iter().map(|n| self.members.swap_remove(n)).collect();
        for member in &killed {
            member.life.signal(rustix::process::Signal::KILL);
        }
        for member in killed {
            assert!(member.life.death().was_killed());
            self.kills += 1;
        }
    }

    /// Reads the ledger, and keeps thousands of tasks in flight for as long as there are any left.
    pub fn tend(&mut self) {
        self.book.enter(self.reader.lines());
        let wanted = (*TASKS / 2).max(500);
        for member in &mut self.members {
            member.enqueuing &= !member.life.has_said("enqueued");
        }
        if self.members.iter().any(|member| member.enqueuing) {
            return;
        }
        // What a killed process had not enqueued is for the others.
        self.book.enter(self.reader.lines());
        self.left = self.tasks.saturating_sub(self.book.acked + self.book.refused);
        if self.book.acked.saturating_sub(self.book.finished) >= wanted {
            return;
        }
        let share = self.left.min(wanted).div_ceil(self.members.len().max(1) as u64);
        for member in &mut self.members {
            let share = share.min(self.left);
            if share > 0 {
                member.life.tell(&format!("more {share}"));
                member.enqueuing = true;
                self.left -= share;
            }
        }
    }

    /// Each member enqueues so many, one after the other.
    pub fn ordered(&mut self, count: u64) {
        for member in &mut self.members {
            member.life.tell(&format!("ordered {count}"));
            member.enqueuing = true;
        }
    }

    /// Tends until something holds.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&Book) -> bool) {
        let start = Instant::now();
        loop {
            self.tend();
            if holds(&self.book) {
                return;
            }
            self.look_at_time(start, what);
            std::thread::sleep(Duration::from_millis(20)); // between two looks at a file that others write
        }
    }

    /// Tends until so many more tasks are finished, or nearly all.
    pub fn progress(&mut self, by: u64) {
        let nearly_all = self.tasks - self.tasks / 20;
        let goal = (self.book.finished + by).min(nearly_all.max(self.book.finished));
        self.until(&format!("{by} more are finished"), |book| book.finished >= goal);
    }

    /// Tends until something starts that had not when this was called; how long that took.
    pub fn until_it_goes_on(&mut self) -> Duration {
        self.tend();
        let (begin, starts) = (Instant::now(), self.book.starts);
        // More than what was delivered before can make.
        let more = (WORKERS * self.members.len() * 2) as u64;
        self.until("it goes on", |book| book.starts > starts + more);
        begin.elapsed()
    }

    fn look_at_time(&self, start: Instant, what: &str) {
        if start.elapsed() < PATIENCE {
            return;
        }
        let book = &self.book;
        for member in &self.members {
            println!("    process {}: {}", member.life.pid(), member.life.stderr());
        }
        panic!(
            "not within {PATIENCE:?}: {what}; acked {}, refused {}, started {}, finished {}, left {}, open {}",
            book.acked,
            book.refused,
            book.starts,
            book.finished,
            self.left,
            self.witness.with(|records| book.open(records))
        );
    }

    /// Waits until all that was acknowledged is finished and has its record.
    pub fn settle(&mut self) {
        let start = Instant::now();
        loop {
            self.tend();
            let enqueuing = self.members.iter().any(|member| member.enqueuing);
            if self.left == 0 && !enqueuing && self.witness.with(|records| self.book.open(records)) == 0 {
                return;
            }
            self.look_at_time(start, "all that was acknowledged is finished");
            std::thread::sleep(Duration::from_millis(20)); // as above
        }
    }

    /// Lets the fleet finish and end, closes the book, prints what it came to.
    pub fn end(mut self) -> (Book, Sums) {
        self.tend();
        // While there is enough to do; the last ones may wait for the lease of a process or a node that died.
        let pause = self.book.longest_pause(self.disturbed_from);
        self.settle();
        for member in &mut self.members {
            member.life.tell("end");
        }
        for member in self.members.drain(..) {
            member.life.death().assert_clean();
        }
        self.book.enter(self.reader.lines());
        let kept = self.witness.kept();
        let book = self.book;
        let sums = self.witness.with(|records| book.close(self.orders.workers, records, &kept));
        println!(
            "    acked {} ({} by an outbox), refused {}, starts {}, reruns {} (untold {}), lost {}, settled twice {}, at once {} of {}, processes killed {}, longest pause {} ms",
            book.acked,
            book.outbox,
            book.refused,
            book.starts,
            sums.reruns,
            sums.untold,
            sums.lost,
            sums.twice,
            book.most,
            self.orders.workers,
            self.kills,
            pause
        );
        for (why, count) in &book.reasons {
            println!("    refused {count} times: {why}");
        }
        (book, sums)
    }

    /// From here on pauses are counted.
    pub fn disturb(&mut self) {
        self.disturbed_from = now();
    }
}
