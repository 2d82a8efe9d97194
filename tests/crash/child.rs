//! The child's side: which runtime it starts, and what it does in each role.

use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use celeriac::app::Builder;
use celeriac::broker::embedded::EmbeddedOptions;
use celeriac::catalogue::{Pool, QueueRow};
use celeriac::{Celeriac, TaskId};
use serde::{Deserialize, Serialize};

use crate::ledger::{self, Line, note};
use crate::workload::{Numbers, enqueue_taken, produce, watch};
use crate::{
    beat, brakes, bulk, console, deploys, earlier_store, exports, full_disk, lanes, ownership, poison,
    terminate, workflows,
};

pub type Failure = Box<dyn std::error::Error>;

/// What a child is told at its start.
#[derive(Default, Serialize, Deserialize)]
pub struct Orders {
    /// Tasks whose records are to be read.
    pub ask: Vec<(u64, String)>,
    /// Ids that are taken.
    pub taken: Vec<String>,
    pub seed: u64,
    /// Where each producer of lanes is on its way through its keys.
    pub walked: Vec<u64>,
    /// Bytes that the store is to leave free, if not the default.
    pub min_free: Option<u64>,
}

impl Orders {
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("orders have a form in JSON")
    }
}

/// What a role works with.
pub struct Child {
    pub life: u64,
    pub store: PathBuf,
    pub orders: Orders,
}

impl Child {
    /// The runtime that all roles start from.
    pub fn builder(&self) -> Builder {
        let mut options = EmbeddedOptions::default();
        options.delivery_limit = 1000; // here each kill is one of ours
        Celeriac::builder()
            .directory(&self.store)
            .embedded_options(options)
            .queue(QueueRow::new("io").with_pool(Pool::Io).with_workers(8))
            .queue(QueueRow::new("io2").with_pool(Pool::Io).with_workers(16))
            .queue(QueueRow::new("cpu").with_pool(Pool::Cpu).with_workers(4))
            .shutdown_grace(Duration::from_secs(2))
    }
}

/// Plays a role to its end.
pub fn run(role: &str) -> ExitCode {
    keep_quiet_about_wanted_panics();
    if let Ok(level) = std::env::var("CRASH_LOG") {
        let level = level.parse::<tracing_subscriber::filter::LevelFilter>().expect("a level, such as info");
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_max_level(level).init();
    }
    let variable = |name| std::env::var(name).unwrap_or_else(|_| panic!("{name} is set by the parent"));
    let life = variable("CRASH_LIFE").parse().expect("a number");
    ledger::begin(&PathBuf::from(variable("CRASH_LEDGER")), life);
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).expect("stdin is open");
    let orders =
        if line.trim().is_empty() { Orders::default() } else { serde_json::from_str(&line).expect("orders") };
    if !LISTENERS.contains(&role) {
        std::thread::spawn(end_with_the_parent);
    }
    let child = Child { life, store: variable("CRASH_STORE").into(), orders };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = runtime.expect("threads").block_on(async {
        match role {
            "mixed" => mixed(child).await,
            "beat" => beat::child(child).await,
            "brakes" => brakes::child(child).await,
            "bulk" => bulk::child(child).await,
            "console" => console::child(child).await,
            "earlier" => earlier_store::child(child).await,
            "exports" => exports::child(child).await,
            "serving" => deploys::serving(child).await,
            "showing" => deploys::showing(child).await,
            "drain" => drain(child).await,
            "births" => births(child).await,
            "full-disk" => full_disk::child(child).await,
            "lanes" => lanes::child(child).await,
            "lanes-drain" => lanes::drain(child).await,
            "workflows" => workflows::child(child).await,
            "workflows-drain" => workflows::drain(child).await,
            "ownership" => ownership::child(child).await,
            "poison" => poison::child(child).await,
            "terminate" => terminate::child(child).await,
            "panics" => terminate::panicking_child(child).await,
            other => panic!("no role {other}"),
        }
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Roles that read their stdin themselves, and end when it does.
const LISTENERS: [&str; 2] = ["full-disk", "ownership"];

/// A parent that was killed itself closes its end of the pipe; its child must not go on for ever.
fn end_with_the_parent() {
    let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
    std::process::exit(3);
}

/// Tells the parent.
pub fn say(line: &str) {
    println!("{line}"); // stdout is line-buffered
}

fn keep_quiet_about_wanted_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let text = info.payload().downcast_ref::<&str>().copied().unwrap_or_default();
        if !text.starts_with("a task of kind Panic") {
            usual(info);
        }
    }));
}

