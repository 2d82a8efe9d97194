//! A view pushed as it changes: Server-Sent Events.
//!
//! Each event is a whole view, so one that was missed is no loss, and who connects again after a cut is up to date at once.
//! The stream ends with the last one. Nothing is sent for longer than [`ALIVE`] only to a client that is gone.

use std::time::Duration;

use actix_web::http::header::{self, ContentEncoding};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, select_all};

use super::access::Action;
use super::problem::Problem;
use super::routes::{Site, Visit, admit, tell};
use crate::soil::Status;

/// Proxies and clients that are gone are noticed so soon.
const ALIVE: Duration = Duration::from_secs(15);
/// Between two events lies so much time, so that a fast task does not flood a slow browser.
const QUIET: Duration = Duration::from_millis(100);

struct Stream {
    visit: Visit,
    changes: BoxStream<'static, Option<Status>>,
    last: Option<String>,
    over: bool,
}

pub(super) async fn stream(request: HttpRequest, site: web::Data<Site>) -> Result<HttpResponse, Problem> {
    let visit = admit(&request, &site, Action::Look).await.map_err(Problem::json)?;
    let watches = visit.tasks().into_iter().map(|id| visit.site.soil.watch(&id).map(Result::ok).boxed());
    let changes = select_all(watches).boxed();
    let events = Stream { visit, changes, last: None, over: false };
    let body = futures_util::stream::unfold(events, |mut events| async move {
        let next = events.next().await?;
        Some((Ok::<_, std::convert::Infallible>(next), events))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(ContentEncoding::Identity)
        // What nginx buffers by default.
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(body))
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let first = self.last.is_none();
        if !first {
            actix_web::rt::time::sleep(QUIET).await;
        }
        loop {
            let changed = match actix_web::rt::time::timeout(ALIVE, self.changes.next()).await {
                Err(_) => return Some(Bytes::from_static(b": alive\n\n")),
                Ok(None) => {
                    self.over = true;
                    None
                }
                // An error ends the stream; the browser connects again.
                Ok(Some(changed)) => Some(changed?),
            };
            let view = match changed {
                Some(status) if !self.visit.is_group() => self.visit.view_of(status).await,
                _ => self.visit.view().await.ok()?,
            };
            self.over |= view.is_over();
            let told = tell(&view);
            if self.last.as_ref() != Some(&told) {
                let retry = if first { "retry: 1000\n" } else { "" };
                let event = format!("{retry}event: status\ndata: {told}\n\n");
                self.last = Some(told);
                return Some(Bytes::from(event));
            }
            if self.over {
                return None;
            }
        }
    }
}
