//! The permits of a run whose body is in a child process.
//!
//! The keeper is in the process that has the delivery, and so is the run, which gives all permits back at its end. The
//! body has permits of its own, whose keeper passes on what happens to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{HandedOver, HeldPermit, Permit, PermitAnswer, RunPermits, Unanswered, Want};
use crate::core::IoFailure;
use crate::task::Context;

/// A permit that came with a task, on its way to the body in a child process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HandedPermit {
    wants: Vec<Want>,
    pub(crate) holder: String,
    within: Duration,
    tokens: Vec<u64>,
}

/// What the run does for its body.
impl Context {
    /// Whether somebody keeps permits.
    pub(crate) fn has_keeper(&self) -> bool {
        self.keeper().is_some()
    }

    /// Acquires all of these permits for the body, or none. The run gives them back at its end at the latest.
    ///
    /// # Errors
    /// It is not known whether the permits are held.
    pub(crate) async fn acquire_for_body(
        &self,
        wants: &[Want],
        holder: &str,
    ) -> Result<PermitAnswer, IoFailure> {
        let Some(keeper) = self.keeper() else { return Err("nobody keeps permits here".into()) };
        let mut unanswered = Unanswered { keeper: Some(keeper), wants, holder };
        let answer = keeper.acquire(wants, holder).await;
        unanswered.keeper = None;
        if let Ok(PermitAnswer::Granted { tokens, lost }) = &answer {
            self.holds(&Arc::new(HeldPermit {
                keeper: Arc::clone(keeper),
                wants: wants.to_vec(),
                holder: holder.to_owned(),
                tokens: tokens.clone(),
                lost: Arc::clone(lost),
                is_over: AtomicBool::new(false),
            }));
        }
        answer
    }

    /// Waits until it is worth asking for permits again, at most for the time `at_most`.
    pub(crate) async fn permits_freed(&self, at_most: Duration) {
        match self.keeper() {
            Some(keeper) => keeper.freed(at_most).await,
            None => tokio::time::sleep(at_most).await,
        }
    }

    /// Gives back the permits that the body held under this name.
    pub(crate) fn release_for_body(&self, holder: &str) {
        if let Some(held) = self.held_as(holder) {
            held.release();
        }
    }

    /// Keeps the permits that the body held under this name for the task that it has handed them over to.
    pub(crate) fn park_for_body(&self, holder: &str, within: Duration) {
        if let Some(held) = self.held_as(holder)
            && !held.is_over.swap(true, Ordering::AcqRel)
        {
            held.keeper.park(&held.wants, &held.holder, within);
        }
    }

    /// The grant under this name. If it came with the task, the body has taken it by now.
    fn held_as(&self, holder: &str) -> Option<Arc<HeldPermit>> {
        let permits = self.permits();
        let is_handed = |(_, handed): &mut (Permit, HandedOver)| handed.holder == holder;
        let taken = RunPermits::lock(&permits.handed).take_if(is_handed);
        if let Some((mut permit, _)) = taken {
            return permit.held.take();
        }
        RunPermits::lock(&permits.held).iter().find(|held| held.holder == holder).cloned()
    }

    /// The permit that came with the task, with the flag that says whether it is lost; the body has not taken it yet.
    pub(crate) fn handed_permit(&self) -> Option<(HandedPermit, Arc<AtomicBool>)> {
        HandedOver::of(self.message())?;
        let handed = RunPermits::lock(&self.permits().handed);
        let (permit, HandedOver { wants, holder, within }) = handed.as_ref()?;
        let held = permit.held.as_ref()?;
        let (wants, holder, tokens) = (wants.clone(), holder.clone(), held.tokens.clone());
        Some((HandedPermit { wants, holder, within: *within, tokens }, Arc::clone(&held.lost)))
    }
}

