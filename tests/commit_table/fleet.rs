//! One program that takes orders and runs no Celeriac, and three that forward and send over RabbitMQ and Redis, with one
//! Postgres: workers are killed again and again.

use std::time::Duration;

use rand::Rng;

use crate::block_on;
use crate::book::Book;
use crate::child::Plan;
use crate::database::Database;
use crate::killed::wanted;
use crate::ledger::Reader;
use crate::process::Home;
use crate::services::{Postgres, RabbitMq, Redis, await_condition_for};

/// Longer than it takes on a slow machine; who waits this long has hung.
const PATIENCE: Duration = Duration::from_secs(600);
const WORKERS: usize = 3;
const KILLS: usize = 10;

pub fn of_workers_on_rabbitmq() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    let amqp = RabbitMq::shared().vhost("commit-table");
    let database = Database::Postgres(postgres.url());
    block_on(database.create()).expect("the tables");
    let mut home = Home::new();
    let mut reader = Reader::open(&home.ledger());
    let mut book = Book::default();
    // One order in five is rolled back.
    let count = i64::try_from(wanted() * 5 / 4 + 5).expect("a number of orders");
    let fleet = Some((amqp, redis.url()));
    let plan = Plan { fleet, orders: count, ..Plan::of(database.clone()) };
    let mut spawn = |role: &str| {
        let life = home.spawn(role, &plan.line());
        life.expect("up");
        life
    };
    let mut workers: Vec<_> = (0..WORKERS).map(|_| spawn("worker")).collect();
    let mut writer = spawn("writer");
    for kill in 1..=KILLS {
        let share = wanted() * kill / KILLS;
        await_condition_for(PATIENCE, "more orders have their mails", || {
            book.read(&mut reader);
            let missing = book.missing(&book.committed);
            match book.committed.len() - missing {
                sent if sent >= share => Ok(()),
                sent => Err(format!("{sent} of {share}, {missing} wait")),
            }
        });
        let killed = workers.swap_remove(rand::rng().random_range(0..WORKERS)).kill_9();
        killed.assert_no_panic();
        assert!(killed.was_killed(), "{}: {}", killed.status, killed.stderr);
        workers.push(spawn("worker"));
    }
    writer.tell("end");
    writer.death().assert_clean();
    let orders = block_on(async { database.open().await?.all().await }).expect("the orders");
    await_condition_for(PATIENCE, "each order has its mail", || {
        book.read(&mut reader);
        match book.missing(&orders) {
            0 => Ok(()),
            missing => Err(format!("{missing} of {} wait", orders.len())),
        }
    });
    for mut worker in workers {
        worker.tell("end");
        worker.death().assert_clean();
    }
    book.read(&mut reader);
    let left = block_on(async { database.open().await?.waiting().await }).expect("the commit table");
    assert_eq!(left, 0, "rows are left");
    book.close(&orders);
}
