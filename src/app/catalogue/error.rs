//! What is wrong with a catalogue: every mistake with its place, the value at fault and what to do about it.

use std::fmt;

/// A place in the text: line and column, both from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

/// All mistakes that were found in one catalogue, in the order of the text. Never empty.
///
/// It prints as one line a mistake: `celeriac.toml:12:1: unknown key "wokers" in queue "email_queue"; did you mean
/// "workers"?`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CatalogueErrors {
    /// What the file was called.
    pub file: String,
    /// The mistakes.
    pub errors: Vec<CatalogueError>,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CatalogueError {
    /// Where; `None` for what has no place in a text, such as a row that was built in code.
    pub position: Option<Position>,
    /// What.
    pub problem: Problem,
}

/// What can be wrong. The text of each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file could not be read.
    #[error("cannot read the file: {reason}; check the path and who may read it")]
    Unreadable {
        /// What the system said.
        reason: String,
    },
    /// The file is not text.
    #[error("byte 0x{byte:02x} is not UTF-8; save the file as UTF-8 text")]
    NotUtf8 {
        /// The first byte that does not fit.
        byte: u8,
    },
    /// The text is not TOML.
    #[error("not valid TOML: {reason}; correct this first, nothing else could be checked")]
    Syntax {
        /// What the parser said.
        reason: String,
    },
    /// A key that means nothing here.
    #[error("unknown key {} {place}; {advice}", quote(.key))]
    UnknownKey {
        /// The key.
        key: String,
        /// Where it stands, as in `in queue "email_queue"`.
        place: String,
        /// What to do.
        advice: String,
    },
    /// A value of another type than the key takes.
    #[error("{} {place} must be {expected}, not {found}", quote(.key))]
    WrongType {
        /// The key.
        key: String,
        /// Where it stands.
        place: String,
        /// What it takes, with an example.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A value of the right type that makes no sense.
    #[error("{} {place} is {value}; {advice}", quote(.key))]
    BadValue {
        /// The key.
        key: String,
        /// Where it stands.
        place: String,
        /// The value, as written.
        value: String,
        /// What to do.
        advice: String,
    },
    /// A row without a name.
    #[error("{place} has no name; add name = \"...\"")]
    MissingName {
        /// Which row, as in `queue number 3`.
        place: String,
    },
    /// A row without a key that it needs.
    #[error("{place} has no {key}; add {key} = {example}")]
    MissingKey {
        /// Which row, as in `route number 3`.
        place: String,
        /// The key.
        key: &'static str,
        /// What it could be.
        example: &'static str,
    },
    /// A name that the broker would not take.
    #[error("the name {} of {what} {fault}", quote(.name))]
    BadName {
        /// The name.
        name: String,
        /// Of what it is the name, as in `a queue`.
        what: &'static str,
        /// What is wrong and what to do.
        fault: String,
    },
    /// Two rows for one queue.
    #[error("queue {} is already declared{}; keep one of the two", quote(.name), on_line(.first))]
    DuplicateQueue {
        /// The queue.
        name: String,
        /// Where it was declared first.
        first: Option<Position>,
    },
    /// Two periodic entries of one name.
    #[error("periodic entry {} is already declared{}; rename one of the two", quote(.name), on_line(.first))]
    DuplicatePeriodic {
        /// The entry.
        name: String,
        /// Where it was declared first.
        first: Option<Position>,
    },
    /// A periodic entry that cannot be one.
    #[error("{place}: {fault}")]
    Periodic {
        /// Which one, as in `in periodic entry "invoices"`.
        place: String,
        /// What is wrong and what to do.
        fault: String,
    },
    /// An alias, a route, an environment or the default leads to a queue that is not there.
    #[error("{subject} {}, but there is no such queue; {advice}", quote(.queue))]
    UnknownQueue {
        /// Who refers to it, as in `route "a.b" leads to`.
        subject: String,
        /// The name that is not there.
        queue: String,
        /// What to do.
        advice: String,
    },
    /// Aliases that lead to each other.
    #[error("aliases run in a circle: {}; let one of them lead to a queue", .circle.join(" -> "))]
    AliasLoop {
        /// The names in order; the last is the first again.
        circle: Vec<String>,
    },
    /// An alias that hides a queue.
    #[error("alias {} has the name of a queue; rename the alias or remove it", quote(.name))]
    AliasShadowsQueue {
        /// The name that both bear.
        name: String,
    },
    /// An environment that the file does not have.
    #[error("unknown environment {}; {advice}", quote(.name))]
    UnknownEnvironment {
        /// The name that was asked for.
        name: String,
        /// What to do.
        advice: String,
    },
}

impl CatalogueErrors {
    pub(super) fn new(file: &str, mut errors: Vec<CatalogueError>) -> Self {
        errors.sort_by_key(|error| error.position);
        Self { file: file.to_owned(), errors }
    }

    pub(super) fn one(file: &str, position: Option<Position>, problem: Problem) -> Self {
        Self::new(file, vec![CatalogueError { position, problem }])
    }
}

impl fmt::Display for CatalogueErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            f.write_str(&self.file)?;
            if let Some(at) = error.position {
                write!(f, ":{at}")?;
            }
            write!(f, ": {}", error.problem)?;
        }
        Ok(())
    }
}

impl std::error::Error for CatalogueErrors {}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A name in quotes, with control characters escaped, and cut where it would flood the line.
pub(super) fn quote(name: &str) -> String {
    format!("{:?}", shorten(name))
}

/// The first line of a text, cut where it would flood an error.
pub(super) fn shorten(text: &str) -> String {
    const ENOUGH: usize = 60;
    match text.char_indices().nth(ENOUGH) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or(text)),
        None => text.to_owned(),
    }
}

fn on_line(first: &Option<Position>) -> String {
    first.map_or_else(String::new, |at| format!(" on line {}", at.line))
}
