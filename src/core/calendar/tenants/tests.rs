//! A year of many tenants, and the changes that may happen to one tenant.

use std::collections::HashMap;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn midnight_of_all(spread: Duration, misfire: Misfire, since: Timestamp) -> Tenants {
    Tenants::new("saved_exports", "0 0 * * *".parse().unwrap(), spread, misfire, since)
}

fn at(text: &str) -> Timestamp {
    timestamp(chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp())
}

fn zone(name: &str) -> Zone {
    name.parse().unwrap()
}

fn day(text: &str) -> LocalDay {
    text.parse().unwrap()
}

/// Publishes the ticks that come due until `end`. Returns the tenant, the day and the time of each.
fn run(tenants: &mut Tenants, end: Timestamp) -> Vec<(String, String, Timestamp)> {
    let mut had = Vec::new();
    while let Some(now) = tenants.next().filter(|now| *now <= end) {
        for tick in tenants.due(now, usize::MAX) {
            assert!(tick.due <= now && tick.next.is_none_or(|next| next > now));
            tenants.done(&tick.tenant, tick.day);
            had.push((tick.tenant, tick.day.to_string(), now));
        }
    }
    had
}

/// Zones from all over the world, with clocks that change at midnight, by half an hour, and twice in Ramadan.
const ZONES: [&str; 40] = [
    "UTC",
    "Africa/Abidjan",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Africa/Johannesburg",
    "Africa/Lagos",
    "Africa/Nairobi",
    "America/Anchorage",
    "America/Argentina/Buenos_Aires",
    "America/Asuncion",
    "America/Bogota",
    "America/Chicago",
    "America/Denver",
    "America/Guatemala",
    "America/Havana",
    "America/Los_Angeles",
    "America/New_York",
    "America/Santiago",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Asia/Bangkok",
    "Asia/Beirut",
    "Asia/Dhaka",
    "Asia/Jakarta",
    "Asia/Jerusalem",
    "Asia/Kabul",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Asia/Manila",
    "Asia/Tehran",
    "Asia/Tokyo",
    "Australia/Lord_Howe",
    "Australia/Sydney",
    "Europe/Berlin",
    "Europe/Lisbon",
    "Europe/London",
    "Europe/Moscow",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Pacific/Kiritimati",
];

#[test]
fn ten_thousand_tenants_in_forty_zones_for_a_year() {
    const TENANTS: usize = 10_000;
    let (start, end) = (at("2026-01-01T12:00:00Z"), at("2027-01-01T12:00:00Z"));
    let mut tenants = midnight_of_all(4 * HOUR, Misfire::Once, start);
    // The zones are spread as tenants are: many tenants in few zones, where most tasks would start at once.
    let zone_of = |n: usize| zone(ZONES[if n.is_multiple_of(3) { 27 } else { n % 40 }]);
    let list = (0..TENANTS).map(|n| Tenant::new(format!("domain-{n}"), zone_of(n))).collect();
    assert!(tenants.refresh(list, |_| None, start).is_empty());

    let minute = |at: Timestamp| usize::try_from(at.since(start).as_secs() / 60).unwrap();
    let mut arrivals = vec![0_u32; minute(end) + 1];
    let mut days = vec![Vec::new(); TENANTS];
    while let Some(now) = tenants.next().filter(|now| *now < end) {
        for tick in tenants.due(now, usize::MAX) {
            tenants.done(&tick.tenant, tick.day);
            arrivals[minute(now)] += 1;
            days[tick.tenant[7..].parse::<usize>().unwrap()].push(tick.day.0);
        }
    }
    for (n, days) in days.iter().enumerate() {
        assert!((364..=366).contains(&days.len()), "domain-{n} had {} days", days.len());
        for pair in days.windows(2) {
            assert_eq!(pair[0].succ_opt(), Some(pair[1]), "domain-{n} in {}: each day once", zone_of(n));
        }
    }
    let peak = arrivals.iter().max().copied().unwrap();
    // All tenants at midnight UTC, as HQ's saved exports run; then all at their own midnight, without a window.
    let largest = (0..TENANTS).filter(|n| zone_of(*n) == zone("Asia/Kolkata")).count();
    println!(
        "{} ticks of {TENANTS} tenants; at most {peak} in a minute, {TENANTS} at midnight UTC, {largest} at local midnight",
        days.iter().map(Vec::len).sum::<usize>()
    );
    assert!(u64::from(peak) * 10 <= TENANTS as u64, "ten times lower than at midnight UTC: {peak}");
    assert!(u64::from(peak) * 10 <= largest as u64, "ten times lower than at local midnight: {peak}");
}

#[test]
fn midnight_is_where_the_tenant_is() {
    let start = at("2026-03-07T12:00:00Z");
    let mut tenants = midnight_of_all(Duration::ZERO, Misfire::Once, start);
    let list = ["Asia/Kolkata", "America/Havana", "UTC"].map(|name| Tenant::new(name, zone(name)));
    tenants.refresh(list.into(), |_| None, start);
    let had = run(&mut tenants, at("2026-03-08T12:00:00Z"));
    let expected = [
        ("Asia/Kolkata", "2026-03-08", "2026-03-07T18:30:00Z"),
        ("UTC", "2026-03-08", "2026-03-08T00:00:00Z"),
        ("America/Havana", "2026-03-08", "2026-03-08T05:00:00Z"), // midnight is skipped there that day
    ];
    assert_eq!(had, expected.map(|(name, day, time)| (name.to_owned(), day.to_owned(), at(time))));
}

