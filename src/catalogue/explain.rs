//! The catalogue in words: what each queue promises, and how many workers all of them have.

use std::fmt::Write;

use super::{Catalogue, Pool, PoolRow, QueueRow, format_size, format_span};

impl QueueRow {
    /// A sentence that says what the queue promises and how it runs its tasks.
    ///
    /// ```
    /// use std::time::Duration;
    /// use celeriac::catalogue::QueueRow;
    /// let row = QueueRow::new("email").with_io_bound(true).with_target(Duration::from_secs(30));
    /// assert_eq!(
    ///     row.explain(),
    ///     "email: a task starts at most 30s after it is due; 50 run at a time on the event loop (I/O bound), \
    ///      up to 100 held over RabbitMQ, up to 1024 of the embedded store"
    /// );
    /// assert_eq!(QueueRow::new("python").with_served(false).explain(), "python: served elsewhere");
    /// ```
    pub fn explain(&self) -> String {
        if !self.served {
            let name = one_line(&self.name);
            return format!("{name}: served elsewhere{}{}", self.demotion(), self.made());
        }
        let mut text = format!("{}: ", one_line(&self.name));
        match (self.target, self.target_class) {
            (Some(target), _) => {
                let _ = write!(text, "a task starts at most {} after it is due", format_span(target));
            }
            (None, Some(class)) => {
                let _ = write!(text, "a task should start within {class}, but no number is promised");
            }
            (None, None) => text.push_str("no promise on when a task starts"),
        }
        let most = self.most_workers();
        let run = if most == 1 { "runs" } else { "run" };
        let pool = match self.pool {
            Pool::Io => "on the event loop",
            Pool::Cpu => "on threads of their own",
            Pool::Process => "in child processes",
        };
        let _ = match most > self.workers {
            true => write!(text, "; {} to {most} {run} at a time {pool}, as many as wait", self.workers),
            false => write!(text, "; {most} {run} at a time {pool}"),
        };
        match self.io_bound {
            Some(true) => text.push_str(" (I/O bound)"),
            Some(false) => text.push_str(" (not I/O bound)"),
            None => {}
        }
        text.push_str(&self.children());
        text.push_str(&self.sharing());
        let (shared, alone) = (self.max_deliveries(), self.max_deliveries_alone());
        let _ = match shared == alone {
            true => write!(text, ", up to {shared} held"),
            false => write!(text, ", up to {shared} held over RabbitMQ, up to {alone} of the embedded store"),
        };
        if let Some(typical) = &self.typical_duration {
            let _ = write!(text, "; a typical one takes: {}", one_line(typical).trim_end_matches('.'));
        }
        text + &self.demotion() + &self.made()
    }

    /// Where calls go of a tenant that sends too much, if the row says so; else an empty text.
    fn demotion(&self) -> String {
        match (&self.demote_above, &self.demote_to) {
            (Some(above), Some(to)) => {
                format!("; calls of a tenant above {} go to {}", one_line(above.text()), one_line(to))
            }
            _ => String::new(),
        }
    }

    /// When child processes are replaced and what memory they have, if the row says so; else an empty text.
    fn children(&self) -> String {
        let mut parts = Vec::new();
        if let Some(tasks) = self.max_tasks_per_child {
            parts.push(format!("each replaced after {}", count(tasks as usize, "task")));
        }
        if let Some(bytes) = self.max_memory_per_child {
            parts.push(format!("replaced above {}", format_size(bytes)));
        }
        if let Some(bytes) = self.memory_limit_per_child {
            parts.push(format!("ended at {}", format_size(bytes)));
        }
        if self.pool != Pool::Process || parts.is_empty() {
            return String::new();
        }
        format!(" ({})", parts.join(", "))
    }

    /// What the queue has of the slots of its pool, if the row says so; else an empty text.
    fn sharing(&self) -> String {
        match (self.shared, self.min_workers) {
            (false, _) => ", on slots of its own".to_owned(),
            (true, 0) => String::new(),
            (true, least) => format!(", {least} of them before other queues of the pool have any"),
        }
    }

    /// How RabbitMQ makes the queue, if the row says so; else an empty text.
    fn made(&self) -> String {
        let mut parts = Vec::new();
        if let Some(queue_type) = self.setup.queue_type {
            parts.push(format!("a {} queue", queue_type.as_str()));
        }
        if let Some(max) = self.setup.max_priority {
            parts.push(format!("priorities up to {max}"));
        }
        if let Some(partitions) = self.setup.partitions {
            parts.push(format!(
                "{partitions} partitions (no effect on other brokers, where tenants take turns anyway)"
            ));
        }
        parts.extend(self.setup.arguments.iter().map(|(name, value)| one_line(&format!("{name} = {value}"))));
        if parts.is_empty() { String::new() } else { format!("; on RabbitMQ {}", parts.join(", ")) }
    }
}

