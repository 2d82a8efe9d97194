//! Mails that say that a download is ready, with the link to it: who wished for one gets it when all parts are there.

use celeriac::soil::DownloadFacts;
use celeriac::{Context, TaskError, TaskId, task};

use super::email;
use crate::hq::hq;

/// Somebody wants to be told when all parts of a download are there.
pub fn wish(
    download: &TaskId,
    parts: &[TaskId],
    recipient: &str,
    domain: &str,
    link: &str,
) -> rusqlite::Result<()> {
    hq().db.write(|tx| {
        let sql = "INSERT INTO wish (download, part, recipient, domain, link) VALUES (?, ?, ?, ?, ?)";
        let mut insert = tx.prepare(sql)?;
        for part in parts {
            insert.execute((download.as_str(), part.as_str(), recipient, domain, link))?;
        }
        Ok(())
    })
}

/// The runtime's hook: a file is ready. It runs on a queue's event loop, so the work is a task's.
pub fn file_is_ready(ctx: &Context, _file: &DownloadFacts) {
    let id = ctx.id().to_string();
    actix_web::rt::spawn(async move {
        if let Err(error) = tell_of_download::delay(id.clone()).await {
            tracing::error!(id, %error, "nobody is told that this file is ready");
        }
    });
}

/// One more file is there: has the mails sent that waited for it alone. Run twice, it sends none twice.
#[task(queue = "email_queue", max_retries = 5, default_retry_delay = "1s")]
pub fn tell_of_download(part: String) -> Result<usize, TaskError> {
    let mails = hq().db.write(|tx| {
        tx.execute("UPDATE wish SET ready = 1 WHERE part = ?", [&part])?;
        let sql = "SELECT download, recipient, domain, link FROM wish
             WHERE download IN (SELECT download FROM wish WHERE part = ?)
             GROUP BY download HAVING min(ready) = 1";
        let mut whole = tx.prepare(sql)?;
        let mut whole = whole.query([&part])?;
        let mut mails = Vec::new();
        while let Some(row) = whole.next()? {
            let [download, recipient, domain, link]: [String; 4] =
                [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?];
            let mail = format!("ready:{download}");
            let subject = format!("Your export of {domain} is ready");
            let body = format!("It is here, and is kept for a day:\n\n{link}\n");
            email::queue(tx, &mail, &recipient, &subject, &body)?;
            mails.push(mail);
        }
        Ok::<_, TaskError>(mails)
    })?;
    for mail in &mails {
        email::follow_up(mail)?;
    }
    Ok(mails.len())
}
