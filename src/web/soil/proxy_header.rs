//! The header that has a server in front of the program send the bytes of a file: `X-Accel-Redirect` of nginx, or
//! `X-Sendfile` of Apache and lighttpd. The program decides who may have the file, and is free for the next request while
//! the bytes are on their way.

use actix_web::http::header::{HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::soil::{DownloadError, Soil};
use crate::task::TaskId;

/// What is escaped in a path: these servers decode it.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A header with the path of a file, as the server in front of the program sees it.
#[derive(Clone)]
pub(super) struct ProxyHeader {
    name: HeaderName,
    /// What comes before a file's own name; without a `/` at its end.
    directory: String,
}

impl ProxyHeader {
    /// nginx sends what its location `location` serves.
    pub(super) fn x_accel_redirect(location: &str) -> Self {
        let location = location.trim_matches('/');
        let directory = if location.is_empty() { String::new() } else { format!("/{location}") };
        Self { name: HeaderName::from_static("x-accel-redirect"), directory }
    }

    /// The server sends a file of its disk.
    pub(super) fn x_sendfile(directory: &str) -> Self {
        let directory = directory.trim_end_matches('/').to_owned();
        Self { name: HeaderName::from_static("x-sendfile"), directory }
    }

    /// The header for the file of a task. `None`: its bytes are not in a file of this machine, so the program sends them.
    pub(super) async fn of(
        &self,
        soil: &Soil,
        id: &TaskId,
    ) -> Result<Option<(HeaderName, HeaderValue)>, DownloadError> {
        let Some(key) = soil.file_on_disk(id).await? else { return Ok(None) };
        let path = format!("{}/{key}", self.directory);
        let path = HeaderValue::try_from(utf8_percent_encode(&path, PATH).to_string());
        Ok(path.ok().map(|path| (self.name.clone(), path)))
    }
}
