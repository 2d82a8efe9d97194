//! Examples that read as documentation, then random histories against the plain meaning of a limit.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::core::Timestamp;
use crate::core::calendar::LocalDay;

const SECOND: Duration = Duration::from_secs(1);

/// Noon of 2026-11-30, UTC.
const NOON: Timestamp = Timestamp::from_millis(1_796_040_000_000);

fn at(passed: Duration) -> LimitClock {
    LimitClock { wall: NOON + passed, steady: passed }
}

fn start(limiter: &mut StartLimiter, key: &str, now: LimitClock) -> Result<LimitedStart, Refused> {
    let key = limiter.key(key, now);
    limiter.check(&key, now)?;
    Ok(limiter.start(key, now).0)
}

fn rate(text: &str) -> Option<RateLimit> {
    RateLimit::parse(text).expect("a rate")
}

fn here(limit: StartLimit) -> StartLimiter {
    StartLimiter::new(limit, LimitKeeping::default())
}

#[test]
fn each_key_has_its_own_rate() {
    let mut limiter = here(StartLimit { rate: rate("2/s"), ..StartLimit::default() });
    assert!(start(&mut limiter, "a", at(Duration::ZERO)).is_ok());
    let refused = start(&mut limiter, "a", at(Duration::ZERO)).unwrap_err();
    assert_eq!(refused.by, LimitedBy::Rate("2/s".to_owned()));
    assert!(refused.wait.is_some_and(|wait| wait <= SECOND / 2 + Duration::from_millis(1)));
    let looked = |key| limiter.look(key, at(Duration::ZERO));
    assert_eq!((looked("a").map_err(|refused| refused.wait), looked("b")), (Err(refused.wait), Ok(())));
    assert!(start(&mut limiter, "b", at(Duration::ZERO)).is_ok());
    assert!(start(&mut limiter, "a", at(SECOND)).is_ok());
    // A check counts nothing.
    let key = limiter.key("b", at(SECOND));
    assert!(limiter.check(&key, at(SECOND)).is_ok() && start(&mut limiter, "b", at(SECOND)).is_ok());
    limiter.set_rate(rate("1/h"));
    assert!(start(&mut limiter, "a", at(SECOND)).is_ok());
    assert!(start(&mut limiter, "a", at(60 * SECOND)).is_err());
    limiter.set_rate(None);
    assert!(start(&mut limiter, "a", at(60 * SECOND)).is_ok());
}

#[test]
fn a_place_comes_back_whatever_the_run_came_to() {
    let mut limiter = here(StartLimit { max_running: Some(2), ..StartLimit::default() });
    let now = at(Duration::ZERO);
    for end in [RunEnd::Success, RunEnd::Failure, RunEnd::Other, RunEnd::NotRun] {
        let first = start(&mut limiter, "a", now).unwrap();
        let second = start(&mut limiter, "a", now).unwrap();
        let refused = start(&mut limiter, "a", now).unwrap_err();
        assert_eq!(refused, Refused::by(LimitedBy::Running(2), None));
        assert!(start(&mut limiter, "b", now).is_ok_and(|start| limiter.end(&start, end, now)));
        assert!(limiter.end(&first, end, now) && limiter.end(&second, end, now));
    }
}

#[test]
fn a_day_is_one_of_the_clock_and_what_did_not_run_does_not_count() {
    let zone = "Africa/Nairobi".parse().unwrap();
    let mut limiter = here(StartLimit { daily: Some(2), zone, ..StartLimit::default() });
    let first = start(&mut limiter, "a", at(Duration::ZERO)).unwrap();
    assert!(start(&mut limiter, "a", at(Duration::ZERO)).is_ok());
    // It is three in the afternoon in Nairobi, so the day has nine hours left.
    let refused = start(&mut limiter, "a", at(SECOND)).unwrap_err();
    assert_eq!(refused, Refused::by(LimitedBy::Daily(2), Some(9 * 3600 * SECOND - SECOND)));
    assert!(limiter.end(&first, RunEnd::NotRun, at(SECOND)));
    assert!(start(&mut limiter, "a", at(SECOND)).is_ok());
    assert!(start(&mut limiter, "a", at(SECOND)).is_err());
    assert!(start(&mut limiter, "a", at(9 * 3600 * SECOND)).is_ok(), "it is another day");
}

