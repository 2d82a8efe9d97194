//! The routes, and the way that every request takes: an id, its key, the application's consent.

use std::sync::Arc;

use actix_web::dev::HttpServiceFactory;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, Resource, web};
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::SoilPages;
use super::access::{Access, Action, Asked, nobodys};
use super::key::{BadKey, Grant};
use super::problem::Problem;
use super::recent::Recent;
use super::view::{Look, Urls, View};
use super::{assets, events, file, html};
use crate::Celeriac;
use crate::soil::{PartialFailure, Soil, SoilError, SoilState, Status};
use crate::store::StoreError;
use crate::task::clock::now;
use crate::task::{Client, State, TaskId};

/// What every handler has.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) soil: Soil,
    pub(super) client: Arc<dyn Client>,
    pub(super) pages: SoilPages,
    recent: Recent,
}

/// A request that may have what it wants.
#[derive(Clone)]
pub(super) struct Visit {
    pub(super) site: Site,
    pub(super) id: TaskId,
    pub(super) grant: Option<Grant>,
    key: Option<String>,
    /// If it is about a group, who its members are; nobody, if that is not known any more.
    group: Option<(Vec<TaskId>, PartialFailure)>,
}

pub(super) fn scope(celeriac: &Celeriac, pages: &SoilPages) -> impl HttpServiceFactory + use<> {
    let site = Site {
        soil: celeriac.soil(),
        client: celeriac.client(),
        pages: pages.clone(),
        recent: Recent::default(),
    };
    let at = |path: &str| Resource::new(path.to_owned());
    web::scope(&pages.path)
        .app_data(web::Data::new(site))
        .route("/assets/soil.css", web::get().to(assets::style))
        .route("/assets/soil.js", web::get().to(assets::script))
        .route("/ajax/{id}", web::get().to(partial))
        .route("/{id}/status", web::get().to(status))
        .route("/{id}/events", web::get().to(events::stream))
        .service(at("/{id}/file").route(web::get().to(file::get)).route(web::head().to(file::get)))
        .service(at("/{id}/file/{part}").route(web::get().to(file::part)).route(web::head().to(file::part)))
        .service(at("/{id}/cancel").route(web::post().to(cancel)))
        .service(at("/{id}").route(web::get().to(page)).route(web::head().to(page)))
}

/// The id of a request's path, as it was meant.
pub(super) fn id_of(request: &HttpRequest) -> Result<TaskId, Problem> {
    // actix leaves some escapes in, among them that of the percent sign: so the rest can be taken out, once.
    let id = request.match_info().get("id").unwrap_or_default();
    let id = percent_decode_str(id).decode_utf8();
    let id = id.map_err(|_| Problem::malformed("The id in it is no text."))?;
    if !(1..=255).contains(&id.len()) || id.chars().any(char::is_control) {
        return Err(Problem::malformed("An id has 1 to 255 bytes, and no control characters."));
    }
    Ok(TaskId::from(&*id))
}

/// Whether this request may do that; then it is a visit.
pub(super) async fn admit(request: &HttpRequest, site: &Site, action: Action) -> Result<Visit, Problem> {
    let id = id_of(request)?;
    let query = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
    let query = query.map_err(|_| Problem::malformed("What follows the question mark cannot be read."))?;
    let key = query.iter().find(|(name, _)| name == "key").map(|(_, key)| key.clone());
    let grant = match &key {
        Some(key) => match site.pages.keys.read(key, id.as_str(), now()) {
            Ok(grant) => Some(grant),
            Err(BadKey::Expired) => return Err(Problem::link_expired()),
            Err(BadKey::Forged | BadKey::Elsewhere) => return Err(Problem::denied()),
        },
        None if site.pages.open => None,
        None => return Err(Problem::denied()),
    };
    let mut visit = Visit { site: site.clone(), id, grant, key, group: None };
    let owners = visit.grant.as_ref().map(|grant| grant.owners.clone()).unwrap_or_default();
    visit.consent(request, action, owners).await?;
    visit.group = visit.find_group().await.map_err(|error| Problem::unavailable(&error))?;
    Ok(visit)
}

impl Visit {
    /// Asks the application.
    pub(super) async fn consent(
        &self,
        request: &HttpRequest,
        action: Action,
        owners: Vec<String>,
    ) -> Result<(), Problem> {
        let asked = Asked { id: self.id.clone(), action, owners, signed: self.grant.is_some() };
        let access = match &self.site.pages.hook {
            Some(hook) => hook(request.clone(), asked).await,
            None => nobodys(&asked),
        };
        match access {
            Access::Allowed => Ok(()),
            Access::Denied => Err(Problem::denied()),
            Access::LogIn(location) => Err(Problem::log_in(location)),
        }
    }

