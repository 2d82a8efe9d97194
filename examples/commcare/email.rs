//! E-mails, through a mail library: to files by default, to a mail server by setting.

use celeriac::task;
use celeriac::task::TaskError;
use lettre::message::header::ContentType;
use lettre::{FileTransport, Message, SmtpTransport, Transport};

use crate::settings::{path, settings};

/// Sends one e-mail. Its Message-ID is `{mail_id}@commcare.example`, so a receiver knows one that comes twice.
#[task(queue = "email_queue", default_retry_delay = "1s")]
pub fn send_email(mail_id: String, to: String, subject: String) -> Result<(), TaskError> {
    let mail = Message::builder()
        .message_id(Some(format!("<{mail_id}@commcare.example>")))
        .from("CommCare <noreply@commcare.example>".parse()?)
        .to(to.parse().map_err(|e| TaskError::permanent(format!("{to:?} is no e-mail address: {e}")))?)
        .subject(subject)
        .header(ContentType::TEXT_PLAIN)
        .body(format!("This is mail {mail_id}.\n"))?;
    match &settings().smtp {
        None => drop(FileTransport::new(path("mail")).send(&mail)?),
        Some(server) => {
            let (host, port) = server.rsplit_once(':').unwrap_or((server, "25"));
            let port = port.parse().map_err(|e| TaskError::permanent(format!("--smtp {server}: {e}")))?;
            drop(SmtpTransport::builder_dangerous(host).port(port).build().send(&mail)?);
        }
    }
    Ok(())
}

/// Greets a new user. It names no queue, so it goes to the default one; the mail itself goes to the mails' queue.
#[task]
pub async fn welcome_user(user_id: String) -> Result<(), TaskError> {
    let to = format!("{user_id}@users.example");
    let mail_id = format!("welcome-{user_id}");
    match send_email::s(mail_id.clone(), to, "Welcome".into()).id(mail_id).delay().await {
        // An earlier run of this task came as far as this.
        Ok(_) | Err(celeriac::EnqueueError::DuplicateId { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
