//! What the system says of this process: Python's `resource.getrusage`, and its memory.
//!
//! It is read from `/proc`. Where there is none, the numbers are zero, and the memory is not known.

use serde_json::{Value, json};

/// The ticks of a second in `/proc/self/stat`, on every system that Linux runs on today.
const TICKS: f64 = 100.0;
/// The bytes of a block, as `getrusage` counts them.
const BLOCK: u64 = 512;

/// The usage of resources. What Linux does not count is zero, as in Python.
pub(super) fn rusage() -> Value {
    let file = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    usage(&file("stat"), &file("status"), &file("io"))
}

fn usage(stat: &str, status: &str, io: &str) -> Value {
    // The second field is the name of the program, in brackets, and may hold anything.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let seconds = |index: usize| number(index) as f64 / TICKS;
    let named = |text: &str, name: &str| field(text, name).unwrap_or(0);
    json!({
        "utime": seconds(11),
        "stime": seconds(12),
        "maxrss": named(status, "VmHWM"),
        "ixrss": 0,
        "idrss": 0,
        "isrss": 0,
        "minflt": number(7),
        "majflt": number(9),
        "nswap": 0,
        "inblock": named(io, "read_bytes") / BLOCK,
        "oublock": named(io, "write_bytes") / BLOCK,
        "msgsnd": 0,
        "msgrcv": 0,
        "nsignals": 0,
        "nvcsw": named(status, "voluntary_ctxt_switches"),
        "nivcsw": named(status, "nonvoluntary_ctxt_switches"),
    })
}

/// The bytes of memory that this process occupies, if the system says so.
pub(super) fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(field(&status, "VmRSS")? * 1024)
}

/// The number behind `name:` in a file of `/proc`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_proc() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 27483 5 11 0 130 26 0 0 20 0 9 0 1 1 1";
        let status = "Name:\tx\nVmHWM:\t   61144 kB\nVmRSS:\t  100 kB\nvoluntary_ctxt_switches:\t1017\nnonvoluntary_ctxt_switches:\t586\n";
        let shown = usage(stat, status, "rchar: 5\nread_bytes: 1024\nwrite_bytes: 512\n");
        let expected = json!({
            "utime": 1.3, "stime": 0.26, "maxrss": 61144, "ixrss": 0, "idrss": 0, "isrss": 0, "minflt": 27483,
            "majflt": 11, "nswap": 0, "inblock": 2, "oublock": 1, "msgsnd": 0, "msgrcv": 0, "nsignals": 0,
            "nvcsw": 1017, "nivcsw": 586,
        });
        assert_eq!(shown, expected);
        let nothing = usage("", "", "");
        assert_eq!((&nothing["utime"], &nothing["maxrss"]), (&json!(0.0), &json!(0)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_some_memory() {
        assert!(resident().is_some_and(|bytes| bytes > 1 << 20));
        assert!(rusage()["maxrss"].as_u64().is_some_and(|kilobytes| kilobytes > 1024));
    }
}
