//! Takes the steps of a commit, that is what publishes and settlements do to lanes and unique windows, when it is
//! written.

use super::engine::Engine;
use super::lanes::{LaneBatch, LaneStep, Newcoming};
use super::tables::Tables;
use crate::broker::BrokerError;

impl Engine {
    /// Works out which rows the steps of this commit change.
    pub(super) fn take_steps(&mut self, batch: &mut LaneBatch, tables: &Tables) -> Result<(), BrokerError> {
        // A commit that fails is removed from the journal by its sequence, which must differ from that of the
        // commit before, even if it fails here. Without steps nothing fails before `stage_meta` counts on.
        self.seq += 1;
        let mut kept = Vec::with_capacity(self.commit.steps.len());
        for step in std::mem::take(&mut self.commit.steps) {
            match self.take_step(batch, tables, &step) {
                Ok(()) => kept.push(step),
                Err(error) => self.give_up_step(step, error),
            }
        }
        self.commit.steps = kept;
        self.finish_lanes(batch)
    }

    fn take_step(
        &mut self,
        batch: &mut LaneBatch,
        tables: &Tables,
        step: &LaneStep,
    ) -> Result<(), BrokerError> {
        match step {
            LaneStep::Release { lane, id, block } => {
                self.release_lane(batch, tables, lane, id, block.clone())
            }
            LaneStep::ReleaseWindow { key, id } => batch.unique_windows.release(tables, key, id),
            LaneStep::Arrive(Newcoming { queue, message, row, is_new, .. }) => {
                let joined = match is_new {
                    true => self.arrive(batch, tables, *queue, message, row)?,
                    false => self.pass_lane(batch, tables, *queue, message, row, false)?,
                };
                batch.joined.push(joined);
                Ok(())
            }
        }
    }

    /// Gives up a step whose lane or window cannot be read, and not the whole commit with the work of others in
    /// it: a step that failed once would fail each time. Such a step has changed nothing before it fails.
    fn give_up_step(&mut self, step: LaneStep, error: BrokerError) {
        // What is written in place of the step is kept if the commit fails, as settlements are.
        let mut writes = std::mem::take(&mut self.commit.settlements);
        match step {
            LaneStep::Release { lane, id, .. } => {
                tracing::error!(?lane, %id, %error, "a lane cannot be read, so that a run is over is not noted there, and who waits in it goes on waiting");
            }
            LaneStep::ReleaseWindow { key, id } => {
                tracing::error!(?key, %id, %error, "a unique window cannot be read; it passes by itself");
            }
            LaneStep::Arrive(Newcoming { is_kept: false, reply, message, .. }) => match reply {
                Some(reply) => drop(reply.send(Err(error))),
                // The message is one of several that are sent together, and the last one answers for all.
                None => self.fails(&mut writes, message, &error),
            },
            LaneStep::Arrive(Newcoming { message, .. }) => self.fails(&mut writes, message, &error),
        }
        self.commit.settlements = writes;
    }
}
