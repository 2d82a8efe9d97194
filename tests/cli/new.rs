//! `celeriac new`: what it writes, what it refuses, and that the program goes on where `kill -9` has stopped it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use toml_edit::{DocumentMut, Item};

use super::{ROOT, celeriac, text};

const FILES: [&str; 4] = [".gitignore", "Cargo.toml", "celeriac.toml", "src/main.rs"];

fn new(arguments: &[&str], directory: &Path) -> (Option<i32>, String, String) {
    text(celeriac(&[&["new"], arguments].concat(), directory))
}

fn template(file: &str) -> String {
    let path = Path::new(ROOT).join("src/cli/new/template").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn manifest(directory: &Path) -> DocumentMut {
    let text = fs::read_to_string(directory.join("Cargo.toml")).expect("a manifest");
    text.parse().unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The value under these keys.
fn at<'m>(manifest: &'m DocumentMut, keys: &[&str]) -> Option<&'m Item> {
    keys.iter().try_fold(manifest.as_item(), |item, key| item.get(*key))
}

/// All files below a directory, by their paths.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(directory).expect("below").display().to_string());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_program_is_written_and_its_parts_fit_this_version() {
    let dir = tempfile::tempdir().expect("a directory");
    let (code, out, err) = new(&["below/my-mails"], dir.path());
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("cd below/my-mails") && FILES.iter().all(|file| out.contains(file)), "{out}");
    let written = dir.path().join("below/my-mails");
    assert_eq!(files(&written), FILES);
    assert_eq!(fs::read_to_string(written.join("src/main.rs")).expect("a program"), template("main.rs"));

    let manifest = manifest(&written);
    let text = |keys: &[&str]| at(&manifest, keys).and_then(Item::as_str).unwrap_or_default().to_owned();
    assert_eq!(text(&["package", "name"]), "my-mails");
    assert_eq!(text(&["package", "rust-version"]), env!("CARGO_PKG_RUST_VERSION"));
    let ours = format!("{}.{}", env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
    assert_eq!(text(&["dependencies", "celeriac"]), ours);
    assert_eq!(text(&["dev-dependencies", "celeriac", "version"]), ours);

    let catalogue = text_of_check(&written);
    assert!(catalogue.starts_with("celeriac.toml is valid.\n1 queue, 50 workers"), "{catalogue}");
    assert!(!catalogue.contains("warning"), "{catalogue}");
}

/// The mistake that docs/start-here.md shows is told like that.
#[test]
fn a_mistake_in_the_written_catalogue_is_told_as_the_first_page_says() {
    let dir = tempfile::tempdir().expect("a directory");
    assert_eq!(new(&["shop"], dir.path()).0, Some(0));
    let shop = dir.path().join("shop");
    fs::write(shop.join("celeriac.toml"), template("celeriac.toml").replace("target =", "targt ="))
        .expect("a file");
    let (code, _, err) = text(celeriac(&["check"], &shop));
    assert_eq!(code, Some(1));
    let page = fs::read_to_string(Path::new(ROOT).join("docs/start-here.md")).expect("a page");
    assert!(err.contains("did you mean") && page.contains(&format!("Error: {err}")), "{err}");
}

fn text_of_check(written: &Path) -> String {
    let (code, out, err) = text(celeriac(&["check"], written));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    out
}

#[test]
fn a_program_may_take_celeriac_from_a_checkout() {
    let dir = tempfile::tempdir().expect("a directory");
    let (code, _, err) = new(&["shop", "--path", ROOT], dir.path());
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let manifest = manifest(&dir.path().join("shop"));
    let root = fs::canonicalize(ROOT).expect("a path").display().to_string();
    for table in ["dependencies", "dev-dependencies"] {
        let path = at(&manifest, &[table, "celeriac", "path"]).and_then(Item::as_str);
        assert_eq!(path, Some(root.as_str()), "{manifest}");
        assert!(at(&manifest, &[table, "celeriac", "version"]).is_none(), "{manifest}");
    }
    assert!(at(&manifest, &["dev-dependencies", "celeriac", "features"]).is_some(), "{manifest}");

    let (code, out, err) = new(&["other", "--path", "shop"], dir.path());
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.starts_with("error: shop is no checkout of Celeriac"), "{err}");
    assert!(!dir.path().join("other").exists());
}

#[test]
fn nothing_is_overwritten() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, file) in [("full", "full/notes.txt"), ("file", "file")] {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, "mine").expect("a file");
        let (code, out, err) = new(&[name], dir.path());
        assert_eq!((code, out.as_str()), (Some(1), ""), "{name}");
        assert!(err.starts_with(&format!("{name} ")) && !err.contains('{'), "{err}");
        assert_eq!(fs::read_to_string(&path).expect("still there"), "mine");
    }
    assert_eq!(files(dir.path()), ["file", "full/notes.txt"]);
    fs::create_dir(dir.path().join("empty")).expect("a folder");
    assert_eq!(new(&["empty"], dir.path()).0, Some(0), "an empty directory is taken");
    let (code, _, err) = new(&["empty"], dir.path());
    assert_eq!(code, Some(1));
    assert!(err.contains("give another name"), "{err}");
}

#[test]
fn a_name_that_no_crate_can_have_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    for name in ["9lives", "my tasks", "über", "..", "a.b", "fn", "celeriac", "test", "-"] {
        let (code, out, err) = new(&["--", name], dir.path());
        assert_eq!((code, out.as_str()), (Some(2), ""), "{name}");
        assert!(err.contains(&format!("`{name}`")) && err.contains("as in `my-"), "{name}: {err}");
    }
    assert!(files(dir.path()).is_empty());
}

/// The program that `celeriac new` writes, which is an example of this repository.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let target = test.parent().and_then(Path::parent).expect("a directory");
    let program = target.join("examples/start_here");
    let missing = "is not built: run `cargo build --all-features --example start_here` first";
    assert!(program.is_file(), "{} {missing}", program.display());
    program
}

/// A program that runs, and what it has printed. It is killed when this is dropped.
struct Running {
    child: Child,
    lines: Receiver<String>,
    /// What it writes to stderr: a program that outlives this test holds nobody's pipe.
    log: PathBuf,
}

impl Running {
    fn start(directory: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(program());
        let log = directory.join("stderr");
        let stderr = fs::File::create(&log).expect("a log");
        command.args(arguments).current_dir(directory).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (told, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if told.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, log }
    }

    /// Waits until the program prints this line.
    fn wait_for(&self, line: &str) {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(printed) if printed == line => return,
                Ok(_) => {}
                Err(error) => {
                    let log = fs::read_to_string(&self.log).unwrap_or_default();
                    panic!("it did not print `{line}`: {error}: {log}");
                }
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // SIGKILL
        let _ = self.child.wait();
    }
}

#[test]
fn the_written_program_goes_on_after_a_kill() {
    let dir = tempfile::tempdir().expect("a directory");
    assert_eq!(new(&["shop"], dir.path()).0, Some(0));
    let shop = dir.path().join("shop");
    let first = Running::start(&shop, &["ada"]);
    first.wait_for("attempt 1: 2 of 10 for ada");
    drop(first);
    let second = Running::start(&shop, &[]);
    second.wait_for("attempt 2: 1 of 10 for ada");
}
