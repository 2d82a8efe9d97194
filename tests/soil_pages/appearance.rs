//! The pages as a program wants them: its colours and its frame, the reader's language, and refusals that lead back.

use actix_web::http::StatusCode;
use actix_web::test::TestRequest;
use celeriac::testing;
use celeriac::web::soil::{Language, Sentence, SoilPagesError};
use celeriac::web::{Colour, Theme};

use super::routes::{ask, beyond, get, made, pages};
use super::tasks::{export, failing};

fn languages() -> [Language; 3] {
    [Language::english(), Language::french(), Language::arabic()]
}

#[actix_web::test]
async fn a_reader_gets_the_language_of_the_browser_or_that_of_the_program() {
    let app = testing::start().await.unwrap();
    let celeriac = app.celeriac();
    let task = export::delay("a.csv".into(), None).await.unwrap();
    let pages = pages().languages(languages()).unwrap();
    let url = pages.start(task.id()).url();
    let as_reader = |uri: &str, accept: &str| get(uri).insert_header(("Accept-Language", accept.to_owned()));
    for (accept, html, heading, title) in [
        ("fr-CA, en;q=0.5", "<html lang=\"fr\">", "En attente de démarrage", "En attente"),
        ("ar", "<html lang=\"ar\" dir=\"rtl\">", "في انتظار البدء", "في الانتظار"),
        ("de", "<html lang=\"en\">", "Waiting to start", "Waiting"),
        ("nonsense;;q", "<html lang=\"en\">", "Waiting to start", "Waiting"),
    ] {
        let page = ask(celeriac, &pages, as_reader(&url, accept)).await;
        assert!(page.body.contains(html), "{accept}: {}", page.body);
        assert!(page.body.contains(heading), "{accept}: {}", page.body);
        assert!(page.body.contains(&format!("<title>{title}</title>")), "{accept}: {}", page.body);
        let status = ask(celeriac, &pages, as_reader(&beyond(&url, "/status"), accept)).await.json();
        assert_eq!(status["title"], title, "{accept}");
        assert!(status["html"].as_str().unwrap().contains(heading), "{accept}");
    }
    let arabic = ask(celeriac, &pages, as_reader(&url.replace("/soil/", "/soil/ajax/"), "ar")).await;
    assert!(arabic.body.contains("lang=\"ar\" dir=\"rtl\""), "{}", arabic.body);
    assert_eq!(arabic.header("content-language"), "ar");
    // The program knows better.
    let chosen = pages
        .clone()
        .choose_language(|request| Some(request.headers().get("X-Language")?.to_str().ok()?.to_owned()));
    let page = ask(celeriac, &chosen, as_reader(&url, "fr").insert_header(("X-Language", "ar"))).await;
    assert_eq!(page.header("content-language"), "ar");
    let page = ask(celeriac, &chosen, as_reader(&url, "fr")).await;
    assert_eq!(page.header("content-language"), "fr");
    // Alone, English is all that there is.
    let page = ask(celeriac, &super::routes::pages(), as_reader(&url, "fr")).await;
    assert_eq!(page.header("content-language"), "en");
}

#[actix_web::test]
async fn what_readers_of_screens_hear_comes_from_the_server() {
    let app = testing::start().await.unwrap();
    let celeriac = app.celeriac();
    let file = made(&app, "a.csv", None).await;
    let group = [file.clone(), export::delay("b.csv".into(), None).await.unwrap().id().clone()];
    let group = celeriac.soil().make_group(group, std::time::Duration::from_secs(60)).await.unwrap();
    let pages = pages().languages(languages()).unwrap().title("Acme");
    let ready = beyond(&pages.start(&file).url(), "/status");
    let half = beyond(&pages.start_group(&group).url(), "/status");
    for (uri, language, spoken, title) in [
        (&half, "en", "50 percent done", "50% - in progress · Acme"),
        (&half, "fr", "50 pour cent effectués", "50\u{202f}% - en cours · Acme"),
        (&half, "ar", "اكتمل ٥٠ بالمئة", "٥٠٪ - قيد التنفيذ · Acme"),
        (&ready, "en", "Ready", "Ready · Acme"),
        (&ready, "fr", "Prêt", "Prêt · Acme"),
    ] {
        let status =
            ask(celeriac, &pages, get(uri).insert_header(("Accept-Language", language))).await.json();
        assert_eq!((&status["spoken"], &status["title"]), (&spoken.into(), &title.into()), "{language}");
    }
}

