//! The memory of a child process: how much it has, the most that it may have, and whom the kernel ends first.

#[cfg(target_os = "linux")]
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How much sooner than other processes a child is ended when the machine has no memory left: of 1000 points, where each
/// is a thousandth of the machine's memory.
#[cfg(target_os = "linux")]
const SOONER: i32 = 500;

/// The resident memory of this process in bytes. `None`: this system does not tell.
pub(super) fn resident() -> Option<u64> {
    resident_in(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// The resident memory that a `/proc/<pid>/status` tells, in bytes.
fn resident_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Limits the memory of this process to so many bytes: its heap, and the stacks of its threads. What is reserved and not
/// used does not count, as it would for the limit of the address space, which allocators fill with reserves.
///
/// # Errors
/// The kernel does not take the limit.
#[cfg(target_os = "linux")]
pub(super) fn limit(bytes: u64) -> std::io::Result<()> {
    // Nobody may raise a limit that was set from outside.
    let most = getrlimit(Resource::Data).maximum.map_or(bytes, |most| most.min(bytes));
    setrlimit(Resource::Data, Rlimit { current: Some(most), maximum: Some(most) }).map_err(Into::into)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn limit(_: u64) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Has the kernel end this process before the program that started it when the machine has no memory left. If it cannot
/// be told so, it chooses by itself.
pub(super) fn go_first() {
    #[cfg(target_os = "linux")]
    {
        const FILE: &str = "/proc/self/oom_score_adj";
        let now = std::fs::read_to_string(FILE).ok().and_then(|text| text.trim().parse::<i32>().ok());
        let next = now.unwrap_or_default().saturating_add(SOONER).min(1000);
        if let Err(error) = std::fs::write(FILE, next.to_string()) {
            tracing::debug!(%error, "the kernel cannot be told which process to end first without memory");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_memory_is_read_in_bytes() {
        let status = "Name:\tprogram\nVmHWM:\t   20000 kB\nVmRSS:\t   12345 kB\nThreads:\t3\n";
        assert_eq!(resident_in(status), Some(12345 << 10));
        assert_eq!(resident_in("Name:\tkthread\n"), None);
        #[cfg(target_os = "linux")]
        assert!(resident().is_some_and(|bytes| bytes > 1 << 20), "{:?}", resident());
    }
}
