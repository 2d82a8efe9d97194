//! What starts next, if the gates let it: rate limits and all else that `runtime/gates.rs` asks.
//!
//! A delivery that a gate holds back is set aside with those that the same gate holds back. Of each group the first one is
//! brought back to its old place when it may start, and asked again; so a pump asks once for each start, and not for all that
//! is held. What is held takes no slot, and the queue takes more from the broker, so that what may start comes too. When it
//! holds more than it has room for, it puts the last ones back into the broker for a while, and [hastens](super::hasten) them
//! when it has room again.
//!
//! Invariants:
//! - Of what one gate holds the tenants take turns, so that no backlog keeps the others from a gate that they share.
//! - A group that has members is *shut* (it has a time at which it is asked again), or its first member was brought back.
//! - What is held or was put back burns no attempt, and its time-to-start counts from when it could start again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::super::slot_pool::SlotPermit;
use super::super::worker::Unstarted;
use super::hasten::Hastening;
use super::slots::Released;
use super::{Pump, Queue};
use crate::broker::Settle;
use crate::core::hold::{Hold, HoldReason, held_line};
use crate::core::number_map::TagMap;
use crate::core::return_times::ReturnTimes;
use crate::core::start_limit::{LimitedBy, RunEnd};
use crate::core::{Backoff, Timestamp};
use crate::runtime::gates::{Bell, GateAdmission, HeldFor, ShutGroups};
use crate::runtime::run::Report;
use crate::task::clock::now;
use crate::task::{HeldMark, Message, Next, State};

/// The most deliveries that a queue takes beyond its prefetch while the gates hold back what it has, so that the tasks behind
/// them come too. It holds no more than that, and puts back the rest.
pub(super) const MOST_HELD: usize = 1024;
/// The longest pause before a group is asked again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// For how long a task is put back: the longer the more often that has happened to it.
const PAUSES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// For how long at most, if the gate says that it stays shut for longer; and if that is certain, because a day or its hours
/// are over. An operator may change the other limits.
const LONGEST_PAUSES: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(5 * 60)];
/// The same where nobody can change when a task is due that was put back: there it comes by itself when a gate has opened.
const UNCHANGED_PAUSES: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(60)];

/// What the gates hold back in a queue. The deliveries themselves are in its backlog.
#[derive(Default)]
pub(super) struct HeldBack {
    groups: HashMap<u64, GateGroup>,
    /// The groups that are shut, by the time at which they are asked again.
    agenda: BTreeSet<(Instant, u64)>,
    /// The members that were brought back and are about to be asked, by their tags, each with its group.
    brought: TagMap<u64>,
    /// When those come back that were put back into the broker.
    pub(super) returns: ReturnTimes,
    /// How far the queue is with having them come back before that.
    pub(super) hastening: Hastening,
    /// By this the gates tell that a group may start. `None`: no gate was asked yet, so none holds anything.
    pub(super) bell: Option<Arc<Bell>>,
    /// When a pump comes because a group is to be asked, and who sees to that.
    wake: Option<(Instant, JoinHandle<()>)>,
    /// How many deliveries more than its prefetch the queue takes.
    more: usize,
}

/// The tasks that one gate holds back together.
struct GateGroup {
    hold: Hold,
    /// When the gate opens, as far as it has said.
    opens_at: Timestamp,
    /// When the group is asked again; `None`: its first member was brought back.
    ask_at: Option<Instant>,
}

impl ShutGroups for HeldBack {
    fn any(&self) -> bool {
        !self.agenda.is_empty()
    }

    fn is_shut(&self, group: u64) -> bool {
        self.groups.get(&group).is_some_and(|group| group.ask_at.is_some())
    }
}

impl HeldBack {
    /// Notes that a gate holds a group back. If it is shut already, its members wait for the same time.
    fn shut(&mut self, group: u64, hold: Hold, now: Timestamp) {
        if self.is_shut(group) {
            return;
        }
        let wait = hold.wait.unwrap_or(LONGEST_WAIT);
        let ask_at = Instant::now() + wait.min(LONGEST_WAIT);
        self.agenda.insert((ask_at, group));
        self.groups.insert(group, GateGroup { hold, opens_at: now + wait, ask_at: Some(ask_at) });
    }

    /// Notes that the first member of a group is asked now.
    fn open(&mut self, group: u64) {
        let ask_at = self.groups.get_mut(&group).and_then(|group| group.ask_at.take());
        if let Some(ask_at) = ask_at {
            self.agenda.remove(&(ask_at, group));
        }
    }

    /// For how long a member of a group is put back that was put back so often before, and at most so long: the second time if
    /// the gate goes by the clock.
    fn pause(&self, group: u64, times: u32, longest: [Duration; 2], now: Timestamp) -> Duration {
        let pause = PAUSES.after(times).peek().min(longest[0]);
        let Some(group) = self.groups.get(&group).filter(|group| group.hold.wait.is_some()) else {
            return pause;
        };
        let by_clock = matches!(
            group.hold.reason,
            HoldReason::Limit { by: LimitedBy::Daily(_) | LimitedBy::Hours(_), .. }
        );
        pause.max(group.opens_at.since(now).min(longest[usize::from(by_clock)]))
    }

