//! A brake as its form says it, and the brake that holds one tenant back.
//!
//! Invariants:
//! - A form that makes no brake says which field is at fault, and what to write there.
//! - A brake that is about every task is set only by a form that says that this is meant.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::problem::ConsoleProblem;
use super::words;
use crate::catalogue::parse_span;
use crate::core::Timestamp;
use crate::core::brake::{Brake, BrakeAction, BrakeError, BrakeRule};
use crate::core::did_you_mean;

/// The fields of the form, as the address of a dry run has them.
pub(super) const FIELDS: [&str; 11] =
    ["task", "queue", "tenant", "argument", "matches", "all", "action", "rate", "divert_to", "for", "reason"];
/// The field by which somebody says that every task is meant.
pub(super) const SURE: &str = "sure";
/// What a brake does, by its word, and in words.
pub(super) const ACTIONS: [(&str, &str); 4] = [
    ("pause", "pause: none of them starts"),
    ("slow", "slow: they start at a rate at most"),
    ("divert", "divert: they go to another queue"),
    ("expire", "expire: they are over, as REVOKED"),
];

/// What a form says of a brake.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BrakeForm {
    /// The brake, without its end.
    brake: Brake,
    /// How long it holds. `None`: until somebody takes it away.
    lasts: Option<Duration>,
}

impl BrakeForm {
    /// Reads the fields of a form or of an address.
    pub(super) fn read<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Self, ConsoleProblem> {
        let text = |name: &str| get(name).map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        let mut rule = if get("all").is_some() { BrakeRule::all() } else { BrakeRule::new() };
        (rule.task, rule.queue, rule.tenant) = (text("task"), text("queue"), text("tenant"));
        rule = match (text("argument"), text("matches")) {
            (Some(argument), Some(pattern)) => rule.argument(argument, [pattern]),
            (None, None) => rule,
            (Some(argument), None) => {
                let shown = words::line(&argument, 40);
                let text = format!("`matches` is missing: say what the argument `{shown}` has to match.");
                return Err(ConsoleProblem::malformed(text));
            }
            (None, Some(_)) => {
                return Err(ConsoleProblem::malformed(
                    "`argument` is missing: name the argument that has to match.",
                ));
            }
        };
        let reason = text("reason");
        let mut brake = Brake::new(rule, action(&text)?);
        brake.reason = reason;
        // It gets an id when it is set.
        brake.clone().id("new").check().map_err(refused)?;
        Ok(Self { brake, lasts: lasts(text("for").as_deref())? })
    }

    /// Which tasks are meant.
    pub(super) fn rule(&self) -> &BrakeRule {
        &self.brake.rule
    }

    /// What happens to them.
    pub(super) fn action(&self) -> &BrakeAction {
        &self.brake.action
    }

    /// The tenant, if the rule is about one alone.
    pub(super) fn tenant(&self) -> Option<&str> {
        tenant_of(&self.brake.rule)
    }

    /// The brake that is to be set now.
    pub(super) fn brake(&self, now: Timestamp) -> Brake {
        let brake = self.brake.clone();
        match self.lasts {
            Some(lasts) => brake.until(now + lasts),
            None => brake,
        }
    }

    /// How long it holds, in words.
    pub(super) fn ends(&self) -> String {
        match self.lasts {
            Some(lasts) => format!("for {}", words::span(lasts)),
            None => "until somebody takes it away".to_owned(),
        }
    }

    /// Whether the rule is about every task, or about those of every tenant, whatever its conditions look like.
    pub(super) fn is_about_everything(&self) -> bool {
        let BrakeRule { task, queue, tenant, argument, all } = &self.brake.rule;
        let is_any = |pattern: &Option<String>| {
            pattern.as_deref().is_none_or(|pattern| pattern.bytes().all(|byte| byte == b'*'))
        };
        *all || (queue.is_none() && argument.is_none() && is_any(task) && is_any(tenant))
    }
}

/// What is to happen to the tasks.
fn action(text: &impl Fn(&str) -> Option<String>) -> Result<BrakeAction, ConsoleProblem> {
    let (rate, divert_to) = (text("rate"), text("divert_to"));
    let missing = |text: &str| Err(ConsoleProblem::malformed(text));
    Ok(match text("action").unwrap_or_default().as_str() {
        "pause" => BrakeAction::Pause,
        "expire" => BrakeAction::Expire,
        "slow" => match rate {
            Some(rate) => BrakeAction::slow(rate),
            None => return missing("`rate` is missing: say how fast the tasks may start, such as 10/m."),
        },
        "divert" => match divert_to {
            Some(queue) => BrakeAction::divert(queue),
            None => return missing("`divert_to` is missing: name the queue to which the tasks go."),
        },
        other => {
            let hint = did_you_mean::hint(other, ACTIONS.map(|(word, _)| word));
            let shown = words::line(other, 40);
            let text = format!("`{shown}` is no action: write pause, slow, divert or expire{hint}");
            return Err(ConsoleProblem::malformed(text));
        }
    })
}

/// How long a brake is to hold.
pub(super) fn lasts(text: Option<&str>) -> Result<Option<Duration>, ConsoleProblem> {
    let Some(text) = text else { return Ok(None) };
    let span = parse_span(text).filter(|span| !span.is_zero());
    span.map(Some).ok_or_else(|| {
        let shown = words::line(text, 40);
        ConsoleProblem::malformed(format!("`{shown}` is no span of time for `for`: write 30m, 1h or 2d."))
    })
}

