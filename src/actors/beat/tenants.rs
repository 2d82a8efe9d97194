//! The entries that fire for each tenant: who they are is asked now and then, and each has its day once.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix::{AsyncContext, Context, Handler, Message};
use futures_util::FutureExt;

use super::memory::{Fired, day_key, fired_key};
use super::tick::{Tick, Told};
use super::{Beat, BeatParts, Live};
use crate::core::Timestamp;
use crate::core::calendar::{LocalDay, Schedule, Tenant, TenantTick, Tenants, tenant_tick_id};
use crate::store::NoteChange;
use crate::task::clock::now;
use crate::task::{Arguments, Periodic, TaskId, TenantSource, panic_message};

/// How often the tenants are listed, and how soon again when that failed.
const LIST: Duration = Duration::from_secs(15 * 60);
const LIST_AGAIN: Duration = Duration::from_secs(30);
/// So many ticks are on their way to the broker at a time.
const BATCH: usize = 64;
/// A tick whose predecessor still runs a day later, or that could not be published, comes again after this long.
const HELD: Duration = Duration::from_secs(60);
/// The day of a tenant that is gone is forgotten so many days later.
const FORGET: u64 = 30;

impl Live {
    /// Makes room for its tenants, whom nobody has listed yet; `false`: it does not fire for tenants.
    pub(super) fn expect_tenants(&mut self) -> bool {
        let entry = &self.entry;
        let (Some(plan), Schedule::Crontab { crontab, .. }) = (&entry.tenants, &entry.schedule) else {
            return false;
        };
        let crontab = (**crontab).clone();
        let tenants = Tenants::new(&entry.name, crontab, plan.spread, entry.misfire, self.fired.last);
        self.tenants = Some(tenants);
        true
    }

    /// When there is something to do for its tenants.
    pub(super) fn tenants_due(&self) -> Option<Timestamp> {
        let tenants = self.tenants.as_ref().filter(|_| !self.paused)?;
        let list = (!self.listing).then_some(self.list_at);
        tenants.next().into_iter().chain(list).min()
    }

    /// Takes over who its tenants are now; if that is known, up to when all is decided.
    pub(super) fn take_list(&mut self, list: Result<Vec<Tenant>, String>) -> Option<Timestamp> {
        self.listing = false;
        let tenants = self.tenants.as_mut()?;
        match list {
            Err(error) => {
                let entry = &self.entry.name;
                tracing::error!(entry, error, "its tenants cannot be listed; those of before stay");
                self.error = Some(error);
                self.list_at = now() + LIST_AGAIN;
                None
            }
            Ok(list) => {
                self.error = None;
                self.list_at = now() + LIST;
                let days = &self.days;
                tenants.refresh(list, |tenant| days.get(tenant)?.parse().ok(), now());
                // Except for those who are due already.
                Some(tenants.next().map_or_else(now, |next| next.min(now())))
            }
        }
    }

    /// Ticks of its tenants that are to be published now, some at a time, each with the day that is noted of its tenant.
    pub(super) fn tenant_ticks(&mut self) -> Vec<(Option<String>, TenantTick)> {
        let days = &self.days;
        let ticks = self.tenants.as_mut().map(|tenants| tenants.due(now(), BATCH)).unwrap_or_default();
        ticks.into_iter().map(|tick| (days.get(&tick.tenant).cloned(), tick)).collect()
    }

    /// What became of a tenant's tick; one that failed comes again after `pause`. `false`: the notes say something else than is
    /// believed here.
    pub(super) fn take_told(
        &mut self,
        tick: &TenantTick,
        told: Result<Told, String>,
        pause: Duration,
    ) -> bool {
        let Some(tenants) = &mut self.tenants else { return true };
        match told {
            Ok(told @ (Told::Published | Told::Coalesced)) => {
                self.published += u64::from(told == Told::Published);
                self.coalesced += u64::from(told == Told::Coalesced);
                self.days.insert(tick.tenant.clone(), tick.day.to_string());
                tenants.done(&tick.tenant, tick.day);
            }
            Ok(Told::Held(_)) => tenants.failed(&tick.tenant, now() + HELD),
            Ok(Told::Outdated) => return false,
            Err(error) => {
                let (entry, tenant) = (&self.entry.name, &tick.tenant);
                tracing::warn!(entry, tenant, error, ?pause, "not published yet");
                tenants.failed(&tick.tenant, now() + pause);
                self.error = Some(error);
            }
        }
        true
    }
}

impl Beat {
    /// Publishes what is due for tenants, and lists them when it is time.
    pub(super) fn pump_tenants(&mut self, ctx: &mut Context<Self>) {
        let (address, generation, now) = (ctx.address(), self.generation, now());
        for (name, live) in &mut self.entries {
            let Some(plan) = live.entry.tenants.filter(|_| live.tenants.is_some() && !live.paused) else {
                continue;
            };
            if !live.listing && live.list_at <= now {
                live.listing = true;
                let (source, entry, address) = (plan.source, name.clone(), address.clone());
                actix_rt::spawn(async move {
                    let list = list(source).await;
                    address.do_send(Listed { entry, generation, list });
                });
            }
            loop {
                let ticks = live.tenant_ticks();
                if ticks.is_empty() {
                    break;
                }
                let (parts, entry) = (Arc::clone(&self.parts), Arc::clone(&live.entry));
                let (name, address) = (name.clone(), address.clone());
                let Ok(busy) = Arc::clone(&parts.busy).try_read_owned() else { return }; // it ends
                actix_rt::spawn(async move {
                    let published = ticks.into_iter().map(|(day, tick)| publish(&parts, &entry, day, tick));
                    let told = futures_util::future::join_all(published).await;
                    drop(busy);
                    address.do_send(TenantsFired { entry: name, generation, told });
                });
            }
        }
    }
}

