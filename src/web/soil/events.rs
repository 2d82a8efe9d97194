//! Pushes a view as it changes, by Server-Sent Events.
//!
//! Each event is a whole view, so a missed event is no loss, and a client that connects again is up to date at once.
//! The stream ends with the last view. If nothing changes, a client still hears something once in each [`ALIVE`].
//!
//! When the runtime begins to shut down, all streams end, because they would hold up the server. Their browsers connect
//! again after a second, and find the next process, or poll.

use std::time::Duration;

use actix_web::http::header::{self, ContentEncoding};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, select_all};
use tokio_util::sync::CancellationToken;

use super::access::Action;
use super::problem::ProblemDetails;
use super::routes::{Site, Visit, admit, tell};
use crate::soil::Status;
use crate::web::streams::OpenStream;

/// The time after which a silent stream sends a comment, which finds out whether proxies and clients are still there.
const ALIVE: Duration = Duration::from_secs(15);
/// The least time between two looks at a large group.
const LOOK: Duration = Duration::from_secs(1);
/// The least time between two events, so that a fast task does not flood a slow browser.
const QUIET: Duration = Duration::from_millis(100);

/// The most members of a group that are watched one by one. A larger group is looked at from time to time, as
/// thousands of waits cost too much.
const WATCHED: usize = 32;

struct Stream {
    visit: Visit,
    changes: BoxStream<'static, Option<Option<Status>>>,
    /// The time until a large group is looked at again.
    pause: Duration,
    _counted: OpenStream,
    ending: CancellationToken,
    last: Option<String>,
    over: bool,
}

pub(super) async fn stream(
    request: HttpRequest,
    site: web::Data<Site>,
) -> Result<HttpResponse, ProblemDetails> {
    let visit = admit(&request, &site, Action::Look).await.map_err(ProblemDetails::json)?;
    let counted =
        visit.site.pages.streams.open(visit.link()).ok_or_else(|| ProblemDetails::crowded().json())?;
    let tasks = visit.tasks();
    let changes = if tasks.len() > WATCHED {
        futures_util::stream::pending().boxed()
    } else {
        let watch = |id| visit.site.soil.watch(&id).map(|seen| seen.ok().map(Some)).boxed();
        select_all(tasks.into_iter().map(watch)).boxed()
    };
    // A group is looked at once at the beginning.
    let first = futures_util::stream::iter(visit.is_group().then_some(Some(None)));
    let changes = first.chain(changes).boxed();
    let ending = visit.site.ending.clone();
    let events = Stream { visit, changes, pause: ALIVE, _counted: counted, ending, last: None, over: false };
    let body = futures_util::stream::unfold(events, |mut events| async move {
        let next = events.next().await?;
        Some((Ok::<_, std::convert::Infallible>(next), events))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(ContentEncoding::Identity)
        // This turns off the buffer that nginx has by default.
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(body))
}

impl Stream {
    /// The next event; `None`: the stream is over, or the runtime shuts down.
    async fn next(&mut self) -> Option<Bytes> {
        let ending = self.ending.clone();
        tokio::select! {
            biased;
            () = ending.cancelled() => None,
            next = self.change() => next,
        }
    }

    async fn change(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let first = self.last.is_none();
        if !first {
            actix_web::rt::time::sleep(QUIET).await;
        }
        loop {
            let changed = match actix_web::rt::time::timeout(self.pause, self.changes.next()).await {
                Err(_) if self.pause == ALIVE && self.visit.is_open().await => {
                    return Some(Bytes::from_static(b": alive\n\n"));
                }
                Err(_) => None,
                Ok(None) => {
                    self.over = true;
                    None
                }
                // An error ends the stream, and the browser connects again.
                Ok(Some(changed)) => changed?,
            };
            // The application may have revoked the link meanwhile.
            if !self.visit.is_open().await {
                return None;
            }
            let view = match changed {
                Some(status) if !self.visit.is_group() => self.visit.view_of(status),
                _ => self.visit.view().await.ok()?,
            };
            self.over |= view.is_over();
            if self.visit.tasks_count() > WATCHED {
                self.pause = view.next_poll_ms.map_or(ALIVE, |ms| Duration::from_millis(ms).max(LOOK));
            }
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
