//! The README and the manual against what is there: the quickstart is the example, and no link leads nowhere.

use std::path::{Path, PathBuf};

/// The program that docs/start-here.md shows and `celeriac new` writes, with its test.
#[allow(dead_code)]
#[path = "../src/cli/new/template/main.rs"]
mod start_here;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pages of the manual and the files at the root that people read.
fn pages() -> Vec<PathBuf> {
    let mut pages = files("docs", "md");
    pages.sort();
    pages.extend([root().join("README.md"), root().join("CHANGELOG.md")]);
    pages
}

/// The pages of the manual but its list of contents, by their paths below docs/.
fn manual() -> Vec<(String, String)> {
    let docs = root().join("docs");
    let below = |page: &PathBuf| page.strip_prefix(&docs).ok().map(|name| name.display().to_string());
    let named = pages().into_iter().filter_map(|page| Some((below(&page)?, read(&page))));
    named.filter(|(name, _)| name != "README.md").collect()
}

/// The files with this extension in a folder of the repository and the folders in it.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == extension) {
                found.push(path);
            }
        }
    }
    found
}

/// The targets of `[text](target)` outside of code blocks.
fn links(text: &str) -> Vec<String> {
    let mut in_code = false;
    let mut links = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
            links.extend(targets.map(|(target, _)| target.to_owned()));
        }
    }
    links
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn the_readme_opens_with_the_quickstart_as_it_is() {
    let readme = read(&root().join("README.md"));
    let example = read(&root().join("examples/quickstart.rs"));
    let first = readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next());
    assert_eq!(first, Some(example.as_str()), "copy examples/quickstart.rs into README.md");
}

#[test]
fn no_link_leads_nowhere() {
    let mut lost = Vec::new();
    let mut checked = 0;
    for page in pages() {
        for link in links(&read(&page)) {
            if link.starts_with("http") {
                continue;
            }
            checked += 1;
            let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target =
                if file.is_empty() { page.clone() } else { page.parent().expect("a folder").join(file) };
            let found = target.exists()
                && (heading.is_empty()
                    || read(&target).lines().any(|line| line.starts_with('#') && anchor(line) == heading));
            if !found {
                lost.push(format!("{}: {link}", page.strip_prefix(root()).unwrap_or(&page).display()));
            }
        }
    }
    assert!(checked > 40, "only {checked} links were found: the search is broken");
    assert!(lost.is_empty(), "these links lead nowhere:\n{}", lost.join("\n"));
}

#[test]
fn every_page_is_in_both_indexes_and_short_enough_to_read() {
    let (contents, nouns) = (read(&root().join("docs/README.md")), read(&root().join("docs/by-noun.md")));
    let pages = manual();
    assert!(pages.len() > 40, "only {} were found: the search is broken", pages.len());
    for (name, text) in pages {
        assert!(contents.contains(&format!("]({name})")), "docs/README.md has no {name}");
        let is_named = nouns.contains(&format!("]({name})")) || nouns.contains(&format!("]({name}#"));
        assert!(is_named || name == "by-noun.md", "docs/by-noun.md has no noun that leads to {name}");
        let lines = text.lines().count();
        // Figures and an index may take their room.
        let long = lines > 150 && name != "benchmarks.md" && name != "by-noun.md";
        assert!(!long, "docs/{name} has {lines} lines: it answers more than one question");
    }
}

#[test]
fn the_nouns_are_in_the_order_of_the_alphabet() {
    let text = read(&root().join("docs/by-noun.md"));
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| noun "));
    let nouns: Vec<String> = rows
        .filter_map(|row| Some(row.split(" | ").next()?.replace(['|', '`', '#', '[', ']'], "")))
        .collect();
    let nouns: Vec<String> = nouns.iter().map(|noun| noun.trim().to_lowercase()).collect();
    assert!(nouns.len() > 80, "only {} were found: the search is broken", nouns.len());
    for pair in nouns.windows(2) {
        assert!(pair[0] < pair[1], "`{}` comes before `{}`", pair[1], pair[0]);
    }
}

#[test]
fn the_rust_of_every_page_is_compiled() {
    let front = read(&root().join("src/lib.rs"));
    for (name, text) in manual() {
        let is_named = front.contains(&format!("include_str!(\"../docs/{name}\")"));
        assert!(is_named || !text.contains("```rust"), "`mod manual` in src/lib.rs has no {name}");
    }
}

