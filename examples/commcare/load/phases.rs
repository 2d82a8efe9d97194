//! What the load enqueues, phase by phase, and what follows from it.

use celeriac::task::State;

use super::{
    BAD_EVENTS, CHANGED, Call, EVENTS, EXPORTS, FACILITIES, LOGS, Load, MAILS, MESSAGES, RECORDS,
    RECORDS_TO_NOWHERE, REPORTS, RESTORES, STUBS, THROTTLED_REPORTS, cases,
};
use crate::tasks::{
    accounting, analytics, async_restore, case_importer, data_interfaces, domain, email, export, icds,
    locations, logistics, receiverwrapper, reminders, reports, sms, sumologic, ucr,
};
use crate::web::sink::is_unlucky;

impl Load {
    pub(super) fn phases(&self) -> Vec<Vec<Call>> {
        vec![self.arrivals(), self.changes(), self.readers(), self.summaries()]
    }

    /// How many runs a post takes: one in five meets a busy server first.
    fn posts(id: &str) -> u32 {
        if is_unlucky(id) { 2 } else { 1 }
    }

    /// Imports, and everything that is posted or mailed.
    fn arrivals(&self) -> Vec<Call> {
        let mut calls = Vec::new();
        for domain in [&self.domain, &self.throttled] {
            calls.push(Call::new(
                format!("import:{domain}"),
                case_importer::import_cases::s(domain.clone(), domain.clone(), 0),
            ));
        }
        for i in 0..EVENTS {
            let id = self.id("event", i);
            let call = Call::new(format!("analytics:{id}"), analytics::track_event::s(id.clone()));
            calls.push(match i < BAD_EVENTS {
                true => call.ends(State::Failure, "answered 400"),
                false => call.attempts(Self::posts(&id)),
            });
        }
        for i in 0..MESSAGES {
            let id = self.id("sms", i);
            let call = sms::process_sms::s(id.clone()).priority(u8::from(i % 10 == 0));
            calls.push(Call::new(format!("sms:{id}"), call).attempts(Self::posts(&id)));
        }
        for i in 0..LOGS {
            let id = self.id("log", i);
            let call = Call::new(format!("log:{id}"), sumologic::send_device_logs::s(id.clone()));
            calls.push(call.attempts(Self::posts(&id)));
        }
        for i in 0..RECORDS {
            let id = self.id("record", i);
            calls.push(if i < RECORDS_TO_NOWHERE {
                let call =
                    receiverwrapper::process_repeat_record::s(id.clone(), "down".into()).max_retries(2);
                Call::new(format!("repeat:{id}"), call).ends(State::Failure, "answered 503").attempts(3)
            } else {
                let call = receiverwrapper::process_repeat_record::s(id.clone(), "repeater".into());
                Call::new(format!("repeat:{id}"), call).attempts(Self::posts(&id))
            });
        }
        for i in 0..MAILS {
            let id = self.id("mail", i);
            let call = Call::new(format!("mail:{id}"), email::send_email::s(id));
            calls.push(if i == 0 { call.ends(State::Failure, "is no mail address") } else { call });
        }
        calls
    }

    /// What changes cases.
    fn changes(&self) -> Vec<Call> {
        let domain = &self.domain;
        let reassign = locations::reassign_cases::s(domain.clone(), "worker-3".into(), "worker-99".into());
        let rules =
            data_interfaces::run_case_update_rules::s(domain.clone(), cases::CLOSED_FROM, String::new(), 0);
        let mut calls = vec![
            Call::new(format!("reassign:{domain}"), reassign),
            Call::new(format!("rules:{domain}"), rules),
        ];
        for i in 0..STUBS + 2 {
            let id = self.id("stub", i);
            let call = Call::new(format!("stub:{id}"), receiverwrapper::reprocess_submission::s(id));
            calls.push(match i {
                _ if i < STUBS => call,
                STUBS => call.ends(State::Rejected, "cannot be read"),
                _ => call.ends(State::Failure, "does not exist"),
            });
        }
        calls
    }

