//! The settings of the pages, and the links that lead to them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;

use super::access::{Access, AccessHook, Asked};
use super::branding::Branding;
use super::key::Keyring;
use super::link::StartResponse;
use super::proxy_header::ProxyHeader;
use super::texts::Languages;
use crate::soil::PartialFailure;
use crate::task::TaskId;
use crate::web::streams::Streams;

/// The least length of a secret, in bytes.
const SECRET: usize = 32;

/// Why the pages cannot be made.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SoilPagesError {
    /// The secret is so short that somebody could guess it and make links. It has this many bytes.
    #[error(
        "the secret of the links has {0} bytes and needs at least 32: take random ones, such as those of `openssl rand -hex 32`, and the same on every server and after every start"
    )]
    ShortSecret(usize),
    /// The program gave no secret.
    #[error("the links need a secret to be signed with: name at least one")]
    NoSecret,
    /// A page cannot link to this address.
    #[error(
        "`{address}` cannot be the {what}: write a path that begins with one `/`, or a URL that begins with http:// or https://, without spaces and backslashes"
    )]
    Address {
        /// What the address is for.
        what: &'static str,
        /// The address.
        address: String,
    },
    /// The program offers no language.
    #[error("the pages need a language: name at least one, such as `Language::english()`")]
    NoLanguage,
    /// The tag of a language has not the form of one.
    #[error("`{0}` is no tag of a language: write one of BCP 47, such as `de` or `pt-BR`")]
    Language(String),
}

crate::core::debug_as_display!(SoilPagesError);

/// Soil's pages: where they are, who may see them, and the links to them. A clone is cheap; handlers take it as
/// `web::Data<SoilPages>`.
#[derive(Clone)]
pub struct SoilPages {
    pub(super) keys: Keyring,
    pub(super) path: Arc<str>,
    pub(super) public: Arc<str>,
    pub(super) hook: Option<AccessHook>,
    pub(super) lifetime: Duration,
    pub(super) open: bool,
    pub(super) streams: Streams,
    pub(super) branding: Branding,
    pub(super) languages: Languages,
    /// How files are sent by the server in front of the program, if they are.
    pub(super) proxy: Option<ProxyHeader>,
}

impl SoilPages {
    /// Makes pages whose links are signed with a secret of at least 32 random bytes. The secret must be the same on
    /// every server and after each restart. With another secret, all existing links lead nowhere, unless the pages
    /// keep the old secret beside the new one ([`with_secrets`](Self::with_secrets)).
    ///
    /// # Errors
    /// The secret has fewer than 32 bytes.
    pub fn new(secret: impl AsRef<[u8]>) -> Result<Self, SoilPagesError> {
        Self::with_secrets([secret])
    }

    /// Makes pages with several secrets, so that the secret can be changed without ending any links. The first secret
    /// signs links, and links of all secrets open. Change the secret in three steps. First every server gets the new
    /// secret as its second; then as its first, with the old one behind it. The old one is removed when its last link
    /// has expired ([`links_last`](Self::links_last)), or at once if others know it.
    ///
    /// ```
    /// use celeriac::web::SoilPages;
    /// # let (new, old) = ("n".repeat(32), "o".repeat(32));
    /// let pages = SoilPages::with_secrets([new, old])?;
    /// # let _ = pages;
    /// # Ok::<_, celeriac::web::soil::SoilPagesError>(())
    /// ```
    ///
    /// # Errors
    /// A secret has fewer than 32 bytes, or there is none.
    pub fn with_secrets<S: AsRef<[u8]>>(
        secrets: impl IntoIterator<Item = S>,
    ) -> Result<Self, SoilPagesError> {
        let mut keys: Option<Keyring> = None;
        for secret in secrets {
            let secret = secret.as_ref();
            if secret.len() < SECRET {
                return Err(SoilPagesError::ShortSecret(secret.len()));
            }
            match &mut keys {
                None => keys = Some(Keyring::new(secret)),
                Some(keys) => keys.accept(secret),
            }
        }
        Ok(Self {
            keys: keys.ok_or(SoilPagesError::NoSecret)?,
            path: "/soil".into(),
            public: "/soil".into(),
            hook: None,
            lifetime: Duration::from_secs(7 * 24 * 3_600),
            open: false,
            streams: Streams::default(),
            branding: Branding::default(),
            languages: Languages::default(),
            proxy: None,
        })
    }

