//! What is known of the tenants of a program: what waits of each, what runs, what it has had in the last hour, and its weight.
//!
//! A look is shared by all who look. It costs as much as there are tenants, and nothing that grows with the backlog.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::address::LONGEST;
use super::rights::{Permission, Viewer};
use super::shared_looks::Looked;
use super::visit::ConsoleVisit;
use super::{Console, brake_form};
use crate::app::{ControlError, HistoryBy, HistoryCounts};
use crate::broker::QueueTenants;
use crate::core::Timestamp;
use crate::core::accounts::OTHER;
use crate::task::clock::now;

/// How long a look at the tenants is shared.
const FRESH: Duration = Duration::from_secs(2);
/// The most tenants of a queue that are told apart: those with the most tasks.
const MOST: usize = 10_000;
/// The most tenants about which the program is asked whether somebody may see them who may not see their queues.
const MOST_ASKED: usize = 500;
const HOUR: Duration = Duration::from_secs(3_600);

/// A tenant, as far as whoever looks may see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct TenantView {
    pub(super) name: String,
    /// Its tasks that could start, in the broker or fetched by this program, in the queues that may be seen.
    pub(super) ready: u64,
    /// Its other tasks that are delivered to a queue and not over: they run, or a limit holds them.
    pub(super) delivered: u64,
    /// What sums up all queues. It is left out if not all of them may be seen.
    #[serde(flatten)]
    pub(super) whole: Option<TenantWhole>,
    /// How much of the slots it gets beside others.
    pub(super) weight: f64,
    /// Until when it is paused as a whole by the console, if it is.
    #[serde(serialize_with = "crate::core::json_time::optional_iso")]
    pub(super) paused_until: Option<Timestamp>,
}

/// What is known of a tenant in all queues together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct TenantWhole {
    /// How many of its tasks run here.
    pub(super) running: usize,
    /// How many of its tasks wait in the memory of this process, those included that a limit holds.
    pub(super) waiting_here: usize,
    /// Whether it has had no more than its share.
    pub(super) is_owed: bool,
    /// How many runs of it began within the last hour, in all processes.
    pub(super) started: u64,
    /// How long they ran in all.
    #[serde(rename = "ran_ms", serialize_with = "crate::core::json_time::millis")]
    pub(super) ran: Duration,
    /// Its part of the time that tasks of tenants ran within the last hour.
    pub(super) share: f64,
    /// How many first starts there were, and how long they waited, on average and at most.
    pub(super) first_starts: u64,
    #[serde(rename = "waited_mean_ms", serialize_with = "crate::core::json_time::millis")]
    pub(super) waited_mean: Duration,
    #[serde(rename = "waited_longest_ms", serialize_with = "crate::core::json_time::millis")]
    pub(super) waited_longest: Duration,
}

/// A tenant, with what each queue has of it.
#[derive(Clone, Debug, Default)]
struct TenantEntry {
    /// By queue: what is ready, and what else is delivered.
    queues: BTreeMap<String, (u64, u64)>,
    whole: TenantWhole,
}

/// All tenants that are known.
#[derive(Clone, Debug, Default)]
pub(super) struct TenantBook {
    tenants: BTreeMap<String, TenantEntry>,
    weights: BTreeMap<String, f64>,
    /// Until when tenants are paused, by the ids of their brakes.
    paused: BTreeMap<String, Option<Timestamp>>,
    /// Whether the broker tells the tenants of what waits in it apart.
    pub(super) knows_backlog: bool,
    /// The tasks whose tenants are not counted one by one, and whether queues have more tenants than are told apart.
    pub(super) uncounted: u64,
    pub(super) is_cut: bool,
}

/// What a look at the tenants has found.
pub(super) type SeenBook = Result<TenantBook, ControlError>;

impl TenantBook {
    /// What is known now.
    pub(super) async fn look(console: &Console) -> Looked<SeenBook> {
        console.shared.looks.look::<SeenBook>("tenants", FRESH, find(console)).await
    }

    /// The tenants that whoever looks may see and whose names contain this text, those that use most first. Of who may not see
    /// all queues, it asks the program about some tenants at most.
    pub(super) async fn lines(&self, visit: &ConsoleVisit, wanted: &str) -> Vec<TenantView> {
        let mut names: Vec<&String> = self.tenants.keys().filter(|name| name.contains(wanted)).collect();
        let is_all = visit.viewer.sees_all();
        if !is_all {
            // A name that is written out comes first, so that it is asked about however many there are.
            names.sort_by_key(|name| name.as_str() != wanted);
            names.truncate(MOST_ASKED);
            let queues: Vec<&str> = visit.viewer.queues().collect();
            let tasks =
                names.iter().flat_map(|name| queues.iter().map(move |queue| (*queue, Some(name.as_str()))));
            visit.ask_of_tenants(&[Permission::See], tasks).await;
        }
        let mut lines: Vec<TenantView> =
            names.into_iter().filter_map(|name| self.line(&visit.viewer, name, is_all)).collect();
        lines.sort_by(|one, other| rank(other).cmp(&rank(one)).then_with(|| one.name.cmp(&other.name)));
        lines
    }

