//! How soon a brake is in force in one program that another one has set, and how soon what it held starts when that one has taken it
//! away.

use std::time::Duration;

use celeriac::app::BrakeScope;
use celeriac::catalogue::{Pool, QueueRow};
use celeriac::core::brake::{Brake, BrakeAction, BrakeRule};

use super::Place;
use super::flood::runtime;
use super::support::figures::{Latency, Table, goal, time};
use super::support::{nanos, sized};
use super::waits::{self, on_behalf, timed};

const WORKERS: usize = 50;
/// A brake is in force in the whole fleet within this time.
const MOST: Duration = Duration::from_secs(1);
/// The time between two calls, which is also how exactly the moment is known when nothing starts any more.
const PAUSE: Duration = Duration::from_millis(10);
/// How many calls come after the brake was set, in two seconds.
const CALLS: usize = 200;
/// Who has not started so long after the brake is gone is not waited for.
const PATIENCE: Duration = Duration::from_secs(15);

fn row(is_served: bool) -> QueueRow {
    QueueRow::new("bench-brakes").with_pool(Pool::Io).with_workers(WORKERS).with_served(is_served)
}

/// Sets and takes away a brake again and again, in a program that serves no queue.
pub async fn in_force(place: &Place) {
    let (operator, worker) = (runtime(place, row(false)).await, runtime(place, row(true)).await);
    assert_eq!(operator.brakes().scope(), BrakeScope::Fleet, "the brakes are kept in Redis");
    let (mut set, mut removed) = (Latency::new(), Latency::new());
    for _ in 0..sized(10, 2) {
        waits::forget();
        let begun = nanos();
        let pause = Brake::new(BrakeRule::new().tenant("acme"), BrakeAction::Pause);
        let pause = operator.brakes().set(pause).await.expect("it is set");
        let mut called = Vec::new();
        for number in 0..CALLS {
            called.push(nanos());
            waits::asked(number);
            let call = timed::s(number, 1_000).queue("bench-brakes");
            drop(on_behalf(call, Some("acme".to_owned())).send(operator.client()).await.expect("accepted"));
            tokio::time::sleep(PAUSE).await;
        }
        let has_started = |number: usize| waits::waited(number, nanos()).1;
        let last = (0..CALLS).rev().find(|number| has_started(*number));
        set.record(last.map_or(0, |last| called[last].saturating_sub(begun)));
        let begun = nanos();
        operator.brakes().remove(&pause.id).await.expect("it is taken away");
        waits::started(CALLS, PATIENCE).await;
        removed.record(nanos() - begun);
    }
    let mut table = Table::new(&["", "p50", "p95", "p99", "max", ""]);
    let cases = [
        ("from the order until the last call that still starts", &set),
        ("from the order to take it away until all that it held have started", &removed),
    ];
    for (what, latency) in cases {
        let most = latency.quantile(1.0);
        let verdict = goal(most <= MOST, &format!("all within {}", time(MOST)));
        table.row([vec![what.to_owned()], latency.cells().to_vec(), vec![verdict]].concat());
    }
    table.print("`brakes`: a brake that another program of the fleet has set, over Redis");
    for celeriac in [operator, worker] {
        celeriac.shutdown_within(Duration::from_secs(1)).await.expect("the runtime shuts down");
    }
}
