//! `celeriac new`: writes a small program with one task, a catalogue and a test.
//!
//! The files are those in `new/template/`. The compiler reads the program of the template with the examples of this
//! repository, and docs/start-here.md shows it. The command overwrites nothing: it writes into a directory that is not there
//! or is empty, and makes each file anew.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use toml_edit::{DocumentMut, Item, Value};

use super::Failure;

/// The arguments of the command.
#[derive(Debug, Args)]
pub(super) struct NewArgs {
    /// The directory of the program, which is made. The last part of it is the name of the crate.
    #[arg(value_name = "NAME")]
    directory: PathBuf,
    /// Take Celeriac from the checkout of its repository in this directory, and not from crates.io.
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
}

/// Why no program, or not all of it, was written.
#[derive(thiserror::Error)]
pub(super) enum NewError {
    /// The directory holds something.
    #[error(
        "{} is there already and is not empty, so nothing was written: give another name, or an empty directory", .0.display()
    )]
    Occupied(PathBuf),
    /// A file or a directory cannot be made.
    #[error("{} cannot be written: {source}; look whether it is there already, and who may write there", .path.display())]
    Unwritable {
        /// The file or the directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

crate::core::debug_as_display!(NewError);

const MANIFEST: &str = include_str!("new/template/manifest.toml");
const CATALOGUE: &str = include_str!("new/template/celeriac.toml");
const PROGRAM: &str = include_str!("new/template/main.rs");
const GITIGNORE: &str = include_str!("new/template/gitignore");

/// The lines of the manifest that a name or a checkout changes.
const NAME: &str = "name = \"shop\"";
const DEPENDENCY: &str = "celeriac = \"0.1\"";
const FOR_TESTS: &str = "celeriac = { version = \"0.1\", features";

/// Names that Rust or Cargo keeps for itself, or that the written program depends on.
const TAKEN: &str = "abstract as async await become box break build celeriac const continue crate deps do dyn else enum \
    examples extern false final fn for gen if impl in incremental let loop macro match mod move mut override priv pub ref \
    return self static std struct super test tokio trait true try type typeof unsafe unsized use virtual where while yield";

pub(super) fn run(args: &NewArgs, out: &mut impl Write) -> Result<(), Failure> {
    let name = name_of(&args.directory)?;
    let checkout = args.path.as_deref().map(checkout).transpose()?;
    let files = [
        ("Cargo.toml", manifest(name, checkout.as_deref())),
        ("celeriac.toml", CATALOGUE.to_owned()),
        ("src/main.rs", PROGRAM.to_owned()),
        (".gitignore", GITIGNORE.to_owned()),
    ];
    write_all(&args.directory, &files)?;
    let directory = args.directory.display();
    let names: Vec<&str> = files.iter().map(|(file, _)| *file).collect();
    writeln!(out, "{directory} has a program with one task: {}.", names.join(", "))?;
    writeln!(out, "Try it:")?;
    writeln!(out, "  cd {directory}")?;
    writeln!(out, "  cargo run -- ada    # kill it in the middle, and `cargo run` goes on")?;
    writeln!(out, "  cargo test")?;
    Ok(())
}

/// The name of the crate, which is the last part of the directory.
fn name_of(directory: &Path) -> Result<&str, Failure> {
    let wrong = |what: String| {
        Failure::CommandLine(format!(
            "{what}; write letters, digits, `-` and `_`, a letter first, as in `my-tasks`"
        ))
    };
    let Some(name) = directory.file_name() else {
        return Err(wrong(format!("`{}` has no last part to be the name of a crate", directory.display())));
    };
    let shown = name.to_string_lossy();
    let is_fit = |name: &&str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    let Some(name) = name.to_str().filter(is_fit) else {
        return Err(wrong(format!("`{shown}` cannot be the name of a crate")));
    };
    if TAKEN.split_whitespace().any(|taken| taken == name) {
        return Err(Failure::CommandLine(format!(
            "`{name}` cannot be the name of the crate, because Rust, Cargo or the program itself has that name for something else; give another one, as in `my-{name}`"
        )));
    }
    Ok(name)
}

/// The whole path of a checkout of Celeriac.
fn checkout(directory: &Path) -> Result<String, Failure> {
    let is_there = fs::read_to_string(directory.join("Cargo.toml")).is_ok_and(|text| is_celeriac(&text));
    let path = fs::canonicalize(directory).ok().filter(|_| is_there);
    path.and_then(|path| path.into_os_string().into_string().ok()).ok_or_else(|| {
        Failure::CommandLine(format!(
            "{} is no checkout of Celeriac, because it has no Cargo.toml of the package `celeriac`; name the directory that has README.md and src",
            directory.display()
        ))
    })
}

fn is_celeriac(manifest: &str) -> bool {
    let Ok(manifest) = manifest.parse::<DocumentMut>() else { return false };
    let name = manifest.get("package").and_then(|package| package.get("name"));
    name.and_then(Item::as_str) == Some("celeriac")
}

/// The manifest for a crate of this name.
fn manifest(name: &str, checkout: Option<&str>) -> String {
    let manifest = MANIFEST.replace(NAME, &format!("name = \"{name}\""));
    let Some(path) = checkout.map(|path| Value::from(path).to_string()) else { return manifest };
    manifest
        .replace(DEPENDENCY, &format!("celeriac = {{ path = {path} }}"))
        .replace(FOR_TESTS, &format!("celeriac = {{ path = {path}, features"))
}

/// Writes the files, none of which may be there.
fn write_all(directory: &Path, files: &[(&str, String)]) -> Result<(), NewError> {
    match fs::read_dir(directory).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return Err(NewError::Occupied(directory.to_owned())),
        Ok(false) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(NewError::Unwritable { path: directory.to_owned(), source }),
    }
    for (file, text) in files {
        let path = directory.join(file);
        write_new(&path, text).map_err(|source| NewError::Unwritable { path, source })?;
    }
    Ok(())
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}
