//! User-configurable reports: tables made from cases, rebuilt in chunks, and the indicators computed from them.

use std::collections::{BTreeMap, HashSet};

use celeriac::{Context, TaskError, task};

use crate::hq::hq;

/// Cases of one run.
const CHUNK: usize = 1000;

/// Rebuilds the report table of a domain, 1000 cases a run: the seed's own wish for this queue.
///
/// The first run empties the table. A run that is repeated writes the same rows again.
#[task(queue = "ucr_queue", soft_time_limit = "50m", time_limit = "1h")]
pub fn rebuild_table(ctx: &Context, domain: String, after: String, rows: usize) -> Result<usize, TaskError> {
    let db = hq().db.read()?;
    let mut cases = db.prepare(
        "SELECT case_id, village, visits, name, 1 - closed FROM cases
         WHERE domain = ? AND case_id > ? ORDER BY case_id LIMIT ?",
    )?;
    let mut cases = cases.query((&domain, &after, CHUNK))?;
    let mut chunk: Vec<(String, String, i64, String, bool)> = Vec::with_capacity(CHUNK);
    while let Some(case) = cases.next()? {
        ctx.check()?;
        let phonetic = soundex(&case.get::<_, String>(3)?);
        chunk.push((case.get(0)?, case.get(1)?, case.get(2)?, phonetic, case.get(4)?));
    }
    hq().db.write(|tx| {
        if after.is_empty() {
            tx.execute("DELETE FROM ucr WHERE domain = ?", [&domain])?;
        }
        let mut insert = tx.prepare_cached("INSERT OR REPLACE INTO ucr VALUES (?, ?, ?, ?, ?, ?)")?;
        for (case, village, visits, phonetic, open) in &chunk {
            insert.execute((&domain, case, village, visits, phonetic, open))?;
        }
        Ok::<_, rusqlite::Error>(())
    })?;
    let rows = rows + chunk.len();
    tracing::info!(domain, rows, "report table");
    match chunk.pop() {
        Some((last, ..)) if chunk.len() + 1 == CHUNK => {
            Err(TaskError::continue_with(rebuild_table::s(domain, last, rows)))
        }
        _ => Ok(rows),
    }
}

/// Computes the expensive indicators of a domain from its report table: for each village the median and the ninth
/// decile of visits, and how many different-sounding names it has.
#[task(queue = "ucr_indicator_queue", soft_time_limit = "50m", time_limit = "1h")]
pub fn save_indicators(ctx: &Context, domain: String) -> Result<usize, TaskError> {
    #[derive(Default)]
    struct Village {
        visits: Vec<i64>,
        names: HashSet<String>,
    }
    let db = hq().db.read()?;
    let mut rows = db.prepare("SELECT village, visits, phonetic FROM ucr WHERE domain = ?")?;
    let mut rows = rows.query([&domain])?;
    let mut villages: BTreeMap<String, Village> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        ctx.check()?;
        let village = villages.entry(row.get(0)?).or_default();
        village.visits.push(row.get(1)?);
        village.names.insert(row.get(2)?);
    }
    hq().db.write(|tx| {
        tx.execute("DELETE FROM indicator WHERE domain = ?", [&domain])?;
        let mut insert = tx.prepare_cached("INSERT INTO indicator VALUES (?, ?, ?, ?, ?, ?)")?;
        for (name, village) in &mut villages {
            village.visits.sort_unstable();
            let (median, p90) = (quantile(&village.visits, 0.5), quantile(&village.visits, 0.9));
            insert.execute((&domain, name, village.visits.len(), median, p90, village.names.len()))?;
        }
        Ok(villages.len())
    })
}

/// The nearest-rank quantile of sorted numbers; 0 of none.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
pub fn quantile(sorted: &[i64], share: f64) -> i64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// How a name sounds: the American Soundex of its Latin letters, `""` if it has none.
fn soundex(name: &str) -> String {
    let code = |c: char| match c {
        'B' | 'F' | 'P' | 'V' => '1',
        'C' | 'G' | 'J' | 'K' | 'Q' | 'S' | 'X' | 'Z' => '2',
        'D' | 'T' => '3',
        'L' => '4',
        'M' | 'N' => '5',
        'R' => '6',
        'H' | 'W' => '-', // letters of one code around them count once
        _ => '0',
    };
    let mut letters = name.chars().filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_uppercase());
    let Some(first) = letters.next() else { return String::new() };
    let mut sound = String::from(first);
    let mut last = code(first);
    for c in letters.map(code) {
        if c != '-' {
            if c != '0' && c != last {
                sound.push(c);
            }
            last = c;
        }
        if sound.len() == 4 {
            break;
        }
    }
    format!("{sound:0<4}")
}
