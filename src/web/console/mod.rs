//! The console: a page for those who look after the queues, in the program itself.
//!
//! | page | shows |
//! |---|---|
//! | `/console` | all queues: the promise, the share of it that is used, waits, runs, what needs a person; pause and resume |
//! | `queue?name=` | one queue, its levers, and its tasks by what they wait for |
//! | `tasks` | tasks that are not over, found by name, argument, error text, queue |
//! | `task?id=` | one task: state, attempts with errors, arguments, relatives; revoke, run again, edit, delete |
//! | `failed` | failed tasks and dead letters, found by what they say; run again and delete, one or all that match |
//! | `lanes`, `lane?scope=&key=` | serial keys: who is in, how many wait, what blocks; the levers |
//! | `periodic`, `entry?name=` | periodic entries in words, with their next twenty times; run now, pause |
//! | `tenants`, `tenant?name=` | who uses most: waits, runs, share, weight; pause one for an hour, change its weight |
//! | `brakes` | rules that hold tasks back: set one after a dry run, take it away |
//! | `limits` | what each limit has used, by key, and how its breaker stands |
//! | `enqueue` | a form for a call of each task |
//! | `history` | seven days as charts, with deploys and acts |
//! | `processes` | what runs here, stuck bodies first, and the programs on the broker |
//! | `downloads` | progress and downloads as their users see them |
//! | `live` | charts of the last minutes |
//! | `bulk` | acts on all tasks that match: how far they are; move, revoke, purge, run again, cancel, undo |
//! | `acts` | who did what |
//!
//! Each page is JSON with `?format=json`. The console is [closed](Console::authorize) until the program says who may do what.
//!
//! ```no_run
//! use actix_web::{App, HttpServer};
//! use celeriac::Celeriac;
//! use celeriac::web::{Console, Permission};
//!
//! # fn user_of(request: &actix_web::HttpRequest) -> Option<String> { None }
//! #[actix_web::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let celeriac = Celeriac::builder().directory("data").start().await?;
//!     let console = Console::new(&celeriac).authorize(|request, check| {
//!         let user = user_of(request)?; // of the program's own session
//!         let may = user == "amina" || check.permission == Permission::See;
//!         may.then_some(user)
//!     });
//!     let server = HttpServer::new(move || App::new().service(console.clone()));
//!     let server = server.disable_signals().bind(("127.0.0.1", 8080))?.run();
//!     celeriac::web::run(server, &celeriac).await?;
//!     Ok(())
//! }
//! ```

mod act_log;
mod acts;
mod address;
mod arguments;
mod assets;
mod board;
mod brake_form;
mod bulk_acts;
mod call_form;
mod charts;
mod counts;
mod fields;
mod frame;
mod outcomes;
mod pages;
mod parts;
mod problem;
mod rights;
mod routes;
mod samples;
mod sealed_places;
#[cfg(feature = "cli")]
mod server;
mod shared_looks;
mod stream;
mod task_facts;
mod task_rows;
mod tenant_book;
mod token;
mod visit;
mod words;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::dev::{AppService, HttpServiceFactory};
use serde_json::Value;

pub use rights::{Authorization, Permission, PermissionCheck};
#[cfg(feature = "cli")]
pub(crate) use server::ConsoleServer;

use super::Theme;
use super::streams::Streams;
use crate::Celeriac;
use crate::task::Message;
use act_log::ActLog;
use counts::Counts;
use rights::AuthorizationHook;
use samples::Samples;
use sealed_places::SealedPlaces;
use shared_looks::SharedLooks;

/// How many event streams one person may have open, and how many are open in all.
const STREAMS: (usize, usize) = (32, 256);

/// Says of a message whether its arguments are hidden.
type HideHook = Arc<dyn Fn(&Message) -> bool + Send + Sync>;
/// Writes the arguments of a task for people.
type FormatHook = Arc<dyn Fn(&str, &Value) -> Option<String> + Send + Sync>;

