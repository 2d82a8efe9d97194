//! A disk that is full, as seen by a whole process: a tmpfs of 192 MiB with the store on it.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use celeriac::broker::embedded::EmbeddedOptions;
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::book::Book;
use crate::child::{Child, Failure, Orders, emptied, say};
use crate::ledger::Reader;
use crate::process::{Home, Life, PATIENCE};
use crate::tasks::Kind;
use crate::workload::{Call, Numbers, enqueue};

/// The arguments of each task that fills the disk, in bytes.
const LOAD: usize = 60_000;
/// So many of them are enqueued at a time.
const TOGETHER: usize = 8;
/// More than the disk holds.
const MORE_THAN_FITS: usize = (256 << 20) / LOAD;

/// A small disk of its own.
struct Disk {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Disk {
    fn mount() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("disk");
        std::fs::create_dir(&path).expect("a place to mount it");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=192m", "tmpfs"]).arg(&path).output();
        let mount = mount.expect("the command `mount` is there");
        assert!(
            mount.status.success(),
            "a tmpfs cannot be mounted, and there is no other way to a small disk: {}. Run the full_disk cases as root, \
             or under `unshare --map-root-user --mount`",
            String::from_utf8_lossy(&mount.stderr).trim()
        );
        Self { path, _dir: dir }
    }

    /// Bytes that are free.
    fn room(&self) -> u64 {
        let disk = rustix::fs::statvfs(&self.path).expect("it is mounted");
        disk.f_bavail * disk.f_frsize
    }

    /// Takes so many bytes, or as many as there are.
    fn fill(&self, bytes: usize) {
        let mut file = File::create(self.ballast()).expect("a file of ballast");
        let mut left = bytes;
        for chunk in [1 << 20, 4096, 1] {
            let zeros = vec![0; chunk];
            while left >= chunk {
                match file.write_all(&zeros) {
                    Ok(()) => left -= chunk,
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("the disk cannot be filled: {error}"),
                }
            }
        }
    }

    /// Gives back what [`fill`](Self::fill) took.
    fn free(&self) {
        std::fs::remove_file(self.ballast()).expect("the ballast is there");
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }

    fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// For the report: MiB that the store takes.
    fn taken_by_store(&self) -> u64 {
        fn size(path: &Path) -> u64 {
            use std::os::unix::fs::MetadataExt;
            let meta = std::fs::symlink_metadata(path);
            let inside =
                std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path()));
            inside.sum::<u64>() + meta.map_or(0, |meta| meta.blocks() * 512)
        }
        size(&self.store()) >> 20
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a child of a failed case may still hold it.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// Does what it is told, a word a line, and answers each.
pub async fn child(child: Child) -> Result<(), Failure> {
    let mut options = EmbeddedOptions::default();
    options.delivery_limit = 1000;
    if let Some(bytes) = child.orders.min_free {
        options.min_free_space = bytes;
    }
    let celeriac = child.builder().embedded_options(options).start().await?;
    say("up");
    let numbers = Numbers::of_life(child.life);
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match line.as_str() {
            "pause" => {
                for row in &celeriac.catalogue().queues {
                    celeriac.pause(&row.name).await?;
                }
                say("paused");
            }
            "resume" => {
                for row in &celeriac.catalogue().queues {
                    celeriac.resume(&row.name).await?;
                }
                say("resumed");
            }
            "fill" => {
                let mut why = "never".to_owned();
                for _ in 0..MORE_THAN_FITS / TOGETHER {
                    let some =
                        (0..TOGETHER).map(|_| enqueue(numbers.next(), Kind::Fat, Call::default(), LOAD));
                    let refused =
                        futures_util::future::join_all(some).await.into_iter().find_map(Result::err);
                    if let Some(error) = refused {
                        why = error.to_string();
                        break;
                    }
                }
                say(&format!("refused {why}"));
            }
            "try" => match enqueue(numbers.next(), Kind::Cpu, Call::default(), 0).await {
                Ok(_) => say("accepted"),
                Err(error) => say(&format!("refused {error}")),
            },
            "try until accepted" => say(&tried_until_accepted(&numbers).await),
            "empty" => match emptied(&celeriac).await {
                Ok(()) => say("emptied"),
                Err(error) => say(&format!("emptied not: {error}")),
            },
            "end" => {
                celeriac.shutdown().await?;
                return Ok(());
            }
            other => panic!("told to {other}"),
        }
    }
    Ok(())
}

/// There is no signal for "there is room again": a caller finds out by trying, as here.
async fn tried_until_accepted(numbers: &Numbers) -> String {
    let mut again = tokio::time::interval(Duration::from_millis(20));
    let patience = tokio::time::Instant::now() + PATIENCE / 2;
    loop {
        again.tick().await;
        match enqueue(numbers.next(), Kind::Cpu, Call::default(), 0).await {
            Ok(_) => return "accepted".to_owned(),
            Err(error) if tokio::time::Instant::now() > patience => return format!("accepted not: {error}"),
            Err(_) => {}
        }
    }
}

fn told(life: &mut Life, word: &str, answer: &str) -> String {
    life.tell(word);
    life.expect(answer)
}

/// A scenario's disk and home, and a child on it that has filled the disk as far as it was let.
struct Scene {
    disk: Disk,
    home: Home,
    reader: Reader,
    book: Book,
}