/// What the context of the body has.
impl Context {
    /// Has the body find the permit that came with the task. `lost` says whether others may have it by now.
    pub(crate) fn receive_permit(&self, handed: HandedPermit, lost: Arc<AtomicBool>) {
        let Some(keeper) = self.keeper() else { return };
        let HandedPermit { wants, holder, within, tokens } = handed;
        let held = Arc::new(HeldPermit {
            keeper: Arc::clone(keeper),
            wants: wants.clone(),
            holder: holder.clone(),
            tokens,
            lost,
            is_over: AtomicBool::new(false),
        });
        let permits = self.permits();
        permits.hold(&held);
        let travels = HandedOver { wants, holder, within };
        *RunPermits::lock(&permits.handed) = Some((Permit { held: Some(held) }, travels));
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use parking_lot::Mutex;

    use super::*;
    use crate::task::{PermitHolder, PermitKeeper, RunSetup};

    /// Grants everything, and notes what it is told.
    #[derive(Default)]
    struct Notebook(Mutex<Vec<String>>);

    #[async_trait]
    impl PermitKeeper for Notebook {
        async fn acquire(&self, wants: &[Want], holder: &str) -> Result<PermitAnswer, IoFailure> {
            self.0.lock().push(format!("acquire {holder}"));
            Ok(PermitAnswer::Granted { tokens: wants.iter().map(|_| 7).collect(), lost: Arc::default() })
        }

        fn release(&self, _: &[Want], holder: &str) {
            self.0.lock().push(format!("release {holder}"));
        }

        fn park(&self, _: &[Want], holder: &str, within: Duration) {
            self.0.lock().push(format!("park {holder} {within:?}"));
        }

        async fn freed(&self, _: Duration) {}

        async fn holders(&self, _: &str) -> Result<Vec<PermitHolder>, IoFailure> {
            Ok(Vec::new())
        }
    }

    fn run(header: Option<&HandedOver>) -> (Context, Arc<Notebook>) {
        let keeper = Arc::new(Notebook::default());
        let mut message = Context::detached().message().clone();
        if let Some(handed) = header {
            let text = serde_json::to_string(handed).unwrap();
            message.headers.0.insert(super::super::HEADER.to_owned(), text.into());
        }
        let context = Context::of_run(RunSetup {
            message: Arc::new(message),
            worker: "q#0".into(),
            sinks: Arc::default(),
            fence: None,
            again: false,
            keeper: Some(Arc::clone(&keeper) as Arc<dyn PermitKeeper>),
        });
        (context, keeper)
    }

    fn wants() -> Vec<Want> {
        vec![Want { name: "gateway".into(), limit: 1 }]
    }

    #[tokio::test]
    async fn what_a_body_that_died_has_held_is_given_back_at_the_end_of_its_run() {
        let (context, keeper) = run(None);
        for holder in ["a", "b", "c"] {
            let answer = context.acquire_for_body(&wants(), holder).await;
            assert!(matches!(answer, Ok(PermitAnswer::Granted { .. })));
        }
        context.release_for_body("a");
        context.release_for_body("a");
        context.park_for_body("b", Duration::from_secs(9));
        context.release_for_body("unknown");
        context.end_permits(false);
        let told = keeper.0.lock().clone();
        assert_eq!(told, ["acquire a", "acquire b", "acquire c", "release a", "park b 9s", "release c"]);
    }

    #[tokio::test]
    async fn a_permit_that_came_with_the_task_goes_to_the_body_and_comes_back() {
        let handed = HandedOver { wants: wants(), holder: "h".into(), within: Duration::from_secs(5) };
        let (context, keeper) = run(Some(&handed));
        assert!(context.adopt_permit().await);
        let (sent, _) = context.handed_permit().expect("it is there");
        let bytes = postcard::to_stdvec(&sent).unwrap();
        let (body, body_keeper) = run(Some(&handed));
        body.receive_permit(postcard::from_bytes(&bytes).unwrap(), Arc::default());
        let permit = body.take_permit().expect("it came along");
        assert_eq!((permit.token(), body.take_permit().is_none()), (7, true));
        drop(permit);
        assert_eq!(*body_keeper.0.lock(), ["release h"]);
        context.release_for_body("h");
        assert!(context.handed_permit().is_none());
        context.end_permits(true);
        assert_eq!(*keeper.0.lock(), ["acquire h", "release h"], "the next run does not find it");
    }

    #[tokio::test]
    async fn a_permit_that_the_body_left_alone_waits_for_the_next_run() {
        let handed = HandedOver { wants: wants(), holder: "h".into(), within: Duration::from_secs(5) };
        let (context, keeper) = run(Some(&handed));
        assert!(context.adopt_permit().await);
        assert!(context.handed_permit().is_some());
        context.end_permits(true);
        assert_eq!(*keeper.0.lock(), ["acquire h", "park h 5s"]);
    }
}
