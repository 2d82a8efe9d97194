//! What happened is told by queue, task and tenant, and is there after a restart; so is who did what.

use std::path::Path;
use std::time::Duration;

use celeriac::app::{ControlError, History, HistoryBy, HistoryCounts, HistoryQuery};
use celeriac::core::Timestamp;
use celeriac::task::TENANT;
use celeriac::{Builder, Celeriac, Context, State, TaskError, task};

use crate::kit::{Gate, LONG, builder, io_queue, on_both, record, until, until_status};

const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

#[task(name = "told.works", queue = "told")]
async fn works() {}

#[task(
    name = "told.stumbles",
    queue = "told",
    max_retries = 1,
    default_retry_delay = 0,
    retry_jitter = false
)]
async fn stumbles(ctx: Context, for_good: bool) -> Result<(), TaskError> {
    if for_good || ctx.attempt() == 1 { Err(TaskError::transient("stumbled")) } else { Ok(()) }
}

#[task(name = "told.blocks", queue = "told")]
async fn blocks_its_event_loop(gate: String) {
    Gate::named(&gate).pass_blocking();
}

fn program() -> Builder {
    builder().queue(io_queue("told", 4)).program_version("1.2.3")
}

async fn on_disk(dir: &Path) -> Celeriac {
    program().directory(dir).start().await.unwrap()
}

/// The counts of all steps, by name.
fn sums(history: &History) -> Vec<(String, HistoryCounts)> {
    let mut sums: Vec<(String, HistoryCounts)> = Vec::new();
    for row in &history.rows {
        match sums.iter_mut().find(|(name, _)| *name == row.name) {
            Some((_, sum)) => sum.add(&row.counts),
            None => sums.push((row.name.clone(), row.counts)),
        }
    }
    sums.sort_by(|(one, _), (other, _)| one.cmp(other));
    sums
}

async fn read(query: HistoryQuery<'_>) -> History {
    query.step(Duration::from_secs(60)).read().await.unwrap()
}

/// Received, started, succeeded, failed, retried.
fn numbers((name, counts): &(String, HistoryCounts)) -> (&str, [u64; 5]) {
    (name, [counts.received, counts.started, counts.succeeded, counts.failed, counts.retried])
}

/// Runs five tasks, three of them of tenants.
async fn run_some(celeriac: &Celeriac) {
    let client = || celeriac.client();
    for tenant in [Some("acme"), Some("acme"), Some("zoo"), None] {
        let call = works::s();
        let call = if let Some(tenant) = tenant { call.header(TENANT, tenant) } else { call };
        assert_eq!(record(&call.send(client()).await.unwrap()).await.state, State::Success);
    }
    for for_good in [false, true] {
        record(&stumbles::s(for_good).send(client()).await.unwrap()).await;
    }
    // The counts follow the ends by a moment.
    until_status(celeriac, "told", |queue| queue.running == 0 && queue.done == 5 && queue.failed == 1).await;
}

