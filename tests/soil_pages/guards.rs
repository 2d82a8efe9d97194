//! What keeps others out, and what keeps many from costing much.

use std::time::Duration;

use actix_web::App;
use actix_web::body::MessageBody;
use actix_web::dev::Service;
use actix_web::http::Method;
use actix_web::test::{TestRequest, init_service};
use celeriac::testing;
use celeriac::web::soil::SoilPagesError;
use celeriac::web::{SoilPages, soil};
use celeriac::{Celeriac, TaskId};

use super::routes::{Answer, ask, beyond, get, made, pages};
use super::tasks::{export, failing};

const DAY: Duration = Duration::from_secs(24 * 3_600);

async fn ask_by(celeriac: &Celeriac, pages: &SoilPages, method: &Method, uri: &str) -> Answer {
    ask(celeriac, pages, TestRequest::default().method(method.clone()).uri(uri)).await
}

#[actix_web::test]
async fn every_answer_says_how_it_may_be_read() {
    let app = testing::start().await.unwrap();
    let (celeriac, pages) = (app.celeriac(), pages());
    let file = made(&app, "a.csv", None).await;
    let failed = failing::delay(vec!["no".into()]).await.unwrap();
    app.run_until_idle().await;
    let (ready, failed) = (pages.start(&file).url(), pages.start(failed.id()).url());
    let waiting = export::delay("b.csv".into(), None).await.unwrap();
    let waiting = pages.start(waiting.id()).url();
    for (method, uri, status) in [
        (Method::GET, ready.clone(), 200),
        (Method::GET, waiting.clone(), 200),
        (Method::GET, failed.clone(), 200),
        (Method::GET, failed.replace("/soil/", "/soil/ajax/"), 500),
        (Method::GET, beyond(&ready, "/status"), 200),
        (Method::GET, beyond(&failed, "/status"), 200),
        (Method::GET, beyond(&ready, "/events"), 200),
        (Method::GET, beyond(&ready, "/file"), 200),
        (Method::HEAD, beyond(&ready, "/file"), 200),
        (Method::GET, beyond(&failed, "/file"), 404),
        (Method::GET, format!("/soil/{file}"), 403),
        (Method::GET, format!("/soil/{file}/status"), 403),
        (Method::GET, "/soil/%00/status".to_owned(), 400),
        (Method::GET, "/soil/assets/soil.css".to_owned(), 200),
        (Method::GET, "/soil/a/b/c/d".to_owned(), 404),
        (Method::GET, beyond(&ready, "/cancel"), 405),
        (Method::POST, ready.clone(), 405),
        (Method::POST, beyond(&waiting, "/cancel"), 303),
    ] {
        let answer = ask_by(celeriac, &pages, &method, &uri).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {uri}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{method} {uri}");
        assert!(answer.header("content-security-policy").starts_with("default-src 'none'"), "{method} {uri}");
        assert!(!answer.header("referrer-policy").is_empty(), "{method} {uri}");
        let is_asset = uri.contains("soil.css");
        assert!(!answer.header("cache-control").is_empty(), "{method} {uri}");
        assert_eq!(answer.header("cache-control").contains("public"), is_asset, "{method} {uri}");
    }
    let range = get(&beyond(&ready, "/file")).insert_header(("Range", "bytes=99-"));
    let range = ask(celeriac, &pages, range).await;
    assert_eq!((range.status.as_u16(), range.header("x-content-type-options")), (416, "nosniff"));
    // So does the answer that carries the link.
    let request = TestRequest::default().to_http_request();
    let started = actix_web::Responder::respond_to(pages.start(&file), &request);
    assert_eq!(started.headers().get("cache-control").unwrap(), "no-store");
    assert_eq!(started.headers().get("x-content-type-options").unwrap(), "nosniff");
}

