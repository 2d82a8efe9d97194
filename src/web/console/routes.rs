//! The routes, and the forms in which a page is answered.

use std::collections::HashMap;
use std::sync::Arc;

use actix_web::dev::HttpServiceFactory;
use actix_web::http::{StatusCode, header};
use actix_web::middleware::DefaultHeaders;
use actix_web::{HttpRequest, HttpResponse, Resource, rt, web};
use serde_json::json;

use super::acts;
use super::address::PageName;
use super::fields::FormFields;
use super::problem::{ConsoleProblem, wants_json};
use super::rights::Permission;
use super::visit::ConsoleVisit;
use super::{Console, arguments, assets, frame, pages, stream};
use crate::broker::TaskFilter;

/// The most bytes of a form.
const MOST_FORM: usize = 1 << 20;

/// The routes of a console. They own its address, `url`, which is known for as long as they are mounted.
pub(super) fn scope(console: &Console, url: Arc<str>) -> impl HttpServiceFactory + use<> {
    let page = |path: &str, page: PageName| {
        let show = move |request: HttpRequest, console: web::Data<Console>| show(request, console, page);
        Resource::new(path.to_owned())
            .route(web::get().to(show))
            .route(web::head().to(show))
            .default_service(web::to(wrong_method))
    };
    let mut scope = web::scope(&console.path)
        .app_data(web::Data::new(console.clone()))
        .app_data(url)
        .app_data(web::FormConfig::default().limit(MOST_FORM))
        .service(page("", PageName::Queues))
        .service(page("/", PageName::Queues));
    for name in PageName::ALL.into_iter().filter(|name| *name != PageName::Queues) {
        scope = scope.service(page(&format!("/{}", name.as_str()), name));
    }
    scope
        .service(Resource::new("/act").route(web::post().to(act)).default_service(web::to(wrong_method)))
        .service(
            Resource::new("/arguments")
                .route(web::get().to(exact_arguments))
                .default_service(web::to(wrong_method)),
        )
        .route("/assets/console.css", web::get().to(assets::style))
        .route("/assets/console.js", web::get().to(assets::script))
        .default_service(web::to(unserved))
        .wrap(
            DefaultHeaders::new()
                .add((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
                .add((header::CONTENT_SECURITY_POLICY, frame::POLICY))
                .add((header::X_FRAME_OPTIONS, "DENY"))
                .add((header::REFERRER_POLICY, "same-origin"))
                .add((header::CACHE_CONTROL, "no-store")),
        )
}

/// Answers with a page: whole, its part that changes, as events, or as JSON.
async fn show(request: HttpRequest, console: web::Data<Console>, page: PageName) -> HttpResponse {
    match shown(&request, &console, page).await {
        Ok(response) => response,
        Err(problem) => problem.answer(&request, &console),
    }
}

async fn shown(
    request: &HttpRequest,
    console: &Console,
    page: PageName,
) -> Result<HttpResponse, ConsoleProblem> {
    let visit = ConsoleVisit::of(console, request, page).await?;
    let asks_for = |name: &str| request.query_string().split('&').any(|field| field == name);
    if asks_for("events=1") && page.is_live() {
        return stream::stream(visit);
    }
    let body = pages::look(&visit).await?;
    if wants_json(request) {
        let told = json!({ "page": page_name(page), "at": body.at.to_string(), "data": body.data });
        return Ok(HttpResponse::Ok().json(told));
    }
    let mut response = HttpResponse::Ok();
    response.content_type("text/html; charset=utf-8");
    if asks_for("part=1") {
        return Ok(response.body(frame::part(&visit, &body).into_string()));
    }
    if let Some(again) = &body.again {
        response.insert_header(("refresh", format!("1; url={again}")));
    }
    if let Some(cookie) = visit.token.cookie(request, console) {
        response.insert_header((header::SET_COOKIE, cookie));
    }
    Ok(response.body(frame::document(&visit, &body).into_string()))
}

/// The name of a page in its JSON.
fn page_name(page: PageName) -> &'static str {
    match page {
        PageName::Queues => "queues",
        page => page.as_str(),
    }
}

/// The exact arguments of a task, as JSON.
async fn exact_arguments(request: HttpRequest, console: web::Data<Console>) -> HttpResponse {
    match exact_arguments_of(&request, &console).await {
        Ok(response) => response,
        Err(problem) => problem.answer(&request, &console),
    }
}

async fn exact_arguments_of(
    request: &HttpRequest,
    console: &Console,
) -> Result<HttpResponse, ConsoleProblem> {
    let visit = ConsoleVisit::of(console, request, PageName::Task).await?;
    let (id, _) = pages::find_task(&visit).await?;
    let sighting = console.celeriac.sight(&id).await?;
    let message = match sighting.as_ref().and_then(|sighting| sighting.message()) {
        Some(message) => Some(message.clone()),
        None => {
            let failed = console.celeriac.failed_tasks(&TaskFilter::new().ids([id]), 1).await?;
            failed.into_iter().next().map(|failed| failed.message)
        }
    };
    let message = message.ok_or_else(|| {
        ConsoleProblem::unknown(
            "The arguments of this task are not kept: its message is gone, and its record has none.",
        )
    })?;
    // Its id may have been used again since the task was looked for.
    let owner = (message.queue.as_str(), message.tenant());
    visit.ask_of_tenants(&[Permission::See], [owner]).await;
    if !visit.viewer.sees_task(owner.0, owner.1) {
        return Err(ConsoleProblem::denied("The task that has this id now is not one that you may see."));
    }
    if console.hides(&message) {
        return Err(ConsoleProblem::denied(
            "The arguments of this task are hidden, by its caller or by this program.",
        ));
    }
    Ok(HttpResponse::Ok()
        .content_type("application/json")
        .insert_header((header::CONTENT_DISPOSITION, "attachment; filename=\"arguments.json\""))
        .body(arguments::exact(&message.arguments)))
}

/// Does what a form says.
async fn act(
    request: HttpRequest,
    console: web::Data<Console>,
    form: Result<web::Form<HashMap<String, String>>, actix_web::Error>,
) -> HttpResponse {
    let answered = match form {
        // Who goes away in the middle leaves no act half done, and none that nobody has noted.
        Ok(form) => {
            let (request, console) = (request.clone(), console.clone());
            let fields = FormFields::of(form.into_inner());
            let answered = rt::spawn(async move { acts::answer(&console, &request, &fields).await });
            answered.await.unwrap_or_else(|error| Err(ConsoleProblem::unavailable(&error)))
        }
        // Whoever may not see the console learns nothing about its forms.
        Err(error) => match console.permit(&request, Permission::See, None).await {
            Ok(_) => Err(ConsoleProblem::malformed(format!("The form cannot be read: {error}."))),
            Err(refusal) => Err(refusal.into()),
        },
    };
    answered.unwrap_or_else(|problem| problem.answer(&request, &console))
}

async fn wrong_method(request: HttpRequest, console: web::Data<Console>) -> HttpResponse {
    ConsoleProblem::unserved(StatusCode::METHOD_NOT_ALLOWED, &request).answer(&request, &console)
}

async fn unserved(request: HttpRequest, console: web::Data<Console>) -> HttpResponse {
    ConsoleProblem::unserved(StatusCode::NOT_FOUND, &request).answer(&request, &console)
}
