//! The answers of several actors that were asked at once.

use std::ops::{Deref, DerefMut};

use serde::Serialize;

/// The replies of the actors that answered within the deadline, and the names of those that did not. Celery's
/// `inspect` likewise has the replies of the workers that answered. It dereferences to the list of replies: `for
/// queue in celeriac.queues().await?`.
///
/// An actor that is missing is alive as a rule: a task blocks its event loop (the log says so after five seconds),
/// or it is being built anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Replies<T> {
    /// The replies, in the order in which the actors were asked.
    pub replies: Vec<T>,
    /// The names of the actors that did not answer, in the same order.
    pub missing: Vec<String>,
}

impl<T> Replies<T> {
    /// The replies of actors that answer once each; `None` is no answer.
    pub(super) fn of(asked: impl IntoIterator<Item = (String, Option<T>)>) -> Self {
        let mut all = Self { replies: Vec::new(), missing: Vec::new() };
        for (name, reply) in asked {
            match reply {
                Some(reply) => all.replies.push(reply),
                None => all.missing.push(name),
            }
        }
        if !all.missing.is_empty() {
            tracing::debug!(missing = ?all.missing, "a status is not complete: these do not answer");
        }
        all
    }
}

impl<T> Replies<T> {
    /// The replies of actors that answer with a list each; the lists are joined.
    pub(super) fn of_lists(asked: impl IntoIterator<Item = (String, Option<Vec<T>>)>) -> Self {
        let Replies { replies, missing } = Replies::of(asked);
        Self { replies: replies.into_iter().flatten().collect(), missing }
    }
}

impl<T> Deref for Replies<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.replies
    }
}

impl<T> DerefMut for Replies<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.replies
    }
}

impl<T> IntoIterator for Replies<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.replies.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a Replies<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.replies.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::Celeriac;
    use crate::catalogue::QueueRow;

    /// This starts a runtime, which every `delay` of its process uses from then on. Other tests of this binary
    /// rely on there being none, so it runs in a process of its own.
    #[test]
    fn a_queue_that_is_being_rebuilt_is_left_out_by_name_and_fails_nothing() {
        const ALONE: &str = "CELERIAC_TEST_ALONE";
        if std::env::var_os(ALONE).is_some() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            return runtime.block_on(kills_a_queue());
        }
        let name = "app::replies::tests::a_queue_that_is_being_rebuilt_is_left_out_by_name_and_fails_nothing";
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let ran = alone.args(["--exact", name]).env(ALONE, "1").output().unwrap();
        let told = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && told.contains("1 passed"), "{told}");
    }

    async fn kills_a_queue() {
        let rows = ["first", "second"].map(QueueRow::new);
        let builder = rows.into_iter().fold(Celeriac::builder(), crate::Builder::queue);
        let celeriac = builder.in_memory().start().await.unwrap();
        let start = Instant::now();
        let mut was_left_out = false;
        while !was_left_out {
            celeriac.inner.queues.kill("first");
            let queues = celeriac.queues().await.unwrap();
            let names: Vec<_> = queues.iter().map(|queue| queue.name.as_str()).collect();
            // Where this thread gets no time, it is there again before it is asked, or another one does not answer in time.
            was_left_out = queues.missing == ["first"];
            assert_eq!(names.contains(&"first"), !queues.missing.contains(&"first".to_owned()), "{names:?}");
            assert_eq!(
                names.contains(&"second"),
                !queues.missing.contains(&"second".to_owned()),
                "{names:?}"
            );
            while !celeriac.queues().await.unwrap().missing.is_empty() {
                assert!(start.elapsed() < Duration::from_secs(120), "it is never built again");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(start.elapsed() < Duration::from_secs(120), "it is never left out");
        }
        celeriac.shutdown().await.unwrap();
    }
}
