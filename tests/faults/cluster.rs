//! Three nodes and quorum queues: each node killed in turn under load.

use crate::ledger::now;
use crate::scene::{Scene, TASKS};
use crate::services::{RabbitMq, await_condition};

pub fn each_node_killed() {
    let nodes = RabbitMq::cluster(3);
    let mut scene = Scene::at(String::new());
    scene = scene.tasks(u64::MAX); // for as long as it takes
    scene.orders.quorum = true;
    scene.orders.takes = 60;
    // Each process begins with another node.
    for first in 0..3 {
        let urls: Vec<_> = (0..3).map(|n| nodes[(first + n) % 3].url()).collect();
        scene.orders.amqp = urls.join(";");
        scene.join();
    }
    scene.progress(*TASKS / 10);
    scene.disturb();
    for (n, node) in nodes.iter().enumerate() {
        scene.progress(*TASKS / 10);
        let killed_at = now();
        node.kill();
        let paused = scene.until_it_goes_on();
        println!("    node {} killed: it goes on after {} ms", n + 1, paused.as_millis());
        node.start_again();
        nodes[(n + 1) % 3].await_members(3);
        // Before the next one goes, this one must have caught up: two of three are needed.
        await_condition("no queue hangs on one node", || {
            let critical = nodes[(n + 1) % 3].eval("length(rabbit_quorum_queue:list_with_minimum_quorum()).");
            if critical.trim() == "0" { Ok(()) } else { Err(format!("{} do", critical.trim())) }
        });
        scene.progress(*TASKS / 20);
        println!("    longest pause until it is back: {} ms", scene.book.longest_pause(killed_at));
    }
    scene.enough();
    scene.end();
}
