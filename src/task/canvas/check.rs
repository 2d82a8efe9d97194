//! What is wrong with a canvas before anything of it is sent. A worker that comes to it later can only fail it.

use super::node::{Kind, Node};
use crate::task::EnqueueError;

/// How deep a canvas may be nested. Whoever reads its JSON gives up at 128 brackets, and a level takes up to four.
const DEPTH: usize = 28;

/// Says whether a task may go to that queue, or to its own if none is named.
type CheckQueue<'a> = dyn Fn(&str, Option<&str>) -> Result<(), EnqueueError> + 'a;

impl Node {
    /// # Errors
    /// A queue that is not known, a chain or a body without a task, or too many levels.
    pub(crate) fn check(&self, queue: &CheckQueue<'_>) -> Result<(), EnqueueError> {
        self.check_at(0, queue)
    }

    fn check_at(&self, depth: usize, queue: &CheckQueue<'_>) -> Result<(), EnqueueError> {
        let wrong = |text: &str| Err(EnqueueError::Canvas(text.to_owned()));
        if depth > DEPTH {
            return wrong(&format!(
                "it is nested more than {DEPTH} levels deep; make one chain of the steps, or send the inner part from a task"
            ));
        }
        match &self.kind {
            Kind::Task { name, .. } if name.is_empty() => return wrong("a task in it has no name"),
            Kind::Task { name, .. } => {
                if let wanted @ Some(_) = self.options.text("queue") {
                    queue(name, wanted)?;
                }
            }
            Kind::Chain(steps) if steps.is_empty() => return wrong("a chain in it has no step"),
            Kind::Chain(nodes) | Kind::Group(nodes) => {
                if self.options.text("queue").is_some() {
                    queue(self.name(), self.options.text("queue"))?;
                }
                nodes.iter().try_for_each(|node| node.check_at(depth + 1, queue))?;
            }
            Kind::Chord(chord) => {
                chord.header.check_at(depth + 1, queue)?;
                chord.body.check_at(depth + 1, queue)?;
            }
        }
        let options = &self.options;
        let links = options.link.iter().chain(&options.link_error).chain(options.chord.as_deref());
        let mut all = links.chain(options.chain.iter().flatten());
        all.try_for_each(|node| node.check_at(depth + 1, queue))
    }

    /// Whether a task or group in it has an id already.
    pub(crate) fn has_ids(&self) -> bool {
        self.id().is_some()
            || match &self.kind {
                Kind::Task { .. } => false,
                Kind::Chain(nodes) | Kind::Group(nodes) => nodes.iter().any(Self::has_ids),
                Kind::Chord(chord) => chord.header.has_ids() || chord.body.has_ids(),
            }
    }
}
