//! Reads `[tenants.weights]`: how much of the slots each tenant gets beside others.

use std::collections::BTreeMap;

use toml_edit::Item;

use super::section::{Section, SourceText};
use crate::core::slots::TenantWeight;

/// What to write in the place of a weight that is none.
pub(super) const ADVICE: &str =
    "write a number from 0.001 to 1000000, where 1 is the share of a tenant that is not listed";

/// Reads the weights in the table `tenants` of the file or of an environment. What else is wrong with that table,
/// [`tenants`](super::tenants) tells.
pub(super) fn read(
    section: &Section<'_>,
    environment: Option<&str>,
    source: &mut SourceText<'_>,
) -> BTreeMap<String, f64> {
    let mut weights = BTreeMap::new();
    let Some(tenants) = section.get("tenants").and_then(Item::as_table_like) else { return weights };
    let place = |table: &str| match environment {
        Some(_) => format!("{} under {table}", section.place),
        None => format!("in [{table}]"),
    };
    let tenants = Section::new(tenants, section.key_at("tenants"), place("tenants"));
    let Some(table) = tenants.table("weights", place("tenants.weights"), source) else { return weights };
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
        weights.insert(tenant.to_owned(), weight);
    }
    weights
}
