//! What brakes decide, by examples and against a model that looks at one brake at a time; and each mistake by its text.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

/// A task whose argument `domain` is the third part.
type Names<'a> = (&'a str, &'a str, &'a str);

fn matches(rule: &BrakeRule, (task, queue, domain): Names<'_>) -> bool {
    with_subject((task, queue, domain), false, |subject| rule.compile().unwrap().matches(subject))
}

fn with_subject<T>((task, queue, domain): Names<'_>, stays: bool, look: impl FnOnce(&Subject<'_>) -> T) -> T {
    let argument = |name: &str| matches!(name, "domain" | "0").then(|| domain.to_owned());
    let tenant = Some(domain).filter(|domain| !domain.is_empty());
    look(&Subject { task, queue, tenant, argument: &argument, stays })
}

fn brake(id: &str, rule: BrakeRule, action: BrakeAction) -> Brake {
    Brake::new(rule, action).id(id)
}

#[test]
fn all_stated_conditions_have_to_hold() {
    let task = ("mail.send", "email", "acme");
    let rule = || BrakeRule::new().task("mail.*").queue("email").tenant("ac?e");
    assert!(matches(&rule(), task) && matches(&BrakeRule::all(), task));
    assert!(!matches(&rule(), ("mailer.send", "email", "acme")));
    assert!(!matches(&rule(), ("mail.send", "bulk", "acme")));
    assert!(!matches(&rule(), ("mail.send", "email", "other")));
    assert!(!matches(&BrakeRule::new().tenant("*"), ("mail.send", "email", "")), "it has no tenant");
    for (argument, pattern, fits) in
        [("domain", "ac", true), ("0", "acme$", true), ("domain", "cme", false), ("user", ".*", false)]
    {
        let rule = rule().argument(argument, ["never", pattern]);
        assert_eq!(matches(&rule, task), fits, "{argument} {pattern}");
    }
    // A name without a pattern is that name, whatever it is in an expression.
    assert!(!matches(&BrakeRule::new().task("mail.send"), ("mail-send", "email", "acme")));
}

#[test]
fn the_strictest_acts_and_then_the_oldest_or_the_longest() {
    let all = BrakeRule::all;
    let mut brakes = vec![
        brake("slow", all(), BrakeAction::slow("1/s")),
        brake("slower", all(), BrakeAction::slow("1/m")),
        brake("short", all(), BrakeAction::Pause).until(at(50)),
        brake("long", all(), BrakeAction::Pause).until(at(90)),
        brake("first", all(), BrakeAction::divert("a")),
        brake("second", all(), BrakeAction::divert("b")),
        brake("end", all(), BrakeAction::Expire),
    ];
    for (index, brake) in brakes.iter_mut().enumerate() {
        brake.since = at(index as u64);
    }
    let decide = |brakes: &[Brake], queue: &str, stays: bool, now: u64| {
        let (set, wrong) = BrakeSet::new(brakes.to_vec());
        assert!(wrong.is_empty());
        with_subject(("t", queue, ""), stays, |subject| match set.decide(subject, at(now)) {
            Braking::Free => "free".to_owned(),
            Braking::Slow(brakes) => {
                let ids: Vec<_> = brakes.iter().map(|at| set.brake(*at).unwrap().id.as_str()).collect();
                ids.join(" ")
            }
            Braking::Pause(at) | Braking::Divert(at) | Braking::Expire(at) => {
                set.brake(at).unwrap().id.clone()
            }
        })
    };
    assert_eq!(decide(&brakes, "q", false, 10), "end");
    brakes.pop();
    assert_eq!(decide(&brakes, "q", false, 10), "first");
    assert_eq!(decide(&brakes, "a", false, 10), "second", "it is in the first one's queue already");
    assert_eq!(decide(&brakes, "q", true, 10), "long", "it was diverted before");
    brakes.truncate(4);
    assert_eq!(decide(&brakes, "q", false, 60), "long");
    assert_eq!(decide(&brakes, "q", false, 90), "slow slower", "at its end it has ended");
    assert_eq!(decide(&[], "q", false, 0), "free");
}