#[test]
fn the_first_page_shows_what_celeriac_new_writes() {
    let page = read(&root().join("docs/start-here.md"));
    for (language, file) in [("toml", "manifest.toml"), ("toml", "celeriac.toml"), ("rust,no_run", "main.rs")]
    {
        let text = read(&root().join("src/cli/new/template").join(file));
        // The page itself says what the comment at the top of the program says.
        let lines = text.lines().skip_while(|line| line.starts_with("//!") || line.is_empty());
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        let block = format!("```{language}\n{text}```\n");
        assert!(page.contains(&block), "copy src/cli/new/template/{file} into docs/start-here.md");
    }
    let manifest = read(&root().join("Cargo.toml"));
    let rust = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("a version");
    let rust = format!("Rust {}", rust.trim_matches('"'));
    assert!(page.contains(&rust), "docs/start-here.md does not say {rust}");
}

#[test]
fn the_page_of_features_has_each_of_them() {
    let page = read(&root().join("docs/features.md"));
    let manifest = read(&root().join("Cargo.toml"));
    for feature in features(&manifest).filter(|feature| *feature != "default") {
        assert!(page.contains(&format!("| `{feature}` |")), "docs/features.md has no {feature}");
    }
}

/// The text of all sources, by path.
fn sources(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let found = folders.iter().flat_map(|folder| files(folder, "rs"));
    found.map(|path| (path.clone(), read(&path))).collect()
}

/// Where people read of it: the manual, the README, the changelog, the crate's front page.
fn texts() -> Vec<(String, String)> {
    let front = [root().join("src/lib.rs")];
    let all = pages().into_iter().chain(front);
    all.map(|page| (page.strip_prefix(root()).unwrap_or(&page).display().to_string(), read(&page))).collect()
}

/// What all matches of a pattern in all texts name, with where that is.
fn named(pattern: &str) -> Vec<(String, Vec<String>)> {
    let pattern = regex::Regex::new(pattern).expect("a pattern");
    let of_page = |(page, text): (String, String)| {
        let names = pattern.captures_iter(&text).map(|found| {
            let groups = found.iter().skip(1).flatten();
            (page.clone(), groups.map(|group| group.as_str().to_owned()).collect())
        });
        names.collect::<Vec<_>>()
    };
    texts().into_iter().flat_map(of_page).collect()
}

#[test]
fn no_text_names_a_method_or_field_that_does_not_exist() {
    let sources = sources(&["src", "macros/src", "tests/support/src"]);
    let defined = regex::Regex::new(
        r"(?:struct|enum|trait|type) ([A-Z]\w*)|impl(?:<[^>]*>)?\s+(?:[\w:<>, ]+ for )?([A-Z]\w*)",
    )
    .expect("a pattern");
    let mut files: std::collections::HashMap<&str, Vec<&str>> = std::collections::HashMap::new();
    for (_, text) in &sources {
        for found in defined.captures_iter(text) {
            let name = found.get(1).or(found.get(2)).map_or("", |name| name.as_str());
            files.entry(name).or_default().push(text);
        }
    }
    // Of other crates.
    let foreign = [("Error", "other"), ("Map", "remove"), ("Connection", "open"), ("Instant", "now")];
    let (mut checked, mut unknown) = (0, Vec::new());
    for (page, names) in named(r"\b([A-Z]\w+)::([A-Za-z_]\w*)\b") {
        let [kind, member] = &names[..] else { continue };
        let Some(files) = files.get(kind.as_str()) else { continue };
        checked += 1;
        let member_of = format!(r"\bfn {member}\b|\b{member}:|\b{member}\s*[,({{]|const {member}\b");
        let member_of = regex::Regex::new(&member_of).expect("a pattern");
        let is_foreign = foreign.contains(&(kind, member));
        if !is_foreign && !files.iter().any(|text| member_of.is_match(text)) {
            unknown.push(format!("{page}: {kind}::{member}"));
        }
    }
    assert!(checked > 150, "only {checked} were found: the search is broken");
    assert!(unknown.is_empty(), "these do not exist:\n{}", unknown.join("\n"));
}

/// The features of the crate, as its manifest has them.
fn features(manifest: &str) -> impl Iterator<Item = &str> {
    let (_, features) = manifest.split_once("[features]").expect("features");
    let (features, _) = features.split_once("[dependencies]").expect("dependencies");
    features.lines().filter_map(|line| Some(line.split_once(" = [")?.0))
}