#[actix_web::test]
async fn every_text_of_a_page_can_be_the_programs() {
    let app = testing::start().await.unwrap();
    let celeriac = app.celeriac();
    // A language of the program's own, in which each text is its name.
    let named = Language::new("tlh", |sentence: Sentence<'_>| Some(format!("[{sentence:?}]")));
    let pages = pages().languages([named]).unwrap().home("/exports").unwrap();
    let failed = failing::delay(vec!["row 3".into()]).await.unwrap();
    let waiting = export::delay("b.csv".into(), None).await.unwrap();
    app.step().await.unwrap();
    let group = [failed.id().clone(), waiting.id().clone()];
    let group = celeriac.soil().make_group(group, std::time::Duration::from_secs(60)).await.unwrap();
    for (uri, names) in [
        (pages.start(failed.id()).url(), vec!["[TabFailed]", "[SomethingWrong]", "[Back]"]),
        (
            pages.start(waiting.id()).url(),
            vec!["[TabWaiting]", "[WaitingToStart]", "[Cancel]", "[LoadsAgain]"],
        ),
        (
            pages.start_group(&group).url(),
            vec!["[TabPercent(50)]", "[Processed(50)]", "[PartsDone { done: 1, total: 2 }]", "[Parts]"],
        ),
        ("/soil/nobody".to_owned(), vec!["[DeniedTitle]", "[DeniedText]"]),
    ] {
        let page = ask(celeriac, &pages, get(&uri)).await.body;
        for name in names {
            assert!(page.contains(name), "{name}: {page}");
        }
        for english in ["Waiting to start", "Something went wrong", "parts done", "This is not yours"] {
            assert!(!page.contains(english), "{english}: {page}");
        }
    }
}

#[test]
fn languages_without_a_tag_and_addresses_that_are_none_are_refused() {
    assert_eq!(pages().languages([]).unwrap_err(), SoilPagesError::NoLanguage);
    let wrong = pages().languages([Language::english(), Language::new("a\"b", |_| None)]).unwrap_err();
    assert_eq!(wrong, SoilPagesError::Language("a\"b".to_owned()));
    assert!(wrong.to_string().contains("`pt-BR`"), "{wrong}");
    for address in ["javascript:alert(1)", "//evil.example", "exports"] {
        for error in [pages().home(address).unwrap_err(), pages().style_sheet(address).unwrap_err()] {
            assert!(error.to_string().contains(address), "{error}");
        }
    }
}

#[actix_web::test]
async fn the_style_sheet_has_the_colours_of_the_program() {
    let app = testing::start().await.unwrap();
    let sheet = || get("/soil/assets/soil.css");
    let plain = ask(app.celeriac(), &pages(), sheet()).await;
    let theme = Theme::new().colour(Colour::Accent, "#7A1fa2", "#d9a7ec").unwrap();
    let themed = pages().theme(&theme);
    let own = ask(app.celeriac(), &themed, sheet()).await;
    assert!(own.body.starts_with(&plain.body), "the colours come behind the others");
    let rules = &own.body[plain.body.len()..];
    assert!(rules.contains("--accent: #7a1fa2;") && rules.contains("--accent: #d9a7ec;"), "{rules}");
    // Another theme is another style sheet for browsers that keep it.
    assert_ne!(own.header("etag"), plain.header("etag"));
    let known = sheet().insert_header(("If-None-Match", plain.header("etag").to_owned()));
    assert_eq!(ask(app.celeriac(), &themed, known).await.status, StatusCode::OK);
}

#[actix_web::test]
async fn a_page_stands_in_the_frame_of_the_program() {
    let app = testing::start().await.unwrap();
    let celeriac = app.celeriac();
    let file = made(&app, "<b>.csv", None).await;
    let own = pages().title("Acme & Söhne");
    let url = own.start(&file).url();
    let page = ask(celeriac, &own, get(&url)).await;
    assert!(page.body.contains("<header class=\"soil-brand\">Acme &amp; Söhne</header>"), "{}", page.body);
    assert!(page.body.contains("<title>Ready · Acme &amp; Söhne</title>"), "{}", page.body);
    assert!(!page.header("content-security-policy").contains("img-src"));

    let framed = own.style_sheet("/static/site.css?v=1&x=2").unwrap().layout(|request, page| {
        let user = request.headers().get("X-User").map_or("nobody", |user| user.to_str().unwrap());
        format!("<nav>{user}, {}, {}</nav>{}", page.language.tag(), page.title.len(), page.html)
    });
    for (uri, status, title) in [
        (url.clone(), 200, "Ready · Acme & Söhne"),
        (beyond(&url, "/file/7"), 404, "There is nothing here · Acme & Söhne"),
        (format!("/soil/{file}"), 403, "This is not yours to see · Acme & Söhne"),
        ("/soil/a/b/c/d".to_owned(), 404, "There is no such page · Acme & Söhne"),
    ] {
        let page = ask(celeriac, &framed, get(&uri).insert_header(("X-User", "amina"))).await;
        assert_eq!(page.status.as_u16(), status, "{uri}");
        let begin = format!("<body><nav>amina, en, {}</nav><main>", title.len());
        assert!(page.body.contains(&begin), "{uri}: {begin} {}", page.body);
        assert_eq!(page.body.matches("<main>").count(), 1);
        assert!(page.body.contains("href=\"/static/site.css?v=1&amp;x=2\""), "{}", page.body);
        assert!(!page.body.contains("soil-brand"));
        let policy = page.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; style-src 'self'"), "{policy}");
        assert!(policy.ends_with("; img-src 'self'; font-src 'self'"), "{policy}");
    }
    // What is only a part has no frame.
    let partial = ask(celeriac, &framed, get(&url.replace("/soil/", "/soil/ajax/"))).await;
    assert!(partial.body.starts_with("<section"), "{}", partial.body);
}

#[actix_web::test]
async fn a_refusal_is_a_page_as_any_and_leads_back() {
    let app = testing::start().await.unwrap();
    let celeriac = app.celeriac();
    let file = made(&app, "a.csv", None).await;
    let failed = failing::delay(vec!["no".into()]).await.unwrap();
    app.run_until_idle().await;
    let pages = pages().home("/exports?all=1&x").unwrap();
    let (ready, failed) = (pages.start(&file).url(), pages.start(failed.id()).url());
    let short = pages.start(&file).lasts(std::time::Duration::ZERO).url();
    app.jump(std::time::Duration::from_secs(2));
    let post = |uri: &str| TestRequest::post().uri(uri);
    let usual = ask(celeriac, &pages, get(&ready)).await;
    for (request, status, text) in [
        (get("/soil/%00"), 400, "This link is broken"),
        (get(&format!("/soil/{file}")), 403, "This is not yours to see"),
        (get(&beyond(&failed, "/file")), 404, "What was to make it has failed."),
        (get("/soil/a/b/c/d"), 404, "There is no such page"),
        (post(&ready), 405, "That cannot be done here"),
        (get(&short), 410, "This link has expired"),
        (get(&pages.start(&"nobody".into()).url()), 404, "Nobody knows this download."),
    ] {
        let page = ask(celeriac, &pages, request).await;
        assert_eq!(page.status.as_u16(), status, "{text}");
        assert!(page.body.contains(text), "{text}: {}", page.body);
        for part in [
            "<html lang=\"en\">",
            "<link rel=\"stylesheet\" href=\"/soil/assets/soil.css\">",
            "class=\"soil-card\"",
            "<h1>",
            "<a href=\"/exports?all=1&amp;x\">Go back</a>",
        ] {
            assert!(page.body.contains(part), "{status} {part}: {}", page.body);
        }
        for name in [
            "content-type",
            "content-security-policy",
            "x-content-type-options",
            "referrer-policy",
            "cache-control",
            "content-language",
        ] {
            assert_eq!(page.header(name), usual.header(name), "{status} {name}");
        }
    }
    // Who asks for JSON gets JSON.
    let told = ask(celeriac, &pages, get(&format!("/soil/{file}/status"))).await.json();
    assert_eq!(told["error"], "This is not yours to see");
}

#[actix_web::test]
async fn without_an_address_of_the_program_a_refusal_leads_to_where_the_reader_came_from() {
    let app = testing::start().await.unwrap();
    let celeriac = app.celeriac();
    let from = |referer: &str| {
        let request = get("/soil/nobody").insert_header(("Host", "hq.example"));
        request.insert_header(("Referer", referer.to_owned()))
    };
    let page = ask(celeriac, &pages(), from("https://hq.example/exports?page=2&x=\"><b>")).await;
    assert!(
        page.body.contains("<a href=\"/exports?page=2&amp;x=&quot;&gt;&lt;b&gt;\">Go back</a>"),
        "{}",
        page.body
    );
    for other in ["https://evil.example/", "https://hq.example//evil.example/", "https://hq.example/soil/x"] {
        let page = ask(celeriac, &pages(), from(other)).await;
        assert!(!page.body.contains("Go back") && !page.body.contains("evil"), "{other}: {}", page.body);
    }
    // A page about something that is there does not guess.
    let file = made(&app, "a.csv", None).await;
    let ready = get(&pages().start(&file).url()).insert_header(("Host", "hq.example"));
    let ready = ask(celeriac, &pages(), ready.insert_header(("Referer", "https://hq.example/exports"))).await;
    assert!(!ready.body.contains("Go back"), "{}", ready.body);
}
