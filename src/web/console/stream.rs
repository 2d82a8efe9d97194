//! Pushes the part of a page that changes, by Server-Sent Events.
//!
//! Each event is the whole part, so a missed event is no loss. A stream ends after [`LIFE`], and at once when the program
//! ends; its browser comes back by itself, and is asked anew who it is.

use std::time::{Duration, Instant};

use actix_web::http::header::ContentEncoding;
use actix_web::web::Bytes;
use actix_web::{HttpResponse, rt};

use super::problem::ConsoleProblem;
use super::visit::ConsoleVisit;
use super::{frame, pages};
use crate::web::streams::OpenStream;

/// The time between two events.
const PAUSE: Duration = Duration::from_secs(3);
/// How long a stream lasts.
const LIFE: Duration = Duration::from_secs(60);

struct PageStream {
    visit: ConsoleVisit,
    _counted: OpenStream,
    began: Instant,
    /// The events so far.
    events: u64,
}

/// The stream of a page that may be seen.
pub(super) fn stream(visit: ConsoleVisit) -> Result<HttpResponse, ConsoleProblem> {
    let counted = visit.console.streams.open(&visit.viewer.who).ok_or_else(ConsoleProblem::crowded)?;
    let events = PageStream { visit, _counted: counted, began: Instant::now(), events: 0 };
    let body = futures_util::stream::unfold(events, |mut events| async move {
        let next = events.next().await?;
        Some((Ok::<_, std::convert::Infallible>(next), events))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header(ContentEncoding::Identity)
        // This turns off the buffer that nginx has by default.
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(body))
}

impl PageStream {
    /// The next event; `None`: the stream is over.
    async fn next(&mut self) -> Option<Bytes> {
        let ending = self.visit.console.celeriac.ending();
        tokio::select! {
            biased;
            () = ending.cancelled() => None,
            next = self.event() => next,
        }
    }

    async fn event(&mut self) -> Option<Bytes> {
        if self.began.elapsed() >= LIFE {
            return None;
        }
        let is_first = self.events == 0;
        if !is_first {
            rt::time::sleep(PAUSE).await;
        }
        self.events += 1;
        // An error ends the stream, and the page says so when it asks by itself.
        let body = pages::look(&self.visit).await.ok()?;
        let part = serde_json::to_string(&frame::part(&self.visit, &body).into_string()).unwrap_or_default();
        let retry = if is_first { "retry: 2000\n" } else { "" };
        Some(Bytes::from(format!("{retry}event: part\ndata: {part}\n\n")))
    }
}
