//! A periodic entry: the task that beat calls, its arguments, its schedule, and the rules for ticks that are missed or
//! overlap.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Arguments, Signature, Task, TaskError};
use crate::core::calendar::{CrontabError, Fields, Misfire, Overlap, Schedule, Tenant, UnknownZone, Zone};

/// A future of the tenants of an entry, as they are when it is polled.
pub type TenantsFuture = Pin<Box<dyn Future<Output = Result<Vec<Tenant>, TaskError>> + Send>>;

/// A function that looks up the tenants of an entry.
pub type TenantSource = fn() -> TenantsFuture;

/// The part of an entry that fires once for each tenant and local day.
#[derive(Clone, Copy, Debug)]
pub struct PerTenant {
    /// The function that looks up the tenants. Beat calls it at the start and every fifteen minutes.
    pub source: TenantSource,
    /// The time after the entry's time of day over which the tenants are spread. It is at most twenty hours.
    pub spread: Duration,
}

/// An entry of the schedule. Celery's `beat_schedule` has similar entries.
///
/// ```
/// # use celeriac::task;
/// use celeriac::core::calendar::{Overlap, Schedule, Zone};
/// use celeriac::task::Periodic;
/// #[task]
/// async fn clean_up(days: u32) {}
///
/// # fn demo() -> Result<(), Box<dyn std::error::Error>> {
/// let nightly = Schedule::crontab("30 3 * * *".parse()?, "Africa/Nairobi".parse()?);
/// let entry = Periodic::calling("clean-up", clean_up::s(7), nightly).overlap(Overlap::Skip);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Periodic {
    /// The entry's name, which is unique in the schedule.
    pub name: String,
    /// The task's name. The task need not be in this program.
    pub task: String,
    /// The arguments of each call.
    pub arguments: Arguments,
    /// The schedule of the ticks.
    pub schedule: Schedule,
    /// The rule for ticks that were missed.
    pub misfire: Misfire,
    /// The rule for a tick that is due while the one before is not over.
    pub overlap: Overlap,
    /// The queue of the calls. `None` stands for the task's own queue.
    pub queue: Option<String>,
    /// The time from a tick's publication after which the tick is revoked if it has not started. With `None` the task's
    /// own `expires` counts; if the task has none either, a tick expires when the next one is due.
    pub expires: Option<Duration>,
    /// The environments in which the entry fires. An empty list stands for all of them.
    pub environments: Vec<String>,
    /// The tenants of the entry, if it fires once for each tenant.
    pub tenants: Option<PerTenant>,
    /// Whether the program's default zone is to take the place of the schedule's.
    takes_default_zone: bool,
}

impl Periodic {
    /// An entry that calls a task by its name, without arguments.
    pub fn new(name: impl Into<String>, task: impl Into<String>, schedule: Schedule) -> Self {
        Self {
            name: name.into(),
            task: task.into(),
            arguments: Arguments { args: "[]".to_owned(), kwargs: String::new() },
            schedule,
            misfire: Misfire::default(),
            overlap: Overlap::default(),
            queue: None,
            expires: None,
            environments: Vec::new(),
            tenants: None,
            takes_default_zone: false,
        }
    }

    /// An entry that makes this call. It takes over the arguments of the call, and of its options the queue only.
    ///
    /// If the arguments have no form in JSON, the entry has no arguments, and the task then names the one that is
    /// missing.
    pub fn calling<T: Task>(name: impl Into<String>, call: Signature<T>, schedule: Schedule) -> Self {
        let mut entry = Self::new(name, T::NAME, schedule);
        entry.queue = call.stated_queue().map(str::to_owned);
        if let Ok(arguments) = call.into_arguments() {
            entry.arguments = arguments;
        }
        entry
    }

    /// Sets the arguments of each call: a JSON array, and a JSON object or an empty text.
    #[must_use]
    pub fn arguments(mut self, arguments: Arguments) -> Self {
        self.arguments = arguments;
        self
    }

