//! Runs an actix-web server and the runtime until the program is told to end, and ends both within one grace.
//!
//! One after the other they would take two graces, and whichever ended last would do without the other: requests whose
//! tasks are refused, or downloads that break off. Here both begin to end at once. The server accepts nothing more and
//! answers the requests that it has; what they enqueue is still taken. The event streams of Soil's pages end at once, and
//! their browsers come back to the next process. The runtime closes when the server has answered its last request and the
//! last run is over. At the end of the grace both are cut short.

use std::borrow::BorrowMut;
use std::io;
use std::time::Duration;

use actix_web::dev::Server;

use crate::Celeriac;
use crate::app::ShutdownReport;
use crate::broker::BrokerError;

/// How long the server gets to hand to its workers what it has accepted, before it is told to stop. A stop drops a
/// connection that no worker has seen yet.
const HAND_OVER: Duration = Duration::from_millis(100);

/// Why a program with a server and a runtime did not end well.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The server failed; the runtime was shut down.
    #[error("the server failed: {0}")]
    Server(#[source] io::Error),
    /// Signals cannot be waited for, or it is not known whether what was settled last is safe.
    #[error(transparent)]
    Runtime(BrokerError),
}

crate::core::debug_as_display!(RunError);

/// Runs the server until SIGTERM, SIGINT or Ctrl-C, or until somebody asks for the end by remote control, and then ends
/// server and runtime together within the [grace](crate::Builder::shutdown_grace) of the runtime. If the server ends by itself,
/// the runtime is shut down as well.
///
/// The server is awaited here, so it is not awaited elsewhere. Its own signals may stay on, but a SIGINT then cuts its
/// requests short. Its `shutdown_timeout` (30 s) holds as well: give it at least the grace.
///
/// A program that serves requests before the runtime has started, because it
/// [waits for its directory](crate::Builder::wait_for_directory), passes the server by reference.
///
/// ```no_run
/// use actix_web::{App, HttpServer, web};
/// use celeriac::Celeriac;
///
/// #[actix_web::main]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let celeriac = Celeriac::builder().directory("data").start().await?;
///     let state = web::Data::new(celeriac.clone());
///     let server = HttpServer::new(move || App::new().app_data(state.clone()))
///         .disable_signals() // `run` listens for them
///         .bind(("127.0.0.1", 8080))?
///         .run();
///     celeriac::web::run(server, &celeriac).await?;
///     Ok(())
/// }
/// ```
///
/// # Errors
/// The server failed, signals cannot be waited for, or the broker could not make its last settlements safe.
pub async fn run(
    mut server: impl BorrowMut<Server>,
    celeriac: &Celeriac,
) -> Result<ShutdownReport, RunError> {
    let server: &mut Server = server.borrow_mut();
    let mut ended = tokio::select! {
        biased; // the first look installs the handlers of signals, before the server takes a request
        told = celeriac.told_to_end() => match told {
            Ok(()) => None,
            // The server is not left alone with a runtime that nobody ends.
            Err(error) => {
                let _ = celeriac.shutdown().await;
                return Err(RunError::Runtime(error));
            }
        },
        ended = &mut *server => Some(ended),
    };
    let stopped = async {
        if ended.is_none() {
            ended = Some(stop(server).await);
        }
    };
    let report = celeriac.shutdown_beside(celeriac.grace(), stopped).await;
    match (ended, report) {
        (Some(Err(error)), _) => Err(RunError::Server(error)),
        (_, Err(error)) => Err(RunError::Runtime(error)),
        (_, Ok(report)) => Ok(report),
    }
}

/// Has the server answer what it has accepted, and nothing more.
async fn stop(server: &mut Server) -> io::Result<()> {
    let handle = server.handle();
    let stopping = async {
        handle.pause().await;
        tokio::time::sleep(HAND_OVER).await;
        handle.stop(true).await;
        // The server says itself that it has ended.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = server => ended,
        () = stopping => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use actix_web::{App, HttpServer, web};
    use tokio::sync::Notify;

    use super::*;
    use crate::app::alone::is_alone;
    use crate::{Durability, EnqueueError, task};

    const LONG: Duration = Duration::from_secs(120);

    #[task]
    async fn counted() {}

    /// What a request waits for, and what it has enqueued.
    #[derive(Default)]
    struct Held {
        came: Notify,
        goes: Notify,
        taken: AtomicUsize,
        refused: AtomicUsize,
    }

    async fn slow(held: web::Data<Held>, celeriac: web::Data<Celeriac>) -> &'static str {
        held.came.notify_one();
        held.goes.notified().await;
        let count = |taken: bool| if taken { &held.taken } else { &held.refused };
        let durable = counted::s().send(celeriac.client()).await;
        count(durable.is_ok()).fetch_add(1, Ordering::SeqCst);
        // What would be gone with the program is not promised any more.
        let volatile = counted::s().durability(Durability::Memory).send(celeriac.client()).await;
        assert_eq!(volatile.err(), Some(EnqueueError::ShuttingDown));
        "done"
    }

    #[test]
    fn a_request_that_is_answered_during_the_end_may_still_enqueue() {
        let name = "web::run::tests::a_request_that_is_answered_during_the_end_may_still_enqueue";
        if is_alone(name) {
            actix_web::rt::System::new().block_on(answers_during_the_end());
        }
    }

    /// The server itself ends here, because a signal would end all of this process.
    async fn answers_during_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let celeriac = Celeriac::builder().directory(dir.path()).shutdown_grace(LONG).start().await.unwrap();
        let (held, state) = (web::Data::new(Held::default()), web::Data::new(celeriac.clone()));
        let of_server = held.clone().into_inner();
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = HttpServer::new(move || {
            let (held, state) = (web::Data::from(Arc::clone(&of_server)), state.clone());
            App::new().app_data(held).app_data(state).route("/", web::get().to(slow))
        })
        .workers(1)
        .disable_signals()
        .shutdown_timeout(600)
        .listen(listener)
        .unwrap()
        .run();
        let request = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        tokio::select! {
            ended = &mut server => panic!("the server has ended: {ended:?}"),
            came = tokio::time::timeout(LONG, held.came.notified()) => came.unwrap(),
        }
        let ending = celeriac.ending();
        let release = async {
            ending.cancelled().await;
            let second = celeriac.shutdown().await.unwrap();
            assert_eq!(second, ShutdownReport::default(), "it waits for nothing, and refuses nobody");
            held.goes.notify_one();
        };
        let stopped = async { stop(&mut server).await.unwrap() };
        let (report, ()) = tokio::join!(celeriac.shutdown_beside(LONG, stopped), release);
        assert!(report.unwrap().drained);
        let answer = request.join().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
        assert_eq!((held.taken.load(Ordering::SeqCst), held.refused.load(Ordering::SeqCst)), (1, 0));
        let late = counted::s().send(celeriac.client()).await;
        assert_eq!(late.err(), Some(EnqueueError::ShuttingDown));
        assert!(celeriac.is_shutting_down());
    }
}