    /// The groups that are known, each with its hold.
    pub(super) fn groups(&self) -> impl Iterator<Item = (u64, &Hold)> {
        self.groups.iter().map(|(number, group)| (*number, &group.hold))
    }

    /// How many tasks were put back into the broker and are not back yet.
    pub(super) fn away(&self, now: Timestamp) -> u64 {
        self.returns.outstanding(now)
    }
}

impl Queue {
    /// There are no gates: what they held may start, and the queue takes no more for it.
    pub(super) fn pass_by_gates(&mut self) {
        self.ask_all_again();
        self.take_more(0);
    }

    /// Lets the first one run that the gates let through. The run keeps what they counted for it.
    pub(super) fn release_through_gates(&mut self, now: Timestamp) -> Option<Released> {
        let bell = self.bell()?;
        self.bring_back_due(&bell, now);
        let released = match self.pool.is_some() {
            true => self.release_by_pool(Some(&bell), now),
            false => self.ask_in_turn(&bell, now),
        };
        // In steps, because each change costs the broker something.
        match self.backlog.held() {
            0 => self.take_more(0),
            held if released.is_none() => self.take_more(held.next_power_of_two().min(MOST_HELD)),
            _ => {}
        }
        if let Some((at, _)) = self.held_back.agenda.first().copied() {
            self.wake_at(at);
        }
        released
    }

    /// Asks the gates about one ready delivery after the other, until they let one through.
    fn ask_in_turn(&mut self, bell: &Arc<Bell>, now: Timestamp) -> Option<Released> {
        loop {
            let (tag, delivery) = self.backlog.first(now)?;
            let message = Arc::clone(delivery.message());
            match self.ask_gates(bell, &message, now) {
                Ok(admission) => return self.let_go(tag, &message, admission, None, now),
                Err(hold) => self.hold(tag, &message, hold, now),
            }
        }
    }

    /// Asks the gates whether a task may start.
    pub(super) fn ask_gates(
        &self,
        bell: &Arc<Bell>,
        message: &Message,
        now: Timestamp,
    ) -> Result<GateAdmission, Hold> {
        // What has expired ends without a run, so no gate need let it through.
        let is_over = message.expires.is_some_and(|at| at <= now) && !self.runtime.hooks.exempts(message);
        match is_over {
            true => Ok(GateAdmission::default()),
            false => self.runtime.gates(bell, &self.held_back).admit(message),
        }
    }

    /// A ready delivery that the gates let through leaves the backlog for its run, on a slot if it has one of a pool.
    pub(super) fn let_go(
        &mut self,
        tag: u64,
        message: &Message,
        admission: GateAdmission,
        permit: Option<SlotPermit>,
        now: Timestamp,
    ) -> Option<Released> {
        let held = self.held_for(tag, message, now);
        self.let_next_come(tag);
        let delivery = self.backlog.release_tag(tag)?;
        Some(Released { tag, delivery, admission: admission.after(held), permit })
    }

    /// Sets a delivery aside that a gate holds back.
    pub(super) fn hold(&mut self, tag: u64, message: &Message, hold: Hold, now: Timestamp) {
        let group = hold.reason.group(&message.task);
        let since = message.held().map_or(now, |mark| mark.since.min(now));
        self.backlog.hold(tag, group, held_line(message.tenant()), since);
        self.stats.forecasts.left(tag); // nobody forecasts when a gate opens
        self.held_back.shut(group, hold, now);
        // It may be another gate that holds it back now.
        if let Some(before) = self.held_back.brought.remove(&tag).filter(|before| *before != group) {
            self.bring_back(before, now);
        }
        if self.backlog.held() > MOST_HELD
            && let Some(last) = self.backlog.last_held(group)
        {
            self.put_back(last, group, now);
        }
    }

    /// Puts a held delivery back into the broker, so that there is room for what is behind it.
    fn put_back(&mut self, tag: u64, group: u64, now: Timestamp) {
        let since = self.backlog.held_since(tag).unwrap_or(now);
        let Some(delivery) = self.backlog.remove(tag) else { return };
        self.remove_from_pool(tag);
        let times = delivery.message().held().map_or(0, |mark| mark.times);
        let longest = if self.runtime.broker.backlog().is_some() { LONGEST_PAUSES } else { UNCHANGED_PAUSES };
        let earliest = now + self.held_back.pause(group, times, longest, now);
        let due = self.held_back.returns.take(earliest, now);
        self.held_back.hastening.begin_anew();
        let message = Box::new(delivery.message().held_until(due, HeldMark { since, times }));
        delivery.settle(Settle::Requeue { message, due: Some(due) });
    }

