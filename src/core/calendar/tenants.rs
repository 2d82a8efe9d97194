//! "At midnight, by the clocks of each tenant": one tick for each tenant and local day, spread over a window.
//!
//! HQ looks every fifteen minutes which domains have had midnight within the last twenty minutes, and so runs some of
//! them twice. Here a tenant's tick is a local date. The tick is due at the entry's time of day in the tenant's zone,
//! plus the tenant's own offset in the window, which is a hash of entry and tenant and so the same each day. Celeriac
//! remembers the last date of each tenant, so a tenant that moves to another zone still has each date once. A date
//! that the zone never had, as December 30, 2011 on Samoa, is no tick.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use chrono::{NaiveDate, NaiveDateTime};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::schedule::{Tick, next_tick};
use super::zone::{Moment, seconds, timestamp};
use super::{Crontab, Misfire, Zone};
use crate::core::Timestamp;

/// A date in somebody's local calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LocalDay(NaiveDate);

impl LocalDay {
    /// The date at an instant, by UTC.
    pub fn of(time: Timestamp) -> Self {
        Self::at(time, Zone::UTC)
    }

    /// The date that the clocks of a zone show at an instant.
    pub fn at(time: Timestamp, zone: Zone) -> Self {
        Self(zone.clock(seconds(time)).date())
    }

    /// When the clocks of a zone first show a later date. Clocks that are put back over midnight may show this date once
    /// more after that.
    pub fn end(self, zone: Zone) -> Timestamp {
        let Some(next) = self.0.succ_opt() else { return Timestamp::from_micros(u64::MAX) };
        match zone.moment(midnight(next)) {
            Moment::Once(at) | Moment::Twice(at) | Moment::Skipped(at) => timestamp(at),
        }
    }
}

impl std::fmt::Display for LocalDay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for LocalDay {
    type Err = chrono::ParseError;

    /// Reads a date such as `2026-11-24`.
    fn from_str(text: &str) -> Result<Self, chrono::ParseError> {
        text.parse().map(Self)
    }
}

/// A customer whose local clock decides when its tick is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// The name of the tenant, which the task gets as its argument.
    pub name: String,
    /// The zone whose clocks the tenant reads.
    pub zone: Zone,
}

impl Tenant {
    /// Makes a tenant of its name and its zone.
    pub fn new(name: impl Into<String>, zone: Zone) -> Self {
        Self { name: name.into(), zone }
    }
}

/// A tenant's tick that is to be published now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantTick {
    /// The name of the tenant.
    pub tenant: String,
    /// The tenant's local date for which the tick stands.
    pub day: LocalDay,
    /// When the tick was due.
    pub due: Timestamp,
    /// When the tenant's next tick is due; `None`: there is none.
    pub next: Option<Timestamp>,
}

/// The tenants of one entry, in the order in which they are due.
#[derive(Debug)]
pub struct Tenants {
    entry: String,
    crontab: Crontab,
    spread: Duration,
    misfire: Misfire,
    /// The time at which the ticks of tenants of the first list begin, unless a last day is remembered of them.
    since: Timestamp,
    is_listed: bool,
    tenants: HashMap<String, TenantState>,
    line: BTreeSet<(Timestamp, String)>,
    /// A cache of the tick that follows a second in a zone: many tenants share few zones.
    ticks: HashMap<(Zone, i64), Option<Tick>>,
}

#[derive(Debug)]
struct TenantState {
    zone: Zone,
    /// The tenant's offset in the window.
    offset: Duration,
    /// The last day that is decided; `None` for a new tenant.
    last: Option<LocalDay>,
    /// The time at which the ticks begin if `last` is `None`.
    since: Timestamp,
    busy: bool,
    due: Option<Timestamp>,
}

impl TenantState {
    /// The second from which to search: no tick before it is undecided.
    fn floor(&self) -> i64 {
        match self.last {
            // In every zone, the tick of the next day lies later than this second.
            Some(LocalDay(day)) => midnight(day).and_utc().timestamp() - 36 * 3600,
            None => seconds(self.since - self.offset),
        }
    }
}

