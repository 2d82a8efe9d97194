//! What the disk does meanwhile: a thread that now and then writes a block to a file of its own and syncs it.
//!
//! A store whose enqueue stalls while these syncs are short has stalled by itself. The file grows to a few MiB and is
//! then written again from its beginning, as the files of the store's log are.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The pause between two syncs.
pub const PAUSE: Duration = Duration::from_millis(50);
/// The bytes that each sync has to write.
const BLOCK: usize = 4 << 10;
/// The blocks that the file has at most.
const BLOCKS: usize = 1_024;

/// The probe. Its thread ends with it.
pub struct DiskProbe {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// The longest sync since the last look, in nanoseconds.
    longest: AtomicU64,
    stops: AtomicBool,
}

impl DiskProbe {
    /// Begins, with a file in `dir`.
    pub fn start(dir: &Path) -> Self {
        let mut file = File::create(dir.join("probe")).expect("the benchmark's directory is writable");
        let shared = Arc::<Shared>::default();
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let block = [7_u8; BLOCK];
            for number in (0..BLOCKS).cycle() {
                if of_thread.stops.load(Ordering::Relaxed) {
                    break;
                }
                if number == 0 {
                    file.seek(SeekFrom::Start(0)).expect("a file");
                }
                let start = Instant::now();
                file.write_all(&block).and_then(|()| file.sync_data()).expect("the disk takes it");
                let took = start.elapsed().as_nanos() as u64;
                of_thread.longest.fetch_max(took, Ordering::Relaxed);
                std::thread::sleep(PAUSE);
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// The longest write and sync that has ended since the last call.
    pub fn take(&self) -> Duration {
        Duration::from_nanos(self.shared.longest.swap(0, Ordering::Relaxed))
    }
}

impl Drop for DiskProbe {
    fn drop(&mut self) {
        self.shared.stops.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
