//! Why a brake is refused.

use super::{MOST_BRAKES, Timestamp};
use crate::core::text::shortened;

/// The most bytes of a value in an error.
const SHOWN: usize = 100;

/// Why a brake is refused. The text says what to do.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BrakeError {
    /// The rule has no condition.
    #[error(
        "the rule of the brake has no condition, so it would be about every task: name a task, a queue, a tenant or an argument; if every task is meant, say so: BrakeRule::all(), `--all`, or `all = true`"
    )]
    NoCondition,
    /// The rule says that all tasks are meant, and has conditions.
    #[error(
        "the rule of the brake says that all tasks are meant, and has conditions as well: leave one of the two out"
    )]
    AllWithConditions,
    /// A field has a value that makes no sense.
    #[error("`{field}` of a brake is {value:?}: {advice}")]
    Field {
        /// The name of the field.
        field: &'static str,
        /// The value, shortened.
        value: String,
        /// What to write instead.
        advice: String,
    },
    /// There is no such queue.
    #[error("`{field}` of a brake is \"{queue}\", but there is no such queue{hint}")]
    UnknownQueue {
        /// The name of the field.
        field: &'static str,
        /// The name that no queue has.
        queue: String,
        /// What may have been meant.
        hint: String,
    },
    /// The end of the brake is over.
    #[error("the brake would end at {until}, which is over: state a later time, or none")]
    Over {
        /// The stated end.
        until: Timestamp,
    },
    /// There are too many brakes.
    #[error(
        "there are {} brakes already: take one away first, or have one rule take the place of several",
        MOST_BRAKES
    )]
    TooMany,
    /// The brake stands in the catalogue.
    #[error("brake `{0}` stands in the catalogue: take its [[brake]] out of the file, or change it there")]
    Standing(String),
}

crate::core::debug_as_display!(BrakeError);

impl BrakeError {
    pub(crate) fn field(field: &'static str, value: &str, advice: &str) -> Self {
        Self::Field { field, value: shortened(value, SHOWN).into_owned(), advice: advice.to_owned() }
    }
}
