//! Programs with a console, and ways to ask it.

use std::future::Future;
use std::path::Path;
use std::sync::Once;
use std::time::{Duration, Instant};

use actix_web::App;
use actix_web::body::to_bytes;
use actix_web::dev::Service;
use actix_web::http::{StatusCode, header};
use actix_web::test::{TestRequest, init_service};
use celeriac::catalogue::{Pool, QueueRow};
use celeriac::core::calendar::{Schedule, Zone};
use celeriac::task::Task;
use celeriac::web::Console;
use celeriac::{AsyncResult, Builder, Celeriac, Periodic};
use serde_json::Value;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::tasks::mail;

/// Longer than anything takes, even on a slow machine: who waits this long has found a bug.
pub const LONG: Duration = Duration::from_secs(120);

/// Three queues, and an entry that fires once a year.
pub fn builder() -> Builder {
    let yearly = Schedule::crontab("0 0 1 1 *".parse().unwrap(), Zone::UTC);
    let io = |name: &str, workers| QueueRow::new(name).with_pool(Pool::Io).with_workers(workers);
    Celeriac::builder()
        .queue(io("mail", 4).with_target(Duration::from_secs(3_600)).with_description("Mails to <customers>"))
        .queue(io("slow", 2))
        .queue(io("keyed", 2))
        .periodic(Periodic::calling("yearly", mail::s("all".to_owned(), "report".to_owned()), yearly))
}

pub async fn start() -> Celeriac {
    builder().in_memory().start().await.unwrap()
}

pub async fn embedded(dir: &Path) -> Celeriac {
    builder().directory(dir).start().await.unwrap()
}

/// Runs a test in memory and on disk.
pub async fn on_both<F: Future<Output = ()>>(test: impl Fn(Celeriac) -> F) {
    let dir = tempfile::tempdir().unwrap();
    for celeriac in [start().await, embedded(dir.path()).await] {
        test(celeriac.clone()).await;
        celeriac.shutdown().await.unwrap();
    }
}

/// A console in which Amina may do everything.
pub fn open(celeriac: &Celeriac) -> Console {
    Console::new(celeriac).authorize(|_, _| Some("amina"))
}

/// Has the lines kept that bodies log.
pub fn keep_log_lines() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing_subscriber::registry().with(celeriac::log_lines()).init());
}

/// Waits until a task has failed.
pub async fn failed<T: Task>(result: &AsyncResult<T>) {
    assert!(result.get(LONG).await.is_err(), "it fails");
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: header::HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Asks a program of its own, mounted as any is.
pub async fn ask(console: &Console, request: TestRequest) -> Answer {
    let app = init_service(App::new().service(console.clone())).await;
    let response = app.call(request.to_request()).await.unwrap_or_else(|error| panic!("{error}"));
    let (status, headers) = (response.status(), response.headers().clone());
    let body = to_bytes(response.into_body()).await.unwrap_or_else(|_| panic!("the body broke off"));
    Answer { status, headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

pub async fn get(console: &Console, path: &str) -> Answer {
    ask(console, TestRequest::get().uri(&format!("/console{path}"))).await
}

/// The page at this path, once it is as it should be: what it shows follows events by a moment, and a queue whose event
/// loop has no time to answer is not on it.
pub async fn page(console: &Console, path: &str, is_right: impl Fn(&str) -> bool) -> String {
    let start = Instant::now();
    loop {
        let answer = get(console, path).await;
        if answer.status == StatusCode::OK && is_right(&answer.body) {
            return answer.body;
        }
        assert!(start.elapsed() < LONG, "{path} never came to what it should be: {answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The same as data.
pub async fn data(console: &Console, path: &str, is_right: impl Fn(&Value) -> bool) -> Value {
    let path = format!("{path}{}format=json", if path.contains('?') { '&' } else { '?' });
    let is_right = |body: &str| is_right(&serde_json::from_str::<Value>(body).unwrap()["data"]);
    let body = page(console, &path, is_right).await;
    serde_json::from_str::<Value>(&body).unwrap()["data"].take()
}

/// The token of a browser, as its cookie and for its forms.
pub struct Browser {
    pub cookie: String,
    pub token: String,
}

pub async fn browser(console: &Console) -> Browser {
    let answer = get(console, "/acts").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
    let token = cookie.split_once('=').expect("a cookie").1.to_owned();
    Browser { cookie, token }
}

/// Sends the form of an act, as a browser does that has loaded a page before.
pub async fn act(console: &Console, fields: &[(&str, &str)]) -> Answer {
    let Browser { cookie, token } = browser(console).await;
    let mut fields = fields.to_vec();
    fields.push(("token", &token));
    let request = TestRequest::post().uri("/console/act").insert_header(("Cookie", cookie)).set_form(fields);
    ask(console, request).await
}

/// Sends the form of an act that is to be done, and follows where it leads. What came of it is on that page.
pub async fn done(console: &Console, fields: &[(&str, &str)]) -> String {
    let answer = act(console, fields).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{fields:?}: {}", answer.body);
    let path = answer.header("location").strip_prefix("/console").expect("a page of the console").to_owned();
    page(console, &path, |body| body.contains("note good")).await
}
