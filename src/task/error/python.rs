//! The errors of tasks as Python programs catch them: by a class, with its arguments.

use super::TaskError;
use crate::task::Json;

impl TaskError {
    /// States the Python class of a failure. A Python program that waits for the result gets an exception of this
    /// class, with the messages as its arguments: `with_python_type("builtins", "ValueError")` can be caught as
    /// `ValueError`. Celery makes up a class of that name if it is not loaded there. By default the class is made up
    /// under the name of the Rust type. The call has no effect on endings that are no errors.
    ///
    /// ```
    /// # use celeriac::TaskError;
    /// # fn body(age: i32) -> Result<(), TaskError> {
    /// if age < 0 {
    ///     return Err(TaskError::permanent("age is negative").with_python_type("builtins", "ValueError"));
    /// }
    /// # Ok(()) }
    /// # assert!(body(-1).is_err());
    /// ```
    #[must_use]
    pub fn with_python_type(mut self, module: impl Into<String>, class: impl Into<String>) -> Self {
        if let Some(name) = self.0.error_name_mut() {
            (name.name, name.module) = (class.into(), Some(module.into()));
        }
        self
    }

    /// States the arguments of the Python class: a Python program that waits for the result gets them with their types,
    /// as `ValueError("bad", 42)` has a text and a number. By default they are the messages of the error. `args` is a
    /// list; any other value is the only argument. The messages stay what the log and Rust programs show. Arguments of
    /// more than 1 MiB are left out. The call has no effect on endings that are no errors.
    ///
    /// ```
    /// # use celeriac::TaskError;
    /// # use serde_json::json;
    /// # fn body(rows: u32) -> Result<(), TaskError> {
    /// if rows > 1000 {
    ///     let error = TaskError::permanent(format!("{rows} rows are too many"));
    ///     return Err(error.with_python_type("shop.errors", "TooMany").with_python_args(json!([rows, 1000])));
    /// }
    /// # Ok(()) }
    /// # assert!(body(1001).is_err());
    /// ```
    #[must_use]
    pub fn with_python_args(mut self, args: impl Into<Json>) -> Self {
        if let Some(name) = self.0.error_name_mut() {
            let args = args.into();
            name.arguments = Some(if args.is_array() { args } else { Json::list(&[args]) });
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::task::Ending;

    #[test]
    fn arguments_are_a_list_and_only_of_errors() {
        let arguments = |error: TaskError| match error.into_ending() {
            Ending::Failure { name, .. } => name.arguments,
            _ => None,
        };
        let error = || TaskError::failure(["bad"]);
        assert_eq!(arguments(error()), None);
        for (given, list) in [(json!(["bad", 42]), json!(["bad", 42])), (json!(7), json!([7]))] {
            assert_eq!(arguments(error().with_python_args(given)), Some(Json::from(list)));
        }
        assert_eq!(arguments(TaskError::ignore().with_python_args(json!([1]))), None);
    }
}
