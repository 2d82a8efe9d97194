//! What follows from the end of a task in memory: it is done under the same lock as the end itself.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{MemoryInner, MemoryState};
use crate::broker::FollowUps;
use crate::broker::delivery::call_then;

impl MemoryInner {
    /// Does what follows from an end, and from the ends that follow from it. The queues that got messages are stirred.
    pub(super) fn follow(self: &Arc<Self>, state: &mut MemoryState, follow_ups: Option<FollowUps>) {
        let Some(follow_ups) = follow_ups else { return };
        let mut follow_ups = VecDeque::from([follow_ups]);
        while let Some(FollowUps { messages, records, sizes, chords }) = follow_ups.pop_front() {
            sizes.iter().for_each(|chord| self.store.open(&chord.group, chord.size));
            for record in records {
                if !state.entries.knows(&record.id) {
                    self.store.insert(record);
                }
            }
            for message in messages {
                if !self.is_taken(state, &message.id) {
                    let queue = state.queue(&message.queue);
                    state.stir(queue);
                    let due = message.eta;
                    self.arrive(state, Arc::new(message), queue, due, false);
                }
            }
            for chord in chords {
                let group = chord.part.group.clone();
                if let Some(parts) = self.store.count(chord.part) {
                    self.store.close(&group);
                    follow_ups.extend(call_then(chord.then, parts));
                }
            }
        }
    }
}