    /// A link says whether it is about a group. Without one, the id of a group is that of no task.
    async fn find_group(&self) -> Result<Option<(Vec<TaskId>, PartialFailure)>, SoilError> {
        let soil = &self.site.soil;
        if let Some(grant) = &self.grant {
            let Some(policy) = grant.group else { return Ok(None) };
            return Ok(Some((soil.members(&self.id).await?.unwrap_or_default(), policy.into())));
        }
        let state = self.site.recent.status(soil, &self.id).await?.state;
        if !matches!(state, SoilState::Missing | SoilState::NotStarted) {
            return Ok(None);
        }
        match soil.members(&self.id).await {
            Ok(members) => Ok(members.map(|members| (members, PartialFailure::default()))),
            Err(SoilError::Store(StoreError::Unsupported(_))) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The tasks: itself, or a group's members.
    pub(super) fn tasks(&self) -> Vec<TaskId> {
        self.group.as_ref().map_or_else(|| vec![self.id.clone()], |(members, _)| members.clone())
    }

    fn urls(&self) -> Urls {
        Urls::new(&self.site.pages.public, self.id.as_str(), self.key.as_deref())
    }

    async fn is_cancelled(&self, id: &TaskId, state: SoilState) -> bool {
        state == SoilState::Failed && self.site.client.state(id).await == Ok(State::Revoked)
    }

    /// What is to be shown of one task.
    pub(super) async fn view_of(&self, status: Status) -> View {
        let message = self.grant.as_ref().and_then(|grant| grant.message.clone());
        let cancelled = self.is_cancelled(&self.id, status.state).await;
        View::of(status, cancelled, self.urls()).with_message(message)
    }

    /// Whether it is about a group.
    pub(super) fn is_group(&self) -> bool {
        self.group.is_some()
    }

    /// What is to be shown to one of many who ask again and again: it may be a moment old.
    async fn glimpse(&self) -> Result<View, Problem> {
        if self.is_group() {
            return self.view().await;
        }
        let status = self.site.recent.status(&self.site.soil, &self.id).await;
        Ok(self.view_of(status.map_err(|error| Problem::unavailable(&error))?).await)
    }

    /// What is to be shown now.
    pub(super) async fn view(&self) -> Result<View, Problem> {
        let unavailable = |error| Problem::unavailable(&error);
        let message = self.grant.as_ref().and_then(|grant| grant.message.clone());
        let Some((members, policy)) = self.group.clone() else {
            let status = self.site.soil.status(&self.id).await.map_err(unavailable)?;
            return Ok(self.view_of(status).await);
        };
        let group = self.site.soil.members_status(members, policy).await.map_err(unavailable)?;
        let mut cancelled = Vec::new();
        for member in &group.members {
            cancelled.push(self.is_cancelled(&member.id, member.state).await);
        }
        Ok(View::of_group(self.id.as_str(), group, &cancelled, self.urls()).with_message(message))
    }
}

/// A view as the script reads it.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    view: &'a View,
    title: String,
    html: String,
}

/// A view as JSON: its facts, and how the page shows them.
pub(super) fn tell(view: &View) -> String {
    let told = Told { view, title: html::title(view), html: html::partial(view).into_string() };
    // Text, numbers and lists: there is nothing in it that has no form in JSON.
    serde_json::to_string(&told).unwrap_or_default()
}

/// HTTP's word for what is there.
fn code(view: &View, failure: actix_web::http::StatusCode) -> actix_web::http::StatusCode {
    use actix_web::http::StatusCode;
    match view.state {
        Look::Missing if view.gone => StatusCode::GONE,
        Look::Missing => StatusCode::NOT_FOUND,
        Look::Failed | Look::Cancelled => failure,
        _ => StatusCode::OK,
    }
}

async fn page(request: HttpRequest, site: web::Data<Site>) -> Result<HttpResponse, Problem> {
    let gets_file = web::Query::<Vec<(String, String)>>::from_query(request.query_string())
        .is_ok_and(|query| query.iter().any(|(name, _)| name == "get_file"));
    if gets_file {
        return file::get(request, site).await;
    }
    let visit = admit(&request, &site, Action::Look).await?;
    let view = visit.view().await?;
    let mut response = HttpResponse::build(code(&view, actix_web::http::StatusCode::OK));
    Ok(html::headers(&mut response).body(html::page(&view).into_string()))
}

/// HQ's `ajax_job_poll`. A failed one answers 500 with its errors, which is what has HQ's script stop.
async fn partial(request: HttpRequest, site: web::Data<Site>) -> Result<HttpResponse, Problem> {
    let visit = admit(&request, &site, Action::Look).await?;
    let view = visit.glimpse().await?;
    let failure = actix_web::http::StatusCode::INTERNAL_SERVER_ERROR;
    let mut response = HttpResponse::build(code(&view, failure));
    Ok(html::headers(&mut response).body(html::partial(&view).into_string()))
}

async fn status(request: HttpRequest, site: web::Data<Site>) -> Result<HttpResponse, Problem> {
    let visit = admit(&request, &site, Action::Look).await.map_err(Problem::json)?;
    let view = visit.glimpse().await.map_err(Problem::json)?;
    Ok(HttpResponse::build(code(&view, actix_web::http::StatusCode::OK))
        .content_type("application/json")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(tell(&view)))
}

/// Revokes, and leads back to the page. A page from elsewhere may not press the button, even if it knows the key.
async fn cancel(request: HttpRequest, site: web::Data<Site>) -> Result<HttpResponse, Problem> {
    let from = request.headers().get("Sec-Fetch-Site").map(|from| from.as_bytes());
    if from.is_some_and(|from| from != b"same-origin" && from != b"none") {
        return Err(Problem::denied());
    }
    let visit = admit(&request, &site, Action::Cancel).await?;
    for id in visit.tasks() {
        visit.site.soil.cancel(&id).await.map_err(|error| Problem::unavailable(&error))?;
    }
    Ok(HttpResponse::SeeOther().insert_header((header::LOCATION, visit.urls().page)).finish())
}
