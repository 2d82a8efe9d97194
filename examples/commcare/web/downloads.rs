//! Downloads: exports that Soil shows, in one part or several, by one id; and a mail when all of it is there.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use celeriac::soil::{PartialFailure, SoilState};
use celeriac::web::SoilPages;
use celeriac::{Celeriac, TaskId};
use serde::Deserialize;
use serde_json::json;

use super::{Problem, domain};
use crate::hq::hq;
use crate::tasks::{export, ready};

/// More parts than anybody wants.
const MOST_PARTS: u64 = 100;
/// So long the results of the parts are kept, and so who they are.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Deserialize)]
pub struct Wanted {
    domain: Option<String>,
    parts: Option<u64>,
    owner: Option<String>,
    fail: Option<u8>,
    mail_to: Option<String>,
}

/// `POST /downloads` with `{"domain": "demo", "parts": 3, "owner": "amina", "mail_to": "amina@example.org"}`; with `"fail": 1`
/// or `2` one that fails, in that way. Who asks again while it is being made waits for the same tasks. The answer is Soil's,
/// with the ids of the tasks.
pub async fn start(
    wanted: web::Json<Wanted>,
    pages: web::Data<SoilPages>,
    celeriac: web::Data<Celeriac>,
) -> Result<HttpResponse, Problem> {
    let domain = domain(wanted.domain.as_deref())?;
    if let Some(to) = &wanted.mail_to {
        let address = to.parse::<lettre::message::Mailbox>();
        address.map_err(|error| Problem::bad(format!("`{to}` is no mail address: {error}")))?;
    }
    let mut tasks = Vec::new();
    if let Some(option) = wanted.fail {
        tasks.push(export::failing_export::delay(domain.clone(), option).await?.id().clone());
    } else {
        let parts = wanted.parts.unwrap_or(1).clamp(1, MOST_PARTS);
        for call in export::download_in_parts(&domain, parts, wanted.owner.as_deref().unwrap_or("nobody")) {
            tasks.push(call.delay().await?.id().clone());
        }
    }
    let group = make_group(&celeriac, &tasks).await?;
    let answer = pages.start_group(&group).message("Your export is ready.");
    if let Some(to) = wanted.into_inner().mail_to {
        // A mail is read anywhere, so its link says where this program is; a `Host` header could be anybody's.
        let link = pages.as_ref().clone().public_url(&format!("{}/soil", hq().url)).start_group(&group).url();
        let (download, parts) = (group.clone(), tasks.clone());
        let wish = move || ready::wish(&download, &parts, &to, &domain, &link);
        web::block(wish).await?.map_err(Problem::from)?;
        // Those that were over before the wish was written told nobody of it.
        for task in &tasks {
            let status = celeriac.soil().status(task).await.map_err(Problem::internal)?;
            if status.state == SoilState::Success {
                ready::tell_of_download::delay(task.to_string()).await?;
            }
        }
    }
    let answer = json!({
        "download_id": group, "download_url": answer.url(), "status_url": format!("/downloads/{group}"), "tasks": tasks,
    });
    Ok(HttpResponse::Accepted().json(answer))
}

pub(super) async fn make_group(celeriac: &Celeriac, tasks: &[TaskId]) -> Result<TaskId, Problem> {
    celeriac.soil().make_group(tasks.iter().cloned(), A_DAY).await.map_err(Problem::internal)
}

/// `GET /downloads/{id}`: all parts as one.
pub async fn status(celeriac: web::Data<Celeriac>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let id = TaskId::from(id.into_inner());
    let group = celeriac.soil().group_status(&id, PartialFailure::Fails).await.map_err(Problem::internal)?;
    if group.state == SoilState::Missing {
        return Err(Problem::not_found(format!("there is no download `{id}`, or not any more")));
    }
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(group))
}
