use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(second: u64) -> Timestamp {
    Timestamp::from_millis(second * 1_000)
}

/// A book in which these runs of one task, in seconds, have ended one after the other.
fn book_of(runs: &[u64]) -> RunTimeBook {
    let mut book = RunTimeBook::default();
    for (second, run) in (0..).zip(runs) {
        book.record(&[RunTimeKey::of_task("t")], SECOND * u32::try_from(*run).unwrap(), at(second));
    }
    book
}

fn told(book: &RunTimeBook, key: RunTimeKey) -> RunTimeFigures {
    figures([book], key).expect("it has run")
}

#[test]
fn what_has_not_run_is_not_known() {
    let book = book_of(&[3]);
    for key in
        [RunTimeKey::of_task("u"), RunTimeKey::of_tenant("t", ""), RunTimeKey::of_value("t", None, "", "")]
    {
        assert_eq!(figures([&book, &RunTimeBook::default()], key), None);
    }
    assert!(!book.is_empty() && RunTimeBook::default().is_empty());
}

#[test]
fn the_figures_are_those_of_the_runs() {
    let figures = told(&book_of(&[1, 1, 1, 9]), RunTimeKey::of_task("t"));
    assert_eq!((figures.count, figures.last, figures.mean), (4, 9 * SECOND, 3 * SECOND));
    assert_eq!(figures.last_at, at(3));
    assert!(figures.p95 >= 8 * SECOND && figures.p95 <= 10 * SECOND, "{:?}", figures.p95);
    let json = serde_json::to_value(figures).unwrap();
    assert_eq!((&json["last_ms"], &json["count"]), (&9_000.0.into(), &4.into()));
}

#[test]
fn a_task_that_becomes_slower_is_seen_to_be() {
    let mut runs = vec![1; 5_000];
    runs.extend([10; 6_000]);
    let figures = told(&book_of(&runs), RunTimeKey::of_task("t"));
    assert_eq!(figures.count, 11_000);
    assert!(figures.mean > 9 * SECOND && figures.p95 > 9 * SECOND, "{figures:?}");
}

#[test]
fn absurd_run_times_saturate() {
    let key = RunTimeKey::of_task("t");
    let mut book = RunTimeBook::default();
    for took in [Duration::MAX, Duration::ZERO, Duration::MAX] {
        book.record(&[key], took, at(1));
    }
    let figures = told(&book, key);
    assert_eq!((figures.count, figures.last), (3, Duration::from_micros(u64::MAX)));
    assert!(figures.mean > Duration::ZERO);
}

/// With a value of an argument only the runs with that value count; without one the tenant's, else the task's.
#[test]
fn the_first_key_that_is_known_counts() {
    let mut book = RunTimeBook::default();
    let run = |tenant: Option<&str>, build: &str, took: u32, book: &mut RunTimeBook| {
        let mut keys = vec![RunTimeKey::of_task("t"), RunTimeKey::of_value("t", tenant, "build_id", build)];
        keys.extend(tenant.map(|tenant| RunTimeKey::of_tenant("t", tenant)));
        book.record(&keys, SECOND * took, at(u64::from(took)));
    };
    run(Some("acme"), "7", 10, &mut book);
    run(Some("acme"), "8", 20, &mut book);
    run(None, "7", 30, &mut book);
    let last = |tenant: Option<&str>, value: Option<&str>| {
        let value = value.map(|value| ("build_id", value));
        let known = keys_of_call("t", tenant, value).find_map(|key| figures([&book], key));
        known.map(|figures| figures.last.as_secs())
    };
    assert_eq!((last(Some("acme"), Some("7")), last(Some("acme"), Some("8"))), (Some(10), Some(20)));
    assert_eq!(last(None, Some("7")), Some(30), "the reports of two tenants are not the same");
    assert_eq!((last(Some("acme"), Some("9")), last(Some("zoo"), Some("7"))), (None, None));
    assert_eq!(
        (last(Some("acme"), None), last(Some("zoo"), None), last(None, None)),
        (Some(20), Some(30), Some(30))
    );
}

#[test]
fn a_condition_looks_at_the_figure_that_it_names() {
    let figures = told(&book_of(&[40, 1, 1]), RunTimeKey::of_task("t"));
    let holds = |longer: Option<u64>, shorter: Option<u64>, by: RunTimeBy| {
        let longer_than = longer.map(Duration::from_secs);
        let shorter_than = shorter.map(Duration::from_secs);
        RunTimeCondition { longer_than, shorter_than, by }.holds(&figures)
    };
    assert!(!holds(Some(1), None, RunTimeBy::Last) && holds(Some(0), None, RunTimeBy::Last));
    assert!(!holds(None, Some(1), RunTimeBy::Last) && holds(None, Some(2), RunTimeBy::Last));
    assert!(holds(Some(13), Some(15), RunTimeBy::Mean) && !holds(Some(14), None, RunTimeBy::Mean));
    assert!(holds(Some(35), None, RunTimeBy::P95) && !holds(Some(1), Some(35), RunTimeBy::P95));
    assert_eq!(
        [RunTimeBy::Last, RunTimeBy::Mean, RunTimeBy::P95].map(RunTimeBy::as_str),
        ["last", "mean", "p95"]
    );
}