impl Catalogue {
    /// A few lines about the whole catalogue: its queues, pools, workers and names.
    pub fn summary(&self) -> String {
        let mut text =
            format!("{}, {} in all:", count(self.queues.len(), "queue"), count(self.workers(None), "worker"));
        for pool in Pool::ALL {
            let queues = self.queues.iter().filter(|row| row.served && row.pool == pool).count();
            if queues == 0 && pool == Pool::Process {
                continue; // few programs have such a queue
            }
            let workers = count(self.workers(Some(pool)), "worker");
            let _ = write!(text, "\n  pool {pool}: {} with {workers}", count(queues, "queue"));
            if let Some(row) = self.pools.get(&pool) {
                text.push_str(&sharing_of(row));
            }
        }
        let elsewhere = self.queues.iter().filter(|row| !row.served).count();
        if elsewhere > 0 {
            let _ = write!(text, "\n  served elsewhere: {}", count(elsewhere, "queue"));
        }
        let default = self.resolve(&self.default_queue).unwrap_or(&self.default_queue);
        let _ = write!(text, "\n  tasks without a queue go to {}", one_line(default));
        let aliases = match self.aliases.len() {
            1 => "1 alias".to_owned(),
            several => format!("{several} aliases"),
        };
        let _ = write!(text, "\n  {aliases}, {}", count(self.routes.len() + self.route_rows.len(), "route"));
        if !self.tenant_weights.is_empty() {
            let _ = write!(text, ", {}", count(self.tenant_weights.len(), "tenant weight"));
        }
        if !self.rate_limits.is_empty() {
            let _ = write!(text, ", {}", count(self.rate_limits.len(), "rate limit"));
        }
        if !self.limits.is_empty() {
            let _ = write!(text, ", {}", count(self.limits.len(), "limit"));
        }
        if !self.brakes.is_empty() {
            let _ = write!(text, ", {}", count(self.brakes.len(), "brake"));
        }
        let environments: Vec<_> = self.environments().map(one_line).collect();
        if !environments.is_empty() {
            let _ = write!(text, ", environments: {}", environments.join(", "));
        }
        text
    }

    /// The defaults of tasks in one line, with the keys of `[defaults]`; `None`: the catalogue states none.
    #[cfg(feature = "cli")]
    pub(crate) fn explain_defaults(&self) -> Option<String> {
        let defaults = &self.defaults;
        let spans = [
            ("soft_time_limit", defaults.soft_time_limit),
            ("time_limit", defaults.time_limit),
            ("expires", defaults.expires),
            ("default_retry_delay", defaults.default_retry_delay),
            ("retry_backoff_max", defaults.retry_backoff_max),
            ("result_expires", defaults.result_expires),
        ];
        let switches = [
            ("retry_backoff", defaults.retry_backoff),
            ("retry_jitter", defaults.retry_jitter),
            ("autoretry", defaults.autoretry),
            ("acks_late", defaults.acks_late),
        ];
        let mut parts: Vec<String> =
            spans.iter().filter_map(|(key, span)| Some(format!("{key} {}", format_span((*span)?)))).collect();
        parts.extend(defaults.max_retries.map(|most| format!("max_retries {most}")));
        parts.extend(switches.iter().filter_map(|(key, on)| Some(format!("{key} {}", (*on)?))));
        parts.extend(defaults.rate_limit.as_ref().map(|limit| format!("rate_limit {}", limit.text())));
        if !defaults.expires_except.is_empty() {
            let names: Vec<String> = defaults.expires_except.iter().map(|name| one_line(name)).collect();
            parts.push(format!("expires_except {}", names.join(", ")));
        }
        parts.extend(defaults.tenant.as_ref().map(|argument| format!("tenant {}", one_line(argument))));
        parts.extend(self.zone.map(|zone| format!("zone {zone}")));
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// How many workers all served queues have, or those in one pool.
    fn workers(&self, pool: Option<Pool>) -> usize {
        let here = self.queues.iter().filter(|row| row.served);
        let rows = here.filter(|row| pool.is_none_or(|pool| row.pool == pool));
        rows.fold(0, |sum: usize, row| sum.saturating_add(row.workers))
    }
}

/// How the queues of a pool share its slots.
fn sharing_of(row: &PoolRow) -> String {
    let mut text = format!(", which share {}", count(row.slots, "slot"));
    if let Some(reserve) = row.reserve {
        let _ = write!(text, ", {reserve} kept for tighter promises");
    }
    if let Some(room) = row.room {
        let _ = write!(text, ", {room} left to other tenants");
    }
    text
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// A text of the file on one line of a terminal: runs of white space become one space, and control characters are
/// removed.
pub(crate) fn one_line(text: &str) -> String {
    let words: Vec<String> = text
        .split_whitespace()
        .map(|word| word.chars().filter(|c| !c.is_control()).collect::<String>())
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ")
}
