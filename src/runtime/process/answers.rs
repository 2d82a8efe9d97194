//! The answers to what a child asks: its body sends calls, asks for results, holds permits and keeps files through the
//! program that has its run.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::unfold;
use tokio::sync::mpsc::UnboundedReceiver;

use super::child_process::{Order, Shared};
use super::protocol::{ChildAnswer, KeepRefusal, PermitReply, Question};
use crate::task::{
    About, Client, Context, Download, EnqueueError, GetError, Headers, Message, PermitAnswer, Want, inside,
};

/// A part of a download that a child sends.
pub(super) enum Piece {
    Bytes(Bytes),
    /// There is no more, or the rest cannot be read.
    End(Option<String>),
}

/// The task whose body sends something within a span of these headers.
pub(super) fn sender_of(context: &Context, span: &Headers) -> Arc<Message> {
    if span.0.is_empty() {
        return Arc::clone(context.message_arc());
    }
    let mut message = context.message().clone();
    message.headers.continue_trace(span);
    Arc::new(message)
}

/// Who asks, and by what it is answered.
pub(super) struct Asker {
    pub(super) shared: Arc<Shared>,
    pub(super) run: u64,
    pub(super) question: u64,
    /// The run, unless it is over.
    pub(super) context: Option<Context>,
    /// The task whose body asks, within the span in which it does. `None`: it is not the body itself that asks.
    pub(super) sender: Option<Arc<Message>>,
    pub(super) client: Option<Arc<dyn Client>>,
}

impl Asker {
    /// Finds the answer and sends it. `uploaded` has the bytes of a download to keep.
    pub(super) async fn answer(self, question: Question, uploaded: Option<UnboundedReceiver<Piece>>) {
        let finding = self.find(question, uploaded);
        let answer = match &self.sender {
            Some(message) => inside(message, finding).await,
            None => finding.await,
        };
        self.shared.send(&Order::Answer { question: self.question, answer: Box::new(answer) });
    }

    async fn find(&self, question: Question, uploaded: Option<UnboundedReceiver<Piece>>) -> ChildAnswer {
        match question {
            Question::Acquire { wants, holder } => self.acquire(&wants, holder).await,
            Question::Freed { at_most } => {
                match &self.context {
                    Some(context) => context.permits_freed(at_most).await,
                    None => tokio::time::sleep(at_most).await,
                }
                ChildAnswer::Freed
            }
            Question::Keep(about) => self.keep(about, uploaded).await,
            question => match &self.client {
                Some(client) => self.by_client(&**client, question).await,
                None => not_running(&question),
            },
        }
    }

    async fn by_client(&self, client: &dyn Client, question: Question) -> ChildAnswer {
        match question {
            Question::Enqueue(call) => ChildAnswer::Enqueued(client.enqueue(call).await),
            Question::EnqueueMany(calls) => ChildAnswer::EnqueuedMany(client.enqueue_many(calls).await),
            Question::Launch(canvas) => ChildAnswer::Launched(client.launch(*canvas).await),
            Question::AddToChord { canvas, nth } => ChildAnswer::Launched(match &self.context {
                Some(context) => client.add_to_chord(context.message(), *canvas, nth).await,
                None => {
                    Err(EnqueueError::Canvas("the run that adds a member to its chord is over".to_owned()))
                }
            }),
            Question::State(id) => ChildAnswer::State(client.state(&id).await),
            Question::Result(id) => {
                ChildAnswer::Result(client.result(&id).await.map(|found| found.map(Box::new)))
            }
            Question::Tracked(id) => {
                ChildAnswer::Tracked(client.tracked(&id).await.map(|found| found.map(Box::new)))
            }
            Question::Wait(id) => {
                ChildAnswer::Result(client.wait(&id).await.map(|found| Some(Box::new(found))))
            }
            Question::Expect(id) => {
                ChildAnswer::Result(client.expect(&id).await.map(|found| Some(Box::new(found))))
            }
            Question::Revoke { id, terminate } => ChildAnswer::Flag(client.revoke(&id, terminate).await),
            Question::Forget(id) => ChildAnswer::Flag(client.forget(&id).await),
            Question::SaveGroup { group, lifetime } => {
                ChildAnswer::Saved(client.save_group(&group, lifetime).await)
            }
            // These are for the run, and not for its client.
            Question::Acquire { .. } | Question::Freed { .. } | Question::Keep(_) => ChildAnswer::Freed,
        }
    }

    async fn acquire(&self, wants: &[Want], holder: String) -> ChildAnswer {
        let Some(context) = &self.context else {
            return ChildAnswer::Acquired(Err("the run that asks for permits is over".to_owned()));
        };
        ChildAnswer::Acquired(match context.acquire_for_body(wants, &holder).await {
            Ok(PermitAnswer::Granted { tokens, lost }) => {
                self.shared.watch_permits(self.run, holder, lost);
                Ok(PermitReply::Granted(tokens))
            }
            Ok(PermitAnswer::Busy(place)) => Ok(PermitReply::Busy(place)),
            Err(error) => Err(error.to_string()),
        })
    }

    async fn keep(&self, about: About, uploaded: Option<UnboundedReceiver<Piece>>) -> ChildAnswer {
        let (Some(context), Some(pieces)) = (&self.context, uploaded) else {
            let error = "the run that exposes it is over".to_owned();
            return ChildAnswer::Kept(Err(KeepRefusal::Store { name: "download".to_owned(), error }));
        };
        let (shared, question) = (Arc::clone(&self.shared), self.question);
        let chunks = unfold(Some(pieces), move |pieces| {
            let shared = Arc::clone(&shared);
            async move {
                let mut pieces = pieces?;
                match pieces.recv().await {
                    Some(Piece::Bytes(bytes)) => {
                        shared.send(&Order::ChunkTaken { question });
                        Some((Ok(bytes), Some(pieces)))
                    }
                    Some(Piece::End(None)) => None,
                    Some(Piece::End(Some(error))) => Some((Err(io::Error::other(error)), None)),
                    None => Some((Err(io::Error::other("the process that sent it has ended")), None)),
                }
            }
        });
        let download = Download { about, ..Download::from_stream(chunks) };
        ChildAnswer::Kept(context.expose_download(download).await.map_err(KeepRefusal::from))
    }
}

/// The answer where no runtime is there any more.
fn not_running(question: &Question) -> ChildAnswer {
    let gone = || GetError::Store("the runtime has shut down".to_owned());
    match question {
        Question::Enqueue(_) => ChildAnswer::Enqueued(Err(EnqueueError::NotRunning)),
        Question::EnqueueMany(_) => ChildAnswer::EnqueuedMany(Err(EnqueueError::NotRunning)),
        Question::Launch(_) | Question::AddToChord { .. } => {
            ChildAnswer::Launched(Err(EnqueueError::NotRunning))
        }
        Question::State(_) => ChildAnswer::State(Err(gone())),
        Question::Result(_) | Question::Wait(_) | Question::Expect(_) => ChildAnswer::Result(Err(gone())),
        Question::Tracked(_) => ChildAnswer::Tracked(Err(gone())),
        Question::Revoke { .. } | Question::Forget(_) => ChildAnswer::Flag(Err(gone())),
        Question::SaveGroup { .. } => ChildAnswer::Saved(Err(gone())),
        Question::Acquire { .. } | Question::Freed { .. } | Question::Keep(_) => ChildAnswer::Freed,
    }
}
