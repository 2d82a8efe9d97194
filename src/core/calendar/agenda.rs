//! What is due next among all entries: the state of beat, as `(state, input, now) -> effects`.
//!
//! An entry fires at most once for each tick: from [`Agenda::due`] until its outcome is told it fires nothing, and what
//! was told as done lies behind it for good. A tick whose publish failed is decided again, by the misfire policy, at the
//! time that [`Agenda::failed`] names, so that a broker that is away loses none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Misfire, Schedule};
use crate::core::Timestamp;

/// An entry's `last` that lies ahead of the clock by more than this comes from a clock that was wrong.
const CLOCK_FAULT: Duration = Duration::from_secs(24 * 60 * 60);

/// The entries and when they are due.
#[derive(Debug, Default)]
pub struct Agenda {
    entries: BTreeMap<String, Entry>,
    line: BTreeSet<(Timestamp, String)>,
}

#[derive(Debug)]
struct Entry {
    schedule: Schedule,
    misfire: Misfire,
    /// Everything up to here is decided.
    last: Timestamp,
    paused: bool,
    /// It fired, and what came of it was not told yet.
    busy: bool,
    /// Its place in the line.
    due: Option<Timestamp>,
}

/// Ticks of one entry that are to be published now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fire {
    /// The entry.
    pub entry: String,
    /// The ticks, in order; never none.
    pub ticks: Vec<Timestamp>,
    /// The next tick after now, where these stop being of use.
    pub next: Option<Timestamp>,
}

impl Agenda {
    /// Adds an entry, or changes one. Ticks up to `last` are done; `None`: it is new, and begins now. What it fires at the
    /// moment goes on.
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
        let entry = Entry { schedule, misfire, last, paused, busy, due: None };
        self.entries.insert(name.to_owned(), entry);
        self.line_up(name);
    }

    /// Takes an entry out; says whether it was there.
    pub fn take(&mut self, name: &str) -> bool {
        self.remove(name).is_some()
    }

    fn remove(&mut self, name: &str) -> Option<Entry> {
        let entry = self.entries.remove(name)?;
        if let Some(due) = entry.due {
            self.line.remove(&(due, name.to_owned()));
        }
        Some(entry)
    }

    /// Lets an entry fire no more. Its ticks pass unseen: on [`resume`](Self::resume) it begins anew.
    pub fn pause(&mut self, name: &str) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.paused = true;
            self.line_up(name);
        }
    }

    /// Ends a pause; what came due during it is not made up for.
    pub fn resume(&mut self, name: &str, now: Timestamp) {
        if let Some(entry) = self.entries.get_mut(name).filter(|entry| entry.paused) {
            entry.paused = false;
            entry.last = entry.last.max(now);
            self.line_up(name);
        }
    }

    /// What is to be published now. Each entry in it is busy until [`done`](Self::done) or [`failed`](Self::failed).
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

    /// These ticks are decided: published, dropped by a policy, or found published by somebody else.
    pub fn done(&mut self, name: &str, last: Timestamp) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.busy = false;
            entry.last = entry.last.max(last);
            self.line_up(name);
        }
    }

    /// Of what it fired, this much is decided; the rest is still to be told.
    pub fn advance(&mut self, name: &str, last: Timestamp) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.last = entry.last.max(last);
        }
    }

    /// They could not be published: what is missed by then is decided anew at `again`.
    pub fn failed(&mut self, name: &str, again: Timestamp) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.busy = false;
            if !entry.paused && entry.due.is_none() {
                entry.due = Some(again);
                self.line.insert((again, name.to_owned()));
            }
        }
    }

    /// Decides what an entry has missed now, if it is not busy with something: what held it up is over.
    pub fn hasten(&mut self, name: &str, now: Timestamp) {
        if let Some(entry) = self.entries.get_mut(name).filter(|entry| !entry.busy && !entry.paused) {
            if let Some(due) = entry.due.replace(now) {
                self.line.remove(&(due, name.to_owned()));
            }
            self.line.insert((now, name.to_owned()));
        }
    }

    /// When to call [`due`](Self::due) again.
    pub fn next(&self) -> Option<Timestamp> {
        self.line.first().map(|(due, _)| *due)
    }

    /// When an entry fires next; `None` when it is paused, fires right now, or never does again.
    pub fn next_of(&self, name: &str) -> Option<Timestamp> {
        self.entries.get(name)?.due
    }

    /// Up to when an entry's ticks are decided.
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
