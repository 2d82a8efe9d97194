//! What the log says of a runtime as a whole: at its start, and around its end.

use celeriac::core::calendar::{Schedule, Zone};
use celeriac::task::Periodic;

use crate::kit::{self, Gate, LONG, Log, add, hold};

#[test]
fn the_start_and_the_shutdown_say_what_there_is() {
    kit::alone("words::of_start_and_shutdown_in_a_process_of_its_own");
}

#[tokio::test]
#[ignore = "a subscriber for all threads; run by `the_start_and_the_shutdown_say_what_there_is`"]
async fn of_start_and_shutdown_in_a_process_of_its_own() {
    let log = Log::capture(tracing::Level::INFO);
    let line = |part: &str| -> String {
        let text = log.text();
        let lines: Vec<&str> = text.lines().filter(|line| line.contains(part)).collect();
        assert_eq!(lines.len(), 1, "{part}: {text}");
        lines[0].to_owned()
    };
    let yearly = Schedule::crontab("0 0 1 1 *".parse().unwrap(), Zone::UTC);
    let builder = kit::builder().in_memory().periodic(Periodic::calling("yearly", add::s(1, 1), yearly));
    let celeriac = builder.start().await.unwrap();
    let started = line("started version");
    let parts = [
        " INFO ",
        " celeriac: ",
        concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""),
        "place=\"memory\"",
        "io (io 4)",
        "cpu (cpu 2)",
        "yearly at 2",
        "-01-01T00:00:00.000Z",
    ];
    for part in parts {
        assert!(started.contains(part), "{part}: {started}");
    }
    // The root of the repository has a catalogue that this program does not read.
    let unread = line("celeriac.toml in the current directory is not read");
    assert!(unread.contains("CELERIAC_CATALOGUE"), "{unread}");

    let gate = Gate::new();
    let held = hold::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    let shutdown = tokio::spawn({
        let celeriac = celeriac.clone();
        async move { celeriac.shutdown_within(LONG).await }
    });
    kit::until("it says what it waits for", || async { log.text().contains("shutting down") }).await;
    let waits = line("shutting down when what runs is over");
    assert!(waits.contains("running=\"io 1\"") || waits.contains("running=\"one 1\""), "{waits}");
    gate.open();
    assert!(shutdown.await.unwrap().unwrap().drained);
    drop(held);
    let end = line("shut down drained");
    assert!(end.contains("drained=true handed_back=0 took="), "{end}");

    let idle = kit::memory().await;
    idle.shutdown().await.unwrap();
    line("shutting down; nothing runs");
}
