//! The server: the live page, its JSON, uploads, exports, and the operator's levers.

use std::net::TcpListener;

use actix_files::NamedFile;
use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::web::{Bytes, Data, Json, Path, Query};
use actix_web::{App, HttpResponse, HttpServer, Responder, ResponseError, get, post};
use celeriac::app::ControlError;
use celeriac::task::{State, TaskId};
use celeriac::{Celeriac, EnqueueError, GetError};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::AnyError;
use crate::exports::export_cases;
use crate::imports::import_cases;
use crate::settings::{Arguments, path, write_whole};

/// The largest upload, in bytes.
const UPLOAD: usize = 64 << 20;

/// A server that listens and does not answer yet.
pub struct Bound {
    listener: TcpListener,
    url: String,
}

/// Takes the port.
pub fn bind(arguments: &Arguments) -> Result<Bound, AnyError> {
    // Other programs of this machine may have the port; `--once` does not care which it gets.
    let port = if arguments.once { 0 } else { arguments.port };
    let address = (arguments.host.as_str(), port);
    let listener = TcpListener::bind(address).map_err(|e| {
        format!("{}:{port} cannot be listened on: {e}; choose another --port", arguments.host)
    })?;
    let url = format!("http://{}", listener.local_addr()?);
    Ok(Bound { listener, url })
}

type Serving = actix_web::rt::task::JoinHandle<std::io::Result<()>>;

impl Bound {
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Answers from now on.
    pub fn start(self, celeriac: Celeriac) -> std::io::Result<(ServerHandle, Serving)> {
        let server = HttpServer::new(move || {
            App::new()
                .app_data(Data::new(celeriac.clone()))
                .app_data(actix_web::web::PayloadConfig::new(UPLOAD))
                .service((page, health, queues, steer, upload, start_export, export, task))
                .service(crate::sink::sink)
        })
        .workers(2)
        .shutdown_timeout(5)
        .listen(self.listener)?
        .run();
        let handle = server.handle();
        Ok((handle, actix_web::rt::spawn(server)))
    }
}

/// What a request came to when it did not come to anything.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Bad(String),
    #[error("{0}")]
    Missing(String),
    #[error("{0}")]
    Later(String),
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::Missing(_) => StatusCode::NOT_FOUND,
            Self::Later(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.status_code()).json(json!({ "error": self.to_string() }))
    }
}

impl From<EnqueueError> for Refusal {
    fn from(error: EnqueueError) -> Self {
        match error {
            EnqueueError::ShuttingDown | EnqueueError::StorageFull { .. } => Self::Later(error.to_string()),
            other => Self::Bad(other.to_string()),
        }
    }
}

impl From<ControlError> for Refusal {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::UnknownQueue { .. } => Self::Missing(error.to_string()),
            ControlError::NoWorkers => Self::Bad(error.to_string()),
            other => Self::Later(other.to_string()),
        }
    }
}

impl From<GetError> for Refusal {
    fn from(error: GetError) -> Self {
        Self::Later(error.to_string())
    }
}

type Answer = Result<Json<Value>, Refusal>;

#[get("/")]
async fn page() -> impl Responder {
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(include_str!("page.html"))
}

#[get("/health")]
async fn health() -> impl Responder {
    "ok"
}

/// All queues: the catalogue's columns and what goes on.
#[get("/queues.json")]
async fn queues(celeriac: Data<Celeriac>) -> Answer {
    let statuses = celeriac.queues().await?;
    let rows = statuses.iter().map(|status| {
        let row = celeriac.catalogue().queue(&status.name);
        json!({
            "status": status,
            "io_bound": row.and_then(|r| r.io_bound),
            "target_class": row.and_then(|r| r.target_class).map(|class| class.as_str()),
            "target_comment": row.and_then(|r| r.target_comment.as_deref()),
            "description": row.and_then(|r| r.description.as_deref()),
        })
    });
    Ok(Json(rows.collect()))
}

#[derive(Deserialize)]
struct Steering {
    workers: Option<String>,
}

/// `pause`, `resume`, or `resize?workers=N`.
#[post("/queues/{queue}/{lever}")]
async fn steer(what: Path<(String, String)>, how: Query<Steering>, celeriac: Data<Celeriac>) -> Answer {
    let (queue, lever) = what.into_inner();
    match lever.as_str() {
        "pause" => celeriac.pause(&queue).await?,
        "resume" => celeriac.resume(&queue).await?,
        "resize" => {
            let given = how.workers.as_deref().unwrap_or_default();
            let workers =
                given.parse().ok().filter(|workers| (1..=10_000).contains(workers)).ok_or_else(|| {
                    Refusal::Bad(format!("workers={given:?} is not a number from 1 to 10000"))
                })?;
            celeriac.resize(&queue, workers).await?;
        }
        other => {
            return Err(Refusal::Missing(format!("no lever {other:?}; there are pause, resume and resize")));
        }
    }
    Ok(Json(json!({ "queue": queue, "done": lever })))
}

/// Takes a CSV of cases and imports it.
#[post("/cases")]
async fn upload(body: Bytes) -> Answer {
    if body.is_empty() {
        return Err(Refusal::Bad(
            "the body is empty; send a CSV with case_id,domain,name,opened_on,status".into(),
        ));
    }
    let import_id = TaskId::new().to_string();
    let file = path("uploads").join(format!("{import_id}.csv"));
    let written = actix_web::web::block(move || write_whole(&file, &body)).await;
    written.map_err(|e| Refusal::Later(e.to_string()))?.map_err(|e| Refusal::Later(e.to_string()))?;
    // The file first, then the task that names it.
    let import = import_cases::s(import_id.clone(), 0, 0).id(import_id).delay().await?;
    Ok(Json(json!({ "task": import.id().as_str() })))
}

#[derive(Deserialize)]
struct Export {
    domain: String,
}

/// Starts an export of a domain's cases.
#[post("/exports")]
async fn start_export(what: Query<Export>) -> Answer {
    let export_id = TaskId::new().to_string();
    let sent = export_cases::s(export_id.clone(), what.into_inner().domain).id(export_id).delay().await?;
    let id = sent.id().as_str();
    Ok(Json(json!({ "task": id, "file": format!("/exports/{id}.xlsx") })))
}

/// A finished export. Only names that this program gives are looked for.
#[get("/exports/{name}")]
async fn export(name: Path<String>) -> Result<NamedFile, Refusal> {
    let name = name.into_inner();
    let ours = name
        .strip_suffix(".xlsx")
        .is_some_and(|id| !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
    let missing = || Refusal::Missing(format!("there is no export {name:?}"));
    if !ours {
        return Err(missing());
    }
    NamedFile::open_async(path("exports").join(&name)).await.map_err(|_| missing())
}

/// What became of a task.
#[get("/tasks/{id}")]
async fn task(id: Path<String>, celeriac: Data<Celeriac>) -> Answer {
    let id = TaskId::from(id.into_inner());
    let client = celeriac.client();
    let state = client.state(&id).await?;
    if state == State::Unknown {
        return Err(Refusal::Missing(format!("no task {id}")));
    }
    let result = client.result(&id).await?;
    Ok(Json(json!({ "id": id.as_str(), "state": state, "result": result })))
}
