//! The file, as HTTP has it: HEAD, ranges, validators, a name that no browser can misread. Its bytes flow through.

use std::ops::Range;

use actix_web::body::SizedStream;
use actix_web::http::header::{
    self, ContentEncoding, EntityTag, Header, HttpDate, IfNoneMatch, IfRange, Range as RangeHeader,
};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use futures_util::StreamExt;

use super::access::Action;
use super::problem::Problem;
use super::routes::{Site, Visit, admit};
use crate::soil::{DownloadError, DownloadFacts, SoilState, content_disposition};
use crate::task::TaskId;

/// The file of a task.
pub(super) async fn get(request: HttpRequest, site: web::Data<Site>) -> Result<HttpResponse, Problem> {
    let visit = admit(&request, &site, Action::Look).await?;
    let task = visit.tasks().first().cloned().ok_or_else(Problem::unknown)?;
    serve(&request, &visit, &task).await
}

/// The file of a member of a group.
pub(super) async fn part(request: HttpRequest, site: web::Data<Site>) -> Result<HttpResponse, Problem> {
    let visit = admit(&request, &site, Action::Look).await?;
    let part = request.match_info().get("part").and_then(|part| part.parse::<usize>().ok());
    let part = part.ok_or_else(|| Problem::malformed("A part has a number, from 0."))?;
    let task = visit.tasks().get(part).cloned().ok_or_else(Problem::unknown)?;
    serve(&request, &visit, &task).await
}

/// What to say of a task that has no file.
async fn nothing(visit: &Visit, task: &TaskId) -> Problem {
    match visit.site.soil.status(task).await {
        Err(error) => Problem::unavailable(&error),
        Ok(status) if status.gone => Problem::gone(),
        Ok(status) => match status.state {
            SoilState::Missing => Problem::unknown(),
            SoilState::Failed => Problem::no_file("What was to make it has failed."),
            SoilState::Success => Problem::no_file("It is done, and made no file."),
            SoilState::NotStarted | SoilState::Started => Problem::no_file("It is not ready yet."),
        },
    }
}

async fn serve(request: &HttpRequest, visit: &Visit, task: &TaskId) -> Result<HttpResponse, Problem> {
    let facts = match visit.site.soil.download(task).await {
        Ok(facts) => facts,
        Err(DownloadError::Missing(_)) => return Err(nothing(visit, task).await),
        Err(error) => return Err(Problem::unavailable(&error)),
    };
    // The file's own owners, if it has any, else those of the link.
    let of_link = visit.grant.as_ref().map(|grant| grant.owners.clone()).unwrap_or_default();
    let owners = if facts.owners.is_empty() { of_link } else { facts.owners.clone() };
    visit.consent(request, Action::Download, owners).await?;

    if is_known(request, &facts) {
        return Ok(about(&mut HttpResponse::NotModified(), &facts).finish());
    }
    let (code, range) = match wanted(request, &facts) {
        Wanted::Whole => (StatusCode::OK, 0..facts.size),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Nothing => {
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
        // It went between the two looks.
        Err(DownloadError::Missing(_)) => return Err(Problem::gone()),
        Err(error) => return Err(Problem::unavailable(&error)),
    };
    Ok(response.body(SizedStream::new(size, open.body.boxed_local())))
}

/// The headers that do not depend on what is sent.
fn about<'a>(response: &'a mut HttpResponseBuilder, facts: &DownloadFacts) -> &'a mut HttpResponseBuilder {
    for (name, value) in &facts.headers {
        // They were looked at when the file was exposed.
        response.insert_header((name.as_str(), value.as_str()));
    }
    response
        .content_type(facts.content_type.as_str())
        .insert_header((header::CONTENT_DISPOSITION, content_disposition(&facts.name)))
        .insert_header((header::ETAG, facts.etag.as_str()))
        .insert_header((header::LAST_MODIFIED, HttpDate::from(facts.created.to_system_time())))
        .insert_header((header::ACCEPT_RANGES, "bytes"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // Whatever is in the file: it is no page of this site.
        .insert_header((header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        // Compressed on the way, it would have other bytes and no ranges.
        .insert_header(ContentEncoding::Identity);
    if !facts.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("cache-control")) {
        response.insert_header((header::CACHE_CONTROL, "private, no-cache"));
    }
    response
}

/// Whether the client has the file as it is.
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

enum Wanted {
    Whole,
    Part(Range<u64>),
    /// A part that there is not.
    Nothing,
}

/// Which bytes are wanted. What cannot be read is ignored, as RFC 9110 has it; so are several ranges at once.
fn wanted(request: &HttpRequest, facts: &DownloadFacts) -> Wanted {
    let own = facts.etag.parse::<EntityTag>().ok();
    if facts.size == 0 || !request.headers().contains_key(header::RANGE) {
        return Wanted::Whole;
    }
    if request.headers().contains_key(header::IF_RANGE) {
        let still_the_same = match IfRange::parse(request) {
            Ok(IfRange::EntityTag(tag)) => own.is_some_and(|own| tag.strong_eq(&own)),
            // By the second, as HTTP counts.
            Ok(IfRange::Date(date)) => {
                date.to_string() == HttpDate::from(facts.created.to_system_time()).to_string()
            }
            Err(_) => false,
        };
        if !still_the_same {
            return Wanted::Whole;
        }
    }
    let Ok(RangeHeader::Bytes(ranges)) = RangeHeader::parse(request) else { return Wanted::Whole };
    let [range] = ranges.as_slice() else { return Wanted::Whole };
    match range.to_satisfiable_range(facts.size) {
        Some((first, last)) => Wanted::Part(first..last + 1),
        None => Wanted::Nothing,
    }
}