#[test]
fn parts_of_a_key_are_kept_apart() {
    let keys = [
        RunTimeKey::of_tenant("ab", "c"),
        RunTimeKey::of_tenant("a", "bc"),
        RunTimeKey::of_tenant("abc", ""),
        RunTimeKey::of_value("a", Some("b"), "c", ""),
        RunTimeKey::of_value("a", Some("b"), "", "c"),
        RunTimeKey::of_value("a", None, "b", "c"),
    ];
    for (at, key) in keys.iter().enumerate() {
        assert!(!keys[..at].contains(key), "{at}");
    }
}

/// The bounds hold, and what is kept of a full book has some size; both are what the manual says.
#[test]
fn a_full_book_is_bounded() {
    let mut book = RunTimeBook::default();
    for n in 0..30_000_u64 {
        let name = format!("name{n}");
        let keys = [
            RunTimeKey::of_task(&name),
            RunTimeKey::of_tenant("t", &name),
            RunTimeKey::of_value("t", None, "build_id", &name),
        ];
        book.record(&keys, SECOND, at(n));
    }
    for n in 20_000..30_000 {
        let name = format!("name{n}");
        assert!(figures([&book], RunTimeKey::of_tenant("t", &name)).is_some(), "{n}");
        assert!(figures([&book], RunTimeKey::of_value("t", None, "build_id", &name)).is_some(), "{n}");
    }
    assert_eq!(figures([&book], RunTimeKey::of_task("name18000")), None);
    assert!(figures([&book], RunTimeKey::of_task("name29000")).is_some());
    let bytes = postcard::to_stdvec(&book).unwrap();
    assert!(bytes.len() < 23_625 * 20, "{}", bytes.len());
    let mut newest = book.clone();
    newest.keep_newest(10);
    assert!(postcard::to_stdvec(&newest).unwrap().len() < 30 * 20);
}

/// One run: of which task, for which tenant, with which value, how long, and in which of two processes.
type Run = (u8, Option<u8>, u8, u32, bool);

fn keys_of((task, tenant, value, ..): &Run) -> Vec<RunTimeKey> {
    let (task, tenant) = (format!("task{task}"), tenant.map(|tenant| format!("tenant{tenant}")));
    let mut keys = vec![
        RunTimeKey::of_task(&task),
        RunTimeKey::of_value(&task, tenant.as_deref(), "id", &value.to_string()),
    ];
    keys.extend(tenant.map(|tenant| RunTimeKey::of_tenant(&task, &tenant)));
    keys
}

proptest! {
    /// The reference remembers all runs. What two processes know together is that, whichever of them is asked first, and so is
    /// what is read back from where it was kept.
    #[test]
    fn figures_are_those_of_all_runs(
        runs in prop::collection::vec((0u8..3, prop::option::of(0u8..3), 0u8..4, 0u32..500_000, any::<bool>()), 1..300),
    ) {
        let mut books = [RunTimeBook::default(), RunTimeBook::default()];
        let mut all: HashMap<RunTimeKey, Vec<u64>> = HashMap::new();
        for (second, run) in (0..).zip(&runs) {
            let (keys, took) = (keys_of(run), u64::from(run.3) + 10_000);
            books[usize::from(run.4)].record(&keys, Duration::from_micros(took), at(second));
            for key in keys {
                all.entry(key).or_default().push(took);
            }
        }
        let [one, other] = &books;
        let mut merged = other.clone();
        merged.merge(one);
        let kept: RunTimeBook = postcard::from_bytes(&postcard::to_stdvec(&merged).unwrap()).unwrap();
        prop_assert_eq!(&kept, &merged);
        for (key, runs) in &all {
            let told = figures(&books, *key).unwrap();
            prop_assert_eq!(figures([other, one], *key), Some(told));
            prop_assert_eq!(figures([&merged], *key), Some(told));
            prop_assert_eq!(told.count, runs.len() as u64);
            prop_assert_eq!(told.last.as_micros() as u64, *runs.last().unwrap());
            let mean = runs.iter().sum::<u64>() / runs.len() as u64;
            prop_assert_eq!(told.mean.as_micros() as u64, mean);
            let mut sorted = runs.clone();
            sorted.sort_unstable();
            let exact = sorted[(runs.len() * 95).div_ceil(100) - 1];
            let p95 = told.p95.as_micros() as u64;
            prop_assert!(p95 * 10 >= exact * 9 && p95 * 10 <= exact * 11, "{p95} for {exact}");
        }
    }

    /// However runs are spread over processes and notes, a condition on what nobody knows never holds, and one on what is known
    /// holds as a person would say it.
    #[test]
    fn a_condition_is_what_it_says(last in 0u64..100, longer in 0u64..100, shorter in 0u64..100) {
        let book = book_of(&[50, last]);
        let figures = told(&book, RunTimeKey::of_task("t"));
        let of = |longer_than, shorter_than| RunTimeCondition { longer_than, shorter_than, by: RunTimeBy::Last };
        let (least, most) = (Duration::from_secs(longer), Duration::from_secs(shorter));
        prop_assert_eq!(of(Some(least), None).holds(&figures), last > longer);
        prop_assert_eq!(of(None, Some(most)).holds(&figures), last < shorter);
        prop_assert_eq!(of(Some(least), Some(most)).holds(&figures), last > longer && last < shorter);
        prop_assert!(of(None, None).holds(&figures));
    }
}
