//! With N workers never more than N bodies run at once, whatever happens to the queue meanwhile.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use celeriac::catalogue::{Pool, QueueRow};
use celeriac::{AsyncResult, Celeriac, task};
use futures_util::future::join_all;

use crate::kit::{
    Gate, Gauge, LONG, add, hold, hold_cpu, io_queue, on_both, quiet, status_of, until, until_status,
};

#[tokio::test]
async fn early_or_late_on_the_loop_or_on_threads_n_is_the_most() {
    on_both(|celeriac| async move {
        for (queue, workers) in [("io", 4), ("cpu", 2)] {
            for pass in 0..3 {
                let gate = Gate::new();
                let name = || gate.name.clone();
                for _ in 0..20 {
                    let client = celeriac.client();
                    match pass {
                        0 => drop(hold::s(name()).queue(queue).send(client).await.unwrap()),
                        1 => drop(early::s(name()).queue(queue).send(client).await.unwrap()),
                        _ => drop(hold_cpu::s(name()).queue(queue).send(client).await.unwrap()),
                    }
                }
                gate.entered(workers).await;
                let counts = (workers, 20 - workers as u64);
                until_status(&celeriac, queue, |s| (s.running, s.ready) == counts).await;
                gate.open();
                gate.left(20).await;
                assert_eq!((gate.gauge.most(), gate.gauge.all()), (workers, 20), "{queue} {pass}");
                until_status(&celeriac, queue, |s| s.running == 0).await;
            }
        }
    })
    .await;
}

#[task(queue = "io", acks_late = false)]
async fn early(gate: String) {
    Gate::named(&gate).pass().await;
}

static DUE: LazyLock<Gauge> = LazyLock::new(Gauge::default);

#[task(queue = "io")]
async fn due_together() {
    let _inside = DUE.enter();
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test]
async fn five_hundred_that_are_due_together_start_four_at_a_time() {
    on_both(|celeriac| async move {
        let before = DUE.all();
        let eta = SystemTime::now() + Duration::from_millis(500);
        let all =
            join_all((0..500).map(|_| due_together::s().eta(eta).send(celeriac.client()).into_future()));
        for result in all.await {
            assert_eq!(result.unwrap().get(LONG).await, Ok(()));
        }
        assert_eq!(DUE.all() - before, 500);
        assert_eq!(DUE.most(), 4);
    })
    .await;
}

#[tokio::test]
async fn a_resize_holds_from_the_next_start_on() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let next = Gate::new();
        let send = async |gate: &Gate, n: usize| {
            for _ in 0..n {
                hold::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
            }
        };
        send(&gate, 10).await;
        gate.entered(4).await;
        celeriac.resize("io", 7).await.unwrap();
        gate.entered(7).await;
        // Fewer: what runs goes on, and nothing starts until it fits.
        celeriac.resize("io", 2).await.unwrap();
        until_status(&celeriac, "io", |s| (s.workers, s.running) == (2, 7)).await;
        // More again, while seven still run: one may start.
        celeriac.resize("io", 8).await.unwrap();
        gate.entered(8).await;
        assert_eq!(gate.gauge.most(), 8);
        celeriac.resize("io", 2).await.unwrap();
        send(&next, 10).await;
        gate.open();
        gate.left(10).await;
        next.entered(2).await;
        until_status(&celeriac, "io", |s| s.running == 2).await;
        next.open();
        next.left(10).await;
        assert_eq!(next.gauge.most(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_paused_queue_starts_nothing_and_ends_what_runs() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        let running = hold::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
        gate.entered(1).await;
        celeriac.pause("io").await.unwrap();
        let waiting = add::s(1, 1).send(celeriac.client()).await.unwrap();
        until_status(&celeriac, "io", |s| s.paused && s.ready == 1).await;
        gate.open();
        assert_eq!(running.get(LONG).await, Ok(1));
        until_status(&celeriac, "io", |s| (s.running, s.ready, s.done) == (0, 1, 1)).await;
        // A resize is no resume.
        celeriac.resize("io", 6).await.unwrap();
        assert!(!waiting.state().await.unwrap().is_finished());
        assert!(status_of(&celeriac, "io").await.paused);
        celeriac.resume("io").await.unwrap();
        assert_eq!(waiting.get(LONG).await, Ok(2));
    })
    .await;
}

