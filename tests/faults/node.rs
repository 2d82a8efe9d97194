//! A node that stops, dies, is short of memory or disk, and loses a queue to its operator.

use crate::book::Book;
use crate::child::{PUBLISH_TIMEOUT, QUEUE};
use crate::scene::{Scene, TASKS};
use crate::services::RabbitMq;

/// Stopped in order, and killed: what it has confirmed is there when it is back.
pub fn stopped_and_killed() {
    let node = RabbitMq::shared();
    let mut scene = Scene::shared().tasks(u64::MAX); // for as long as it takes
    scene.join_all(3);
    scene.progress(1);
    scene.disturb();
    for round in 0..3 {
        scene.progress(*TASKS / 8);
        if round == 1 {
            node.kill()
        } else {
            node.stop()
        }
        node.start_again();
        let took = scene.until_it_goes_on();
        println!("    it goes on {} ms after the node is up", took.as_millis());
    }
    scene.enough();
    scene.end();
}

/// With either alarm raised RabbitMQ takes nothing, but what it has runs and is acknowledged.
pub fn alarms() {
    let node = RabbitMq::shared();
    let mut scene = Scene::shared().tasks(u64::MAX); // for as long as it takes
    scene.join_all(3);
    scene.progress(1);
    scene.disturb();
    for round in 0..4 {
        scene.progress(*TASKS / 10);
        let alarm: (&[&str], &[&str]) = if round % 2 == 0 {
            (&["set_vm_memory_high_watermark", "0.000001"], &["set_vm_memory_high_watermark", "0.4"])
        } else {
            (&["set_disk_free_limit", "100000GB"], &["set_disk_free_limit", "50MB"])
        };
        // What waits now is still there when the alarm is raised.
        scene.close_gate();
        let waits = |book: &Book| book.acked.saturating_sub(book.finished) >= 3 * WHILE_ALARMED;
        scene.until("enough waits", waits);
        node.ctl(alarm.0);
        // It goes on while there is no room.
        scene.open_gate();
        scene.progress(WHILE_ALARMED);
        node.ctl(alarm.1);
    }
    scene.enough();
    let (book, _) = scene.end();
    assert_eq!(book.refused, 0, "an alarm that is over within {PUBLISH_TIMEOUT:?}");
}

/// So many are finished while an alarm is raised.
const WHILE_ALARMED: u64 = 100;

/// What waits in a queue goes with it. What is being run does not, nor what follows from that, nor what comes later.
pub fn queue_deleted() {
    let node = RabbitMq::shared();
    let mut scene = Scene::shared().tasks(0);
    let url = scene.orders.amqp.split('?').next().expect("a URL");
    let vhost = url.rsplit_once('/').expect("a path").1.to_owned();
    // Else a process might hold one that another one's idle worker could start.
    scene.orders.none_in_reserve = true;
    scene.join_all(3);
    scene.disturb();
    for _ in 0..3 {
        scene.close_gate();
        // As many as there are workers: nothing waits.
        scene.ordered(8);
        let started = scene.book.starts;
        scene.until("all have started", |book| book.starts >= started + 24);
        assert_eq!(waiting(&node, &vhost), 0);
        node.ctl(&["delete_queue", QUEUE, "-p", &vhost]);
        scene.open_gate();
        scene.settle();
    }
    scene.end();
}

/// How many messages are ready in the queue.
fn waiting(node: &RabbitMq, vhost: &str) -> u64 {
    let table = node.ctl(&["list_queues", "-p", vhost, "name", "messages_ready", "--no-table-headers"]);
    let row = table.lines().find_map(|line| line.strip_prefix(QUEUE));
    row.expect("the queue").trim().parse().expect("a number")
}
