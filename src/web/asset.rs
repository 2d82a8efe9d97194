//! A style sheet or a script of the pages as an answer.

use std::borrow::Cow;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use xxhash_rust::xxh3::xxh3_64;

/// Answers with a text that browsers keep and ask about, so that they load it again only when it has changed.
pub(super) fn asset(request: &HttpRequest, text: Cow<'static, str>, content_type: &str) -> HttpResponse {
    let etag = format!("\"{:016x}\"", xxh3_64(text.as_bytes()));
    let known =
        request.headers().get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes());
    let mut response = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .insert_header((header::ETAG, etag))
        .insert_header((header::CACHE_CONTROL, "public, no-cache"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
    if known { response.finish() } else { response.content_type(content_type).body(text) }
}