/// What a process takes ahead is not more than what the store has, and what it did not use goes back.
#[test]
fn shares_of_a_day_come_from_the_store() {
    let limit = StartLimit { daily: Some(50), ..StartLimit::default() };
    let mut limiter = StartLimiter::new(limit, LimitKeeping { days: true, ..LimitKeeping::default() });
    let now = at(Duration::ZERO);
    let day = LocalDay::at(now.wall, Zone::UTC);
    let refused = start(&mut limiter, "a", now).unwrap_err();
    assert_eq!(refused.question, Some(LimitQuestion::Day { day, cap: 50, share: 2 }));
    assert_eq!(refused.by, LimitedBy::Unanswered);
    assert_eq!(start(&mut limiter, "a", now).unwrap_err().question, None, "it was asked");
    let key = LimitKey::Own("a".into());
    limiter.answer_day(&key, day, None, now);
    assert_eq!(start(&mut limiter, "a", now).unwrap_err().question, None, "not at once");
    assert!(start(&mut limiter, "a", at(SECOND)).unwrap_err().question.is_some());
    limiter.answer_day(&key, day, Some(2), at(SECOND));
    assert!(start(&mut limiter, "a", at(SECOND)).is_ok());
    assert_eq!(limiter.take_unused_days(), [(key.clone(), day, 1)]);
    assert!(start(&mut limiter, "a", at(SECOND)).unwrap_err().question.is_some());
    limiter.answer_day(&key, day, Some(0), at(SECOND));
    assert_eq!(start(&mut limiter, "a", at(SECOND)).unwrap_err().by, LimitedBy::Daily(50));
}

/// The limiter asks before it has nothing left, and starts at the times that it was given.
#[test]
fn starts_of_a_shared_rate_are_taken_ahead() {
    let limit = StartLimit { rate: rate("8/s"), ..StartLimit::default() };
    let mut limiter = StartLimiter::new(limit, LimitKeeping { rate: true, ..LimitKeeping::default() });
    let (interval, ahead) = (SECOND / 8, SECOND / 2);
    let refused = start(&mut limiter, "a", at(Duration::ZERO)).unwrap_err();
    assert_eq!(refused.question, Some(LimitQuestion::Rate { interval, starts: 4, ahead }));
    let key = LimitKey::Own("a".into());
    limiter.answer_rate(&key, Some((4, Duration::ZERO)), at(Duration::ZERO));
    let mut questions = 0;
    for n in 0..4 {
        let early = interval * n;
        if n > 0 {
            assert!(start(&mut limiter, "a", at(early - Duration::from_millis(1))).is_err(), "{n}");
        }
        limiter.check(&key, at(early)).unwrap();
        questions += usize::from(limiter.start(key.clone(), at(early)).1.is_some());
    }
    assert_eq!(questions, 1);
    // Nobody else has asked for the times behind these.
    limiter.answer_rate(&key, Some((4, interval)), at(interval * 3));
    assert!(start(&mut limiter, "a", at(interval * 3)).is_err());
    assert!(start(&mut limiter, "a", at(interval * 4)).is_ok());
    // What is not used within a second is lost.
    let refused = start(&mut limiter, "a", at(10 * SECOND)).unwrap_err();
    assert!(refused.question.is_some());
    limiter.answer_rate(&key, Some((0, SECOND)), at(10 * SECOND));
    let refused = start(&mut limiter, "a", at(10 * SECOND)).unwrap_err();
    assert_eq!(refused, Refused::by(LimitedBy::Rate("8/s".to_owned()), Some(SECOND)));
}