#[test]
fn a_brake_is_read_as_it_was_written() {
    let rule = BrakeRule::new().task("mail.*").queue("email").tenant("acme").argument("domain", ["a", "b$"]);
    let full = brake("b-1", rule, BrakeAction::divert("bulk")).owner("amina").reason("too many").until(at(9));
    for brake in [
        full,
        brake("p", BrakeRule::all(), BrakeAction::Pause),
        brake("s", BrakeRule::new().queue("q"), BrakeAction::slow("10/m")),
        brake("e", BrakeRule::new().tenant("t"), BrakeAction::Expire),
    ] {
        assert_eq!(brake.check(), Ok(()));
        let text = serde_json::to_string(&brake).unwrap();
        assert_eq!(serde_json::from_str::<Brake>(&text).unwrap(), brake, "{text}");
    }
    let text = r#"{"id":"x","rule":{"tenant":"acme"},"action":"slow","rate":"6/m"}"#;
    let read: Brake = serde_json::from_str(text).unwrap();
    assert_eq!(read, brake("x", BrakeRule::new().tenant("acme"), BrakeAction::slow("6/m")));
    // Without the condition that is not known, it would be a brake on every task of the tenant.
    let newer = r#"{"id":"x","rule":{"tenant":"acme","weekday":"monday"},"action":"expire"}"#;
    assert!(serde_json::from_str::<Brake>(newer).is_err());
}

#[test]
fn each_mistake_is_told_with_what_to_do() {
    let told = |brake: Brake| brake.check().unwrap_err().to_string();
    let rule = || BrakeRule::new().task("t");
    let paused = |rule: BrakeRule| brake("b", rule, BrakeAction::Pause);
    let none = told(paused(BrakeRule::new()));
    assert!(none.contains("no condition") && none.contains("BrakeRule::all()"), "{none}");
    assert!(told(paused(BrakeRule { all: true, ..rule() })).contains("leave one of the two out"));
    for (id, value) in [("", "\"\""), ("a b", "\"a b\""), ("ü", "\"ü\"")] {
        let text = told(brake(id, rule(), BrakeAction::Pause));
        let expected = format!("`id` of a brake is {value}: write 1 to 64 letters, digits, `-`, `_` or `.`");
        assert_eq!(text, expected);
    }
    let long = "x".repeat(600);
    for (brake, field) in [
        (brake(&long, rule(), BrakeAction::Pause), "`id`"),
        (paused(BrakeRule::new().task("")), "`task`"),
        (paused(BrakeRule::new().task(&long)), "`task`"),
        (paused(BrakeRule::new().task("a[z-a]")), "`task`"),
        (paused(BrakeRule::new().queue("")), "`queue`"),
        (paused(BrakeRule::new().tenant(&long)), "`tenant`"),
        (paused(rule().argument("", ["a"])), "`argument`"),
        (paused(rule().argument("a", Vec::<String>::new())), "`matches`"),
        (paused(rule().argument("a", vec!["a"; 21])), "`matches`"),
        (paused(rule().argument("a", ["("])), "`matches`"),
        (paused(rule().argument("a", ["a)(b"])), "`matches`"),
        (paused(rule().argument("a", [long.clone()])), "`matches`"),
        (brake("b", rule(), BrakeAction::slow("0/m")), "`rate`"),
        (brake("b", rule(), BrakeAction::slow("fast")), "`rate`"),
        (brake("b", rule(), BrakeAction::divert("")), "`divert_to`"),
        (brake("b", BrakeRule::new().queue("q"), BrakeAction::divert("q")), "`divert_to`"),
        (paused(rule()).owner(&long), "`owner`"),
        (paused(rule()).reason(&long), "`reason`"),
    ] {
        let text = told(brake);
        assert!(text.starts_with(field) && text.len() < 400, "{field}: {text}");
    }
}

#[test]
fn a_note_keeps_what_it_cannot_read_and_is_bounded() {
    let text = r#"[{"id":"new","action":"weigh","rule":{"task":"t"}},{"id":"old","action":"pause","rule":{"task":"t"},"until":5000000}]"#;
    let note = BrakeNote::read(Some(text)).unwrap();
    let (brakes, unread) = note.brakes();
    assert_eq!((brakes.len(), brakes[0].id.as_str(), unread), (1, "old", 1));
    let mine = brake("mine", BrakeRule::new().task("u"), BrakeAction::Pause);
    let with = note.with(&mine, at(5)).unwrap();
    assert_eq!(with.brakes(), (vec![mine.clone()], 1), "the old one has ended");
    assert!(with.has("new") && !with.has("old"));
    let replaced = with.with(&mine.clone().reason("why"), at(5)).unwrap();
    assert_eq!(replaced.brakes().0[0].reason.as_deref(), Some("why"));
    let (without, taken) = with.without("mine", at(5));
    assert_eq!((without.brakes(), taken), ((Vec::new(), 1), Some(mine.clone())));
    let (empty, taken) = without.without("new", at(5));
    assert_eq!((empty.text(), taken), (None, None), "one that cannot be read can be taken away");
    assert_eq!(BrakeNote::read(empty.text().as_deref()), Ok(BrakeNote::default()));
    assert!(BrakeNote::read(Some("{")).is_err() && BrakeNote::read(Some("5")).is_err());

    let mut full = BrakeNote::default();
    for n in 0..MOST_BRAKES {
        full = full.with(&brake(&n.to_string(), BrakeRule::all(), BrakeAction::Pause), at(0)).unwrap();
    }
    assert_eq!(full.with(&mine, at(0)), Err(BrakeError::TooMany));
    assert!(full.with(&brake("7", BrakeRule::all(), BrakeAction::Expire), at(0)).is_ok(), "it replaces one");
}

