//! One process owns a store. A second one is told whose it is, and the first notices nothing.

use tokio::io::{AsyncBufReadExt, BufReader};

use crate::child::{Child, Failure, emptied, say};
use crate::process::Home;
use crate::tasks::Kind;
use crate::workload::{Call, Numbers, enqueue};

/// Starts, and runs a task for each line that it is told.
pub async fn child(child: Child) -> Result<(), Failure> {
    let celeriac = child.builder().start().await?;
    say("up");
    let numbers = Numbers::of_life(child.life);
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while lines.next_line().await?.is_some() {
        enqueue(numbers.next(), Kind::Quick, Call::default(), 0).await?;
        emptied(&celeriac).await?;
        say("done");
    }
    Ok(())
}

pub fn a_second_process_is_refused_by_pid() {
    let mut home = Home::new();
    let mut owner = home.spawn("ownership", "");
    owner.expect("up");
    for _ in 0..3 {
        let refused = home.spawn("ownership", "").death();
        assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
        refused.assert_no_panic();
        let store = home.store().display();
        let expected = format!(
            "error: the store {store} is in use by process {}: one process owns a store; stop that one, or give this one a directory of its own\n",
            owner.pid()
        );
        assert_eq!(refused.stderr, expected);
        owner.tell("work");
        owner.expect("done");
    }
    owner.kill_9();
    let heir = home.spawn("ownership", "");
    heir.expect("up");
    heir.kill_9();
}
