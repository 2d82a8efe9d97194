//! "At midnight, by the clocks of each tenant": one tick for each tenant and local day, spread over a window.
//!
//! HQ looks every fifteen minutes which domains have had midnight within the last twenty, and so runs some twice. Here a
//! tenant's tick is a local date: it is due at the entry's time of day in the tenant's zone, plus the tenant's own place
//! in the window, which is a hash of entry and tenant and so the same each day. The last date that a tenant had is what
//! is remembered of it; a tenant that moves to another zone has each date once all the same. A date that the zone never
//! had, as December 30, 2011 on Samoa, is no tick of its own.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use chrono::{NaiveDate, NaiveDateTime};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::schedule::{Tick, next_tick};
use super::zone::{seconds, timestamp};
use super::{Crontab, Misfire, Zone};
use crate::core::Timestamp;

/// A day of somebody's calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LocalDay(NaiveDate);

impl LocalDay {
    /// The day of an instant by UTC.
    pub fn of(time: Timestamp) -> Self {
        Self(Zone::UTC.clock(seconds(time)).date())
    }
}

impl std::fmt::Display for LocalDay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for LocalDay {
    type Err = chrono::ParseError;

    /// Reads `2026-11-24`.
    fn from_str(text: &str) -> Result<Self, chrono::ParseError> {
        text.parse().map(Self)
    }
}

/// One whose clock counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its name, which the task gets as its argument.
    pub name: String,
    /// Where it lives.
    pub zone: Zone,
}

impl Tenant {
    /// A tenant.
    pub fn new(name: impl Into<String>, zone: Zone) -> Self {
        Self { name: name.into(), zone }
    }
}

/// A tenant's tick that is to be published now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantTick {
    /// The tenant.
    pub tenant: String,
    /// Its day.
    pub day: LocalDay,
    /// When it was due.
    pub due: Timestamp,
    /// When the tenant's next one is.
    pub next: Option<Timestamp>,
}

/// The tenants of one entry and when each is due.
#[derive(Debug)]
pub struct Tenants {
    entry: String,
    crontab: Crontab,
    spread: Duration,
    misfire: Misfire,
    /// Tenants of the first list begin here, if they have no day.
    since: Timestamp,
    is_listed: bool,
    tenants: HashMap<String, State>,
    line: BTreeSet<(Timestamp, String)>,
    /// The tick of each zone after a second; so many tenants share so few zones.
    ticks: HashMap<(Zone, i64), Option<Tick>>,
}

#[derive(Debug)]
struct State {
    zone: Zone,
    /// Its place in the window, in microseconds.
    offset: Duration,
    /// The last day that is decided.
    last: Option<LocalDay>,
    /// Without one, its ticks begin here.
    since: Timestamp,
    busy: bool,
    due: Option<Timestamp>,
}

impl State {
    /// A second before the first tick that may not be decided.
    fn floor(&self) -> i64 {
        match self.last {
            // Whatever its zone, the tick of the day after lies later.
            Some(LocalDay(day)) => midnight(day).and_utc().timestamp() - 36 * 3600,
            None => seconds(self.since - self.offset),
        }
    }
}

impl Tenants {
    /// The longest window: with a longer one, a day's ticks could reach into the next day's.
    pub const WIDEST: Duration = Duration::from_secs(20 * 60 * 60);
    /// More remembered ticks than this are forgotten and found again.
    const TICKS: usize = 16_384;

    /// Nobody yet. `crontab` has one time of day; `since` is up to when the entry's ticks are decided, for tenants that
    /// are new.
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

    /// The tenants as they are now. `last` tells what is remembered of one that was not there before. Who is gone from the
    /// list is gone from here; their names are the answer.
    pub fn refresh(
        &mut self,
        list: Vec<Tenant>,
        last: impl Fn(&str) -> Option<LocalDay>,
        now: Timestamp,
    ) -> Vec<String> {
        // Whoever is new in a later list begins now.
        let since = if std::mem::replace(&mut self.is_listed, true) { now } else { self.since };
        let mut before = std::mem::take(&mut self.tenants);
        self.line.clear();
        for Tenant { name, zone } in list {
            if self.tenants.contains_key(&name) {
                continue; // listed twice
            }
            let mut state = before.remove(&name).unwrap_or_else(|| State {
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

    /// The ticks that are to be published now, at most `limit`. Each tenant in it is busy until [`done`](Self::done) or
    /// [`failed`](Self::failed).
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

    /// A tenant's day is decided.
    pub fn done(&mut self, tenant: &str, day: LocalDay) {
        if let Some(state) = self.tenants.get_mut(tenant) {
            state.busy = false;
            state.last = state.last.max(Some(day));
            self.line_up(tenant);
        }
    }

    /// A tenant's tick could not be published; it comes again at `again`.
    pub fn failed(&mut self, tenant: &str, again: Timestamp) {
        if let Some(state) = self.tenants.get_mut(tenant) {
            state.busy = false;
            if state.due.is_none() {
                state.due = Some(again);
                self.line.insert((again, tenant.to_owned()));
            }
        }
    }

    /// When to call [`due`](Self::due) again.
    pub fn next(&self) -> Option<Timestamp> {
        self.line.first().map(|(due, _)| *due)
    }

    /// Whether this one is among them.
    pub fn has(&self, tenant: &str) -> bool {
        self.tenants.contains_key(tenant)
    }

    /// How many tenants there are.
    pub fn len(&self) -> usize {
        self.tenants.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }

    /// Finds a tenant's next tick that is not decided. One that lies behind is found as well: its day is newer than the
    /// last, so it was missed.
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

    /// The last tick of a zone in `(floor, until]` on a day after `last`, and the one after it. With a policy that makes up
    /// for all, the first one instead.
    fn latest(
        &mut self,
        zone: Zone,
        floor: i64,
        until: i64,
        last: Option<LocalDay>,
    ) -> (Option<Tick>, Option<Tick>) {
        let each = matches!(self.misfire, Misfire::All { .. });
        // Backwards in windows twice as long each time, so that a long absence is no long search.
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
        // Tenants ask about many seconds of one day; its ticks are found from its first one on.
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

/// A tenant's place in the window: the same each day, and evenly spread whatever the names are.
fn offset(entry: &str, tenant: &str, spread: Duration) -> Duration {
    let hash = xxh3_64(format!("{entry}\0{tenant}").as_bytes());
    let spread = spread.as_secs();
    // The upper half of the product is the hash scaled down to the window, without the bias of a remainder.
    let place = (u128::from(hash) * u128::from(spread)) >> 64;
    Duration::from_secs(u64::try_from(place).unwrap_or(0))
}

#[cfg(test)]
mod tests;
