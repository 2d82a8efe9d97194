//! The mixed load: producers that enqueue for as long as they live, and watchers that read what came of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use celeriac::task::{Client, Durability, Signature, Task};
use celeriac::{EnqueueError, GetError, TaskId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::ledger::{Line, note};
use crate::tasks::{self, Kind};

/// How a life numbers its tasks, so that no two lives give the same number.
pub struct Numbers(AtomicU64);

impl Numbers {
    pub fn of_life(life: u64) -> Self {
        Self(AtomicU64::new(life * 1_000_000))
    }

    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// The options of one call.
#[derive(Default)]
pub struct Call {
    pub id: Option<String>,
    pub priority: u8,
    pub countdown: Option<Duration>,
}

/// Enqueues until the runtime takes no more.
pub async fn produce(client: Arc<dyn Client>, numbers: Arc<Numbers>, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    loop {
        let kind = Kind::draw(&mut rng);
        let n = numbers.next();
        let call = Call {
            id: rng.random_bool(0.25).then(|| custom_id(n)),
            priority: if rng.random_bool(0.3) { rng.random() } else { 0 },
            countdown: match kind {
                Kind::Revoked => Some(Duration::from_millis(300)),
                Kind::Postponed => None,
                _ => rng.random_bool(0.2).then(|| Duration::from_millis(rng.random_range(0..20))),
            },
        };
        let padding = if kind == Kind::Fat { rng.random_range(8_000..40_000) } else { 0 };
        let id = match enqueue(n, kind, call, padding).await {
            Ok(id) => id,
            Err(EnqueueError::ShuttingDown | EnqueueError::NotRunning) => return,
            Err(_) => continue,
        };
        if kind == Kind::Revoked && client.revoke(&id, false).await == Ok(true) {
            note(&Line::Revoked { n });
        }
        if kind.keeps_record() && rng.random_bool(0.5) {
            tokio::spawn(watch(Arc::clone(&client), n, id));
        }
    }
}

/// The id of a task that does not get one by itself.
pub fn custom_id(n: u64) -> String {
    format!("job-{n}")
}

/// Enqueues one task, with its lines in the ledger.
pub async fn enqueue(n: u64, kind: Kind, call: Call, padding: usize) -> Result<TaskId, EnqueueError> {
    note(&Line::Try { n, kind });
    let padding = "x".repeat(padding);
    let threaded = n.is_multiple_of(2);
    let sent = match kind {
        Kind::Early => send(tasks::early::s(n, kind, 0, padding), n, kind, call).await,
        Kind::Cpu | Kind::SlowCpu => send(tasks::compute::s(n, kind, 0, padding), n, kind, call).await,
        Kind::Flaky | Kind::Chain | Kind::Panic if threaded => {
            send(tasks::compute::s(n, kind, 0, padding), n, kind, call).await
        }
        Kind::Quick | Kind::Silent | Kind::Hopeless | Kind::Rejected | Kind::Flaky => {
            send(tasks::hooked::s(n, kind, 0, padding), n, kind, call).await
        }
        _ => send(tasks::plain::s(n, kind, 0, padding), n, kind, call).await,
    };
    match &sent {
        Ok(id) => note(&Line::Ack { n, id: id.to_string() }),
        Err(error) => note(&Line::Refused { n, why: error.to_string() }),
    }
    sent
}

async fn send<T: Task>(
    signature: Signature<T>,
    n: u64,
    kind: Kind,
    call: Call,
) -> Result<TaskId, EnqueueError> {
    let mut signature = signature
        .header("n", n)
        .tenant(tasks::tenant_of(n))
        .priority(call.priority)
        .ignore_result(kind == Kind::Silent)
        .max_retries(if kind == Kind::Panic { 1 } else { 3 });
    if kind == Kind::Volatile {
        signature = signature.durability(Durability::Memory);
    }
    if let Some(id) = call.id {
        signature = signature.id(id);
    }
    if let Some(countdown) = call.countdown {
        signature = signature.countdown(countdown);
    }
    Ok(signature.delay().await?.id().clone())
}

/// Waits for a task's record and notes it. An acknowledged id that nobody knows is noted as such.
pub async fn watch(client: Arc<dyn Client>, n: u64, id: TaskId) {
    let line = match client.wait(&id).await {
        Ok(record) => Line::Seen {
            n,
            state: record.state.to_string(),
            value: record.result,
            error_type: record.error_type,
            attempts: record.attempts,
        },
        Err(GetError::Unknown(_)) => {
            Line::Seen { n, state: "UNKNOWN".to_owned(), value: None, error_type: None, attempts: 0 }
        }
        Err(_) => return, // the runtime ends
    };
    note(&line);
}

/// Enqueues under ids that are taken; each must be refused.
pub async fn enqueue_taken(ids: Vec<String>) {
    for id in ids {
        let call = tasks::plain::s(0, Kind::Quick, 0, String::new()).id(id.clone());
        if call.delay().await.is_ok() {
            note(&Line::Twice { id });
        }
    }
}
