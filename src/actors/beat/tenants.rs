//! Entries that fire for each tenant by the tenant's own clock. Beat asks the entry's source for the tenants now
//! and then, and publishes one tick a day for each tenant. The last day of each tenant is a note, so that no day
//! comes twice.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix::{AsyncContext, Context, Handler, Message};
use futures_util::FutureExt;

use super::memory::{Fired, day_key, fired_key};
use super::tick::{DueTick, PublishReport};
use super::{Beat, BeatParts, LiveEntry};
use crate::broker::limits;
use crate::core::Timestamp;
use crate::core::calendar::{LocalDay, Schedule, Tenant, TenantTick, Tenants, tenant_tick_id};
use crate::core::text::shortened;
use crate::store::CompareAndSet;
use crate::task::clock::now;
use crate::task::{Arguments, Json, Periodic, TaskId, TenantSource, panic_message};

/// How often the tenants are listed, and how soon again after a failure.
const LIST: Duration = Duration::from_secs(15 * 60);
const LIST_AGAIN: Duration = Duration::from_secs(30);
/// How many ticks are on their way to the broker at a time.
const BATCH: usize = 64;
/// A held tick, whose predecessor still runs a day later, is decided again after this time.
const HELD: Duration = Duration::from_secs(60);
/// How many days after a tenant's last tick its note is deleted, if the source does not list it any more.
const FORGET: u64 = 30;

impl LiveEntry {
    /// Prepares for tenants, who are not listed yet. `false`: the entry does not fire for tenants.
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

    /// When the next tick of a tenant is due, or the next list; `None`: the entry is paused or has no tenants.
    pub(super) fn tenants_due(&self) -> Option<Timestamp> {
        let tenants = self.tenants.as_ref().filter(|_| !self.paused)?;
        let list = (!self.listing).then_some(self.list_at);
        tenants.next().into_iter().chain(list).min()
    }

    /// Takes over the list of tenants. Returns the time up to which all ticks are decided, if the list could be had.
    pub(super) fn take_list(&mut self, list: Result<Vec<Tenant>, String>) -> Option<Timestamp> {
        self.listing = false;
        let tenants = self.tenants.as_mut()?;
        match list {
            Err(error) => {
                let entry = &self.entry.name;
                tracing::error!(entry, error, "the tenants cannot be listed; the last list stays");
                self.error = Some(error);
                self.list_at = now() + LIST_AGAIN;
                None
            }
            Ok(list) => {
                let entry = &self.entry.name;
                let (list, unfit): (Vec<_>, Vec<_>) =
                    list.into_iter().partition(|tenant| limits::note(&day_key(entry, &tenant.name)).is_ok());
                self.error = unfit.first().map(|tenant| {
                    let error = unfit_name(entry, &tenant.name);
                    tracing::error!(entry, tenants = unfit.len(), error, "some tenants get no ticks");
                    error
                });
                self.list_at = now() + LIST;
                let days = &self.days;
                tenants.refresh(list, |tenant| days.get(tenant)?.parse().ok(), now());
                // Ticks that are due already are not decided yet.
                Some(tenants.next().map_or_else(now, |next| next.min(now())))
            }
        }
    }

    /// The tenants' ticks that are to be published now, a batch at a time, each with the day that is noted for its
    /// tenant.
    pub(super) fn tenant_ticks(&mut self) -> Vec<(Option<String>, TenantTick)> {
        let days = &self.days;
        let ticks = self.tenants.as_mut().map(|tenants| tenants.due(now(), BATCH)).unwrap_or_default();
        ticks.into_iter().map(|tick| (days.get(&tick.tenant).cloned(), tick)).collect()
    }

    /// Takes over what became of a tenant's tick. A tick that failed is tried again after `pause`. `false`: the
    /// notes differ from what beat believes.
    pub(super) fn take_told(
        &mut self,
        tick: &TenantTick,
        told: Result<PublishReport, String>,
        pause: Duration,
    ) -> bool {
        let Some(tenants) = &mut self.tenants else { return true };
        match told {
            Ok(told @ (PublishReport::Published | PublishReport::Coalesced)) => {
                self.published += u64::from(told == PublishReport::Published);
                self.coalesced += u64::from(told == PublishReport::Coalesced);
                self.days.insert(tick.tenant.clone(), tick.day.to_string());
                tenants.done(&tick.tenant, tick.day);
            }
            Ok(PublishReport::Held(_)) => tenants.failed(&tick.tenant, now() + HELD),
            Ok(PublishReport::Outdated) => return false,
            Err(error) => {
                let (entry, tenant) = (&self.entry.name, &tick.tenant);
                tracing::warn!(entry, tenant, error, ?pause, "a tenant's tick is not published yet");
                tenants.failed(&tick.tenant, now() + pause);
                self.error = Some(format!("tenant `{}`: {error}", shown(tenant)));
            }
        }
        true
    }
}

