//! Exports: the cases of a domain as a spreadsheet, and a phone's restore file.

use std::fmt::Write;

use celeriac::task;
use celeriac::task::{Context, TaskError};
use rust_xlsxwriter::Workbook;

use crate::database;
use crate::settings::{path, write_whole};

/// Writes the cases of a domain to `exports/{export_id}.xlsx` and returns the file's name.
///
/// Somebody clicked and waits, hence the queue; saved exports go through `saved_exports_queue`, by a call option.
#[task(queue = "export_download_queue")]
pub fn export_cases(ctx: &Context, export_id: String, domain: String) -> Result<String, TaskError> {
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet().set_name("cases")?;
    for (column, title) in (0..).zip(["case_id", "name", "opened_on", "status"]) {
        sheet.write_string(0, column, title)?;
    }
    let connection = database::open()?;
    let mut query = connection
        .prepare("SELECT case_id, name, opened_on, status FROM cases WHERE domain = ?1 ORDER BY case_id")?;
    let mut cases = query.query([&domain])?;
    let mut line = 0;
    while let Some(case) = cases.next()? {
        line += 1;
        if line % 1000 == 0 {
            ctx.check()?;
        }
        for column in 0..4 {
            sheet.write_string(line, column, case.get::<_, String>(usize::from(column))?)?;
        }
    }
    let name = format!("{export_id}.xlsx");
    write_whole(&path("exports").join(&name), &workbook.save_to_buffer()?)?;
    Ok(name)
}

/// Writes what a phone gets at its next sync: the open cases of a domain, as XML.
#[task(queue = "async_restore_queue")]
pub fn build_restore(user_id: String, domain: String) -> Result<String, TaskError> {
    let mut restore = String::from("<OpenRosaResponse>\n");
    let mut after = String::new();
    loop {
        let cases = database::cases_after(&domain, &after, 1000)?;
        let Some((last, _)) = cases.last() else { break };
        after.clone_from(last);
        for (case_id, _) in cases.iter().filter(|(_, status)| status == "open") {
            let _ = writeln!(restore, "  <case case_id=\"{}\"/>", escape(case_id)); // a String takes any text
        }
    }
    restore.push_str("</OpenRosaResponse>\n");
    let name = format!("{user_id}.xml");
    write_whole(&path("restores").join(&name), restore.as_bytes())?;
    Ok(name)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