#[test]
fn no_text_names_a_feature_that_does_not_exist() {
    let manifest = read(&root().join("Cargo.toml"));
    let features: Vec<&str> = features(&manifest).collect();
    let named = named(
        r#"features? `([a-z0-9-]+)`|--features[ =]([a-z0-9,-]+)|celeriac = \{[^}]*features = \[([^\]]*)\]"#,
    );
    assert!(named.len() > 8, "only {} were found: the search is broken", named.len());
    for (page, names) in named {
        for name in names[0].split(',').map(|name| name.trim().trim_matches('"')) {
            assert!(features.contains(&name), "{page}: there is no feature `{name}`, only {features:?}");
        }
    }
}

#[cfg(feature = "cli")]
#[test]
fn no_text_names_a_command_that_does_not_exist() {
    let help = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_celeriac"));
        let output = command.args(arguments).arg("--help").output().expect("it runs");
        output.status.success().then(|| String::from_utf8(output.stdout).expect("text"))
    };
    let named = named(r"(?m)(?:^|`|\$ )celeriac ([a-z]+(?: [a-z][a-z-]*\b)?)([^`\n]*)");
    assert!(named.len() > 15, "only {} were found: the search is broken", named.len());
    let flag = regex::Regex::new(r"(?:^| )(--?[a-z][a-z-]*)").expect("a pattern");
    for (page, names) in named {
        let words: Vec<&str> = names[0].split(' ').collect();
        // The second word may be an argument.
        let help = if matches!(words[0], "brake" | "bulk" | "failed" | "store") {
            help(&words)
        } else {
            help(&words[..1])
        };
        let Some(help) = help else { panic!("{page}: there is no command `celeriac {}`", names[0]) };
        let arguments = names.get(1).map_or("", |rest| rest.split('#').next().unwrap_or_default());
        for flag in flag.captures_iter(arguments) {
            let is_known =
                regex::Regex::new(&format!(r"(?m)(^|[ ,]){}([ ,=]|$)", &flag[1])).expect("a pattern");
            assert!(is_known.is_match(&help), "{page}: `celeriac {}` has no {}", names[0], &flag[1]);
        }
    }
}

/// In `#[task(…)]` and its relatives, and as `name = value` in code.
#[test]
fn no_text_names_an_option_that_does_not_exist() {
    let known: String = sources(&["macros/src", "src/catalogue"]).into_iter().map(|(_, text)| text).collect();
    let is_known = |name: &str| known.contains(&format!("\"{name}\""));
    let inner = regex::Regex::new(r"(?:^|, )([a-z_]+)(?: = |\(|,|$)").expect("a pattern");
    let (mut checked, mut unknown) = (0, Vec::new());
    for (page, names) in named(r"#\[(?:task|serial_task|periodic_task)\((.*?)\)\]") {
        for name in inner.captures_iter(&names[0]) {
            checked += 1;
            if !is_known(&name[1]) {
                unknown.push(format!("{page}: the option `{}` of #[task({})]", &name[1], names[0]));
            }
        }
    }
    // Celery's own settings, where they are spoken of, and Cargo's.
    let foreign = ["task_serializer", "panic", "celeriac"];
    for (page, names) in named(r"`([a-z_]+) = [^`\n]*`") {
        checked += 1;
        if !is_known(&names[0]) && !foreign.contains(&names[0].as_str()) {
            unknown.push(format!("{page}: the key `{}`", names[0]));
        }
    }
    assert!(checked > 40, "only {checked} were found: the search is broken");
    assert!(unknown.is_empty(), "these do not exist:\n{}", unknown.join("\n"));
}

/// The catalogues that pages show can be read, each by itself.
#[test]
fn every_catalogue_in_the_manual_is_one() {
    let mut checked = 0;
    for (page, names) in named(r"(?s)```toml\n(.*?)```") {
        let text = &names[0];
        let rows = ["[[queue]]", "[[periodic]]", "[[route]]", "[[brake]]", "[[limit]]"];
        if !rows.iter().any(|row| text.contains(row)) {
            continue; // Cargo's
        }
        checked += 1;
        if let Err(errors) = celeriac::catalogue::Catalogue::parse(text, "celeriac.toml") {
            // A part of one may name queues that another part has.
            let others = errors.to_string();
            let wrong: Vec<&str> = others.lines().filter(|line| !line.contains("no such queue")).collect();
            assert!(wrong.is_empty(), "{page}: {others}");
        }
    }
    assert!(checked > 1, "only {checked} were found: the search is broken");
}
