//! What was done in the console, by whom, and what came of it. The last acts are kept in memory and shown on a page; the log
//! of the program has all of them.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde::Serialize;

use crate::core::Timestamp;
use crate::core::text::shortened;

/// How many acts are kept.
const MOST: usize = 500;
/// The most bytes of each text that is kept.
const LONGEST: usize = 300;

/// One act.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ActRecord {
    /// The number of the act since the program started, from 1.
    pub(super) number: u64,
    #[serde(serialize_with = "crate::core::json_time::iso")]
    pub(super) at: Timestamp,
    pub(super) who: String,
    /// The physical name of the queue that it was about, if it was about one. Others who may not see that queue do not see the
    /// act.
    #[serde(skip)]
    pub(super) queue: Option<String>,
    /// The word for the permission that it needed.
    pub(super) permission: &'static str,
    /// What was done, and with what.
    pub(super) what: String,
    /// What came of it.
    pub(super) outcome: String,
    /// Whether it was done.
    pub(super) is_done: bool,
}

/// The last acts.
#[derive(Default)]
pub(super) struct ActLog(Mutex<Acts>);

#[derive(Default)]
struct Acts {
    count: u64,
    last: VecDeque<ActRecord>,
    /// The forms that were acted on last.
    forms: VecDeque<String>,
}

impl ActLog {
    /// Whether this form is acted on for the first time: it may be sent twice by a double click, or once more by a browser that
    /// goes back.
    pub(super) fn is_first(&self, form: &str) -> bool {
        let form = shortened(form, LONGEST);
        let mut acts = self.0.lock();
        if acts.forms.iter().any(|known| *known == form) {
            return false;
        }
        if acts.forms.len() >= MOST {
            acts.forms.pop_front();
        }
        acts.forms.push_back(form.into_owned());
        true
    }

    /// Lets a form be sent once more, because what it asked for was not done.
    pub(super) fn forget_form(&self, form: &str) {
        let form = shortened(form, LONGEST);
        self.0.lock().forms.retain(|known| *known != form);
    }

    /// Notes an act, and writes it to the log. Answers with its number.
    pub(super) fn note(&self, mut act: ActRecord) -> u64 {
        let ActRecord { who, permission, what, outcome, .. } = &act;
        if act.is_done {
            tracing::info!(target: "celeriac::console", who, permission, what, outcome, "an act in the console");
        } else {
            tracing::warn!(target: "celeriac::console", who, permission, what, outcome, "an act in the console was not done");
        }
        for text in [&mut act.who, &mut act.what, &mut act.outcome] {
            *text = shortened(text, LONGEST).into_owned();
        }
        let mut acts = self.0.lock();
        acts.count += 1;
        act.number = acts.count;
        if acts.last.len() >= MOST {
            acts.last.pop_front();
        }
        acts.last.push_back(act);
        acts.count
    }

    /// The act of this number, if it is still kept.
    pub(super) fn get(&self, number: u64) -> Option<ActRecord> {
        self.0.lock().last.iter().find(|act| act.number == number).cloned()
    }

    /// The last acts before the one of this number that may be seen, the newest first, at most `limit`; and whether there are
    /// more.
    pub(super) fn before(
        &self,
        number: u64,
        limit: usize,
        is_seen: impl Fn(&ActRecord) -> bool,
    ) -> (Vec<ActRecord>, bool) {
        let acts = self.0.lock();
        let mut before = acts.last.iter().rev().filter(|act| act.number < number && is_seen(act));
        let page: Vec<ActRecord> = before.by_ref().take(limit).cloned().collect();
        (page, before.next().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act(what: &str) -> ActRecord {
        ActRecord {
            number: 0,
            at: Timestamp::from_millis(1),
            who: "amina".to_owned(),
            queue: None,
            permission: "pause",
            what: what.to_owned(),
            outcome: "done".to_owned(),
            is_done: true,
        }
    }

    #[test]
    fn a_form_is_acted_on_once_and_the_last_forms_are_remembered() {
        let log = ActLog::default();
        assert!(log.is_first("a") && !log.is_first("a") && log.is_first("b"));
        log.forget_form("a");
        assert!(log.is_first("a") && !log.is_first("b"), "what was not done is tried again");
        for n in 0..2 * MOST {
            assert!(log.is_first(&format!("form {n}")));
        }
        assert!(!log.is_first(&format!("form {MOST}")) && log.0.lock().forms.len() == MOST);
    }

    #[test]
    fn the_last_acts_are_kept_and_no_more() {
        let log = ActLog::default();
        for n in 1..=MOST as u64 + 5 {
            assert_eq!(log.note(act(&"x".repeat(10_000))), n);
        }
        assert!(log.get(5).is_none() && log.get(6).is_some());
        let (page, more) = log.before(u64::MAX, 3, |_| true);
        assert_eq!(page.iter().map(|act| act.number).collect::<Vec<_>>(), [505, 504, 503]);
        assert!(more && page[0].what.len() <= LONGEST);
        assert_eq!(log.before(7, 10, |_| true).0.len(), 1);
        assert!(!log.before(7, 10, |_| true).1);
        let (page, more) = log.before(u64::MAX, 3, |act| act.number.is_multiple_of(100));
        assert_eq!(page.iter().map(|act| act.number).collect::<Vec<_>>(), [500, 400, 300]);
        assert!(more);
    }
}
