//! Decides whether a request that changes something comes from a page of the same site.
//!
//! A page of another site can make a browser send such a request, with the cookies of the user who looks at that
//! page. Browsers say where a request comes from: in `Sec-Fetch-Site` (not old browsers, and none over plain HTTP),
//! in `Origin` (all browsers since 2020, with a POST), or before that in `Referer`. All headers that are there must
//! agree. A request without any of them comes from a program and not from a page.

use actix_web::HttpRequest;
use actix_web::http::header;

/// The origin of a page: a scheme and a host, with its port unless the port is the scheme's default.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
}

impl Origin {
    /// The origin of an `Origin`, a `Referer` or any other address; `None` if it has none, as `null`.
    fn of(address: &str) -> Option<Self> {
        let (scheme, rest) = address.trim().split_once("://")?;
        let host =
            rest.split(['/', '?', '#']).next().filter(|host| !host.is_empty() && !host.contains('@'))?;
        let scheme = scheme.to_ascii_lowercase();
        let host = plain_host(&scheme, host);
        Some(Self { scheme, host })
    }
}

/// The host in lower case, without the default port of the scheme.
fn plain_host(scheme: &str, host: &str) -> String {
    let host = host.trim().to_ascii_lowercase();
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    host.strip_suffix(port).unwrap_or(&host).to_owned()
}

/// Whether a request that changes something may come from a page of this same site, as far as the browser says where
/// the request comes from (`Sec-Fetch-Site`, `Origin`, `Referer`). Use it in handlers and middleware of every route
/// that changes something, if cookies identify the user: `if !same_origin(&request, None) { return 403 }`.
///
/// The site is the one to which the request was sent: `Host`, or the host that a proxy states (`X-Forwarded-Host`,
/// `Forwarded`, which no page can make a browser send). If a proxy changes `Host` and does not state it, pass in
/// `public` the address of the site as browsers see it, such as `https://www.example.org/soil`.
pub fn same_origin(request: &HttpRequest, public: Option<&str>) -> bool {
    let all = |name| request.headers().get_all(name).map(|value| value.to_str().unwrap_or_default());
    if all(header::HeaderName::from_static("sec-fetch-site"))
        .any(|site| !matches!(site, "same-origin" | "none"))
    {
        return false;
    }
    let mut said: Vec<&str> = all(header::ORIGIN).collect();
    if said.is_empty() {
        said = all(header::REFERER).collect();
    }
    said.into_iter().all(|said| Origin::of(said).is_some_and(|origin| is_own(request, &origin, public)))
}

/// Whether an origin is that of the site to which the request was sent.
fn is_own(request: &HttpRequest, origin: &Origin, public: Option<&str>) -> bool {
    let is_host = |host: &str| !host.is_empty() && plain_host(&origin.scheme, host) == origin.host;
    public.and_then(Origin::of).as_ref() == Some(origin)
        || request.headers().get_all(header::HOST).any(|host| host.to_str().is_ok_and(is_host))
        || is_host(request.connection_info().host())
}

/// The path and the query of an address on the site to which the request was sent, for a link; `None` for an address of any
/// other site, and for a path that a browser might read as another site.
pub(super) fn own_path<'a>(request: &HttpRequest, address: &'a str, public: Option<&str>) -> Option<&'a str> {
    let origin = Origin::of(address)?;
    if !matches!(origin.scheme.as_str(), "http" | "https") || !is_own(request, &origin, public) {
        return None;
    }
    let path = path_of(address);
    let path = path.split('#').next().unwrap_or(path);
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    (is_plain && path.starts_with('/') && !path.starts_with("//")).then_some(path)
}

/// The path of an address, with all that follows it; `/` if it has none. Of an address without an origin it is the whole.
pub(super) fn path_of(address: &str) -> &str {
    let Some((_, rest)) = address.trim().split_once("://") else { return address };
    match rest.find(['/', '?', '#']) {
        Some(at) if rest[at..].starts_with('/') => &rest[at..],
        _ => "/",
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn allows(headers: &[(&str, &str)], public: Option<&str>) -> bool {
        let request = headers
            .iter()
            .fold(TestRequest::post(), |request, (name, value)| request.append_header((*name, *value)));
        same_origin(&request.to_http_request(), public)
    }

    #[test]
    fn a_page_of_this_site_may() {
        for headers in [
            &[("Host", "hq.example"), ("Origin", "https://hq.example"), ("Sec-Fetch-Site", "same-origin")][..],
            &[("Host", "hq.example"), ("Origin", "http://hq.example")],
            &[("Host", "hq.example:443"), ("Origin", "https://hq.example")],
            &[("Host", "HQ.example"), ("Origin", "https://hq.EXAMPLE:443")],
            &[("Host", "127.0.0.1:8080"), ("Origin", "http://127.0.0.1:8080")],
            &[("Host", "[::1]:8080"), ("Origin", "http://[::1]:8080")],
            &[("Host", "hq.example"), ("Referer", "https://hq.example/soil/a?key=b")],
            &[("Host", "backend:9"), ("X-Forwarded-Host", "hq.example"), ("Origin", "https://hq.example")],
            &[("Host", "hq.example"), ("Sec-Fetch-Site", "same-origin")],
            &[("Host", "hq.example"), ("Sec-Fetch-Site", "none")],
            // This request comes from a program and not from a page.
            &[("Host", "hq.example")],
            &[],
        ] {
            assert!(allows(headers, None), "{headers:?}");
        }
        let proxied = &[("Host", "backend:9"), ("Origin", "https://hq.example")];
        assert!(allows(proxied, Some("https://hq.example/a/soil")) && !allows(proxied, Some("/soil")));
    }

    #[test]
    fn a_page_of_another_site_may_not() {
        for headers in [
            &[("Host", "hq.example"), ("Origin", "https://evil.example")][..],
            &[("Host", "hq.example"), ("Origin", "null")],
            &[("Host", "hq.example"), ("Origin", "")],
            &[("Host", "hq.example"), ("Origin", "https://hq.example.evil.example")],
            &[("Host", "hq.example"), ("Origin", "https://hq.example:8443")],
            &[("Host", "hq.example"), ("Origin", "https://evil.example@hq.example")],
            &[("Host", "hq.example"), ("Origin", "https://hq.example"), ("Origin", "https://evil.example")],
            &[("Host", "hq.example"), ("Origin", "https://evil.example"), ("Sec-Fetch-Site", "same-origin")],
            &[("Host", "hq.example"), ("Origin", "https://evil.example"), ("Referer", "https://hq.example/")],
            &[("Host", "hq.example"), ("Referer", "https://evil.example/?https://hq.example/")],
            &[("Host", "hq.example"), ("Sec-Fetch-Site", "cross-site")],
            &[("Host", "hq.example"), ("Sec-Fetch-Site", "same-site")],
            &[("Host", "hq.example"), ("Origin", "https://hq.example"), ("Sec-Fetch-Site", "cross-site")],
            &[("Host", "hq.example"), ("Sec-Fetch-Site", "")],
            &[("Origin", "https://evil.example")],
        ] {
            assert!(!allows(headers, None), "{headers:?}");
        }
        // If the address of the site is given, its scheme counts as well.
        let plain = &[("Host", "backend:9"), ("Origin", "http://hq.example")];
        assert!(!allows(plain, Some("https://hq.example/soil")));
    }
}
