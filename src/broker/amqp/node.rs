//! The name of this process among the nodes that remote control reaches: Celery's node name, `celery@host`.
//!
//! Operators address nodes by name, so the name is the same after a restart. Only if another process keeps it does
//! this process take another one, and then it is that one wherever the name is shown.

use std::sync::Arc;

use parking_lot::RwLock;

/// The part before the `@` of a node that has no name of its own.
const DEFAULT: &str = "celeriac";

/// The name of this node. It may change, so nobody keeps it for long.
pub(super) struct NodeName(RwLock<Arc<str>>);

impl NodeName {
    /// The name that the option states, in its form with `%h`, `%n` and `%d`, or the default.
    pub(super) fn new(stated: Option<&str>) -> Self {
        Self(RwLock::new(expand(stated, &host()).into()))
    }

    pub(super) fn get(&self) -> Arc<str> {
        Arc::clone(&self.0.read())
    }

    /// The name that this process takes if another one keeps its own: the same with this process's id in it.
    pub(super) fn second_name(&self) -> Arc<str> {
        second_name(&self.get(), std::process::id()).into()
    }

    /// Takes [that name](Self::second_name).
    pub(super) fn give_way(&self) -> Arc<str> {
        let other = self.second_name();
        *self.0.write() = Arc::clone(&other);
        other
    }
}

/// The name with a process's id in it.
fn second_name(node: &str, process: u32) -> String {
    let (name, host) = node.split_once('@').unwrap_or((node, "localhost"));
    format!("{name}-{process}@{host}")
}

/// Writes out the form of a name as Celery does: `%h` is the host, `%n` the host without its domain, `%d` the domain,
/// and `%%` a percent sign. A name without a host gets this one, because tools split a node's name at its `@`.
fn expand(stated: Option<&str>, host: &str) -> String {
    let (short, domain) = host.split_once('.').unwrap_or((host, ""));
    let mut name = String::new();
    let mut rest = stated.unwrap_or(DEFAULT).chars();
    while let Some(c) = rest.next() {
        match c {
            '%' => match rest.next() {
                Some('h') => name.push_str(host),
                Some('n') => name.push_str(short),
                Some('d') => name.push_str(domain),
                Some('%') | None => name.push('%'),
                Some(other) => name.extend(['%', other]),
            },
            c => name.push(c),
        }
    }
    match name.split_once('@') {
        Some((_, "")) => name + host,
        Some(("", _)) => format!("{DEFAULT}{name}"),
        Some(_) => name,
        None if name.is_empty() => format!("{DEFAULT}@{host}"),
        None => format!("{name}@{host}"),
    }
}

/// The name of this machine.
pub(super) fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok()).or_else(|| std::env::var("COMPUTERNAME").ok());
    name.map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_written_out_as_celery_does() {
        for (stated, name) in [
            (None, "celeriac@web1.example.org"),
            (Some("w1@%h"), "w1@web1.example.org"),
            (Some("w1@%n"), "w1@web1"),
            (Some("%n@%d"), "web1@example.org"),
            (Some("w1@fixed"), "w1@fixed"),
            (Some("w1"), "w1@web1.example.org"),
            (Some("w1@"), "w1@web1.example.org"),
            (Some("@h"), "celeriac@h"),
            (Some(""), "celeriac@web1.example.org"),
            (Some("100%%@%h"), "100%@web1.example.org"),
            (Some("%x%"), "%x%@web1.example.org"),
        ] {
            assert_eq!(expand(stated, "web1.example.org"), name, "{stated:?}");
        }
        assert_eq!(expand(Some("w@%n"), "plain"), "w@plain");
        assert_eq!(second_name("w1@host", 42), "w1-42@host");
    }
}
