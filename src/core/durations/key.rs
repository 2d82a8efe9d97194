//! The keys of run times. A key is a hash, so that a book has entries of one size, and so that no argument stands in it.

use xxhash_rust::xxh3::Xxh3;

/// What run times are kept of: a task, the runs of a task for one tenant, or those with one value of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunTimeKey {
    pub(super) kind: KeyKind,
    pub(super) hash: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum KeyKind {
    Task,
    Tenant,
    Value,
}

impl RunTimeKey {
    /// All runs of a task.
    pub fn of_task(task: &str) -> Self {
        Self { kind: KeyKind::Task, hash: hash([task]) }
    }

    /// The runs of a task for one tenant.
    pub fn of_tenant(task: &str, tenant: &str) -> Self {
        Self { kind: KeyKind::Tenant, hash: hash([task, tenant]) }
    }

    /// The runs of a task with this value of an argument. Values of different tenants are told apart, because the seventh
    /// report of one is not that of another.
    pub fn of_value(task: &str, tenant: Option<&str>, argument: &str, value: &str) -> Self {
        Self { kind: KeyKind::Value, hash: hash([task, tenant.unwrap_or_default(), argument, value]) }
    }
}

/// The keys by which a call of a task may be known. The first one that is known counts.
///
/// With an argument and its value, only runs with that value count: what another export took says nothing about this one.
/// Else the runs for the tenant count, and those of the task where the tenant has none.
pub fn keys_of_call(
    task: &str,
    tenant: Option<&str>,
    value: Option<(&str, &str)>,
) -> impl Iterator<Item = RunTimeKey> + use<> {
    let keys = match value {
        Some((argument, value)) => [Some(RunTimeKey::of_value(task, tenant, argument, value)), None],
        None => [tenant.map(|tenant| RunTimeKey::of_tenant(task, tenant)), Some(RunTimeKey::of_task(task))],
    };
    keys.into_iter().flatten()
}

/// The same on every machine and in every version, because keys are kept.
fn hash<const PARTS: usize>(parts: [&str; PARTS]) -> u64 {
    let mut hash = Xxh3::new();
    for part in parts {
        // Its length keeps a part apart from the next one.
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.digest()
}
