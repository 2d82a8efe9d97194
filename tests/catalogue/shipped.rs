//! The shipped file against HQ's table.

use std::time::Duration;

use celeriac::catalogue::{Pool, TargetClass, WarningKind};

use crate::{SHIPPED, parse};

/// HQ's table: name, I/O bound, class, target in seconds, which texts are there (comment, description, typical
/// duration, notes), workers in production.
type Expected = (&'static str, Option<bool>, Option<TargetClass>, Option<u64>, &'static str, Option<usize>);

#[rustfmt::skip]
const TABLE: [Expected; 24] = {
    use TargetClass::{Hours, Minutes, Seconds};
    [
        ("send_report_throttled", None, Some(Hours), Some(21600), "cd--", Some(2)),
        ("submission_reprocessing_queue", Some(false), Some(Hours), Some(3600), "cdt-", Some(4)),
        ("sumologic_logs_queue", Some(true), Some(Hours), Some(21600), "cdtn", Some(50)),
        ("analytics_queue", Some(true), Some(Minutes), Some(1800), "-dt-", Some(16)),
        ("reminder_case_update_queue", None, Some(Minutes), Some(900), "-dt-", Some(480)),
        ("reminder_queue", Some(true), Some(Minutes), Some(900), "cdt-", Some(240)),
        ("reminder_rule_queue", None, Some(Minutes), Some(900), "-dt-", Some(4)),
        ("repeat_record_queue", None, Some(Minutes), Some(900), "cdt-", Some(288)),
        ("sms_queue", Some(true), Some(Minutes), Some(300), "cdt-", Some(80)),
        ("async_restore_queue", Some(false), Some(Seconds), Some(60), "-d--", Some(32)),
        ("case_import_queue", None, Some(Seconds), Some(60), "-dt-", Some(12)),
        ("email_queue", Some(true), Some(Seconds), Some(30), "cdt-", Some(536)),
        ("export_download_queue", None, Some(Seconds), Some(30), "cdt-", Some(16)),
        ("icds_dashboard_reports_queue", None, Some(Seconds), None, "c---", None),
        ("background_queue", None, None, Some(600), "--t-", Some(12)),
        ("case_rule_queue", None, None, Some(3600), "-dt-", Some(12)),
        ("celery", None, None, Some(60), "----", Some(16)),
        ("celery_periodic", None, None, Some(600), "--tn", Some(16)),
        ("icds_aggregation_queue", Some(true), None, None, "cd--", None),
        ("logistics_background_queue", None, None, None, "-d--", Some(2)),
        ("logistics_reminder_queue", None, None, None, "-d--", Some(2)),
        ("saved_exports_queue", None, None, Some(21600), "-dtn", Some(12)),
        ("ucr_indicator_queue", Some(false), None, Some(3600), "-d--", Some(20)),
        ("ucr_queue", Some(false), None, Some(3600), "-dtn", Some(36)),
    ]
};

#[test]
fn the_shipped_file_has_every_queue_and_column_of_hq() {
    let base = parse(SHIPPED);
    let production = base.for_environment("production").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(base.queues.len(), TABLE.len());
    for (row, (name, io_bound, class, target, texts, workers)) in base.queues.iter().zip(TABLE) {
        let letter = |text: &Option<String>, letter| if text.is_some() { letter } else { '-' };
        let found: String = [
            letter(&row.target_comment, 'c'),
            letter(&row.description, 'd'),
            letter(&row.typical_duration, 't'),
            letter(&row.notes, 'n'),
        ]
        .iter()
        .collect();
        let target = target.map(Duration::from_secs);
        assert_eq!(
            (row.name.as_str(), row.io_bound, row.target_class, row.target, found.as_str()),
            (name, io_bound, class, target, texts)
        );
        let in_production = production.queue(name).map(|row| row.workers);
        assert_eq!(in_production, Some(workers.unwrap_or(row.workers)), "{name}");
    }
    let pools: Vec<_> =
        base.queues.iter().filter(|row| row.pool == Pool::Io).map(|row| row.name.as_str()).collect();
    assert_eq!(
        pools,
        [
            "sumologic_logs_queue",
            "analytics_queue",
            "reminder_case_update_queue",
            "reminder_queue",
            "repeat_record_queue",
            "sms_queue",
            "email_queue"
        ]
    );
    assert_eq!(base.default_queue, "celery");
    assert_eq!(base.resolve("reminder_case_update_bulk_queue"), Some("reminder_rule_queue"));
    assert_eq!(base.environments().collect::<Vec<_>>(), ["production"]);
    assert_eq!(production.queue("repeat_record_queue").and_then(|row| row.prefetch), Some(288));
    assert_eq!(base.validate(), Ok(()));
    assert_eq!(production.validate(), Ok(()));
    // Four queues have no number anywhere; nothing else is doubtful, here or in production.
    for catalogue in [base, production] {
        let warnings: Vec<_> = catalogue.warnings().into_iter().map(|warning| warning.kind).collect();
        assert_eq!(warnings, vec![WarningKind::NoTarget; 4]);
    }
}
