//! Panics of code that the program brings: their text, and calls that turn one into an error or a harmless answer.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::FutureExt;

/// Reads the text of a caught panic and disposes of its payload, whose own drop may panic again.
pub(crate) fn panic_message(panic: Box<dyn Any + Send>) -> String {
    let text = if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    };
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(second);
    }
    text
}

/// The text of the error after a panic of a part that the program brings, such as `store` or `broker`, in its
/// function `what`. It is logged, too.
pub(crate) fn panicked(part: &str, what: &str, panic: Box<dyn Any + Send>) -> String {
    let panic = panic_message(panic);
    tracing::error!(what, panic, "the {part} panicked");
    format!("the {part} panicked in `{what}`: {panic}")
}

/// Awaits a future of such a part, and makes a panic an error.
pub(crate) async fn caught<T, E>(
    part: &str,
    what: &str,
    work: impl Future<Output = Result<T, E>>,
    wrong: impl FnOnce(String) -> E,
) -> Result<T, E> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(done) => done,
        Err(panic) => Err(wrong(panicked(part, what, panic))),
    }
}

/// Calls a function of such a part. `Err`: it panicked, with the text of [`panicked`].
pub(crate) fn tried<T>(part: &str, what: &str, call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| panicked(part, what, panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Spiteful;

    impl Drop for Spiteful {
        fn drop(&mut self) {
            panic!("again");
        }
    }

    #[test]
    fn every_payload_is_told_and_disposed_of() {
        let said = |f: fn()| catch_unwind(f).err().map(panic_message);
        assert_eq!(said(|| panic!("plain")).as_deref(), Some("plain"));
        assert_eq!(said(|| panic!("number {}", 7)).as_deref(), Some("number 7"));
        assert_eq!(said(|| std::panic::panic_any(Spiteful)).as_deref(), Some("a panic without a message"));
        assert_eq!(said(|| ()), None);
    }
}