/// Enqueues, runs and watches until it is told to end, if it lives that long.
async fn mixed(child: Child) -> Result<(), Failure> {
    let celeriac = child.builder().start().await?;
    let numbers = Arc::new(Numbers::of_life(child.life));
    for (n, id) in child.orders.ask {
        tokio::spawn(watch(celeriac.client(), n, TaskId::from(id)));
    }
    tokio::spawn(enqueue_taken(child.orders.taken));
    for producer in 0..4 {
        tokio::spawn(produce(celeriac.client(), Arc::clone(&numbers), child.orders.seed + producer));
    }
    until_signal(&celeriac, "up").await
}

/// Says `word` as soon as a signal would be heard, and ends the runtime at one.
pub async fn until_signal(celeriac: &Celeriac, word: &str) -> Result<(), Failure> {
    let listening = async {
        say(word);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased; // the first look installs the handlers
        ended = celeriac.run_until_signal() => ended?,
        () = listening => return Err("nobody waits for ever".into()),
    };
    Ok(())
}

/// Runs what is left, reads the records asked for, lists the dead letters, shuts down.
async fn drain(child: Child) -> Result<(), Failure> {
    let celeriac = child.builder().start().await?;
    say("up");
    emptied(&celeriac).await?;
    for (n, id) in child.orders.ask {
        watch(celeriac.client(), n, TaskId::from(id)).await;
    }
    note_dead_letters(&celeriac).await?;
    let report = celeriac.shutdown().await?;
    if report.drained { Ok(()) } else { Err("the shutdown of an idle runtime did not drain".into()) }
}

/// Starts on an empty directory and stays.
async fn births(child: Child) -> Result<(), Failure> {
    let celeriac = child.builder().start().await?;
    until_signal(&celeriac, "up").await
}

/// Waits until nothing waits and nothing runs, by the runtime's own counts and those of the tenants; wrong ones would never
/// come to 0.
pub async fn emptied(celeriac: &Celeriac) -> Result<(), Failure> {
    let mut look = tokio::time::interval(Duration::from_millis(10));
    let patience = tokio::time::Instant::now() + crate::process::PATIENCE / 2;
    loop {
        look.tick().await;
        let queues = celeriac.queues().await?;
        if queues.missing.is_empty()
            && queues.iter().all(|q| (q.ready, q.held, q.scheduled, q.in_line, q.running) == (0, 0, 0, 0, 0))
        {
            let mut tenants = 0;
            for queue in queues.iter() {
                tenants += celeriac.tenants(&queue.name, 1).await.map_or(0, |found| found.total);
            }
            if tenants == 0 {
                return Ok(());
            }
        }
        if tokio::time::Instant::now() > patience {
            let left: Vec<_> = queues.iter().map(|q| (&q.name, q.ready, q.scheduled, q.running)).collect();
            return Err(format!("tasks are left (queue, ready, scheduled, running): {left:?}").into());
        }
    }
}

/// Notes all dead letters.
pub async fn note_dead_letters(celeriac: &Celeriac) -> Result<(), Failure> {
    for letter in celeriac.dead_letters(usize::MAX).await? {
        note(&Line::Dead { id: letter.message.id.to_string() });
    }
    Ok(())
}
