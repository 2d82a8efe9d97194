//! Restores: all that a phone needs, as XML, for a sync that asked for it asynchronously.

use std::io::Write;

use celeriac::{Context, TaskError, task};
use serde::{Deserialize, Serialize};

use crate::hq::{hq, write_whole};

/// A payload that is ready.
#[derive(Debug, Serialize, Deserialize)]
pub struct Restore {
    pub file: String,
    pub cases: u64,
    pub bytes: u64,
}

/// Writes the payload of one user: the open cases that he owns.
#[task(queue = "async_restore_queue")]
pub fn prime_restore(ctx: &Context, domain: String, user: String) -> Result<Restore, TaskError> {
    let db = hq().db.read()?;
    let file = format!("{domain}.{user}.xml");
    if !file.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err(TaskError::permanent(format!("`{file}` is no name for a file")));
    }
    let mut cases = 0;
    let bytes = write_whole(&hq().restores.join(&file), |out| {
        let message = format!("Successfully restored account {}!", escape(&user));
        writeln!(out, "<OpenRosaResponse xmlns=\"http://openrosa.org/http/response\">")?;
        writeln!(out, "  <message nature=\"ota_restore_success\">{message}</message>")?;
        let mut found = db.prepare(
            "SELECT case_id, name, village, visits FROM cases
             WHERE domain = ? AND owner = ? AND closed = 0 ORDER BY case_id",
        )?;
        let mut found = found.query([&domain, &user])?;
        while let Some(case) = found.next()? {
            ctx.check()?;
            cases += 1;
            let [id, name, village] =
                [case.get::<_, String>(0)?, case.get::<_, String>(1)?, case.get::<_, String>(2)?]
                    .map(|t| escape(&t));
            writeln!(out, "  <case case_id=\"{id}\" user_id=\"{}\">", escape(&user))?;
            writeln!(out, "    <update><case_name>{name}</case_name><village>{village}</village>")?;
            writeln!(out, "      <visits>{}</visits></update>\n  </case>", case.get::<_, i64>(3)?)?;
        }
        writeln!(out, "</OpenRosaResponse>")?;
        Ok(())
    })?;
    Ok(Restore { file, cases, bytes })
}

/// Text for XML 1.0, between tags and in attributes. What XML cannot hold at all becomes a question mark.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => out.push(c),
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            c => out.push(c),
        }
    }
    out
}
