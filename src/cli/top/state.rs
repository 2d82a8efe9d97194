//! What `celeriac top` shows, and what its keys do. The queue that is chosen stays so when others come before it.

use crate::core::report::{Diagnosis, QueueFigures};

/// A key, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TopKey {
    Up,
    Down,
    /// Opens the page of the queue.
    Open,
    Back,
    /// Asks whether the queue is to be paused, or to go on.
    Pause,
    /// Yes, it is.
    Yes,
    Help,
    Quit,
    /// Any other.
    Other,
}

/// What is to be done because of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TopEffect {
    Nothing,
    Quit,
    /// Pauses a queue, or ends its pause.
    SetPaused {
        queue: String,
        pause: bool,
    },
}

/// The page that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TopPage {
    Queues,
    /// The queue that is chosen.
    Queue,
    Help,
}

/// What is shown.
pub(super) struct TopState {
    /// Where the figures are from.
    pub(super) place: &'static str,
    pub(super) has_colours: bool,
    /// The last look that has come to an end; `None`: none has yet.
    pub(super) diagnosis: Option<Diagnosis>,
    /// Why the look after that has failed.
    pub(super) error: Option<String>,
    pub(super) page: TopPage,
    /// The queue that is to be paused, or to go on, if a yes follows.
    pub(super) asks: Option<(String, bool)>,
    /// What came of the last act.
    pub(super) notice: Option<String>,
    chosen: Option<String>,
}

impl TopState {
    pub(super) fn new(place: &'static str, has_colours: bool) -> Self {
        Self {
            place,
            has_colours,
            diagnosis: None,
            error: None,
            page: TopPage::Queues,
            asks: None,
            notice: None,
            chosen: None,
        }
    }

    /// Takes what a look has seen. What was seen before stays if it has seen nothing.
    pub(super) fn looked(&mut self, seen: Result<Diagnosis, String>) {
        match seen {
            Ok(diagnosis) => (self.diagnosis, self.error) = (Some(diagnosis), None),
            Err(error) => self.error = Some(error),
        }
        let first = self.queues().first().map(|queue| queue.name.clone());
        if self.chosen().is_none() {
            self.chosen = first;
        }
    }

    /// Takes what came of an act.
    pub(super) fn told(&mut self, notice: String) {
        self.notice = Some(notice);
    }

    /// All queues, what has to be looked at first before the others.
    pub(super) fn queues(&self) -> &[QueueFigures] {
        self.diagnosis.as_ref().map_or(&[], |diagnosis| &diagnosis.queues)
    }

    /// The queue that is chosen.
    pub(super) fn chosen(&self) -> Option<&QueueFigures> {
        self.queues().get(self.place_of_chosen()?)
    }

    /// Where the queue that is chosen stands among all.
    pub(super) fn place_of_chosen(&self) -> Option<usize> {
        let chosen = self.chosen.as_ref()?;
        self.queues().iter().position(|queue| queue.name == *chosen)
    }

    /// A key is pressed.
    pub(super) fn press(&mut self, key: TopKey) -> TopEffect {
        if let Some((queue, pause)) = self.asks.take() {
            return match key {
                TopKey::Yes => TopEffect::SetPaused { queue, pause },
                TopKey::Quit => TopEffect::Quit,
                _ => {
                    self.notice = Some("Nothing was done.".to_owned());
                    TopEffect::Nothing
                }
            };
        }
        self.notice = None;
        match key {
            TopKey::Quit => return TopEffect::Quit,
            TopKey::Up => self.step(|place| place.saturating_sub(1)),
            TopKey::Down => self.step(|place| place.saturating_add(1)),
            TopKey::Open if self.chosen().is_some() => self.page = TopPage::Queue,
            TopKey::Help if self.page != TopPage::Help => self.page = TopPage::Help,
            TopKey::Help | TopKey::Back => self.page = TopPage::Queues,
            TopKey::Pause => self.asks = self.chosen().map(|queue| (queue.name.clone(), !queue.paused)),
            TopKey::Open | TopKey::Yes | TopKey::Other => {}
        }
        TopEffect::Nothing
    }

    fn step(&mut self, to: impl Fn(usize) -> usize) {
        let last = self.queues().len().saturating_sub(1);
        let place = self.place_of_chosen().map_or(0, |place| to(place).min(last));
        self.chosen = self.queues().get(place).map(|queue| queue.name.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Timestamp;
    use crate::core::report::{ReportFacts, diagnose};

    fn seen(names: &[&str]) -> Result<Diagnosis, String> {
        let mut facts = ReportFacts::at(Timestamp::ZERO);
        facts.queues = names.iter().map(|name| QueueFigures::named(*name)).collect();
        Ok(diagnose(facts))
    }

    fn state(names: &[&str]) -> TopState {
        let mut state = TopState::new("here", false);
        state.looked(seen(names));
        state
    }

    fn chosen(state: &TopState) -> &str {
        state.chosen().map_or("", |queue| &queue.name)
    }

    #[test]
    fn the_chosen_queue_stays_chosen_and_the_ends_hold() {
        let mut state = state(&["b", "c"]);
        assert_eq!(chosen(&state), "b");
        for (key, expected) in [
            (TopKey::Up, "b"),
            (TopKey::Down, "c"),
            (TopKey::Down, "c"),
            (TopKey::Up, "b"),
            (TopKey::Down, "c"),
        ] {
            assert_eq!((state.press(key), chosen(&state)), (TopEffect::Nothing, expected));
        }
        state.looked(seen(&["a", "b", "c"]));
        assert_eq!((chosen(&state), state.place_of_chosen()), ("c", Some(2)));
        state.looked(Err("no reply".to_owned()));
        assert_eq!((chosen(&state), state.error.as_deref()), ("c", Some("no reply")));
        state.looked(seen(&["a"]));
        assert_eq!((chosen(&state), state.error.as_deref()), ("a", None));
    }

    #[test]
    fn a_pause_is_asked_about_and_done_after_a_yes_only() {
        let mut state = state(&["a"]);
        assert_eq!(state.press(TopKey::Pause), TopEffect::Nothing);
        assert_eq!(state.asks, Some(("a".to_owned(), true)));
        assert_eq!(state.press(TopKey::Down), TopEffect::Nothing);
        assert_eq!((state.asks.clone(), state.notice.as_deref()), (None, Some("Nothing was done.")));
        assert_eq!(state.press(TopKey::Yes), TopEffect::Nothing, "nothing was asked");
        state.press(TopKey::Pause);
        let expected = TopEffect::SetPaused { queue: "a".to_owned(), pause: true };
        assert_eq!(state.press(TopKey::Yes), expected);
        state.press(TopKey::Pause);
        assert_eq!(state.press(TopKey::Quit), TopEffect::Quit);
    }

    #[test]
    fn pages_open_and_close() {
        let mut state = state(&["a"]);
        for (key, page) in [
            (TopKey::Open, TopPage::Queue),
            (TopKey::Back, TopPage::Queues),
            (TopKey::Help, TopPage::Help),
            (TopKey::Help, TopPage::Queues),
            (TopKey::Other, TopPage::Queues),
        ] {
            state.press(key);
            assert_eq!(state.page, page, "{key:?}");
        }
        let mut empty = TopState::new("here", false);
        for key in [TopKey::Open, TopKey::Down, TopKey::Up, TopKey::Pause] {
            assert_eq!(empty.press(key), TopEffect::Nothing);
        }
        assert_eq!((&empty.page, &empty.asks), (&TopPage::Queues, &None));
        assert_eq!(empty.press(TopKey::Quit), TopEffect::Quit);
    }
}
