//! A source poller in three processes on RabbitMQ and Redis, over one table in SQLite: the one that runs it is killed, and then
//! frozen for longer than its lease. Each row that is due gets its task, and never a second one beside it.
//!
//! A fourth process works, and nothing happens to it. A row may be looked at just before its task is over and enqueued just
//! after, for the table is the truth; so a task looks whether its row is still due.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use celeriac::catalogue::{Pool, QueueRow};
use celeriac::store::RedisOptions;
use celeriac::task::source_poller::{Due, Source, SourcePoller};
use celeriac::{Celeriac, Context, TaskError, task};
use rusqlite::{Connection, params};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::ledger::{Reader, note};
use crate::process::{Home, Life};
use crate::scene::STEADY;
use crate::services::{RabbitMq, Redis, await_condition};

pub const QUEUE: &str = "rows";
const LOOP: &str = "rows";
const TENANTS: u64 = 3;
/// Rows of one round.
const ROWS: u64 = 200;

#[derive(Serialize, Deserialize)]
struct Orders {
    amqp: String,
    redis: String,
    table: PathBuf,
    produces: bool,
}

/// What happened to the task of a row.
#[derive(Debug, Serialize, Deserialize)]
enum Line {
    Start {
        row: u64,
        id: String,
    },
    /// It found its row due, and it is so no more; or it did not.
    End {
        row: u64,
        id: String,
        was_due: bool,
    },
}

struct Table(Connection);

impl Table {
    fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(120))?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.execute(
            "CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, due INTEGER NOT NULL)",
            [],
        )?;
        Ok(Self(connection))
    }

    fn add(&mut self, rows: std::ops::Range<u64>) -> rusqlite::Result<()> {
        let all = self.0.transaction()?;
        for row in rows {
            let tenant = format!("tenant {}", row % TENANTS);
            all.execute("INSERT INTO rows VALUES (?1, ?2, 1)", params![row, tenant])?;
        }
        all.commit()
    }

    fn due(&self, limit: usize) -> rusqlite::Result<Vec<(u64, String)>> {
        let mut query = self.0.prepare("SELECT id, tenant FROM rows WHERE due = 1 ORDER BY id LIMIT ?1")?;
        query.query_map([limit], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    }

    /// Whether it was due until now.
    fn done(&self, row: u64) -> rusqlite::Result<bool> {
        Ok(self.0.execute("UPDATE rows SET due = 0 WHERE id = ?1 AND due = 1", [row])? == 1)
    }
}

struct Rows(PathBuf);

#[async_trait]
impl Source for Rows {
    async fn due(&self, limit: usize) -> Result<Vec<Due>, TaskError> {
        let table = self.0.clone();
        let asked = tokio::task::spawn_blocking(move || Table::open(&table)?.due(limit));
        let due = asked.await.map_err(std::io::Error::other)?.map_err(std::io::Error::other)?;
        let table = self.0.display().to_string();
        let row = |(row, tenant)| Due::new(row, process_row::s(table.clone(), row)).tenant(tenant);
        Ok(due.into_iter().map(row).collect())
    }
}

#[task(queue = "rows", ignore_result)]
async fn process_row(ctx: Context, table: String, row: u64) -> Result<(), TaskError> {
    let id = ctx.id().to_string();
    note(&Line::Start { row, id: id.clone() });
    tokio::time::sleep(Duration::from_millis(20)).await; // stands for work; the loop looks meanwhile
    let done = tokio::task::spawn_blocking(move || Table::open(Path::new(&table))?.done(row));
    let was_due = done.await.map_err(std::io::Error::other)?.map_err(std::io::Error::other)?;
    note(&Line::End { row, id, was_due });
    Ok(())
}

