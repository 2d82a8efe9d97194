//! Entries that fire for each tenant: whose time has come has its day once, also through a restart.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use celeriac::core::Timestamp;
use celeriac::core::calendar::{Misfire, Schedule, Tenant, Tenants, Zone, tenant_tick_id};
use celeriac::task::{Periodic, Task, TenantsFuture};
use celeriac::{Context, TaskError, task};

use crate::kit::{HOUR, embedded, now, ran, status, until, write_down};

/// One every second or so.
const SPREAD: Duration = Duration::from_secs(2 * 3600);
const MANY: usize = 7200;

static FAILING: AtomicBool = AtomicBool::new(true);

#[task(queue = "io", ignore_result)]
async fn export(ctx: Context, domain: String) {
    write_down(&ctx, format!("export {domain}"));
    write_down(&ctx, "exports".into());
}

fn list() -> Vec<Tenant> {
    (0..MANY).map(|n| Tenant::new(format!("domain-{n}"), Zone::UTC)).collect()
}

fn domains() -> TenantsFuture {
    Box::pin(async {
        // A source may fail, and may wait for something.
        tokio::task::yield_now().await;
        if FAILING.swap(false, Ordering::SeqCst) {
            return Err(TaskError::reject("the database is away"));
        }
        Ok(list())
    })
}

/// An hour ago, so that half of the window is ahead.
fn an_hour_ago() -> (Schedule, String) {
    let clock = Zone::UTC.display(now() - HOUR);
    let (hour, minute) = (&clock[11..13], &clock[14..16]);
    let text = format!("{minute} {hour} * * *");
    (Schedule::crontab(text.parse().unwrap(), Zone::UTC), text)
}

/// Who is to have which day between these times, as ids.
fn expected(crontab: &str, from: Timestamp, to: Timestamp) -> BTreeSet<String> {
    let mut tenants = Tenants::new("exports", crontab.parse().unwrap(), SPREAD, Misfire::Once, from);
    tenants.refresh(list(), |_| None, from);
    let ticks = tenants.due(to, usize::MAX);
    ticks.into_iter().map(|tick| tenant_tick_id("exports", &tick.tenant, tick.day)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tenant_has_its_day_once() {
    let dir = tempfile::tempdir().unwrap();
    let (schedule, crontab) = an_hour_ago();
    let entry =
        || Periodic::new("exports", export::Task::NAME, schedule.clone()).for_tenants(domains, SPREAD);
    let celeriac = embedded(dir.path()).periodic(entry()).start().await.unwrap();
    until("the failing source is told", async || {
        status(&celeriac, "exports").await.error.is_some_and(|error| error.contains("the database is away"))
    })
    .await;
    celeriac.shutdown().await.unwrap();

    // Asked again at the next start, well before the half minute is over.
    let celeriac = embedded(dir.path()).periodic(entry()).start().await.unwrap();
    until("some had their day", async || ran("exports").len() >= 3).await;
    let begun = status(&celeriac, "exports").await;
    assert_eq!(begun.tenants, Some(MANY));
    celeriac.shutdown().await.unwrap();
    let down = now();
    until("more came due while nobody looked", async || now().since(down) > Duration::from_secs(3)).await;
    let celeriac = embedded(dir.path()).periodic(entry()).start().await.unwrap();
    let up = now();
    let due = expected(&crontab, up, up + Duration::from_secs(2));
    until("those who were missed, and who came since", async || {
        let ids: BTreeSet<_> = ran("exports").into_iter().collect();
        ids.is_superset(&due) && ids.is_superset(&expected(&crontab, down, up))
    })
    .await;
    celeriac.shutdown().await.unwrap();
    let ids = ran("exports");
    let once: BTreeSet<_> = ids.iter().collect();
    assert_eq!(once.len(), ids.len(), "no tenant has a day twice");
    // The task got the tenant's name.
    let named = list().iter().filter(|tenant| !ran(&format!("export {}", tenant.name)).is_empty()).count();
    assert_eq!(named, once.len());
    let all = expected(&crontab, down - HOUR, now());
    assert!(ids.iter().all(|id| all.contains(id)), "nobody before its time");
}

#[task(queue = "io", ignore_result)]
async fn long_names(ctx: Context, domain: String) {
    write_down(&ctx, format!("long name of {}", domain.len()));
    write_down(&ctx, "long names".into());
}

/// One tenant's name is longer than a note may be.
fn with_a_long_name() -> TenantsFuture {
    Box::pin(async {
        let long = Tenant::new("x".repeat(2000), Zone::UTC);
        Ok(std::iter::once(long).chain(list()).collect())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_whose_name_is_too_long_is_named_and_the_others_have_their_day() {
    let dir = tempfile::tempdir().unwrap();
    let (schedule, _) = an_hour_ago();
    let entry = Periodic::new("long", long_names::Task::NAME, schedule).for_tenants(with_a_long_name, SPREAD);
    let celeriac = embedded(dir.path()).periodic(entry).start().await.unwrap();
    until("others had their day", async || ran("long names").len() >= 2).await;
    let status = status(&celeriac, "long").await;
    let told = format!(
        "tenant `{}... (2000 bytes)` has no ticks of `long`, for its name is too long to be noted: let the source give names of at most 1010 bytes, such as ids",
        "x".repeat(44)
    );
    assert_eq!((status.tenants, status.error), (Some(MANY), Some(told)));
    celeriac.shutdown().await.unwrap();
    assert!(ran("long name of 2000").is_empty());
}
