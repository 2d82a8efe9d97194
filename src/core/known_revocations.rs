//! What one process knows of revocations without asking the store.
//!
//! A process is told of revocations by a subscription. While the subscription lives, the process knows of each
//! revocation that was made since it began. What was revoked before is known too if the store could list it. So the
//! process has to ask the store about a task only in these cases:
//!
//! - There is no subscription, or nobody has confirmed for [`FRESH`] that it still delivers.
//! - The store could not list what was revoked before, and the task may have been revoked before. A task cannot be
//!   revoked before its id was made, so a task whose id is younger than the subscription needs no question. Whoever
//!   made the id read the time from his own clock. So the id counts as younger only if it is so by [`MARGIN`], and an
//!   id without a time, or with a time that lies ahead by more than that, is asked about.
//!
//! Invariants: the answer "not revoked" is never given for a task whose revocation was made before the time of the last
//! confirmation, as long as no two clocks differ by more than [`MARGIN`]. At most [`MOST`] revocations are kept: one
//! more begins the knowledge anew, so that older tasks are asked about.

use std::collections::HashMap;
use std::time::Duration;

use super::Timestamp;

/// How far the clock of another machine may differ from the clock of this one.
pub const MARGIN: Duration = Duration::from_secs(60);
/// How long a confirmation holds that everything was delivered so far.
pub const FRESH: Duration = Duration::from_secs(3);
/// The most revocations that are kept. An id has up to 255 bytes, and 36 in most cases.
pub const MOST: usize = 1 << 16;

/// The revocations that a process knows of, and how far it may rely on that.
#[derive(Debug, Default)]
pub struct KnownRevocations {
    /// Until when each of these tasks is revoked.
    revoked: HashMap<Box<str>, Timestamp>,
    subscription: Option<RevocationSubscription>,
}

/// A subscription that lives.
#[derive(Debug)]
struct RevocationSubscription {
    /// Everything that was revoked since this time is known. It is a time of the wall clock.
    since: Timestamp,
    /// Whether everything that was revoked before is known as well.
    knows_all: bool,
    /// When the last confirmation was asked for, by the wall clock and by the steady clock. It has to be fresh by both: the
    /// wall clock may be put back, and the steady clock stands still while the machine sleeps.
    confirmed_at: (Timestamp, Timestamp),
}

impl KnownRevocations {
    /// A subscription has begun at the time `now`. At the later time `asked_at` the store was asked for all that was
    /// revoked before: `earlier` has these tasks, with the times at which their revocations end. `None`: the store
    /// could not list them. `now` is a time of the wall clock, and `asked_at` one of the steady clock.
    pub fn begin(&mut self, earlier: Option<Vec<(String, Timestamp)>>, now: Timestamp, asked_at: Timestamp) {
        let knows_all = earlier.is_some();
        self.subscription =
            Some(RevocationSubscription { since: now, knows_all, confirmed_at: (now, asked_at) });
        for (id, until) in earlier.unwrap_or_default() {
            self.hear(&id, until, now);
        }
    }

    /// The task with this id is revoked until `until`.
    pub fn hear(&mut self, id: &str, until: Timestamp, now: Timestamp) {
        if self.revoked.len() >= MOST && !self.revoked.contains_key(id) {
            self.revoked.retain(|_, until| *until > now);
            if self.revoked.len() >= MOST {
                self.revoked.clear();
                if let Some(subscription) = &mut self.subscription {
                    (subscription.since, subscription.knows_all) = (now, false);
                }
            }
        }
        let end = self.revoked.entry(id.into()).or_insert(until);
        *end = until.max(*end);
    }

    /// Everything that was announced before `asked_at` has been delivered. It is a time of the wall clock, and `steady` the
    /// same of the steady clock.
    pub fn confirm(&mut self, asked_at: Timestamp, steady: Timestamp) {
        if let Some(subscription) = &mut self.subscription {
            let (wall, before) = subscription.confirmed_at;
            subscription.confirmed_at = (wall.max(asked_at), before.max(steady));
        }
    }