impl Tenants {
    /// The longest window. With a longer one, the ticks of a day could reach into the next day.
    pub const WIDEST: Duration = Duration::from_secs(20 * 60 * 60);
    /// The most ticks that the cache holds. When it is full, the cache is emptied.
    const TICKS: usize = 16_384;

    /// The tenants of an entry, of whom there are none yet. `crontab` must have one time of day. `since` is the time
    /// up to which the entry's ticks are decided, which counts for new tenants. `spread` is cut to
    /// [`WIDEST`](Self::WIDEST).
    pub fn new(entry: &str, crontab: Crontab, spread: Duration, misfire: Misfire, since: Timestamp) -> Self {
        Self {
            entry: entry.to_owned(),
            crontab,
            spread: spread.min(Self::WIDEST),
            misfire,
            since,
            is_listed: false,
            tenants: HashMap::new(),
            line: BTreeSet::new(),
            ticks: HashMap::new(),
        }
    }

    /// Replaces the list of tenants. `last` returns the last decided day of a tenant that was not in the list before.
    /// Returns the names of the tenants that are no longer in the list.
    pub fn refresh(
        &mut self,
        list: Vec<Tenant>,
        last: impl Fn(&str) -> Option<LocalDay>,
        now: Timestamp,
    ) -> Vec<String> {
        // A tenant that is new in a later list begins now.
        let since = if std::mem::replace(&mut self.is_listed, true) { now } else { self.since };
        let mut before = std::mem::take(&mut self.tenants);
        self.line.clear();
        for Tenant { name, zone } in list {
            if self.tenants.contains_key(&name) {
                continue; // The list names this tenant twice.
            }
            let mut state = before.remove(&name).unwrap_or_else(|| TenantState {
                zone,
                offset: offset(&self.entry, &name, self.spread),
                last: last(&name),
                since,
                busy: false,
                due: None,
            });
            state.zone = zone;
            self.tenants.insert(name.clone(), state);
            self.line_up(&name);
        }
        before.into_keys().collect()
    }

    /// The ticks that beat has to publish now, at most `limit`. Each tenant in the list is busy until
    /// [`done`](Self::done) or [`failed`](Self::failed).
    pub fn due(&mut self, now: Timestamp, limit: usize) -> Vec<TenantTick> {
        let mut found = Vec::new();
        while found.len() < limit
            && let Some((due, _)) = self.line.first()
            && *due <= now
            && let Some((_, name)) = self.line.pop_first()
        {
            let Some(state) = self.tenants.get(&name) else { continue };
            let (zone, offset, last, floor) = (state.zone, state.offset, state.last, state.floor());
            let (tick, next) = self.latest(zone, floor, seconds(now - offset), last);
            let Some(state) = self.tenants.get_mut(&name) else { continue };
            state.due = None;
            let Some(tick) = tick else {
                self.line_up(&name);
                continue;
            };
            let day = LocalDay(tick.clock.date());
            let due = timestamp(tick.at) + offset;
            let is_missed = match self.misfire {
                Misfire::Once => false,
                Misfire::Skip => now.since(due) > Misfire::GRACE,
                Misfire::All { within } => now.since(due) > within,
            };
            if is_missed {
                state.last = Some(day);
                self.line_up(&name);
            } else {
                state.busy = true;
                let next = next.map(|next| timestamp(next.at) + offset);
                found.push(TenantTick { tenant: name, day, due, next });
            }
        }
        found
    }

    /// The caller has decided a tenant's tick of that day: published it, or found it published.
    pub fn done(&mut self, tenant: &str, day: LocalDay) {
        if let Some(state) = self.tenants.get_mut(tenant) {
            state.busy = false;
            state.last = state.last.max(Some(day));
            self.line_up(tenant);
        }
    }

    /// The caller could not publish a tenant's tick. [`due`](Self::due) returns the tick again at `again`.
    pub fn failed(&mut self, tenant: &str, again: Timestamp) {
        if let Some(state) = self.tenants.get_mut(tenant) {
            state.busy = false;
            if state.due.is_none() {
                state.due = Some(again);
                self.line.insert((again, tenant.to_owned()));
            }
        }
    }