/// The console of a program. A clone is cheap and is the same console; make it once, outside of the function that makes the
/// `App`, so that all server threads share one look at the queues: `App::new().service(console.clone())`.
///
/// It is closed until [`authorize`](Self::authorize) says who may do what.
#[derive(Clone)]
pub struct Console {
    celeriac: Celeriac,
    /// The path below which it is mounted.
    path: Arc<str>,
    /// What its links begin with.
    public: Arc<str>,
    title: Option<Arc<str>>,
    environment: Option<Arc<str>>,
    /// The rules of a theme, which come behind the sheet.
    colours: Arc<str>,
    hook: Option<AuthorizationHook>,
    hides: Option<HideHook>,
    formats: Option<FormatHook>,
    streams: Streams,
    shared: Arc<ConsoleState>,
}

/// What all clones of a console share.
#[derive(Default)]
struct ConsoleState {
    looks: SharedLooks,
    counts: Counts,
    samples: Samples,
    places: SealedPlaces,
    acts: ActLog,
}

impl Console {
    /// The console of this runtime, at `/console`. It is closed: every page answers 403 and says how to open it.
    pub fn new(celeriac: &Celeriac) -> Self {
        let (one, all) = STREAMS;
        Self {
            celeriac: celeriac.clone(),
            path: "/console".into(),
            public: "/console".into(),
            title: None,
            environment: None,
            colours: "".into(),
            hook: None,
            hides: None,
            formats: None,
            streams: Streams::new(one, all),
            shared: Arc::default(),
        }
    }

    /// Says who may do what: the function answers with a name, or with `true` or `false`. The name is logged with each act and
    /// shown on the page of acts. The function is asked for [`Permission::See`] of no queue first, which opens the console,
    /// and then for each permission and each queue that a page shows.
    ///
    /// ```
    /// use celeriac::web::{Console, Permission};
    /// # fn user_of(request: &actix_web::HttpRequest) -> Option<String> { None }
    /// # fn demo(celeriac: &celeriac::Celeriac) -> Console {
    /// Console::new(celeriac).authorize(|request, check| {
    ///     let user = user_of(request)?; // `None` denies it
    ///     let is_own = check.queue.as_deref().is_none_or(|queue| queue.starts_with("email"));
    ///     (is_own && check.permission != Permission::Delete).then_some(user)
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn authorize<F, A>(mut self, hook: F) -> Self
    where
        F: Fn(&HttpRequest, &PermissionCheck) -> A + Send + Sync + 'static,
        A: Into<Authorization>,
    {
        self.hook = Some(rights::at_once(hook));
        self
    }

    /// Sets the hook as [`authorize`](Self::authorize) does, for a function that has to ask somebody else first, such as a
    /// database. All that a page needs to know is asked at once, so the function should remember for a moment who the user is.
    #[must_use]
    pub fn authorize_async<F, Fut, A>(mut self, hook: F) -> Self
    where
        F: Fn(HttpRequest, PermissionCheck) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = A> + 'static,
        A: Into<Authorization>,
    {
        self.hook = Some(rights::later(hook));
        self
    }

    /// Hides the arguments of tasks for which the function says so. They are neither shown nor sent nor edited, and a search
    /// for arguments does not find the tasks. The arguments that their caller hides ([`Message::hides_arguments`]) are hidden
    /// without it. The texts of errors, log lines and the keys of lanes and limits are shown, so none of them should have what
    /// is hidden. The function is asked of each task that is searched through.
    ///
    /// ```
    /// # use celeriac::web::Console;
    /// # fn demo(console: Console) -> Console {
    /// console.hide_arguments(|message| message.task.starts_with("patients."))
    /// # }
    /// ```
    #[must_use]
    pub fn hide_arguments(mut self, hides: impl Fn(&Message) -> bool + Send + Sync + 'static) -> Self {
        self.hides = Some(Arc::new(hides));
        self
    }

