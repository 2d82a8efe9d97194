//! What became of a task.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use celeriac::task::State;
use celeriac::{Celeriac, TaskId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Problem;

/// The longest that an answer is held back.
const LONGEST_WAIT: u64 = 60;

#[derive(Deserialize)]
pub struct Patience {
    wait: Option<u64>,
}

/// `GET /tasks/{id}`; with `?wait=30` it answers when the task is over, or after 30 seconds.
pub async fn show(
    celeriac: web::Data<Celeriac>,
    id: web::Path<String>,
    patience: web::Query<Patience>,
) -> Result<HttpResponse, Problem> {
    let id = TaskId::from(id.into_inner());
    let client = celeriac.client();
    if let Some(seconds) = patience.wait {
        // Whatever this comes to, the state below says it.
        let wait = Duration::from_secs(seconds.min(LONGEST_WAIT));
        let _ = tokio::time::timeout(wait, client.wait(&id)).await;
    }
    let state = client.state(&id).await?;
    if state == State::Unknown {
        return Err(Problem::not_found(format!(
            "no task of id `{id}` waits, runs or left a result; results are kept for a day"
        )));
    }
    let mut answer = json!({ "id": id.as_str(), "state": state.as_str(), "finished": state.is_finished() });
    if let Some(record) = client.result(&id).await? {
        answer["task"] = json!(record.task);
        answer["queue"] = json!(record.queue);
        answer["errors"] = json!(record.errors);
        answer["attempts"] = json!(record.attempts);
        answer["worker"] = json!(record.worker);
        answer["result"] =
            record.result.as_deref().and_then(|r| serde_json::from_str(r).ok()).unwrap_or(Value::Null);
    }
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(answer))
}