    /// Sets the rule for ticks that were missed.
    #[must_use]
    pub fn misfire(mut self, misfire: Misfire) -> Self {
        self.misfire = misfire;
        self
    }

    /// Sets the rule for a tick that is due while the one before is not over.
    #[must_use]
    pub fn overlap(mut self, overlap: Overlap) -> Self {
        self.overlap = overlap;
        self
    }

    /// Sets the queue of the calls.
    #[must_use]
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// Sets the time from a tick's publication after which the tick is revoked if it has not started.
    #[must_use]
    pub fn expires(mut self, after: Duration) -> Self {
        self.expires = Some(after);
        self
    }

    /// Adds an environment in which the entry fires. An entry without any fires in all environments.
    #[must_use]
    pub fn on(mut self, environment: impl Into<String>) -> Self {
        self.environments.push(environment.into());
        self
    }

    /// Has the clocks of the program's default zone count (`[defaults]` of the catalogue, or
    /// [`Builder::zone`](crate::Builder::zone)) in place of the zone of the entry's crontab. It holds for entries that the
    /// program has when it starts. Those of `#[periodic_task]` and of the catalogue that state no zone are like that.
    #[must_use]
    pub fn in_default_zone(mut self) -> Self {
        self.takes_default_zone = true;
        self
    }

    /// Gives the entry the program's default zone, if it is to have it.
    pub(crate) fn settle_zone(&mut self, default: Option<Zone>) {
        if let (true, Some(default), Schedule::Crontab { zone, .. }) =
            (self.takes_default_zone, default, &mut self.schedule)
        {
            *zone = default;
        }
    }

    /// Lets the entry fire once for each tenant and local day, spread over the time `spread` after the entry's time of
    /// day.
    #[must_use]
    pub fn for_tenants(mut self, source: TenantSource, spread: Duration) -> Self {
        self.tenants = Some(PerTenant { source, spread });
        self
    }

    /// Whether the entry fires in this environment.
    pub fn is_on(&self, environment: Option<&str>) -> bool {
        self.environments.is_empty()
            || environment.is_some_and(|environment| self.environments.iter().any(|e| e == environment))
    }

    /// Writes the entry as text that [`from_text`](Self::from_text) reads, for the store of entries that were made at
    /// run time. The source of tenants is code, so the text does not have it.
    pub(crate) fn to_text(&self) -> String {
        let (crontab, zone, every) = match &self.schedule {
            Schedule::Crontab { crontab, zone } => (Some(crontab.to_string()), Some(zone.to_string()), None),
            Schedule::Every(interval) => (None, None, Some(*interval)),
        };
        let (misfire, within) = match self.misfire {
            Misfire::All { within } => ("all", Some(within)),
            Misfire::Skip => ("skip", None),
            _ => ("once", None),
        };
        let overlap = match self.overlap {
            Overlap::Skip => "skip",
            Overlap::Allow => "allow",
            _ => "buffer_one",
        };
        let kept = StoredPeriodic {
            task: self.task.clone(),
            args: self.arguments.args.clone(),
            kwargs: self.arguments.kwargs.clone(),
            crontab,
            zone,
            every,
            misfire: misfire.to_owned(),
            within,
            overlap: overlap.to_owned(),
            queue: self.queue.clone(),
            expires: self.expires,
            environments: self.environments.clone(),
        };
        // The text consists of strings, numbers and lists, so it always has a form in JSON.
        serde_json::to_string(&kept).unwrap_or_default()
    }

