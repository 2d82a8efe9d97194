//! Domains: HQ's word for the project spaces of its users.

use celeriac::core::calendar::{Tenant, Zone};
use celeriac::{TaskError, task};

use crate::hq::{hq, now_ms};

/// Counts what a domain has, for the pages that show it.
#[task(queue = "background_queue")]
pub fn update_calculated_properties(domain: String) -> Result<u64, TaskError> {
    hq().db.write(|tx| {
        let sql = "SELECT count(*), coalesce(sum(1 - closed), 0) FROM cases WHERE domain = ?";
        let (cases, open): (u64, u64) = tx.query_row(sql, [&domain], |r| Ok((r.get(0)?, r.get(1)?)))?;
        let sql = "INSERT INTO domain VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT DO UPDATE SET cases = ?2, open_cases = ?3, calculated_at = ?4";
        tx.execute(sql, (&domain, cases, open, now_ms()))?;
        Ok(cases)
    })
}

/// Where projects are.
const ZONES: [&str; 8] = [
    "Africa/Blantyre",
    "Africa/Dakar",
    "Africa/Nairobi",
    "America/Guatemala",
    "America/New_York",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "UTC",
];

/// What a new domain's zone is until somebody sets it; HQ asks at the sign-up.
pub fn first_guess(domain: &str) -> &'static str {
    ZONES[domain.bytes().map(usize::from).sum::<usize>() % ZONES.len()]
}

/// All domains with their zones, for what happens at midnight where each is. One whose zone is no zone is at UTC.
pub async fn all() -> Result<Vec<Tenant>, TaskError> {
    let db = hq().db.read()?;
    let sql = "SELECT name, coalesce(zone, 'UTC') FROM domain LEFT JOIN domain_zone ON domain = name";
    let mut domains = db.prepare(sql)?;
    let domains = domains.query_map([], |r| {
        let zone = r.get::<_, String>(1)?.parse().unwrap_or(Zone::UTC);
        Ok(Tenant::new(r.get::<_, String>(0)?, zone))
    })?;
    Ok(domains.collect::<Result<_, _>>()?)
}