    /// What reads cases.
    fn readers(&self) -> Vec<Call> {
        let domain = &self.domain;
        let rule = reminders::run_messaging_rule::s(self.rule(), String::new(), 0);
        let mut calls = vec![
            Call::new(format!("rule:{domain}"), rule),
            Call::new(format!("stock:{domain}"), logistics::sync_stock::s(domain.clone())),
        ];
        for i in 0..CHANGED {
            let case = self.watched(i);
            let id = format!("changed:{domain}.{case}");
            calls.push(Call::new(id, reminders::case_changed::s(domain.clone(), case)));
        }
        for i in 0..REPORTS + THROTTLED_REPORTS {
            let (id, its) = (self.id("report", i), if i < REPORTS { domain } else { &self.throttled });
            calls.push(Call::new(format!("report:{id}"), reports::send_report::s(id.clone(), its.clone())));
        }
        for i in 0..EXPORTS * 2 {
            let id = self.id("export", i);
            let call =
                if i < EXPORTS { export::for_a_user(domain, &id) } else { export::on_schedule(domain, &id) };
            calls.push(Call::new(format!("export:{id}"), call));
        }
        for i in 0..RESTORES {
            let user = format!("worker-{i}");
            let id = format!("restore:{domain}.{user}");
            calls.push(Call::new(id, async_restore::prime_restore::s(domain.clone(), user)));
        }
        for its in [domain, &self.throttled] {
            calls.push(Call::new(format!("ucr:{its}"), ucr::rebuild_table::s(its.clone(), String::new(), 0)));
            calls.push(Call::new(format!("aggregate:{its}"), icds::aggregate::s(its.clone(), 0)));
            let calculate = domain::update_calculated_properties::s(its.clone());
            calls.push(Call::new(format!("calculate:{its}"), calculate));
        }
        calls
    }

    /// What reads what the readers wrote.
    fn summaries(&self) -> Vec<Call> {
        let remind = logistics::remind_low_stock::s(self.domain.clone(), "today".into());
        let mut calls = vec![Call::new(format!("low:{}", self.domain), remind)];
        for its in [&self.domain, &self.throttled] {
            calls.push(Call::new(format!("indicators:{its}"), ucr::save_indicators::s(its.clone())));
            calls.push(Call::new(format!("dashboard:{its}"), icds::dashboard::s(its.clone())));
            let invoices = accounting::generate_invoices::s("2026-02".into(), Some(its.clone()));
            calls.push(Call::new(format!("invoices:{its}"), invoices));
        }
        calls
    }

    /// The cases that are said to have changed: of the rule's village and of its neighbour.
    fn watched(&self, i: usize) -> String {
        cases::id(5 + i / 2 * 37 + i % 2)
    }

    /// The cases that get a reminder.
    pub(super) fn reminded(&self) -> Vec<String> {
        let village = self.rule_village();
        let cases = self.expected_cases().into_iter();
        cases.filter(|(_, case)| case.village == village && case.visits <= 1).map(|(id, _)| id).collect()
    }

    /// Facilities whose stock is low.
    pub(super) fn low_facilities() -> impl Iterator<Item = String> {
        (0..FACILITIES).filter(|i| 30 < 2 * i + 10).map(|i| format!("facility-{i:02}"))
    }

    /// The ids of the tasks that follow from those of the phases.
    pub(super) fn followers(&self) -> Vec<String> {
        let (domain, throttled) = (&self.domain, &self.throttled);
        let mut ids = Vec::new();
        for its in [domain, throttled] {
            ids.push(format!("import:{its}:calculated"));
            ids.push(format!("mail:{its}.invoice.2026-02"));
        }
        ids.extend((0..REPORTS + THROTTLED_REPORTS).map(|i| format!("mail:{}", self.id("report", i))));
        for case in self.reminded() {
            let instance = format!("{}.{case}", self.rule());
            ids.push(format!("reminder:{instance}"));
            ids.push(format!("sms:{instance}"));
        }
        ids.extend(Self::low_facilities().map(|facility| format!("sms:{domain}.stock.{facility}.today")));
        ids
    }
}