    /// Reads an entry that [`to_text`](Self::to_text) wrote.
    pub(crate) fn from_text(name: &str, text: &str) -> Result<Self, String> {
        let kept: StoredPeriodic = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let schedule = match (kept.crontab, kept.every) {
            (Some(crontab), None) => {
                let zone = kept.zone.unwrap_or_else(|| "UTC".to_owned());
                let crontab = crontab.parse().map_err(|e: CrontabError| e.to_string())?;
                Schedule::crontab(crontab, zone.parse().map_err(|e: UnknownZone| e.to_string())?)
            }
            (None, Some(every)) => Schedule::Every(every),
            _ => return Err("it has neither a crontab nor an interval, or both".to_owned()),
        };
        let mut entry = Self::new(name, kept.task, schedule);
        entry.arguments = Arguments { args: kept.args, kwargs: kept.kwargs };
        entry.misfire = match (kept.misfire.as_str(), kept.within) {
            ("all", Some(within)) => Misfire::All { within },
            ("skip", _) => Misfire::Skip,
            _ => Misfire::Once,
        };
        entry.overlap = match kept.overlap.as_str() {
            "skip" => Overlap::Skip,
            "allow" => Overlap::Allow,
            _ => Overlap::BufferOne,
        };
        entry.queue = kept.queue;
        entry.expires = kept.expires;
        entry.environments = kept.environments;
        Ok(entry)
    }