    /// Sets the path below which the pages are mounted. The default is `/soil`, and `/` is the root of the site.
    #[must_use]
    pub fn at(mut self, path: &str) -> Self {
        self.path = match path.trim_matches('/') {
            "" => "".into(), // a link is this and `/id`: one that begins with `//` leads to another site
            path => format!("/{path}").into(),
        };
        self.public = Arc::clone(&self.path);
        self
    }

    /// Sets the beginning of links, if it differs from the path of [`at`](Self::at): behind a proxy that adds a
    /// prefix, or for e-mails, `https://www.example.org/a/demo/soil`.
    #[must_use]
    pub fn public_url(mut self, url: &str) -> Self {
        self.public = url.trim_end_matches('/').into();
        self
    }

    /// Sets the hook that decides who may do what. Without it, everybody who has a link may use it, unless the link
    /// or the file names owners. Then nobody may, because nobody says who asks.
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

    /// Sets how long a link can be used unless it states a time itself. The default is a week. The file may be
    /// removed earlier.
    #[must_use]
    pub fn links_last(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Lets everybody in who knows an id, without a key, as HQ does. An id that the runtime makes has 74 random bits
    /// beside the time and cannot be guessed. But it appears in logs and on dashboards, and an id that a caller chose
    /// may be guessable. Use this only for pages behind a login, with an [access](Self::access) hook.
    #[must_use]
    pub fn open_to_ids(mut self) -> Self {
        self.open = true;
        self
    }

    /// Sets how many event streams of these pages may be open at a time in this process, for each link and for all
    /// links. A request beyond that gets a 503, and the page polls instead. The default is 16 for each link, and for all
    /// pages of the process together half of the descriptors that the process may have.
    #[must_use]
    pub fn event_streams(mut self, of_a_link: usize, in_all: usize) -> Self {
        self.streams = Streams::new(of_a_link, in_all);
        self
    }

    /// Has nginx send the files: the answer names them in `X-Accel-Redirect`, below `location`. This location serves
    /// the directory of downloads and is `internal`, so that nobody else reaches it:
    ///
    /// ```text
    /// location /celeriac-files/ {
    ///     internal;
    ///     alias /srv/app/data/downloads/;
    ///     add_header X-Content-Type-Options nosniff;
    ///     add_header Content-Security-Policy "default-src 'none'; sandbox";
    /// }
    /// ```
    ///
    /// nginx keeps the type, the name and the caching of the answer, and makes ranges and validators itself; all other
    /// headers it takes from its location. A file that is not on a disk of this machine is sent by the program.
    #[must_use]
    pub fn x_accel_redirect(mut self, location: &str) -> Self {
        self.proxy = Some(ProxyHeader::x_accel_redirect(location));
        self
    }

    /// Has Apache (`mod_xsendfile`) or lighttpd send the files: the answer names them in `X-Sendfile`. `directory` is the
    /// directory of downloads as that server sees it. A file that is not on a disk of this machine is sent by the
    /// program.
    #[must_use]
    pub fn x_sendfile(mut self, directory: &str) -> Self {
        self.proxy = Some(ProxyHeader::x_sendfile(directory));
        self
    }

    /// Makes a link to a task's page, as the answer to the user who started it:
    /// `{download_id, download_url, message}`.
    pub fn start(&self, id: &TaskId) -> StartResponse {
        StartResponse::new(self.clone(), id.clone(), None)
    }

    /// Makes the same for several tasks as one, such as an export in parts. `id` is the id of a saved group
    /// ([`CanvasResult::save`](crate::task::canvas::CanvasResult::save),
    /// [`Soil::make_group`](crate::soil::Soil::make_group)).
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
