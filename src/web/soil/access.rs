//! Who may see, have and cancel what.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use actix_web::HttpRequest;

use crate::task::TaskId;

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// See how far it is.
    Look,
    /// Have the file.
    Download,
    /// End it.
    Cancel,
}

/// What the application is asked: may this request do that?
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Asked {
    /// The id in the path: a task's, or a group's.
    pub id: TaskId,
    /// What is wanted.
    pub action: Action,
    /// Whose it is, in the application's words: for a file its owners, if it has any; else those of the link.
    pub owners: Vec<String>,
    /// Whether the request has a valid key. It always has, unless the pages are open to ids.
    pub signed: bool,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Yes.
    Allowed,
    /// No: 403.
    Denied,
    /// Not without knowing who it is: a page leads there, everything else is a 401.
    LogIn(String),
}

pub(super) type Answer = Pin<Box<dyn Future<Output = Access>>>;
pub(super) type Hook = Arc<dyn Fn(HttpRequest, Asked) -> Answer + Send + Sync>;

/// What holds without a hook: what has owners is for nobody, because nobody says who it is that asks.
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