    /// The reason why the entry is not valid, if it is not. The text says what to do.
    pub(crate) fn fault(&self) -> Option<String> {
        if self.name.is_empty() || self.name.len() > 255 || self.name.chars().any(char::is_control) {
            return Some("its name has 1 to 255 bytes, and no control characters; rename it".to_owned());
        }
        if let Schedule::Every(interval) = &self.schedule
            && *interval < Duration::from_millis(1)
        {
            return Some(format!("every {interval:?} is too often; write at least 1ms"));
        }
        let tenants = self.tenants?;
        if tenants.spread > crate::core::calendar::Tenants::WIDEST {
            return Some(format!(
                "its tenants are spread over {:?}; write at most 20 hours, so that a day's ticks end before the next day's begin",
                tenants.spread
            ));
        }
        match &self.schedule {
            Schedule::Crontab { crontab, .. } if crontab.time_of_day().is_some() => None,
            other => Some(format!(
                "with tenants it fires once for each and day, but `{other}` has not one time of day; write a crontab with one minute and one hour"
            )),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct StoredPeriodic {
    task: String,
    args: String,
    kwargs: String,
    crontab: Option<String>,
    zone: Option<String>,
    every: Option<Duration>,
    misfire: String,
    within: Option<Duration>,
    overlap: String,
    queue: Option<String>,
    expires: Option<Duration>,
    environments: Vec<String>,
}

/// An entry that `#[periodic_task]` made. The program finds it at link time.
pub struct PeriodicDefinition {
    /// The name of the periodic entry.
    pub name: &'static str,
    /// The file and line of the definition.
    pub location: &'static str,
    /// Makes the entry, or says why it is not valid.
    pub entry: fn() -> Result<Periodic, PeriodicFault>,
}

inventory::collect!(PeriodicDefinition);

impl PeriodicDefinition {
    /// All entries that macros in this program define.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        inventory::iter::<Self>.into_iter()
    }
}

/// The reason why a `#[periodic_task]` makes no entry.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeriodicFault {
    /// The entry's crontab is not valid.
    #[error(transparent)]
    Crontab(#[from] CrontabError),
    /// The entry's time zone is not known.
    #[error(transparent)]
    Zone(#[from] UnknownZone),
}

crate::core::debug_as_display!(PeriodicFault);

/// Makes a crontab schedule from fields or from one text, in a time zone. The macro calls it.
#[doc(hidden)]
pub fn crontab(fields: Result<Fields, &str>, zone: Option<&str>) -> Result<Schedule, PeriodicFault> {
    let crontab = match fields {
        Ok(fields) => fields.crontab()?,
        Err(text) => text.parse()?,
    };
    Ok(Schedule::crontab(crontab, zone.map_or(Ok(Zone::UTC), str::parse)?))
}

/// A value that a source of tenants may return: the tenants, or a `Result` with an error that a task may have.
#[doc(hidden)]
pub trait IntoTenants {
    /// Converts the value to a plain result.
    fn into_tenants(self) -> Result<Vec<Tenant>, TaskError>;
}

impl IntoTenants for Vec<Tenant> {
    fn into_tenants(self) -> Result<Vec<Tenant>, TaskError> {
        Ok(self)
    }
}

impl<E: Into<TaskError>> IntoTenants for Result<Vec<Tenant>, E> {
    fn into_tenants(self) -> Result<Vec<Tenant>, TaskError> {
        self.map_err(Into::into)
    }
}

impl PartialEq for Periodic {
    /// Compares two entries. Sources of tenants are code, so only their presence is compared.
    fn eq(&self, other: &Self) -> bool {
        let spread = |entry: &Self| entry.tenants.map(|tenants| tenants.spread);
        self.name == other.name && spread(self) == spread(other) && self.to_text() == other.to_text()
    }
}

impl fmt::Display for Periodic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} at {}", self.name, self.task, self.schedule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(schedule: Schedule) -> Periodic {
        Periodic::new("e", "app.task", schedule)
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let crontab =
            Schedule::crontab("*/5 8-17 * * mon-fri".parse().unwrap(), "Asia/Kolkata".parse().unwrap());
        let all = entry(crontab)
            .arguments(Arguments { args: "[1,\"ä\"]".into(), kwargs: "{\"x\":2}".into() })
            .misfire(Misfire::All { within: Duration::from_secs(60) })
            .overlap(Overlap::Allow)
            .queue("q")
            .expires(Duration::from_millis(1500))
            .on("production");
        let plain =
            entry(Schedule::Every(Duration::from_millis(250))).misfire(Misfire::Skip).overlap(Overlap::Skip);
        for entry in [all, plain] {
            let read = Periodic::from_text("e", &entry.to_text()).unwrap();
            assert_eq!(format!("{read:?}"), format!("{entry:?}"));
        }
        for text in ["", "{}", "{\"task\":\"t\"}"] {
            assert!(Periodic::from_text("e", text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_entry_says_why() {
        fn nobody() -> TenantsFuture {
            Box::pin(async { Ok(Vec::new()) })
        }
        let daily = || entry(Schedule::crontab("0 0 * * *".parse().unwrap(), Zone::UTC));
        assert_eq!(daily().fault(), None);
        assert_eq!(daily().for_tenants(nobody, Duration::from_secs(3600)).fault(), None);
        let hour = Duration::from_secs(3600);
        for (entry, what) in [
            (daily().for_tenants(nobody, 21 * hour), "write at most 20 hours"),
            (entry(Schedule::Every(hour)).for_tenants(nobody, hour), "has not one time of day"),
            (
                entry(Schedule::crontab("0 */6 * * *".parse().unwrap(), Zone::UTC)).for_tenants(nobody, hour),
                "`0 */6 * * * (UTC)` has not one time of day",
            ),
            (entry(Schedule::Every(Duration::ZERO)), "too often"),
            (Periodic::new("a\nb", "t", Schedule::Every(hour)), "no control characters"),
        ] {
            let fault = entry.fault().unwrap();
            assert!(fault.contains(what), "{fault}");
        }
    }

    #[test]
    fn the_default_zone_is_for_entries_that_state_none() {
        let daily = || entry(Schedule::crontab("0 0 * * *".parse().unwrap(), Zone::UTC));
        let kolkata: Zone = "Asia/Kolkata".parse().unwrap();
        let settled = |mut entry: Periodic, default| {
            entry.settle_zone(default);
            entry.schedule.to_string()
        };
        assert_eq!(settled(daily().in_default_zone(), Some(kolkata)), "0 0 * * * (Asia/Kolkata)");
        assert_eq!(settled(daily().in_default_zone(), None), "0 0 * * * (UTC)");
        assert_eq!(settled(daily(), Some(kolkata)), "0 0 * * * (UTC)");
        let often = entry(Schedule::Every(Duration::from_secs(1))).in_default_zone();
        assert_eq!(settled(often, Some(kolkata)), "every 1s");
    }

    #[test]
    fn environments_are_named() {
        let everywhere = entry(Schedule::Every(Duration::from_secs(1)));
        assert!(everywhere.is_on(None) && everywhere.is_on(Some("staging")));
        let named = everywhere.on("production").on("india");
        assert!(named.is_on(Some("india")) && !named.is_on(Some("staging")) && !named.is_on(None));
    }
}
