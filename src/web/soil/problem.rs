//! The answers to requests that are refused. The statuses 400, 401, 403, 404, 405, 410 and 503 mean different things, and
//! each text says which.
//!
//! A handler returns a [`ProblemDetails`], which knows neither the request nor the pages. The middleware
//! [`answer_refused`] makes a page of it, in the language of the reader and in the frame of all pages, or JSON. It does
//! the same for addresses and methods that no handler has.

use std::fmt;

use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{StatusCode, header};
use actix_web::middleware::Next;
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use serde_json::json;

use super::routes::Site;
use super::texts::{Language, Sentence};
use super::{SoilPages, html};

/// The reason why a request gets no view and no file.
#[derive(Clone, Debug)]
pub(super) struct ProblemDetails {
    status: StatusCode,
    title: Sentence<'static>,
    text: Sentence<'static>,
    /// Whether the answer is JSON instead of a page.
    as_json: bool,
    log_in: Option<String>,
    /// When to ask again after a 503, in seconds.
    retry_after: &'static str,
}

/// When it is worth asking again, in seconds: a store that is away may be back soon, while streams last long.
const AWAY: &str = "2";
const CROWDED: &str = "30";

impl ProblemDetails {
    fn new(status: StatusCode, title: Sentence<'static>, text: Sentence<'static>) -> Self {
        Self { status, title, text, as_json: false, log_in: None, retry_after: AWAY }
    }

    pub(super) fn malformed(text: Sentence<'static>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Sentence::BrokenTitle, text)
    }

    pub(super) fn denied() -> Self {
        Self::new(StatusCode::FORBIDDEN, Sentence::DeniedTitle, Sentence::DeniedText)
    }

    pub(super) fn log_in(location: String) -> Self {
        let problem = Self::new(StatusCode::UNAUTHORIZED, Sentence::LogInTitle, Sentence::LogInText);
        Self { log_in: Some(location), ..problem }
    }

    pub(super) fn unknown() -> Self {
        Self::new(StatusCode::NOT_FOUND, Sentence::UnknownTitle, Sentence::UnknownText)
    }

    pub(super) fn no_file(text: Sentence<'static>) -> Self {
        Self::new(StatusCode::NOT_FOUND, Sentence::NoFileTitle, text)
    }

    pub(super) fn gone() -> Self {
        Self::new(StatusCode::GONE, Sentence::GoneTitle, Sentence::GoneText)
    }

    pub(super) fn link_expired() -> Self {
        Self::new(StatusCode::GONE, Sentence::LinkExpiredTitle, Sentence::LinkExpiredText)
    }

    pub(super) fn link_revoked() -> Self {
        Self::new(StatusCode::GONE, Sentence::LinkRevokedTitle, Sentence::LinkRevokedText)
    }

    pub(super) fn crowded() -> Self {
        let problem =
            Self::new(StatusCode::SERVICE_UNAVAILABLE, Sentence::CrowdedTitle, Sentence::CrowdedText);
        Self { retry_after: CROWDED, ..problem }
    }

