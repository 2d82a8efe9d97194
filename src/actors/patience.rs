//! How long the answer of an actor is waited for.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::timeout;

/// How long an actor may take to say how things are. Celery's `inspect` waits for its workers as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// The time in which an actor may answer has so many parts.
const PARTS: u32 = 10;

/// Waits for an answer for as long as `patience`, which passes in parts. A process that gets no processor for a while sees
/// the end of one part only, and its actors have the others to answer in. By one deadline all of them would be silent,
/// because the clock went on while they could not.
///
/// # Errors
/// There was no answer.
pub(crate) async fn answered<F: Future>(patience: Duration, answer: F) -> Result<F::Output, Elapsed> {
    let mut answer = pin!(answer);
    for _ in 1..PARTS {
        if let Ok(answer) = timeout(patience / PARTS, answer.as_mut()).await {
            return Ok(answer);
        }
    }
    timeout(patience / PARTS, answer.as_mut()).await
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::oneshot;
    use tokio::task::yield_now;
    use tokio::time::{Instant, advance};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_is_silent_when_the_time_is_over() {
        let begun = Instant::now();
        assert!(answered(SECOND, pending::<()>()).await.is_err());
        assert!((SECOND..2 * SECOND).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_was_stopped_has_the_rest_of_the_time() {
        let (tell, told) = oneshot::channel();
        let asked = tokio::spawn(answered(SECOND, told));
        yield_now().await;
        advance(60 * SECOND).await;
        yield_now().await;
        assert!(!asked.is_finished());
        tell.send(7).unwrap();
        assert_eq!(asked.await.unwrap(), Ok(Ok(7)));
    }
}
