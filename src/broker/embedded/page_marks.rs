//! The places in the lists of tasks: up to where a page has looked, written as the text that leads to the next one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use crate::broker::BrokerError;
use crate::broker::task_page::unknown_place;

/// The sequence behind all sequences.
pub(super) const BEHIND_ALL: u64 = u64::MAX;

/// Up to where the tasks that are not over were looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum UnfinishedMark {
    /// Up to this key of the table `messages`; an empty key is before all.
    Messages(Vec<u8>),
    /// Up to this key of the table `lanes`, and all of `messages`.
    Lanes(Vec<u8>),
    /// Up to the task of this key, of those that the index of an argument has.
    Index(Vec<u8>),
    /// Up to this place in the list of those that are in memory only, and all that are on disk.
    Memory(Option<String>),
}

impl UnfinishedMark {
    pub(super) fn read(after: Option<&str>) -> Result<Self, BrokerError> {
        let Some(text) = after else { return Ok(Self::Messages(Vec::new())) };
        let key = |rest: &str| BASE64.decode(rest).map_err(|_| unknown_place(text));
        match text.split_at_checked(1) {
            Some(("m", rest)) => Ok(Self::Messages(key(rest)?)),
            Some(("l", rest)) => Ok(Self::Lanes(key(rest)?)),
            Some(("i", rest)) => Ok(Self::Index(key(rest)?)),
            Some(("v", "")) => Ok(Self::Memory(None)),
            Some(("v", rest)) => Ok(Self::Memory(Some(rest.to_owned()))),
            _ => Err(unknown_place(text)),
        }
    }

    pub(super) fn written(&self) -> String {
        match self {
            Self::Messages(key) => format!("m{}", BASE64.encode(key)),
            Self::Lanes(key) => format!("l{}", BASE64.encode(key)),
            Self::Index(key) => format!("i{}", BASE64.encode(key)),
            Self::Memory(after) => format!("v{}", after.as_deref().unwrap_or_default()),
        }
    }
}

/// Up to where the failed tasks were looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FailedMark {
    /// Down to this sequence, which was looked at.
    Disk(u64),
    /// Down to this sequence, of those that the index of an argument has.
    Index(u64),
    /// Up to this place in the list of those that are in memory only, and all that are on disk.
    Memory(Option<String>),
}

impl FailedMark {
    pub(super) fn read(after: Option<&str>) -> Result<Self, BrokerError> {
        let Some(text) = after else { return Ok(Self::Disk(BEHIND_ALL)) };
        match text.split_at_checked(1) {
            Some(("d", rest)) => rest.parse().map(Self::Disk).map_err(|_| unknown_place(text)),
            Some(("i", rest)) => rest.parse().map(Self::Index).map_err(|_| unknown_place(text)),
            Some(("v", "")) => Ok(Self::Memory(None)),
            Some(("v", rest)) => Ok(Self::Memory(Some(rest.to_owned()))),
            _ => Err(unknown_place(text)),
        }
    }

    pub(super) fn written(&self) -> String {
        match self {
            Self::Disk(seq) => format!("d{seq}"),
            Self::Index(seq) => format!("i{seq}"),
            Self::Memory(after) => format!("v{}", after.as_deref().unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        for mark in [
            UnfinishedMark::Messages(vec![0, 1, 0, 255, 9]),
            UnfinishedMark::Lanes(vec![1, 0, 200]),
            UnfinishedMark::Index(vec![0, 7]),
            UnfinishedMark::Memory(None),
            UnfinishedMark::Memory(Some("50".to_owned())),
        ] {
            assert_eq!(UnfinishedMark::read(Some(&mark.written())), Ok(mark));
        }
        let memory = |after: Option<&str>| FailedMark::Memory(after.map(str::to_owned));
        for mark in [FailedMark::Disk(7), FailedMark::Index(8), memory(None), memory(Some("3"))] {
            assert_eq!(FailedMark::read(Some(&mark.written())), Ok(mark));
        }
        assert_eq!(UnfinishedMark::read(None), Ok(UnfinishedMark::Messages(Vec::new())));
        assert_eq!(FailedMark::read(None), Ok(FailedMark::Disk(BEHIND_ALL)));
    }

    #[test]
    fn what_is_no_mark_is_refused() {
        for text in ["", "x", "m!", "lä", "d", "dx", "ä", "d-1", "i!", "i-"] {
            assert!(UnfinishedMark::read(Some(text)).is_err(), "{text}");
            assert!(FailedMark::read(Some(text)).is_err(), "{text}");
        }
    }
}
