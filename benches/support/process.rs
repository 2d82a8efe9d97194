//! What this process costs, as the kernel accounts for it.

use std::path::Path;
use std::time::Duration;

fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Resident memory in bytes.
pub fn resident() -> u64 {
    status("VmRSS") << 10
}

/// The most that was ever resident, in bytes.
pub fn most_resident() -> u64 {
    status("VmHWM") << 10
}

/// Threads now.
pub fn threads() -> u64 {
    status("Threads")
}

/// CPU time used so far, user and system. To a hundredth of a second, which is how the kernel tells it.
pub fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The command, in brackets, may contain blanks; utime and stime are the 12th and 13th fields behind it.
    let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    let ticks: u64 = behind.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// Bytes of all files below a directory, as the disk holds them.
pub fn disk(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => disk(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// Bytes for people.
pub fn size(bytes: u64) -> String {
    match bytes as f64 {
        b if b >= f64::from(1 << 20) => format!("{:.0} MiB", b / f64::from(1 << 20)),
        b if b >= 1024.0 => format!("{:.0} KiB", b / 1024.0),
        b => format!("{b:.0} B"),
    }
}
