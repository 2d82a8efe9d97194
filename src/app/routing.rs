//! Which queue a task goes to. The dispatcher asks [`Routing`] for each call; the builder makes it from the
//! catalogue and the program's tasks, and the queues of its catalogue are those that are served.

use std::collections::HashMap;
use std::sync::Arc;

use super::demotion::Demotions;
use super::start_error::StartError;
use crate::catalogue::{self, Argument, ArgumentPattern, Catalogue, Pool, QueueRow, argument_value};
use crate::core::did_you_mean;
use crate::runtime::run_times::{RunTimeKeeper, WatchedArguments};
use crate::task::registry::Registry;
use crate::task::{Arguments, EnqueueError, RoutedQueue, Router, TaskKind};

/// The catalogue, and for each known task its queue.
///
/// The first of these decides: the call's own `queue`, the first `[[route]]` of the catalogue that fits, its
/// `[routes]`, the task's `queue` option, the default queue. If the call does not name the queue itself, the row of the
/// queue may send it on to another one, once, because its tenant sends too much.
pub(super) struct Routing {
    catalogue: Catalogue,
    tasks: HashMap<&'static str, Route>,
    /// The `[[route]]` rows, each with its physical queue.
    rows: Vec<(catalogue::RouteRule, String)>,
    /// How long calls took before, for the rows that look at that.
    run_times: Arc<RunTimeKeeper>,
    /// The queues that send the calls of a tenant elsewhere when it sends too much.
    demotions: Demotions,
    /// Whether any queue is a broadcast.
    has_broadcasts: bool,
    /// Other programs have queues on this broker too, which the catalogue need not know.
    shared: bool,
}

struct Route {
    /// The queue that the task's own options state.
    stated: Option<String>,
    /// The physical queue for calls that name no queue and that no row fits.
    queue: String,
    params: &'static [&'static str],
    /// The indices of the rows that are about this task, in their order.
    rows: Vec<usize>,
}

/// A call whose queue is to be found.
#[derive(Clone, Copy)]
struct RoutedCall<'a> {
    task: &'a str,
    /// The names of the task's parameters, empty if they are unknown.
    params: &'a [&'a str],
    tenant: Option<&'a str>,
    arguments: &'a Arguments,
}

impl Routing {
    /// Makes the routing. A queue that a task names and the catalogue does not know is served all the same, with
    /// defaults and a warning, because a new queue must not have to wait for the operators.
    pub(super) fn new(catalogue: Catalogue, registry: &Registry) -> Self {
        let mut catalogue = catalogue.indexed(); // each call looks its queue up
        let mut tasks = HashMap::new();
        // Rows that cannot be read or lead nowhere are dropped. `Catalogue::validate` refuses them, so none comes
        // out of a file.
        let rows: Vec<_> = catalogue
            .route_rows
            .iter()
            .filter_map(|row| {
                Some((catalogue::RouteRule::new(row).ok()?, catalogue.resolve(&row.queue)?.to_owned()))
            })
            .collect();
        warn_of_unknown_arguments(&catalogue, registry);
        let mut watched = WatchedArguments::new();
        for name in registry.names() {
            let Some(definition) = registry.get(name) else { continue };
            let stated = (definition.options)().queue;
            let wanted = catalogue.route(name).map(str::to_owned).or_else(|| stated.clone());
            let wanted = wanted.unwrap_or_else(|| catalogue.default_queue.clone());
            if catalogue.queue(&wanted).is_none() {
                tracing::warn!(
                    queue = wanted,
                    task = name,
                    "the queue is not in the catalogue; it is served with defaults"
                );
                let pool = match definition.kind {
                    TaskKind::Io => Pool::Io,
                    TaskKind::Cpu => Pool::Cpu,
                };
                catalogue = catalogue.with_queue(QueueRow::new(wanted.clone()).with_pool(pool));
            }
            let queue = catalogue.queue(&wanted).map_or(wanted, |row| row.name.clone());
            let about = rows.iter().enumerate().filter(|(_, (row, _))| row.is_about(name));
            let about: Vec<usize> = about.map(|(index, _)| index).collect();
            let arguments = about.iter().filter_map(|index| rows[*index].0.run_time()?.1).cloned();
            let arguments: Vec<Argument> = arguments.collect();
            if !arguments.is_empty() {
                watched.insert(name, arguments);
            }
            tasks.insert(name, Route { stated, queue, params: definition.params, rows: about });
        }
        if catalogue.queue(&catalogue.default_queue).is_none() {
            // The event loop suits both kinds of tasks: a plain `fn` gets a thread of its own there as well.
            let row = QueueRow::new(catalogue.default_queue.clone()).with_pool(Pool::Io);
            catalogue = catalogue.with_queue(row);
        }
        let run_times = Arc::new(RunTimeKeeper::watching(watched));
        let demotions = Demotions::of(&catalogue);
        // A queue that is added later is none.
        let has_broadcasts = catalogue.queues.iter().any(|row| row.setup.broadcast);
        Self { catalogue, tasks, rows, run_times, demotions, has_broadcasts, shared: false }
    }

