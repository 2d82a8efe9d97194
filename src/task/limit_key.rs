//! The keys of the limits that a task states: of its rate, and of the number of its runs.
//!
//! A key is made of the arguments when the task is about to start, not when it is enqueued. So calls of other programs have
//! their keys too, and a key that is stated differently from now on holds for all that waits.

use super::serial::cut;
use super::{Arguments, ArgumentsError, Task};

/// Makes the key of a limit from the encoded arguments of a call.
pub type LimitKeyFn = fn(&Arguments) -> Result<String, ArgumentsError>;

/// Makes the key of the task's rate.
#[doc(hidden)]
pub fn rate_key_of<T: Task>(arguments: &Arguments) -> Result<String, ArgumentsError> {
    Ok(shortened_key(T::rate_key(&arguments.decode_call::<T>()?).unwrap_or_default()))
}

/// Makes the key by which the task's runs are counted.
#[doc(hidden)]
pub fn limit_key_of<T: Task>(arguments: &Arguments) -> Result<String, ArgumentsError> {
    Ok(shortened_key(T::limit_key(&arguments.decode_call::<T>()?).unwrap_or_default()))
}

/// A key that is not too long to be kept: a longer text is cut, and gets a checksum that keeps it apart from others.
pub(crate) fn shortened_key(key: String) -> String {
    cut(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::TaskOptions;

    struct Sms;

    impl Task for Sms {
        type Args = (String, u64);
        type Output = ();
        const NAME: &'static str = "sms";
        const PARAMS: &'static [&'static str] = &["gateway", "id"];

        fn options() -> TaskOptions {
            TaskOptions::default()
        }

        fn limit_key((gateway, _): &Self::Args) -> Option<String> {
            Some(gateway.clone())
        }
    }

    #[test]
    fn keys_are_made_of_the_arguments_however_they_come() {
        let call = |args: &str, kwargs: &str| Arguments { args: args.to_owned(), kwargs: kwargs.to_owned() };
        assert_eq!(limit_key_of::<Sms>(&call("[\"a\",1]", "")).as_deref(), Ok("a"));
        assert_eq!(limit_key_of::<Sms>(&call("[]", "{\"id\":1,\"gateway\":\"b\"}")).as_deref(), Ok("b"));
        assert_eq!(rate_key_of::<Sms>(&call("[\"a\",1]", "")).as_deref(), Ok(""), "it states none");
        assert!(limit_key_of::<Sms>(&call("[7]", "")).is_err());
        let long = limit_key_of::<Sms>(&call(&format!("[\"{}\",1]", "x".repeat(10_000)), "")).unwrap();
        assert!(long.len() <= 480);
    }
}
