//! Which queue a task goes to.

use std::collections::HashMap;
use std::sync::Arc;

use super::catalogue::{Catalogue, Pool, QueueRow};
use crate::task::registry::Registry;
use crate::task::{EnqueueError, Route as Router, TaskKind};

/// The catalogue and, for each known task, its queue.
///
/// A call's own `queue` wins, then the catalogue's `[routes]`, then the task's `queue` option, then the default queue.
pub(super) struct Routing {
    catalogue: Catalogue,
    tasks: HashMap<&'static str, Route>,
}

struct Route {
    /// What the task's attribute says.
    stated: Option<String>,
    /// Where it goes if the call says nothing else.
    queue: String,
}

impl Routing {
    /// A queue that a task names and the catalogue does not know is served all the same, with defaults and a warning:
    /// a new queue must not have to wait for the operators.
    pub(super) fn new(mut catalogue: Catalogue, registry: &Registry) -> Self {
        let mut tasks = HashMap::new();
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
            tasks.insert(name, Route { stated, queue });
        }
        if catalogue.queue(&catalogue.default_queue).is_none() {
            // The event loop suits both kinds: a plain `fn` gets a thread of its own there as well.
            let row = QueueRow::new(catalogue.default_queue.clone()).with_pool(Pool::Io);
            catalogue = catalogue.with_queue(row);
        }
        Self { catalogue, tasks }
    }

    /// Serves a queue that has tasks but no row: taken out of the catalogue, perhaps, before it was empty.
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

    pub(super) fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// The physical queue of a call.
    pub(super) fn queue(&self, task: &str, wanted: Option<&str>) -> Result<&str, EnqueueError> {
        if let Some(route) = self.tasks.get(task)
            && (wanted.is_none() || wanted == route.stated.as_deref())
        {
            return Ok(&route.queue);
        }
        let wanted = wanted.unwrap_or(&self.catalogue.default_queue);
        match self.catalogue.queue(wanted) {
            Some(row) => Ok(&row.name),
            None => Err(EnqueueError::UnknownQueue {
                task: task.to_owned(),
                queue: wanted.to_owned(),
                hint: self.nearest(wanted).map_or(String::new(), |name| format!("; did you mean `{name}`?")),
            }),
        }
    }

    /// The catalogue's default queue, if there is no such queue.
    fn or_default(&self, wanted: &str) -> &str {
        let wanted =
            self.catalogue.queue(wanted).or_else(|| self.catalogue.queue(&self.catalogue.default_queue));
        wanted.map_or(&self.catalogue.default_queue, |row| &row.name)
    }

    fn nearest(&self, wanted: &str) -> Option<&str> {
        self.catalogue
            .queues
            .iter()
            .map(|row| (strsim::jaro_winkler(&row.name, wanted), row.name.as_str()))
            .filter(|(score, _)| *score > 0.8)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, name)| name)
    }
}

impl Router for Arc<Routing> {
    fn queue(&self, task: &str, wanted: Option<&str>) -> Result<String, EnqueueError> {
        Routing::queue(self, task, wanted).map(str::to_owned)
    }

    fn queue_of_last_resort(&self, task: &str, wanted: Option<&str>) -> String {
        let own = Routing::queue(self, task, None).ok();
        own.unwrap_or_else(|| self.or_default(wanted.unwrap_or_default())).to_owned()
    }
}