    /// The queues that send the calls of a tenant elsewhere when it sends too much.
    pub(super) fn demotions(&self) -> &Demotions {
        &self.demotions
    }

    /// How long calls took before. Whoever runs tasks records it here.
    pub(super) fn run_times(&self) -> &Arc<RunTimeKeeper> {
        &self.run_times
    }

    /// Says whether other programs have queues on the broker too.
    pub(super) fn set_shared(&mut self, shared: bool) {
        self.shared = shared;
    }

    /// Leaves all queues to other programs.
    pub(super) fn serve_none(&mut self) {
        self.catalogue.queues.iter_mut().for_each(|row| row.served = false);
    }

    /// Serves a queue that has waiting tasks but no row. Perhaps it was taken out of the catalogue before it was
    /// empty.
    pub(super) fn serve_unlisted(&mut self, queue: &str) {
        if self.catalogue.queue(queue).is_none_or(|row| row.name != queue) {
            tracing::warn!(
                queue,
                "tasks wait in a queue that is not in the catalogue; it is served with defaults"
            );
            let row = QueueRow::new(queue).with_pool(Pool::Io);
            self.catalogue = std::mem::take(&mut self.catalogue).with_queue(row);
        }
    }

    /// Checks that no task needs one run that every process runs.
    ///
    /// # Errors
    /// The queue of a task is a broadcast, and the task is serial or has a unique window.
    pub(super) fn check_broadcasts(&self, registry: &Registry) -> Result<(), StartError> {
        for name in registry.names() {
            let (Some(definition), Some(route)) = (registry.get(name), self.tasks.get(name)) else {
                continue;
            };
            let what = match (definition.serial, definition.unique) {
                (Some(_), _) => "is serial",
                (None, Some(_)) => "has a unique window",
                (None, None) => continue,
            };
            if self.catalogue.queue(&route.queue).is_some_and(|row| row.setup.broadcast) {
                let (location, queue) = (definition.location, route.queue.clone());
                return Err(StartError::Broadcast { task: name, location, queue, what });
            }
        }
        Ok(())
    }

    /// Whether a task of this program that is a plain `fn` goes to this queue, unless its call says otherwise.
    pub(super) fn runs_plain_fn(&self, queue: &str, registry: &Registry) -> bool {
        let is_plain = |name: &str| registry.get(name).is_some_and(|task| task.kind == TaskKind::Cpu);
        self.tasks.iter().any(|(name, route)| route.queue == queue && is_plain(name))
    }

    /// The catalogue in force, with the queues that were added because tasks need them.
    pub(super) fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// The physical queue of a call on behalf of this tenant. `wanted` is the queue that the call names.
    ///
    /// # Errors
    /// The call names a queue that the catalogue does not know.
    pub(super) fn queue(
        &self,
        tenant: Option<&str>,
        task: &str,
        wanted: Option<&str>,
        arguments: &Arguments,
    ) -> Result<&str, EnqueueError> {
        self.queue_by(self.tasks.get(task), tenant, task, wanted, arguments)
    }

