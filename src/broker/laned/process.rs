//! Who a process is, to the others: so that those on the same machine see that it is dead, and need not wait for its lease.

use std::fs;

use uuid::Uuid;

/// A new name of this process: its machine (its boot, and the view that it has of processes), its number, when it was
/// started, and something of its own, because a process that was given up goes on under another name.
pub(super) fn name() -> String {
    let machine = machine().unwrap_or_else(|| "?".to_owned());
    let pid = std::process::id();
    let since = state_of(pid).unwrap_or_default().1;
    format!("{machine}/{pid}/{since}/{}", Uuid::now_v7().simple())
}

/// Whether the process of this name is known to be dead. Of those on other machines nothing is known.
pub(super) fn is_dead(name: &str) -> bool {
    let mut parts = name.split('/');
    let (Some(its_machine), Some(pid), Some(since)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let Some(pid) = pid.parse().ok().filter(|_| machine().is_some_and(|machine| machine == its_machine))
    else {
        return false;
    };
    match state_of(pid) {
        // A zombie has let go of everything; another one of that number was started at another time.
        Some((state, started_at)) => matches!(state.as_str(), "Z" | "X") || started_at != since,
        // There is none, or it is another user's, who may hide it.
        None => !exists(pid),
    }
}

#[cfg(unix)]
fn exists(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_none_or(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

#[cfg(not(unix))]
fn exists(_: u32) -> bool {
    true
}

/// `None`: it cannot be told from others here.
fn machine() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let view = fs::read_link("/proc/self/ns/pid").ok()?;
    let view: String = view.to_str()?.chars().filter(char::is_ascii_digit).collect();
    Some(format!("{}.{view}", boot.trim()))
}

/// The state of a process, and when it was started, in the kernel's ticks since the boot.
fn state_of(pid: u32) -> Option<(String, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Its name may have blanks and brackets in it; all that follows has none.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let since = fields.nth(18)?;
    Some((state.to_owned(), since.to_owned()))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_dead_of_this_machine_are_known() {
        let own = name();
        assert!(!is_dead(&own) && own != name());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let machine = machine().expect("Linux says");
        let since = state_of(child.id()).expect("it lives").1;
        let its = format!("{machine}/{}/{since}/x", child.id());
        assert!(!is_dead(&its));
        assert!(is_dead(&format!("{machine}/{}/1/x", child.id())), "another one has its number by now");
        child.kill().expect("a signal");
        child.wait().expect("its end");
        assert!(is_dead(&its));
        assert!(!is_dead(&its.replacen(&machine, "other", 1)) && !is_dead("") && !is_dead("a/b/c/d"));
    }
}