    /// Brings back the first members of the groups that are due, and of those for which it was rung.
    fn bring_back_due(&mut self, bell: &Bell, now: Timestamp) {
        for (group, at) in bell.take() {
            if self.held_back.is_shut(group) {
                self.bring_back(group, at.min(now));
            }
        }
        let instant = Instant::now();
        while let Some((_, group)) = self.held_back.agenda.first().copied().filter(|(at, _)| *at <= instant) {
            let opened_at = self.held_back.groups.get(&group).map_or(now, |group| group.opens_at.min(now));
            self.bring_back(group, opened_at);
        }
    }

    /// Has the first member of a group asked at its old place. It may start since `free_since`.
    fn bring_back(&mut self, group: u64, free_since: Timestamp) {
        self.held_back.open(group);
        match self.backlog.bring_back(group, free_since) {
            Some(tag) => {
                self.held_back.brought.insert(tag, group);
                self.bring_back_in_pool(tag, free_since);
            }
            None => {
                self.held_back.groups.remove(&group);
            }
        }
    }

    /// A delivery leaves the backlog: if it was brought back, the next one of its group is asked in its place.
    pub(super) fn let_next_come(&mut self, tag: u64) {
        if let Some(group) = self.held_back.brought.remove(&tag) {
            self.bring_back(group, now());
        }
    }

    /// Has all that is held asked again, because somebody has changed a limit or a brake.
    pub(super) fn ask_all_again(&mut self) {
        if self.backlog.held() > 0 {
            let now = now();
            self.backlog.bring_all_back(now);
            self.bring_all_back_in_pool(now);
        }
        self.forget_held();
    }

    /// Forgets the groups, when nothing is held any more.
    pub(super) fn forget_held(&mut self) {
        self.held_back.groups.clear();
        self.held_back.agenda.clear();
        self.held_back.brought.clear();
    }

    /// For how long gates kept a delivery from starting that may start now.
    fn held_for(&self, tag: u64, message: &Message, now: Timestamp) -> Option<HeldFor> {
        // One that comes back from the broker is let through at once, or it is held again.
        let Some(since) = self.backlog.held_since(tag) else {
            return message.held().map(|mark| HeldFor { since: mark.since, until: message.due().min(now) });
        };
        Some(HeldFor { since, until: self.backlog.ready_since(tag).unwrap_or(now) })
    }

    /// By this the gates tell that something may start. `None`: the queue is not started yet.
    fn bell(&mut self) -> Option<Arc<Bell>> {
        if self.held_back.bell.is_none() {
            let queue = self.own_address.clone()?;
            self.held_back.bell = Some(Arc::new(Bell::new(move || queue.do_send(Wake))));
        }
        self.held_back.bell.clone()
    }

    pub(super) fn wake_at(&mut self, at: Instant) {
        if self.held_back.wake.as_ref().is_some_and(|(earlier, _)| *earlier <= at) {
            return;
        }
        let Some(queue) = self.own_address.clone() else { return };
        let waits = actix_rt::spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            queue.do_send(Wake);
        });
        if let Some((_, later)) = self.held_back.wake.replace((at, waits)) {
            later.abort();
        }
    }

    fn take_more(&mut self, more: usize) {
        if std::mem::replace(&mut self.held_back.more, more) != more
            && let Some(consumer) = &self.consumer
        {
            consumer.set_prefetch(self.deliveries_wanted());
        }
    }

    /// How many deliveries the queue wants to have at a time: its prefetch, and room for more while the gates hold back what
    /// it has.
    pub(super) fn deliveries_wanted(&self) -> usize {
        self.prefetch().saturating_add(self.held_back.more)
    }
}

/// What a run came to, as its limits see it: an error that was expected says nothing against its key.
pub(super) fn run_end(report: &Report, unstarted: Option<Unstarted>, is_expected: bool) -> RunEnd {
    match (report.over, report.again) {
        _ if unstarted.is_some() => RunEnd::NotRun,
        (Some(State::Success | State::Ignored), _) => RunEnd::Success,
        (None, Some(Next::Continue | Next::Replace)) => RunEnd::Success,
        (Some(State::Failure), _) | (None, Some(Next::Retry)) if is_expected => RunEnd::Success,
        (Some(State::Failure), _) | (None, Some(Next::Retry)) => RunEnd::Failure,
        _ => RunEnd::Other,
    }
}

/// One that a gate has held back may start.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(super) struct Wake;

impl actix::Handler<Wake> for Queue {
    type Result = ();

    fn handle(&mut self, _: Wake, ctx: &mut Self::Context) {
        if self.held_back.wake.as_ref().is_some_and(|(at, _)| *at <= Instant::now()) {
            self.held_back.wake = None;
        }
        <Self as actix::Handler<Pump>>::handle(self, Pump, ctx);
    }
}
