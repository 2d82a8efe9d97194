//! The health of a program: what keeps its tasks from running as promised, and what to do about it. `core/health.rs` judges
//! the queues; this asks them, and finds the words.

use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;

use super::accounts::BROKER_PATIENCE;
use super::handle::Celeriac;
use crate::actors::QueueStatus;
use crate::catalogue::format_span;
use crate::core::health::{QueueFacts, QueueTrouble, Severity, trouble};

/// The health of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// The severity of the worst trouble; `None`: all is well.
    pub severity: Option<Severity>,
    /// All troubles, the worst first.
    pub troubles: Vec<Trouble>,
}

/// A finding of the health check: something is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Trouble {
    /// What is wrong, for programs.
    pub kind: TroubleKind,
    /// The severity of the finding.
    pub severity: Severity,
    /// The queue that it is about, if it is about one.
    pub queue: Option<String>,
    /// What is wrong, for people.
    pub reason: String,
    /// What to do about it.
    pub action: &'static str,
}

/// The kinds of findings that the health check knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TroubleKind {
    /// A shutdown has begun.
    ShuttingDown,
    /// The broker has failed or is closed.
    BrokerFailed,
    /// The broker did not say what waits in it.
    BrokerAway,
    /// A queue has stopped itself.
    QueueHalted,
    /// Nothing starts in a queue although tasks wait.
    QueueBlocked,
    /// The tasks of a queue start too late.
    QueueDelayed,
    /// A queue does not answer.
    QueueSilent,
}

impl Health {
    fn of(mut troubles: Vec<Trouble>) -> Self {
        troubles.sort_by_key(|trouble| std::cmp::Reverse(trouble.severity));
        Self { severity: troubles.first().map(|trouble| trouble.severity), troubles }
    }

    /// Whether the program is to be sent requests: nothing is critical.
    pub fn is_ready(&self) -> bool {
        self.severity.is_none_or(|severity| severity < Severity::Critical)
    }
}

impl TroubleKind {
    fn about(self, severity: Severity, queue: Option<&str>, reason: String) -> Trouble {
        Trouble { kind: self, severity, queue: queue.map(str::to_owned), reason, action: self.action() }
    }

    fn action(self) -> &'static str {
        match self {
            Self::ShuttingDown => "nothing: send requests to its successor",
            Self::BrokerFailed => {
                "the log has the cause, such as a full disk; mend it, and start the program again if it does not go on by itself"
            }
            Self::BrokerAway => {
                "see whether RabbitMQ is up and can be reached from here; the program connects again by itself"
            }
            Self::QueueHalted => {
                "the log has the deaths of its workers and their cause; the queue tries again within 30 seconds"
            }
            Self::QueueBlocked => {
                "see what runs in it (Celeriac::running, celery inspect active): revoke what hangs, or give the queue more workers"
            }
            Self::QueueDelayed => "give the queue more workers, or find out who sends so many tasks",
            Self::QueueSilent => {
                "a task blocks its event loop, and after five seconds the log names the queues of that loop: make the task a plain fn"
            }
        }
    }
}

impl Celeriac {
    /// The health of this program. A queue is in trouble if it has stopped itself, if nothing has started in it although tasks
    /// wait, or if the oldest of these has waited, for longer than its target and for longer than five minutes. A queue without
    /// a target is never late, and one that is paused is as its operator wants it. What a limit or a brake holds does not count.
    ///
    /// `celeriac::web::health` (feature `web`) serves it to probes.
    ///
    /// ```no_run
    /// # async fn demo(celeriac: celeriac::Celeriac) {
    /// for trouble in celeriac.health().await.troubles {
    ///     println!("{:?}: {}; {}", trouble.severity, trouble.reason, trouble.action);
    /// }
    /// # }
    /// ```
    pub async fn health(&self) -> Health {
        let mut troubles = Vec::new();
        if self.is_shutting_down() {
            let reason = "the program shuts down".to_owned();
            troubles.push(TroubleKind::ShuttingDown.about(Severity::Critical, None, reason));
            return Health::of(troubles); // its queues end one after the other, which is no trouble
        }
        let queues = match timeout(BROKER_PATIENCE, self.queues()).await {
            Ok(Ok(queues)) => queues,
            Ok(Err(error)) => {
                troubles.push(TroubleKind::BrokerFailed.about(Severity::Critical, None, error.to_string()));
                return Health::of(troubles);
            }
            Err(_) => {
                let reason = format!("the broker does not answer within {}", format_span(BROKER_PATIENCE));
                troubles.push(TroubleKind::BrokerFailed.about(Severity::Critical, None, reason));
                return Health::of(troubles);
            }
        };
        if queues.iter().any(|queue| queue.away) {
            let reason = "the broker does not say what waits in it".to_owned();
            troubles.push(TroubleKind::BrokerAway.about(Severity::Warning, None, reason));
        }
        for name in &queues.missing {
            let reason = format!("queue `{name}` does not answer");
            troubles.push(TroubleKind::QueueSilent.about(Severity::Warning, Some(name.as_str()), reason));
        }
        troubles.extend(queues.iter().filter_map(trouble_of));
        Health::of(troubles)
    }
}

fn trouble_of(queue: &QueueStatus) -> Option<Trouble> {
    let found = trouble(&QueueFacts {
        target: queue.time_to_start.target,
        blockage: queue.blockage,
        oldest_wait: queue.oldest_wait,
        is_paused: queue.paused,
        is_halted: queue.halted.is_some(),
    })?;
    let (name, ready) = (queue.name.as_str(), queue.ready);
    let span = |span: Duration| format_span(Duration::from_secs(span.as_secs()));
    let (kind, reason) = match found {
        QueueTrouble::Halted => {
            let why = queue.halted.as_deref().unwrap_or_default();
            (TroubleKind::QueueHalted, format!("queue `{name}` has stopped itself: {why}"))
        }
        QueueTrouble::Blocked { most } => {
            let (blocked, most) = (span(queue.blockage), span(most));
            let reason = format!(
                "queue `{name}` is blocked: none of the tasks that could start ({ready}) has for {blocked}; {most} are allowed"
            );
            (TroubleKind::QueueBlocked, reason)
        }
        QueueTrouble::Delayed { most } => {
            let (waited, most) = (span(queue.oldest_wait), span(most));
            let reason = format!(
                "queue `{name}` is delayed: of the tasks that could start ({ready}) the oldest has waited for {waited}; {most} are allowed"
            );
            (TroubleKind::QueueDelayed, reason)
        }
    };
    Some(kind.about(found.severity(), Some(name), reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_trouble_decides_and_stands_first() {
        let late = TroubleKind::QueueDelayed.about(Severity::Warning, Some("a"), "late".to_owned());
        let blocked = TroubleKind::QueueBlocked.about(Severity::Critical, Some("b"), "blocked".to_owned());
        let well = Health::of(Vec::new());
        assert_eq!((well.severity, well.is_ready()), (None, true));
        let warned = Health::of(vec![late.clone()]);
        assert_eq!((warned.severity, warned.is_ready()), (Some(Severity::Warning), true));
        let ill = Health::of(vec![late.clone(), blocked.clone()]);
        assert_eq!((ill.severity, ill.is_ready()), (Some(Severity::Critical), false));
        assert_eq!(ill.troubles, [blocked, late]);
    }
}
