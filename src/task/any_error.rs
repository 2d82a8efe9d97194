//! Errors that hide their type, as what a task fails with: `Box<dyn Error>` and `anyhow::Error`.
//!
//! Neither implements [`std::error::Error`], so `?` cannot make a [`TaskError`] of them: the compiler has to assume that they
//! may implement it one day, and then two conversions would fit. The macros know the type that a task fails with, and
//! choose by method resolution: a method of the type itself comes before a method of a trait.

use std::any::type_name;
use std::error::Error;

use super::TaskError;

/// The error of a task, on its way to a [`TaskError`]. The macros call `into_error` on it.
#[doc(hidden)]
pub struct ErrorOf<E>(pub E);

/// `into_error` for all errors that have none of their own. They stay what they are, and [`IntoTaskError`] converts
/// them or has the compiler say why it cannot.
///
/// [`IntoTaskError`]: super::IntoTaskError
#[doc(hidden)]
pub trait PlainError {
    /// The type of the error.
    type Error;
    /// The error as it is.
    fn into_error(self) -> Self::Error;
}

impl<E> PlainError for ErrorOf<E> {
    type Error = E;

    fn into_error(self) -> E {
        self.0
    }
}

impl ErrorOf<Box<dyn Error + Send + Sync>> {
    /// The error with its causes.
    pub fn into_error(self) -> TaskError {
        TaskError::from_boxed(self.0)
    }
}

impl ErrorOf<Box<dyn Error + Send>> {
    /// The error with its causes.
    pub fn into_error(self) -> TaskError {
        TaskError::of_error(&*self.0, type_name::<dyn Error>())
    }
}

impl ErrorOf<Box<dyn Error>> {
    /// The error with its causes.
    pub fn into_error(self) -> TaskError {
        TaskError::of_error(&*self.0, type_name::<dyn Error>())
    }
}

#[cfg(feature = "anyhow")]
impl ErrorOf<anyhow::Error> {
    /// The error with its causes, or the ending that it was made of.
    pub fn into_error(self) -> TaskError {
        TaskError::from_anyhow(self.0)
    }
}

impl TaskError {
    /// A failure with the messages of a boxed error and its causes, as `?` makes one of an error whose type is known. A
    /// task that returns `Result<T, Box<dyn Error + Send + Sync>>` needs no call of it; a body that returns a
    /// [`TaskError`] writes `.map_err(TaskError::from_boxed)?`.
    pub fn from_boxed(error: Box<dyn Error + Send + Sync>) -> Self {
        Self::of_error(&*error, type_name::<dyn Error>())
    }

    /// A failure with the message of each context and cause of the error. A task that returns `anyhow::Result<T>` needs
    /// no call of it; a body that returns a [`TaskError`] writes `.map_err(TaskError::from_anyhow)?`.
    ///
    /// An ending that went into the error comes out of it, however many contexts it was given since:
    /// `anyhow::bail!(TaskError::reject("..."))` rejects the task.
    #[cfg(feature = "anyhow")]
    pub fn from_anyhow(error: anyhow::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(ending) => ending,
            Err(error) => Self::of_error(&*error, type_name::<anyhow::Error>()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Ending, Interrupt, IntoTaskError};
    use super::*;

    type Boxed = Box<dyn Error + Send + Sync>;

    #[derive(Debug, thiserror::Error)]
    #[error("the form is not readable")]
    struct Unreadable(#[source] std::num::ParseIntError);

    fn unreadable() -> Unreadable {
        Unreadable("x".parse::<u8>().unwrap_err())
    }

    const CHAIN: [&str; 2] = ["the form is not readable", "invalid digit found in string"];

    fn failure(error: TaskError) -> (Vec<String>, String) {
        match error.into_ending() {
            Ending::Failure { messages, name, transient: None } => (messages, name.name),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_boxed_error_keeps_its_causes_whatever_its_box_says() {
        let boxed: Boxed = unreadable().into();
        let only_send: Box<dyn Error + Send> = Box::new(unreadable());
        let plain: Box<dyn Error> = unreadable().into();
        for error in
            [ErrorOf(boxed).into_error(), ErrorOf(only_send).into_error(), ErrorOf(plain).into_error()]
        {
            let (messages, name) = failure(error);
            assert_eq!(messages, CHAIN);
            assert!(name.ends_with("Error"), "{name}");
        }
        let (messages, _) = failure(TaskError::from_boxed("only text".into()));
        assert_eq!(messages, ["only text"]);
    }

    #[test]
    fn an_interrupt_comes_out_of_its_box() {
        let boxed: Boxed = Interrupt::Shutdown.into();
        let ending = ErrorOf(boxed).into_error().into_ending();
        assert!(matches!(ending, Ending::Interrupted(Interrupt::Shutdown)));
    }

    #[test]
    fn an_error_of_a_known_type_goes_the_usual_way() {
        let (messages, name) = failure(ErrorOf(unreadable()).into_error().into_task_error());
        assert_eq!(messages, CHAIN);
        assert!(name.ends_with("Unreadable"), "{name}");
        let ending = ErrorOf(TaskError::ignore()).into_error().into_task_error().into_ending();
        assert!(matches!(ending, Ending::Ignore));
    }

    #[cfg(feature = "anyhow")]
    #[test]
    fn an_error_of_anyhow_keeps_its_contexts_and_gives_endings_back() {
        use anyhow::Context;

        let error = Err::<(), _>(unreadable()).context("import 42").unwrap_err();
        let (messages, name) = failure(ErrorOf(error).into_error());
        assert_eq!((messages[0].as_str(), &messages[1..]), ("import 42", &CHAIN.map(str::to_owned)[..]));
        assert_eq!(name, "anyhow::Error");
        let interrupted = Err::<(), _>(Interrupt::Revoked).context("while it read").unwrap_err();
        let ending = TaskError::from_anyhow(interrupted).into_ending();
        assert!(matches!(ending, Ending::Interrupted(Interrupt::Revoked)));
        let rejected = anyhow::anyhow!(TaskError::reject("foreign")).context("import 42");
        assert!(matches!(TaskError::from_anyhow(rejected).into_ending(), Ending::Reject { .. }));
        let (messages, _) = failure(TaskError::from_anyhow(anyhow::anyhow!("row {} is bad", 7)));
        assert_eq!(messages, ["row 7 is bad"]);
    }
}
