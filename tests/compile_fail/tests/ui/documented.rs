//! Everything that `#[task]` writes is documented and safe: the one error here is ours.
#![deny(missing_docs, warnings)]
#![forbid(unsafe_code)]

/// Tasks.
pub mod email {
    use celeriac::{Context, TaskError, task};

    /// An io task.
    #[task(retry_if = is_busy)]
    pub async fn send_email(_user: u64) -> Result<(), TaskError> {
        Ok(())
    }

    /// A cpu task.
    #[task(max_retries = 0)]
    pub fn compute(_ctx: &Context, n: u64) -> u64 {
        n
    }

    #[task]
    fn private(n: u64) -> u64 {
        n
    }

    fn is_busy(_: &TaskError) -> bool {
        true
    }
}

pub fn undocumented() {}

fn main() {}
