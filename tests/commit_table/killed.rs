//! `kill -9` of a shop that keeps its tasks in an embedded store: at each step, and at random moments.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::block_on;
use crate::book::Book;
use crate::child::Plan;
use crate::database::Database;
use crate::ledger::Reader;
use crate::process::Home;
use crate::services::{MariaDb, Postgres};
use crate::tripping::Step;

/// How often a process dies at each step.
const ROUNDS: usize = 3;
/// At least so many kills at random moments.
const KILLS: usize = 20;

/// How many orders a case takes.
pub fn wanted() -> usize {
    let text = std::env::var("COMMIT_ORDERS").ok();
    text.map_or(1000, |text| text.parse().unwrap_or_else(|_| panic!("COMMIT_ORDERS={text} is no number")))
}

pub fn at_each_step_on_sqlite() {
    let home = Home::new();
    let database = Database::Sqlite(home.path().join("orders.db"));
    at_each_step(home, database);
}

pub fn at_each_step_on_postgres() {
    let postgres = Postgres::start();
    at_each_step(Home::new(), Database::Postgres(postgres.url()));
}

pub fn at_each_step_on_mysql() {
    let mariadb = MariaDb::start();
    at_each_step(Home::new(), Database::MySql(mariadb.url()));
}

pub fn at_random_on_sqlite() {
    let home = Home::new();
    let database = Database::Sqlite(home.path().join("orders.db"));
    at_random(home, database);
}

pub fn at_random_on_postgres() {
    let postgres = Postgres::start();
    at_random(Home::new(), Database::Postgres(postgres.url()));
}

pub fn at_random_on_mysql() {
    let mariadb = MariaDb::start();
    at_random(Home::new(), Database::MySql(mariadb.url()));
}

fn at_each_step(mut home: Home, database: Database) {
    block_on(database.create()).expect("the tables");
    let mut reader = Reader::open(&home.ledger());
    let mut book = Book::default();
    for step in Step::ALL.into_iter().cycle().take(ROUNDS * Step::ALL.len()) {
        let plan = Plan { step: Some(step), ..Plan::of(database.clone()) };
        let death = home.spawn("shop", &plan.line()).death();
        death.assert_no_panic();
        assert!(death.was_killed(), "{step:?}: {}: {}", death.status, death.stderr);
        book.read(&mut reader);
    }
    drain(home, database, &mut reader, book);
}

fn at_random(mut home: Home, database: Database) {
    block_on(database.create()).expect("the tables");
    let seed = rand::rng().random_range(0..1_000_000);
    println!("    seed {seed}, {} orders", wanted());
    let mut rng = StdRng::seed_from_u64(seed);
    let mut reader = Reader::open(&home.ledger());
    let mut book = Book::default();
    let mut kills = 0;
    while book.committed.len() < wanted() || kills < KILLS {
        let plan = Plan::of(database.clone());
        let life = home.spawn("shop", &plan.line());
        life.expect("up");
        // The moment of the kill is what this is about, so this is a sleep that is meant.
        std::thread::sleep(Duration::from_micros(rng.random_range(0..100_000)));
        let death = life.kill_9();
        death.assert_no_panic();
        assert!(death.was_killed(), "{}: {}", death.status, death.stderr);
        kills += 1;
        book.read(&mut reader);
    }
    println!("    {kills} kills");
    drain(home, database, &mut reader, book);
}

/// Has what is left forwarded and sent, and compares.
fn drain(mut home: Home, database: Database, reader: &mut Reader, mut book: Book) {
    let plan = Plan::of(database.clone());
    home.spawn("drain", &plan.line()).death().assert_clean();
    book.read(reader);
    let orders = block_on(async { database.open().await?.all().await }).expect("the orders");
    book.close(&orders);
}
