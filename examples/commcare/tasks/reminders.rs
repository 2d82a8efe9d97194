//! Reminders: rules say which cases get one; each becomes an instance, which is due at its time and ends as an SMS.

use celeriac::core::Timestamp;
use celeriac::{Context, TaskError, task};
use rusqlite::{Connection, OptionalExtension};
use serde_json::json;

use super::{outgoing, sms};
use crate::hq::{follow, hq, now_ms};

/// Cases of one run.
const CHUNK: usize = 1000;

/// A rule: cases of this village with no more than so many visits, after so long.
struct Rule {
    id: String,
    domain: String,
    village: String,
    most_visits: i64,
    delay_ms: i64,
}

const RULE: &str = "SELECT id, domain, village, most_visits, delay_ms FROM rule";

fn rule(row: &rusqlite::Row<'_>) -> rusqlite::Result<Rule> {
    Ok(Rule {
        id: row.get(0)?,
        domain: row.get(1)?,
        village: row.get(2)?,
        most_visits: row.get(3)?,
        delay_ms: row.get(4)?,
    })
}

/// The instance of a rule for a case, if there is none yet; its id and when it is due.
fn instance(tx: &Connection, rule: &Rule, case: &str) -> rusqlite::Result<(String, i64)> {
    let id = format!("{}.{case}", rule.id);
    let sql = "INSERT INTO instance (id, rule, case_id, due) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING";
    tx.execute(sql, (&id, &rule.id, case, now_ms() + rule.delay_ms))?;
    let due = tx.query_row("SELECT due FROM instance WHERE id = ?", [&id], |r| r.get(0))?;
    Ok((id, due))
}

/// Has instances handled when they are due. They wait in the broker, not in a worker's memory.
fn schedule(instances: Vec<(String, i64)>) -> Result<usize, TaskError> {
    let count = instances.len();
    for (id, due) in instances {
        let eta = Timestamp::from_millis(u64::try_from(due).unwrap_or(0));
        follow(handle_due_instance::s(id.clone()).eta(eta), format!("reminder:{id}"))?;
    }
    Ok(count)
}

/// A rule was changed: looks at all cases of its domain, 1000 a run. What is there already is not made twice.
#[task(queue = "reminder_rule_queue")]
pub fn run_messaging_rule(
    ctx: &Context,
    rule_id: String,
    after: String,
    found: usize,
) -> Result<usize, TaskError> {
    ctx.check()?;
    let db = hq().db.read()?;
    let the_rule = db.query_row(&format!("{RULE} WHERE id = ?"), [&rule_id], rule).optional()?;
    let the_rule = the_rule.ok_or_else(|| TaskError::permanent(format!("there is no rule `{rule_id}`")))?;
    let mut cases = db.prepare(
        "SELECT case_id, village = ?3 AND visits <= ?4 FROM cases
         WHERE domain = ?1 AND case_id > ?2 ORDER BY case_id LIMIT ?5",
    )?;
    let cases: Vec<(String, bool)> = cases
        .query_map((&the_rule.domain, &after, &the_rule.village, the_rule.most_visits, CHUNK), |r| {
            Ok((r.get(0)?, r.get(1)?))
        })?
        .collect::<Result<_, _>>()?;
    let instances = hq().db.write(|tx| {
        let matching = cases.iter().filter(|(_, matches)| *matches);
        matching.map(|(case, _)| instance(tx, &the_rule, case)).collect::<rusqlite::Result<Vec<_>>>()
    })?;
    let found = found + schedule(instances)?;
    match cases.last() {
        Some((last, _)) if cases.len() == CHUNK => {
            Err(TaskError::continue_with(run_messaging_rule::s(rule_id, last.clone(), found)))
        }
        _ => Ok(found),
    }
}

/// A case was changed: looks at all rules of its domain.
#[task(queue = "reminder_case_update_queue")]
pub fn case_changed(domain: String, case: String) -> Result<usize, TaskError> {
    let db = hq().db.read()?;
    let sql = format!(
        "{RULE} WHERE domain = ?1 AND EXISTS (SELECT 1 FROM cases c WHERE c.domain = ?1 AND c.case_id = ?2
         AND c.village = rule.village AND c.visits <= rule.most_visits)"
    );
    let rules: Vec<Rule> = db.prepare(&sql)?.query_map([&domain, &case], rule)?.collect::<Result<_, _>>()?;
    if rules.is_empty() {
        return Ok(0);
    }
    let instances = hq().db.write(|tx| {
        rules.iter().map(|rule| instance(tx, rule, &case)).collect::<rusqlite::Result<Vec<_>>>()
    })?;
    schedule(instances)
}

/// A reminder is due: it becomes an SMS, in one transaction with the note of it. Too early, it is put off.
#[task(queue = "reminder_queue")]
pub fn handle_due_instance(instance: String) -> Result<(), TaskError> {
    hq().db.write(|tx| {
        let sql = "SELECT i.case_id, i.due, i.sent_at, r.text FROM instance i JOIN rule r ON r.id = i.rule WHERE i.id = ?";
        let found: Option<(String, i64, Option<i64>, String)> =
            tx.query_row(sql, [&instance], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?))).optional()?;
        let (case, due, sent, text) =
            found.ok_or_else(|| TaskError::permanent(format!("there is no reminder `{instance}`")))?;
        if sent.is_some() {
            return Ok(());
        }
        if now_ms() < due {
            return Err(TaskError::postpone_until(Timestamp::from_millis(u64::try_from(due).unwrap_or(0))));
        }
        outgoing::queue(tx, &instance, "sms", &json!({ "to": case, "text": text }))?;
        tx.execute("UPDATE instance SET sent_at = ? WHERE id = ?", (now_ms(), &instance))?;
        Ok(())
    })?;
    follow(sms::process_sms::s(instance.clone()), format!("sms:{instance}"))
}
