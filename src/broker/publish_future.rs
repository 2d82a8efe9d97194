//! A publish that has begun, as a future without an allocation of its own where the broker is in this process.

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::BrokerError;
use crate::task::{Receipt, TaskId};

/// The answer of a store's thread to a publish: the task that the call has joined, if it has joined one.
type StoreAnswer = oneshot::Receiver<Result<Option<TaskId>, BrokerError>>;

/// A publish that has [begun](super::Broker::begin_publish). Awaited, it answers as [`publish`](super::Broker::publish) does.
///
/// A broker that has an answer at once makes it with [`answered`](Self::answered), and every other one from the boxed future of
/// its `publish`.
#[must_use = "whether the message was taken is not known until this is awaited"]
pub struct PublishFuture<'a>(PublishStage<'a>);

enum PublishStage<'a> {
    /// The broker has answered.
    Answered(Ready<Result<Receipt, BrokerError>>),
    /// The embedded store's thread has the message, and the receipt holds when it answers.
    Asked { receipt: Option<Receipt>, answer: StoreAnswer },
    /// The broker works on it.
    Working(BoxFuture<'a, Result<Receipt, BrokerError>>),
}

impl<'a> PublishFuture<'a> {
    /// A publish that is over already.
    pub fn answered(answer: Result<Receipt, BrokerError>) -> Self {
        Self(PublishStage::Answered(ready(answer)))
    }

    /// A publish that the embedded store's thread answers. `receipt` is that of a task which joins no other.
    pub(super) fn asked(receipt: Receipt, answer: StoreAnswer) -> Self {
        Self(PublishStage::Asked { receipt: Some(receipt), answer })
    }

    /// The same publish with `wrap` around the work of the broker, if the broker is still at work.
    pub(super) fn wrapped<F>(
        self,
        wrap: impl FnOnce(BoxFuture<'a, Result<Receipt, BrokerError>>) -> F,
    ) -> Self
    where
        F: Future<Output = Result<Receipt, BrokerError>> + Send + 'a,
    {
        match self.0 {
            PublishStage::Working(work) => Self(PublishStage::Working(Box::pin(wrap(work)))),
            known => Self(known),
        }
    }
}

impl<'a> From<BoxFuture<'a, Result<Receipt, BrokerError>>> for PublishFuture<'a> {
    fn from(work: BoxFuture<'a, Result<Receipt, BrokerError>>) -> Self {
        Self(PublishStage::Working(work))
    }
}

impl Future for PublishFuture<'_> {
    type Output = Result<Receipt, BrokerError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            PublishStage::Answered(answer) => Pin::new(answer).poll(cx),
            PublishStage::Working(work) => work.as_mut().poll(cx),
            PublishStage::Asked { receipt, answer } => {
                Pin::new(answer).poll(cx).map(|answer| -> Self::Output {
                    // A store that is closed answers nobody.
                    let joined = answer.unwrap_or(Err(BrokerError::Closed))?;
                    let receipt = receipt.take().ok_or(BrokerError::Closed)?;
                    Ok(match joined {
                        Some(id) => receipt.joining(id),
                        None => receipt,
                    })
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::task::Durability;

    fn receipt() -> Receipt {
        Receipt::new("a".into(), "q".to_owned(), Durability::Disk)
    }

    #[test]
    fn the_answer_of_the_stores_thread_is_the_receipt() {
        let (reply, answer) = oneshot::channel();
        let mut publishing = PublishFuture::asked(receipt(), answer);
        assert_eq!((&mut publishing).now_or_never(), None, "nothing is promised before the answer");
        reply.send(Ok(None)).unwrap();
        assert_eq!(publishing.now_or_never(), Some(Ok(receipt())));

        let (reply, answer) = oneshot::channel();
        reply.send(Ok(Some("earlier".into()))).unwrap();
        let joined = PublishFuture::asked(receipt(), answer).now_or_never();
        assert_eq!(joined, Some(Ok(receipt().joining("earlier".into()))));

        let (reply, answer) = oneshot::channel();
        drop(reply);
        assert_eq!(PublishFuture::asked(receipt(), answer).now_or_never(), Some(Err(BrokerError::Closed)));
    }

    #[test]
    fn only_what_is_at_work_is_wrapped() {
        let refused = |_| async { Err(BrokerError::Closed) };
        let known = PublishFuture::answered(Ok(receipt())).wrapped(refused);
        assert_eq!(known.now_or_never(), Some(Ok(receipt())));
        let working =
            || -> PublishFuture<'static> { async { Ok::<_, BrokerError>(receipt()) }.boxed().into() };
        assert_eq!(working().now_or_never(), Some(Ok(receipt())));
        assert_eq!(working().wrapped(refused).now_or_never(), Some(Err(BrokerError::Closed)));
    }
}
