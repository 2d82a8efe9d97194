//! What metrics cost: `cargo bench --bench metrics [-- --quick]`.
//!
//! First the accounts of a queue, which are written whether anybody scrapes or not: what one task adds to, from its arrival to
//! its end, beside the CPU that a whole task takes. Then a scrape of a program with the 24 queues of the shipped catalogue, 200
//! tasks that have run, and calls of 10,000 tenants: what it costs, whether anything of it grows with the tenants, which no label
//! has, and what tasks cost while somebody scrapes four times a second.

mod support;

use std::hint::black_box;
use std::time::{Duration, Instant};

use celeriac::core::accounts::{Accounts, Ended};
use celeriac::task::canvas::signature;
use celeriac::task::{Signature, Task};
use celeriac::{Catalogue, task};
use support::done::Watch;
use support::figures::{Series, Table, goal, time};
use support::process::size;
use support::store::Running;
use support::{headline, rounds, sized};

macro_rules! tasks {
    ($($name:ident)*) => {
        $(
            #[task(ignore_result)]
            async fn $name() {}
        )*

        /// The names of all of them.
        const TASKS: [&str; 200] = [$(<$name::Task as Task>::NAME),*];
    };
}

tasks! {
    t000 t001 t002 t003 t004 t005 t006 t007 t008 t009 t010 t011 t012 t013 t014 t015 t016 t017 t018 t019
    t020 t021 t022 t023 t024 t025 t026 t027 t028 t029 t030 t031 t032 t033 t034 t035 t036 t037 t038 t039
    t040 t041 t042 t043 t044 t045 t046 t047 t048 t049 t050 t051 t052 t053 t054 t055 t056 t057 t058 t059
    t060 t061 t062 t063 t064 t065 t066 t067 t068 t069 t070 t071 t072 t073 t074 t075 t076 t077 t078 t079
    t080 t081 t082 t083 t084 t085 t086 t087 t088 t089 t090 t091 t092 t093 t094 t095 t096 t097 t098 t099
    t100 t101 t102 t103 t104 t105 t106 t107 t108 t109 t110 t111 t112 t113 t114 t115 t116 t117 t118 t119
    t120 t121 t122 t123 t124 t125 t126 t127 t128 t129 t130 t131 t132 t133 t134 t135 t136 t137 t138 t139
    t140 t141 t142 t143 t144 t145 t146 t147 t148 t149 t150 t151 t152 t153 t154 t155 t156 t157 t158 t159
    t160 t161 t162 t163 t164 t165 t166 t167 t168 t169 t170 t171 t172 t173 t174 t175 t176 t177 t178 t179
    t180 t181 t182 t183 t184 t185 t186 t187 t188 t189 t190 t191 t192 t193 t194 t195 t196 t197 t198 t199
}

fn catalogue() -> Catalogue {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/celeriac.toml");
    Catalogue::load(file).expect("the shipped catalogue is right")
}

/// Nanoseconds for all that the accounts are told of one task.
fn accounts(tasks: usize) -> f64 {
    let mut accounts = Accounts::default();
    let (wait, run_time) = (Duration::from_millis(3), Duration::from_millis(40));
    let start = Instant::now();
    for n in 0..tasks {
        let name = black_box(TASKS[n % TASKS.len()]);
        let task = accounts.place(name);
        accounts.received(task);
        let task = accounts.place(name);
        accounts.started(task, wait, true);
        accounts.ran("SUCCESS", run_time);
        accounts.ended(task, Ended::Succeeded, Some(run_time));
    }
    black_box(&accounts);
    start.elapsed().as_secs_f64() * 1e9 / tasks as f64
}

/// Sends so many calls of each task, each to one queue, and waits until they have run.
async fn run_all(running: &Running, each: usize) {
    let queues: Vec<String> =
        running.celeriac.catalogue().queues.iter().map(|row| row.name.clone()).collect();
    for _ in 0..each {
        for (n, name) in TASKS.iter().enumerate() {
            let call = signature(*name).queue(queues[n % queues.len()].as_str());
            let _ = call.send(running.celeriac.client()).await.expect("accepted");
        }
    }
    for queue in &queues {
        running.settled(queue).await;
    }
}

/// Scrapes four times a second until something is done.
async fn scraped<T>(running: &Running, done: impl Future<Output = T>) -> T {
    let mut done = std::pin::pin!(done);
    let mut every = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            answer = &mut done => return answer,
            _ = every.tick() => drop(black_box(running.celeriac.metrics_text().await)),
        }
    }
}

/// One call of each of so many tenants.
async fn of_tenants(running: &Running, tenants: usize) {
    let calls = (0..tenants).map(|n| t000::s().queue("celery").tenant(format!("tenant-{n}")));
    let sent = Signature::send_many(calls, running.celeriac.client()).await.expect("accepted");
    assert_eq!(sent.len(), tenants);
    running.settled("celery").await;
}

/// The number of lines that are series.
fn series_in(text: &str) -> usize {
    text.lines().filter(|line| !line.starts_with('#')).count()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    headline("metrics");
    let (mut told, mut whole, mut scrapes) = (Series::default(), Series::default(), Series::default());
    let (mut beside, mut bytes, mut series) = (Series::default(), 0, 0);
    let tenants = sized(10_000, 200);
    for _ in 0..rounds() {
        told.push(accounts(sized(2_000_000, 20_000)));
        let running = Running::memory(catalogue()).await;
        let each = sized(200, 5);
        let watch = Watch::start();
        run_all(&running, each).await;
        whole.push(watch.stop((each * TASKS.len()) as u64).cpu * 1e3);
        let watch = Watch::start();
        scraped(&running, run_all(&running, each)).await;
        beside.push(watch.stop((each * TASKS.len()) as u64).cpu * 1e3);
        of_tenants(&running, 1).await; // the queue and the task of these calls are known from now on
        let before = series_in(&running.celeriac.metrics_text().await);
        of_tenants(&running, tenants).await;
        for _ in 0..sized(50, 3) {
            let start = Instant::now();
            let text = running.celeriac.metrics_text().await;
            scrapes.push(start.elapsed().as_secs_f64());
            (bytes, series) = (text.len(), series_in(&text));
            assert!(!text.contains("tenant-"), "no label has tenants");
        }
        assert_eq!(series, before, "the series do not grow with the tenants");
        running.shutdown().await;
    }
    let nanos = |nanos: f64| format!("{nanos:.0} ns");
    let mut table = Table::new(&[&format!("24 queues, 200 tasks, {tenants} tenants"), ""]);
    table.row(["the accounts, a task".to_owned(), told.show(nanos)]);
    table.row(["CPU of a whole task, in memory".to_owned(), whole.show(nanos)]);
    table.row(["the same, scraped four times a second".to_owned(), beside.show(nanos)]);
    table.row(["a scrape".to_owned(), scrapes.show(|s| time(Duration::from_secs_f64(s)))]);
    table.row(["its size".to_owned(), size(bytes as u64)]);
    table.row(["its series".to_owned(), series.to_string()]);
    table.print("What metrics cost");
    let share = told.median() / whole.median();
    println!(
        "\n{}",
        goal(share < 0.02, &format!("accounts under 2% of a task's CPU ({:.1}%)", share * 100.0))
    );
}
