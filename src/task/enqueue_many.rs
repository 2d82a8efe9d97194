//! Many calls of one task with one receipt.

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;

#[cfg(feature = "otel")]
use super::sending::sending;
use super::{AsyncResult, Client, EnqueueError, NewTask, Signature, Task, current};

impl<T: Task> Signature<T> {
    /// Enqueues these calls with the program's running [`Celeriac`](crate::Celeriac), all together. `task::delay_many`
    /// is the short form for calls without options of their own. See [`EnqueueMany`].
    ///
    /// ```no_run
    /// # use celeriac::{task, Signature};
    /// #[task]
    /// async fn send_email(user: u64) {}
    ///
    /// # async fn demo(late: Vec<u64>) -> Result<(), celeriac::EnqueueError> {
    /// let reminders = late.into_iter().map(|user| send_email::s(user).priority(1));
    /// let sent = Signature::delay_many(reminders).await?;
    /// println!("{} reminders are on their way", sent.len());
    /// # Ok(()) }
    /// # fn main() {}
    /// ```
    pub fn delay_many(calls: impl IntoIterator<Item = Self>) -> EnqueueMany<T> {
        EnqueueMany { calls: calls.into_iter().collect(), client: None }
    }

    /// Enqueues the calls as [`delay_many`](Self::delay_many) does, with this handle, for programs that run more than one.
    pub fn send_many(
        calls: impl IntoIterator<Item = Self>,
        client: impl Into<Arc<dyn Client>>,
    ) -> EnqueueMany<T> {
        EnqueueMany { calls: calls.into_iter().collect(), client: Some(client.into()) }
    }
}

/// An enqueue of many calls that has not begun. Nothing happens until it is awaited or [waited](Self::wait) for.
///
/// The embedded store writes all calls in one commit, and takes all of them or none. RabbitMQ confirms each message by
/// itself, many at a time: after an error some of the calls may be taken. The same holds on every broker if one of the
/// calls may join an earlier one (`unique_for`), is serial, or waits in memory only. The calls of one queue keep their
/// order, unless it has partitions on RabbitMQ or RabbitMQ need not confirm them (`confirm = false`).
///
/// All of the calls are in memory until they are taken, and while the embedded store writes them it takes nothing else. So a
/// program with a million calls hands over some thousands at a time.
///
/// If two of the calls state the same id, none is taken.
///
/// It answers with the results to come, in the order of the calls.
#[must_use = "nothing is enqueued until this is awaited"]
pub struct EnqueueMany<T: Task> {
    calls: Vec<Signature<T>>,
    client: Option<Arc<dyn Client>>,
}

impl<T: Task> EnqueueMany<T> {
    async fn run(self) -> Result<Vec<AsyncResult<T>>, EnqueueError> {
        let client = match self.client {
            Some(client) => client,
            None => current().ok_or(EnqueueError::NotRunning)?,
        };
        // Every call is encoded before anything is sent, so that an argument without a form in JSON sends nothing.
        let calls: Vec<NewTask> = self
            .calls
            .into_iter()
            .map(|call| call.into_call().map(|call| *call))
            .collect::<Result<_, _>>()?;
        let ignored: Vec<bool> = calls.iter().map(|call| call.options.ignore_result).collect();
        let sent = client.enqueue_many(calls);
        #[cfg(feature = "otel")]
        let sent = sending(T::NAME, sent, |_| None);
        let receipts = sent.await?;
        let results = receipts.into_iter().zip(ignored);
        Ok(results
            .map(|(receipt, ignored)| AsyncResult::new(receipt, ignored, Arc::clone(&client)))
            .collect())
    }

    /// Enqueues from code that is not asynchronous, as [`Enqueue::wait`](super::Enqueue::wait) does.
    ///
    /// # Errors
    /// See [`EnqueueError`].
    ///
    /// # Panics
    /// The current thread drives asynchronous tasks. Use `.await` there.
    pub fn wait(self) -> Result<Vec<AsyncResult<T>>, EnqueueError> {
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => runtime.block_on(self.run()),
            Err(_) => futures_executor::block_on(self.run()),
        }
    }
}

impl<T: Task> IntoFuture for EnqueueMany<T> {
    type Output = Result<Vec<AsyncResult<T>>, EnqueueError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}