#[test]
fn the_starts_of_the_last_hour_are_counted_by_what_a_rule_says() {
    let minute = |minutes: u64| at(1_000_000 + 60 * minutes);
    let mut history = StartHistory::default();
    for n in 0..90 {
        history.started("mail.send", Some("acme"), minute(n));
        history.started("mail.send", None, minute(n));
        history.started("report", Some("acme"), minute(n));
    }
    let count = |rule: BrakeRule, now: u64| {
        let count = history.count("q", &rule.compile().unwrap(), minute(now));
        assert_eq!(count.unknown, 0);
        count.starts
    };
    assert_eq!(count(BrakeRule::all(), 89), 180);
    assert_eq!(count(BrakeRule::new().tenant("acme"), 89), 120);
    assert_eq!(count(BrakeRule::new().task("mail.*"), 89), 120);
    assert_eq!(count(BrakeRule::new().queue("other"), 89), 0);
    assert_eq!(count(BrakeRule::all(), 119), 90, "half an hour without starts");
    assert_eq!(count(BrakeRule::all(), 149), 0);
    assert_eq!(count(BrakeRule::all(), 1_000_000), 0);
}

#[test]
fn kinds_beyond_the_bound_are_counted_together_until_there_is_room() {
    let mut history = StartHistory::default();
    let rule = BrakeRule::all().compile().unwrap();
    let start = at(1_000_000);
    for n in 0..3_000 {
        history.started(&format!("task-{n}"), None, start);
    }
    history.started(&"x".repeat(1_000), None, start);
    let count = history.count("q", &rule, start);
    assert_eq!((count.starts, count.unknown), (1_024, 3_001 - 1_024));
    let later = start + Duration::from_secs(3_700);
    history.started("another", Some("tenant"), later);
    assert_eq!(history.count("q", &rule, later), StartCount { starts: 1, unknown: 0 });
}

const WORDS: [&str; 3] = ["a", "b", "ab"];

fn any_word() -> impl Strategy<Value = &'static str> {
    prop::sample::select(WORDS.to_vec())
}

fn any_rule() -> impl Strategy<Value = BrakeRule> {
    let pattern = || prop::option::of(prop::sample::select(vec!["a", "b", "ab", "*", "a*", "?", "[!a]"]));
    let argument = prop::option::of(any_word());
    (pattern(), prop::option::of(any_word()), pattern(), argument).prop_map(
        |(task, queue, tenant, argument)| {
            let mut rule = BrakeRule { all: false, ..BrakeRule::new() };
            rule.task = task.map(str::to_owned);
            rule.queue = queue.map(str::to_owned);
            rule.tenant = tenant.map(str::to_owned);
            rule.all = task.is_none() && queue.is_none() && tenant.is_none() && argument.is_none();
            match argument {
                Some(pattern) => rule.argument("domain", [pattern]),
                None => rule,
            }
        },
    )
}

fn any_brake() -> impl Strategy<Value = Brake> {
    let action = prop_oneof![
        Just(BrakeAction::Pause),
        Just(BrakeAction::slow("1/s")),
        any_word().prop_map(BrakeAction::divert),
        Just(BrakeAction::Expire),
    ];
    (any_rule(), action, 0..20_u64, prop::option::of(0..20_u64)).prop_map(|(rule, action, since, until)| {
        Brake { since: at(since), until: until.map(at), ..Brake::new(rule, action) }
    })
}

/// How strict an action is.
fn rank(action: &BrakeAction) -> u8 {
    match action {
        BrakeAction::Slow { .. } => 1,
        BrakeAction::Pause => 2,
        BrakeAction::Divert { .. } => 3,
        BrakeAction::Expire => 4,
    }
}

