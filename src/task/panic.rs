//! Panics of code that the program brings: their text, and calls that turn one into an error or a harmless answer.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Once, OnceLock};

use futures_util::FutureExt;

thread_local! {
    /// Whether the text of a panic on this thread must not be shown.
    static IS_UNSEEN: Cell<bool> = const { Cell::new(false) };
    /// The place in the source of the last panic on this thread.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether there is such a place. It has nothing to drop, so looking at it costs next to nothing.
    static HAS_PLACE: Cell<bool> = const { Cell::new(false) };
}

/// Puts a hook in front of the process's panic hook, once. It notes the place of each panic, and keeps the text of those from
/// being printed that must not be shown; it passes on every other panic, of this thread and of all others. A hook that the
/// program sets later without calling the one before it takes this one away.
fn watch_panics() {
    static HOOK: Once = Once::new();
    // While a thread unwinds, it may not change the hook.
    if HOOK.is_completed() || std::thread::panicking() {
        return;
    }
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // The values of a thread that ends may be gone: it decodes nothing any more.
            let place = panic.location().map(ToString::to_string);
            if PLACE.try_with(|last| last.replace(place)).is_ok() {
                HAS_PLACE.set(true);
            }
            if !IS_UNSEEN.try_with(Cell::get).unwrap_or(false) {
                usual(panic);
            }
        }));
    });
}

/// Takes the place of the last panic on this thread. There is none while the thread ends.
fn take_place() -> Option<String> {
    if !HAS_PLACE.replace(false) {
        return None;
    }
    PLACE.try_with(RefCell::take).ok().flatten()
}

/// Calls a function. `Err`: it panicked, with the payload and the place in the source, if that is known.
pub(crate) fn located<T>(call: impl FnOnce() -> T) -> Result<T, (Box<dyn Any + Send>, Option<String>)> {
    watch_panics();
    // A panic that was caught elsewhere has left its place, and one that is resumed calls no hook.
    take_place();
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| (panic, take_place()))
}

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

/// How often such a part is asked for what it says once and for all.
const TRIES: u32 = 3;

/// What such a part says once and for all, such as whether it has an ability. It is asked until it has said so, and
/// never again: a part that has an ability does not lose it by a panic.
pub(crate) struct Fixed<T>(OnceLock<T>);

impl<T> Default for Fixed<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T: Clone> Fixed<T> {
    /// What the part says; `None`: it has only panicked so far.
    pub(crate) fn ask(&self, part: &str, what: &str, ask: impl Fn() -> T) -> Option<T> {
        if let Some(said) = self.0.get() {
            return Some(said.clone());
        }
        let said = (0..TRIES).find_map(|_| tried(part, what, &ask).ok())?;
        Some(self.0.get_or_init(|| said).clone())
    }
}

/// Calls a function whose panic shows its text nowhere, because the text may quote what a call hides. `Err`: it
/// panicked, with the place in the source, which is logged.
///
/// The process's panic hook prints the text before anything can catch the panic, so [another hook](watch_panics) stands in
/// front of it.
pub(crate) fn unseen<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    watch_panics();
    let before = IS_UNSEEN.replace(true);
    let called = located(call);
    IS_UNSEEN.set(before);
    called.map_err(|(panic, place)| {
        panic_message(panic); // disposes of it
        let place = place.unwrap_or_else(|| "an unknown place".to_owned());
        tracing::error!(place, "a panic whose text is not shown, because it may quote what a call hides");
        place
    })
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

    #[test]
    fn an_unseen_panic_has_a_place_and_no_text() {
        assert_eq!(unseen(|| 7), Ok(7));
        let place = unseen::<u8>(|| panic!("hunter2")).unwrap_err();
        assert!(place.contains("panic.rs:") && !place.contains("hunter2"), "{place}");
        assert!(!IS_UNSEEN.get(), "the next panic of this thread is seen");
    }

    #[test]
    fn the_place_of_a_panic_is_that_of_no_earlier_one() {
        assert_eq!(located(|| 7).ok(), Some(7));
        let (_, place) = located::<u8>(|| panic!("seen")).unwrap_err();
        assert!(place.is_some_and(|place| place.contains("panic.rs:")));
        // One that is resumed, for example after a thread has ended with it, has no place here.
        let (_, place) = located::<u8>(|| std::panic::resume_unwind(Box::new("resumed"))).unwrap_err();
        assert_eq!(place, None);
    }

    #[test]
    fn what_is_said_once_outlives_panics() {
        let (asked, said) = (Cell::new(0), Fixed::default());
        let ask = |panics| {
            let number = || {
                asked.set(asked.get() + 1);
                assert!(asked.get() > panics, "too early");
                asked.get()
            };
            said.ask("store", "number", number)
        };
        assert_eq!(ask(3), None, "three panics");
        assert_eq!(ask(5), Some(6), "two more");
        assert_eq!((ask(9), asked.get()), (Some(6), 6), "it is not asked again");
    }
}