#[test]
fn a_tenant_that_moves_has_each_day_once() {
    let start = at("2026-06-01T12:00:00Z");
    let mut tenants = midnight_of_all(2 * HOUR, Misfire::Once, start);
    let mut had = Vec::new();
    let moves = [
        ("UTC", "2026-06-03T12:00:00Z"),
        ("Asia/Kolkata", "2026-06-05T20:00:00Z"), // where June 6 has begun
        ("America/Los_Angeles", "2026-06-08T06:30:00Z"),
        ("Pacific/Kiritimati", "2026-06-10T09:59:00Z"),
        ("Pacific/Pago_Pago", "2026-06-12T12:00:00Z"),
        ("UTC", "2026-06-14T12:00:00Z"),
    ];
    let mut now = start;
    for (name, until) in moves {
        tenants.refresh(vec![Tenant::new("wanderer", zone(name))], |_| None, now);
        now = at(until);
        had.extend(run(&mut tenants, now).into_iter().map(|(_, day, _)| day));
    }
    let all: Vec<_> = (2..=14).map(|day| format!("2026-06-{day:02}")).collect();
    assert_eq!(had, all);
}

#[test]
fn after_a_restart_what_is_remembered_is_not_repeated() {
    let start = at("2026-06-01T12:00:00Z");
    let list: Vec<_> = ZONES.iter().map(|name| Tenant::new(*name, zone(name))).collect();
    let mut remembered = HashMap::new();
    let mut had: HashMap<String, Vec<String>> = HashMap::new();
    // The program is down for some hours now and then, at any moment.
    let mut now = start;
    for life in 0..30_u64 {
        let mut tenants = midnight_of_all(3 * HOUR, Misfire::Once, start);
        tenants.refresh(list.clone(), |name| remembered.get(name).copied(), now);
        let end = now + Duration::from_secs(3600 * (5 + life * 7 % 19)) + Duration::from_secs(life * 61);
        while let Some(next) = tenants.next().map(|next| next.max(now)).filter(|next| *next <= end) {
            for tick in tenants.due(next, 3) {
                remembered.insert(tick.tenant.clone(), tick.day);
                had.entry(tick.tenant.clone()).or_default().push(tick.day.to_string());
                tenants.done(&tick.tenant, tick.day);
            }
        }
        now = end + Duration::from_secs(3600 * (life % 6));
    }
    for (name, days) in had {
        let mut once = days.clone();
        once.dedup();
        assert_eq!(days, once, "{name}: no day twice");
        let (first, last) = (day(&days[0]).0, day(days.last().unwrap()).0);
        assert_eq!((last - first).num_days() + 1, days.len() as i64, "{name}: none left out");
    }
}

#[test]
fn what_was_missed_is_made_up_for_by_policy() {
    let (start, down_until) = (at("2026-06-01T12:00:00Z"), at("2026-06-05T08:00:00Z"));
    let had = |misfire| {
        let mut tenants = midnight_of_all(Duration::ZERO, misfire, start);
        tenants.refresh(vec![Tenant::new("a", Zone::UTC)], |_| Some(day("2026-06-01")), down_until);
        let mut had = Vec::new();
        while let Some(next) = tenants.next().map(|next| next.max(down_until)) {
            if next > down_until {
                break;
            }
            for tick in tenants.due(next, 10) {
                tenants.done("a", tick.day);
                had.push(tick.day.to_string());
            }
        }
        (had, tenants.next())
    };
    let next = Some(at("2026-06-06T00:00:00Z"));
    assert_eq!(had(Misfire::Once), (vec!["2026-06-05".to_owned()], next));
    assert_eq!(had(Misfire::Skip), (vec![], next));
    let all = had(Misfire::All { within: 36 * HOUR });
    assert_eq!(all, (vec!["2026-06-04".to_owned(), "2026-06-05".to_owned()], next));
}

#[test]
fn who_leaves_is_told_and_who_fails_comes_again() {
    let start = at("2026-06-01T12:00:00Z");
    let mut tenants = midnight_of_all(Duration::ZERO, Misfire::Once, start);
    let list = |names: &[&str]| names.iter().map(|name| Tenant::new(*name, Zone::UTC)).collect::<Vec<_>>();
    tenants.refresh(list(&["a", "b", "a"]), |_| None, start);
    assert_eq!(tenants.len(), 2);
    let midnight = at("2026-06-02T00:00:00Z");
    assert_eq!(tenants.due(midnight, 1).len(), 1, "no more than asked for");
    let second = tenants.due(midnight, 9).pop().unwrap();
    tenants.failed(&second.tenant, midnight + HOUR);
    assert_eq!(tenants.next(), Some(midnight + HOUR));
    assert_eq!(tenants.due(midnight + HOUR, 9), std::slice::from_ref(&second), "the same day");
    tenants.done(&second.tenant, second.day);
    assert_eq!(tenants.refresh(list(&["b", "c"]), |_| None, midnight + HOUR), ["a"]);
    // The newcomer begins now, and not with a midnight that lies before its arrival.
    assert!(tenants.next() > Some(midnight + HOUR));
    tenants.refresh(Vec::new(), |_| None, midnight + HOUR);
    assert!(tenants.is_empty() && tenants.next().is_none());
    tenants.done("b", day("2026-06-02")); // told too late, and no harm
}

#[test]
fn places_in_the_window_are_even_and_steady() {
    let spread = 4 * HOUR;
    let mut quarters = [0; 4];
    for n in 0..10_000 {
        let place = offset("e", &format!("tenant-{n}"), spread);
        assert_eq!(place, offset("e", &format!("tenant-{n}"), spread));
        quarters[usize::try_from(place.as_secs() / 3600).unwrap()] += 1;
    }
    assert!(quarters.iter().all(|n| (2300..2700).contains(n)), "{quarters:?}");
    assert_eq!(offset("e", "a", Duration::ZERO), Duration::ZERO);
    assert_ne!(offset("e", "tenant-1", spread), offset("f", "tenant-1", spread), "entries do not pile up");
}
