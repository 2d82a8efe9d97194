//! Mails, through `lettre`: into files unless an SMTP server is set.

use celeriac::{TaskError, task};
use lettre::message::Mailbox;
use lettre::{FileTransport, Message, SmtpTransport, Transport};
use rusqlite::OptionalExtension;

use crate::hq::{follow, hq, now_ms};

const FROM: &str = "CommCare <noreply@commcare.example>";

/// Sends one mail. A plain function, because `lettre` blocks: it gets a thread although its queue is I/O bound.
///
/// Nobody can send a mail exactly once. Its `Message-ID` is made from its row's id, so that a mail server can tell
/// when a crash made it go out twice.
#[task(queue = "email_queue", max_retries = 5, default_retry_delay = "1s")]
pub fn send_email(mail: String) -> Result<(), TaskError> {
    let sql = "SELECT recipient, subject, body, sent_at FROM mail WHERE id = ?";
    let row: Option<(String, String, String, Option<i64>)> = hq()
        .db
        .read()?
        .query_row(sql, [&mail], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))
        .optional()?;
    let Some((recipient, subject, body, sent)) = row else {
        return Err(TaskError::permanent(format!("there is no mail `{mail}`")));
    };
    if sent.is_some() {
        return Ok(());
    }
    let to: Mailbox = recipient
        .parse()
        .map_err(|e| TaskError::permanent(format!("`{recipient}` is no mail address: {e}")))?;
    let from: Mailbox = FROM.parse().map_err(TaskError::permanent)?;
    let message = Message::builder()
        .message_id(Some(message_id(&mail)))
        .from(from)
        .to(to)
        .subject(subject)
        .body(body)
        .map_err(TaskError::permanent)?;
    match &hq().smtp {
        None => drop(FileTransport::new(&hq().mail).send(&message)?),
        Some((host, port)) => {
            let server = SmtpTransport::builder_dangerous(host).port(*port).build();
            // What the server refuses for good (5xx) it refuses again.
            server.send(&message).map_err(|e| {
                let permanent = e.is_permanent();
                TaskError::from(e).with_transient(!permanent)
            })?;
        }
    }
    hq().db.write(|tx| {
        tx.execute("UPDATE mail SET sent_at = ? WHERE id = ?", (now_ms(), &mail))?;
        Ok(())
    })
}

/// The `Message-ID` of a mail; the same for each attempt to send it.
pub fn message_id(mail: &str) -> String {
    format!("<{}@commcare.example>", mail.replace(':', "."))
}

/// Writes a mail to be sent; once, however often it is called.
pub fn queue(
    tx: &rusqlite::Connection,
    id: &str,
    to: &str,
    subject: &str,
    body: &str,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO mail (id, recipient, subject, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING";
    tx.execute(sql, (id, to, subject, body)).map(|_| ())
}

/// Has a queued mail sent, from within another task.
pub fn follow_up(id: &str) -> Result<(), TaskError> {
    follow(send_email::s(id.to_owned()), format!("mail:{id}"))
}
