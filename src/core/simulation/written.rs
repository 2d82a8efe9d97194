//! Loads that somebody has written down: so many tasks a second, or so many at once, with how long their runs take.
//!
//! Invariant: a seed decides all that is drawn, and each row draws from numbers of its own. So a row that is added or changed leaves
//! what the rows before it draw as it was.

use std::f64::consts::TAU;
use std::time::Duration;

use super::SimulationError;
use super::load::{LONGEST_RUN, MOST_ARRIVALS, SimulatedLoad, TaskArrival};
use crate::core::forecast::Draws;
use crate::core::{Timestamp, time};

/// How many standard deviations above the middle the p95 of a normal distribution is.
const P95: f64 = 1.644_853_626_951_472_2;

/// Tasks of one kind that come.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadRow {
    /// The name of their queue.
    pub queue: String,
    /// The name of the task.
    pub task: String,
    /// The tenant on whose behalf they run; empty: there is none.
    pub tenant: String,
    /// The priority of the tasks.
    pub priority: u8,
    /// From when they come, counted from the beginning of the load.
    pub from: Duration,
    /// The times at which the tasks come.
    pub coming: Coming,
    /// How long their runs take.
    pub takes: RunLength,
}

/// How the tasks of a row come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Coming {
    /// By chance and independently of each other (a Poisson process), so many in a second on average.
    Rate {
        /// How many, above 0.
        per_second: f64,
        /// Until when, counted from the beginning of the load.
        until: Duration,
    },
    /// All tasks of the row come at one moment.
    AtOnce {
        /// How many.
        count: u32,
    },
}

/// How long the runs of a row take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunLength {
    /// All take the same time.
    Fixed(Duration),
    /// Half of the runs take no longer than the median, and 95 of 100 no longer than the p95, in a lognormal distribution: most
    /// runs are short, and a few take much longer.
    Spread {
        /// The median, above 0.
        median: Duration,
        /// The p95, not below the median.
        p95: Duration,
    },
}

impl SimulatedLoad {
    /// Adds the tasks of written rows. `begin` is the beginning of the load.
    ///
    /// # Errors
    /// There are more tasks than a load may have.
    pub fn add_written(
        &mut self,
        rows: &[LoadRow],
        seed: u64,
        begin: Timestamp,
    ) -> Result<(), SimulationError> {
        let mut seeds = Draws::seeded(seed);
        for row in rows {
            let mut draws = Draws::seeded(seeds.number());
            match row.coming {
                Coming::AtOnce { count } => {
                    if usize::try_from(count).is_ok_and(|count| count > MOST_ARRIVALS) {
                        return Err(SimulationError::TooManyArrivals);
                    }
                    for _ in 0..count {
                        self.add_of(row, begin + row.from, &mut draws)?;
                    }
                }
                Coming::Rate { per_second, until } => {
                    let seconds = until.saturating_sub(row.from).as_secs_f64();
                    // What is far too much is refused before anything is drawn.
                    if per_second * seconds > 2.0 * MOST_ARRIVALS as f64 {
                        return Err(SimulationError::TooManyArrivals);
                    }
                    let mut at = draws.exponential() / per_second;
                    while at < seconds {
                        let after = time::seconds(at).unwrap_or_default();
                        self.add_of(row, begin + row.from + after, &mut draws)?;
                        at += draws.exponential() / per_second;
                    }
                }
            }
        }
        Ok(())
    }

    fn add_of(&mut self, row: &LoadRow, at: Timestamp, draws: &mut Draws) -> Result<(), SimulationError> {
        self.add(TaskArrival {
            at,
            queue: &row.queue,
            task: &row.task,
            tenant: &row.tenant,
            priority: row.priority,
            takes: row.takes.draw(draws),
            waited: None,
            is_again: false,
        })
    }
}