/// The patterns of [`any_rule`], without regular expressions.
fn fits(pattern: &str, word: &str) -> bool {
    match pattern {
        "*" => true,
        "a*" => word.starts_with('a'),
        "?" => word.len() == 1,
        "[!a]" => word == "b",
        exact => exact == word,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_decision_is_that_of_the_strictest_brake_that_matches(
        brakes in prop::collection::vec(any_brake(), 0..8),
        (task, queue, domain) in (any_word(), any_word(), any_word()),
        stays in any::<bool>(),
        now in 0..25_u64,
    ) {
        let brakes: Vec<Brake> = brakes.into_iter().enumerate().map(|(n, brake)| brake.id(format!("b{n}"))).collect();
        let (set, wrong) = BrakeSet::new(brakes.clone());
        let is_wrong = |brake: &Brake| wrong.iter().any(|(other, _)| other.id == brake.id);
        let acts: Vec<&Brake> = brakes
            .iter()
            .filter(|brake| !is_wrong(brake) && brake.until.is_none_or(|until| until > at(now)))
            .filter(|brake| {
                let rule = &brake.rule;
                rule.task.as_deref().is_none_or(|pattern| fits(pattern, task))
                    && rule.queue.as_deref().is_none_or(|wanted| wanted == queue)
                    && rule.tenant.as_deref().is_none_or(|pattern| fits(pattern, domain))
                    && rule.argument.as_ref().is_none_or(|one| domain.starts_with(&one.matches[0]))
            })
            .filter(|brake| match &brake.action {
                BrakeAction::Divert { divert_to } => !stays && divert_to != queue,
                _ => true,
            })
            .collect();
        // Only a brake that diverts to the queue of its own rule is wrong.
        for (brake, _) in &wrong {
            let diverts_to_itself = match &brake.action {
                BrakeAction::Divert { divert_to } => brake.rule.queue.as_ref() == Some(divert_to),
                _ => false,
            };
            prop_assert!(diverts_to_itself);
        }
        let strictest = acts.iter().map(|brake| rank(&brake.action)).max().unwrap_or(0);
        let oldest = acts
            .iter()
            .filter(|brake| rank(&brake.action) == strictest)
            .min_by_key(|brake| (brake.since, brake.id.clone()));
        let decided = with_subject((task, queue, domain), stays, |subject| set.decide(subject, at(now)));
        let brake = |index: usize| set.brake(index).unwrap();
        match decided {
            Braking::Free => prop_assert_eq!(strictest, 0),
            Braking::Slow(slow) => {
                prop_assert_eq!(strictest, 1);
                prop_assert_eq!(slow.len(), acts.len());
            }
            Braking::Pause(index) => {
                prop_assert_eq!(strictest, 2);
                let ends = |brake: &Brake| brake.until.unwrap_or(Timestamp::from_micros(u64::MAX));
                let pauses = acts.iter().filter(|brake| rank(&brake.action) == 2);
                prop_assert_eq!(pauses.map(|brake| ends(brake)).max(), Some(ends(brake(index))));
            }
            Braking::Divert(index) => {
                prop_assert_eq!(strictest, 3);
                prop_assert_eq!(oldest.map(|brake| &brake.id), Some(&brake(index).id));
            }
            Braking::Expire(index) => {
                prop_assert_eq!(strictest, 4);
                prop_assert_eq!(oldest.map(|brake| &brake.id), Some(&brake(index).id));
            }
        }
    }

    #[test]
    fn what_is_written_is_read_again(brakes in prop::collection::vec(any_brake(), 0..8)) {
        let mut note = BrakeNote::default();
        let brakes: Vec<Brake> = brakes.into_iter().enumerate().map(|(n, brake)| brake.id(format!("b{n}"))).collect();
        for brake in &brakes {
            note = note.with(brake, Timestamp::ZERO).unwrap();
        }
        let living: Vec<Brake> = brakes.into_iter().filter(|brake| !brake.has_ended(Timestamp::ZERO)).collect();
        let read = BrakeNote::read(note.text().as_deref()).unwrap();
        prop_assert_eq!(read.brakes().1, 0);
        let read: Vec<Brake> = read.brakes().0.into_iter().filter(|brake| !brake.has_ended(Timestamp::ZERO)).collect();
        prop_assert_eq!(read, living);
    }

    #[test]
    fn no_text_of_a_note_brings_anything_down(text in any::<String>()) {
        if let Ok(note) = BrakeNote::read(Some(&text)) {
            let (brakes, _) = note.brakes();
            let _ = BrakeSet::new(brakes);
        }
    }
}
