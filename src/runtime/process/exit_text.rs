//! How a child process ended, in words that go behind "the process that ran it".

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// The signal of `abort()`, by which a Rust program ends that gets no more memory, or whose stack is full.
const ABORT: i32 = 6;
/// The signal by which the kernel ends a process when the machine has no memory left.
const KILL: i32 = 9;

/// The words for an exit that nobody here has asked for. `memory_limit` says whether the child had one.
pub(super) fn exit_text(status: ExitStatus, memory_limit: bool) -> String {
    let told = status.to_string();
    let Some(signal) = status.signal() else {
        // As the standard library shows it: `exit status: 3`.
        return format!("ended with {}", told.replacen(": ", " ", 1));
    };
    // As the standard library shows it: `signal: 11 (SIGSEGV) (core dumped)`.
    let hint = match signal {
        ABORT if memory_limit => {
            "; it may have come to its memory_limit_per_child, and its stderr says so then"
        }
        KILL => "; somebody has killed it, or the kernel has because memory was short",
        _ => "",
    };
    format!("ended by {}{hint}", told.replacen(": ", " ", 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_told_with_its_signal_or_its_status() {
        for (raw, memory_limit, text) in [
            (11, false, "ended by signal 11 (SIGSEGV)"),
            (11 | 128, false, "ended by signal 11 (SIGSEGV) (core dumped)"),
            (6, false, "ended by signal 6 (SIGABRT)"),
            (
                6,
                true,
                "ended by signal 6 (SIGABRT); it may have come to its memory_limit_per_child, and its stderr says so then",
            ),
            (
                9,
                true,
                "ended by signal 9 (SIGKILL); somebody has killed it, or the kernel has because memory was short",
            ),
            (3 << 8, false, "ended with exit status 3"),
            (0, false, "ended with exit status 0"),
        ] {
            assert_eq!(exit_text(ExitStatus::from_raw(raw), memory_limit), text);
        }
    }
}
