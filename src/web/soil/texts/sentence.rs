//! The sentences, without a language.

/// A text of Soil's pages, with the numbers and names that stand in it. The documentation of each variant is its English
/// form. What tasks say themselves (notes, errors, results) is none: the pages show it as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sentence<'a> {
    // The title of the browser's tab. It is also what readers of screens hear at the end.
    /// "Ready"
    TabReady,
    /// "Failed"
    TabFailed,
    /// "Cancelled"
    TabCancelled,
    /// "Not found"
    TabMissing,
    /// "40% - in progress"
    TabPercent(u8),
    /// "Waiting"
    TabWaiting,
    /// "In progress"
    TabRunning,

    // A task that waits or runs.
    /// "Waiting to start"
    WaitingToStart,
    /// "Working on it"
    Working,
    /// "Progress": the name of the bar, for readers of screens.
    Progress,
    /// "Processed 40%"
    Processed(u8),
    /// "(4 of 10 parts done)": of a group.
    PartsDone {
        /// The number of parts that are done.
        done: u64,
        /// The number of all parts.
        total: u64,
    },
    /// "(4 of 10)"
    StepsDone {
        /// The number of steps that are done.
        done: u64,
        /// The number of all steps.
        total: u64,
    },
    /// "(4 so far)": of a task that does not know how many there are.
    DoneSoFar(u64),
    /// "It runs, and has not said yet how far it is."
    NoProgressYet,
    /// "40 percent done": what readers of screens hear at each quarter.
    PercentDone(u8),
    /// "This page loads itself again every two seconds." It stands there if the browser runs no scripts.
    LoadsAgain,
    /// "Cancel": the button.
    Cancel,
    /// "It is the next to start." or "It is the next for its next turn."
    NextInLine {
        /// Whether the task has run before and waits for its next turn.
        again: bool,
    },
    /// "It waits to start: 3 others are before it in line."
    InLine {
        /// The number of tasks before it, at least 1.
        ahead: u64,
        /// Whether there may be more than that.
        or_more: bool,
        /// Whether the task has run before and waits for its next turn.
        again: bool,
    },
    /// "It starts at a later time, as was asked."
    WaitsForTime,
    /// "It is tried again by itself after a pause."
    WaitsForAttempt,
    /// "It waits until another one of the same kind is done."
    WaitsForOther,
    /// "It is held back for now, and starts by itself later."
    HeldBack,
    /// "It is likely to start in 2 to 5 minutes." or "It is likely to start within 5 minutes."
    StartsIn {
        /// The earlier end, in whole minutes or hours; 0: at any time from now.
        from: u64,
        /// The later end.
        to: u64,
        /// Whether these are hours.
        hours: bool,
    },
    /// "Its queue is paused. It goes on when somebody lets the queue go on." With the queue's name, if the program
    /// [shows them](crate::web::SoilPages::show_queue_names).
    QueuePaused(Option<&'a str>),
    /// "Its queue has stopped because of a fault. It goes on when that is mended."
    QueueHalted(Option<&'a str>),
    /// "Its queue has started nothing for 5 minutes. There may be something wrong with the system."
    QueueStuck {
        /// The queue's name, if the program shows it.
        queue: Option<&'a str>,
        /// How long nothing has started.
        minutes: u64,
    },

    // A task that is over.
    /// "Your file is ready." or "Your files are ready.", for this many files.
    FilesReady(u64),
    /// "Process complete.": of a task that made no file.
    Complete,
    /// "Download cases.csv"
    Download(&'a str),
    /// "1.5 kB": a size in bytes.
    Size(u64),
    /// "Results": the heading of what the task returned.
    Results,
    /// "What is missing": the heading of the errors of a group that tolerates some.
    WhatIsMissing,
    /// "Something went wrong"
    SomethingWrong,
    /// "What there is": the heading of the files of a group that failed.
    WhatThereIs,
    /// "Cancelled"
    CancelledTitle,
    /// "It was stopped before it was done."
    CancelledText,

    // The parts of a group. A part has a number from 1.
    /// "Parts": the heading.
    Parts,
    /// "Part 3: done"
    Part {
        /// The number of the part.
        part: u64,
        /// What is with it: one of the next sentences.
        state: &'a str,
    },
    /// "done"
    PartDone,
    /// "failed: row 3 has no name"
    PartFailed(&'a str),
    /// "cancelled"
    PartCancelled,
    /// "not known any more"
    PartMissing,
    /// "40%"
    PartPercent(u8),
    /// "waiting"
    PartWaiting,
    /// "at work"
    PartRunning,
    /// "Progress of part 3": the name of its bar, for readers of screens.
    ProgressOfPart(u64),
    /// "Part 3: row 7 has no name"
    ErrorOfPart {
        /// The number of the part.
        part: u64,
        /// The error, in the words of the task.
        error: &'a str,
    },
    /// "And 20 more parts have failed."
    MorePartsFailed(u64),
    /// "Pages of parts": the name of the links to other parts, for readers of screens.
    PagesOfParts,
    /// "Earlier parts"
    EarlierParts,
    /// "Later parts"
    LaterParts,
    /// "Parts 1 to 100 of 3001"
    PartsShown {
        /// The first part of this page.
        first: u64,
        /// The last part of this page.
        last: u64,
        /// The number of all parts.
        total: u64,
    },

    // Requests that get no page and no file.
    /// "Go back": the link on these pages.
    Back,
    /// "There is nothing here"
    UnknownTitle,
    /// "Nobody knows this download. Perhaps it was never started; please start it again."
    UnknownText,
    /// "This download has expired"
    GoneTitle,
    /// "Files are kept for a limited time. Please start it again."
    GoneText,
    /// "There is no file"
    NoFileTitle,
    /// "What was to make it has failed."
    NoFileFailed,
    /// "It is done, and made no file."
    NoFileMade,
    /// "It is not ready yet."
    NoFileYet,
    /// "This link has expired"
    LinkExpiredTitle,
    /// "Please ask for a new one where you got it."
    LinkExpiredText,
    /// "This link was taken back"
    LinkRevokedTitle,
    /// "It opens nothing any more. Please ask for a new one where you got it."
    LinkRevokedText,
    /// "This is not yours to see"
    DeniedTitle,
    /// "It belongs to somebody else, or the link is not complete."
    DeniedText,
    /// "Please log in"
    LogInTitle,
    /// "Who you are is not known any more."
    LogInText,
    /// "This link is broken"
    BrokenTitle,
    /// "The id in it is no text."
    BrokenId,
    /// "An id has 1 to 255 bytes, and no control characters."
    BrokenIdLength,
    /// "What follows the question mark cannot be read."
    BrokenQuery,
    /// "A part has a number, from 0."
    BrokenPart,
    /// "There is no such page"
    NoPageTitle,
    /// "The address leads nowhere."
    NoPageText,
    /// "That cannot be done here"
    WrongMethodTitle,
    /// "This address does not take such a request."
    WrongMethodText,
    /// "Too many are looking at once"
    CrowdedTitle,
    /// "It is not told as it changes, but on being asked: see `status`."
    CrowdedText,
    /// "It cannot be said right now"
    UnavailableTitle,
    /// "What you started goes on. Please try again in a moment."
    UnavailableText,
}
