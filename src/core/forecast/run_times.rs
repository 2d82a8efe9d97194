//! How long the runs of a queue or a pool have taken lately, by task, and draws of how long others will take.
//!
//! Invariants:
//! - It takes a bounded amount of memory: the last [`RECENT`] runs of each task, and which tasks the last [`MIX`] runs were
//!   of. Old runs are forgotten, so that a queue whose tasks become slower is not judged by how fast they were.
//! - Runs are drawn as often as they happen: first a task by how often it has run lately, then one of its runs.

use std::time::Duration;

use super::draws::Draws;
use crate::core::accounts::MOST_TASKS;

/// How many runs of a task are remembered.
const RECENT: usize = 64;
/// Of how many runs it is remembered which tasks they were of.
const MIX: usize = 512;
/// How much longer a run may be drawn to take than any run was seen to take: so many times its age.
const MOST_MORE: f64 = 19.0;

/// The run times of one queue, where a task is known by its place in the queue's [accounts](crate::core::accounts), or of one
/// [pool](crate::core::slots), where it is known by its number there.
#[derive(Clone, Debug, Default)]
pub(in crate::core) struct RunTimes {
    tasks: Vec<Recent<f32>>,
    mix: Recent<u16>,
    observed: u64,
}

/// The newest of what was added.
#[derive(Clone, Debug, Default)]
struct Recent<T> {
    all: Vec<T>,
    /// Where the next one goes when it is full.
    next: usize,
}

impl<T> Recent<T> {
    fn add(&mut self, one: T, most: usize) {
        if self.all.len() < most {
            self.all.push(one);
        } else if let Some(oldest) = self.all.get_mut(self.next) {
            *oldest = one;
            self.next = (self.next + 1) % most;
        }
    }
}

impl RunTimes {
    /// How many runs were ever recorded.
    pub(in crate::core) fn observed(&self) -> u64 {
        self.observed
    }

    /// Records that a run of this task took so long.
    pub(in crate::core) fn record(&mut self, task: usize, took: Duration) {
        // The accounts have one place more, for all other tasks.
        let task = task.min(MOST_TASKS);
        if self.tasks.len() <= task {
            self.tasks.resize_with(task + 1, Recent::default);
        }
        if let Some(recent) = self.tasks.get_mut(task) {
            recent.add(took.as_secs_f32(), RECENT);
        }
        self.mix.add(u16::try_from(task).unwrap_or(u16::MAX), MIX);
        self.observed = self.observed.saturating_add(1);
    }

    /// How many seconds the run of some task of this queue takes.
    pub(in crate::core) fn draw(&self, draws: &mut Draws) -> f64 {
        if self.mix.all.is_empty() {
            return 0.0;
        }
        let task = self.mix.all[draws.below(self.mix.all.len())];
        let seen = self.seen(usize::from(task));
        if seen.is_empty() { 0.0 } else { f64::from(seen[draws.below(seen.len())]) }
    }

    /// How many seconds a run of this task takes: as drawn from its own runs, or from all if none of its own was seen.
    pub(in crate::core) fn draw_of(&self, task: usize, draws: &mut Draws) -> f64 {
        let seen = self.seen(task.min(MOST_TASKS));
        if seen.is_empty() { self.draw(draws) } else { f64::from(seen[draws.below(seen.len())]) }
    }

    /// How many seconds a run of this task has left that goes on for this long: as drawn from the runs that took longer. A
    /// run that has outlived all of them is the likelier to go on, the older it is.
    pub(in crate::core) fn draw_rest(&self, task: usize, age: Duration, draws: &mut Draws) -> f64 {
        let age = age.as_secs_f64();
        let seen = self.seen(task.min(MOST_TASKS));
        let longer = seen.iter().filter(|took| f64::from(**took) > age).count();
        if longer > 0 {
            let drawn = draws.below(longer);
            let took = seen.iter().filter(|took| f64::from(**took) > age).nth(drawn).copied();
            return took.map_or(0.0, |took| f64::from(took) - age);
        }
        // Of a task that has not ended here yet, the others are the best guess.
        let of_others = if seen.is_empty() { self.draw(draws) } else { 0.0 };
        if of_others > age {
            return of_others - age;
        }
        let share = draws.share();
        age * (share / (1.0 - share)).min(MOST_MORE)
    }

    fn seen(&self, task: usize) -> &[f32] {
        self.tasks.get(task).map_or(&[][..], |recent| &recent.all[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_drawn_has_been_seen_and_what_is_old_is_forgotten() {
        let mut times = RunTimes::default();
        let mut draws = Draws::seeded(1);
        assert!(times.draw(&mut draws).abs() < f64::EPSILON && times.observed() == 0);
        for _ in 0..3 * RECENT {
            times.record(0, seconds(1));
        }
        for _ in 0..RECENT {
            times.record(0, seconds(9));
        }
        assert_eq!(times.observed(), 4 * RECENT as u64);
        assert!((0..500).all(|_| (times.draw(&mut draws) - 9.0).abs() < 1e-6));
    }

    #[test]
    fn the_rest_of_a_run_is_that_of_the_runs_that_took_longer() {
        let mut times = RunTimes::default();
        let mut draws = Draws::seeded(2);
        for took in [1, 2, 10, 20] {
            times.record(3, seconds(took));
        }
        let rests: Vec<f64> = (0..200).map(|_| times.draw_rest(3, seconds(5), &mut draws)).collect();
        let is = |rest: f64, expected: f64| (rest - expected).abs() < 1e-6;
        assert!(rests.iter().all(|rest| is(*rest, 5.0) || is(*rest, 15.0)), "{rests:?}");
        assert!(rests.iter().any(|rest| is(*rest, 5.0)) && rests.iter().any(|rest| is(*rest, 15.0)));
        // One that outlives all of them goes on for some time more, and not for ever.
        let rests: Vec<f64> = (0..200).map(|_| times.draw_rest(3, seconds(100), &mut draws)).collect();
        assert!(rests.iter().all(|rest| (0.0..=100.0 * MOST_MORE).contains(rest)), "{rests:?}");
        assert!(rests.iter().sum::<f64>() > 100.0);
        assert!((0..50).all(|_| [1.0, 2.0, 10.0, 20.0].contains(&times.draw_of(3, &mut draws))));
        assert!((0..50).all(|_| times.draw_of(7, &mut draws) >= 1.0));
        // Of a task that nobody has seen, the others are the guess.
        assert!((0..50).all(|_| times.draw_rest(7, seconds(0), &mut draws) >= 1.0));
    }

    #[test]
    fn tasks_are_drawn_as_often_as_they_run_and_odd_places_are_one() {
        let mut times = RunTimes::default();
        let mut draws = Draws::seeded(3);
        for _ in 0..90 {
            times.record(0, seconds(1));
        }
        for _ in 0..10 {
            times.record(usize::MAX, seconds(100));
        }
        let long = (0..2_000).filter(|_| times.draw(&mut draws) > 50.0).count();
        assert!((100..320).contains(&long), "{long} of 2,000 are to be about 200");
        assert_eq!(times.tasks.len(), MOST_TASKS + 1);
    }
}
