//! Enqueues without a broker: accepted by the outbox, forwarded once and in order when RabbitMQ is there.

use std::time::Instant;

use crate::scene::{PATIENCE, Scene};
use crate::services::RabbitMq;

const ACCEPTED: u64 = 500;

/// A node that has stopped, and a process with an outbox and one worker.
fn without_a_broker() -> (RabbitMq, Scene) {
    let node = RabbitMq::shared();
    let mut scene = Scene::shared().tasks(0);
    node.stop();
    scene.orders.workers = 1;
    scene.orders.takes = 2;
    scene.orders.outbox = Some(scene.home.path().join("outbox"));
    (node, scene)
}

fn in_order(order: &[u64]) -> bool {
    // The flaky ones run again later; their first runs are in order like all others.
    order.is_sorted()
}

/// The program starts, accepts, and runs it all when there is a node.
pub fn started_without_a_broker() {
    let (node, mut scene) = without_a_broker();
    scene.join();
    scene.ordered(ACCEPTED);
    scene.until("all are accepted", |book| book.acked == ACCEPTED);
    assert_eq!((scene.book.outbox, scene.book.starts), (ACCEPTED, 0));
    node.start_again();
    scene.settle();
    // Now that it is there, it takes them itself, as soon as the outbox knows that its last one is there.
    let begin = Instant::now();
    let kept = loop {
        let (sent, kept) = (scene.book.acked, scene.book.outbox);
        scene.ordered(1);
        scene.until("one more is accepted", |book| book.acked == sent + 1);
        if scene.book.outbox == kept {
            break kept;
        }
        assert!(begin.elapsed() < PATIENCE, "the outbox goes on taking what RabbitMQ could take");
    };
    let sent = scene.book.acked;
    scene.ordered(10);
    scene.until("ten more are accepted", |book| book.acked == sent + 10);
    let (book, sums) = scene.end();
    assert_eq!(book.outbox, kept);
    assert_eq!(sums.reruns, 0);
    assert!(in_order(&book.order), "{:?}", book.order);
}

/// Killed while its outbox is full, a program forwards it all in its next life.
pub fn killed_while_full() {
    let (node, mut scene) = without_a_broker();
    scene.join();
    scene.ordered(ACCEPTED);
    scene.until("all are accepted", |book| book.acked == ACCEPTED);
    scene.kill(&[0]);
    scene.join();
    scene.ordered(ACCEPTED);
    scene.until("more are accepted", |book| book.acked == 2 * ACCEPTED);
    assert_eq!((scene.book.outbox, scene.book.starts), (2 * ACCEPTED, 0));
    node.start_again();
    let (book, sums) = scene.end();
    assert_eq!((book.outbox, sums.reruns), (2 * ACCEPTED, 0));
    assert!(in_order(&book.order), "{:?}", book.order);
}
