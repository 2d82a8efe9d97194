//! The link that leads out of the pages: to the address that the program gave, else to the page of this site that the
//! reader came from.
//!
//! A browser says where a reader comes from (`Referer`). Only an address of this same site becomes a link, and only its
//! path: who makes a link to a page here cannot make the page link to another site.

use actix_web::HttpRequest;
use actix_web::http::header;

use super::SoilPages;
use crate::web::origin::{own_path, path_of};

/// The address that the program gave.
pub(super) fn home(pages: &SoilPages) -> Option<String> {
    pages.branding.home.as_deref().map(str::to_owned)
}

/// The address that the program gave, else that of the page of this site that led here. A page of Soil is no way out of
/// Soil.
pub(super) fn way_back(request: &HttpRequest, pages: &SoilPages) -> Option<String> {
    home(pages).or_else(|| {
        let from = request.headers().get(header::REFERER)?.to_str().ok()?;
        let path = own_path(request, from, Some(&pages.public))?;
        let is_below = |base: &str| {
            let base = base.trim_end_matches('/');
            path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
        };
        let is_soil = is_below(path_of(&pages.public)) || is_below(&pages.path);
        (!is_soil).then(|| path.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn back(pages: &SoilPages, referer: &str) -> Option<String> {
        let request = TestRequest::default().insert_header(("Host", "hq.example"));
        way_back(&request.insert_header(("Referer", referer)).to_http_request(), pages)
    }

    fn pages() -> SoilPages {
        SoilPages::new([7; 32]).expect("a secret")
    }

    #[test]
    fn a_page_of_this_site_is_a_way_back() {
        for (referer, path) in [
            ("https://hq.example/exports?page=2", "/exports?page=2"),
            ("http://hq.example", "/"),
            ("https://hq.example?x=1", "/"),
            ("https://hq.example/soils", "/soils"),
            ("https://hq.example/a#b", "/a"),
        ] {
            assert_eq!(back(&pages(), referer).as_deref(), Some(path), "{referer}");
        }
        let proxied = pages().public_url("https://www.example.org/a/soil");
        assert_eq!(back(&proxied, "https://www.example.org/a/exports").as_deref(), Some("/a/exports"));
        assert_eq!(back(&proxied, "https://www.example.org/a/soil/x?key=y"), None);
    }

    #[test]
    fn no_other_address_is() {
        for referer in [
            "",
            "null",
            "/exports",
            "https://evil.example/exports",
            "https://hq.example.evil.example/",
            "https://hq.example@evil.example/",
            "https://hq.example//evil.example/",
            "https://hq.example/\\evil.example/",
            "https://hq.example/a\tb",
            "ftp://hq.example/exports",
            "javascript://hq.example/%0aalert(1)",
            "https://hq.example/soil/id?key=other",
            "https://hq.example/soil",
            "https://hq.example/soil?x",
        ] {
            assert_eq!(back(&pages(), referer), None, "{referer}");
        }
    }

    #[test]
    fn what_the_program_says_comes_first() {
        let pages = pages().home("/reports").expect("an address");
        assert_eq!(back(&pages, "https://hq.example/exports").as_deref(), Some("/reports"));
        assert_eq!(back(&pages, "https://evil.example/").as_deref(), Some("/reports"));
    }
}
