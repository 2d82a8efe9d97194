//! Which periodic entries are due next: the state of beat, as `(state, input, now) -> effects`.
//!
//! An entry fires at most once for each tick. Between [`Agenda::due`] and [`Agenda::done`] or [`Agenda::failed`] the
//! entry is busy and fires nothing; a tick that was reported as done never fires again. When a publish failed, the
//! misfire policy decides again about the tick, at the time given to [`Agenda::failed`], so that a broker outage
//! loses no tick.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Misfire, Schedule};
use crate::core::Timestamp;

/// If an entry's `last` is ahead of the clock by more than this, then the clock was wrong when `last` was written.
const CLOCK_FAULT: Duration = Duration::from_secs(24 * 60 * 60);

/// All periodic entries of beat, in the order in which they are due.
#[derive(Debug, Default)]
pub struct Agenda {
    entries: BTreeMap<String, AgendaEntry>,
    line: BTreeSet<(Timestamp, String)>,
}

#[derive(Debug)]
struct AgendaEntry {
    schedule: Schedule,
    misfire: Misfire,
    /// All ticks up to this time are decided.
    last: Timestamp,
    paused: bool,
    /// Whether the entry fired and its outcome was not reported yet.
    busy: bool,
    /// The time under which the entry stands in `line`; `None` if it does not stand there.
    due: Option<Timestamp>,
}

/// Ticks of one entry that are to be published now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fire {
    /// The name of the entry.
    pub entry: String,
    /// The ticks in the order of time; there is at least one.
    pub ticks: Vec<Timestamp>,
    /// The first tick after now, at which these ticks are out of date. `None`: no tick follows.
    pub next: Option<Timestamp>,
}

impl Agenda {
    /// Adds an entry, or changes one. The ticks up to `last` count as done; with `None` the entry is new, and its
    /// ticks begin at `now`. If the entry is busy, it stays busy until [`done`](Self::done) or
    /// [`failed`](Self::failed).
    pub fn put(
        &mut self,
        name: &str,
        schedule: Schedule,
        misfire: Misfire,
        last: Option<Timestamp>,
        now: Timestamp,
    ) {
        let last = last.filter(|last| last.since(now) <= CLOCK_FAULT).unwrap_or(now);
        let old = self.remove(name);
        let (paused, busy) = old.map_or((false, false), |old| (old.paused, old.busy));
        let entry = AgendaEntry { schedule, misfire, last, paused, busy, due: None };
        self.entries.insert(name.to_owned(), entry);
        self.line_up(name);
    }

    /// Removes an entry, and returns whether there was one of this name.
    pub fn take(&mut self, name: &str) -> bool {
        self.remove(name).is_some()
    }

    fn remove(&mut self, name: &str) -> Option<AgendaEntry> {
        let entry = self.entries.remove(name)?;
        if let Some(due) = entry.due {
            self.line.remove(&(due, name.to_owned()));
        }
        Some(entry)
    }

