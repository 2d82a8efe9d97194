//! What a row says against the flood of one tenant: partitions, and where calls above a rate go.

use celeriac::catalogue::{Catalogue, QueueRow};
use celeriac::core::token_bucket::RateLimit;

use crate::{errors_of, parse};

const TEXT: &str = r#"
[[queue]]
name = "celery"
target = "1h"
workers = 2
partitions = 8
demote_above = "30/m"
demote_to = "slow"

[[queue]]
name = "slow_queue"
target = "1h"

[aliases]
slow = "slow_queue"

[environment.live.queue.celery]
partitions = 16
demote_above = "60/m"
"#;

#[test]
fn a_row_says_how_many_partitions_it_has_and_where_calls_above_its_rate_go() {
    let catalogue = parse(TEXT);
    let row = &catalogue.queues[0];
    assert_eq!(row.setup.partitions, Some(8));
    assert_eq!(row.demote_above.as_ref().map(RateLimit::text), Some("30/m"));
    assert_eq!(row.demote_to.as_deref(), Some("slow"));
    assert_eq!(
        row.explain(),
        "celery: a task starts at most 1h after it is due; 2 run at a time on threads of their own, up to 2 held over \
         RabbitMQ, up to 1024 of the embedded store; calls of a tenant above 30/m go to slow; on RabbitMQ 8 partitions (no \
         effect on other brokers, where tenants take turns anyway)"
    );
    let live = catalogue.for_environment("live").unwrap();
    assert_eq!(live.queues[0].setup.partitions, Some(16));
    assert_eq!(live.queues[0].demote_to.as_deref(), Some("slow"));
}

/// Each row, and what is said of it.
#[test]
fn what_cannot_be_is_refused_with_what_to_do() {
    let advice = "write 2 to 64, or remove it: without it there is one queue";
    for (keys, said) in [
        ("partitions = 0", format!(r#""partitions" in queue "celery" is 0; {advice}"#)),
        ("partitions = 1", format!(r#""partitions" in queue "celery" is 1; {advice}"#)),
        ("partitions = 65", format!(r#""partitions" in queue "celery" is 65; {advice}"#)),
        ("partitions = 300", format!(r#""partitions" in queue "celery" is 300; {advice}"#)),
        (
            "partitions = 2\nbroadcast = true",
            r#""partitions" in queue "celery" is 2; every process has a queue of its own for a broadcast"#.to_owned(),
        ),
        (
            "partitions = 2\nqueue_arguments = { x-single-active-consumer = true }",
            r#""partitions" in queue "celery" is 2; x-single-active-consumer keeps the order of one queue"#.to_owned(),
        ),
        (
            "partitions = 2\n[[queue]]\nname = \"celery.1\"",
            r#""partitions" in queue "celery" is 2; one of its partitions is called "celery.1", which is another row"#
                .to_owned(),
        ),
        (r#"demote_above = "30/m""#, r#"queue "celery" has no demote_to; add demote_to = "slow_queue""#.to_owned()),
        (r#"demote_to = "slow""#, r#"queue "celery" has no demote_above; add demote_above = "30/m""#.to_owned()),
        (
            "demote_above = \"0\"\ndemote_to = \"slow\"",
            r#""demote_above" in queue "celery" is "0"; write a rate above zero such as "30/m", or remove it"#.to_owned(),
        ),
        (
            "demote_above = \"1/s\"\ndemote_to = \"sloww\"",
            r#"queue "celery" demotes to "sloww", but there is no such queue; did you mean "slow"?"#.to_owned(),
        ),
        (
            "demote_above = \"1/s\"\ndemote_to = \"celery\"",
            r#""demote_to" in queue "celery" is "celery"; it is this queue itself: name another queue"#.to_owned(),
        ),
        (
            "demote_above = \"1/s\"\ndemote_to = \"slow\"\n[[queue]]\nname = \"next\"\ndemote_above = \"1/s\"\ndemote_to = \"celery\"",
            r#""demote_to" in queue "next" is "celery"; that queue demotes calls too"#.to_owned(),
        ),
        (
            "demote_above = \"1/s\"\ndemote_to = \"news\"\n[[queue]]\nname = \"news\"\nbroadcast = true",
            r#""demote_to" in queue "celery" is "news"; every process runs each of its tasks: name another queue"#
                .to_owned(),
        ),
    ] {
        let errors = errors_of(&format!("[[queue]]\nname = \"slow\"\n[[queue]]\nname = \"celery\"\n{keys}\n"));
        assert!(errors.contains(&said), "{keys}:\n{errors}");
    }
}

#[test]
fn a_circle_that_only_an_environment_makes_is_found() {
    let text = "[[queue]]\nname = \"a\"\ndemote_above = \"1/s\"\ndemote_to = \"b\"\n[[queue]]\nname = \"b\"\n\
                [environment.live.queue.b]\ndemote_above = \"1/s\"\ndemote_to = \"a\"\n";
    let errors = errors_of(text);
    let circle = "that queue demotes calls too, and a call is demoted once: name a queue that does not";
    for (queue, to) in [("a", "b"), ("b", "a")] {
        let said = format!(r#""demote_to" in environment "live", queue "{queue}" is "{to}"; {circle}"#);
        assert!(errors.contains(&said), "{errors}");
    }
    assert_eq!(errors.lines().count(), 2, "{errors}");
}

#[test]
fn a_catalogue_that_is_built_in_code_obeys_the_same_rules() {
    let rows = |row: QueueRow| Catalogue::new().with_queue(row).with_queue(QueueRow::new("slow")).validate();
    let rate = RateLimit::parse("5/m").unwrap().unwrap();
    let good = QueueRow::new("celery").with_partitions(64);
    assert_eq!(rows(good.clone().with_demote_above(rate.clone()).with_demote_to("slow")), Ok(()));
    for (row, key) in [
        (QueueRow::new("celery").with_partitions(1), "partitions"),
        (QueueRow::new("celery").with_partitions(255), "partitions"),
        (QueueRow::new("c".repeat(254)).with_partitions(2), "255 bytes"),
        (good.clone().with_demote_above(rate), "demote_to"),
        (good.with_demote_to("slow"), "demote_above"),
    ] {
        let errors = rows(row).unwrap_err().to_string();
        assert!(errors.contains(key) && errors.lines().count() == 1, "{errors}");
    }
}
