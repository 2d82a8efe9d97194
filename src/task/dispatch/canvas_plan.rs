//! The messages of a canvas that a caller sends, or that a task adds to its chord.

use std::collections::HashSet;

use super::{Dispatcher, ParentTask};
use crate::task::canvas::{
    Addition, Call, CanvasPosition, Freezer, Ids, Launch, Node, Promise, SignatureError, addition,
};
use crate::task::{Arguments, EnqueueError, Headers, Message, RawSignature};

/// A canvas that is ready to be sent.
pub(crate) struct CanvasPlan {
    pub(crate) messages: Vec<Message>,
    /// The ids of its chords, each with the number of its parts.
    pub(crate) sizes: Vec<(String, u64)>,
    pub(crate) promise: Promise,
    /// Whether the caller has given ids, which then must not be taken already.
    pub(crate) unique: bool,
}

impl Dispatcher {
    /// Makes the messages that are sent when a canvas starts.
    ///
    /// # Errors
    /// The canvas is not sound, or a task in it fails for a reason that [`message`](Self::message) names.
    pub(crate) fn plan_canvas(&self, canvas: RawSignature) -> Result<CanvasPlan, EnqueueError> {
        let refused = |error: SignatureError| EnqueueError::Canvas(error.to_string());
        let mut node = Node::from_raw(canvas).map_err(refused)?;
        self.check(&node)?;
        // Freezing gives ids to all, so the caller's own ids are looked for before it.
        let unique = node.has_ids();
        let mut freezer = Freezer { ids: Ids::Fresh, reply_to: self.reply_to.clone() };
        let parent = ParentTask::current();
        let mut launch = Launch::within(self.limits).each_with(parent.trace.inherited_bytes());
        // A node that was frozen once stays as it is: `launch.add` below freezes again and gets the same ids.
        let _ = freezer.freeze(&mut node, CanvasPosition::default());
        node.check_unique().map_err(refused)?;
        // The promise notes tasks that keep no result, so that a caller does not wait for one in vain.
        let mut ignored = HashSet::new();
        node.ignored(
            &|task| self.registry.get(task).is_some_and(|task| (task.options)().ignore_result),
            &mut ignored,
        );
        let mut promise = launch.add(node, Vec::new(), None, &mut freezer);
        promise.ignore(&ignored);
        launch.check().map_err(refused)?;
        let messages = self.firsts(launch.calls, &parent)?;
        Ok(CanvasPlan { messages, sizes: launch.chords, promise, unique })
    }

    /// Makes the messages that add a canvas to the chord of `member`, as the `nth` that this run adds. Also answers
    /// with the chord's id.
    ///
    /// # Errors
    /// A reason that [`plan_canvas`](Self::plan_canvas) has, or the task is no member of a chord.
    pub(crate) fn plan_chord_member(
        &self,
        member: &Message,
        canvas: RawSignature,
        nth: u32,
    ) -> Result<(String, CanvasPlan), EnqueueError> {
        let refused = |error: SignatureError| EnqueueError::Canvas(error.to_string());
        let node = Node::from_raw(canvas).map_err(refused)?;
        self.check(&node)?;
        let Addition { group, launch, promise } =
            addition(member, node, nth, self.limits).map_err(refused)?;
        let mut origin =
            ParentTask { stamped_headers: Vec::new(), stamps: Headers::default(), ..ParentTask::of(member) };
        // The run that adds it is that of the member.
        let mut trace = ParentTask::current().trace;
        trace.inherit_trace(&origin.trace);
        origin.trace = trace;
        let messages = self.firsts(launch.calls, &origin)?;
        Ok((group, CanvasPlan { messages, sizes: launch.chords, promise, unique: true }))
    }

    /// Finds what is wrong with a canvas before anything of it is sent.
    fn check(&self, node: &Node) -> Result<(), EnqueueError> {
        let queue =
            |task: &str, queue: Option<&str>| self.route.queue(task, queue, &Arguments::default()).map(drop);
        node.check(&queue, self.limits, self.max_message_size)?;
        self.check_broadcasts(node, false)
    }

    fn firsts(&self, calls: Vec<Call>, origin: &ParentTask) -> Result<Vec<Message>, EnqueueError> {
        calls.into_iter().map(|call| self.first(call, origin)).collect()
    }

    /// Makes the message of a call in a canvas that a caller sends.
    pub(super) fn first(&self, call: Call, origin: &ParentTask) -> Result<Message, EnqueueError> {
        let known = self.registry.get(&call.task);
        let (call, workflow) = self.read(call, known, origin);
        // The message has no unique window: a caller who waits for a part that was left out would wait in vain.
        let mut message = self.message_of(call, known)?;
        message.workflow = workflow;
        if self.route.is_broadcast(&message.queue) {
            self.check_broadcast(&message)?;
        }
        Ok(message)
    }
}