#[actix_web::test]
async fn no_other_site_cancels() {
    let app = testing::start().await.unwrap();
    let celeriac = app.celeriac();
    let (own, public) = (pages(), pages().public_url("https://hq.example/a/soil"));
    let task = export::delay("a.csv".into(), None).await.unwrap();
    let uri = beyond(&own.start(task.id()).url(), "/cancel");
    let cancel = |headers: &[(&'static str, &'static str)]| {
        let request = TestRequest::post().uri(&uri).insert_header(("Host", "127.0.0.1:8080"));
        headers.iter().fold(request, |request, header| request.insert_header(*header))
    };
    for headers in [
        &[("Origin", "https://evil.example")][..],
        &[("Origin", "null")],
        &[("Origin", "http://127.0.0.1:9090")],
        &[("Origin", "https://evil.example"), ("Sec-Fetch-Site", "same-origin")],
        &[("Referer", "https://evil.example/page")],
        &[("Sec-Fetch-Site", "same-site")],
    ] {
        let refused = ask(celeriac, &own, cancel(headers)).await;
        assert_eq!(refused.status.as_u16(), 403, "{headers:?}");
    }
    assert_eq!(app.run_until_idle().await, 1, "nothing was cancelled");
    for (pages, origin) in [(&own, "http://127.0.0.1:8080"), (&public, "https://hq.example")] {
        let task = export::delay("a.csv".into(), None).await.unwrap();
        let url = own.start(task.id()).url();
        let request = TestRequest::post().uri(&beyond(&url, "/cancel"));
        let request = request.insert_header(("Host", "127.0.0.1:8080")).insert_header(("Origin", origin));
        assert_eq!(ask(celeriac, pages, request).await.status.as_u16(), 303, "{origin}");
        assert_eq!(app.run_until_idle().await, 0, "it was cancelled");
    }
}

#[actix_web::test]
async fn a_secret_is_changed_without_a_link_that_ends() {
    let app = testing::start().await.unwrap();
    let celeriac = app.celeriac();
    let file = made(&app, "a.csv", None).await;
    let (old, new) = ([7; 32], [8; 32]);
    let both = SoilPages::with_secrets([new, old]).unwrap();
    let (of_old, of_both) = (SoilPages::new(old).unwrap().start(&file).url(), both.start(&file).url());
    for (pages, opens_old, opens_both) in [
        (both, 200, 200),
        (SoilPages::new(new).unwrap(), 403, 200),
        (SoilPages::with_secrets([old, new]).unwrap(), 200, 200),
        (SoilPages::new(old).unwrap(), 200, 403),
    ] {
        assert_eq!(ask(celeriac, &pages, get(&of_old)).await.status.as_u16(), opens_old);
        assert_eq!(ask(celeriac, &pages, get(&of_both)).await.status.as_u16(), opens_both);
    }
    let short = SoilPages::with_secrets([&[7; 32][..], b"short"]).unwrap_err();
    assert_eq!(short, SoilPagesError::ShortSecret(5));
    assert_eq!(SoilPages::with_secrets::<&str>([]).unwrap_err(), SoilPagesError::NoSecret);
}

