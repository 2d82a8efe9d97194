//! Requests as they come, good ones and bad ones.

use std::time::Duration;

use actix_web::body::{MessageBody, to_bytes};
use actix_web::dev::Service;
use actix_web::http::{StatusCode, header};
use actix_web::test::{TestRequest, init_service};
use actix_web::{App, HttpRequest};
use celeriac::testing::{self, TestApp};
use celeriac::web::soil::{Access, Action, Asked};
use celeriac::web::{SoilPages, soil};
use celeriac::{Celeriac, TaskId};
use serde_json::Value;

use super::tasks::{export, failing, without_file};

const DAY: Duration = Duration::from_secs(24 * 3_600);

pub fn pages() -> SoilPages {
    SoilPages::new([7; 32]).unwrap()
}

/// Who it is says a header; who says nothing is nobody.
async fn by_header(request: HttpRequest, asked: Asked) -> Access {
    match request.headers().get("X-User").and_then(|user| user.to_str().ok()) {
        None => Access::LogIn("/login".to_owned()),
        Some(user) if asked.owners.is_empty() || asked.owners.iter().any(|owner| owner == user) => {
            Access::Allowed
        }
        Some(_) => Access::Denied,
    }
}

/// What came back.
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
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Asks a program of its own, mounted as any is.
pub async fn ask(celeriac: &Celeriac, pages: &SoilPages, request: TestRequest) -> Answer {
    let app = init_service(App::new().service(soil(celeriac, pages))).await;
    let response = app.call(request.to_request()).await.unwrap_or_else(|error| panic!("{error}"));
    let (status, headers) = (response.status(), response.headers().clone());
    let body = to_bytes(response.into_body()).await.unwrap_or_else(|_| panic!("the body broke off"));
    Answer { status, headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

pub fn get(uri: &str) -> TestRequest {
    TestRequest::get().uri(uri)
}

/// The link with more in its path.
pub fn beyond(url: &str, more: &str) -> String {
    let (path, query) = url.split_once('?').unwrap();
    format!("{path}{more}?{query}")
}

pub async fn made(app: &TestApp, name: &str, owner: Option<&str>) -> TaskId {
    let task = export::delay(name.to_owned(), owner.map(str::to_owned)).await.unwrap();
    app.run_until_idle().await;
    task.id().clone()
}

#[actix_web::test]
async fn whoever_starts_something_gets_a_link_to_its_page() {
    let _app = testing::start().await.unwrap();
    let task = export::delay("a.csv".into(), None).await.unwrap();
    let pages = pages().public_url("https://hq.example/soil/");
    let start = || pages.start(task.id()).message("Your export is ready.");
    let request = TestRequest::default().to_http_request();
    let json = actix_web::Responder::respond_to(start(), &request);
    assert_eq!(json.status(), StatusCode::ACCEPTED);
    let json: Value = serde_json::from_slice(&to_bytes(json.into_body()).await.unwrap()).unwrap();
    assert_eq!(json["download_id"], task.id().as_str());
    assert_eq!(json["message"], "Your export is ready.");
    let url = json["download_url"].as_str().unwrap();
    assert!(url.starts_with(&format!("https://hq.example/soil/{}?key=", task.id())), "{url}");
    let form = TestRequest::default().insert_header(("Accept", "text/html,*/*")).to_http_request();
    let form = actix_web::Responder::respond_to(start(), &form);
    assert_eq!(form.status(), StatusCode::SEE_OTHER);
}

#[actix_web::test]
async fn pages_at_the_root_of_a_site_link_to_that_site() {
    let app = testing::start().await.unwrap();
    let id = made(&app, "a.csv", None).await;
    for path in ["/", ""] {
        let pages = pages().at(path);
        let url = pages.start(&id).url();
        assert!(url.starts_with(&format!("/{id}?key=")), "{url}");
        let page = ask(app.celeriac(), &pages, get(&url)).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        assert!(page.body.contains("href=\"/assets/soil.css\""), "{}", page.body);
        assert!(!page.body.contains("\"//"), "{}", page.body);
        let style = ask(app.celeriac(), &pages, get("/assets/soil.css")).await;
        assert_eq!(style.status, StatusCode::OK);
        let file = ask(app.celeriac(), &pages, get(&beyond(&url, "/file"))).await;
        assert_eq!(file.status, StatusCode::OK, "{}", file.body);
    }
}

#[actix_web::test]
async fn a_page_goes_from_waiting_to_its_file() {
    let app = testing::start().await.unwrap();
    let (celeriac, pages) = (app.celeriac(), pages());
    let task = export::delay("Fälle \"neu\" <b>.csv".into(), None).await.unwrap();
    let url = pages.start(task.id()).message("Fertig & <gut>").url();
    let waiting = ask(celeriac, &pages, get(&url)).await;
    assert_eq!(waiting.status, StatusCode::OK);
    assert!(waiting.body.contains("Waiting to start"), "{}", waiting.body);
    assert!(waiting.body.contains("<meta http-equiv=\"refresh\""), "without a script it loads itself again");
    assert!(waiting.body.contains("role=\"progressbar\""), "{}", waiting.body);
    assert!(waiting.header("content-security-policy").starts_with("default-src 'none'; style-src 'self'"));
    let early = ask(celeriac, &pages, get(&beyond(&url, "/file"))).await;
    assert_eq!(early.status, StatusCode::NOT_FOUND);
    assert!(early.body.contains("not ready yet"), "{}", early.body);

    app.run_until_idle().await;
    let ready = ask(celeriac, &pages, get(&url)).await;
    assert!(ready.body.contains(&format!("id=\"ready_{}\"", task.id())), "{}", ready.body);
    assert!(ready.body.contains("Fertig &amp; &lt;gut&gt;"), "{}", ready.body);
    assert!(ready.body.contains("&lt;b&gt;.csv"), "{}", ready.body);
    assert!(!ready.body.contains("http-equiv"), "{}", ready.body);
    let status = ask(celeriac, &pages, get(&beyond(&url, "/status"))).await.json();
    assert_eq!((&status["state"], &status["next_poll_ms"]), (&Value::from("ready"), &Value::Null));
    for link in [status["files"][0]["url"].as_str().unwrap(), &format!("{url}&get_file")] {
        let file = ask(celeriac, &pages, get(link)).await;
        assert_eq!((file.status, file.body.as_str()), (StatusCode::OK, "0123456789"));
        assert!(
            file.header("content-disposition")
                .contains("filename*=UTF-8''F%C3%A4lle%20%22neu%22%20%3Cb%3E.csv")
        );
        assert_eq!(file.header("x-download-report"), "monthly");
        assert_eq!(file.header("x-content-type-options"), "nosniff");
        assert!(file.header("content-type").starts_with("text/csv"));
    }
}

#[actix_web::test]
async fn ids_that_are_none_get_an_answer_that_says_so() {
    let app = testing::start().await.unwrap();
    let pages = pages();
    let longest = "x".repeat(255);
    for (id, expected) in [
        ("nobody".to_owned(), StatusCode::NOT_FOUND),
        (longest.clone(), StatusCode::NOT_FOUND),
        ("a%2F..%2F..%2Fetc%2Fpasswd".to_owned(), StatusCode::FORBIDDEN),
        ("..%5C..%5Cboot.ini".to_owned(), StatusCode::FORBIDDEN),
        (format!("{longest}x"), StatusCode::BAD_REQUEST),
        ("%00".to_owned(), StatusCode::BAD_REQUEST),
        ("a%0D%0ASet-Cookie:%20x".to_owned(), StatusCode::BAD_REQUEST),
    ] {
        // The key is for this very id where it can be one.
        let url = pages.start(&TaskId::from(id.as_str())).url();
        let key = url.split_once("key=").unwrap().1;
        for more in ["", "/status", "/events", "/file", "/file/0"] {
            let answer = ask(app.celeriac(), &pages, get(&format!("/soil/{id}{more}?key={key}"))).await;
            let expected = match (more, expected) {
                // A stream begins before it is known what is in it.
                ("/events", StatusCode::NOT_FOUND) => StatusCode::OK,
                _ => expected,
            };
            assert_eq!(answer.status, expected, "{id}{more}: {}", answer.body);
        }
    }
    for path in ["/soil/a/b/c/d", "/soil//", "/soil/%E0%A4%A", "/soil/a/file/x", "/soil/%ff%fe"] {
        let answer = ask(app.celeriac(), &pages, get(path)).await;
        assert!(answer.status.is_client_error(), "{path}: {}", answer.status);
    }
}

#[actix_web::test]
async fn an_id_may_be_any_text() {
    let app = testing::start().await.unwrap();
    let pages = pages();
    for id in ["berichte/2026 100%+ä", "%2F", "..", "a?b#c&d", "\u{1F600}"] {
        let task = export::s("a.csv".into(), None).id(id).delay().await.unwrap();
        app.run_until_idle().await;
        let url = pages.start(task.id()).url();
        let page = ask(app.celeriac(), &pages, get(&url)).await;
        assert_eq!(page.status, StatusCode::OK, "{id} {url}");
        let status = ask(app.celeriac(), &pages, get(&beyond(&url, "/status"))).await.json();
        assert_eq!(status["id"], id);
        let file = status["files"][0]["url"].as_str().unwrap();
        assert_eq!(ask(app.celeriac(), &pages, get(file)).await.body, "0123456789", "{id}");
    }
}

#[actix_web::test]
async fn links_last_as_long_as_the_pages_say() {
    let app = testing::start().await.unwrap();
    let celeriac = app.celeriac();
    let file = made(&app, "a.csv", None).await;
    let (hour, for_ever) = (pages().links_last(DAY / 24), pages().links_last(Duration::MAX));
    let (short, long) = (hour.start(&file).url(), for_ever.start(&file).url());
    // What one link says for itself wins.
    let own = hour.start(&file).lasts(DAY / 2).url();
    app.jump(DAY / 24 - Duration::from_secs(1));
    assert_eq!(ask(celeriac, &hour, get(&short)).await.status, StatusCode::OK);
    app.jump(Duration::from_secs(2));
    for (url, expected) in [(&short, StatusCode::GONE), (&own, StatusCode::OK), (&long, StatusCode::OK)] {
        assert_eq!(ask(celeriac, &hour, get(url)).await.status, expected, "{url}");
    }
}

#[actix_web::test]
async fn a_key_opens_one_thing_for_a_time() {
    let app = testing::start().await.unwrap();
    let (celeriac, pages) = (app.celeriac(), pages());
    let (mine, other) = (made(&app, "a.csv", None).await, made(&app, "b.csv", None).await);
    let url = pages.start(&mine).lasts(DAY / 2).url();
    let key = url.split_once("key=").unwrap().1;
    let forged = SoilPages::new([8; 32]).unwrap().start(&mine).url();
    for (url, expected) in [
        (url.clone(), StatusCode::OK),
        (format!("/soil/{mine}"), StatusCode::FORBIDDEN),
        (format!("/soil/{mine}?key="), StatusCode::FORBIDDEN),
        (format!("/soil/{mine}?key=%FF&key={key}"), StatusCode::FORBIDDEN),
        (format!("/soil/{other}?key={key}"), StatusCode::FORBIDDEN),
        (forged, StatusCode::FORBIDDEN),
    ] {
        assert_eq!(ask(celeriac, &pages, get(&url)).await.status, expected, "{url}");
    }
    app.jump(DAY / 2 + Duration::from_secs(1));
    let late = ask(celeriac, &pages, get(&url)).await;
    assert_eq!(late.status, StatusCode::GONE);
    assert!(late.body.contains("This link has expired"), "{}", late.body);
    // Another link, and the file is still there; then it is not.
    let url = pages.start(&mine).url();
    assert_eq!(ask(celeriac, &pages, get(&beyond(&url, "/file"))).await.status, StatusCode::OK);
    app.jump(DAY);
    for more in ["", "/file", "/status"] {
        let gone = ask(celeriac, &pages, get(&beyond(&url, more))).await;
        assert_eq!(gone.status, StatusCode::GONE, "{more}: {}", gone.body);
    }
    assert!(SoilPages::new("short").unwrap_err().to_string().contains("5 bytes"));
}

#[actix_web::test]
async fn other_peoples_files_are_not_given_away() {
    let app = testing::start().await.unwrap();
    let (celeriac, pages) = (app.celeriac(), pages().access(by_header));
    let id = made(&app, "a.csv", Some("amina")).await;
    let as_user = |uri: &str, user: &str| get(uri).insert_header(("X-User", user.to_owned()));
    // The link names nobody, the file does.
    let open = pages.start(&id).url();
    assert_eq!(ask(celeriac, &pages, as_user(&open, "bob")).await.status, StatusCode::OK);
    let file = beyond(&open, "/file");
    assert_eq!(ask(celeriac, &pages, as_user(&file, "bob")).await.status, StatusCode::FORBIDDEN);
    assert_eq!(ask(celeriac, &pages, as_user(&file, "amina")).await.status, StatusCode::OK);
    // The link names somebody, from the first minute on.
    let owned = pages.start(&id).owner("amina").url();
    assert_eq!(ask(celeriac, &pages, as_user(&owned, "bob")).await.status, StatusCode::FORBIDDEN);
    assert_eq!(
        ask(celeriac, &pages, as_user(&beyond(&owned, "/status"), "bob")).await.status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(ask(celeriac, &pages, as_user(&owned, "amina")).await.status, StatusCode::OK);
    // Nobody is asked to log in: a page leads there, JSON says so.
    let nobody = ask(celeriac, &pages, get(&owned)).await;
    assert_eq!((nobody.status, nobody.header("location")), (StatusCode::SEE_OTHER, "/login"));
    assert_eq!(ask(celeriac, &pages, get(&beyond(&owned, "/status"))).await.status, StatusCode::UNAUTHORIZED);
    // Without a hook nobody can say who it is, so what has owners is for nobody.
    let unsaid = super::routes::pages();
    assert_eq!(ask(celeriac, &unsaid, get(&owned)).await.status, StatusCode::FORBIDDEN);
    // Open to ids, the hook alone decides.
    let by_id = super::routes::pages().open_to_ids().access(|_, asked| async move {
        assert!(!asked.signed);
        if asked.action == Action::Download && asked.owners == ["amina"] {
            Access::Denied
        } else {
            Access::Allowed
        }
    });
    assert_eq!(ask(celeriac, &by_id, get(&format!("/soil/{id}"))).await.status, StatusCode::OK);
    assert_eq!(ask(celeriac, &by_id, get(&format!("/soil/{id}/file"))).await.status, StatusCode::FORBIDDEN);
}

#[actix_web::test]
async fn files_are_had_in_parts() {
    let app = testing::start().await.unwrap();
    let (celeriac, pages) = (app.celeriac(), pages());
    let url = beyond(&pages.start(&made(&app, "a.csv", None).await).url(), "/file");
    let whole = ask(celeriac, &pages, get(&url)).await;
    let (etag, date) = (whole.header("etag").to_owned(), whole.header("last-modified").to_owned());
    assert_eq!(whole.header("accept-ranges"), "bytes");
    let head =
        ask(celeriac, &pages, TestRequest::default().method(actix_web::http::Method::HEAD).uri(&url)).await;
    assert_eq!((head.status, head.header("etag")), (StatusCode::OK, etag.as_str()));

    let ranged = |range: &str| get(&url).insert_header(("Range", range.to_owned()));
    for (range, body, said) in [
        ("bytes=0-3", "0123", "bytes 0-3/10"),
        ("bytes=8-", "89", "bytes 8-9/10"),
        ("bytes=8-99999999999", "89", "bytes 8-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-99", "0123456789", "bytes 0-9/10"),
    ] {
        let part = ask(celeriac, &pages, ranged(range)).await;
        assert_eq!((part.status, part.body.as_str()), (StatusCode::PARTIAL_CONTENT, body), "{range}");
        assert_eq!(part.header("content-range"), said);
    }
    for range in ["bytes=10-", "bytes=99-100", "bytes=18446744073709551615-", "bytes=-0"] {
        let beyond = ask(celeriac, &pages, ranged(range)).await;
        assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE, "{range}");
        assert_eq!(beyond.header("content-range"), "bytes */10");
    }
    // What makes no sense, and several at once, get the whole.
    let many = format!("bytes={}", (0..500).map(|at| format!("{at}-{at}")).collect::<Vec<_>>().join(","));
    for range in ["bytes=a-b", "bytes=5-2", "lines=1-2", "bytes=", "", &many] {
        let whole = ask(celeriac, &pages, ranged(range)).await;
        assert_eq!((whole.status, whole.body.len()), (StatusCode::OK, 10), "{range}");
    }
    for (validator, expected) in [
        (etag.as_str(), StatusCode::PARTIAL_CONTENT),
        (date.as_str(), StatusCode::PARTIAL_CONTENT),
        ("\"other\"", StatusCode::OK),
        ("Thu, 01 Jan 1970 00:00:00 GMT", StatusCode::OK),
        ("nonsense", StatusCode::OK),
    ] {
        let request = ranged("bytes=0-3").insert_header(("If-Range", validator.to_owned()));
        assert_eq!(ask(celeriac, &pages, request).await.status, expected, "{validator}");
    }
    for (known, expected) in [
        (etag.clone(), StatusCode::NOT_MODIFIED),
        (format!("\"x\", W/{etag}"), StatusCode::NOT_MODIFIED),
        ("*".to_owned(), StatusCode::NOT_MODIFIED),
        ("\"x\"".to_owned(), StatusCode::OK),
    ] {
        let request = get(&url).insert_header(("If-None-Match", known.clone()));
        assert_eq!(ask(celeriac, &pages, request).await.status, expected, "{known}");
    }
}

#[actix_web::test]
async fn a_failed_one_shows_each_error_and_hqs_script_stops() {
    let app = testing::start().await.unwrap();
    let (celeriac, pages) = (app.celeriac(), pages());
    let task = failing::delay(vec!["row 3: <script>alert(1)</script>".into(), "row 7".into()]).await.unwrap();
    app.run_until_idle().await;
    let url = pages.start(task.id()).url();
    let page = ask(celeriac, &pages, get(&url)).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(
        page.body.contains("<li>row 3: &lt;script&gt;alert(1)&lt;/script&gt;</li><li>row 7</li>"),
        "{}",
        page.body
    );
    let partial = ask(celeriac, &pages, get(&url.replace("/soil/", "/soil/ajax/"))).await;
    assert_eq!(partial.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(partial.body.contains(&format!("id=\"error_{}\"", task.id())), "{}", partial.body);
    let file = ask(celeriac, &pages, get(&beyond(&url, "/file"))).await;
    assert_eq!(file.status, StatusCode::NOT_FOUND);

    let done = without_file::delay().await.unwrap();
    app.run_until_idle().await;
    let url = pages.start(done.id()).url();
    let page = ask(celeriac, &pages, get(&url)).await;
    assert!(page.body.contains("Process complete."), "{}", page.body);
    assert!(page.body.contains("<li>3 cases &lt;b&gt;closed&lt;/b&gt;</li>"), "{}", page.body);
    let file = ask(celeriac, &pages, get(&beyond(&url, "/file"))).await;
    assert!(file.body.contains("made no file"), "{}", file.body);
}

#[actix_web::test]
async fn cancelling_is_for_the_page_alone() {
    let app = testing::start().await.unwrap();
    let (celeriac, pages) = (app.celeriac(), pages());
    let task = export::delay("a.csv".into(), None).await.unwrap();
    let url = pages.start(task.id()).url();
    let cancel = || TestRequest::post().uri(&beyond(&url, "/cancel"));
    let foreign = ask(celeriac, &pages, cancel().insert_header(("Sec-Fetch-Site", "cross-site"))).await;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN);
    assert_eq!(
        ask(celeriac, &pages, get(&beyond(&url, "/cancel"))).await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
    let own = ask(celeriac, &pages, cancel().insert_header(("Sec-Fetch-Site", "same-origin"))).await;
    assert_eq!((own.status, own.header("location")), (StatusCode::SEE_OTHER, url.as_str()));
    assert_eq!(app.run_until_idle().await, 0);
    let page = ask(celeriac, &pages, get(&url)).await;
    assert!(page.body.contains("<h1>Cancelled</h1>"), "{}", page.body);
}

#[actix_web::test]
async fn a_waiting_one_says_its_place_and_what_its_own_queue_is_at() {
    let celeriac = Celeriac::builder().in_memory().start().await.unwrap();
    celeriac.pause("exports").await.unwrap();
    let call = || export::s("a.csv".into(), None).send(celeriac.client());
    let (first, _, third) = (call().await.unwrap(), call().await.unwrap(), call().await.unwrap());
    let pages = pages();
    let page = ask(&celeriac, &pages, get(&pages.start(third.id()).url())).await;
    assert!(page.body.contains("2 others are before it in line"), "{}", page.body);
    assert!(page.body.contains("Its queue is paused."), "{}", page.body);
    // What the queue is called is told to nobody, unless the program says so.
    let url = pages.start(third.id()).url();
    let status = ask(&celeriac, &pages, get(&beyond(&url, "/status"))).await;
    for told in [&page.body, &status.body] {
        assert!(!told.contains("exports"), "{told}");
    }
    let named = ask(&celeriac, &pages.clone().show_queue_names(), get(&url)).await;
    assert!(named.body.contains("Its queue, exports, is paused."), "{}", named.body);
    let page = ask(&celeriac, &pages, get(&pages.start(first.id()).url())).await;
    assert!(page.body.contains("It is the next to start."), "{}", page.body);
    celeriac.resume("exports").await.unwrap();
    third.get(Duration::from_secs(60)).await.unwrap();
    let page = ask(&celeriac, &pages, get(&pages.start(third.id()).url())).await;
    assert!(!page.body.contains("queue"), "{}", page.body);
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_waiting_one_says_why_in_plain_words() {
    let app = testing::start().await.unwrap();
    let (celeriac, pages) = (app.celeriac(), pages());
    let call = export::s("a.csv".into(), None).countdown(Duration::from_secs(60));
    let url = pages.start(call.delay().await.unwrap().id()).url();
    let page = ask(celeriac, &pages, get(&url)).await;
    assert!(page.body.contains("It starts at a later time, as was asked."), "{}", page.body);
    let status = ask(celeriac, &pages, get(&beyond(&url, "/status"))).await.json();
    assert_eq!(status["why"], "It starts at a later time, as was asked.");
    assert!(status["starts_between"].is_null(), "{status}");
}

#[actix_web::test]
async fn a_waiting_one_says_when_its_queue_has_started_nothing_for_five_minutes() {
    let app = testing::start().await.unwrap();
    let (celeriac, pages) = (app.celeriac(), pages());
    let second = Duration::from_secs(1);
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(export::delay("a.csv".into(), None).await.unwrap());
    }
    // Each time another task is asked about, because a status is good for a moment once it was read.
    let mut page = async || {
        let task = waiting.pop().unwrap();
        ask(celeriac, &pages, get(&pages.start(task.id()).url())).await.body
    };
    app.jump(299 * second);
    let alive = page().await;
    assert!(alive.contains("Waiting to start") && !alive.contains("started nothing"), "{alive}");
    app.jump(second);
    let stuck = page().await;
    assert!(stuck.contains("Its queue has started nothing for 5 minutes."), "{stuck}");
    app.jump(60 * second);
    let stuck = page().await;
    assert!(stuck.contains("Its queue has started nothing for 6 minutes."), "{stuck}");
}

#[actix_web::test]
async fn a_group_is_one_page_with_a_file_for_each_part() {
    let app = testing::start().await.unwrap();
    let (celeriac, pages) = (app.celeriac(), pages());
    let (first, second) = (
        export::delay("1.csv".into(), None).await.unwrap(),
        failing::delay(vec!["no".into()]).await.unwrap(),
    );
    let ids = [first.id().clone(), second.id().clone()];
    let id = celeriac.soil().make_group(ids, DAY).await.unwrap();
    let url = pages.start_group(&id).url();
    assert!(url.len() < 200, "the members are not in it: {url}");
    app.step().await.unwrap();
    let half = ask(celeriac, &pages, get(&beyond(&url, "/status"))).await.json();
    assert_eq!((&half["state"], &half["percent"]), (&Value::from("running"), &Value::from(50)));
    app.step().await.unwrap();
    let page = ask(celeriac, &pages, get(&url)).await;
    assert!(page.body.contains("Part 2: no"), "{}", page.body);
    let url = pages.start_group(&id).policy(celeriac::soil::PartialFailure::Tolerated).url();
    assert!(ask(celeriac, &pages, get(&url)).await.body.contains("What is missing"));
    assert_eq!(ask(celeriac, &pages, get(&beyond(&url, "/file/0"))).await.body, "0123456789");
    assert_eq!(ask(celeriac, &pages, get(&beyond(&url, "/file/1"))).await.status, StatusCode::NOT_FOUND);
    assert_eq!(ask(celeriac, &pages, get(&beyond(&url, "/file/2"))).await.status, StatusCode::NOT_FOUND);
    // Where ids are enough, that of a group is one.
    let open = pages.clone().open_to_ids().access(by_header);
    let told = get(&format!("/soil/{id}/status")).insert_header(("X-User", "amina"));
    let told = ask(celeriac, &open, told).await.json();
    assert_eq!((&told["state"], &told["members"][0]["state"]), (&"failed".into(), &"ready".into()));
    app.advance(2 * DAY).await;
    assert_eq!(ask(celeriac, &pages, get(&url)).await.status, StatusCode::GONE);
}

#[actix_web::test]
async fn changes_are_pushed_to_the_end() {
    let app = testing::start().await.unwrap();
    let (celeriac, pages) = (app.celeriac(), pages());
    let task = export::delay("a.csv".into(), None).await.unwrap();
    let service = init_service(App::new().service(soil(celeriac, &pages))).await;
    let uri = beyond(&pages.start(task.id()).url(), "/events");
    let response = service.call(get(&uri).to_request()).await.unwrap();
    assert_eq!(response.headers().get("content-type").unwrap(), "text/event-stream");
    let mut body = Box::pin(response.into_body());
    let mut next = async || {
        let chunk = std::future::poll_fn(|cx| body.as_mut().poll_next(cx)).await?;
        let text = String::from_utf8(chunk.unwrap_or_else(|_| panic!("broken off")).to_vec()).unwrap();
        let data = text.split_once("data: ").map(|(_, data)| serde_json::from_str::<Value>(data).unwrap());
        Some(data.map_or(Value::Null, |data| data["state"].clone()))
    };
    assert_eq!(next().await.unwrap(), "waiting");
    app.run_until_idle().await;
    let mut last = Value::Null;
    while let Some(state) = next().await {
        last = state;
    }
    assert_eq!(last, "ready");
}

#[actix_web::test]
async fn the_pages_load_nothing_but_their_own() {
    let app = testing::start().await.unwrap();
    let pages = pages();
    for (path, kind) in [("soil.css", "text/css"), ("soil.js", "text/javascript")] {
        let url = format!("/soil/assets/{path}");
        let asset = ask(app.celeriac(), &pages, get(&url)).await;
        assert!(asset.header("content-type").starts_with(kind));
        assert!(!asset.body.contains("http://") && !asset.body.contains("https://"), "{path}");
        let known = get(&url).insert_header(("If-None-Match", asset.header("etag").to_owned()));
        assert_eq!(ask(app.celeriac(), &pages, known).await.status, StatusCode::NOT_MODIFIED);
    }
}