impl RunLength {
    fn draw(self, draws: &mut Draws) -> Duration {
        match self {
            Self::Fixed(takes) => takes,
            Self::Spread { median, p95 } => {
                let (median, p95) = (median.as_secs_f64(), p95.as_secs_f64());
                let sigma = (p95 / median).ln() / P95;
                let drawn = median * (sigma * normal(draws)).exp();
                time::seconds(drawn).unwrap_or(LONGEST_RUN).min(LONGEST_RUN)
            }
        }
    }
}

/// A number of the normal distribution with mean 0 and deviation 1, by the method of Box and Muller.
fn normal(draws: &mut Draws) -> f64 {
    let length = (2.0 * draws.exponential()).sqrt();
    length * (TAU * draws.share()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn row(coming: Coming, takes: RunLength) -> LoadRow {
        let (queue, task) = ("q".to_owned(), "t".to_owned());
        LoadRow { queue, task, tenant: String::new(), priority: 0, from: 10 * SECOND, coming, takes }
    }

    fn load(rows: &[LoadRow], seed: u64) -> SimulatedLoad {
        let mut load = SimulatedLoad::default();
        load.add_written(rows, seed, Timestamp::ZERO).expect("a load");
        load
    }

    #[test]
    fn what_is_drawn_has_the_rate_and_the_percentiles_that_are_stated() {
        let coming = Coming::Rate { per_second: 20.0, until: 1_010 * SECOND };
        let load = load(&[row(coming, RunLength::Spread { median: 2 * SECOND, p95: 10 * SECOND })], 1);
        let count = load.len() as f64;
        assert!((count - 20_000.0).abs() < 600.0, "{count}");
        let mut takes: Vec<Duration> = load.iter().map(|arrival| arrival.takes).collect();
        takes.sort_unstable();
        let (p50, p95) = (takes[takes.len() / 2].as_secs_f64(), takes[takes.len() * 95 / 100].as_secs_f64());
        assert!((p50 - 2.0).abs() < 0.15 && (p95 - 10.0).abs() < 1.0, "{p50} {p95}");
        let (first, last) = load.span().expect("arrivals");
        assert!(first.as_millis() >= 10_000 && last.as_millis() < 1_010_000);
    }

    #[test]
    fn a_seed_decides_a_load_and_a_row_leaves_those_before_it_alone() {
        let rate = Coming::Rate { per_second: 5.0, until: 60 * SECOND };
        let spread = RunLength::Spread { median: SECOND, p95: 3 * SECOND };
        let rows = [row(rate, spread), row(Coming::AtOnce { count: 7 }, RunLength::Fixed(SECOND))];
        let both = load(&rows, 7);
        assert_eq!(both, load(&rows, 7));
        assert_ne!(both, load(&rows, 8));
        let one = load(&rows[..1], 7);
        assert!(one.iter().eq(both.iter().take(one.len())));
        let burst: Vec<_> = both.iter().skip(one.len()).map(|arrival| (arrival.at, arrival.takes)).collect();
        assert_eq!(burst, [(Timestamp::from_millis(10_000), SECOND); 7]);
    }

    #[test]
    fn too_much_is_refused_at_once_and_odd_rows_make_no_task() {
        let until = 1_000_000 * SECOND;
        for coming in
            [Coming::Rate { per_second: 1e9, until }, Coming::AtOnce { count: MOST_ARRIVALS as u32 + 1 }]
        {
            let mut load = SimulatedLoad::default();
            let rows = [row(coming, RunLength::Fixed(SECOND))];
            assert_eq!(load.add_written(&rows, 1, Timestamp::ZERO), Err(SimulationError::TooManyArrivals));
        }
        let over = Coming::Rate { per_second: 5.0, until: SECOND };
        assert!(load(&[row(over, RunLength::Fixed(SECOND))], 1).is_empty(), "it ends before it begins");
        let endless = RunLength::Spread { median: SECOND, p95: Duration::MAX };
        let drawn = load(&[row(Coming::AtOnce { count: 100 }, endless)], 1);
        assert!(drawn.iter().all(|arrival| arrival.takes <= LONGEST_RUN));
    }
}
