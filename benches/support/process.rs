//! What this process and its files cost, as the kernel accounts for it.

use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

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

/// CPU time used so far, user and system, of all threads that there are or were.
pub fn cpu() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}

/// Bytes that this process has had written to disks so far, the deleted ones included.
pub fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0)
}

/// Bytes that are free on the disk of this directory.
pub fn free(dir: &Path) -> u64 {
    rustix::fs::statvfs(dir).map_or(u64::MAX, |disk| disk.f_bavail * disk.f_frsize)
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
        b if b >= f64::from(1 << 30) * 10.0 => format!("{:.1} GiB", b / f64::from(1 << 30)),
        b if b >= f64::from(1 << 20) => format!("{:.0} MiB", b / f64::from(1 << 20)),
        b if b >= 1024.0 => format!("{:.0} KiB", b / 1024.0),
        b => format!("{b:.0} B"),
    }
}
