//! Twelve queues with the promises and the load of CommCare HQ's: how much of its promise the worst of them uses.

use std::time::Duration;

use celeriac::catalogue::{Catalogue, Pool, PoolRow, QueueRow, format_span};

use super::load::{FASTER, Modelled, events, scaled, used};
use super::support::figures::{Table, goal, time};
use super::support::sized;

/// The slots of the twelve queues.
const SHARED: usize = 40;
/// The seconds in which each queue has its rush hour once.
const PERIOD: f64 = 14_400.0;
/// All tasks, if they are in one line.
const LINE: &str = "line";

/// A queue: its name, its target and the mean of its runs in seconds, how far they scatter, and its part of the load.
const QUEUES: [(&str, f64, f64, f64, f64); 12] = [
    ("email", 30.0, 1.5, 0.8, 0.05),
    ("export", 30.0, 90.0, 1.0, 0.12),
    ("restore", 60.0, 8.0, 1.0, 0.08),
    ("import", 60.0, 600.0, 1.2, 0.16),
    ("sms", 300.0, 0.8, 0.6, 0.04),
    ("reminder", 900.0, 1.0, 0.7, 0.04),
    ("repeat", 900.0, 3.0, 1.2, 0.10),
    ("rule", 900.0, 900.0, 1.0, 0.06),
    ("background", 600.0, 20.0, 1.8, 0.12),
    ("case_rule", 3_600.0, 1_200.0, 1.0, 0.08),
    ("saved_export", 21_600.0, 600.0, 1.2, 0.10),
    ("logs", 21_600.0, 2.0, 0.8, 0.05),
];

#[derive(Clone, Copy, PartialEq)]
enum Policy {
    Static,
    OneLine,
    Shared,
}

fn modelled() -> Vec<Modelled> {
    let queues = QUEUES.into_iter().map(|(name, target, mean, scatter, part)| Modelled {
        name: name.to_owned(),
        target,
        mean,
        scatter,
        work: SHARED as f64 * part,
    });
    queues.collect()
}

fn catalogue(policy: Policy, queues: &[Modelled]) -> Catalogue {
    let row = |name: &str, workers| QueueRow::new(name).with_pool(Pool::Io).with_workers(workers);
    if policy == Policy::OneLine {
        return Catalogue::new().with_queue(row(LINE, SHARED));
    }
    // Workers of their own, by the load, as somebody would set them who knew it.
    let mut own: Vec<usize> = queues.iter().map(|queue| (queue.work.round() as usize).max(1)).collect();
    while own.iter().sum::<usize>() > SHARED {
        if let Some(most) = own.iter_mut().max() {
            *most -= 1;
        }
    }
    let mut catalogue = Catalogue::new();
    if policy == Policy::Shared {
        catalogue = catalogue.with_pool(Pool::Io, PoolRow::new(SHARED).with_reserve(0));
    }
    for (queue, own) in queues.iter().zip(own) {
        let workers = if policy == Policy::Shared { SHARED } else { own };
        let row = row(&queue.name, workers).with_target(scaled(queue.target));
        catalogue = catalogue.with_queue(row.with_typical_duration(format_span(scaled(queue.mean))));
    }
    catalogue
}

/// Measures each policy at loads that the slots can take, can hardly take, and cannot take.
pub async fn promises() {
    let span = sized(3_600.0, 400.0);
    let queues = modelled();
    let policies =
        [(Policy::Static, "workers of their own"), (Policy::OneLine, "one line"), (Policy::Shared, "a pool")];
    let mut table = Table::new(&["load", "", "worst p95 of waited / target", "queues over their target"]);
    let mut worsts = Vec::new();
    for load in sized(vec![0.85, 0.95, 1.15], vec![0.95]) {
        let events = events(&queues, load, span, PERIOD);
        for (policy, name) in policies {
            let line = (policy == Policy::OneLine).then_some(LINE);
            let used = used(catalogue(policy, &queues), &queues, &events, line).await;
            let worst = used.iter().copied().fold(0.0, f64::max);
            let over = used.iter().filter(|used| **used > 1.0).count();
            worsts.push((load, policy, worst));
            table.row([format!("{load}"), name.to_owned(), format!("{worst:.2}"), format!("{over} of 12")]);
        }
    }
    table.print(&format!(
        "`queues`: twelve queues on {SHARED} slots, {} of their life, at 1/{FASTER} of its time",
        time(Duration::from_secs_f64(span))
    ));
    println!();
    for (load, _, pooled) in worsts.iter().filter(|(_, policy, _)| *policy == Policy::Shared) {
        let others = worsts.iter().filter(|(of, policy, _)| of == load && *policy != Policy::Shared);
        let best = others.map(|(.., worst)| *worst).fold(f64::INFINITY, f64::min);
        let met = *pooled <= best && (*load >= 1.0 || *pooled <= 1.0);
        let text = "every target kept below a load of 1, and above it no worse than the others";
        println!("load {load}: a pool {pooled:.2}, the better of the others {best:.2}; {}", goal(met, text));
    }
}
