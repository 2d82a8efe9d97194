//! The pages' settings, and the links that lead to them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;

use super::access::{Access, Asked, Hook};
use super::key::Keyring;
use super::link::StartResponse;
use crate::soil::PartialFailure;
use crate::task::TaskId;

/// A secret has at least so many bytes.
const SECRET: usize = 32;

/// Why there are no pages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SoilPagesError {
    /// Whoever guesses it can make links.
    #[error(
        "the secret of the links has {0} bytes and needs at least 32: take random ones, such as those of `openssl rand -hex 32`, and the same on every server and after every start"
    )]
    ShortSecret(usize),
}

/// Soil's pages: where they are, who may see them, and links to them. Cheap to clone; handlers take it as
/// `web::Data<SoilPages>`.
#[derive(Clone)]
pub struct SoilPages {
    pub(super) keys: Keyring,
    pub(super) path: Arc<str>,
    pub(super) public: Arc<str>,
    pub(super) hook: Option<Hook>,
    pub(super) lifetime: Duration,
    pub(super) open: bool,
}

impl SoilPages {
    /// Pages whose links are signed with a secret of at least 32 random bytes. It has to be the same on every server, and
    /// after each restart; with another one, all links that are out there lead nowhere.
    ///
    /// # Errors
    /// The secret is too short.
    pub fn new(secret: impl AsRef<[u8]>) -> Result<Self, SoilPagesError> {
        let secret = secret.as_ref();
        if secret.len() < SECRET {
            return Err(SoilPagesError::ShortSecret(secret.len()));
        }
        Ok(Self {
            keys: Keyring::new(secret),
            path: "/soil".into(),
            public: "/soil".into(),
            hook: None,
            lifetime: Duration::from_secs(7 * 24 * 3_600),
            open: false,
        })
    }

    /// The path below which they are mounted. Default `/soil`.
    #[must_use]
    pub fn at(mut self, path: &str) -> Self {
        self.path = format!("/{}", path.trim_matches('/')).into();
        self.public = Arc::clone(&self.path);
        self
    }

    /// What links begin with, if that is something else than the path of [`at`](Self::at): behind a proxy that adds a prefix,
    /// or for e-mails, `https://www.example.org/a/demo/soil`.
    #[must_use]
    pub fn public_url(mut self, url: &str) -> Self {
        self.public = url.trim_end_matches('/').into();
        self
    }

    /// Who may do what. Without it, whoever has a link may use it, unless the link or the file names owners: then nobody may,
    /// because nobody says who it is that asks.
    ///
    /// ```
    /// use celeriac::web::SoilPages;
    /// use celeriac::web::soil::{Access, Asked};
    /// # fn user_of(request: &actix_web::HttpRequest) -> Option<String> { None }
    /// # fn demo(pages: SoilPages) -> SoilPages {
    /// pages.access(|request, asked: Asked| {
    ///     let user = user_of(&request); // of the application's session
    ///     async move {
    ///         match user {
    ///             None => Access::LogIn("/login".to_owned()),
    ///             Some(user) if asked.owners.is_empty() || asked.owners.contains(&user) => Access::Allowed,
    ///             Some(_) => Access::Denied,
    ///         }
    ///     }
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn access<F, A>(mut self, hook: F) -> Self
    where
        F: Fn(HttpRequest, Asked) -> A + Send + Sync + 'static,
        A: Future<Output = Access> + 'static,
    {
        self.hook = Some(Arc::new(move |request, asked| Box::pin(hook(request, asked))));
        self
    }

    /// How long a link can be used, if it does not say otherwise. Default a week; the file itself may go earlier.
    #[must_use]
    pub fn links_last(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Lets everybody in who knows an id, as HQ does, without a key. An id that the runtime gives has 74 random bits beside the
    /// time, and is not to be guessed; but it stands in logs and on dashboards, and one that a caller chose may be guessed.
    /// Only for pages behind a login, with an [access](Self::access) hook.
    #[must_use]
    pub fn open_to_ids(mut self) -> Self {
        self.open = true;
        self
    }

    /// A link to a task's page, as the answer to who started it: `{download_id, download_url, message}`.
    pub fn start(&self, id: &TaskId) -> StartResponse {
        StartResponse::new(self.clone(), id.clone(), None)
    }

    /// The same for several tasks as one, such as an export in parts: by the id of a group that was saved
    /// ([`CanvasResult::save`](crate::task::canvas::CanvasResult::save), [`Soil::make_group`](crate::soil::Soil::make_group)).
    pub fn start_group(&self, id: &TaskId) -> StartResponse {
        StartResponse::new(self.clone(), id.clone(), Some(PartialFailure::default()))
    }
}

impl std::fmt::Debug for SoilPages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SoilPages")
            .field("path", &self.path)
            .field("public", &self.public)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}
