//! Reads `[tenants.weights]`: how much of the slots each tenant gets beside others.

use std::collections::BTreeMap;

use super::check::{MistakeSubject, SubjectPositions};
use super::section::{Section, SourceText};
use crate::core::slots::TenantWeight;

/// What to write in the place of a weight that is none.
pub(super) const ADVICE: &str =
    "write a number from 0.001 to 1000000, where 1 is the share of a tenant that is not listed";

/// Reads the table `tenants` of the file.
pub(super) fn read(
    root: &Section<'_>,
    places: &mut SubjectPositions,
    source: &mut SourceText<'_>,
) -> BTreeMap<String, f64> {
    let mut weights = BTreeMap::new();
    let Some(tenants) = root.table("tenants", "in [tenants]".to_owned(), source) else { return weights };
    tenants.refuse_unknown_keys(&["weights"], source);
    let Some(table) = tenants.table("weights", "in [tenants.weights]".to_owned(), source) else {
        return weights;
    };
    for (tenant, item) in table.iter() {
        let number = item.as_float().or_else(|| item.as_integer().map(|number| number as f64));
        let Some(weight) = number else {
            table.report_wrong_type(tenant, item, "a number such as 2.0", source);
            continue;
        };
        if TenantWeight::new(weight).is_none() {
            table.report_bad_value(tenant, item, ADVICE.to_owned(), source);
            continue;
        }
        places.insert(MistakeSubject::TenantWeight(tenant.to_owned()), source.position(table.key_at(tenant)));
        weights.insert(tenant.to_owned(), weight);
    }
    weights
}
