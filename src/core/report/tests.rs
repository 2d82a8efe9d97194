//! Diagnoses of all that can press a queue: the cause is named, the others are ruled out, and only what was looked at is.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_795_348_800_000); // 2026-11-22T12:00Z

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A queue that promises 30 s and whose oldest ready task has waited for 50 s.
fn late() -> QueueFigures {
    QueueFigures {
        target: Some(seconds(30)),
        oldest_wait: seconds(50),
        workers: 4,
        running: 4,
        ready: 231,
        ..QueueFigures::named("export")
    }
}

fn facts(queues: impl IntoIterator<Item = QueueFigures>) -> ReportFacts {
    ReportFacts { queues: queues.into_iter().collect(), ..ReportFacts::at(NOW) }
}

/// The one finding about one queue.
fn found(queue: QueueFigures) -> Finding {
    let mut diagnosis = diagnose(facts([queue]));
    assert_eq!(diagnosis.findings.len(), 1, "{diagnosis:?}");
    diagnosis.findings.remove(0)
}

fn causes(finding: &Finding) -> Vec<&str> {
    finding.causes.iter().map(|cause| cause.code).collect()
}

fn ruled_out(finding: &Finding) -> Vec<&str> {
    finding.ruled_out.iter().map(|cause| cause.code).collect()
}

fn lane(queue: Option<&str>) -> BlockedLane {
    BlockedLane {
        scope: "app.import".to_owned(),
        key: "joe".to_owned(),
        queue: queue.map(str::to_owned),
        waiting: 37,
        since: NOW - seconds(2_820),
        by: "9f0c".to_owned(),
        error: "no such case".to_owned(),
    }
}

#[test]
fn what_is_well_needs_nobody() {
    let idle = QueueFigures::named("email");
    let busy = QueueFigures { running: 2, workers: 4, ..QueueFigures::named("sms") };
    let diagnosis = diagnose(facts([idle.clone(), busy]));
    assert_eq!((diagnosis.findings.len(), diagnosis.queues.len()), (0, 2));
    assert_eq!(diagnosis.to_string(), "All 2 queues are well; 2 tasks run.");
    assert_eq!(diagnose(facts([])).to_string(), "There is no queue.");
    assert_eq!(diagnose(facts([idle])).to_string(), "The one queue is well; 0 tasks run.");
}

#[test]
fn too_few_workers_are_named_and_the_others_ruled_out() {
    let queue = late();
    let diagnosis = diagnose(facts([queue]));
    let finding = &diagnosis.findings[0];
    assert_eq!(
        diagnosis.sentence,
        "Queue `export` is late: its oldest ready task has waited for 50 s, and it promises 30 s. \
         All 4 workers of queue `export` have a task."
    );
    assert_eq!((finding.since, finding.lasts(NOW).as_deref()), (Some(NOW - seconds(20)), Some("20 s")));
    assert_eq!(causes(finding), ["queue_full"]);
    let not = ["paused", "lane_blocked", "not_served", "broker_away", "halted", "held", "stuck_body"];
    assert_eq!(ruled_out(finding), not);
    let remedy = &finding.causes[0].remedies[0];
    assert_eq!(remedy.by.as_str(), "operator");
    assert!(remedy.says.contains("celeriac control resize export N"), "{}", remedy.says);
}

#[test]
fn a_flood_of_one_tenant_comes_before_the_workers_that_it_takes() {
    let top = |tenant: &str, ready, tenants| {
        Some(TopTenant { tenant: tenant.to_owned(), ready, tenants, or_more: false })
    };
    let flooded = found(QueueFigures { top_tenant: top("malaria", 214, 3), ..late() });
    assert_eq!(causes(&flooded), ["flood", "queue_full"]);
    assert_eq!(
        flooded.causes[0].says,
        "Tenant `malaria` has 214 of its 231 ready tasks; 2 other tenants have some."
    );
    let remedy = &flooded.causes[0].remedies[0].says;
    assert!(remedy.contains("--queue export --tenant malaria"), "{remedy}");
    for even in [top("malaria", 100, 3), top("", 0, 0)] {
        let even = found(QueueFigures { top_tenant: even, ..late() });
        assert_eq!(causes(&even), ["queue_full"]);
        assert!(ruled_out(&even).contains(&"flood"));
    }
    assert!(!ruled_out(&found(late())).contains(&"flood"), "nobody has looked");
}

