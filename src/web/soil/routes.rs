//! The routes, and the checks that every request passes: the id, its key, the application's consent.

use std::sync::Arc;

use actix_web::dev::HttpServiceFactory;
use actix_web::http::header;
use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::{HttpRequest, HttpResponse, Resource, web};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::SoilPages;
use super::access::{Access, Action, Asked, nobodys};
use super::branding::Wording;
use super::key::{BadKey, Grant};
use super::problem::{ProblemDetails, answer_refused};
use super::single_flight::SingleFlight;
use super::texts::Sentence;
use super::view::{self, Look, Urls, View};
use super::{assets, events, file, html};
use crate::Celeriac;
use crate::soil::{Overview, PartialFailure, Soil, SoilError, SoilState, Status};
use crate::store::StoreError;
use crate::task::TaskId;
use crate::task::clock::now;
use crate::web::same_origin;

/// The content security policy of every answer that does not set its own.
const POLICY: &str =
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; sandbox";

/// The state that every handler gets.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) soil: Soil,
    pub(super) pages: SoilPages,
    /// Cancelled when the runtime begins to shut down.
    pub(super) ending: CancellationToken,
    single_flight: SingleFlight,
}

/// A request that passed all checks.
#[derive(Clone)]
pub(super) struct Visit {
    pub(super) site: Site,
    pub(super) id: TaskId,
    pub(super) grant: Option<Grant>,
    key: Option<String>,
    wording: Wording,
    /// For a group, its overview and its policy; the overview has no members if nobody knows the group any more.
    group: Option<(Arc<Overview>, PartialFailure)>,
    /// The number of the page of members, from 1.
    page: usize,
}

