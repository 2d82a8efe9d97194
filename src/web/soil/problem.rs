//! The answers to requests that are refused. The statuses 400, 401, 403, 404, 410 and 503 mean different things, and
//! each text says which.

use std::fmt;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use serde_json::json;

use super::html;

/// The reason why a request gets no view and no file.
#[derive(Clone, Debug)]
pub(super) struct ProblemDetails {
    pub(super) status: StatusCode,
    pub(super) title: &'static str,
    pub(super) text: String,
    /// Whether the answer is JSON instead of a page.
    pub(super) as_json: bool,
    log_in: Option<String>,
    /// When to ask again after a 503, in seconds.
    retry_after: &'static str,
}

/// When it is worth asking again, in seconds: a store that is away may be back soon, while streams last long.
const AWAY: &str = "2";
const CROWDED: &str = "30";

impl ProblemDetails {
    fn new(status: StatusCode, title: &'static str, text: impl Into<String>) -> Self {
        Self { status, title, text: text.into(), as_json: false, log_in: None, retry_after: AWAY }
    }

    pub(super) fn malformed(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "This link is broken", text)
    }

    pub(super) fn denied() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "This is not yours to see",
            "It belongs to somebody else, or the link is not complete.",
        )
    }

    pub(super) fn log_in(location: String) -> Self {
        let problem =
            Self::new(StatusCode::UNAUTHORIZED, "Please log in", "Who you are is not known any more.");
        Self { log_in: Some(location), ..problem }
    }

    pub(super) fn unknown() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "There is nothing here",
            "Nobody knows this download. Perhaps it was never started; please start it again.",
        )
    }

    pub(super) fn no_file(text: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "There is no file", text)
    }

    pub(super) fn gone() -> Self {
        Self::new(
            StatusCode::GONE,
            "This download has expired",
            "Files are kept for a limited time. Please start it again.",
        )
    }

    pub(super) fn link_expired() -> Self {
        Self::new(StatusCode::GONE, "This link has expired", "Please ask for a new one where you got it.")
    }

    pub(super) fn link_revoked() -> Self {
        Self::new(
            StatusCode::GONE,
            "This link was taken back",
            "It opens nothing any more. Please ask for a new one where you got it.",
        )
    }

    pub(super) fn crowded() -> Self {
        let problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many are looking at once",
            "It is not told as it changes, but on being asked: see `status`.",
        );
        Self { retry_after: CROWDED, ..problem }
    }

    pub(super) fn unavailable(error: &dyn fmt::Display) -> Self {
        tracing::warn!(%error, "Soil's pages cannot answer");
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "It cannot be said right now",
            "What you started goes on. Please try again in a moment.",
        )
    }

    pub(super) fn json(mut self) -> Self {
        self.as_json = true;
        self
    }
}

impl fmt::Display for ProblemDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.title, self.text)
    }
}

impl ResponseError for ProblemDetails {
    fn status_code(&self) -> StatusCode {
        match &self.log_in {
            Some(_) if !self.as_json => StatusCode::SEE_OTHER,
            _ => self.status,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        response.insert_header((header::CACHE_CONTROL, "no-store"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((header::RETRY_AFTER, self.retry_after));
        }
        if self.as_json {
            return response.json(json!({ "error": self.title, "message": self.text }));
        }
        if let Some(location) = &self.log_in {
            return response.insert_header((header::LOCATION, location.as_str())).finish();
        }
        html::headers(&mut response).body(html::problem(self.title, &self.text).into_string())
    }
}
