//! The mistakes of a catalogue, each with its position, the value at fault and what to do about it.

use std::fmt;

/// A position in the text of a catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The number of the line; the first is 1.
    pub line: usize,
    /// The column in characters; the first is 1.
    pub column: usize,
}

/// All mistakes that were found in one catalogue, in the order of the text. There is at least one.
///
/// It prints one line for each mistake: `celeriac.toml:12:1: unknown key "wokers" in queue "email_queue"; did you
/// mean "workers"?`.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CatalogueErrors {
    /// The name of the file, as given to the parser.
    pub file: String,
    /// The mistakes in the order of the text.
    pub errors: Vec<CatalogueError>,
}

/// One mistake in a catalogue. It prints as its position and the problem.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CatalogueError {
    /// Where the mistake is; `None` for a part without a position, such as a row that was built in code.
    pub position: Option<Position>,
    /// What is wrong, and what to do.
    pub problem: Problem,
}

/// The kinds of mistakes in a catalogue. The text of each says what to do.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file could not be read.
    #[error("cannot read the file: {reason}; check the path and who may read it")]
    Unreadable {
        /// The error of the operating system.
        reason: String,
    },
    /// The file is not UTF-8 text.
    #[error("byte 0x{byte:02x} is not UTF-8; save the file as UTF-8 text")]
    NotUtf8 {
        /// The first byte that is not UTF-8.
        byte: u8,
    },
    /// The text is not valid TOML.
    #[error("not valid TOML: {reason}; correct this first, nothing else could be checked")]
    Syntax {
        /// The error of the TOML parser.
        reason: String,
    },
    /// The table has a key that no such table may have.
    #[error("unknown key {} {place}; {advice}", quote(.key))]
    UnknownKey {
        /// The unknown key, as it was written.
        key: String,
        /// The table that has the key, as in `in queue "email_queue"`.
        place: String,
        /// What the author should write instead.
        advice: String,
    },
    /// The value has another type than its key takes.
    #[error("{} {place} must be {expected}, not {found}", quote(.key))]
    WrongType {
        /// The key whose value is wrong.
        key: String,
        /// The table that has the key, as in `in queue "email_queue"`.
        place: String,
        /// The type that the key takes, with an example.
        expected: String,
        /// A description of the value that is there.
        found: String,
    },
    /// The value has the right type and makes no sense.
    #[error("{} {place} is {value}; {advice}", quote(.key))]
    BadValue {
        /// The key whose value is wrong.
        key: String,
        /// The table that has the key, as in `in queue "email_queue"`.
        place: String,
        /// The value, as it was written.
        value: String,
        /// What the author should write instead.
        advice: String,
    },
    /// A row has no name.
    #[error("{place} has no name; add name = \"...\"")]
    MissingName {
        /// The row, as in `queue number 3`.
        place: String,
    },
    /// A row lacks a key that it needs.
    #[error("{place} has no {key}; add {key} = {example}")]
    MissingKey {
        /// The row, as in `route number 3`.
        place: String,
        /// The key that is missing.
        key: &'static str,
        /// An example of a value for the key.
        example: &'static str,
    },
    /// The broker would not take this name.
    #[error("the name {} of {what} {fault}", quote(.name))]
    BadName {
        /// The name that is wrong.
        name: String,
        /// The kind of thing that has the name, as in `a queue`.
        what: &'static str,
        /// What is wrong with the name, and what to do.
        fault: String,
    },
    /// There are two rows for one queue.
    #[error("queue {} is already declared{}; keep one of the two", quote(.name), on_line(.first))]
    DuplicateQueue {
        /// The name of the queue.
        name: String,
        /// Where the first row stands, if that is known.
        first: Option<Position>,
    },
    /// There are two periodic entries of one name.
    #[error("periodic entry {} is already declared{}; rename one of the two", quote(.name), on_line(.first))]
    DuplicatePeriodic {
        /// The name of the entries.
        name: String,
        /// Where the first entry stands, if that is known.
        first: Option<Position>,
    },
    /// The settings of a periodic entry are wrong or contradict each other.
    #[error("{place}: {fault}")]
    Periodic {
        /// The entry, as in `in periodic entry "invoices"`.
        place: String,
        /// What is wrong with the entry, and what to do.
        fault: String,
    },
    /// The settings of a limit contradict each other, or there are none.
    #[error("{place}: {fault}")]
    Limit {
        /// The limit, as in `limit number 3`.
        place: String,
        /// What is wrong with the limit, and what to do.
        fault: &'static str,
    },
    /// The rule of a brake contradicts itself, or has no condition.
    #[error("{place}: {fault}")]
    Brake {
        /// The brake, as in `in brake on "task a.*"`.
        place: String,
        /// What is wrong with the brake, and what to do.
        fault: String,
    },
    /// A row of a written load lacks something or contradicts itself.
    #[error("{place}: {fault}")]
    Arrival {
        /// The row, as in `arrival number 3`.
        place: String,
        /// What is wrong with the row, and what to do.
        fault: String,
    },
    /// An alias, a route, an environment or the default leads to a queue that does not exist.
    #[error("{subject} {}, but there is no such queue; {advice}", quote(.queue))]
    UnknownQueue {
        /// The part that refers to the queue, as in `route "a.b" leads to`.
        subject: String,
        /// The name that no queue has.
        queue: String,
        /// What the author should write instead.
        advice: String,
    },
    /// Some aliases lead to each other in a circle.
    #[error("aliases run in a circle: {}; let one of them lead to a queue", .circle.join(" -> "))]
    AliasLoop {
        /// The names in the order of the circle; the first name is also the last.
        circle: Vec<String>,
    },
    /// An alias has the name of a queue.
    #[error("alias {} has the name of a queue; rename the alias or remove it", quote(.name))]
    AliasShadowsQueue {
        /// The name that the alias and the queue have.
        name: String,
    },
    /// The program asked for an environment that the file does not have.
    #[error("unknown environment {}; {advice}", quote(.name))]
    UnknownEnvironment {
        /// The name of the environment that the program asked for.
        name: String,
        /// What to ask for instead.
        advice: String,
    },
}

crate::core::debug_as_display!(CatalogueErrors, CatalogueError, Problem);

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
            f.write_str(if error.position.is_some() { ":" } else { ": " })?;
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for CatalogueErrors {}

impl fmt::Display for CatalogueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.position {
            write!(f, "{at}: ")?;
        }
        write!(f, "{}", self.problem)
    }
}

impl std::error::Error for CatalogueError {}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A name in quotes, with control characters escaped, and cut so that it does not flood the line.
pub(super) fn quote(name: &str) -> String {
    format!("{:?}", shorten(name))
}

/// The first characters of a text, cut so that it does not flood an error.
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
