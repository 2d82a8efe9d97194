//! The style sheet and the script of the pages, which are part of the program.

use std::borrow::Cow;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use xxhash_rust::xxh3::xxh3_64;

use super::routes::Site;

const STYLE: &str = concat!(include_str!("../assets/tokens.css"), include_str!("assets/soil.css"));
const SCRIPT: &str = include_str!("assets/soil.js");

/// The style sheet, with the colours of the program's theme behind it.
pub(super) async fn style(request: HttpRequest, site: web::Data<Site>) -> HttpResponse {
    let colours = &site.pages.branding.colours;
    let text = if colours.is_empty() { STYLE.into() } else { format!("{STYLE}{colours}").into() };
    asset(&request, text, "text/css; charset=utf-8")
}

pub(super) async fn script(request: HttpRequest) -> HttpResponse {
    asset(&request, SCRIPT.into(), "text/javascript; charset=utf-8")
}

/// Answers with a text that browsers keep and ask about, so that they load it again only when it has changed.
fn asset(request: &HttpRequest, text: Cow<'static, str>, content_type: &str) -> HttpResponse {
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