#[test]
fn keys_are_bounded_and_idle_ones_make_room() {
    let limit = StartLimit { rate: rate("1/m"), max_running: Some(1), ..StartLimit::default() };
    let mut limiter = here(limit);
    let mut running = Vec::new();
    let mut started = 0;
    for n in 0..3 * MOST_KEYS {
        if let Ok(start) = start(&mut limiter, &n.to_string(), at(Duration::ZERO)) {
            started += 1;
            running.push(start);
        }
    }
    assert!(limiter.len() <= MOST_KEYS + 1_024 && started == limiter.len(), "{started} of {}", limiter.len());
    running.iter().for_each(|start| assert!(limiter.end(start, RunEnd::Success, at(SECOND))));
    // What a key has started with others still counts for it, and for them.
    assert!(start(&mut limiter, &(MOST_KEYS + 500).to_string(), at(SECOND)).is_err());
    assert!(start(&mut limiter, "new", at(61 * SECOND)).is_ok());
    assert!(limiter.len() <= 2, "{}", limiter.len());
}

#[test]
fn a_limit_says_what_it_allows() {
    let limit = StartLimit {
        rate: rate("8/s"),
        max_running: Some(3),
        daily: Some(1000),
        hours: Some(AllowedHours::new("09:00-21:00", Some("mon-fri")).unwrap()),
        breaker: Some(Breaker::default()),
        ..StartLimit::default()
    };
    assert_eq!(
        limit.to_string(),
        "8/s, 3 at a time in each process, 1000 a day, 09:00-21:00 mon-fri, by the clocks of UTC, a pause of 60s up to 3600s after 5 errors of 10 runs"
    );
    assert!(StartLimit::default().is_empty() && !limit.is_empty() && limit.fault().is_none());
    let nothing = StartLimit { daily: Some(0), ..StartLimit::default() };
    assert_eq!(nothing.fault().map(|(name, ..)| name), Some("daily"));
}

/// The zones in which the steps below meet a change of the clocks, one of them at midnight.
const ZONES: [&str; 4] = ["UTC", "Europe/Berlin", "America/Havana", "Australia/Lord_Howe"];

#[derive(Clone, Debug)]
enum LimitStep {
    Start(u8),
    End(usize, RunEnd),
    /// Lets this many milliseconds pass.
    Pass(u64),
}

fn step() -> impl Strategy<Value = LimitStep> {
    let end = prop::sample::select(vec![RunEnd::Success, RunEnd::Failure, RunEnd::Other, RunEnd::NotRun]);
    prop_oneof![
        6 => (0u8..3).prop_map(LimitStep::Start),
        3 => (0usize..8, end).prop_map(|(at, end)| LimitStep::End(at, end)),
        3 => (1u64..2_000).prop_map(LimitStep::Pass),
        1 => (1u64..20_000_000).prop_map(LimitStep::Pass),
    ]
}

