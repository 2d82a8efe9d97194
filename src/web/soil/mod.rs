//! Soil in the browser: a page that shows the progress of a task and ends with its file.
//!
//! | route | what |
//! |---|---|
//! | `GET {id}` | the page; with `?get_file` the file, as in HQ |
//! | `GET ajax/{id}` | the part of the page that changes, HQ's `ajax_job_poll` |
//! | `GET {id}/status` | the same as JSON, with `next_poll_ms` |
//! | `GET {id}/events` | the same pushed, as Server-Sent Events |
//! | `GET`, `HEAD {id}/file` | the file; of a group `{id}/file/{n}`, from 0 |
//! | `POST {id}/cancel` | revokes |
//! | `GET assets/…` | the style sheet and the script |
//!
//! Each needs the `key` of a [link](SoilPages::start), unless the pages are [open](SoilPages::open_to_ids).
//!
//! [Title](SoilPages::title), [colours](SoilPages::theme), [frame](SoilPages::layout) and
//! [languages](SoilPages::languages) are the program's to choose.
//!
//! ```no_run
//! use actix_web::{App, HttpServer, Responder, post, web};
//! use celeriac::soil::Download;
//! use celeriac::web::{SoilPages, soil};
//! use celeriac::{Celeriac, Context, TaskError, task};
//!
//! #[task(queue = "export_download_queue")]
//! async fn export(ctx: Context, rows: u64) -> Result<(), TaskError> {
//!     for row in 0..rows {
//!         ctx.progress(row + 1, rows);
//!     }
//!     ctx.expose_download(Download::from_bytes("row\n").name("rows.csv")).await?;
//!     Ok(())
//! }
//!
//! #[post("/exports")]
//! async fn start(pages: web::Data<SoilPages>) -> impl Responder {
//!     let task = export::delay(1_000).await.map_err(actix_web::error::ErrorServiceUnavailable)?;
//!     Ok::<_, actix_web::Error>(pages.start(task.id()).message("Your export is ready."))
//! }
//!
//! #[actix_web::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let celeriac = Celeriac::builder().directory("data").start().await?;
//!     let pages = SoilPages::new(std::env::var("SOIL_SECRET")?)?;
//!     let server = HttpServer::new({
//!         let celeriac = celeriac.clone();
//!         move || {
//!             App::new()
//!                 .app_data(web::Data::new(pages.clone()))
//!                 .service(start)
//!                 .service(soil(&celeriac, &pages))
//!         }
//!     });
//!     let server = server.disable_signals().bind(("127.0.0.1", 8080))?.run();
//!     celeriac::web::run(server, &celeriac).await?;
//!     Ok(())
//! }
//! ```

mod access;
mod assets;
mod branding;
mod events;
mod file;
mod html;
mod key;
mod link;
mod pages;
mod problem;
mod proxy_header;
mod routes;
mod single_flight;
mod texts;
mod view;
mod way_back;

pub use access::{Access, Action, Asked};
pub use branding::PageContent;
pub use link::StartResponse;
pub use pages::{SoilPages, SoilPagesError};
pub use texts::{Language, Sentence};

use actix_web::dev::HttpServiceFactory;

use crate::Celeriac;

/// All routes of Soil, below the path of the [pages](SoilPages::at): `App::new().service(soil(&celeriac, &pages))`.
pub fn soil(celeriac: &Celeriac, pages: &SoilPages) -> impl HttpServiceFactory + use<> {
    routes::scope(celeriac, pages)
}