#[actix_web::test]
async fn a_link_that_was_taken_back_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let start = async || Celeriac::builder().directory(dir.path()).start().await.unwrap();
    let celeriac = start().await;
    let pages = pages();
    let mut files = Vec::new();
    for name in ["a.csv", "b.csv"] {
        let task = export::s(name.into(), None).send(celeriac.client()).await.unwrap();
        task.get(Duration::from_secs(60)).await.unwrap();
        files.push(task.id().clone());
    }
    let (url, other) = (pages.start(&files[0]).url(), pages.start(&files[1]).url());
    assert_eq!(ask(&celeriac, &pages, get(&url)).await.status.as_u16(), 200);
    assert_eq!(celeriac.soil().revoke_links(&files[0]).await.unwrap(), 1);
    let again = pages.start(&files[0]).owner("amina").url();
    for url in [&url, &again] {
        for more in ["", "/status", "/events", "/file"] {
            let answer = ask(&celeriac, &pages, get(&beyond(url, more))).await;
            assert_eq!(answer.status.as_u16(), 410, "{more}");
            assert!(answer.body.contains("taken back"), "{}", answer.body);
        }
        let cancel = TestRequest::post().uri(&beyond(url, "/cancel"));
        assert_eq!(ask(&celeriac, &pages, cancel).await.status.as_u16(), 410);
    }
    assert_eq!(ask(&celeriac, &pages, get(&other)).await.status.as_u16(), 200, "another's link");
    let renewed = pages.start(&files[0]).renewed(&celeriac).await.unwrap().url();
    assert_eq!(ask(&celeriac, &pages, get(&beyond(&renewed, "/file"))).await.body, "0123456789");
    // It stays so after a restart.
    celeriac.shutdown().await.unwrap();
    let celeriac = start().await;
    assert_eq!(ask(&celeriac, &pages, get(&url)).await.status.as_u16(), 410);
    assert_eq!(ask(&celeriac, &pages, get(&renewed)).await.status.as_u16(), 200);
    assert_eq!(celeriac.soil().revoke_links(&files[0]).await.unwrap(), 2);
    assert_eq!(ask(&celeriac, &pages, get(&renewed)).await.status.as_u16(), 410);
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn event_streams_are_so_many_and_no_more() {
    let app = testing::start().await.unwrap();
    let celeriac = app.celeriac();
    let pages = pages().event_streams(2, 3);
    let mut urls = Vec::new();
    for _ in 0..3 {
        let task = export::delay("a.csv".into(), None).await.unwrap();
        urls.push(beyond(&pages.start(task.id()).url(), "/events"));
    }
    // Two server threads, one process.
    let first = init_service(App::new().service(soil(celeriac, &pages))).await;
    let second = init_service(App::new().service(soil(celeriac, &pages))).await;
    let mut open = Vec::new();
    for (service, url) in [(&first, &urls[0]), (&second, &urls[0])] {
        let response = service.call(get(url).to_request()).await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        open.push(Box::pin(response.into_body()));
    }
    for (url, expected) in [(&urls[0], 503), (&urls[1], 200), (&urls[2], 503)] {
        let response = first.call(get(url).to_request()).await.unwrap();
        assert_eq!(response.status().as_u16(), expected, "{url}");
        if expected == 503 {
            assert_eq!(response.headers().get("retry-after").unwrap(), "30");
            assert_eq!(response.headers().get("content-type").unwrap(), "application/json");
        } else {
            open.push(Box::pin(response.into_body()));
        }
    }
    // The page itself is there all the same, and its status.
    let status = urls[2].replace("/events?", "/status?");
    assert_eq!(first.call(get(&status).to_request()).await.unwrap().status().as_u16(), 200);
    // One that ends makes room for another.
    let mut body = open.remove(0);
    assert!(std::future::poll_fn(|cx| body.as_mut().poll_next(cx)).await.is_some());
    drop(body);
    assert_eq!(first.call(get(&urls[2]).to_request()).await.unwrap().status().as_u16(), 200);
}

