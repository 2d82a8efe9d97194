//! The rule for clocks that change, against an oracle that looks at the clock of every zone at every minute.

use std::collections::BTreeSet;

use chrono::{Datelike, NaiveDateTime, TimeDelta, Timelike};
use proptest::prelude::*;

use super::super::zone::{seconds, timestamp};
use super::*;

const DAY: i64 = 86400;

/// Non-empty sets of numbers, and the crontab that means the same.
#[derive(Clone, Debug)]
struct WantedTimes {
    minutes: BTreeSet<u32>,
    hours: BTreeSet<u32>,
    weekdays: BTreeSet<u32>,
}

impl WantedTimes {
    fn crontab(&self) -> Crontab {
        let list = |set: &BTreeSet<u32>| set.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let text = format!("{} {} * * {}", list(&self.minutes), list(&self.hours), list(&self.weekdays));
        text.parse().unwrap()
    }

    fn matches(&self, clock: NaiveDateTime) -> bool {
        self.minutes.contains(&clock.minute())
            && self.hours.contains(&clock.hour())
            && self.weekdays.contains(&clock.weekday().num_days_from_sunday())
    }

    /// All ticks between `from` and `to`, found by looking at the clock each minute. The oracle also looks at the
    /// time before `from`, because the clock may show one of those times again.
    fn ticks(&self, zone: Zone, from: i64, to: i64) -> BTreeSet<i64> {
        let mut ticks = BTreeSet::new();
        let mut shown = BTreeSet::new();
        let mut before = zone.clock(from - 2 * DAY - 60);
        for at in (from - 2 * DAY..=to).step_by(60) {
            let clock = zone.clock(at);
            if self.hours.len() == 24 {
                if self.matches(clock) {
                    ticks.insert(at);
                }
            } else {
                // Times that the clock skipped since the minute before are due now, and so is a time that it shows
                // for the first time.
                let mut skipped = before + TimeDelta::minutes(1);
                while skipped < clock {
                    if self.matches(skipped) && shown.insert(skipped) {
                        ticks.insert(at);
                    }
                    skipped += TimeDelta::minutes(1);
                }
                if self.matches(clock) && shown.insert(clock) {
                    ticks.insert(at);
                }
            }
            before = clock;
        }
        ticks.split_off(&from)
    }
}

/// The ticks of `schedule` between `from` and `to`.
fn fired(schedule: &Schedule, from: i64, to: i64) -> BTreeSet<i64> {
    let times =
        std::iter::successors(schedule.next_after(timestamp(from - 1)), |at| schedule.next_after(*at));
    times.map(seconds).take_while(|at| *at <= to).collect()
}

fn check(wanted: &WantedTimes, zone: Zone, from: i64, to: i64) {
    let schedule = Schedule::crontab(wanted.crontab(), zone);
    let (fired, expected) = (fired(&schedule, from, to), wanted.ticks(zone, from, to));
    let show = |set: &BTreeSet<i64>| set.iter().map(|at| zone.display(timestamp(*at))).collect::<Vec<_>>();
    assert_eq!(show(&fired), show(&expected), "{schedule} from {}", zone.display(timestamp(from)));
    let last = schedule.last_until(timestamp(from - 1), timestamp(to));
    assert_eq!(last.map(seconds), expected.last().copied(), "the last of {schedule}");
}

fn all(numbers: std::ops::Range<u32>) -> BTreeSet<u32> {
    numbers.collect()
}

/// All changes of a zone's clocks from 2020 to the end of 2030.
fn changes(zone: Zone) -> Vec<i64> {
    const FROM: i64 = 1_577_836_800;
    const TO: i64 = 1_924_992_000;
    std::iter::successors(zone.change(FROM, TO), |at| zone.change(*at, TO)).collect()
}

#[test]
fn every_change_of_the_clocks_in_every_zone() {
    let by_day =
        WantedTimes { minutes: [0, 15, 59].into(), hours: [0, 1, 2, 3, 23].into(), weekdays: all(0..7) };
    let by_minute = WantedTimes { minutes: [0, 20, 50].into(), hours: all(0..24), weekdays: all(0..7) };
    let mut seen = 0;
    for zone in Zone::all() {
        for change in changes(zone) {
            let from = change / 60 * 60 - 7200;
            check(&by_day, zone, from, from + 5 * 3600);
            check(&by_minute, zone, from, from + 5 * 3600);
            seen += 1;
        }
    }
    assert!(seen > 2500, "{seen} changes");
}

fn subset(numbers: std::ops::Range<u32>, most: usize) -> impl Strategy<Value = BTreeSet<u32>> {
    prop::collection::btree_set(numbers, 1..=most)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Any crontab, at any time, most often near a change of the clocks.
    #[test]
    fn as_a_clock_on_the_wall(
        minutes in subset(0..60, 6),
        hours in prop_oneof![3 => subset(0..24, 8), 1 => Just(all(0..24))],
        weekdays in prop_oneof![1 => subset(0..7, 4), 1 => Just(all(0..7))],
        zone in 0..Zone::all().count(),
        // The years 1975, from which on offsets are whole minutes, to 2090.
        start in (157_766_400_i64 / 60..3_786_912_000 / 60),
        near in 0..48 * 60_i64,
    ) {
        let zone = Zone::all().nth(zone).unwrap();
        let start = start * 60;
        let from = zone.change(start, start + 370 * DAY).map_or(start, |change| change / 60 * 60 - near * 60);
        check(&WantedTimes { minutes, hours, weekdays }, zone, from, from + 3 * DAY);
    }
}

