//! Connections that are closed by the operator, cut, slow, or half open.

use std::time::Duration;

use crate::scene::{STEADY, Scene, TASKS};
use crate::services::{Proxy, RabbitMq, await_condition};

/// A fleet that reaches RabbitMQ through this proxy.
fn behind(proxy: &Proxy) -> Scene {
    let mut scene = Scene::shared();
    scene.orders.amqp = proxy.url(&scene.orders.amqp);
    scene
}

/// Cut by the network at any moment, and closed by the operator.
pub fn cut_and_closed() {
    let node = RabbitMq::shared();
    let proxy = Proxy::start(node.address());
    let mut scene = behind(&proxy);
    scene.join_all(3);
    scene.progress(1);
    scene.disturb();
    for round in 0..10 {
        scene.progress(*TASKS / 14);
        if round % 4 == 3 {
            node.close_connections();
        } else {
            proxy.cut();
        }
    }
    let (book, _) = scene.end();
    println!("    {} connections made by 3 processes in 10 rounds", proxy.accepted());
    assert!(proxy.accepted() >= 6 + 10, "nothing was cut");
    assert_eq!(book.refused, 0, "a cut is got over in the time that a publish has");
}

/// Slow, and then a way on which nothing comes through, in neither direction, until both sides give up.
pub fn slow_and_half_open() {
    let node = RabbitMq::shared();
    let proxy = Proxy::start(node.address());
    let mut scene = behind(&proxy);
    scene.orders.amqp = scene.orders.amqp.replace(STEADY, "heartbeat=5");
    scene.join_all(3);
    scene.progress(1);
    scene.disturb();
    proxy.delay(Duration::from_millis(30));
    scene.progress(*TASKS / 5);
    proxy.resume();
    for _ in 0..2 {
        scene.progress(*TASKS / 5);
        let before = proxy.accepted();
        proxy.swallow();
        // The heartbeat tells the clients, who connect anew.
        await_condition("the clients notice", || match proxy.accepted() - before {
            made if made >= 6 => Ok(()),
            made => Err(format!("{made} connections made")),
        });
        proxy.cut();
        proxy.resume();
    }
    scene.end();
}
