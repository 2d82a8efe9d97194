//! The text of a panic.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

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
