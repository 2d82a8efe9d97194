//! The answers to requests that are refused or cannot be answered: each says what is the matter and what to do, as a page or
//! as JSON.

use std::fmt;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse};
use maud::{Markup, html};
use serde_json::json;

use super::rights::NotAllowed;
use super::{Console, frame, words};
use crate::actors::BeatError;
use crate::app::ControlError;
use crate::broker::BrokerError;
use crate::soil::SoilError;
use crate::task::GetError;

/// What a program writes to open the console.
const HOW_TO_OPEN: &str = r#"let console = Console::new(&celeriac).authorize(|request, check| {
    let user = user_of(request)?;                       // of your session
    let may = user.is_operator || check.permission == Permission::See;
    may.then_some(user.name)
});"#;

/// Why a request gets no page.
#[derive(Clone, Debug)]
pub(super) struct ConsoleProblem {
    status: StatusCode,
    title: String,
    text: String,
    /// The address at which to log in.
    log_in: Option<String>,
    /// Whether the program has not opened the console.
    is_closed: bool,
}

impl ConsoleProblem {
    fn new(status: StatusCode, title: &str, text: impl Into<String>) -> Self {
        Self { status, title: title.to_owned(), text: text.into(), log_in: None, is_closed: false }
    }

    pub(super) fn malformed(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "That request cannot be understood", text)
    }

    pub(super) fn unknown(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "There is nothing of that name", text)
    }

    pub(super) fn denied(text: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "You may not do that here", text)
    }

    pub(super) fn unserved(status: StatusCode, request: &HttpRequest) -> Self {
        let path = words::line(request.path(), 200);
        let text = format!("The console has no {} {path}.", words::line(request.method().as_str(), 40));
        Self::new(status, "There is no such page", text)
    }

    pub(super) fn sent_again() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "That was done before",
            "A form with this value of `once` was acted on already. What came of it is among the acts.",
        )
    }

    pub(super) fn crowded() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many look on at once",
            "The page itself works, and asks for its numbers from time to time.",
        )
    }

    pub(super) fn unavailable(error: &dyn fmt::Display) -> Self {
        tracing::warn!(target: "celeriac::console", %error, "the console cannot answer");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "That cannot be answered now", error.to_string())
    }

    /// The text of it, for those who did something.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The answer to whoever made this request.
    pub(super) fn answer(&self, request: &HttpRequest, console: &Console) -> HttpResponse {
        let as_json = wants_json(request);
        if let Some(address) = self.log_in.as_deref().filter(|_| !as_json) {
            return HttpResponse::SeeOther().insert_header((header::LOCATION, address)).finish();
        }
        let mut response = HttpResponse::build(self.status);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((header::RETRY_AFTER, "2"));
        }
        if as_json {
            return response.json(json!({ "error": self.title, "message": self.text }));
        }
        let page = frame::bare(console, &self.title, &self.markup());
        response.content_type("text/html; charset=utf-8").body(page.into_string())
    }

    fn markup(&self) -> Markup {
        html! {
            div class="head" { div { h1 { (self.title) } p class="scope" { (self.status.as_u16()) } } }
            section class="card pad-all stack" aria-label=(self.title) {
                p { (self.text) }
                @if self.is_closed {
                    pre { (HOW_TO_OPEN) }
                    p class="faint" { "Pages and acts are refused until then, so that nobody opens them by mistake." }
                }
            }
        }
    }
}

/// Whether the answer is to be JSON.
pub(super) fn wants_json(request: &HttpRequest) -> bool {
    let by_query = request.query_string().split('&').any(|field| field == "format=json");
    let accepts = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    by_query || accepts.is_some_and(|accept| accept.trim_start().starts_with("application/json"))
}

impl From<NotAllowed> for ConsoleProblem {
    fn from(refusal: NotAllowed) -> Self {
        match refusal {
            NotAllowed::Closed => Self {
                is_closed: true,
                ..Self::new(
                    StatusCode::FORBIDDEN,
                    "This console is closed",
                    "The program has not said who may see it and who may do what. It opens with a function that says so:",
                )
            },
            NotAllowed::Denied(permission, queue) => {
                let what = queue.map_or_else(String::new, |queue| format!(" for the queue `{queue}`"));
                Self::denied(format!(
                    "It needs the permission `{}`{what}, which the program does not give you. Ask who runs it.",
                    permission.as_str()
                ))
            }
            NotAllowed::LogIn(address) => Self {
                log_in: Some(address),
                ..Self::new(
                    StatusCode::UNAUTHORIZED,
                    "Log in first",
                    "The program does not know who you are.",
                )
            },
        }
    }
}

impl From<&ControlError> for ConsoleProblem {
    fn from(error: &ControlError) -> Self {
        match error {
            ControlError::UnknownQueue { .. }
            | ControlError::ServedElsewhere(_)
            | ControlError::NoAbility { .. }
            | ControlError::UnknownAct(_)
            | ControlError::NoFleet(_) => Self::unknown(error.to_string()),
            ControlError::Broker(BrokerError::Invalid(text)) => Self::malformed(text.as_str()),
            ControlError::NoWorkers
            | ControlError::Brake(_)
            | ControlError::BadWeight { .. }
            | ControlError::CannotUndo(..)
            | ControlError::CannotCancel(..) => Self::malformed(error.to_string()),
            error => Self::unavailable(error),
        }
    }
}

impl From<ControlError> for ConsoleProblem {
    fn from(error: ControlError) -> Self {
        Self::from(&error)
    }
}

impl From<&BeatError> for ConsoleProblem {
    fn from(error: &BeatError) -> Self {
        match error {
            BeatError::Off | BeatError::Unknown { .. } => Self::unknown(error.to_string()),
            BeatError::PerTenant(_) => Self::malformed(error.to_string()),
            error => Self::unavailable(error),
        }
    }
}

impl From<GetError> for ConsoleProblem {
    fn from(error: GetError) -> Self {
        Self::unavailable(&error)
    }
}

impl From<SoilError> for ConsoleProblem {
    fn from(error: SoilError) -> Self {
        Self::unavailable(&error)
    }
}
