//! The style sheet and the script of the pages, which are part of the program.

use actix_web::{HttpRequest, HttpResponse, web};

use super::routes::Site;
use crate::web::asset::asset;

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
