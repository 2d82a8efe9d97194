//! The README and the manual against what is there: the quickstart is the example, and no link leads nowhere.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pages of the manual and the files at the root that people read.
fn pages() -> Vec<PathBuf> {
    let docs = std::fs::read_dir(root().join("docs")).expect("the manual is there");
    let docs = docs.map(|entry| entry.expect("readable").path());
    let mut pages: Vec<_> = docs.filter(|path| path.extension().is_some_and(|ext| ext == "md")).collect();
    pages.sort();
    pages.extend([root().join("README.md"), root().join("CHANGELOG.md")]);
    pages
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
fn every_page_is_in_the_index_and_short_enough_to_read() {
    let index = read(&root().join("docs/README.md"));
    for page in pages().iter().filter(|page| page.parent() == Some(&root().join("docs"))) {
        let name = page.file_name().and_then(|name| name.to_str()).expect("a name");
        assert!(name == "README.md" || index.contains(&format!("]({name})")), "docs/README.md has no {name}");
        let lines = read(page).lines().count();
        // Figures may take their room.
        let long = lines > 150 && name != "benchmarks.md";
        assert!(!long, "docs/{name} has {lines} lines: it answers more than one question");
    }
}

/// The text of all sources, by path.
fn sources(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("readable").path();
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(extension) if extension == "rs" => found.push((path.clone(), read(&path))),
                _ => {}
            }
        }
    }
    found
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
    let foreign = [("Error", "other"), ("Map", "remove")];
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

#[test]
fn no_text_names_a_feature_that_does_not_exist() {
    let manifest = read(&root().join("Cargo.toml"));
    let (_, features) = manifest.split_once("[features]").expect("features");
    let (features, _) = features.split_once("[dependencies]").expect("dependencies");
    let features: Vec<&str> = features.lines().filter_map(|line| Some(line.split_once(" = [")?.0)).collect();
    let named = named(
        r#"features? `([a-z0-9]+)`|--features[ =]([a-z0-9,]+)|celeriac = \{[^}]*features = \[([^\]]*)\]"#,
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
    let named = named(r"(?m)(?:^|`|\$ )celeriac ([a-z]+(?: [a-z]+\b)?)([^`\n]*)");
    assert!(named.len() > 15, "only {} were found: the search is broken", named.len());
    let flag = regex::Regex::new(r"(?:^| )(--?[a-z][a-z-]*)").expect("a pattern");
    for (page, names) in named {
        let words: Vec<&str> = names[0].split(' ').collect();
        // The second word may be an argument.
        let help = if matches!(words[0], "store" | "failed") { help(&words) } else { help(&words[..1]) };
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
    let foreign = ["task_serializer", "panic"];
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
        if !text.contains("[[queue]]") && !text.contains("[[periodic]]") && !text.contains("[[route]]") {
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
