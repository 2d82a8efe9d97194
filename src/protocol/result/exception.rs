//! Errors as Python knows them: a class, its module, its arguments.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::task::TaskResult;

/// An exception in Celery's form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exception {
    /// The class.
    pub exc_type: String,
    /// The arguments of the class.
    pub exc_message: Vec<Value>,
    /// The module of the class; null: nowhere to be found, so Python makes a class of that name.
    pub exc_module: Option<String>,
}

impl Exception {
    /// What a record that is not a success says to Python.
    pub fn of(result: &TaskResult) -> Self {
        Self {
            exc_type: result.error_type.clone().unwrap_or_default(),
            exc_message: result.errors.iter().map(|e| e.as_str().into()).collect(),
            exc_module: result.error_module.clone(),
        }
    }
}
