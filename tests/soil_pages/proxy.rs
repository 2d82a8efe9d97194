//! Files that a server in front of the program sends.

use actix_web::http::{Method, StatusCode};
use actix_web::test::TestRequest;
use celeriac::soil::Download;
use celeriac::testing;
use celeriac::web::SoilPages;
use celeriac::{Celeriac, TaskId};

use super::routes::{ask, beyond, get, made, pages};

async fn file(celeriac: &Celeriac) -> TaskId {
    let download = Download::from_bytes("0123456789").name("a.csv").owner("amina");
    celeriac.soil().expose(download).await.unwrap()
}

/// Allows what `amina` asks.
fn for_amina(pages: SoilPages) -> SoilPages {
    use celeriac::web::soil::Access;
    pages.access(|request, _| async move {
        let is_amina = request.headers().get("X-User").is_some_and(|user| user == "amina");
        if is_amina { Access::Allowed } else { Access::Denied }
    })
}

#[actix_web::test]
async fn a_file_on_disk_is_sent_by_the_server_in_front() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = Celeriac::builder().in_memory().downloads_in(dir.path()).start().await.unwrap();
    let id = file(&celeriac).await;
    let url = beyond(&pages().start(&id).url(), "/file");
    for (pages, name, prefix) in [
        (pages().x_accel_redirect("/files of hq/"), "x-accel-redirect", "/files%20of%20hq/"),
        (pages().x_accel_redirect("/"), "x-accel-redirect", "/"),
        (pages().x_sendfile("/srv/downloads/"), "x-sendfile", "/srv/downloads/"),
    ] {
        let pages = for_amina(pages);
        for method in [Method::GET, Method::HEAD] {
            let request = || TestRequest::default().method(method.clone()).uri(&url);
            let denied = ask(&celeriac, &pages, request()).await;
            assert_eq!((denied.status, denied.header(name)), (StatusCode::FORBIDDEN, ""));

            let ranged = request().insert_header(("X-User", "amina")).insert_header(("Range", "bytes=0-3"));
            let answer = ask(&celeriac, &pages, ranged).await;
            assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, ""), "{name}");
            let escaped = answer.header(name).strip_prefix(prefix).expect("the path is below the prefix");
            // The server decodes the path.
            let below = escaped.replace("%3D", "=");
            assert_eq!(std::fs::read_to_string(dir.path().join(below)).unwrap(), "0123456789");
            assert!(answer.header("content-disposition").contains("a.csv"));
            assert!(answer.header("content-type").starts_with("text/csv"));
            assert_eq!(answer.header("cache-control"), "private, no-cache");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
        }
    }
    // The file is gone, and its record is not: nobody is led to it.
    std::fs::remove_dir_all(dir.path().join("celeriac-downloads/payload")).unwrap();
    let gone = get(&url).insert_header(("X-User", "amina"));
    let gone = ask(&celeriac, &for_amina(pages().x_sendfile("/srv")), gone).await;
    assert!(!gone.status.is_success(), "{}", gone.status);
    assert_eq!(gone.header("x-sendfile"), "");
    celeriac.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_file_that_is_not_on_disk_is_sent_by_the_program() {
    let app = testing::start().await.unwrap();
    let pages = pages().x_accel_redirect("/files");
    let url = beyond(&pages.start(&made(&app, "a.csv", None).await).url(), "/file");
    let answer = ask(app.celeriac(), &pages, get(&url)).await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "0123456789"));
    assert_eq!(answer.header("x-accel-redirect"), "");
}