/// How many characters of a tenant's name are shown in errors.
const SHOWN: usize = 60;

fn shown(tenant: &str) -> String {
    shortened(tenant, SHOWN).into_owned()
}

/// The error for a tenant whose name is too long for a note.
fn unfit_name(entry: &str, tenant: &str) -> String {
    let most = limits::LONGEST_KEY.saturating_sub(day_key(entry, "").len());
    format!(
        "tenant `{}` has no ticks of `{entry}`, for its name is too long to be noted: let the source give names of at most {most} bytes, such as ids",
        shown(tenant)
    )
}

impl Beat {
    /// Publishes the tenants' ticks that are due, and lists the tenants when that is due.
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
                let Ok(busy) = Arc::clone(&parts.busy).try_read_owned() else { return }; // beat ends or reloads
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

/// Asks a source for its tenants on a thread of its own, for its code may block, as many a database driver does.
/// The futures that it awaits are driven by this event loop.
async fn list(source: TenantSource) -> Result<Vec<Tenant>, String> {
    let here = tokio::runtime::Handle::current();
    let asked = tokio::task::spawn_blocking(move || here.block_on(list_here(source)));
    asked.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// Asks a source on this thread. A panic of the source is an error.
pub(super) async fn list_here(source: TenantSource) -> Result<Vec<Tenant>, String> {
    match AssertUnwindSafe(async { source().await }).catch_unwind().await {
        Ok(Ok(list)) => Ok(list),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => Err(format!("the source panicked: {}", panic_message(panic))),
    }
}

/// Publishes one tenant's tick. `noted` is the day in the tenant's note.
pub(super) async fn publish(
    parts: &BeatParts,
    entry: &Periodic,
    noted: Option<String>,
    tick: TenantTick,
) -> (TenantTick, Result<PublishReport, String>) {
    let before = noted.as_deref().and_then(|day| day.parse::<LocalDay>().ok());
    let before = before.map(|day| {
        // Without `expires` in the entry, the tick before has expired when this one came due.
        (
            TaskId::from(tenant_tick_id(&entry.name, &tick.tenant, day)),
            entry.expires.is_none().then_some(tick.due),
        )
    });
    let day = tick.day.to_string();
    let call = DueTick {
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

/// The entry's arguments, with the tenant as the first one.
fn with_tenant(arguments: &Arguments, tenant: &str) -> Arguments {
    let mut args: Vec<Json> = serde_json::from_str(&arguments.args).unwrap_or_default();
    args.insert(0, tenant.into());
    Arguments { args: Json::list(&args).to_string(), kwargs: arguments.kwargs.clone() }
}

/// The source's answer: the tenants of an entry as they are now.
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
    /// Notes the time up to which all ticks are decided. After a restart, a tenant that is new begins there.
    fn watermark(&mut self, entry: &str, last: Timestamp) {
        let Some(live) = self.entries.get_mut(entry).filter(|live| live.fired.last < last) else { return };
        live.fired = Fired { last, ..live.fired.clone() };
        let value = Some(live.fired.text());
        let expected = std::mem::replace(&mut live.note, value.clone());
        let (parts, key) = (Arc::clone(&self.parts), fired_key(entry));
        let term = parts.term();
        actix_rt::spawn(async move {
            // Nothing depends on this note: without it, new tenants begin a little earlier after a restart.
            let change = CompareAndSet { key, expected, value };
            if let Err(error) = parts.runtime.notes().compare_and_set_all(vec![change], term).await {
                tracing::debug!(%error, "the decided time is not noted");
            }
        });
    }

    /// Deletes the notes of tenants that have been gone for long.
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
                let change = CompareAndSet { key, expected, value: None };
                if let Err(error) = parts.runtime.notes().compare_and_set(change).await {
                    tracing::debug!(%error, "the note of a gone tenant is deleted later");
                }
            });
        }
    }
}

/// What became of a batch of tenants' ticks.
#[derive(Message)]
#[rtype(result = "()")]
struct TenantsFired {
    entry: String,
    generation: u64,
    told: Vec<(TenantTick, Result<PublishReport, String>)>,
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