pub(super) fn scope(celeriac: &Celeriac, pages: &SoilPages) -> impl HttpServiceFactory + use<> {
    let site = Site {
        soil: celeriac.soil(),
        pages: pages.clone(),
        ending: celeriac.ending(),
        single_flight: SingleFlight::default(),
    };
    let at = |path: &str| Resource::new(path.to_owned());
    web::scope(&pages.path)
        .app_data(web::Data::new(site))
        .wrap(from_fn(answer_refused))
        .wrap(
            DefaultHeaders::new()
                .add((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
                .add((header::CONTENT_SECURITY_POLICY, POLICY))
                .add((header::REFERRER_POLICY, "same-origin"))
                .add((header::CACHE_CONTROL, "no-store")),
        )
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

/// The id in the path of a request, decoded.
pub(super) fn id_of(request: &HttpRequest) -> Result<TaskId, ProblemDetails> {
    // actix leaves some escapes in the path, among them that of the percent sign, so decoding the rest once is right.
    let id = request.match_info().get("id").unwrap_or_default();
    let id = percent_decode_str(id).decode_utf8();
    let id = id.map_err(|_| ProblemDetails::malformed(Sentence::BrokenId))?;
    if !(1..=255).contains(&id.len()) || id.chars().any(char::is_control) {
        return Err(ProblemDetails::malformed(Sentence::BrokenIdLength));
    }
    Ok(TaskId::from(&*id))
}

/// Checks whether this request may do that, and makes a visit of it.
pub(super) async fn admit(
    request: &HttpRequest,
    site: &Site,
    action: Action,
) -> Result<Visit, ProblemDetails> {
    let id = id_of(request)?;
    let query = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
    let query = query.map_err(|_| ProblemDetails::malformed(Sentence::BrokenQuery))?;
    let key = query.iter().find(|(name, _)| name == "key").map(|(_, key)| key.clone());
    // The key comes first: without a valid one, the caller learns nothing about the id.
    let grant = match &key {
        Some(key) => match site.pages.keys.read(key, id.as_str(), now()) {
            Ok(grant) => Some(grant),
            Err(BadKey::Expired) => return Err(ProblemDetails::link_expired()),
            Err(BadKey::Forged | BadKey::Elsewhere) => return Err(ProblemDetails::denied()),
        },
        None if site.pages.open => None,
        None => return Err(ProblemDetails::denied()),
    };
    let page = query.iter().find(|(name, _)| name == "page").and_then(|(_, page)| page.parse().ok());
    let wording = site.pages.wording(request);
    let page = page.unwrap_or(1);
    let mut visit = Visit { site: site.clone(), id, grant, key, wording, group: None, page };
    // A key that is valid by itself may have been revoked, which only the store knows.
    if !visit.generation().await.map_err(|error| ProblemDetails::unavailable(&error))? {
        return Err(ProblemDetails::link_revoked());
    }
    // The application decides before anything is read about the task or the group.
    let owners = visit.grant.as_ref().map(|grant| grant.owners.clone()).unwrap_or_default();
    visit.consent(request, action, owners).await?;
    visit.group = visit.find_group().await.map_err(|error| ProblemDetails::unavailable(&error))?;
    Ok(visit)
}

impl Visit {
    /// Whether the link is of the present generation, so that nobody has revoked it.
    async fn generation(&self) -> Result<bool, SoilError> {
        let Some(grant) = &self.grant else { return Ok(true) };
        let present = self.site.single_flight.generation(&self.site.soil, &self.id).await?;
        Ok(grant.generation >= present)
    }

    /// Whether the link is still valid; false also if the store cannot be read.
    pub(super) async fn is_open(&self) -> bool {
        self.generation().await.unwrap_or(false)
    }

    /// The name under which the streams of this link are counted.
    pub(super) fn link(&self) -> &str {
        self.key.as_deref().unwrap_or(self.id.as_str())
    }

    /// Asks the application's hook whether the request may do that.
    pub(super) async fn consent(
        &self,
        request: &HttpRequest,
        action: Action,
        owners: Vec<String>,
    ) -> Result<(), ProblemDetails> {
        let asked = Asked { id: self.id.clone(), action, owners, signed: self.grant.is_some() };
        let access = match &self.site.pages.hook {
            Some(hook) => hook(request.clone(), asked).await,
            None => nobodys(&asked),
        };
        match access {
            Access::Allowed => Ok(()),
            Access::Denied => Err(ProblemDetails::denied()),
            Access::LogIn(location) => Err(ProblemDetails::log_in(location)),
        }
    }

    /// The group, if the visit is about one. A link states that. Without a link, an id that no task has may be the id
    /// of a group.
    async fn find_group(&self) -> Result<Option<(Arc<Overview>, PartialFailure)>, SoilError> {
        let soil = &self.site.soil;
        if let Some(grant) = &self.grant {
            let Some(policy) = grant.group else { return Ok(None) };
            return Ok(Some((soil.overview(&self.id).await?, policy.into())));
        }
        let state = self.site.single_flight.status(soil, &self.id).await?.state;
        if !matches!(state, SoilState::Missing | SoilState::NotStarted) {
            return Ok(None);
        }
        match soil.overview(&self.id).await {
            Ok(group) if group.members.is_empty() => Ok(None),
            Ok(group) => Ok(Some((group, PartialFailure::default()))),
            Err(SoilError::Store(StoreError::Unsupported(_))) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The ids of the tasks: the task itself, or the members of the group.
    pub(super) fn tasks(&self) -> Vec<TaskId> {
        self.group.as_ref().map_or_else(|| vec![self.id.clone()], |(group, _)| group.members.clone())
    }

    /// How many tasks the visit is about.
    pub(super) fn tasks_count(&self) -> usize {
        self.group.as_ref().map_or(1, |(group, _)| group.members.len())
    }

    fn urls(&self) -> Urls {
        Urls::new(&self.site.pages.public, self.id.as_str(), self.key.as_deref(), self.page)
    }

    /// The view of one task.
    pub(super) fn view_of(&self, status: Status) -> View {
        let message = self.grant.as_ref().and_then(|grant| grant.message.clone());
        View::of(status, self.urls(), self.wording.clone()).with_message(message)
    }

    /// Whether the visit is about a group.
    pub(super) fn is_group(&self) -> bool {
        self.group.is_some()
    }

    /// The view for a client that polls. The view of a task may be a moment old.
    async fn glimpse(&self) -> Result<View, ProblemDetails> {
        if self.is_group() {
            return self.view().await;
        }
        let status = self.site.single_flight.status(&self.site.soil, &self.id).await;
        Ok(self.view_of(status.map_err(|error| ProblemDetails::unavailable(&error))?))
    }

    /// The view of the task or the group as it is now.
    pub(super) async fn view(&self) -> Result<View, ProblemDetails> {
        let unavailable = |error| ProblemDetails::unavailable(&error);
        let message = self.grant.as_ref().and_then(|grant| grant.message.clone());
        let Some((_, policy)) = self.group.clone() else {
            let status = self.site.soil.status(&self.id).await.map_err(unavailable)?;
            return Ok(self.view_of(status));
        };
        let soil = &self.site.soil;
        // A request could use the overview from its admission, but a stream needs a new one.
        let group = soil.overview(&self.id).await.map_err(unavailable)?;
        let shown = view::shown(group.members.len(), self.page);
        let members = soil.statuses(&group.members[shown.clone()]).await.map_err(unavailable)?;
        let failed = view::failed(&group);
        let mut errors = Vec::new();
        for at in failed {
            errors.extend(
                soil.statuses(&group.members[at..=at]).await.map_err(unavailable)?.pop().map(|s| (at, s)),
            );
        }
        let seen = view::SeenGroup { group: &group, policy, shown, members, errors };
        let view = View::of_group(self.id.as_str(), seen, self.urls(), self.wording.clone());
        Ok(view.with_message(message))
    }
}

/// A view in the form that the script reads.
#[derive(Serialize)]
struct ViewUpdate<'a> {
    #[serde(flatten)]
    view: &'a View,
    title: String,
    /// What readers of screens are told.
    spoken: Option<String>,
    html: String,
}

/// A view as JSON: its facts, and the HTML that shows them.
pub(super) fn tell(view: &View) -> String {
    let (title, spoken) = (html::title(view), html::spoken(view));
    let told = ViewUpdate { view, title, spoken, html: html::partial(view).into_string() };
    // A view has only text, numbers and lists, all of which can be written as JSON.
    serde_json::to_string(&told).unwrap_or_default()
}

/// The HTTP status for a view. `failure` is the status for a task that failed or was cancelled.
fn code(view: &View, failure: actix_web::http::StatusCode) -> actix_web::http::StatusCode {
    use actix_web::http::StatusCode;
    match view.state {
        Look::Missing if view.gone => StatusCode::GONE,
        Look::Missing => StatusCode::NOT_FOUND,
        Look::Failed | Look::Cancelled => failure,
        _ => StatusCode::OK,
    }
}

async fn page(request: HttpRequest, site: web::Data<Site>) -> Result<HttpResponse, ProblemDetails> {
    let gets_file = web::Query::<Vec<(String, String)>>::from_query(request.query_string())
        .is_ok_and(|query| query.iter().any(|(name, _)| name == "get_file"));
    if gets_file {
        return file::get(request, site).await;
    }
    let visit = admit(&request, &site, Action::Look).await?;
    let view = visit.view().await?;
    let pages = &site.pages;
    let frame = html::PageFrame { request: &request, pages, wording: &view.wording };
    let mut response = HttpResponse::build(code(&view, actix_web::http::StatusCode::OK));
    Ok(html::headers(&mut response, pages, &view.wording).body(html::page(&view, &frame).into_string()))
}

/// Answers as HQ's `ajax_job_poll` does. For a task that failed it answers 500 with the errors, which makes HQ's
/// script stop.
async fn partial(request: HttpRequest, site: web::Data<Site>) -> Result<HttpResponse, ProblemDetails> {
    let visit = admit(&request, &site, Action::Look).await?;
    let view = visit.glimpse().await?;
    let failure = actix_web::http::StatusCode::INTERNAL_SERVER_ERROR;
    let mut response = HttpResponse::build(code(&view, failure));
    let response = html::headers(&mut response, &site.pages, &view.wording);
    Ok(response.body(html::partial(&view).into_string()))
}

async fn status(request: HttpRequest, site: web::Data<Site>) -> Result<HttpResponse, ProblemDetails> {
    let visit = admit(&request, &site, Action::Look).await.map_err(ProblemDetails::json)?;
    let view = visit.glimpse().await.map_err(ProblemDetails::json)?;
    Ok(HttpResponse::build(code(&view, actix_web::http::StatusCode::OK))
        .content_type("application/json")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(tell(&view)))
}

/// Revokes the tasks and redirects to the page. A page of another site may not press the button, even if it knows the
/// key.
async fn cancel(request: HttpRequest, site: web::Data<Site>) -> Result<HttpResponse, ProblemDetails> {
    if !same_origin(&request, Some(&site.pages.public)) {
        return Err(ProblemDetails::denied());
    }
    let visit = admit(&request, &site, Action::Cancel).await?;
    for id in visit.tasks() {
        visit.site.soil.cancel(&id).await.map_err(|error| ProblemDetails::unavailable(&error))?;
    }
    Ok(HttpResponse::SeeOther().insert_header((header::LOCATION, visit.urls().page)).finish())
}