    /// The time at which to call [`due`](Self::due) again; `None` while no tenant's tick will come.
    pub fn next(&self) -> Option<Timestamp> {
        self.line.first().map(|(due, _)| *due)
    }

    /// Whether the list has a tenant of this name.
    pub fn has(&self, tenant: &str) -> bool {
        self.tenants.contains_key(tenant)
    }

    /// How many tenants there are.
    pub fn len(&self) -> usize {
        self.tenants.len()
    }

    /// Whether there are no tenants.
    pub fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }

    /// Finds a tenant's next undecided tick. A tick in the past is found as well: its day is later than the last
    /// decided day, so the tick was missed.
    fn line_up(&mut self, name: &str) {
        let Some(state) = self.tenants.get(name).filter(|state| !state.busy) else { return };
        let (zone, offset, last, floor) = (state.zone, state.offset, state.last, state.floor());
        let mut tick = self.tick_after(zone, floor);
        while let Some(found) = tick
            && last.is_some_and(|last| LocalDay(found.clock.date()) <= last)
        {
            tick = self.tick_after(zone, found.at);
        }
        let due = tick.map(|tick| timestamp(tick.at) + offset);
        if let Some(state) = self.tenants.get_mut(name) {
            if let Some(old) = state.due.take() {
                self.line.remove(&(old, name.to_owned()));
            }
            state.due = due;
            self.line.extend(due.map(|due| (due, name.to_owned())));
        }
    }

    /// The last tick of a zone in `(floor, until]` on a day after `last`, and the tick after that. If the misfire
    /// policy makes up for all ticks, the first such tick instead.
    fn latest(
        &mut self,
        zone: Zone,
        floor: i64,
        until: i64,
        last: Option<LocalDay>,
    ) -> (Option<Tick>, Option<Tick>) {
        let each = matches!(self.misfire, Misfire::All { .. });
        // The search goes backwards in windows of doubling length, so that it is short after a long absence too.
        let mut window = 2 * 86400;
        loop {
            let start = if each { floor } else { floor.max(until - window) };
            let mut found = None;
            let mut next = self.tick_after(zone, start);
            while let Some(tick) = next.filter(|tick| tick.at <= until) {
                next = self.tick_after(zone, tick.at);
                if last.is_none_or(|last| LocalDay(tick.clock.date()) > last) {
                    found = Some(tick);
                    if each {
                        break;
                    }
                }
            }
            if found.is_some() || start == floor {
                return (found, next);
            }
            window *= 2;
        }
    }

    fn tick_after(&mut self, zone: Zone, after: i64) -> Option<Tick> {
        // Tenants ask about many seconds of one day. The search begins at the day's first second, so that they
        // share the cache.
        let start = after.div_euclid(86400) * 86400;
        let mut tick = self.remembered(zone, start);
        while let Some(found) = tick
            && found.at <= after
        {
            tick = self.remembered(zone, found.at);
        }
        tick
    }

    fn remembered(&mut self, zone: Zone, after: i64) -> Option<Tick> {
        if self.ticks.len() >= Self::TICKS {
            self.ticks.clear();
        }
        *self.ticks.entry((zone, after)).or_insert_with(|| next_tick(&self.crontab, zone, after))
    }
}

fn midnight(day: NaiveDate) -> NaiveDateTime {
    day.and_time(chrono::NaiveTime::MIN)
}

/// The offset of a tenant in the window: the same each day, and evenly spread for any names.
fn offset(entry: &str, tenant: &str, spread: Duration) -> Duration {
    let hash = xxh3_64(format!("{entry}\0{tenant}").as_bytes());
    let spread = spread.as_secs();
    // The upper half of the product is the hash scaled to the window, without the bias that a remainder has.
    let place = (u128::from(hash) * u128::from(spread)) >> 64;
    Duration::from_secs(u64::try_from(place).unwrap_or(0))
}

#[cfg(test)]
mod tests;
