//! The limit for durable work: a log with group commit and nothing else.
//!
//! Producers send a record and wait, just as the product's do; one thread writes whatever is pending in one go, syncs
//! once, and answers all of it. No tables, no index, no order, no reading back: what any durable queue on this disk
//! and these cores can at best come near to.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// At most so many records go into one sync; the product has the same bound.
const GROUP: usize = 4096;

/// A record, and where to say that it is on disk.
type Request = (Vec<u8>, oneshot::Sender<()>);

/// The log; its thread ends with its last handle.
#[derive(Clone)]
struct BareLog {
    requests: mpsc::Sender<Request>,
}

impl BareLog {
    fn open(dir: &Path) -> Self {
        let mut file = File::create(dir.join("bare.log")).expect("the benchmark's directory is writable");
        let (requests, inbox) = mpsc::channel::<Request>();
        std::thread::spawn(move || {
            let (mut bytes, mut replies) = (Vec::new(), Vec::new());
            while let Ok(first) = inbox.recv() {
                for (record, reply) in std::iter::once(first).chain(inbox.try_iter().take(GROUP - 1)) {
                    bytes.extend_from_slice(&record);
                    replies.push(reply);
                }
                file.write_all(&bytes).and_then(|()| file.sync_data()).expect("the disk takes it");
                bytes.clear();
                for reply in replies.drain(..) {
                    let _ = reply.send(());
                }
            }
        });
        Self { requests }
    }

    /// Comes back when the record is on disk.
    async fn append(&self, record: Vec<u8>) {
        let (reply, answer) = oneshot::channel();
        self.requests.send((record, reply)).expect("the log is open");
        answer.await.expect("the log answers");
    }
}

/// Tasks a second when `producers` append a record for each and wait, one after the other for a while, and a consumer
/// for each of them appends `steps` more for it, each waited for: none is the enqueue alone, one the settlement, two a lease
/// and the settlement. Ends when the last record is on disk.
pub async fn run(dir: &Path, producers: usize, record: usize, steps: usize, span: Duration) -> f64 {
    let log = BareLog::open(dir);
    let start = Instant::now();
    let mut producing = Vec::new();
    let mut consuming = Vec::new();
    for _ in 0..producers {
        let (waiting, mut line) = tokio::sync::mpsc::unbounded_channel::<()>();
        let own = log.clone();
        producing.push(tokio::spawn(async move {
            let mut accepted = 0_u64;
            while start.elapsed() < span {
                own.append(vec![7; record]).await;
                accepted += 1;
                if steps > 0 {
                    waiting.send(()).expect("the consumer is there");
                }
            }
            accepted
        }));
        let own = log.clone();
        consuming.push(tokio::spawn(async move {
            while line.recv().await.is_some() {
                for _ in 0..steps {
                    own.append(vec![7; record]).await;
                }
            }
        }));
    }
    let mut total = 0;
    for producer in producing {
        total += producer.await.expect("a producer ends");
    }
    for consumer in consuming {
        consumer.await.expect("a consumer ends");
    }
    total as f64 / start.elapsed().as_secs_f64()
}
