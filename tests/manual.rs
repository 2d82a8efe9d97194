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
        assert!(lines <= 200, "docs/{name} has {lines} lines: it answers more than one question");
    }
}
