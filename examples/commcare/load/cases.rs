//! The cases of the load: a CSV that is the same for each run, and what is to have become of them.

use std::collections::BTreeMap;

/// A case as it is to be in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub name: String,
    pub owner: String,
    pub village: String,
    pub visits: i64,
    pub closed: bool,
}

/// Cases by id.
pub type Cases = BTreeMap<String, Case>;

/// Visits from which on the case rule closes a case.
pub const CLOSED_FROM: i64 = 10;

/// So many cases, with names that are not kind to CSV, XML or HTML.
pub fn make(count: usize) -> Cases {
    const NAMES: [&str; 6] =
        ["Asha, \"the elder\"", "Bintou <b>", "Chidi & Söhne", "D'Souza", "Ếm ợi 村", "Fatima\nK."];
    let case = |i: usize| Case {
        name: format!("{} {i}", NAMES[i % NAMES.len()]),
        owner: format!("worker-{}", i % 20),
        village: format!("village-{}", i % 37),
        visits: i64::try_from(i * 7919 % 15).unwrap_or(0),
        closed: false,
    };
    (0..count).map(|i| (id(i), case(i))).collect()
}

/// The id of the case of that number.
pub fn id(number: usize) -> String {
    format!("c{number:05}")
}

/// The cases as a CSV file, with so many rows in between that cannot be imported.
pub fn csv(cases: &Cases, bad: usize) -> Result<Vec<u8>, csv::Error> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(["case_id", "name", "owner", "village", "visits"])?;
    for (number, (id, case)) in cases.iter().enumerate() {
        if number < bad {
            csv.write_record([&format!("bad-{number}"), "", "", "", "many"])?;
        }
        csv.write_record([id, &case.name, &case.owner, &case.village, &case.visits.to_string()])?;
    }
    csv.into_inner().map_err(|error| csv::Error::from(error.into_error()))
}

/// The cases of a domain as SQLite has them.
pub fn stored(db: &rusqlite::Connection, domain: &str) -> rusqlite::Result<Cases> {
    let mut rows =
        db.prepare("SELECT case_id, name, owner, village, visits, closed FROM cases WHERE domain = ?")?;
    let rows = rows.query_map([domain], |r| {
        let case = Case {
            name: r.get(1)?,
            owner: r.get(2)?,
            village: r.get(3)?,
            visits: r.get(4)?,
            closed: r.get(5)?,
        };
        Ok((r.get(0)?, case))
    })?;
    rows.collect()
}

/// How two lots differ, in words; `None` if they do not.
pub fn difference(stored: &Cases, expected: &Cases) -> Option<String> {
    if let Some((id, case)) = expected.iter().find(|(id, case)| stored.get(*id) != Some(case)) {
        return Some(format!("case {id} should be {case:?} and is {:?}", stored.get(id)));
    }
    let stray = stored.keys().find(|id| !expected.contains_key(*id))?;
    Some(format!("case {stray} should not be there"))
}