    /// Writes the arguments of tasks for people, in the lists and on the page of a task.
    ///
    /// # Arguments
    /// `formats` gets the name of the task and an object that has its arguments by the names of their parameters; one whose name
    /// is not known here has its position from 0, such as `"0"`. It answers with the text that is shown, or with `None` for
    /// arguments that are shown as they were sent. A list shows the beginning of the text on one line, and the page of the task
    /// its first 4,000 bytes.
    ///
    /// The text is escaped. Data in JSON, searches, the form by which a failed task is edited, and the file with the exact arguments
    /// have them as they were sent; so what nobody may see is to be [hidden](Self::hide_arguments). The function is not asked for
    /// arguments that are hidden, of more than 64 KiB, or no call at all.
    ///
    /// ```
    /// # use celeriac::web::Console;
    /// # fn demo(console: Console) -> Console {
    /// console.format_arguments(|task, arguments| match task {
    ///     "shop.mail" => Some(format!("to {}", arguments["to"].as_str()?)),
    ///     _ => None,
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn format_arguments(
        mut self,
        formats: impl Fn(&str, &Value) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.formats = Some(Arc::new(formats));
        self
    }

    /// Sets the path below which the console is mounted. The default is `/console`.
    #[must_use]
    pub fn at(mut self, path: &str) -> Self {
        let path = path.trim_matches('/');
        self.path = if path.is_empty() { "".into() } else { format!("/{path}").into() };
        self.public = Arc::clone(&self.path);
        self
    }

    /// Sets the beginning of the console's links, if it differs from the path of [`at`](Self::at): behind a proxy that adds a
    /// prefix, or that changes `Host` without saying so, `https://www.example.org/admin/console`.
    #[must_use]
    pub fn public_url(mut self, url: &str) -> Self {
        self.public = url.trim_end_matches('/').into();
        self
    }

    /// Sets the name of the application, in the head of each page.
    #[must_use]
    pub fn title(mut self, title: &str) -> Self {
        self.title = Some(title.into());
        self
    }

    /// Sets the name of the environment, in the head of each page. One that contains `prod` is red.
    #[must_use]
    pub fn environment(mut self, name: &str) -> Self {
        self.environment = Some(name.into());
        self
    }

    /// Sets colours in the place of the pages' own.
    #[must_use]
    pub fn theme(mut self, theme: &Theme) -> Self {
        self.colours = theme.style_sheet().into();
        self
    }

    /// Sets how many event streams may be open at a time in this process, for each person and for all. A page beyond that
    /// gets a 503, and asks from time to time instead. The default is 32 for each person, and 256 in all.
    #[must_use]
    pub fn event_streams(mut self, of_a_person: usize, in_all: usize) -> Self {
        self.streams = Streams::new(of_a_person, in_all);
        self
    }
}

impl HttpServiceFactory for Console {
    fn register(self, config: &mut AppService) {
        let server = config.config();
        let url: Arc<str> = url_of(&self.public, server.secure(), server.local_addr()).into();
        self.celeriac.note_console(&url);
        routes::scope(&self, url).register(config);
    }
}

/// Where a browser finds the console whose links begin with `public`, as far as the console knows: a scope around it, and a proxy
/// before it, may change that.
fn url_of(public: &str, is_secure: bool, address: SocketAddr) -> String {
    if public.contains("://") {
        return public.to_owned();
    }
    // A server that listens on all addresses is found on this machine as well.
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let scheme = if is_secure { "https" } else { "http" };
    let path = if public.is_empty() { "/" } else { public };
    format!("{scheme}://{}{path}", SocketAddr::new(ip, address.port()))
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console")
            .field("path", &self.path)
            .field("public", &self.public)
            .field("is_closed", &self.hook.is_none())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_says_where_a_browser_finds_it() {
        let url = |public: &str, is_secure, address: &str| {
            url_of(public, is_secure, address.parse().expect("an address"))
        };
        for (public, is_secure, address, expected) in [
            ("/console", false, "10.0.0.7:8080", "http://10.0.0.7:8080/console"),
            ("/admin/tasks", true, "0.0.0.0:443", "https://127.0.0.1:443/admin/tasks"),
            ("", false, "[::]:80", "http://[::1]:80/"),
            ("https://www.example.org/console", false, "0.0.0.0:80", "https://www.example.org/console"),
        ] {
            assert_eq!(url(public, is_secure, address), expected);
        }
    }
}