#[tokio::test]
async fn what_happened_is_told_by_queue_task_and_tenant() {
    let dir = tempfile::tempdir().unwrap();
    for celeriac in [program().in_memory().start().await.unwrap(), on_disk(dir.path()).await] {
        let before = Timestamp::from(std::time::SystemTime::now());
        run_some(&celeriac).await;
        let query = || celeriac.history();
        let of_queues = read(query().by(HistoryBy::Queue)).await;
        let told = sums(&of_queues);
        assert_eq!(told.iter().map(numbers).collect::<Vec<_>>(), [("told", [8, 8, 5, 1, 2])]);
        let (waits, runs) = (told[0].1.waits, told[0].1.runs);
        assert_eq!(
            (waits.count(), runs.count()),
            (6, 8),
            "a task starts once, and runs as often as it is tried"
        );
        assert!(waits.max() <= waits.sum() && runs.mean() <= runs.max());
        let of_tasks = sums(&read(query().by(HistoryBy::Task)).await);
        let expected = [("told.stumbles", [4, 4, 1, 1, 2]), ("told.works", [4, 4, 4, 0, 0])];
        assert_eq!(of_tasks.iter().map(numbers).collect::<Vec<_>>(), expected);
        let of_tenants = sums(&read(query().by(HistoryBy::Tenant)).await);
        let expected = [("acme", [2, 2, 2, 0, 0]), ("zoo", [1, 1, 1, 0, 0])];
        assert_eq!(of_tenants.iter().map(numbers).collect::<Vec<_>>(), expected);
        let one = sums(&read(query().by(HistoryBy::Tenant).name("zoo").queue("told")).await);
        assert_eq!(one.len(), 1);
        assert!(read(query().queue("io")).await.rows.is_empty());
        assert!(read(query().until(before - WEEK)).await.rows.is_empty());
        assert!(read(query().from(before + WEEK).until(before + 2 * WEEK)).await.rows.is_empty());
        celeriac.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn it_is_there_after_a_restart_with_the_marks_of_who_did_what() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = on_disk(dir.path()).await;
    run_some(&celeriac).await;
    let anna = celeriac.as_operator("anna");
    anna.resize("told", 3).await.unwrap();
    anna.pause("told").await.unwrap();
    anna.resume("told").await.unwrap();
    celeriac.pause("nowhere").await.unwrap_err();
    celeriac.mark("feature", "the new export is on");
    celeriac.shutdown().await.unwrap();

    let celeriac = on_disk(dir.path()).await;
    run_some(&celeriac).await;
    let history = read(celeriac.history()).await;
    let told = sums(&history);
    assert_eq!(told.iter().map(numbers).collect::<Vec<_>>(), [("", [16, 16, 10, 2, 4])]);
    assert!(history.bytes > 0 && history.bytes < 10_000, "{}", history.bytes);
    assert_eq!((history.nodes.as_slice(), history.unreadable), (&["here".to_owned()][..], 0));
    let marks: Vec<String> = history
        .marks
        .iter()
        .map(|mark| {
            let mark = &mark.mark;
            let parts = [&mark.subject, &mark.detail, &mark.who].map(|part| part.clone().unwrap_or_default());
            format!("{} {}", mark.what, parts.join(";"))
        })
        .collect();
    let expected = [
        "start ;1.2.3;",
        "resize told;to 3 workers;anna",
        "pause told;;anna",
        "resume told;;anna",
        "feature ;the new export is on;",
        "stop ;1.2.3;",
        "start ;1.2.3;",
    ];
    assert_eq!(marks, expected);
    let of_another = read(celeriac.history().queue("io")).await.marks;
    let whats: Vec<&str> = of_another.iter().map(|mark| mark.mark.what.as_str()).collect();
    assert_eq!(whats, ["start", "feature", "stop", "start"]);
    celeriac.shutdown().await.unwrap();
    let closed = celeriac.history().read().await.unwrap_err();
    assert!(matches!(closed, ControlError::Store(_)), "{closed}");
}

#[tokio::test]
async fn a_program_may_keep_none() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = program().keep_history(false).directory(dir.path()).start().await.unwrap();
    run_some(&celeriac).await;
    assert_eq!(celeriac.history().read().await.unwrap(), History::default());
    celeriac.shutdown().await.unwrap();
}

/// An act of the program itself has no name.
#[tokio::test]
async fn who_did_it_is_told_only_if_somebody_has_said_so() {
    on_both(|celeriac| async move {
        celeriac.pause("io").await.unwrap();
        celeriac.persistent().reset("io").await.unwrap();
        let history = celeriac.history().read().await.unwrap();
        let whos: Vec<_> =
            history.marks.iter().map(|mark| (mark.mark.what.as_str(), &mark.mark.who)).collect();
        assert_eq!(whos, [("start", &None), ("pause", &None), ("resume", &None), ("resize", &None)]);
    })
    .await;
}

#[tokio::test]
async fn a_queue_that_does_not_answer_hands_in_later() {
    let celeriac = program().in_memory().start().await.unwrap();
    let gate = Gate::new();
    let task = blocks_its_event_loop::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    let started = async || {
        let told = sums(&read(celeriac.history().queue("told")).await);
        told.first().map_or(0, |(_, counts)| counts.started)
    };
    assert_eq!(started().await, 0, "its event loop is blocked");
    gate.open();
    task.get(LONG).await.unwrap();
    until("the start is told once", async || started().await == 1).await;
    assert_eq!(started().await, 1);
    celeriac.shutdown().await.unwrap();
}
