//! What makes sure that an act comes from a page of this console, and not from a page of somebody else.
//!
//! A page of another site can make a browser send a form with the cookies of whoever looks at that page. Three things stand
//! against that, and each alone would do in a browser of today: the browser says where a request comes from
//! ([`same_origin`]); no form of another site is sent with the cookie of the token; and the form must have the token,
//! which no other site can read. A token is random, holds for the browser, and needs no memory in the program, so that a
//! form still works after a restart and on another server of the same site.
//!
//! A script is no browser: it sends the header [`SCRIPT_HEADER`] in the place of the token, which no page of another site can
//! make a browser send.

use actix_web::HttpRequest;
use actix_web::http::header;

use super::Console;
use crate::web::same_origin;

/// The header by which a script says that it is no page.
pub(super) const SCRIPT_HEADER: &str = "Celeriac-Console";
/// The name of the form's field.
pub(super) const FIELD: &str = "token";
/// The name of the field that tells one form from all others, so that it is acted on once.
pub(super) const ONCE: &str = "once";
const COOKIE: &str = "celeriac_console";
/// The letters of a token, which are hexadecimal digits.
const LENGTH: usize = 32;
/// How long a browser keeps its token, in seconds.
const KEPT: u32 = 30 * 24 * 3_600;

/// The token of a browser.
#[derive(Clone, Debug)]
pub(super) struct CsrfToken {
    pub(super) text: String,
    /// Whether the browser does not have it yet.
    is_new: bool,
}

impl CsrfToken {
    /// The token that the request has, or a new one.
    pub(super) fn of(request: &HttpRequest) -> Self {
        match known(request) {
            Some(text) => Self { text, is_new: false },
            None => Self { text: random(), is_new: true },
        }
    }

    /// The value of `Set-Cookie`, if the browser does not have the token yet.
    pub(super) fn cookie(&self, request: &HttpRequest, console: &Console) -> Option<String> {
        let is_secure =
            request.connection_info().scheme() == "https" || console.public.starts_with("https://");
        let secure = if is_secure { "; Secure" } else { "" };
        let cookie =
            format!("{COOKIE}={}; Path=/; Max-Age={KEPT}; HttpOnly; SameSite=Lax{secure}", self.text);
        self.is_new.then_some(cookie)
    }
}

/// A text that nobody guesses and nobody else has.
pub(super) fn random() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Whether two tokens are the same one. It takes as long wherever they differ, so that nobody finds a token out letter by letter.
pub(super) fn is_same(known: &str, shown: &str) -> bool {
    let differing = known.bytes().zip(shown.bytes()).fold(0_u8, |differing, (a, b)| differing | (a ^ b));
    known.len() == shown.len() && differing == 0
}

/// The token of this console in the cookies of a request.
fn known(request: &HttpRequest) -> Option<String> {
    in_cookie(request, COOKIE)
}

/// The token in the cookie of this name of a request, if there is one that has the form of a token.
pub(super) fn in_cookie(request: &HttpRequest, wanted: &str) -> Option<String> {
    let headers = request.headers().get_all(header::COOKIE).filter_map(|cookies| cookies.to_str().ok());
    let mut cookies =
        headers.flat_map(|cookies| cookies.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    let (_, text) = cookies.find(|(name, _)| *name == wanted)?;
    let is_token = text.len() == LENGTH && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_token.then(|| text.to_owned())
}

/// Whether an act comes from a page of this console, or from a script. The error says what is missing.
pub(super) fn check(
    request: &HttpRequest,
    console: &Console,
    field: Option<&str>,
) -> Result<(), &'static str> {
    if !same_origin(request, Some(&console.public)) {
        return Err("The request comes from a page of another site.");
    }
    if request.headers().contains_key(SCRIPT_HEADER) {
        return Ok(());
    }
    match (known(request), field) {
        (Some(known), Some(field)) if is_same(&known, field) => Ok(()),
        (None, _) => {
            Err("The browser has sent no cookie of this console. Load the page again, and allow its cookie.")
        }
        _ => Err(
            "The form has not the token of this browser. Load the page again, and press the button there.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_token_is_kept_and_one_of_another_form_is_not() {
        let first = CsrfToken::of(&TestRequest::default().to_http_request());
        assert!(first.is_new && first.text.len() == LENGTH);
        let with = |value: &str| {
            let cookies = format!("a=b; {COOKIE}={value}; c=d");
            CsrfToken::of(&TestRequest::default().insert_header(("Cookie", cookies)).to_http_request())
        };
        let again = with(&first.text);
        assert!(!again.is_new && again.text == first.text);
        for odd in ["", "short", &"x".repeat(LENGTH), &"a".repeat(LENGTH + 1)] {
            assert!(with(odd).is_new, "{odd}");
        }
    }

    #[test]
    fn a_token_is_the_same_as_a_whole_only() {
        let token = random();
        assert!(is_same(&token, &token.clone()) && !is_same(&token, &random()));
        for odd in
            ["", &token[1..], &token[..LENGTH - 1], &format!("{token}0"), &token.replace('0', "x")[..9]]
        {
            assert!(!is_same(&token, odd) && !is_same(odd, &token), "{odd}");
        }
    }
}
