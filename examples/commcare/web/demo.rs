//! Soil's demo: exports that take their time, that fail, and that come in parts. HQ's `soil_demo` in Celeriac's terms.

use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpResponse, web};
use celeriac::soil::Download;
use celeriac::web::SoilPages;
use celeriac::web::soil::{Access, Language, StartResponse};
use celeriac::{Celeriac, Context, TaskError, task};

use super::{Problem, downloads};

const PAGE: &str = include_str!("demo.html");
/// Rows of a file, and steps of its bar.
const ROWS: u64 = 100;

/// How long the demo's tasks take.
#[derive(Clone, Copy)]
pub struct Pace {
    /// An export.
    pub seconds: u64,
}

/// A file that takes so many seconds. Who asks for one that is being made joins that.
#[task(queue = "export_download_queue", unique_for = "30m", unique_key = "{name}")]
async fn slow_export(ctx: Context, name: String, seconds: u64) -> Result<u64, TaskError> {
    let mut csv = format!("case,visits,run {}\n", ctx.attempt());
    ctx.progress_note("Collecting the cases");
    for row in 0..ROWS {
        ctx.check()?;
        tokio::time::sleep(Duration::from_secs(seconds) / 100).await;
        csv += &format!("case {row},{}\n", row % 7);
        ctx.progress(row + 1, ROWS);
        if row == ROWS / 2 {
            ctx.progress_note("Writing the file");
        }
    }
    ctx.expose_download(Download::from_bytes(csv).name(format!("{name}.csv"))).await?;
    Ok(ROWS)
}

/// Soil's option 1: it says what is wrong, and ends.
#[task(queue = "export_download_queue")]
async fn fails_with_a_list(ctx: Context) -> Result<(), TaskError> {
    ctx.progress(4, 10);
    Err(ctx.fail(["row 3: no case of id \"<b>x7</b>\"", "row 9: 2026-02-30 is no date"]))
}

/// Soil's option 2: its error is what is told.
#[task(queue = "export_download_queue", max_retries = 0)]
async fn fails_with_an_error() -> Result<(), std::io::Error> {
    Err(std::io::Error::other("my uncool error"))
}

/// `GET /soil-demo`
pub async fn page() -> HttpResponse {
    const POLICY: &str =
        "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(PAGE)
}

/// `POST /soil-demo/{kind}`
pub async fn start(
    kind: web::Path<String>,
    pages: web::Data<SoilPages>,
    celeriac: web::Data<Celeriac>,
    pace: web::Data<Pace>,
) -> Result<StartResponse, Problem> {
    let seconds = pace.seconds;
    let answer = match kind.as_str() {
        "export" => {
            let task = slow_export::delay("Fälle demo".to_owned(), seconds).await?;
            pages.start(task.id()).message("Your export is ready.")
        }
        "long" => {
            let task = slow_export::s("long".to_owned(), 15 * seconds).unique_key(uuid::Uuid::now_v7());
            let task = task.delay().await?;
            pages.start(task.id())
        }
        "fail-listed" => pages.start(fails_with_a_list::delay().await?.id()),
        "fail-raised" => pages.start(fails_with_an_error::delay().await?.id()),
        "group" => {
            let mut parts = Vec::new();
            for part in 1..=3 {
                let call = slow_export::s(format!("part {part}"), part * seconds / 4);
                let call = call.unique_key(uuid::Uuid::now_v7());
                parts.push(call.delay().await?.id().clone());
            }
            let group = downloads::make_group(&celeriac, &parts).await?;
            pages.start_group(&group).message("Your export is ready, in three parts.")
        }
        other => return Err(Problem::not_found(format!("there is no demo `{other}`"))),
    };
    Ok(answer)
}

/// The pages, with a secret that outlives the program. There is no login here, so whoever has a link may use it, whomever the
/// file belongs to.
pub fn pages(data: &std::path::Path) -> Result<SoilPages, Box<dyn std::error::Error>> {
    let file = data.join("soil-secret");
    if !file.exists() {
        let secret: [u8; 32] = rand::random();
        let written = crate::hq::write_whole(&file, |out| Ok(std::io::Write::write_all(out, &secret)?));
        written.map_err(|error| error.to_string())?;
    }
    // One that an earlier version wrote may be open to others.
    #[cfg(unix)]
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let languages = [Language::english(), Language::french(), Language::arabic()];
    let pages = SoilPages::new(std::fs::read(file)?)?.home("/soil-demo")?.languages(languages)?;
    Ok(pages.access(|_, asked| async move { if asked.signed { Access::Allowed } else { Access::Denied } }))
}
