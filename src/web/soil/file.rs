//! Serves a file by the rules of HTTP: HEAD, ranges, validators, a name that no browser can misread. The bytes are
//! streamed, or a server in front of the program sends them.

use std::ops::Range;

use actix_web::body::SizedStream;
use actix_web::http::header::{
    self, ContentEncoding, EntityTag, Header, HttpDate, IfNoneMatch, IfRange, Range as RangeHeader,
};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use futures_util::StreamExt;

use super::access::Action;
use super::problem::ProblemDetails;
use super::routes::{Site, Visit, admit};
use super::texts::Sentence;
use crate::soil::{DownloadError, DownloadFacts, SoilState, content_disposition};
use crate::store::payloads::check_header;
use crate::task::TaskId;

/// Serves the file of a task.
pub(super) async fn get(request: HttpRequest, site: web::Data<Site>) -> Result<HttpResponse, ProblemDetails> {
    let visit = admit(&request, &site, Action::Look).await?;
    let task = visit.tasks().first().cloned().ok_or_else(ProblemDetails::unknown)?;
    serve(&request, &visit, &task).await
}

/// Serves the file of a member of a group.
pub(super) async fn part(
    request: HttpRequest,
    site: web::Data<Site>,
) -> Result<HttpResponse, ProblemDetails> {
    let visit = admit(&request, &site, Action::Look).await?;
    let part = request.match_info().get("part").and_then(|part| part.parse::<usize>().ok());
    let part = part.ok_or_else(|| ProblemDetails::malformed(Sentence::BrokenPart))?;
    let task = visit.tasks().get(part).cloned().ok_or_else(ProblemDetails::unknown)?;
    serve(&request, &visit, &task).await
}

/// The answer about a task that has no file.
async fn nothing(visit: &Visit, task: &TaskId) -> ProblemDetails {
    match visit.site.soil.status(task).await {
        Err(error) => ProblemDetails::unavailable(&error),
        Ok(status) if status.gone => ProblemDetails::gone(),
        Ok(status) => match status.state {
            SoilState::Missing => ProblemDetails::unknown(),
            SoilState::Failed => ProblemDetails::no_file(Sentence::NoFileFailed),
            SoilState::Success => ProblemDetails::no_file(Sentence::NoFileMade),
            SoilState::NotStarted | SoilState::Started => ProblemDetails::no_file(Sentence::NoFileYet),
        },
    }
}

async fn serve(request: &HttpRequest, visit: &Visit, task: &TaskId) -> Result<HttpResponse, ProblemDetails> {
    let facts = match visit.site.soil.download(task).await {
        Ok(facts) => facts,
        Err(DownloadError::Missing(_)) => return Err(nothing(visit, task).await),
        Err(error) => return Err(ProblemDetails::unavailable(&error)),
    };
    // The owners of the file count if it has any, else those of the link.
    let of_link = visit.grant.as_ref().map(|grant| grant.owners.clone()).unwrap_or_default();
    let owners = if facts.owners.is_empty() { of_link } else { facts.owners.clone() };
    visit.consent(request, Action::Download, owners).await?;

    if is_known(request, &facts) {
        return Ok(about(&mut HttpResponse::NotModified(), &facts).finish());
    }
    if let Some(proxy) = &visit.site.pages.proxy {
        match proxy.of(&visit.site.soil, task).await {
            // HEAD, ranges and the length are the other server's matter.
            Ok(Some(header)) => {
                return Ok(about(&mut HttpResponse::Ok(), &facts).insert_header(header).finish());
            }
            Ok(None) => {}
            Err(DownloadError::Missing(_)) => return Err(ProblemDetails::gone()),
            Err(error) => return Err(ProblemDetails::unavailable(&error)),
        }
    }
    let (code, range) = match wanted(request, &facts) {
        RequestedRange::Whole => (StatusCode::OK, 0..facts.size),
        RequestedRange::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        RequestedRange::Nothing => {
            return Ok(HttpResponse::RangeNotSatisfiable()
                .insert_header((header::CONTENT_RANGE, format!("bytes */{}", facts.size)))
                .insert_header((header::CACHE_CONTROL, "no-store"))
                .finish());
        }
    };
    let mut response = HttpResponse::build(code);
    about(&mut response, &facts);
    if code == StatusCode::PARTIAL_CONTENT {
        let said = format!("bytes {}-{}/{}", range.start, range.end - 1, facts.size);
        response.insert_header((header::CONTENT_RANGE, said));
    }
    let size = range.end - range.start;
    if request.method() == Method::HEAD {
        return Ok(response.body(SizedStream::new(size, futures_util::stream::empty::<std::io::Result<_>>())));
    }
    let part = (code == StatusCode::PARTIAL_CONTENT).then_some(range);
    let open = match visit.site.soil.open(task, part).await {
        Ok(open) => open,
        // The file was removed between the two looks.
        Err(DownloadError::Missing(_)) => return Err(ProblemDetails::gone()),
        Err(error) => return Err(ProblemDetails::unavailable(&error)),
    };
    Ok(response.body(SizedStream::new(size, open.body.boxed_local())))
}