#[test]
fn a_flood_that_a_program_has_fetched_is_seen_where_the_broker_tells_no_tenants() {
    let fetched = |ready| {
        let top = TopTenant { tenant: "malaria".to_owned(), ready, tenants: 3, or_more: true };
        QueueFigures { top_tenant: Some(top), ..late() }
    };
    let flooded = found(fetched(214));
    assert_eq!(causes(&flooded), ["flood", "queue_full"]);
    let says = "Tenant `malaria` has at least 214 of its 231 ready tasks; the broker does not tell whose those are that it has not delivered.";
    assert_eq!(flooded.causes[0].says, says);
    let unknown = found(fetched(100));
    assert_eq!(causes(&unknown), ["queue_full"]);
    assert!(!ruled_out(&unknown).contains(&"flood"), "the others may be its, too");
}

#[test]
fn of_two_programs_the_one_that_knows_more_of_the_tenants_is_believed() {
    let says = |top: Option<(u64, bool)>| {
        let top =
            top.map(|(ready, or_more)| TopTenant { tenant: "t".to_owned(), ready, tenants: 2, or_more });
        let queues = vec![QueueFigures { top_tenant: top, ..late() }];
        ReportFacts { queues, ..ReportFacts::at(NOW) }
    };
    for (one, other, expected) in [
        (None, Some((5, true)), Some((5, true))),
        (Some((9, true)), Some((5, false)), Some((5, false))),
        (Some((5, true)), Some((9, true)), Some((9, true))),
        (Some((5, false)), None, Some((5, false))),
    ] {
        let merged = ReportFacts::at(NOW).merged(vec![says(one), says(other)]);
        let top = merged.queues[0].top_tenant.as_ref().map(|top| (top.ready, top.or_more));
        assert_eq!(top, expected);
    }
}

#[test]
fn a_long_run_is_named_if_others_wait_for_its_worker() {
    let run = |since| Some(LongestRun { id: "9f0c".to_owned(), task: "app.export".to_owned(), since });
    let long = found(QueueFigures { longest_run: run(NOW - seconds(7_200)), ..late() });
    assert_eq!(causes(&long), ["queue_full", "long_run"]);
    assert_eq!(long.causes[1].says, "Task 9f0c (`app.export`) runs for 2 h in it, the longest of its runs.");
    let short = found(QueueFigures { longest_run: run(NOW - seconds(2)), ..late() });
    assert_eq!(causes(&short), ["queue_full"]);
}

#[test]
fn a_pause_a_halt_and_a_silent_queue_are_the_cause_themselves() {
    let paused = found(QueueFigures { paused: true, ready: 3, ..QueueFigures::named("email") });
    assert_eq!(
        (paused.sentence.as_str(), causes(&paused)),
        ("Queue `email` is paused; 3 tasks wait.", vec!["paused"])
    );
    assert_eq!(paused.causes[0].says, "Queue `email` is paused.");
    assert!(paused.causes[0].remedies[0].says.contains("celeriac control resume email"));
    let halted = QueueFigures { halted: Some("its workers died 5 times".to_owned()), ..late() };
    let halted = found(halted);
    assert_eq!(causes(&halted), ["halted"]);
    assert_eq!(halted.causes[0].says, "Queue `export` has stopped itself: its workers died 5 times.");
    let silent = found(QueueFigures { service: QueueService::Silent, ..QueueFigures::named("email") });
    assert_eq!(
        (silent.sentence.as_str(), causes(&silent)),
        ("Queue `email` does not answer.", vec!["not_answering"])
    );
    assert_eq!(ruled_out(&silent), ["lane_blocked"]);
    let away = found(QueueFigures { away: true, ..QueueFigures::named("email") });
    assert_eq!(causes(&away), ["broker_away"]);
}

#[test]
fn a_store_whose_program_does_not_run_says_so_and_rules_out_what_it_knows() {
    let waits = QueueFigures {
        service: QueueService::ProgramStopped,
        ready: 2,
        oldest_wait: seconds(3),
        ..QueueFigures::named("email")
    };
    let stopped = found(waits.clone());
    assert_eq!(stopped.sentence, "Queue `email` is served by nobody, and 2 tasks are ready.");
    assert_eq!((causes(&stopped), ruled_out(&stopped)), (vec!["not_served"], vec!["paused", "lane_blocked"]));
    assert_eq!(stopped.causes[0].says, "The program of this store does not run.");
    assert_eq!(stopped.since, Some(NOW - seconds(3)));
    let paused = found(QueueFigures { paused: true, ..waits.clone() });
    assert_eq!(causes(&paused), ["paused", "not_served"]);
    assert!(paused.causes[0].says.contains("stays so after a restart"), "{}", paused.causes[0].says);
    let nobody = found(QueueFigures { service: QueueService::NoProgram, ..waits.clone() });
    assert_eq!(causes(&nobody), ["no_program"]);
    let empty = QueueFigures { ready: 0, oldest_wait: Duration::ZERO, ..waits };
    assert!(diagnose(facts([empty])).findings.is_empty(), "nobody waits there");
}