impl Scene {
    fn new() -> Self {
        let disk = Disk::mount();
        let home = Home::new().with_store(disk.store());
        let reader = Reader::open(&home.ledger());
        Self { disk, home, reader, book: Book::default() }
    }

    /// Starts a child that enqueues until it is refused; also says with which text.
    fn filled(&mut self, guarded: bool) -> (Life, String) {
        let min_free = if guarded { None } else { Some(0) };
        let mut life = self.home.spawn("full-disk", &Orders { min_free, ..Orders::default() }.line());
        life.expect("up");
        told(&mut life, "pause", "paused");
        let refused = told(&mut life, "fill", "refused");
        (life, refused)
    }

    /// Runs what is left, and closes the book.
    fn settle_up(&mut self) {
        self.book.read(&mut self.reader);
        let orders = Orders { ask: self.book.to_ask(usize::MAX), ..Orders::default() };
        self.home.spawn("drain", &orders.line()).death().assert_clean();
        self.book.read(&mut self.reader);
        self.book.close();
        let totals = &self.book.totals;
        println!(
            "    acked {}, refused {}, starts {}, lost {}, settled twice {}; the store takes {} MiB at the end",
            totals.acked,
            totals.refused,
            totals.starts,
            totals.lost,
            totals.settled_twice,
            self.disk.taken_by_store()
        );
        self.book.assert_kept();
    }
}

/// The last 128 MiB are kept for tasks under way; when those are gone too, nothing is lost, and it goes on by itself.
pub fn refuses_and_goes_on() {
    let mut scene = Scene::new();
    let (mut life, refused) = scene.filled(true);
    assert!(refused.contains("MiB are free on the disk of"), "{refused}");
    assert!(refused.contains("nothing was enqueued. It goes on by itself when there is room"), "{refused}");
    scene.disk.fill(usize::MAX);
    told(&mut life, "resume", "resumed");
    let refused = told(&mut life, "try", "refused");
    assert!(refused.contains("the store takes no new tasks"), "{refused}");
    scene.disk.free();
    assert_eq!(told(&mut life, "empty", "emptied"), "emptied");
    println!("    drained, the store takes {} MiB", scene.disk.taken_by_store());
    assert_eq!(told(&mut life, "try until accepted", "accepted"), "accepted");
    life.tell("end");
    life.death().assert_clean();
    scene.settle_up();
    assert!(scene.book.totals.acked > 200, "it held {} tasks only", scene.book.totals.acked);
}

/// Without a reserve the disk itself refuses.
pub fn to_the_last_byte() {
    let mut scene = Scene::new();
    scene.disk.fill(64 << 20);
    let (mut life, refused) = scene.filled(false);
    assert!(refused.contains("is full") && refused.contains("nothing was enqueued"), "{refused}");
    for _ in 0..20 {
        let refused = told(&mut life, "try", "");
        assert!(refused == "accepted" || refused.contains("is full"), "{refused}");
    }
    told(&mut life, "resume", "resumed");
    life.signal(Signal::TERM);
    let death = life.death();
    death.assert_no_panic();
    scene.disk.free();
    scene.settle_up();
    // The store is empty now. What its files still take must not be held against those who come next.
    let min_free = Some(scene.disk.room() + (16 << 20));
    let mut life = scene.home.spawn("full-disk", &Orders { min_free, ..Orders::default() }.line());
    life.expect("up");
    let before = scene.disk.taken_by_store();
    assert_eq!(told(&mut life, "try until accepted", "accepted"), "accepted");
    println!(
        "    {before} MiB of an empty store, {} MiB after they were wanted back",
        scene.disk.taken_by_store()
    );
    life.kill_9();
}

/// A long journal must be read before anything runs again: what that costs is measured here.
pub fn with_a_long_journal() {
    let mut home = Home::new();
    let mut life = home.spawn("full-disk", "");
    life.expect("up");
    told(&mut life, "pause", "paused");
    assert_eq!(told(&mut life, "fill", "refused"), "refused never");
    life.kill_9();
    let again = home.spawn("full-disk", "");
    again.expect("up");
    let took = Duration::from_micros(crate::ledger::now() - again.spawned_at);
    println!(
        "    up {} ms after the spawn, with {} MiB waiting",
        took.as_millis(),
        (MORE_THAN_FITS * LOAD) >> 20
    );
    assert!(took < Duration::from_secs(60), "{took:?}");
    again.kill_9().assert_no_panic();
}

/// Killed on a full disk, it starts there or says why not, and with room again it has lost nothing.
pub fn killed_while_full() {
    let mut scene = Scene::new();
    let (mut life, _) = scene.filled(true);
    scene.disk.fill(usize::MAX);
    told(&mut life, "resume", "resumed");
    told(&mut life, "try", "refused");
    life.kill_9();
    for _ in 0..5 {
        let again = scene.home.spawn("full-disk", "");
        if again.hears("up").is_some() {
            println!("    it starts on the full disk");
            again.kill_9().assert_no_panic();
        } else {
            let death = again.death();
            println!("    on the full disk: {}", death.stderr.trim());
            assert_eq!(death.status.code(), Some(1), "{}", death.stderr);
            assert!(death.stderr.contains("full"), "{}", death.stderr);
            death.assert_no_panic();
        }
    }
    scene.disk.free();
    scene.settle_up();
}