/// Sets the headers that do not depend on which bytes are sent.
fn about<'a>(response: &'a mut HttpResponseBuilder, facts: &DownloadFacts) -> &'a mut HttpResponseBuilder {
    for (name, value) in &facts.headers {
        // The headers were checked when the file was exposed, but perhaps by an earlier version, or by another
        // program.
        if check_header(name, value).is_err() {
            tracing::debug!(name, "a header of a download is not allowed and is left out");
            continue;
        }
        response.insert_header((name.as_str(), value.as_str()));
    }
    response
        .content_type(facts.content_type.as_str())
        .insert_header((header::CONTENT_DISPOSITION, content_disposition(&facts.name)))
        .insert_header((header::ETAG, facts.etag.as_str()))
        .insert_header((header::LAST_MODIFIED, HttpDate::from(facts.created.to_system_time())))
        .insert_header((header::ACCEPT_RANGES, "bytes"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // Whatever is in the file, a browser must not treat it as a page of this site.
        .insert_header((header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        // A file that is compressed on the way has other bytes, and no ranges.
        .insert_header(ContentEncoding::Identity);
    let says = |(name, value): &(String, String)| {
        name.eq_ignore_ascii_case("cache-control") && check_header(name, value).is_ok()
    };
    if !facts.headers.iter().any(says) {
        response.insert_header((header::CACHE_CONTROL, "private, no-cache"));
    }
    response
}

/// Whether the client already has this version of the file.
fn is_known(request: &HttpRequest, facts: &DownloadFacts) -> bool {
    let Ok(own) = facts.etag.parse::<EntityTag>() else { return false };
    if !request.headers().contains_key(header::IF_NONE_MATCH) {
        return false;
    }
    match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Any) => true,
        Ok(IfNoneMatch::Items(known)) => known.iter().any(|known| known.weak_eq(&own)),
        Err(_) => false,
    }
}

enum RequestedRange {
    Whole,
    Part(Range<u64>),
    /// The client wants a range that the file does not have.
    Nothing,
}

/// Which bytes the client wants. A header that cannot be read is ignored, as RFC 9110 demands; several ranges at once
/// are ignored too.
fn wanted(request: &HttpRequest, facts: &DownloadFacts) -> RequestedRange {
    let own = facts.etag.parse::<EntityTag>().ok();
    if facts.size == 0 || !request.headers().contains_key(header::RANGE) {
        return RequestedRange::Whole;
    }
    if request.headers().contains_key(header::IF_RANGE) {
        let still_the_same = match IfRange::parse(request) {
            Ok(IfRange::EntityTag(tag)) => own.is_some_and(|own| tag.strong_eq(&own)),
            // HTTP dates count whole seconds.
            Ok(IfRange::Date(date)) => {
                date.to_string() == HttpDate::from(facts.created.to_system_time()).to_string()
            }
            Err(_) => false,
        };
        if !still_the_same {
            return RequestedRange::Whole;
        }
    }
    let Ok(RangeHeader::Bytes(ranges)) = RangeHeader::parse(request) else { return RequestedRange::Whole };
    let [range] = ranges.as_slice() else { return RequestedRange::Whole };
    match range.to_satisfiable_range(facts.size) {
        Some((first, last)) => RequestedRange::Part(first..last + 1),
        None => RequestedRange::Nothing,
    }
}
