//! The other buttons: a mail, and some of everything.

use actix_web::{HttpResponse, web};
use celeriac::Celeriac;
use serde::Deserialize;
use serde_json::json;

use super::sink::Sink;
use super::{Problem, accepted};
use crate::hq::hq;
use crate::load;
use crate::tasks::email;

#[derive(Deserialize)]
pub struct Letter {
    to: String,
    subject: String,
    #[serde(default)]
    body: String,
}

/// `POST /mails` with `{"to": "...", "subject": "...", "body": "..."}`
pub async fn mail(letter: web::Json<Letter>) -> Result<HttpResponse, Problem> {
    let letter = letter.into_inner();
    if let Err(error) = letter.to.parse::<lettre::message::Mailbox>() {
        return Err(Problem::bad(format!("`{}` is no mail address: {error}", letter.to)));
    }
    let id = uuid::Uuid::now_v7().to_string();
    let row = id.clone();
    web::block(move || hq().db.write(|tx| email::queue(tx, &row, &letter.to, &letter.subject, &letter.body)))
        .await??;
    let task = email::send_email::s(id.clone()).id(format!("mail:{id}")).delay().await?;
    Ok(accepted(task.id(), json!({ "mail": id })))
}

/// `POST /load`: the load of `--once`, through all queues; how it went is logged.
pub async fn load(celeriac: web::Data<Celeriac>, sink: web::Data<Sink>) -> Result<HttpResponse, Problem> {
    let load = web::block(load::Load::prepare).await?.map_err(Problem::internal)?;
    let (run, domain) = (load.run, load.domain.clone());
    actix_web::rt::spawn(async move {
        match load::run(load, &celeriac, &sink).await {
            Ok(tally) if tally.faults.is_empty() => {
                tracing::info!(run, tasks = tally.tasks, "the mixed load is over")
            }
            Ok(tally) => {
                tracing::error!(run, faults = ?tally.faults, "the mixed load did not go as it should")
            }
            Err(error) => tracing::error!(run, error, "the mixed load broke off"),
        }
    });
    Ok(HttpResponse::Accepted().json(json!({ "run": run, "domain": domain })))
}
