//! The names of processes. A process sees by the name of another one on its machine that the other one is dead, and
//! then need not wait for its lease.

use std::fs;

use uuid::Uuid;

/// Makes a new name for this process: the machine (its boot, and the process namespace), the process id, the start
/// time, and a random part. The random part is there because a process that was given up goes on under another name.
pub(super) fn name() -> String {
    let machine = machine().unwrap_or_else(|| "?".to_owned());
    let pid = std::process::id();
    let since = state_of(pid).unwrap_or_default().1;
    format!("{machine}/{pid}/{since}/{}", Uuid::now_v7().simple())
}

/// Whether the process of this name is known to be dead. Nothing is known of processes on other machines.
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
        // A zombie holds nothing any more. A process with the same id but another start time is another process.
        Some((state, started_at)) => matches!(state.as_str(), "Z" | "X") || started_at != since,
        // No such process exists, or it belongs to another user and is hidden.
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

/// The name of this machine, or `None` if it cannot be told apart from other machines.
fn machine() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let view = fs::read_link("/proc/self/ns/pid").ok()?;
    let view: String = view.to_str()?.chars().filter(char::is_ascii_digit).collect();
    Some(format!("{}.{view}", boot.trim()))
}

/// The state of a process, and its start time in the kernel's ticks since the boot.
fn state_of(pid: u32) -> Option<(String, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The process's name may contain blanks and brackets. Nothing after the name does.
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
