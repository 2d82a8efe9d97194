//! The style sheet and the script of the console, which are part of the program. They say nothing about it, so everybody may
//! load them.

use actix_web::{HttpRequest, HttpResponse, web};

use super::Console;
use crate::web::asset::asset;

const STYLE: &str = concat!(include_str!("../assets/tokens.css"), include_str!("assets/console.css"));
const SCRIPT: &str = include_str!("assets/console.js");

/// The style sheet, with the colours of the program's theme behind it.
pub(super) async fn style(request: HttpRequest, console: web::Data<Console>) -> HttpResponse {
    let colours = &console.colours;
    let text = if colours.is_empty() { STYLE.into() } else { format!("{STYLE}{colours}").into() };
    asset(&request, text, "text/css; charset=utf-8")
}

pub(super) async fn script(request: HttpRequest) -> HttpResponse {
    asset(&request, SCRIPT.into(), "text/javascript; charset=utf-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_small_and_nothing_comes_from_elsewhere() {
        assert!(SCRIPT.len() < 8 << 10, "{} bytes", SCRIPT.len());
        for text in [STYLE, SCRIPT] {
            assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("@import"));
            assert!(!text.contains("eval(") && !text.contains("style="), "no policy lets that through");
        }
    }
}
