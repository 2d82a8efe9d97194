//! A failure to read or write, with the error that it came from.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// The failure of something that Celeriac asked of a disk, a network or another program.
///
/// Its text says all that a user needs: what was to be done, what happened (the texts of the errors below it), and what
/// to do. [`source`](Error::source) is for programs, which look there for the error of the library below: an
/// [`std::io::Error`], or an error of the client of RabbitMQ or Redis. Two failures with the same text are equal.
#[derive(Clone)]
pub struct IoFailure {
    text: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl IoFailure {
    /// A failure of which no error of a library is known.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), source: None }
    }

    /// A failure that came from `source`. `text` is the whole text; it repeats what of the source's text helps.
    ///
    /// ```
    /// use std::error::Error;
    /// use celeriac::core::IoFailure;
    /// let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    /// let failure = IoFailure::caused_by(format!("/data cannot be written: {denied}"), denied);
    /// assert_eq!(failure.to_string(), "/data cannot be written: permission denied");
    /// let source = failure.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    /// assert_eq!(source.map(std::io::Error::kind), Some(std::io::ErrorKind::PermissionDenied));
    /// ```
    pub fn caused_by(text: impl Into<String>, source: impl Error + Send + Sync + 'static) -> Self {
        Self { text: text.into(), source: Some(Arc::new(source)) }
    }
}

/// As its text. The error below it stays in the process that has it.
impl serde::Serialize for IoFailure {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> serde::Deserialize<'de> for IoFailure {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl fmt::Display for IoFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

super::debug_as_display!(IoFailure);

impl Error for IoFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

impl PartialEq for IoFailure {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for IoFailure {}

impl From<String> for IoFailure {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for IoFailure {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}