    /// The subscription has ended, and what is revoked from now on is not heard. What was heard stays known.
    pub fn end(&mut self) {
        self.subscription = None;
    }

    /// Whether a task is revoked. `None`: it is not known here, and the store has to be asked. `made_at` says when the
    /// id was made, if the id says so. `now` is a time of the wall clock, `steady` one of the steady clock.
    pub fn is_revoked(
        &self,
        id: &str,
        made_at: impl FnOnce() -> Option<Timestamp>,
        now: Timestamp,
        steady: Timestamp,
    ) -> Option<bool> {
        if self.revoked.get(id).is_some_and(|until| *until > now) {
            return Some(true);
        }
        let subscription =
            self.subscription.as_ref().filter(|subscription| subscription.is_fresh(now, steady))?;
        if subscription.knows_all {
            return Some(false);
        }
        let made_at = made_at()?;
        (made_at > subscription.since + MARGIN && made_at <= now + MARGIN).then_some(false)
    }
}

impl RevocationSubscription {
    /// Whether the last confirmation still holds.
    fn is_fresh(&self, now: Timestamp, steady: Timestamp) -> bool {
        let (wall, before) = self.confirmed_at;
        now.since(wall) < FRESH && steady.since(before) < FRESH
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_796_040_000_000);
    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

    fn at(seconds: u64) -> Timestamp {
        START + Duration::from_secs(seconds)
    }

    #[test]
    fn without_a_subscription_only_what_was_heard_is_known() {
        let mut known = KnownRevocations::default();
        let look =
            |known: &KnownRevocations, id: &str| known.is_revoked(id, || Some(at(500)), at(500), at(500));
        known.hear("a", START + WEEK, START);
        assert_eq!((look(&known, "a"), look(&known, "b")), (Some(true), None));
        known.begin(Some(vec![("c".to_owned(), START + WEEK)]), at(499), at(499));
        assert_eq!(["a", "b", "c"].map(|id| look(&known, id)), [Some(true), Some(false), Some(true)]);
        known.end();
        assert_eq!(["a", "b", "c"].map(|id| look(&known, id)), [Some(true), None, Some(true)]);
    }

    #[test]
    fn a_subscription_that_nobody_confirms_is_not_relied_on() {
        let mut known = KnownRevocations::default();
        known.begin(Some(Vec::new()), START, START);
        let look = |known: &KnownRevocations, steady| known.is_revoked("a", || None, START, steady);
        assert_eq!((look(&known, at(2)), look(&known, at(3))), (Some(false), None));
        known.confirm(START, at(2));
        assert_eq!((look(&known, at(4)), look(&known, at(5))), (Some(false), None));
        known.confirm(START, at(1));
        assert_eq!(look(&known, at(4)), Some(false), "an earlier answer takes nothing back");
        let after_sleep = known.is_revoked("a", || None, at(3600), at(4));
        assert_eq!(after_sleep, None, "the steady clock has stood still");
    }

    #[test]
    fn only_an_id_that_is_surely_younger_is_not_asked_about() {
        let mut known = KnownRevocations::default();
        known.begin(None, at(100), at(100));
        known.confirm(at(1000), at(1000));
        let look = |made_at: Option<u64>| known.is_revoked("a", || made_at.map(at), at(1000), at(1000));
        for (made_at, answer) in [
            (None, None),
            (Some(0), None),
            (Some(160), None),
            (Some(161), Some(false)),
            (Some(1060), Some(false)),
            (Some(1061), None),
        ] {
            assert_eq!(look(made_at), answer, "{made_at:?}");
        }
    }

    #[test]
    fn a_revocation_ends_and_the_later_end_counts() {
        let mut known = KnownRevocations::default();
        known.begin(Some(Vec::new()), START, START);
        known.hear("a", at(20), START);
        known.hear("a", at(10), START);
        known.confirm(at(20), START);
        let look = |now| known.is_revoked("a", || None, now, START);
        assert_eq!((look(at(19)), look(at(20))), (Some(true), Some(false)));
    }

