//! Who may see, download and cancel which task.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use actix_web::HttpRequest;

use crate::task::TaskId;

/// The action that a request wants to do with a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// The request wants to see the progress.
    Look,
    /// The request wants to download the file.
    Download,
    /// The request wants to cancel the task.
    Cancel,
}

/// The question to the application's access hook: may this request do that?
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Asked {
    /// The id in the path, of a task or of a group.
    pub id: TaskId,
    /// The action that the request wants.
    pub action: Action,
    /// The owners in the application's words: those of the file if it has any, else those of the link.
    pub owners: Vec<String>,
    /// Whether the request has a valid key. It always has one, unless the pages are open to ids.
    pub signed: bool,
}

/// The answer of the access hook.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// The request may do that.
    Allowed,
    /// The request may not do that. It gets the status 403.
    Denied,
    /// The user has to log in first. A request for a page is redirected to this address, and any other request gets
    /// the status 401.
    LogIn(String),
}

pub(super) type AccessAnswer = Pin<Box<dyn Future<Output = Access>>>;
pub(super) type AccessHook = Arc<dyn Fn(HttpRequest, Asked) -> AccessAnswer + Send + Sync>;

/// The answer without a hook. A file or link with owners is denied to everybody, because nobody knows who asks.
pub(super) fn nobodys(asked: &Asked) -> Access {
    if asked.owners.is_empty() {
        return Access::Allowed;
    }
    tracing::error!(
        id = %asked.id,
        owners = ?asked.owners,
        "a download has owners, and nobody says who it is that asks: give the pages an access hook (`SoilPages::access`)"
    );
    Access::Denied
}
