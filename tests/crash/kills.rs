//! `kill -9`, again and again, at any moment: under load, while the store recovers, while it shuts down.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;

use crate::book::{Book, Totals, spread};
use crate::child::Orders;
use crate::ledger::Reader;
use crate::process::Home;
use crate::workload::custom_id;

/// Bounds what a start may take on the slowest machine; what it takes on this one is printed.
const GENEROUS: u64 = 60_000_000;

pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// When a life ends.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So long after it said that it is up.
    Working(Duration),
    /// So long after its spawn.
    Starting(Duration),
    /// After SIGTERM at the first, by SIGKILL so long after that.
    Ending(Duration, Duration),
}

impl Moment {
    fn draw(rng: &mut StdRng, start_takes: u64) -> Self {
        let ms = |rng: &mut StdRng, most: u64| Duration::from_micros(rng.random_range(0..most * 1000));
        match rng.random_range(0..20) {
            0..3 => Self::Starting(Duration::from_micros(rng.random_range(0..start_takes.max(1000)))),
            3..6 => Self::Ending(ms(rng, 60), ms(rng, 30)),
            _ => Self::Working(ms(rng, 79) + Duration::from_millis(1)),
        }
    }
}

/// At least 200 kills, and more where the machine is so slow that too little happens between them; one final life that
/// drains, and the book.
pub fn at_random_moments() {
    let seed = number("CRASH_SEED", rand::rng().random_range(0..1_000_000));
    let kills_wanted = number("CRASH_KILLS", 200);
    println!("    CRASH_SEED={seed} CRASH_KILLS={kills_wanted}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut home = Home::new();
    let mut reader = Reader::open(&home.ledger());
    let mut book = Book::default();
    let mut start_takes = 50_000;
    let mut kills = 0;
    let enough = |totals: &Totals| totals.acked > kills_wanted * 5 && totals.reruns > kills_wanted / 10;
    while kills < kills_wanted || !enough(&book.totals) && kills < kills_wanted * 5 {
        let asked = book.to_ask(40);
        let taken = asked.iter().filter(|(n, id)| *id == custom_id(*n)).map(|(_, id)| id.clone());
        let taken: Vec<_> = taken.collect::<Vec<_>>().choose_multiple(&mut rng, 3).cloned().collect();
        let orders =
            Orders { ask: asked, taken, seed: rng.random_range(0..u64::from(u32::MAX)), ..Orders::default() };
        let life = home.spawn("mixed", &orders.line());
        book.spawned_at.push(life.spawned_at);
        let moment = Moment::draw(&mut rng, start_takes);
        let spawned_at = life.spawned_at;
        if !matches!(moment, Moment::Starting(_)) {
            life.expect("up");
            start_takes = crate::ledger::now() - spawned_at;
        }
        // The moments of the kills are what this is about, so these are the sleeps that are meant.
        match moment {
            Moment::Working(after) | Moment::Starting(after) => std::thread::sleep(after),
            Moment::Ending(after, then) => {
                std::thread::sleep(after);
                life.signal(Signal::TERM);
                std::thread::sleep(then);
            }
        }
        let death = life.kill_9();
        death.assert_no_panic();
        assert!(
            death.was_killed() || death.status.success(),
            "{moment:?}: {}: {}",
            death.status,
            death.stderr
        );
        kills += u64::from(death.was_killed());
        book.read(&mut reader);
        book.assert_kept();
    }
    let orders = Orders { ask: book.to_ask(usize::MAX), ..Orders::default() };
    let last = home.spawn("drain", &orders.line());
    book.spawned_at.push(last.spawned_at);
    last.death().assert_clean();
    book.read(&mut reader);
    book.close();
    println!(
        "    {kills} kills in {} lives, {} torn lines, last start took {} ms",
        home.lives(),
        reader.torn,
        start_takes / 1000
    );
    let totals = &book.totals;
    println!(
        "    acked {}, refused {}, starts {}, interrupted {}, reruns {} ({:.1} % of starts; {} had ended and were not settled)",
        totals.acked,
        totals.refused,
        totals.starts,
        totals.interrupted,
        totals.reruns,
        totals.reruns as f64 * 100.0 / totals.starts as f64,
        totals.over_again_unsettled
    );
    println!(
        "    acked and lost {}, settled twice {}, miscounted {}, records read {}",
        totals.lost, totals.settled_twice, totals.miscounted, totals.seen
    );
    println!("    spawn to first start: {}", spread(&book.first_starts));
    println!("    spawn to the rerun of an interrupted task: {}", spread(&book.restarts));
    book.assert_kept();
    assert!(enough(totals), "too little happened or was interrupted to mean anything: {totals:?}");
    let slowest = book.restarts.iter().max().copied().unwrap_or(0);
    assert!(slowest < GENEROUS, "an interrupted task started {slowest} µs after the restart");
}

/// Killed while it makes its store, a program finds a usable one or none, never a broken one.
pub fn while_the_store_is_made() {
    let mut rng = StdRng::seed_from_u64(number("CRASH_SEED", rand::rng().random_range(0..1_000_000)));
    let mut home = Home::new();
    let whole = home.spawn("births", "");
    whole.expect("up");
    let takes = crate::ledger::now() - whole.spawned_at;
    whole.kill_9();
    for birth in 0..25 {
        let store = home.path().join(format!("birth-{birth}"));
        home = home.with_store(store);
        let first = home.spawn("births", "");
        std::thread::sleep(Duration::from_micros(rng.random_range(0..takes)));
        first.kill_9().assert_no_panic();
        // The first start after it makes the tables anew; the second reads what that one made.
        for start in ["first", "second"] {
            let life = home.spawn("births", "");
            if life.hears("up").is_none() {
                let error = life.death().stderr;
                panic!("killed at its birth, the store does not open at the {start} start after it: {error}");
            }
            life.signal(Signal::TERM);
            life.death().assert_clean();
        }
    }
    println!("    25 births of about {} ms cut short", takes / 1000);
}
