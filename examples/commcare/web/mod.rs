//! What the program serves beside the console, which `/` leads to, and Soil's pages: its own routes, which take files and JSON and
//! answer with JSON, and the page of Soil's demo. No value ever becomes HTML here.

mod actions;
mod cases;
pub mod demo;
mod downloads;
mod exports;
mod pollers;
mod problem;
mod queues;
pub mod sink;
mod tasks;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::middleware::Next;
use actix_web::{HttpResponse, web};
use serde_json::json;

pub use problem::Problem;

/// All routes.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .app_data(web::JsonConfig::default().error_handler(|error, _| Problem::bad(error).into()))
        .app_data(web::PathConfig::default().error_handler(|error, _| Problem::bad(error).into()))
        .app_data(web::QueryConfig::default().error_handler(|error, _| Problem::bad(error).into()))
        .route("/", web::get().to(to_console))
        .route("/queues.json", web::get().to(queues::list))
        .route("/queues/{queue}/pause", web::post().to(queues::pause))
        .route("/queues/{queue}/resume", web::post().to(queues::resume))
        .route("/queues/{queue}/resize", web::post().to(queues::resize))
        .route("/pollers.json", web::get().to(pollers::list))
        .route("/pollers/{poller}/run", web::post().to(pollers::run))
        .route("/cases", web::post().to(cases::upload))
        .route("/exports", web::post().to(exports::start))
        .route("/exports", web::get().to(exports::list))
        .route("/exports/{file}", web::get().to(exports::download))
        .route("/soil-demo", web::get().to(demo::page))
        .route("/soil-demo/{kind}", web::post().to(demo::start))
        .route("/downloads", web::post().to(downloads::start))
        .route("/downloads/{id}", web::get().to(downloads::status))
        .route("/mails", web::post().to(actions::mail))
        .route("/load", web::post().to(actions::load))
        .route("/tasks/{id}", web::get().to(tasks::show))
        .route("/sink/{kind}", web::post().to(sink::receive))
        .default_service(web::to(nothing_here));
}

/// Who opens the program in a browser wants to see its queues.
async fn to_console() -> HttpResponse {
    HttpResponse::Found().insert_header((header::LOCATION, "/console")).finish()
}

async fn nothing_here(request: actix_web::HttpRequest) -> Problem {
    Problem::not_found(format!("there is no {} {}", request.method(), request.path()))
}

/// The pages of this program may press their buttons, a page from elsewhere may not: browsers say where a request comes from.
pub async fn own_origin_only(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    if !request.method().is_safe() && !celeriac::web::same_origin(request.request(), None) {
        let origin = request.headers().get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
        let origin = origin.unwrap_or("another site");
        return Err(Problem::forbidden(format!("a page of {origin} may not do this")).into());
    }
    next.call(request).await
}

/// 202: accepted, and where to ask about it.
fn accepted(id: &celeriac::TaskId, mut more: serde_json::Value) -> HttpResponse {
    more["task"] = json!(id.as_str());
    more["state_url"] = json!(format!("/tasks/{id}"));
    HttpResponse::Accepted().json(more)
}

/// A domain's name, or what is wrong with it.
fn domain(name: Option<&str>) -> Result<String, Problem> {
    let name = name.unwrap_or("demo");
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=40).contains(&name.len()) && name.bytes().all(good) {
        return Ok(name.to_owned());
    }
    Err(Problem::bad(format!("`{name}` is no domain: it has 1 to 40 characters of a-z, 0-9 and `-`")))
}