static BUSY: LazyLock<Gauge> = LazyLock::new(Gauge::default);

#[task(queue = "busy")]
async fn five_milliseconds() {
    let _inside = BUSY.enter();
    tokio::time::sleep(Duration::from_millis(5)).await;
}

#[task(queue = "busy")]
fn a_millisecond_on_a_thread() {
    let _inside = BUSY.enter();
    std::thread::sleep(Duration::from_millis(1));
}

#[task(queue = "busy", acks_late = false)]
async fn acknowledged_early() {
    let _inside = BUSY.enter();
    tokio::time::sleep(Duration::from_millis(5)).await;
}

#[tokio::test]
async fn ten_thousand_tasks_while_the_queue_is_resized_and_paused() {
    quiet();
    let dir = tempfile::tempdir().unwrap();
    let celeriac = Celeriac::builder()
        .queue(io_queue("busy", 100).with_prefetch(1000))
        .directory(dir.path())
        .start()
        .await
        .unwrap();
    let producers = join_all((0..100).map(|producer| {
        let celeriac = celeriac.clone();
        async move {
            for n in 0..100 {
                let client = celeriac.client();
                match (producer + n) % 10 {
                    0 => drop(a_millisecond_on_a_thread::s().send(client).await.unwrap()),
                    1..4 => drop(acknowledged_early::s().send(client).await.unwrap()),
                    _ => drop(five_milliseconds::s().send(client).await.unwrap()),
                }
            }
        }
    }));
    let operator = async {
        for (done, workers) in [(1000, 50), (2000, 100), (3000, 10), (3500, 100), (6000, 100)] {
            until("so many have run", async || BUSY.all() >= done).await;
            celeriac.resize("busy", workers).await.unwrap();
            if workers == 10 {
                until_status(&celeriac, "busy", |s| s.running <= 10).await;
                BUSY.reset();
                until("some have run", async || BUSY.all() >= 3400).await;
                assert!(BUSY.most() <= 10, "{} at once on 10 workers", BUSY.most());
            }
        }
        celeriac.pause("busy").await.unwrap();
        until_status(&celeriac, "busy", |s| s.running == 0).await;
        let paused_at = BUSY.all();
        status_of(&celeriac, "busy").await;
        assert_eq!(BUSY.all(), paused_at);
        BUSY.reset();
        celeriac.resume("busy").await.unwrap();
    };
    tokio::join!(producers, operator);
    let counts = (10_000, 0, 0, 0);
    until_status(&celeriac, "busy", |s| (s.done, s.failed, s.ready, s.running) == counts).await;
    assert_eq!(BUSY.all(), 10_000);
    assert!(BUSY.most() <= 100, "{} at once on 100 workers", BUSY.most());
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_thread_pool_of_many_workers_uses_them_all() {
    quiet();
    let row = QueueRow::new("cpu").with_pool(Pool::Cpu).with_workers(20);
    let celeriac = Celeriac::builder().queue(row).queue(io_queue("io", 1)).in_memory().start().await.unwrap();
    let gate = Gate::new();
    let results: Vec<AsyncResult<hold_cpu::Task>> =
        join_all((0..40).map(|_| hold_cpu::s(gate.name.clone()).send(celeriac.client()).into_future()))
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
    gate.entered(20).await;
    assert_eq!(gate.gauge.now(), 20);
    gate.open();
    for result in results {
        assert_eq!(result.get(LONG).await, Ok(1));
    }
    assert_eq!(gate.gauge.most(), 20);
    celeriac.shutdown().await.unwrap();
}