    /// The tenant of this name. One of whom nothing is known has nothing. `None`: whoever looks may not see it.
    pub(super) async fn one(&self, visit: &ConsoleVisit, name: &str) -> Option<TenantView> {
        visit.sees_tenant(name).await;
        self.line(&visit.viewer, name, visit.viewer.sees_all())
    }

    /// A tenant as far as the viewer may see it, once the program was asked about it. `is_all`: the viewer may see all queues.
    fn line(&self, viewer: &Viewer, name: &str, is_all: bool) -> Option<TenantView> {
        let sees = |queue: &str| is_all || viewer.may_with(Permission::See, queue, Some(name));
        let (sees_some, sees_all) =
            (is_all || viewer.queues().any(sees), is_all || viewer.queues().all(sees));
        if !sees_some {
            return None;
        }
        let nothing = TenantEntry::default();
        let entry = self.tenants.get(name).unwrap_or(&nothing);
        let seen = entry.queues.iter().filter(|(queue, _)| sees(queue));
        let (ready, delivered) =
            seen.fold((0_u64, 0_u64), |(ready, delivered), (_, (r, d))| (ready + r, delivered + d));
        let is_known = sees_all || ready + delivered > 0;
        // Who sees some queues only learns nothing of tenants that have nothing in them, but of the one that is his own.
        if !is_known && viewer.sees_any() {
            return None;
        }
        Some(TenantView {
            name: name.to_owned(),
            ready,
            delivered,
            whole: sees_all.then_some(entry.whole),
            weight: self.weights.get(name).copied().unwrap_or(1.0),
            paused_until: self.paused.get(&brake_form::tenant_brake_id(name)).copied().flatten(),
        })
    }
}

impl TenantView {
    /// How many of its tasks are not over, as far as that is known.
    pub(super) fn waiting(&self) -> u64 {
        let here = self.whole.map_or(0, |whole| whole.waiting_here);
        (self.ready + self.delivered).max(here as u64) // what waits here is among those where the broker counts them
    }
}

/// By what tenants are compared: what runs, the time that it ran, what waits.
fn rank(line: &TenantView) -> (usize, Duration, u64) {
    let whole = line.whole.unwrap_or_default();
    (whole.running, whole.ran, line.waiting())
}

async fn find(console: &Console) -> SeenBook {
    let celeriac = &console.celeriac;
    let mut book = TenantBook { weights: celeriac.tenant_weights(), ..TenantBook::default() };
    let serves_any = celeriac.serves_any(); // who serves none looks at what waits for others
    for row in celeriac.catalogue().queues.iter().filter(|row| row.served || !serves_any) {
        let found = match celeriac.tenants_of(&row.name, MOST).await? {
            Some(found) => {
                book.knows_backlog = true;
                found
            }
            None => QueueTenants::of_fetched(celeriac.fetched_by_tenant(&row.name)),
        };
        book.uncounted += found.uncounted;
        book.is_cut |= found.total > found.tenants.len() as u64;
        for counts in found.tenants {
            let entry = book.tenants.entry(counts.tenant).or_default();
            entry.queues.insert(row.name.clone(), (counts.ready, counts.unsettled));
        }
    }
    for (name, share) in celeriac.tenant_shares() {
        if !name.is_empty() {
            let whole = &mut book.tenants.entry(name).or_default().whole;
            (whole.running, whole.waiting_here, whole.is_owed) =
                (share.running, share.waiting, share.is_owed);
        }
    }
    add_last_hour(console, &mut book).await?;
    for brake in celeriac.brakes().list().await? {
        book.paused.insert(brake.id, brake.until);
    }
    Ok(book)
}

/// What tenants have had within the last hour, in all processes.
async fn add_last_hour(console: &Console, book: &mut TenantBook) -> Result<(), ControlError> {
    let history = console.celeriac.history().from(now() - HOUR).step(HOUR).by(HistoryBy::Tenant);
    let history = history.read().await?;
    let mut sums: BTreeMap<String, HistoryCounts> = BTreeMap::new();
    for row in &history.rows {
        sums.entry(row.name.clone()).or_default().add(&row.counts);
    }
    let ran: Duration = sums.values().map(|counts| counts.runs.sum()).sum();
    for (name, counts) in sums {
        if name == OTHER || name.len() > LONGEST {
            continue;
        }
        let whole = &mut book.tenants.entry(name).or_default().whole;
        (whole.started, whole.ran, whole.first_starts) =
            (counts.started, counts.runs.sum(), counts.waits.count());
        (whole.waited_mean, whole.waited_longest) = (counts.waits.mean(), counts.waits.max());
        if !ran.is_zero() {
            whole.share = whole.ran.as_secs_f64() / ran.as_secs_f64();
        }
    }
    Ok(())
}