    pub(super) fn unavailable(error: &dyn fmt::Display) -> Self {
        tracing::warn!(%error, "Soil's pages cannot answer");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Sentence::UnavailableTitle, Sentence::UnavailableText)
    }

    pub(super) fn json(mut self) -> Self {
        self.as_json = true;
        self
    }

    /// The problem of a request that no handler took. actix-web answers it without a body.
    fn unserved(response: &HttpResponse<BoxBody>) -> Option<Self> {
        let status = response.status();
        let (title, text) = match status {
            StatusCode::NOT_FOUND => (Sentence::NoPageTitle, Sentence::NoPageText),
            StatusCode::METHOD_NOT_ALLOWED => (Sentence::WrongMethodTitle, Sentence::WrongMethodText),
            _ => return None,
        };
        let is_bare = !response.headers().contains_key(header::CONTENT_TYPE);
        is_bare.then(|| Self::new(status, title, text))
    }

    /// The answer to the reader who made this request.
    fn answer(&self, request: &HttpRequest, pages: &SoilPages) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        response.insert_header((header::CACHE_CONTROL, "no-store"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((header::RETRY_AFTER, self.retry_after));
        }
        if let Some(location) = self.log_in.as_deref().filter(|_| !self.as_json) {
            return response.insert_header((header::LOCATION, location)).finish();
        }
        let wording = pages.wording(request);
        let (title, text) = (wording.say(self.title), wording.say(self.text));
        if self.as_json {
            return response.json(json!({ "error": title, "message": text }));
        }
        let frame = html::PageFrame { request, pages, wording: &wording };
        let page = html::problem(&title, &text, &frame);
        html::headers(&mut response, pages, &wording).body(page.into_string())
    }
}

/// Answers for all handlers: as a page or as JSON, in the words of the reader.
pub(super) async fn answer_refused(
    site: web::Data<Site>,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let response = next.call(request).await?;
    let refused = response.response().error().and_then(|error| error.as_error::<ProblemDetails>()).cloned();
    let Some(problem) = refused.or_else(|| ProblemDetails::unserved(response.response())) else {
        return Ok(response);
    };
    let mut answer = problem.answer(response.request(), &site.pages);
    if let Some(methods) = response.headers().get(header::ALLOW).cloned() {
        answer.headers_mut().insert(header::ALLOW, methods);
    }
    Ok(response.into_response(answer))
}

impl fmt::Display for ProblemDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let english = Language::english();
        write!(f, "{}: {}", english.say(self.title), english.say(self.text))
    }
}

/// The middleware puts its own answer in the place of the one that this makes.
impl ResponseError for ProblemDetails {
    fn status_code(&self) -> StatusCode {
        match &self.log_in {
            Some(_) if !self.as_json => StatusCode::SEE_OTHER,
            _ => self.status,
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::body::MessageBody;
    use actix_web::test::TestRequest;

    use super::*;

    fn pages() -> SoilPages {
        let pages = SoilPages::new([7; 32]).expect("a secret").home("/exports").expect("an address");
        pages.languages([Language::english(), Language::arabic()]).expect("languages")
    }

    fn body(response: HttpResponse) -> String {
        let bytes = response.into_body().try_into_bytes().unwrap_or_else(|_| panic!("a body in one piece"));
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    #[test]
    fn a_store_that_is_away_is_a_page_that_says_so_and_leads_back() {
        let request = TestRequest::default().insert_header(("Accept-Language", "ar")).to_http_request();
        let answer = ProblemDetails::unavailable(&"the disk is full").answer(&request, &pages());
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers().get("retry-after").expect("a time"), "2");
        assert_eq!(answer.headers().get("content-language").expect("a language"), "ar");
        let page = body(answer);
        for part in [
            "<html lang=\"ar\" dir=\"rtl\">",
            "تتعذر الإجابة الآن",
            "href=\"/exports\"",
            "/soil/assets/soil.css",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("disk"), "{page}");
    }

    #[test]
    fn json_says_the_same_in_the_language_of_the_reader() {
        let request = TestRequest::default().to_http_request();
        let answer = ProblemDetails::crowded().json().answer(&request, &pages());
        assert_eq!(answer.headers().get("retry-after").expect("a time"), "30");
        let told: serde_json::Value = serde_json::from_str(&body(answer)).expect("JSON");
        assert_eq!(told["error"], "Too many are looking at once");
        let request = TestRequest::default().insert_header(("Accept-Language", "ar")).to_http_request();
        let answer = ProblemDetails::gone().json().answer(&request, &pages());
        let told: serde_json::Value = serde_json::from_str(&body(answer)).expect("JSON");
        assert_eq!(told["error"], "انتهت صلاحية هذا التنزيل");
    }
}
