//! The rooms of `src/` against the drawing in docs/architecture.md: a room uses the floors below its own, and actix has its
//! rooms.
//!
//! The test reads the paths that the code names (`crate::room`, `celeriac::room`), outside of comments and of test modules. An
//! arrow that runs up fails it, with both files. There is none today; should one be borne for a while, [`KNOWN`] is where it is
//! admitted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The floors from the ground up. Rooms of one floor may use each other.
const FLOORS: &[&[&str]] = &[
    &["core", "rabbitmq", "tls"],
    &["task"],
    &["catalogue"],
    &["protocol", "commit_table"],
    &["store"],
    &["broker"],
    &["runtime"],
    &["actors"],
    &["soil"],
    &["app"],
    &["web", "cli"],
];

/// A room for users' tests and ours, which stands beside the house and may use all of it. Production code names it only behind
/// `cfg(feature = "testing")`, which this test does not look at.
const BESIDE: &str = "testing";

/// Arrows that run up and are borne: (from the room, to the room). None.
const KNOWN: &[(&str, &str)] = &[];

/// Rooms that may name actix.
const ACTIX: &[&str] = &["actors", "web"];

/// Files elsewhere that name actix and are borne. None.
const ACTIX_ELSEWHERE: &[&str] = &[];

struct Arrow {
    file: PathBuf,
    line: usize,
    from: String,
    to: String,
    path: String,
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The room of a file: the first part of its path below `src/`, without `.rs`.
fn room(file: &Path) -> String {
    let below = file.strip_prefix(source()).expect("a file of src/");
    let first = below.components().next().expect("a name").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// Whether a file holds tests only, by its name.
fn is_test(file: &Path) -> bool {
    let below = file.strip_prefix(source()).expect("a file of src/");
    below.components().any(|part| {
        let name = part.as_os_str().to_string_lossy();
        name.trim_end_matches(".rs") == "tests" || name.trim_end_matches(".rs") == "conformance"
    })
}

/// The lines of a file that are code and not tests: comments go, and so does everything after `#[cfg(test)]` on a module,
/// which is the last thing in a file here.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let end = lines
        .windows(2)
        .position(|pair| {
            pair[0].trim() == "#[cfg(test)]" && pair[1].trim().starts_with("mod ") && pair[1].ends_with('{')
        })
        .unwrap_or(lines.len());
    lines.into_iter().take(end).enumerate().filter_map(|(index, line)| {
        let line = line.split("//").next().unwrap_or_default();
        (!line.trim().is_empty()).then_some((index + 1, line))
    })
}

/// The names that follow `crate::` or `celeriac::` in a line, also in `crate::{one::.., two}`.
fn named(line: &str) -> Vec<String> {
    let mut names = Vec::new();
    for marker in ["crate::", "celeriac::"] {
        let mut from = 0;
        while let Some(at) = line[from..].find(marker) {
            let start = from + at;
            from = start + marker.len();
            let alone = line[..start].chars().next_back().is_none_or(|c| !(c.is_alphanumeric() || c == '_'));
            if !alone {
                continue;
            }
            let rest = &line[from..];
            let word = |text: &str| {
                text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
            };
            match rest.strip_prefix('{') {
                Some(list) => {
                    // The first word, and each one that follows a comma at the depth of this list.
                    let mut depth = 0;
                    let mut piece = String::new();
                    for c in list.chars() {
                        match c {
                            '{' => depth += 1,
                            '}' if depth == 0 => break,
                            '}' => depth -= 1,
                            ',' if depth == 0 => {
                                names.push(word(&piece));
                                piece.clear();
                                continue;
                            }
                            _ => {}
                        }
                        piece.push(c);
                    }
                    names.push(word(&piece));
                }
                None => names.push(word(rest)),
            }
        }
    }
    names
}

fn arrows() -> Vec<Arrow> {
    let mut all = Vec::new();
    files(&source(), &mut all);
    assert!(all.len() > 200, "only {} files were found below src/: the search is broken", all.len());
    let mut arrows = Vec::new();
    for file in all {
        let from = room(&file);
        if floor(&from).is_none() || is_test(&file) {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("a readable file");
        for (line, code) in code(&text) {
            for to in named(code) {
                if to != from && floor(&to).is_some() {
                    let path = code.trim().to_owned();
                    arrows.push(Arrow { file: file.clone(), line, from: from.clone(), to, path });
                }
            }
        }
    }
    assert!(arrows.len() > 300, "only {} arrows were found: the search is broken", arrows.len());
    arrows
}

#[test]
fn no_arrow_runs_up() {
    let mut wrong = Vec::new();
    let mut met = BTreeSet::new();
    for arrow in arrows() {
        let up = floor(&arrow.to) > floor(&arrow.from);
        if !up {
            continue;
        }
        let known = KNOWN.iter().any(|(from, to)| *from == arrow.from && *to == arrow.to);
        if known {
            met.insert((arrow.from.clone(), arrow.to.clone()));
        } else {
            let file = arrow.file.strip_prefix(source()).unwrap_or(&arrow.file).display();
            wrong.push(format!(
                "src/{file}:{} ({}) uses src/{}/, which is on a floor above it: `{}`",
                arrow.line, arrow.from, arrow.to, arrow.path
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} arrows run up. Move what is shared to a floor below, or pass it in:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    let gone: Vec<_> =
        KNOWN.iter().filter(|(from, to)| !met.contains(&((*from).to_owned(), (*to).to_owned()))).collect();
    assert!(gone.is_empty(), "these arrows are gone, so take them off KNOWN: {gone:?}");
}

#[test]
fn actix_is_named_in_its_rooms_only() {
    let mut all = Vec::new();
    files(&source(), &mut all);
    let mut met = BTreeSet::new();
    let mut wrong = Vec::new();
    for file in all {
        let from = room(&file);
        if ACTIX.contains(&from.as_str()) || from == BESIDE || is_test(&file) {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("a readable file");
        let below = file.strip_prefix(source()).expect("a file of src/").to_string_lossy().into_owned();
        for (line, code) in code(&text) {
            if !code.contains("actix::") && !code.contains("actix_rt::") && !code.contains("actix_web::") {
                continue;
            }
            if ACTIX_ELSEWHERE.contains(&below.as_str()) {
                met.insert(below.clone());
            } else {
                wrong.push(format!("src/{below}:{line}: {}", code.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "actix is named outside of {ACTIX:?}:\n{}", wrong.join("\n"));
    let gone: Vec<_> = ACTIX_ELSEWHERE.iter().filter(|file| !met.contains(**file)).collect();
    assert!(gone.is_empty(), "these files name actix no more, so take them off ACTIX_ELSEWHERE: {gone:?}");
}

#[test]
fn the_reader_of_paths_sees_lists_and_no_comments() {
    assert_eq!(named("use crate::task::Message;"), ["task"]);
    assert_eq!(named("use crate::{core::Timestamp, task::{Id, Message}};"), ["core", "task"]);
    assert_eq!(named("let x: crate::store::Chord = my_crate::soil::nothing();"), ["store"]);
    let text = "use crate::core::A; // crate::app\n/// [`crate::web`]\n#[cfg(test)]\nmod tests {\n use crate::app::B;\n}";
    let seen: Vec<_> = code(text).flat_map(|(_, line)| named(line)).collect();
    assert_eq!(seen, ["core"]);
}