    #[test]
    fn too_many_revocations_begin_the_knowledge_anew() {
        let mut known = KnownRevocations::default();
        known.begin(Some(Vec::new()), START, START);
        for n in 0..MOST {
            known.hear(&n.to_string(), if n == 0 { at(5) } else { START + WEEK }, START);
        }
        known.hear("one more", START + WEEK, at(5));
        let look = |known: &KnownRevocations, id: &str, made: u64, now: u64| {
            known.is_revoked(id, || Some(at(made)), at(now), START)
        };
        assert_eq!(look(&known, "1", 0, 5), Some(true), "one that is over made room");
        known.hear("another one", START + WEEK, at(10));
        known.confirm(at(71), START);
        assert_eq!(look(&known, "another one", 0, 11), Some(true));
        assert_eq!(look(&known, "1", 0, 11), None);
        assert_eq!(look(&known, "1", 71, 71), Some(false));
        assert!(known.revoked.len() <= MOST);
    }

    #[derive(Clone, Debug)]
    enum SubscriptionStep {
        /// Time passes, in seconds.
        Pass(u64),
        /// Somebody whose clock differs by so many seconds makes an id.
        Make(i64),
        /// One of the ids is revoked.
        Revoke(prop::sample::Index),
        /// The subscription begins, and the store can list what is revoked, or cannot.
        Begin(bool),
        Confirm,
        End,
    }

    fn steps() -> impl Strategy<Value = Vec<SubscriptionStep>> {
        let margin = i64::try_from(MARGIN.as_secs()).unwrap() - 1;
        prop::collection::vec(
            prop_oneof![
                3 => (0u64..120).prop_map(SubscriptionStep::Pass),
                3 => (-margin..margin).prop_map(SubscriptionStep::Make),
                3 => any::<prop::sample::Index>().prop_map(SubscriptionStep::Revoke),
                2 => any::<bool>().prop_map(SubscriptionStep::Begin),
                2 => Just(SubscriptionStep::Confirm),
                1 => Just(SubscriptionStep::End),
            ],
            1..80,
        )
    }

    proptest! {
        /// Whatever happens, no answer is wrong: neither that a task is revoked nor that it is not.
        #[test]
        fn no_answer_is_wrong(ops in steps()) {
            let mut known = KnownRevocations::default();
            let (mut now, mut ids, mut revoked) = (at(10_000), Vec::new(), HashSet::new());
            let mut is_subscribed = false;
            for op in ops {
                match op {
                    SubscriptionStep::Pass(seconds) => now = now + Duration::from_secs(seconds),
                    SubscriptionStep::Make(skew) => {
                        let shown = Duration::from_secs(skew.unsigned_abs());
                        let made_at = if skew < 0 { now - shown } else { now + shown };
                        ids.push((ids.len().to_string(), made_at));
                    }
                    SubscriptionStep::Revoke(index) if !ids.is_empty() => {
                        let (id, _) = index.get(&ids);
                        revoked.insert(id.clone());
                        if is_subscribed {
                            known.hear(id, now + WEEK, now);
                        }
                    }
                    SubscriptionStep::Revoke(_) => {}
                    SubscriptionStep::Begin(lists) => {
                        is_subscribed = true;
                        let earlier = revoked.iter().map(|id: &String| (id.clone(), now + WEEK)).collect();
                        known.begin(lists.then_some(earlier), now, now);
                    }
                    SubscriptionStep::Confirm if is_subscribed => known.confirm(now, now),
                    SubscriptionStep::Confirm => {}
                    SubscriptionStep::End => {
                        is_subscribed = false;
                        known.end();
                    }
                }
                for (id, made_at) in &ids {
                    let answer = known.is_revoked(id, || Some(*made_at), now, now);
                    prop_assert!(answer.is_none_or(|answer| answer == revoked.contains(id)), "{id}: {answer:?}");
                    prop_assert!(is_subscribed || answer != Some(false));
                }
            }
        }
    }
}
