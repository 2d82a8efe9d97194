//! A console by itself, as `celeriac console` serves it: for whoever has the address that was printed.
//!
//! Invariants:
//! - The token in that address opens the console once, for the browser that shows it first. What the browser has from then on
//!   is another token, in a cookie that no script can read.
//! - Without that cookie every page and every act is refused, also on this machine, which others may use as well.
//! - A browser sends a cookie to every port of a machine. So its name has the port, and two consoles do not take each other's place
//!   in a browser; and it is sent below the path of the console only, so that the pages of other programs do not get it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use actix_web::http::header;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use parking_lot::Mutex;

use super::token::{in_cookie, is_same, random};
use super::{Console, Permission};
use crate::Celeriac;
use crate::web::RunError;

/// What the name of the cookie begins with of the browser that has shown the token. The port follows.
const COOKIE: &str = "celeriac_session_";
/// The path of the console.
const CONSOLE: &str = "/console";
/// The path that takes the token.
const DOOR: &str = "/open";

/// A console by itself, before it answers.
pub(crate) struct ConsoleServer {
    listener: TcpListener,
    address: SocketAddr,
    door: Arc<Door>,
}

/// Who may come in.
struct Door {
    /// The token of the address that was printed, until somebody shows it.
    token: Mutex<Option<String>>,
    /// The token of the browser that has shown the other one.
    session: String,
    /// The name of the cookie in which that browser has it.
    cookie: String,
}

impl Door {
    fn new(address: SocketAddr) -> Self {
        let cookie = format!("{COOKIE}{}", address.port());
        Self { token: Mutex::new(Some(random())), session: random(), cookie }
    }
}

impl ConsoleServer {
    /// Takes the address. Nobody is answered before [`run`](Self::run).
    ///
    /// # Errors
    /// Another program has the address, or it is none of this machine.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, door: Arc::new(Door::new(address)) })
    }

    /// The address that opens the console, once.
    pub(crate) fn url(&self) -> String {
        let token = self.door.token.lock().clone().unwrap_or_default();
        format!("http://{}{DOOR}?token={token}", self.address)
    }

    /// Starts a runtime by `start`, and answers until this program is told to end. `said` hears the address when the console
    /// answers. With `may_act`, the acts of the console are open too.
    ///
    /// # Errors
    /// The runtime does not start, the server fails, or it is not known whether what was done last is safe.
    pub(crate) fn run<E: From<RunError> + From<io::Error>>(
        self,
        may_act: bool,
        start: impl Future<Output = Result<Celeriac, E>>,
        said: impl FnOnce(&str) -> Result<(), E>,
    ) -> Result<(), E> {
        actix_web::rt::System::new().block_on(async move {
            let celeriac = start.await?;
            let url = self.url();
            let Self { listener, door, .. } = self;
            let console = console(&celeriac, &door, may_act);
            let app = move || {
                let app = App::new().app_data(web::Data::from(Arc::clone(&door)));
                app.route(DOOR, web::get().to(open)).route("/", web::get().to(go_in)).service(console.clone())
            };
            let server = HttpServer::new(app).workers(1).disable_signals().listen(listener);
            let server = match server {
                Ok(server) => server.run(),
                Err(error) => {
                    let _ = celeriac.shutdown().await;
                    return Err(error.into());
                }
            };
            let told = said(&url);
            if let Err(error) = told {
                let _ = celeriac.shutdown().await;
                return Err(error);
            }
            crate::web::run(server, &celeriac).await?;
            Ok::<(), E>(())
        })
    }
}

/// The console, for the browser that has come through the door.
fn console(celeriac: &Celeriac, door: &Arc<Door>, may_act: bool) -> Console {
    let door = Arc::clone(door);
    Console::new(celeriac)
        .at(CONSOLE)
        .title(if may_act { "celeriac console" } else { "celeriac console, read only" })
        .authorize(move |request, check| {
            let is_let_in =
                in_cookie(request, &door.cookie).is_some_and(|session| is_same(&door.session, &session));
            let may = is_let_in && (may_act || check.permission == Permission::See);
            may.then_some("operator")
        })
}

/// Takes the token, and leads to the console.
async fn open(request: HttpRequest, door: web::Data<Door>) -> HttpResponse {
    let shown = request.query_string().split('&').find_map(|field| field.strip_prefix("token="));
    let mut token = door.token.lock();
    let is_whole = token.as_deref().zip(shown).is_some_and(|(token, shown)| is_same(token, shown));
    if !is_whole {
        let text = "This address opens the console once, and it was used before or is not the whole address. End `celeriac console` and start it again for another one.\n";
        return HttpResponse::Forbidden().content_type("text/plain; charset=utf-8").body(text);
    }
    *token = None;
    let cookie = format!("{}={}; Path={CONSOLE}; HttpOnly; SameSite=Lax", door.cookie, door.session);
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, CONSOLE))
        .insert_header((header::SET_COOKIE, cookie))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .finish()
}

async fn go_in() -> HttpResponse {
    HttpResponse::SeeOther().insert_header((header::LOCATION, CONSOLE)).finish()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[actix_web::test]
    async fn the_token_opens_once_and_only_as_a_whole() {
        let door = web::Data::new(Door::new(([127, 0, 0, 1], 4711).into()));
        let token = door.token.lock().clone().expect("a token");
        let show = async |query: &str| {
            let request = TestRequest::get().uri(&format!("/open{query}")).to_http_request();
            open(request, door.clone()).await
        };
        for wrong in ["", "?token=", "?token=x", &format!("?token={}", &token[1..])] {
            let answer = show(wrong).await;
            assert_eq!(answer.status(), 403, "{wrong}");
            assert!(!answer.headers().contains_key("set-cookie"), "{wrong}");
        }
        let whole = format!("?token={token}");
        let answer = show(&whole).await;
        assert_eq!(answer.status(), 303);
        let cookie = answer.headers().get("set-cookie").expect("a cookie").to_str().expect("text");
        assert!(cookie.contains(&door.session) && !cookie.contains(&token) && cookie.contains("HttpOnly"));
        assert!(
            cookie.starts_with("celeriac_session_4711=") && cookie.contains("; Path=/console;"),
            "{cookie}"
        );
        assert_eq!(show(&whole).await.status(), 403, "it was used");
    }
}