/// A brake that is refused, in the words of the form.
fn refused(error: BrakeError) -> ConsoleProblem {
    ConsoleProblem::malformed(match error {
        BrakeError::NoCondition => {
            "The brake has no condition, so it would be about every task: name a task, a queue, a tenant or an argument; or say that every task is meant."
                .to_owned()
        }
        BrakeError::AllWithConditions => {
            "The brake is about every task and has conditions as well: leave one of the two out.".to_owned()
        }
        error => error.to_string(),
    })
}

/// The tenant, if a rule is about one alone.
pub(super) fn tenant_of(rule: &BrakeRule) -> Option<&str> {
    rule.tenant.as_deref().filter(|tenant| !tenant.contains(['*', '?', '[']))
}

/// The id of the brake that holds this tenant back: the same one whoever sets it, so that nobody sets two.
pub(super) fn tenant_brake_id(tenant: &str) -> String {
    format!("tenant-{:016x}", xxh3_64(tenant.as_bytes()))
}

/// The brake that holds a tenant back in all queues.
pub(super) fn tenant_brake(tenant: &str, until: Timestamp) -> Brake {
    // A name may have characters that stand for others in a pattern.
    let exactly: String = tenant
        .chars()
        .map(|letter| if "*?[".contains(letter) { format!("[{letter}]") } else { letter.to_string() })
        .collect();
    Brake::new(BrakeRule::new().tenant(exactly), BrakeAction::Pause)
        .id(tenant_brake_id(tenant))
        .reason("paused in the console")
        .until(until)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, &str)]) -> Result<BrakeForm, String> {
        let get = |name: &str| fields.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        BrakeForm::read(get).map_err(|problem| problem.text().to_owned())
    }

    #[test]
    fn a_brake_is_read_from_its_form() {
        let fields = [
            ("task", " exports.* "),
            ("tenant", "acme"),
            ("argument", "domain"),
            ("matches", "mvp-"),
            ("queue", ""),
            ("action", "slow"),
            ("rate", "6/m"),
            ("for", "1h"),
            ("reason", "too many"),
        ];
        let form = read(&fields).expect("a brake");
        let expected = BrakeRule::new().task("exports.*").tenant("acme").argument("domain", ["mvp-"]);
        assert_eq!((form.rule(), form.action()), (&expected, &BrakeAction::slow("6/m")));
        assert_eq!((form.tenant(), form.ends().as_str()), (Some("acme"), "for 1 h"));
        let now = Timestamp::from_millis(5);
        let brake = form.brake(now);
        assert_eq!(
            (brake.until, brake.reason.as_deref()),
            (Some(now + Duration::from_secs(3_600)), Some("too many"))
        );
        assert!(!form.is_about_everything());
    }

    #[test]
    fn a_form_that_makes_no_brake_says_what_to_write() {
        for (fields, text) in [
            (&[][..], "`` is no action"),
            (&[("action", "paus"), ("task", "a")], "did you mean `pause`?"),
            (&[("action", "pause")], "about every task"),
            (&[("action", "pause"), ("all", "1"), ("task", "a")], "leave one of the two out"),
            (&[("action", "slow"), ("task", "a")], "`rate` is missing"),
            (&[("action", "slow"), ("task", "a"), ("rate", "2/week")], "write a rate such as 10/s"),
            (&[("action", "divert"), ("task", "a")], "`divert_to` is missing"),
            (&[("action", "pause"), ("argument", "a")], "`matches` is missing"),
            (&[("action", "pause"), ("matches", "a")], "`argument` is missing"),
            (&[("action", "pause"), ("argument", "a"), ("matches", "(")], "regular expression"),
            (&[("action", "pause"), ("task", "a"), ("for", "soon")], "`soon` is no span of time"),
            (&[("action", "pause"), ("task", "a"), ("for", "0s")], "no span of time"),
        ] {
            let error = read(fields).expect_err(text);
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn what_is_about_everything_is_known_whatever_it_looks_like() {
        let is_all = |fields: &[(&str, &str)]| {
            read(&[&[("action", "pause")][..], fields].concat()).expect("a brake").is_about_everything()
        };
        for fields in
            [&[("all", "1")][..], &[("task", "*")], &[("tenant", "**")], &[("task", "*"), ("tenant", "*")]]
        {
            assert!(is_all(fields), "{fields:?}");
        }
        for fields in
            [&[("task", "a*")][..], &[("queue", "q")], &[("task", "*"), ("queue", "q")], &[("tenant", "a")]]
        {
            assert!(!is_all(fields), "{fields:?}");
        }
    }

    #[test]
    fn the_brake_of_a_tenant_is_about_that_one_alone() {
        let now = Timestamp::from_millis(5);
        for tenant in ["acme", "a*c[me]?", "<script>"] {
            let brake = tenant_brake(tenant, now);
            assert_eq!(brake.check(), Ok(()), "{tenant}");
            let matcher = brake.rule.compile().expect("a rule");
            assert!(matcher.matches_names("t", "q", Some(tenant)), "{tenant}");
            for other in ["acmee", "axc[me]x", "acme*", ""] {
                assert!(!matcher.matches_names("t", "q", Some(other)), "{tenant} {other}");
            }
        }
        assert_ne!(tenant_brake_id("acme"), tenant_brake_id("zoo"));
    }
}
