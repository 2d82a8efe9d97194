//! A task that takes its process down, every time: it ends in the dead letters, and it alone.

use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use celeriac::broker::embedded::EmbeddedOptions;
use celeriac::{Context, TaskId, task};
use tokio::sync::Notify;

use crate::child::{Child, Failure, Orders, emptied, note_dead_letters, say};
use crate::ledger::{How, Line, Reader};
use crate::process::Home;
use crate::tasks::{Kind, Run};
use crate::workload::{Call, enqueue, watch};

/// Crashes that are borne.
const LIMIT: u32 = 3;
const POISON: &str = "poison";
const SIGABRT: i32 = 6;
/// A number that no neighbour has.
const N: u64 = 999;
const COMPANIONS: u64 = 7;

/// How many companions run in this process, and that one more does.
static COMPANY: AtomicUsize = AtomicUsize::new(0);
static ARRIVED: Notify = Notify::const_new();
/// Whether the poison runs in this process.
static ACTING: AtomicBool = AtomicBool::new(false);

/// Waits for company, as far as there is any to be had, and aborts.
#[task(queue = "io")]
async fn poison(ctx: Context, company: usize) {
    let _run = Run::start(&ctx, N, 0);
    ACTING.store(true, Ordering::SeqCst);
    let all_there = async {
        while COMPANY.load(Ordering::SeqCst) < company {
            ARRIVED.notified().await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(2), all_there).await;
    std::process::abort();
}

/// Runs for a while, and where the poison runs, until it acts.
#[task(queue = "io")]
async fn companion(ctx: Context, n: u64) -> u64 {
    let run = Run::start(&ctx, n, 0);
    COMPANY.fetch_add(1, Ordering::SeqCst);
    ARRIVED.notify_one();
    tokio::time::sleep(Duration::from_millis(100)).await;
    if ACTING.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    run.end(How::Value);
    n
}

/// The orders' seed says what to enqueue: 1 poison and quick neighbours, 2 poison and company, 0 nothing.
pub async fn child(child: Child) -> Result<(), Failure> {
    let mut options = EmbeddedOptions::default();
    options.delivery_limit = LIMIT;
    let celeriac = child.builder().embedded_options(options).start().await?;
    let company = child.orders.seed == 2;
    if child.orders.seed > 0 {
        celeriac.pause("io").await?;
        for n in 0..COMPANIONS {
            if company {
                companion::s(n).id(format!("companion-{n}")).delay().await?;
            } else {
                enqueue(n, Kind::Quick, Call { id: Some(format!("companion-{n}")), ..Call::default() }, 0)
                    .await?;
            }
        }
        let priority = if company { 9 } else { 0 };
        let awaited = if company { usize::try_from(COMPANIONS)? } else { 0 };
        poison::s(awaited).id(POISON).priority(priority).delay().await?;
        celeriac.resume("io").await?;
    }
    emptied(&celeriac).await?;
    say("empty");
    watch(celeriac.client(), N, TaskId::from(POISON)).await;
    for n in 0..COMPANIONS {
        watch(celeriac.client(), n, TaskId::from(format!("companion-{n}"))).await;
    }
    note_dead_letters(&celeriac).await?;
    celeriac.shutdown().await?;
    Ok(())
}

/// Lets the poison work until a life survives; what the ledger says then, and how many lives were aborted.
fn until_it_is_over(what: u64) -> (Vec<Line>, u32) {
    let mut home = Home::new();
    let mut aborted = 0;
    loop {
        let seed = if aborted == 0 { what } else { 0 };
        let death = home.spawn("poison", &Orders { seed, ..Orders::default() }.line()).death();
        death.assert_no_panic();
        if death.status.signal() != Some(SIGABRT) {
            death.assert_clean();
            return (Reader::open(&home.ledger()).lines(), aborted);
        }
        aborted += 1;
        assert!(aborted <= LIMIT, "the poison was to act {LIMIT} times at most");
    }
}

fn assert_dead_after_its_limit(lines: &[Line], aborted: u32) {
    assert_eq!(aborted, LIMIT);
    let crashes: Vec<u32> = lines
        .iter()
        .filter_map(|line| match line {
            Line::Start { n: N, crashes, .. } => Some(*crashes),
            _ => None,
        })
        .collect();
    assert_eq!(crashes, (0..LIMIT).collect::<Vec<_>>(), "each run knows of all crashes before it");
    let record = lines.iter().find(|line| matches!(line, Line::Seen { n: N, .. }));
    let expected = Line::Seen {
        n: N,
        state: "FAILURE".to_owned(),
        value: None,
        error_type: Some("WorkerLost".to_owned()),
        attempts: LIMIT,
    };
    assert_eq!(record, Some(&expected));
    let dead: Vec<_> = lines.iter().filter(|line| matches!(line, Line::Dead { .. })).collect();
    assert_eq!(dead, [&Line::Dead { id: POISON.to_owned() }], "it alone is dead");
}

fn assert_neighbours_succeeded(lines: &[Line]) {
    for wanted in 0..COMPANIONS {
        let record = lines.iter().find(|line| matches!(line, Line::Seen { n, .. } if *n == wanted));
        assert!(
            matches!(record, Some(Line::Seen { state, .. }) if state == "SUCCESS"),
            "the neighbour {wanted} ended as {record:?}"
        );
    }
}

pub fn ends_in_the_dead_letters() {
    let (lines, aborted) = until_it_is_over(1);
    assert_dead_after_its_limit(&lines, aborted);
    assert_neighbours_succeeded(&lines);
}

/// All that runs beside the poison is interrupted with it, each time; that must not be held against it to the end.
pub fn takes_no_neighbour_along() {
    let (lines, aborted) = until_it_is_over(2);
    let interrupted = lines.iter().filter(|line| matches!(line, Line::Start { n, .. } if *n != N)).count();
    assert!(interrupted as u64 > COMPANIONS, "no companion was ever interrupted, so nothing was shown");
    assert_dead_after_its_limit(&lines, aborted);
    assert_neighbours_succeeded(&lines);
}