/// Produces or works, until it is told to end.
pub async fn child(
    orders: &str,
    mut commands: mpsc::UnboundedReceiver<String>,
) -> Result<(), Box<dyn std::error::Error>> {
    let Orders { amqp, redis, table, produces } = serde_json::from_str(orders)?;
    let row = QueueRow::new(QUEUE).with_pool(Pool::Io).with_workers(8).with_served(!produces);
    let mut builder = Celeriac::builder()
        .amqp(amqp)
        .redis(redis, RedisOptions::default())
        .queue(row)
        .queue(QueueRow::new(crate::child::QUEUE).with_served(false))
        .arbiters(1);
    if produces {
        let poller = SourcePoller::new(LOOP, Rows(table)).batch(40).interval(Duration::from_millis(20));
        builder = builder.poller(poller.unique_for(Duration::from_secs(3600)));
    }
    let celeriac = builder.start().await?;
    println!("up");
    while let Some(command) = commands.recv().await {
        if command != "leads" {
            break;
        }
        println!("leads {}", celeriac.pollers().await?[0].leads);
    }
    celeriac.shutdown().await?;
    Ok(())
}

fn leads(life: &mut Life) -> bool {
    life.tell("leads");
    life.expect("leads ") == "leads true"
}

/// What is known of the rows.
struct Watch {
    reader: Reader,
    /// The task that a row has now.
    running: HashMap<u64, String>,
    done: HashMap<u64, u32>,
    runs: u64,
}

impl Watch {
    fn read(&mut self) {
        for line in self.reader.lines() {
            match line {
                Line::Start { row, id } => {
                    self.runs += 1;
                    let other = self.running.insert(row, id.clone());
                    assert!(other.is_none(), "row {row} has the tasks {other:?} and {id} at a time");
                }
                Line::End { row, id, was_due } => {
                    assert_eq!(self.running.remove(&row), Some(id), "of row {row}");
                    *self.done.entry(row).or_default() += u32::from(was_due);
                }
            }
        }
    }

    fn until_done(&mut self, rows: u64) {
        await_condition("each row has had its task", || {
            self.read();
            match self.done.values().filter(|times| **times == 1).count() as u64 {
                done if done == rows && self.running.is_empty() => Ok(()),
                done => Err(format!("{done} of {rows} are done, {} run", self.running.len())),
            }
        });
    }
}

pub fn each_row_once() {
    let mut home = Home::new();
    let path = home.path().join("table.sqlite");
    let mut table = Table::open(&path).expect("SQLite");
    let (amqp, redis) = (format!("{}?{STEADY}", RabbitMq::shared().vhost("producers")), Redis::start());
    let reader = Reader::open(&home.ledger());
    let mut watch = Watch { reader, running: HashMap::new(), done: HashMap::new(), runs: 0 };
    let mut spawn = |produces| {
        let orders = Orders { amqp: amqp.clone(), redis: redis.url(), table: path.clone(), produces };
        let life = home.spawn("producers", &serde_json::to_string(&orders).expect("orders"));
        life.expect("up");
        life
    };
    let mut worker = spawn(false);
    let mut pollers: Vec<Life> = (0..3).map(|_| spawn(true)).collect();
    let mut rows = 0;
    let mut add = || {
        table.add(rows..rows + ROWS).expect("rows");
        rows += ROWS;
        rows
    };
    let leader = |pollers: &mut Vec<Life>| -> usize {
        let mut leader = None;
        await_condition("one leads", || {
            let leading: Vec<usize> = (0..pollers.len()).filter(|n| leads(&mut pollers[*n])).collect();
            leader = leading.first().copied();
            if leading.len() == 1 { Ok(()) } else { Err(format!("{leading:?} do")) }
        });
        leader.expect("it was found")
    };
    watch.until_done(add());

    let first = leader(&mut pollers);
    let all = add();
    assert!(pollers.swap_remove(first).kill_9().was_killed());
    watch.until_done(all);

    let second = leader(&mut pollers);
    pollers[second].signal(Signal::STOP);
    watch.until_done(add());
    // It does not know yet that another one has taken over.
    pollers[second].signal(Signal::CONT);
    watch.until_done(add());
    assert_ne!(leader(&mut pollers), second, "who was away stands by");
    println!("    {rows} rows, {} tasks", watch.runs);
    for life in pollers.iter_mut().chain([&mut worker]) {
        life.tell("end");
    }
    pollers.into_iter().chain([worker]).for_each(|life| life.death().assert_clean());
    watch.read();
    assert!(watch.done.values().all(|times| *times == 1), "{:?}", watch.done);
}
