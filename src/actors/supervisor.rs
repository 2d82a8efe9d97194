//! Supervision that actix does not have: a panic in an actor is caught, its parent is told, and no other actor is
//! hurt.
//!
//! actix's own `Supervisor` does not restart an actor after a panic, and a plain actor that panics runs its `stopped`
//! while it unwinds, where a second panic ends the process. Therefore [`spawn`] runs each actor inside a future that
//! catches panics. The parent is told how the actor ended; it decides by a restart intensity whether and when to
//! build another one.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

use actix::{Actor, Addr, AsyncContext, Context};

use crate::task::panic_message;

/// How an actor ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The actor stopped by itself, or because all addresses of it were dropped.
    Stopped,
    /// The actor panicked with this text.
    Panicked(String),
}

/// Runs an actor on the arbiter of the calling thread.
///
/// `build` makes the actor from its context. `on_exit` is called once, on the same arbiter, after the actor is gone.
pub(crate) fn spawn<A, B, E>(build: B, on_exit: E) -> Addr<A>
where
    A: Actor<Context = Context<A>>,
    B: FnOnce(&mut Context<A>) -> A,
    E: FnOnce(Exit) + 'static,
{
    let mut context = Context::new();
    let address = context.address();
    let actor = build(&mut context);
    let mut running = Some(Box::pin(context.into_future(actor)));
    actix_rt::spawn(async move {
        let exit = poll_fn(|cx| {
            let Some(future) = running.as_mut() else { return Poll::Ready(Exit::Stopped) };
            match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(())) => {
                    Poll::Ready(discard(running.take()).map_or(Exit::Stopped, Exit::Panicked))
                }
                Err(panic) => {
                    discard(running.take());
                    Poll::Ready(Exit::Panicked(panic_message(panic)))
                }
            }
        })
        .await;
        on_exit(exit);
    });
    address
}

/// Drops an actor while nothing unwinds, so that a panic in its `Drop` is caught. Returns the text of such a panic.
fn discard(actor: impl Sized) -> Option<String> {
    catch_unwind(AssertUnwindSafe(|| drop(actor))).err().map(panic_message)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use actix::{Handler, Message};

    use super::*;

    struct Fragile {
        die_at_start: bool,
    }

    impl Actor for Fragile {
        type Context = Context<Self>;

        fn started(&mut self, _: &mut Self::Context) {
            assert!(!self.die_at_start, "dead on arrival");
        }

        fn stopped(&mut self, _: &mut Self::Context) {
            // In plain actix this would abort the process when it follows a panic.
            assert!(!self.die_at_start, "and once more while stopping");
        }
    }

    #[derive(Message)]
    #[rtype(result = "u8")]
    struct Ask(bool);

    impl Handler<Ask> for Fragile {
        type Result = u8;

        fn handle(&mut self, ask: Ask, _: &mut Self::Context) -> u8 {
            assert!(ask.0, "asked to die");
            7
        }
    }

    #[actix_rt::test]
    async fn a_panic_is_told_to_the_parent_and_to_nobody_else() {
        let (told, exit) = tokio::sync::oneshot::channel();
        let fragile = spawn(|_| Fragile { die_at_start: false }, |exit| drop(told.send(exit)));
        let (neighbour_told, _) = tokio::sync::oneshot::channel();
        let neighbour = spawn(|_| Fragile { die_at_start: false }, |exit| drop(neighbour_told.send(exit)));
        assert_eq!(fragile.send(Ask(true)).await, Ok(7));
        assert!(fragile.send(Ask(false)).await.is_err());
        assert_eq!(exit.await, Ok(Exit::Panicked("asked to die".into())));
        assert_eq!(neighbour.send(Ask(true)).await, Ok(7));
    }

    #[actix_rt::test]
    async fn a_thousand_deaths_at_start_leave_the_arbiter_alive() {
        let deaths = Rc::new(RefCell::new(0));
        for _ in 0..1000 {
            let deaths = Rc::clone(&deaths);
            let (told, ended) = tokio::sync::oneshot::channel();
            spawn(
                |_| Fragile { die_at_start: true },
                move |exit| {
                    assert_eq!(exit, Exit::Panicked("dead on arrival".into()));
                    *deaths.borrow_mut() += 1;
                    let _ = told.send(());
                },
            );
            ended.await.unwrap();
        }
        assert_eq!(*deaths.borrow(), 1000);
        let (told, exit) = tokio::sync::oneshot::channel();
        let calm = spawn(|_| Fragile { die_at_start: false }, |exit| drop(told.send(exit)));
        assert_eq!(calm.send(Ask(true)).await, Ok(7));
        drop(calm);
        assert_eq!(exit.await, Ok(Exit::Stopped));
    }
}