#[test]
fn a_blocked_lane_is_found_in_a_queue_that_keeps_its_promise() {
    let well = QueueFigures { workers: 4, running: 1, ..QueueFigures::named("import") };
    let mut facts = facts([well]);
    facts.lanes = vec![lane(Some("import")), BlockedLane { key: "ann".to_owned(), ..lane(None) }];
    let diagnosis = diagnose(facts);
    let finding = diagnosis.of_queue("import").expect("a finding");
    assert_eq!(finding.sentence, "Queue `import` has 1 blocked lane, in which 37 tasks wait.");
    assert_eq!((causes(finding), finding.since), (vec!["lane_blocked"], Some(NOW - seconds(2_820))));
    assert_eq!(
        finding.causes[0].says,
        "Its lane `joe` is blocked for 47 min by the failure of task 9f0c: no such case."
    );
    let alone = &diagnosis.findings[1];
    assert_eq!((alone.queue.as_deref(), causes(alone)), (None, vec!["lane_blocked"]));
    assert_eq!(alone.sentence, "The lane `ann` of `app.import` is blocked; 37 tasks wait for it.");
    assert!(diagnosis.sentence.ends_with(" 1 more needs a person."), "{}", diagnosis.sentence);
}

#[test]
fn limits_and_brakes_need_a_person_when_they_hold_for_long() {
    let brake = |id: &str, queue: Option<&str>| BrakeFigures {
        id: id.to_owned(),
        action: "pause".to_owned(),
        queue: queue.map(str::to_owned),
    };
    let held =
        |oldest_held| QueueFigures { held: 300, put_back: 11, oldest_held, ..QueueFigures::named("sms") };
    assert!(diagnose(facts([held(seconds(10))])).findings.is_empty(), "a limit does what it is for");
    let mut facts = facts([held(seconds(600))]);
    facts.brakes = vec![brake("b1", Some("sms")), brake("b2", Some("email")), brake("b3", None)];
    let diagnosis = diagnose(facts);
    let finding = &diagnosis.findings[0];
    assert_eq!(
        finding.sentence,
        "Queue `sms` has 311 tasks that limits or brakes hold, the oldest for 10 min."
    );
    assert_eq!(
        finding.causes[0].says,
        "311 of its tasks are held by a limit, or by one of the brakes `b1`, `b3`."
    );
    let remedies: Vec<&str> = finding.causes[0].remedies.iter().map(|remedy| remedy.says.as_str()).collect();
    assert!(remedies[0].contains("celeriac brake remove b1") && remedies[2].contains("celeriac why"));
}

#[test]
fn the_worst_stands_first_and_a_failed_broker_before_all() {
    let stuck = QueueFigures { stuck: 2, ..QueueFigures::named("cpu") };
    let at_risk = QueueFigures { oldest_wait: seconds(27), ..late() };
    let blocked = QueueFigures { ready: 1, blockage: seconds(301), ..QueueFigures::named("slow") };
    let mut facts = facts([stuck, at_risk, QueueFigures { name: "worse".to_owned(), ..late() }, blocked]);
    let names = |diagnosis: &Diagnosis| {
        let all = diagnosis.findings.iter().map(|finding| finding.queue.clone().unwrap_or_default());
        all.collect::<Vec<_>>()
    };
    assert_eq!(names(&diagnose(facts.clone())), ["worse", "slow", "export", "cpu"]);
    let unexplained = diagnose(facts.clone());
    assert_eq!(causes(unexplained.of_queue("slow").expect("a finding")), ["not_found"]);
    facts.failures =
        vec![ProgramFailure { node: Some("celeriac@a".to_owned()), error: "the disk is full".to_owned() }];
    let failed = diagnose(facts);
    assert_eq!(names(&failed)[0], "");
    assert!(
        failed.sentence.starts_with("The broker of `celeriac@a` has failed. Its error is: the disk is full."),
        "{failed}"
    );
}