fn schedule(text: &str, zone: &str) -> Schedule {
    Schedule::crontab(text.parse().unwrap(), zone.parse().unwrap())
}

fn preview(text: &str, zone: &str, from: &str, n: usize) -> Vec<String> {
    let zone: Zone = zone.parse().unwrap();
    let from = chrono::DateTime::parse_from_rfc3339(from).unwrap().timestamp();
    schedule(text, zone.name())
        .preview(timestamp(from), n)
        .into_iter()
        .map(|at| zone.display(at)[5..].replacen(":00 ", " ", 1))
        .collect()
}

#[test]
fn the_rule_by_example() {
    // New York goes from 01:59 EST to 03:00 EDT on March 8, and from 01:59 EDT to 01:00 EST on November 1, 2026.
    let spring = |text| preview(text, "America/New_York", "2026-03-08T05:00:00Z", 3);
    let autumn = |text| preview(text, "America/New_York", "2026-11-01T04:59:00Z", 4);
    assert_eq!(
        spring("30 2 * * *"),
        ["03-08 03:00 -04:00 (EDT)", "03-09 02:30 -04:00 (EDT)", "03-10 02:30 -04:00 (EDT)"]
    );
    assert_eq!(
        spring("*/20 2,3 * * *"),
        ["03-08 03:00 -04:00 (EDT)", "03-08 03:20 -04:00 (EDT)", "03-08 03:40 -04:00 (EDT)"]
    );
    assert_eq!(
        spring("*/30 * * * *"),
        ["03-08 00:30 -05:00 (EST)", "03-08 01:00 -05:00 (EST)", "03-08 01:30 -05:00 (EST)"]
    );
    assert_eq!(
        autumn("30 1 * * *")[..2],
        ["11-01 01:30 -04:00 (EDT)", "11-02 01:30 -05:00 (EST)"].map(String::from)
    );
    assert_eq!(
        autumn("30 * * * *"),
        [
            "11-01 01:30 -04:00 (EDT)",
            "11-01 01:30 -05:00 (EST)",
            "11-01 02:30 -05:00 (EST)",
            "11-01 03:30 -05:00 (EST)"
        ]
    );
    // Samoa had no December 30, 2011: its midnight and the next one's are one instant.
    assert_eq!(
        preview("0 0 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z", 3),
        ["12-29 00:00 -10:00 (-10)", "12-31 00:00 +14:00 (+14)", "01-01 00:00 +14:00 (+14)"]
    );
    // In Havana midnight is skipped in spring and comes twice in autumn.
    assert_eq!(
        preview("0 0 * * *", "America/Havana", "2026-03-08T04:30:00Z", 1),
        ["03-08 01:00 -04:00 (CDT)"]
    );
    assert_eq!(
        preview("0 0 * * *", "America/Havana", "2026-11-01T03:30:00Z", 2),
        ["11-01 00:00 -04:00 (CDT)", "11-02 00:00 -05:00 (CST)"]
    );
}

#[test]
fn leap_days_and_the_end_of_the_calendar() {
    assert_eq!(
        preview("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 2),
        ["02-29 00:00 +00:00 (UTC)", "02-29 00:00 +00:00 (UTC)"]
    );
    let leap = schedule("* * 29 2 *", "Asia/Kolkata");
    assert_eq!(leap.preview(timestamp(1_767_225_600), 1500).len(), 1500);
    let mondays = schedule("0 0 29 2 mon", "UTC").preview(timestamp(1_767_225_600), 10);
    let years: Vec<_> = mondays.iter().map(|at| Zone::UTC.display(*at)[..4].to_owned()).collect();
    let as_python_has_it = ["2044", "2072", "2112", "2140", "2168", "2196", "2208", "2236", "2264", "2292"];
    assert_eq!(years, as_python_has_it);
    let last = schedule("59 23 31 12 *", "UTC");
    assert_eq!(
        last.next_after(timestamp(4_133_980_799)),
        Some(timestamp(4_165_516_740)),
        "2101 is a year like others"
    );
    assert_eq!(last.next_after(timestamp(253_402_300_800 - 120)), Some(timestamp(253_402_300_740)));
    assert_eq!(last.next_after(timestamp(253_402_300_740)), None);
    assert_eq!(last.next_after(Timestamp::from_micros(u64::MAX)), None);
    assert_eq!(last.last_until(Timestamp::ZERO, Timestamp::ZERO), None);
}

#[test]
fn every_so_often_lies_on_a_grid() {
    let every = Schedule::Every(Duration::from_secs(30));
    let at = |millis: u64| Timestamp::from_millis(1_800_000_000_000 + millis);
    assert_eq!(every.preview(at(1), 3), [at(30_000), at(60_000), at(90_000)]);
    assert_eq!(every.next_after(at(30_000)), Some(at(60_000)));
    assert_eq!(every.last_until(at(0), at(95_000)), Some(at(90_000)));
    assert_eq!(every.last_until(at(90_000), at(95_000)), None);
    let nothing = Schedule::Every(Duration::ZERO);
    assert_eq!(nothing.next_after(at(0)), Some(at(1)), "never in a circle");
    assert_eq!(Schedule::Every(Duration::MAX).next_after(at(0)), Some(Timestamp::from_micros(u64::MAX)));
    assert_eq!(Schedule::Every(Duration::MAX).next_after(Timestamp::from_micros(u64::MAX)), None);
}
