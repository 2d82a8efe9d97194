//! The committed lists of tests: one name a line, comments after `#`.

use std::path::Path;

/// The tests that say something about a worker, by what is known of them.
pub struct Lists {
    passes: Vec<String>,
    /// In the order of their file, the ones that disturb others last.
    fails: Vec<String>,
    quick: Vec<String>,
}

impl Lists {
    pub fn read() -> Self {
        Self {
            passes: read("passes-5.7.0.txt"),
            fails: read("fails-5.7.0.txt"),
            quick: read("quick-5.7.0.txt"),
        }
    }

    pub fn passes(&self, test: &str) -> bool {
        self.passes.iter().any(|passes| passes == test)
    }

    pub fn fails(&self, test: &str) -> bool {
        self.fails.iter().any(|fails| fails == test)
    }

    /// What these arguments ask for: names or parts of names, else all tests, else the quick ones.
    pub fn choose(&self, arguments: &[String], everything: bool) -> Vec<&str> {
        let wanted: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
        let exact = arguments.iter().any(|argument| argument == "--exact");
        let all = self.passes.iter().chain(&self.fails).map(String::as_str);
        if !wanted.is_empty() {
            let is_wanted = |test: &&str| {
                wanted.iter().any(|w| if exact { test == w } else { test.contains(w.as_str()) })
            };
            return all.filter(is_wanted).collect();
        }
        if everything { all.collect() } else { self.quick.iter().map(String::as_str).collect() }
    }
}

fn read(name: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/celery_suite").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // A `#` is in the name of no test.
    let name = |line: &str| line.split('#').next().unwrap_or_default().trim().to_owned();
    text.lines().map(name).filter(|test| !test.is_empty()).collect()
}