/// A group of so many members costs as much as one of a hundred, once the whole was looked at.
#[actix_web::test]
async fn a_group_of_thousands_is_shown_in_pages() {
    const ALL: usize = 3_001;
    let app = testing::start().await.unwrap();
    let (celeriac, pages) = (app.celeriac(), pages());
    let mut ids: Vec<TaskId> = Vec::new();
    for n in 0..ALL {
        let errors = vec![format!("row {n}")];
        let task = if n < 40 {
            failing::delay(errors).await.unwrap().id().clone()
        } else {
            export::delay(format!("{n}.csv"), None).await.unwrap().id().clone()
        };
        ids.push(task);
    }
    for _ in 0..150 {
        app.step().await.unwrap();
    }
    let group = celeriac.soil().make_group(ids, DAY).await.unwrap();
    let url = pages.start_group(&group).url();
    let service = init_service(App::new().service(soil(celeriac, &pages))).await;
    let ask = async |uri: &str| -> (u16, String) {
        let response = service.call(get(uri).to_request()).await.unwrap();
        let status = response.status().as_u16();
        let body =
            actix_web::body::to_bytes(response.into_body()).await.unwrap_or_else(|_| panic!("broken off"));
        (status, String::from_utf8(body.to_vec()).unwrap())
    };
    let begun = std::time::Instant::now();
    let (status, page) = ask(&url).await;
    let whole = begun.elapsed();
    let begun = std::time::Instant::now();
    ask(&url).await;
    println!("{ALL} members: {whole:?} for the whole, then {:?} a page", begun.elapsed());
    assert_eq!(status, 200);
    assert_eq!(page.matches("class=\"soil-part\"").count(), 100);
    assert!(page.len() < 60_000, "{} bytes", page.len());
    assert!(page.contains("Parts 1 to 100 of 3001"), "{page}");
    assert!(page.contains("Later parts") && !page.contains("Earlier parts"));
    let json = |body: &str| serde_json::from_str::<serde_json::Value>(body).unwrap();
    let (_, status) = ask(&format!("{}&page=2", beyond(&url, "/status"))).await;
    let status = json(&status);
    assert_eq!((status["page"].as_u64(), status["pages"].as_u64()), (Some(2), Some(31)));
    assert_eq!((status["current"].as_u64(), status["total"].as_u64()), (Some(150), Some(3_001)));
    assert_eq!(
        (&status["members"][0]["part"], &status["members"][0]["state"]),
        (&101.into(), &"ready".into())
    );
    assert_eq!(status["members"][60]["state"], "waiting");
    assert_eq!(status["files"].as_array().unwrap().len(), 50, "those of this page");
    let errors = status["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 21);
    assert_eq!(errors[0], "Part 1: row 0");
    assert_eq!(errors[20], "And 20 more parts have failed.");
    // The last page, and those that there are not.
    for (page, first, count) in
        [("31", 3_001, 1), ("32", 3_001, 1), ("99999999999999999999", 1, 100), ("x", 1, 100), ("0", 1, 100)]
    {
        let (_, status) = ask(&format!("{}&page={page}", beyond(&url, "/status"))).await;
        let members = json(&status)["members"].as_array().unwrap().clone();
        assert_eq!((members[0]["part"].as_u64(), members.len()), (Some(first), count), "{page}");
    }
    // Its cost does not grow with its members: what was seen of the whole is shared.
    // (Where we get no time for so long, it is asked once more.)
    let mut tries = 0..100;
    loop {
        let begun = std::time::Instant::now();
        let (_, first) = ask(&beyond(&url, "/status")).await;
        let wait = json(&first)["next_poll_ms"].as_u64().unwrap();
        if begun.elapsed() < Duration::from_millis(wait) {
            break;
        }
        assert!(tries.next().is_some(), "asking pays only after {wait} ms");
    }
}

/// The example keeps people's data, and the secret of its links.
#[cfg(unix)]
#[test]
fn what_the_example_writes_is_for_its_own_account() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let data = home.path().join("data");
    let program = super::program::Program::start(&data, "0");
    let (mut seen, mut open) = (0, vec![data.clone()]);
    while let Some(next) = open.pop() {
        let mode = std::fs::symlink_metadata(&next).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} is {mode:o}", next.display());
        seen += 1;
        if next.is_dir() {
            open.extend(std::fs::read_dir(&next).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    assert!(seen > 5, "only {seen} files and directories");
    program.kill();
    // One that an earlier version left open is closed, and stays the same.
    let secret = data.join("soil-secret");
    let before = std::fs::read(&secret).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    let program = super::program::Program::start(&data, "0");
    assert_eq!(std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read(&secret).unwrap(), before);
    program.kill();
}