/// Asks a source. It may block, as many a database does, so it has a thread of its own; what its futures wait for is
/// driven by this event loop.
async fn list(source: TenantSource) -> Result<Vec<Tenant>, String> {
    let here = tokio::runtime::Handle::current();
    let asked = tokio::task::spawn_blocking(move || here.block_on(list_here(source)));
    asked.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// Asks a source on this thread.
pub(super) async fn list_here(source: TenantSource) -> Result<Vec<Tenant>, String> {
    match AssertUnwindSafe(async { source().await }).catch_unwind().await {
        Ok(Ok(list)) => Ok(list),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => Err(format!("the source panicked: {}", panic_message(panic))),
    }
}

/// Publishes one tenant's tick.
pub(super) async fn publish(
    parts: &BeatParts,
    entry: &Periodic,
    noted: Option<String>,
    tick: TenantTick,
) -> (TenantTick, Result<Told, String>) {
    let before = noted.as_deref().and_then(|day| day.parse::<LocalDay>().ok());
    let before = before.map(|day| {
        // It stopped being of use when this tick came due, if nothing else is said.
        (
            TaskId::from(tenant_tick_id(&entry.name, &tick.tenant, day)),
            entry.expires.is_none().then_some(tick.due),
        )
    });
    let day = tick.day.to_string();
    let call = Tick {
        entry,
        id: TaskId::from(tenant_tick_id(&entry.name, &tick.tenant, tick.day)),
        arguments: with_tenant(&entry.arguments, &tick.tenant),
        next: tick.next,
        before,
        key: day_key(&entry.name, &tick.tenant),
        note: noted,
        published: day.clone(),
        dropped: day,
    };
    let told = call.publish(parts).await;
    (tick, told)
}

/// The tenant is the first argument.
fn with_tenant(arguments: &Arguments, tenant: &str) -> Arguments {
    let mut args: Vec<serde_json::Value> = serde_json::from_str(&arguments.args).unwrap_or_default();
    args.insert(0, tenant.into());
    Arguments { args: serde_json::Value::from(args).to_string(), kwargs: arguments.kwargs.clone() }
}

/// The tenants of an entry as they are now.
#[derive(Message)]
#[rtype(result = "()")]
struct Listed {
    entry: String,
    generation: u64,
    list: Result<Vec<Tenant>, String>,
}

impl Handler<Listed> for Beat {
    type Result = ();

    fn handle(&mut self, listed: Listed, ctx: &mut Self::Context) {
        let generation = self.generation;
        let Some(live) = self.entries.get_mut(&listed.entry).filter(|_| listed.generation == generation)
        else {
            return;
        };
        if let Some(last) = live.take_list(listed.list) {
            let is_gone = |tenant: &&String| live.tenants.as_ref().is_some_and(|all| !all.has(tenant));
            let gone: Vec<_> = live.days.keys().filter(is_gone).cloned().collect();
            self.watermark(&listed.entry, last);
            self.forget(&listed.entry, gone);
        }
        self.pump(ctx);
    }
}

impl Beat {
    /// Notes up to when all is decided, where tenants that are new at the next start begin.
    fn watermark(&mut self, entry: &str, last: Timestamp) {
        let Some(live) = self.entries.get_mut(entry).filter(|live| live.fired.last < last) else { return };
        live.fired = Fired { last, ..live.fired.clone() };
        let value = Some(live.fired.text());
        let expected = std::mem::replace(&mut live.note, value.clone());
        let (parts, key) = (Arc::clone(&self.parts), fired_key(entry));
        let term = parts.term();
        actix_rt::spawn(async move {
            // Nothing hangs on it: without it, newcomers begin a little earlier after a restart.
            let change = NoteChange { key, expected, value };
            if let Err(error) = parts.runtime.notes().change_notes(vec![change], term).await {
                tracing::debug!(%error, "not noted");
            }
        });
    }

    /// Forgets the days of tenants that have been gone for long.
    fn forget(&mut self, entry: &str, gone: Vec<String>) {
        let long_ago = LocalDay::of(now() - Duration::from_secs(FORGET * 86400));
        let Some(live) = self.entries.get_mut(entry) else { return };
        for tenant in gone {
            if live
                .days
                .get(&tenant)
                .and_then(|day| day.parse().ok())
                .is_some_and(|day: LocalDay| day >= long_ago)
            {
                continue;
            }
            let expected = live.days.remove(&tenant);
            let (parts, key) = (Arc::clone(&self.parts), day_key(entry, &tenant));
            actix_rt::spawn(async move {
                let change = NoteChange { key, expected, value: None };
                if let Err(error) = parts.runtime.notes().change_note(change).await {
                    tracing::debug!(%error, "a tenant's day is forgotten later");
                }
            });
        }
    }
}

/// What became of some tenants' ticks.
#[derive(Message)]
#[rtype(result = "()")]
struct TenantsFired {
    entry: String,
    generation: u64,
    told: Vec<(TenantTick, Result<Told, String>)>,
}

impl Handler<TenantsFired> for Beat {
    type Result = ();

    fn handle(&mut self, fired: TenantsFired, ctx: &mut Self::Context) {
        if fired.generation != self.generation {
            return;
        }
        let failed = fired.told.iter().any(|(_, told)| told.is_err());
        let pause = if failed { self.pause_after_failure() } else { HELD };
        let Some(live) = self.entries.get_mut(&fired.entry) else { return };
        let mut outdated = false;
        for (tick, told) in fired.told {
            outdated |= !live.take_told(&tick, told, pause);
        }
        if outdated {
            self.doubt(ctx);
        } else {
            if !failed {
                self.failures = 0;
            }
            self.pump(ctx);
        }
    }
}
