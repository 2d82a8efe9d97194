//! Processes that are killed while they enqueue, run, and settle: several at a time, again and again.

use crate::scene::{Scene, TASKS};

pub fn killed() {
    let mut scene = Scene::shared();
    scene.join_all(4);
    scene.disturb();
    for round in 0..6 {
        scene.progress(*TASKS / 10);
        // Two or three of four.
        let which: &[usize] = if round % 2 == 0 { &[0, 2] } else { &[0, 1, 3] };
        scene.kill(which);
        scene.join_all(which.len());
    }
    let kills = scene.kills;
    let (_, sums) = scene.end();
    assert_eq!(kills, 15);
    assert!(sums.reruns > 0, "nothing was interrupted");
}