    /// As [`queue`](Self::queue), with the route of the task, if it is one of this program.
    fn queue_by<'r>(
        &'r self,
        route: Option<&'r Route>,
        tenant: Option<&str>,
        task: &str,
        wanted: Option<&str>,
        arguments: &Arguments,
    ) -> Result<&'r str, EnqueueError> {
        match route {
            Some(route) if wanted.is_none() || wanted == route.stated.as_deref() => {
                let call = RoutedCall { task, params: route.params, tenant, arguments };
                let rows = route.rows.iter().filter_map(|index| self.rows.get(*index));
                return Ok(self.first_that_fits(rows, call).unwrap_or(&route.queue));
            }
            // This is a task of another program, so only the catalogue can know its queue.
            None if wanted.is_none() => {
                let call = RoutedCall { task, params: &[], tenant, arguments };
                let rows = self.rows.iter().filter(|(row, _)| row.is_about(task));
                if let Some(queue) = self.first_that_fits(rows, call).or_else(|| self.catalogue.route(task)) {
                    return Ok(queue);
                }
            }
            _ => {}
        }
        let wanted = wanted.unwrap_or(&self.catalogue.default_queue);
        match self.catalogue.queue(wanted) {
            Some(row) => Ok(&row.name),
            None => Err(EnqueueError::UnknownQueue {
                task: task.to_owned(),
                queue: wanted.to_owned(),
                hint: did_you_mean::hint(wanted, self.catalogue.queues.iter().map(|row| row.name.as_str())),
            }),
        }
    }

    fn first_that_fits<'r>(
        &self,
        mut rows: impl Iterator<Item = &'r (catalogue::RouteRule, String)>,
        call: RoutedCall<'_>,
    ) -> Option<&'r str> {
        let fits = |row: &catalogue::RouteRule| row.fits(call.params, call.arguments) && self.took(row, call);
        rows.find(|(row, _)| fits(row)).map(|(_, queue)| queue.as_str())
    }

    /// Whether such calls took as long before as the row says. Of a call that nobody knows, no row says anything.
    fn took(&self, row: &catalogue::RouteRule, call: RoutedCall<'_>) -> bool {
        let Some((condition, argument)) = row.run_time() else { return true };
        let RoutedCall { task, params, tenant, arguments } = call;
        let value =
            argument.and_then(|argument| Some((argument, argument_value(argument, params, arguments)?)));
        if argument.is_some() && value.is_none() {
            return false;
        }
        let value = value.as_ref().map(|(argument, value)| (*argument, value.as_str()));
        let known = self.run_times.known(task, tenant, value);
        let holds = known.is_some_and(|figures| condition.holds(&figures));
        if holds {
            tracing::debug!(
                task,
                tenant,
                ?known,
                "a call goes to another queue for how long such calls took"
            );
        }
        holds
    }

    /// The physical name of this queue; of the catalogue's default queue if there is no such queue.
    fn or_default(&self, wanted: &str) -> &str {
        let wanted =
            self.catalogue.queue(wanted).or_else(|| self.catalogue.queue(&self.catalogue.default_queue));
        wanted.map_or(&self.catalogue.default_queue, |row| &row.name)
    }
}

impl Router for Arc<Routing> {
    fn queue(&self, task: &str, wanted: Option<&str>, arguments: &Arguments) -> Result<String, EnqueueError> {
        Routing::queue(self, None, task, wanted, arguments).map(str::to_owned)
    }

    fn queue_for(
        &self,
        tenant: Option<&str>,
        task: &str,
        wanted: Option<&str>,
        arguments: &Arguments,
    ) -> Result<RoutedQueue, EnqueueError> {
        let route = self.tasks.get(task);
        let queue = self.queue_by(route, tenant, task, wanted, arguments)?;
        let is_tasks_own = |wanted: &str| route.is_some_and(|route| route.stated.as_deref() == Some(wanted));
        let instead = if tenant.is_some() && wanted.is_none_or(is_tasks_own) {
            self.demotions.instead_of(queue, tenant)
        } else {
            None
        };
        let instead_of = instead.map(|_| queue.to_owned());
        Ok(RoutedQueue { name: instead.unwrap_or(queue).to_owned(), instead_of })
    }

    fn queue_of_last_resort(&self, task: &str, wanted: Option<&str>) -> String {
        // The name may come from a Python client that wrote it into a step of its chain, and knows where the task's
        // workers are.
        if let Some(wanted) = wanted.filter(|_| self.shared) {
            return wanted.to_owned();
        }
        let own = Routing::queue(self, None, task, None, &Arguments::default()).ok();
        own.unwrap_or_else(|| self.or_default(wanted.unwrap_or_default())).to_owned()
    }

    fn is_broadcast(&self, queue: &str) -> bool {
        self.has_broadcasts && self.catalogue.queue(queue).is_some_and(|row| row.setup.broadcast)
    }
}

/// Warns of each row about an argument that none of its tasks has: it never fits. This is no error, because the row
/// may be about another program's task.
fn warn_of_unknown_arguments(catalogue: &Catalogue, registry: &Registry) {
    for row in &catalogue.route_rows {
        let Some(ArgumentPattern { argument: Argument::Name(argument), .. }) = &row.argument else {
            continue;
        };
        let Ok(route) = catalogue::RouteRule::new(row) else { continue };
        let about = registry.names().into_iter().filter(|name| route.is_about(name));
        let params: Vec<&[&str]> =
            about.filter_map(|name| registry.get(name)).map(|definition| definition.params).collect();
        // A task with `**options` takes every name.
        let has =
            |params: &&[&str]| params.iter().any(|name| *name == argument.as_str() || name.starts_with("**"));
        if !params.is_empty() && !params.iter().any(has) {
            let known = params.concat().join(", ");
            tracing::warn!(route = %row, argument, known, "no task that the route is about has this argument");
        }
    }
}