    /// Stops an entry from firing. Ticks that come due during the pause are lost: [`resume`](Self::resume) begins at
    /// its `now`.
    pub fn pause(&mut self, name: &str) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.paused = true;
            self.line_up(name);
        }
    }

    /// Ends a pause. The agenda does not make up for ticks that came due during the pause.
    pub fn resume(&mut self, name: &str, now: Timestamp) {
        if let Some(entry) = self.entries.get_mut(name).filter(|entry| entry.paused) {
            entry.paused = false;
            entry.last = entry.last.max(now);
            self.line_up(name);
        }
    }

    /// The ticks that beat has to publish now. Each entry in the list is busy until [`done`](Self::done) or
    /// [`failed`](Self::failed).
    pub fn due(&mut self, now: Timestamp) -> Vec<Fire> {
        let mut fires = Vec::new();
        while let Some((due, name)) = self.line.first()
            && *due <= now
        {
            let name = name.clone();
            self.line.pop_first();
            let Some(entry) = self.entries.get_mut(&name) else { continue };
            entry.due = None;
            let ticks = entry.misfire.choose(&entry.schedule, entry.last, now);
            if ticks.is_empty() {
                entry.last = entry.last.max(now);
                self.line_up(&name);
            } else {
                entry.busy = true;
                let next = entry.schedule.next_after(now);
                fires.push(Fire { entry: name, ticks, next });
            }
        }
        fires
    }

    /// The caller has decided all ticks up to `last`: published them, dropped them by policy, or found them published
    /// by another beat.
    pub fn done(&mut self, name: &str, last: Timestamp) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.busy = false;
            entry.last = entry.last.max(last);
            self.line_up(name);
        }
    }

    /// The caller has decided the ticks up to `last`, and will report the other ticks of this [`Fire`] later. The
    /// entry stays busy.
    pub fn advance(&mut self, name: &str, last: Timestamp) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.last = entry.last.max(last);
        }
    }

    /// The caller could not publish the ticks. The misfire policy decides at `again` about everything that was missed
    /// by then.
    pub fn failed(&mut self, name: &str, again: Timestamp) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.busy = false;
            if !entry.paused && entry.due.is_none() {
                entry.due = Some(again);
                self.line.insert((again, name.to_owned()));
            }
        }
    }

    /// Makes an entry due at `now`, because what held it up is over; its misfire policy decides about the missed
    /// ticks. Does nothing while the entry is busy or paused.
    pub fn hasten(&mut self, name: &str, now: Timestamp) {
        if let Some(entry) = self.entries.get_mut(name).filter(|entry| !entry.busy && !entry.paused) {
            if let Some(due) = entry.due.replace(now) {
                self.line.remove(&(due, name.to_owned()));
            }
            self.line.insert((now, name.to_owned()));
        }
    }

    /// The time at which to call [`due`](Self::due) again; `None` while no entry will fire.
    pub fn next(&self) -> Option<Timestamp> {
        self.line.first().map(|(due, _)| *due)
    }

    /// The time at which an entry fires next; `None` if the entry is paused or busy, or will never fire again.
    pub fn next_of(&self, name: &str) -> Option<Timestamp> {
        self.entries.get(name)?.due
    }

    /// The time up to which an entry's ticks are decided; `None` if there is no such entry.
    pub fn last_of(&self, name: &str) -> Option<Timestamp> {
        self.entries.get(name).map(|entry| entry.last)
    }

    fn line_up(&mut self, name: &str) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if let Some(due) = entry.due.take() {
            self.line.remove(&(due, name.to_owned()));
        }
        if !entry.paused && !entry.busy {
            entry.due = entry.schedule.next_after(entry.last);
            self.line.extend(entry.due.map(|due| (due, name.to_owned())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn every(seconds: u64) -> Schedule {
        Schedule::Every(Duration::from_secs(seconds))
    }

    fn at(seconds: u64) -> Timestamp {
        START + Duration::from_secs(seconds)
    }

    fn ticks(agenda: &mut Agenda, now: Timestamp) -> Vec<Timestamp> {
        agenda.due(now).into_iter().flat_map(|fire| fire.ticks).collect()
    }

    #[test]
    fn each_tick_fires_once_and_in_time() {
        let mut agenda = Agenda::default();
        agenda.put("a", every(10), Misfire::Once, None, START);
        agenda.put("b", every(15), Misfire::Once, None, START);
        let mut fired = Vec::new();
        while let Some(now) = agenda.next().filter(|now| *now <= at(60)) {
            for fire in agenda.due(now) {
                assert_eq!(fire.ticks, [now]);
                agenda.done(&fire.entry, now);
                fired.push((now.since(START).as_secs(), fire.entry));
            }
        }
        let expected = [
            (10, "a"),
            (15, "b"),
            (20, "a"),
            (30, "a"),
            (30, "b"),
            (40, "a"),
            (45, "b"),
            (50, "a"),
            (60, "a"),
            (60, "b"),
        ];
        assert_eq!(fired, expected.map(|(s, name)| (s, name.to_owned())));
    }

    #[test]
    fn what_was_missed_is_made_up_for_by_policy() {
        let fired = |misfire, down_until| {
            let mut agenda = Agenda::default();
            agenda.put("a", every(10), misfire, Some(START), at(down_until));
            ticks(&mut agenda, at(down_until)).iter().map(|t| t.since(START).as_secs()).collect::<Vec<_>>()
        };
        assert_eq!(fired(Misfire::Once, 95), [90]);
        assert_eq!(fired(Misfire::Once, 9), [0; 0]);
        assert_eq!(fired(Misfire::Skip, 95), [90], "five seconds late is not missed");
        assert_eq!(fired(Misfire::All { within: Duration::from_secs(30) }, 95), [70, 80, 90]);
        assert_eq!(
            fired(Misfire::All { within: Duration::from_secs(25) }, 95),
            [70, 80, 90],
            "the bound is in"
        );
        assert_eq!(fired(Misfire::All { within: Duration::from_secs(3600) }, 45), [10, 20, 30, 40]);

        let mut agenda = Agenda::default();
        agenda.put("hourly", every(3600), Misfire::Skip, Some(START), at(3700));
        assert_eq!(ticks(&mut agenda, at(3700)), [], "a hundred seconds late is missed");
        assert_eq!(agenda.next(), Some(at(7200)));
    }

    #[test]
    fn a_long_absence_is_no_long_work() {
        let mut agenda = Agenda::default();
        let year = Duration::from_secs(365 * 86400);
        agenda.put("a", Schedule::Every(Duration::from_millis(1)), Misfire::Once, Some(START), START + year);
        assert_eq!(ticks(&mut agenda, START + year), [START + year]);
        let minutely = Schedule::crontab("* * * * *".parse().unwrap(), crate::core::calendar::Zone::UTC);
        agenda.put("b", minutely, Misfire::All { within: year }, Some(START), START + year);
        assert_eq!(ticks(&mut agenda, START + year).len(), Misfire::BATCH);
    }

    #[test]
    fn a_failed_publish_is_decided_again() {
        let mut agenda = Agenda::default();
        agenda.put("a", every(10), Misfire::Once, None, START);
        assert_eq!(ticks(&mut agenda, at(10)), [at(10)]);
        assert_eq!(agenda.next(), None, "busy");
        agenda.failed("a", at(11));
        assert_eq!(agenda.next(), Some(at(11)));
        assert_eq!(ticks(&mut agenda, at(11)), [at(10)], "the same tick");
        agenda.failed("a", at(22));
        assert_eq!(ticks(&mut agenda, at(22)), [at(20)], "the one after it stands for both");
        agenda.done("a", at(20));
        assert_eq!(agenda.next(), Some(at(30)));
    }

    #[test]
    fn pauses_changes_and_removals() {
        let mut agenda = Agenda::default();
        agenda.put("a", every(10), Misfire::Once, None, START);
        agenda.pause("a");
        assert_eq!((agenda.next(), ticks(&mut agenda, at(100))), (None, vec![]));
        agenda.resume("a", at(101));
        assert_eq!(agenda.next(), Some(at(110)), "nothing is made up for");
        agenda.put("a", every(7), Misfire::Once, agenda.last_of("a"), at(102));
        let next = agenda.next_of("a").unwrap();
        assert!(next > at(101) && next <= at(108), "{next}");
        // Changed while it fires: what it fires is still waited for.
        assert_eq!(ticks(&mut agenda, next), [next]);
        agenda.put("a", every(5), Misfire::Once, Some(at(101)), next);
        assert_eq!(agenda.next(), None);
        agenda.done("a", next);
        assert!(agenda.next().is_some_and(|after| after > next));
        assert!(agenda.take("a") && !agenda.take("a"));
        assert_eq!(agenda.next(), None);
        agenda.done("a", at(999)); // told too late, and no harm
    }

    #[test]
    fn a_clock_that_was_wrong_does_not_stop_an_entry_for_years() {
        let mut agenda = Agenda::default();
        agenda.put("a", every(10), Misfire::Once, Some(START + Duration::from_secs(10 * 365 * 86400)), START);
        assert_eq!(agenda.next(), Some(at(10)));
        // A clock that steps back a little repeats nothing.
        agenda.put("b", every(10), Misfire::Once, Some(at(60)), at(30));
        assert_eq!(agenda.next_of("b"), Some(at(70)));
    }
}
