use Interrupt::{LaneLost, Revoked, Shutdown, SoftTimeLimit};

use super::*;
use crate::task::{Interrupt, StateSink};

#[test]
fn the_strongest_interrupt_stays() {
    for (told, seen) in [
        (vec![], None),
        (vec![SoftTimeLimit], Some(SoftTimeLimit)),
        (vec![SoftTimeLimit, Revoked], Some(Revoked)),
        (vec![SoftTimeLimit, Shutdown], Some(Shutdown)),
        (vec![Revoked, SoftTimeLimit], Some(Revoked)),
        (vec![Revoked, Shutdown], Some(Revoked)),
        (vec![Shutdown, SoftTimeLimit], Some(Shutdown)),
        (vec![Shutdown, Revoked], Some(Revoked)),
        (vec![LaneLost, Revoked], Some(LaneLost)),
    ] {
        let ctx = Context::detached();
        for interrupt in &told {
            ctx.interrupt_with(*interrupt);
        }
        assert_eq!(ctx.interrupt(), seen, "{told:?}");
        assert_eq!(ctx.check().err(), seen, "{told:?}");
    }
}

#[test]
fn whoever_waits_for_the_end_learns_the_reason() {
    let ctx = Context::detached();
    let waiting = std::thread::spawn({
        let ctx = ctx.clone();
        move || futures_executor::block_on(ctx.interrupted())
    });
    ctx.interrupt_with(Revoked);
    assert_eq!(waiting.join().unwrap(), Revoked);
    assert_eq!(futures_executor::block_on(ctx.interrupted()), Revoked); // and after the fact
}

#[test]
fn a_revocation_counts_or_is_told_that_it_came_too_late() {
    let (early, late) = (Context::detached(), Context::detached());
    assert!(early.revoke(false) && early.revoke(true));
    assert!(early.decide());
    assert!(!late.decide());
    assert!(!late.revoke(true) && late.interrupt().is_none());
}

#[test]
fn a_revocation_is_heard_behind_a_soft_limit() {
    let ctx = Context::detached();
    ctx.interrupt_with(SoftTimeLimit);
    let waiting = std::thread::spawn({
        let ctx = ctx.clone();
        move || futures_executor::block_on(ctx.terminated())
    });
    ctx.interrupt_with(Revoked);
    waiting.join().unwrap();
    assert_eq!(ctx.interrupt(), Some(Revoked));
}

#[test]
fn a_state_is_told_or_refused_with_a_reason() {
    #[derive(Default)]
    struct ToldBody(std::sync::Mutex<Vec<TrackedState>>);
    impl StateSink for ToldBody {
        fn update(&self, state: TrackedState) {
            self.0.lock().unwrap().push(state);
        }
    }
    let told = Arc::new(ToldBody::default());
    let mut message = Context::detached().message().clone();
    message.workflow =
        Some(Box::new(crate::task::Workflow { group: Some("g".into()), ..Default::default() }));
    let ctx = Context::new(
        Arc::new(message),
        "q#1".into(),
        Sinks { states: Some(told.clone()), ..Sinks::default() },
    );
    assert!(!ctx.has_reported());
    for (state, error) in [
        ("SUCCESS", "`SUCCESS` is how a task ends"),
        ("REJECTED", "`REJECTED` is how a task ends"),
        ("", "this one has 0"),
    ] {
        let refused = ctx.update_state(state, ()).unwrap_err().to_string();
        assert!(refused.contains(error), "{refused}");
    }
    let no_json = std::collections::HashMap::from([((1, 2), 3)]);
    let refused = ctx.update_state("PROGRESS", no_json).unwrap_err().to_string();
    assert!(refused.starts_with("what goes with state `PROGRESS` has no form in JSON"), "{refused}");
    let refused = ctx.update_state("PROGRESS", "x".repeat(64 << 10)).unwrap_err().to_string();
    assert!(refused.contains("takes 65538 bytes, the limit is 65536: store what is large"), "{refused}");
    assert!(!ctx.has_reported());
    ctx.update_state("PROGRESS", [1, 2]).unwrap();
    assert!(ctx.has_reported());
    let told = told.0.lock().unwrap();
    let [state] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(
        (&state.id, state.state.as_str(), state.meta.value()),
        (ctx.id(), "PROGRESS", &Value::from(vec![1, 2]))
    );
    assert_eq!(state.lineage.as_ref().unwrap().group_id.as_deref(), Some("g"));
    assert_eq!(Context::detached().update_state("PROGRESS", 1), Ok(()));
}

#[test]
fn retries_and_crashes_are_attempts() {
    let mut message = Context::detached().message().clone();
    message.task = "mail".into();
    message.queue = "email".into();
    message.retries = 2;
    message.crashes = 1;
    message.continuations = 5;
    message.headers.0.insert("tenant".into(), "a".into());
    let ctx = Context::new(Arc::new(message), "email#3".into(), Sinks::default());
    assert_eq!((ctx.attempt(), ctx.retries(), ctx.is_redelivered()), (4, 2, true));
    let again = Context::of_run(RunSetup {
        message: Arc::clone(Context::detached().message_arc()),
        worker: "".into(),
        sinks: Arc::default(),
        fence: None,
        again: true,
        keeper: None,
    });
    assert!(again.is_redelivered());
    assert_eq!((ctx.task(), ctx.queue(), ctx.worker()), ("mail", "email", "email#3"));
    assert_eq!((ctx.header("tenant"), ctx.header("x")), (Some(&Value::from("a")), None));
    assert_eq!((Context::detached().attempt(), Context::detached().is_redelivered()), (1, false));
}

/// A pool that wants its slots back as often as it is told here.
#[derive(Default)]
struct Owner {
    is_wanted: AtomicBool,
    wants_back: AtomicBool,
    asked: AtomicU32,
}

impl SlotOwner for Owner {
    fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    fn wants_back(&self, run: u64) -> bool {
        assert_eq!(run, 7);
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.wants_back.load(Ordering::Relaxed)
    }
}

#[crate::task]
fn counts(ctx: &Context, from: u64) -> Result<(), TaskError> {
    ctx.checkpoint(|| counts::s(from + 1))
}

/// What a checkpoint says of a run, as text; `None`: it goes on.
fn said(ctx: &Context) -> Option<String> {
    counts(ctx, 3).err().map(|error| error.to_string())
}

#[test]
fn a_checkpoint_ends_a_run_whose_slot_is_wanted() {
    let goes_on = Some(format!("{} goes on with a new cursor", <counts::Task as crate::task::Task>::NAME));
    assert_eq!(said(&Context::detached()), None);
    let (ctx, owner) = (Context::detached(), Arc::new(Owner::default()));
    ctx.lend(LentSlot { owner: Arc::clone(&owner) as Arc<dyn SlotOwner>, run: 7 });
    assert_eq!(
        (said(&ctx), owner.asked.load(Ordering::Relaxed)),
        (None, 0),
        "nobody asks while nothing waits"
    );
    owner.is_wanted.store(true, Ordering::Relaxed);
    assert_eq!((said(&ctx), owner.asked.load(Ordering::Relaxed)), (None, 1));
    owner.wants_back.store(true, Ordering::Relaxed);
    assert_eq!(said(&ctx), goes_on);
    let ctx = Context::detached();
    ctx.interrupt_with(Shutdown);
    assert_eq!(said(&ctx), goes_on, "the next program goes on from there");
    ctx.interrupt_with(Revoked);
    assert_eq!(said(&ctx).as_deref(), Some("the task was revoked while it ran"));
}
