//! Reads which arguments name the tenants of tasks: `tenant` at the top level or in `[defaults]`, and `[tenants.tasks]`
//! for each task by its name.

use std::collections::BTreeMap;

use super::check::{MistakeSubject, SubjectPositions};
use super::names;
use super::section::{Section, SourceText};

/// Reads the table `tenants` of the file or of an environment: from the names of tasks to the names of arguments.
pub(super) fn read(
    section: &Section<'_>,
    environment: Option<&str>,
    places: &mut SubjectPositions,
    source: &mut SourceText<'_>,
) -> BTreeMap<String, String> {
    let place = |table: &str| match environment {
        Some(_) => format!("{} under {table}", section.place),
        None => format!("in [{table}]"),
    };
    let Some(tenants) = section.table("tenants", place("tenants"), source) else { return BTreeMap::new() };
    tenants.refuse_unknown_keys(&["tasks", "weights"], source);
    let Some(tasks) = tenants.table("tasks", place("tenants.tasks"), source) else { return BTreeMap::new() };
    names::read(&tasks, source, |task, position| {
        places.insert(MistakeSubject::TenantOf(environment.map(str::to_owned), task), position);
    })
}

/// Reads the key `tenant`, if it is there: the argument that names the tenant of each task that has such an argument.
pub(super) fn read_argument(section: &Section<'_>, source: &mut SourceText<'_>) -> Option<String> {
    let item = section.get("tenant")?;
    let argument = section.text("tenant", source)?;
    if argument.is_empty() {
        let advice = "write the name of an argument such as \"domain\"".to_owned();
        section.report_bad_value("tenant", item, advice, source);
        return None;
    }
    Some(argument)
}
