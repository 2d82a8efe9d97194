//! What systemd is told of a program that it started as a service of the type `notify`: that the program is ready, that it
//! is alive, and that it ends. Without systemd nobody is told.
//!
//! The sign of life comes from whoever waits for the end of the program, and not from the queues: a task that blocks an event
//! loop is a fault of that task, and systemd would end all others for it.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

/// The shortest pause between two signs of life.
const SHORTEST: Duration = Duration::from_millis(10);

/// Waits until the program is told to end. From the first look on systemd is told that the program is ready, and then again
/// and again that it is alive, if its watchdog wants to know.
pub(super) async fn supervised<T>(told_to_end: impl Future<Output = T>) -> T {
    let told = tokio::select! {
        biased; // the first look has signals heard, and only then the program is ready
        told = told_to_end => told,
        never = live() => match never {},
    };
    tell(&NotifyState::Stopping);
    told
}

async fn live() -> Infallible {
    tell(&NotifyState::Ready);
    let Some(patience) = sd_notify::watchdog_enabled() else { return pending().await };
    // Half of the watchdog's patience, as sd_watchdog_enabled(3) recommends.
    let mut pauses = interval((patience / 2).max(SHORTEST));
    pauses.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pauses.tick().await;
        tell(&NotifyState::Watchdog);
    }
}

fn tell(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(%error, %state, "systemd cannot be told how the program is");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::{Child, Command};

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;
    use crate::Celeriac;

    /// Longer than anything takes on a slow machine.
    const LONG: Duration = Duration::from_secs(120);

    /// A program that ends with the test, however that ends.
    struct Program(Child);

    impl Drop for Program {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn next(systemd: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = systemd.recv(&mut bytes).expect("a message within the time");
        String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
    }

    /// The environment of a process tells it where systemd is, so this runs in a process of its own.
    #[test]
    fn systemd_hears_that_the_program_is_ready_that_it_lives_and_that_it_ends() {
        const ALONE: &str = "CELERIAC_TEST_ALONE";
        if std::env::var_os(ALONE).is_some() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            return runtime.block_on(async {
                let celeriac = Celeriac::builder().in_memory().start().await.unwrap();
                celeriac.run_until_signal().await.unwrap();
            });
        }
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("notify");
        let systemd = UnixDatagram::bind(&socket).unwrap();
        systemd.set_read_timeout(Some(LONG)).unwrap();
        let name =
            "app::systemd::tests::systemd_hears_that_the_program_is_ready_that_it_lives_and_that_it_ends";
        let program = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(ALONE, "1")
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "100000")
            .env_remove("WATCHDOG_PID")
            .spawn()
            .unwrap();
        let mut program = Program(program);
        let heard = [next(&systemd), next(&systemd), next(&systemd)];
        assert_eq!(heard, ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
        let pid = Pid::from_raw(i32::try_from(program.0.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let mut last = next(&systemd);
        while last == "WATCHDOG=1" {
            last = next(&systemd);
        }
        assert_eq!(last, "STOPPING=1");
        assert!(program.0.wait().unwrap().success());
    }
}
