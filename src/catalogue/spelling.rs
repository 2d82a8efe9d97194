//! "Did you mean": finds the known name that is nearest to a mistyped one.

use super::error::quote;
use crate::core::did_you_mean::nearest;

/// The text `did you mean "x"?`, or the text of `otherwise` if no known name is near.
pub(super) fn advice<'k>(
    given: &str,
    known: impl IntoIterator<Item = &'k str>,
    otherwise: impl FnOnce() -> String,
) -> String {
    match nearest(given, known) {
        Some(name) => format!("did you mean {}?", quote(name)),
        None => otherwise(),
    }
}