#[test]
fn a_fleet_counts_what_waits_once_and_is_blocked_only_as_a_whole() {
    let program = |queue: QueueFigures, pid| ReportFacts {
        processes: vec![ProcessFigures { pid, ..ProcessFigures::default() }],
        lanes: vec![lane(Some("export"))],
        ..facts([queue])
    };
    let one = program(QueueFigures { blockage: seconds(600), ..late() }, 1);
    let other = program(QueueFigures { ready: 230, paused: true, workers: 2, running: 1, ..late() }, 2);
    let silent = program(QueueFigures { service: QueueService::Silent, ..QueueFigures::named("export") }, 3);
    let all = one.merged([silent, other]);
    assert_eq!((all.queues.len(), all.lanes.len(), all.processes.len()), (1, 1, 3));
    let queue = &all.queues[0];
    assert_eq!((queue.workers, queue.running, queue.ready), (6, 5, 231));
    assert_eq!((queue.blockage, queue.paused, queue.service), (Duration::ZERO, false, QueueService::Served));
}

#[test]
fn facts_travel_as_json_and_what_is_not_sent_is_not_known() {
    let run = LongestRun { id: "9f0c".to_owned(), task: "app.export".to_owned(), since: NOW };
    let mut sent = facts([QueueFigures { longest_run: Some(run), ..late() }]);
    sent.lanes = vec![lane(None)];
    let text = serde_json::to_string(&sent).expect("JSON");
    assert_eq!(serde_json::from_str::<ReportFacts>(&text).expect("facts"), sent);
    let short: ReportFacts =
        serde_json::from_value(json!({"queues": [{"name": "a", "ready": 2}], "new": 1})).expect("facts");
    assert_eq!(short.queues, [QueueFigures { ready: 2, ..QueueFigures::named("a") }]);
    assert!(serde_json::from_value::<ReportFacts>(json!({"queues": [{"p50_ms": -1}]})).is_err());
    let told = json!(diagnose(sent));
    assert_eq!(
        (&told["findings"][0]["queue"], &told["findings"][0]["condition"]),
        (&json!("export"), &json!("late"))
    );
    assert_eq!(told["findings"][0]["since"], json!("2026-11-22T11:59:40+00:00"));
    assert_eq!(told["findings"][0]["causes"][0]["remedies"][0]["by"], json!("operator"));
    assert_eq!(told["as_of"], json!("2026-11-22T12:00:00+00:00"));
}

proptest! {
    /// Whatever the figures are: each finding has a cause and a sentence, none is both a cause and ruled out, and a queue whose
    /// condition needs a person has a finding.
    #[test]
    fn any_figures_are_explained(
        numbers in prop::array::uniform8(0u64..400),
        switches in prop::array::uniform5(any::<bool>()),
        target in prop::option::of(0u64..400),
        service in 0usize..4,
    ) {
        let [ready, running, workers, held, waited, blocked, held_for, top] = numbers;
        let [paused, away, is_halted, looked, is_part] = switches;
        let services =
            [QueueService::Served, QueueService::Silent, QueueService::ProgramStopped, QueueService::NoProgram];
        let queue = QueueFigures {
            ready,
            running: usize::try_from(running).unwrap_or(0),
            workers: usize::try_from(workers).unwrap_or(0),
            held,
            oldest_wait: seconds(waited),
            blockage: seconds(blocked * 2),
            oldest_held: seconds(held_for * 2),
            target: target.map(seconds),
            paused,
            away,
            halted: is_halted.then(|| "it has died".to_owned()),
            service: services[service],
            top_tenant: looked.then(|| TopTenant {
                tenant: "t".to_owned(),
                ready: top,
                tenants: 2,
                or_more: is_part,
            }),
            ..QueueFigures::named("q")
        };
        let needs = QueueCondition::of(&queue).needs_a_person();
        let diagnosis = diagnose(facts([queue]));
        prop_assert!(!needs || diagnosis.of_queue("q").is_some());
        for finding in &diagnosis.findings {
            prop_assert!(!finding.causes.is_empty() && finding.sentence.ends_with('.'));
            for cause in &finding.causes {
                prop_assert!(cause.says.ends_with('.'));
                prop_assert!(cause.code == "held" || cause.says.starts_with(char::is_uppercase));
                prop_assert!(!ruled_out(finding).contains(&cause.code), "{:?}", finding);
            }
        }
    }
}
