//! The book of the flows: the account of each part, and everything in it that breaks a promise.
//!
//! What *twice* means here, as in `tests/crash/workflows.rs`: a part started although it was settled, that is, what waits for it
//! had begun, or the end of its flow had been read. And besides, as two servers have no step in common: it started under
//! another id than before, or once more although no process that had it has died, so that it must have been published twice.
//! What starts again because its own process was killed is a *rerun*, as at-least-once allows it.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::flow::Shape;

/// One thing that happened in the process `life`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Line {
    /// The enqueue of a flow returned Ok.
    Ack { flow: u64 },
    /// A part began.
    Start { life: u64, flow: u64, part: u64, id: String, attempt: u32, again: bool },
    /// It did what it is there for.
    Done { life: u64, flow: u64, part: u64 },
    /// Somebody who waited for the flow has read how it ended.
    Over { flow: u64, end: String },
}

/// What is known of one part.
#[derive(Default)]
struct Account {
    id: Option<String>,
    /// The processes in which each attempt started, in order.
    starts: HashMap<u32, Vec<u64>>,
    done: bool,
    settled: bool,
}

/// All accounts.
#[derive(Default)]
pub struct Book {
    parts: HashMap<(u64, u64), Account>,
    pub acked: HashSet<u64>,
    pub over: HashSet<u64>,
    /// The processes that were killed.
    pub killed: HashSet<u64>,
    pub starts: u64,
    /// Starts that a kill has made necessary, and those of them that were told so.
    pub reruns: u64,
    pub told: u64,
    pub twice: Vec<String>,
    broken: Vec<String>,
}

impl Book {
    /// Enters what the ledger has new.
    pub fn enter(&mut self, lines: Vec<Line>) {
        for line in lines {
            match line {
                Line::Ack { flow } => drop(self.acked.insert(flow)),
                Line::Start { life, flow, part, id, attempt, again } => {
                    self.start(life, flow, part, id, attempt, again);
                }
                Line::Done { flow, part, .. } => self.parts.entry((flow, part)).or_default().done = true,
                Line::Over { flow, end } => {
                    let shape = Shape::of(flow);
                    if end != shape.end(flow) {
                        self.broken.push(format!(
                            "flow {flow} ({shape:?}) ended with {end}, not {}",
                            shape.end(flow)
                        ));
                    }
                    if let Some(part) = shape.last() {
                        self.parts.entry((flow, part)).or_default().settled = true;
                    }
                    self.over.insert(flow);
                }
            }
        }
    }

    fn start(&mut self, life: u64, flow: u64, part: u64, id: String, attempt: u32, again: bool) {
        let shape = Shape::of(flow);
        let what = format!("part {part} of flow {flow} ({shape:?}), attempt {attempt}, in process {life},");
        if !shape.parts().contains(&part) {
            self.broken.push(format!("{what} started, and was not to"));
        }
        for before in shape.before(part) {
            let before = self.parts.entry((flow, *before)).or_default();
            before.settled = true;
            if !before.done {
                self.broken.push(format!("{what} started too early"));
            }
        }
        let account = self.parts.entry((flow, part)).or_default();
        self.starts += 1;
        if account.settled {
            self.twice.push(format!("{what} started after it was settled"));
        }
        if account.id.get_or_insert_with(|| id.clone()) != &id {
            self.twice.push(format!("{what} started under another id"));
        }
        let starts = account.starts.entry(attempt).or_default();
        if let Some(last) = starts.last() {
            self.reruns += 1;
            self.told += u64::from(again);
            if !self.killed.contains(last) {
                self.twice.push(format!("{what} was published twice: process {last}, which had it, lives"));
            }
        }
        starts.push(life);
    }

    /// What is not done yet of the flows that were acknowledged.
    pub fn open(&self) -> Vec<String> {
        let mut open = Vec::new();
        for flow in &self.acked {
            if !self.over.contains(flow) {
                open.push(format!("flow {flow} ({:?}) has no end", Shape::of(*flow)));
            }
            for part in Shape::of(*flow).parts() {
                if !self.parts.get(&(*flow, *part)).is_some_and(|account| account.done) {
                    open.push(format!("part {part} of flow {flow} ({:?}) is not done", Shape::of(*flow)));
                }
            }
        }
        open
    }

    /// Panics with what was broken.
    pub fn assert_kept(&self) {
        assert!(self.broken.is_empty(), "{:#?}", self.broken);
        assert!(self.twice.is_empty(), "{:#?}", self.twice);
    }

    /// What it came to.
    pub fn print(&self) {
        println!(
            "    {} processes killed, acked {} flows, starts {}, reruns {} (told {}), lost {}, twice {}",
            self.killed.len(),
            self.acked.len(),
            self.starts,
            self.reruns,
            self.told,
            self.open().len(),
            self.twice.len()
        );
    }
}
