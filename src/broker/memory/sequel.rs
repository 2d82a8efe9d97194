//! What follows from the end of a task, in memory: under the same lock as the end itself.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Shared, State};
use crate::broker::Sequel;
use crate::broker::delivery::call_then;

impl Shared {
    /// What follows from an end, and from the ends that follow from it; the queues that got messages.
    pub(super) fn follow(self: &Arc<Self>, state: &mut State, sequel: Option<Sequel>) -> Vec<String> {
        let mut queues = Vec::new();
        let mut sequels = VecDeque::from_iter(sequel);
        while let Some(Sequel { messages, records, sizes, chords }) = sequels.pop_front() {
            sizes.iter().for_each(|chord| self.store.open(&chord.group, chord.size));
            for record in records {
                if !state.ids.contains_key(&record.id) {
                    self.store.insert(record);
                }
            }
            for message in messages {
                if !self.is_taken(state, &message.id) {
                    queues.push(message.queue.clone());
                    let due = message.eta;
                    self.arrive(state, Arc::new(message), due, false);
                }
            }
            for chord in chords {
                let group = chord.part.group.clone();
                if let Some(parts) = self.store.count(chord.part) {
                    self.store.close(&group);
                    sequels.extend(call_then(chord.then, parts));
                }
            }
        }
        queues.sort_unstable();
        queues.dedup();
        queues
    }
}
