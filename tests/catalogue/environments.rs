//! Overrides of columns and aliases.

use std::time::Duration;

use celeriac::catalogue::{Catalogue, Pool, QueueRow};

use crate::{errors_of, parse};

#[test]
fn environments_lay_their_columns_and_aliases_over_the_base() {
    let text = "[[queue]]\nname = \"a\"\n[[queue]]\nname = \"b\"\nworkers = 9\n[aliases]\nx = \"a\"\ny = \"x\"\n\
                [routes]\nt = \"y\"\n[environment.live.queue.a]\nio_bound = true\ntarget = \"90s\"\n\
                [environment.live.queue.b]\nio_bound = true\n[environment.live.aliases]\nx = \"b\"\nz = \"y\"\n";
    let base = parse(text);
    let live = base.for_environment("live").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(base.queue("a"), Some(&QueueRow::new("a")));
    let expected = QueueRow::new("a").with_io_bound(true).with_target(Duration::from_secs(90));
    assert_eq!(live.queue("a"), Some(&expected));
    assert_eq!((expected.pool, expected.workers), (Pool::Io, 50));
    assert_eq!(live.queue("b"), Some(&QueueRow::new("b").with_workers(9).with_io_bound(true)));
    assert_eq!((base.resolve("y"), live.resolve("y"), live.resolve("z")), (Some("a"), Some("b"), Some("b")));
    assert_eq!((base.route("t"), live.route("t"), live.route("u")), (Some("a"), Some("b"), None));
    assert_eq!((base.resolve("z"), base.queue("nobody")), (None, None));

    let with_setup = "[[queue]]\nname = \"a\"\nmax_priority = 5\nqueue_arguments = { x-max-length = 9, y = [1, { z = 1.5 }] }\n\
                [environment.live.queue.a]\nmax_priority = 9\n\
                [environment.cluster.queue.a]\nqueue_type = \"quorum\"\n";
    let base_of_a = parse(with_setup);
    let live = base_of_a.for_environment("live").unwrap_or_else(|errors| panic!("{errors}"));
    let arguments = serde_json::json!({"x-max-length": 9, "y": [1, {"z": 1.5}]});
    let expected = QueueRow::new("a")
        .with_max_priority(9)
        .with_queue_arguments(arguments.as_object().cloned().expect("an object"));
    assert_eq!(live.queue("a"), Some(&expected));
    assert!(
        expected
            .explain()
            .ends_with("; on RabbitMQ priorities up to 9, x-max-length = 9, y = [1,{\"z\":1.5}]")
    );
    let cluster = base_of_a.for_environment("cluster").and_then(|catalogue| catalogue.validate());
    let refused = cluster.err().map(|errors| errors.to_string()).unwrap_or_default();
    assert!(refused.contains("\"max_priority\" in queue \"a\" is 5; quorum queues take none"), "{refused}");

    let unknown = |name: &str| base.for_environment(name).err().map(|errors| errors.to_string());
    assert_eq!(
        unknown("liv").as_deref(),
        Some("celeriac.toml: unknown environment \"liv\"; did you mean \"live\"?")
    );
    assert_eq!(
        unknown("moon").as_deref(),
        Some("celeriac.toml: unknown environment \"moon\"; the file has live")
    );
    let none = Catalogue::new().for_environment("live").err().map(|errors| errors.to_string());
    assert_eq!(
        none.as_deref(),
        Some("catalogue: unknown environment \"live\"; the file has no [environment...] at all")
    );
    // An override by alias would hit another queue in each environment.
    let by_alias = text.replace("live.queue.a]", "live.queue.y]");
    assert_eq!(
        errors_of(&by_alias),
        "celeriac.toml:11:25: environment \"live\" changes queue \"y\", but there is no such queue; it is an alias: \
         write \"a\""
    );
    // A circle that only this environment closes.
    let circle = text.replace("x = \"b\"", "x = \"y\"");
    assert_eq!(
        errors_of(&circle),
        "celeriac.toml:17:1: aliases run in a circle: \"x\" -> \"y\" -> \"x\"; let one of them lead to a queue"
    );
}

/// HQ's throttle holds in production only: there it is a row of the environment.
#[test]
fn routes_of_an_environment_hold_there_only_and_come_first() {
    let text = "[[queue]]\nname = \"slow\"\n[[queue]]\nname = \"fast\"\n[routes]\na = \"fast\"\nb = \"fast\"\n\
                [[route]]\ntask = \"send_*\"\nqueue = \"fast\"\n\
                [environment.live.aliases]\nthrottled = \"slow\"\n[environment.live.routes]\na = \"throttled\"\n\
                [[environment.live.route]]\ntask = \"send_report\"\nargument = \"domain\"\nmatches = [\"mvp-\"]\n\
                queue = \"throttled\"\n";
    let base = parse(text);
    let live = base.for_environment("live").unwrap_or_else(|errors| panic!("{errors}"));
    let rows =
        |catalogue: &Catalogue| catalogue.route_rows.iter().map(ToString::to_string).collect::<Vec<_>>();
    let everywhere = "\"send_*\" goes to fast";
    assert_eq!(rows(&base), [everywhere]);
    assert_eq!(rows(&live), ["\"send_report\" with \"domain\" like /mvp-/ goes to throttled", everywhere]);
    assert_eq!(
        (base.route("a"), live.route("a"), live.route("b")),
        (Some("fast"), Some("slow"), Some("fast"))
    );
    // An alias of one environment is unknown in the others.
    let elsewhere = text.replace("[environment.live.routes]", "[environment.test.routes]");
    assert!(errors_of(&elsewhere).contains("route \"a\" leads to \"throttled\", but there is no such queue"));
}