proptest! {
    /// Whatever happens, and whatever the clocks do: of one key no more runs are under way than may be, no more start in
    /// any span of time than the rate allows and one, and no more on a local day than its cap, and only within the hours.
    #[test]
    fn a_limit_is_kept(
        zone in prop::sample::select(ZONES.to_vec()),
        // The nights in which Europe, Cuba and Lord Howe change their clocks, and some other one.
        night in prop::sample::select(vec![1_774_742_400u64, 1_793_491_200, 1_772_928_000, 1_791_048_600, 1_796_040_000]),
        (most, cap) in (1u32..4, 1u32..6),
        is_timed in any::<bool>(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let zone: Zone = zone.parse().unwrap();
        let hours = is_timed.then(|| AllowedHours::new("22:00-03:30", None).unwrap());
        let limit = StartLimit {
            rate: rate("1/s"),
            max_running: Some(most),
            daily: Some(cap),
            hours: hours.clone(),
            zone,
            ..StartLimit::default()
        };
        let mut limiter = here(limit);
        let begin = Timestamp::from_millis((night - 6 * 3600) * 1_000);
        let mut passed = Duration::ZERO;
        let mut running: Vec<(u8, LimitedStart)> = Vec::new();
        let mut starts: HashMap<u8, Vec<Duration>> = HashMap::new();
        let mut days: HashMap<(u8, LocalDay), u32> = HashMap::new();
        for step in steps {
            let now = LimitClock { wall: begin + passed, steady: passed };
            match step {
                LimitStep::Pass(millis) => passed += Duration::from_millis(millis),
                LimitStep::End(at, end) if !running.is_empty() => {
                    let (key, ended) = running.swap_remove(at % running.len());
                    limiter.end(&ended, end, now);
                    if end == RunEnd::NotRun {
                        let day = ended.day.unwrap();
                        *days.get_mut(&(key, day)).unwrap() -= 1;
                    }
                }
                LimitStep::End(..) => {}
                LimitStep::Start(key) => {
                    let day = LocalDay::at(now.wall, zone);
                    let mine = || running.iter().filter(|(other, _)| *other == key).count();
                    let may = mine() < most as usize
                        && days.get(&(key, day)).copied().unwrap_or(0) < cap
                        && hours.as_ref().is_none_or(|hours| hours.is_open(zone, now.wall))
                        && starts.get(&key).and_then(|starts| starts.last()).is_none_or(|last| passed - *last >= SECOND);
                    match start(&mut limiter, &key.to_string(), now) {
                        Ok(begun) => {
                            prop_assert!(may, "it may not start");
                            running.push((key, begun));
                            starts.entry(key).or_default().push(passed);
                            *days.entry((key, day)).or_default() += 1;
                        }
                        Err(refused) => {
                            prop_assert!(!may, "{:?}", refused);
                            prop_assert!(refused.question.is_none());
                        }
                    }
                }
            }
        }
        for starts in starts.values() {
            for (first, at) in starts.iter().enumerate() {
                let within = |span: Duration| starts[first..].iter().filter(|start| **start - *at <= span).count();
                for seconds in [1u32, 5, 60] {
                    prop_assert!(within(SECOND * seconds) as u32 <= seconds + 1);
                }
            }
        }
    }

    /// Of several processes that take their starts from one store, all together keep to the rate, but for what each of them
    /// takes at a time.
    #[test]
    fn a_shared_rate_is_kept_by_all(
        text in prop::sample::select(vec!["1/s", "8/s", "50/s", "30/m"]),
        steps in prop::collection::vec((0usize..3, 1u64..400), 1..200),
    ) {
        let limit = rate(text).unwrap();
        let (interval, batch) = (limit.interval(), token_lease::batch(&limit));
        let keeping = LimitKeeping { rate: true, ..LimitKeeping::default() };
        let make = || StartLimiter::new(StartLimit { rate: Some(limit.clone()), ..StartLimit::default() }, keeping);
        let mut processes = [make(), make(), make()];
        // The store gives away one time after the other, some way ahead.
        let mut next = Duration::ZERO;
        let mut answer = |question: LimitQuestion, now: Duration| {
            let LimitQuestion::Rate { interval, starts, ahead } = question else { panic!("{question:?}") };
            next = next.max(now);
            let first = next;
            let mut granted = 0;
            while granted < starts && next <= now + ahead {
                (granted, next) = (granted + 1, next + interval);
            }
            if granted == 0 { (0, next - now - ahead) } else { (granted, first - now) }
        };
        let (mut passed, mut starts) = (Duration::ZERO, Vec::new());
        for (process, millis) in steps {
            passed += Duration::from_millis(millis);
            let (limiter, now) = (&mut processes[process], at(passed));
            for _ in 0..10 {
                let key = limiter.key("a", now);
                let question = match limiter.check(&key, now) {
                    Ok(()) => {
                        starts.push(passed);
                        limiter.start(key.clone(), now).1
                    }
                    Err(refused) => match refused.question {
                        Some(question) => Some(question),
                        None => break,
                    },
                };
                if let Some(question) = question {
                    let granted = answer(question, passed);
                    limiter.answer_rate(&key, Some(granted), now);
                }
            }
        }
        for (first, at) in starts.iter().enumerate() {
            for span in [SECOND, 10 * SECOND] {
                let within = starts[first..].iter().filter(|start| **start - *at <= span).count() as f64;
                let most = span.as_secs_f64() / interval.as_secs_f64() + 2.0 + f64::from(3 * (batch + batch / 4 + 1));
                prop_assert!(within <= most, "{within} in {span:?}, and not {most}");
            }
        }
    }
}
