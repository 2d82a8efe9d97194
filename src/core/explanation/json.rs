//! An explanation as JSON, which docs/why-and-when.md explains field by field. Each reason has its facts and its sentence, so
//! that who reads the JSON needs neither the grammar nor the code.

use serde::{Serialize, Serializer};

use super::Explanation;
use super::facts::ExplanationScope;
use super::reason::TaskReason;
use super::remedy::Remedy;
use crate::core::Timestamp;
use crate::core::forecast::StartForecast;
use crate::core::hold::HoldReason;

#[derive(Serialize)]
struct ExplanationJson<'a> {
    id: &'a str,
    task: Option<&'a str>,
    queue: Option<&'a str>,
    tenant: Option<&'a str>,
    state: &'static str,
    sentence: String,
    reason: ReasonJson<'a>,
    reasons: Vec<ReasonJson<'a>>,
    ruled_out: Vec<RuledOutJson>,
    starts: Option<StartsJson<'a>>,
    #[serde(serialize_with = "crate::core::json_time::iso")]
    as_of: Timestamp,
    scope: &'a ExplanationScope,
}

#[derive(Serialize)]
struct ReasonJson<'a> {
    #[serde(flatten)]
    reason: &'a TaskReason,
    /// The id of the brake that holds the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    brake: Option<&'a str>,
    says: String,
    remedies: Vec<Remedy>,
}

#[derive(Serialize)]
struct RuledOutJson {
    code: &'static str,
    says: String,
}

#[derive(Serialize)]
struct StartsJson<'a> {
    #[serde(flatten)]
    forecast: &'a StartForecast,
    says: String,
}

impl<'a> ReasonJson<'a> {
    fn of(reason: &'a TaskReason, explanation: &Explanation) -> Self {
        let brake = match reason {
            TaskReason::Held { hold: HoldReason::Brake { id, .. }, .. } => Some(&**id),
            _ => None,
        };
        Self { reason, brake, says: explanation.says(reason), remedies: explanation.remedies(reason) }
    }
}

impl Serialize for Explanation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let speaker = self.speaker();
        let ruled_out = self.ruled_out.iter();
        let ruled_out = ruled_out.map(|it| RuledOutJson { code: it.code(), says: speaker.ruled_out(*it) });
        let starts = self.starts.as_ref();
        let json = ExplanationJson {
            id: &self.id,
            task: self.task.as_deref(),
            queue: self.queue.as_deref(),
            tenant: self.tenant.as_deref(),
            state: self.state(),
            sentence: self.sentence(),
            reason: ReasonJson::of(self.reason(), self),
            reasons: self.reasons.iter().map(|reason| ReasonJson::of(reason, self)).collect(),
            ruled_out: ruled_out.collect(),
            starts: starts.map(|forecast| StartsJson { forecast, says: speaker.starts(forecast) }),
            as_of: self.as_of,
            scope: &self.scope,
        };
        json.serialize(serializer)
    }
}
