//! The places in lists of tasks for those who may see a part of the list only.
//!
//! A broker's place says up to where it has looked: by the id of a task, the key of a lane, or how many tasks there were, whoever's
//! they are. Whoever may see every queue gets it as it is. Anybody else gets a word for it, which says nothing, and which this
//! console remembers for a while. A place that is a number stays as it is, because it may be asked for at another server: it
//! counts tasks in a list, and a broker that several servers share has no others.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::token;

/// How many places are remembered: the last ones.
const MOST: usize = 1_024;

/// The places that have words.
#[derive(Default)]
pub(super) struct SealedPlaces(Mutex<VecDeque<SealedPlace>>);

struct SealedPlace {
    word: String,
    place: String,
}

impl SealedPlaces {
    /// The word for a place. A place that is remembered keeps its word.
    pub(super) fn seal(&self, place: String) -> String {
        if is_number(&place) {
            return place;
        }
        let mut known = self.0.lock();
        if let Some(sealed) = known.iter().find(|sealed| sealed.place == place) {
            return sealed.word.clone();
        }
        if known.len() >= MOST {
            known.pop_front();
        }
        let word = format!("s{}", token::random());
        known.push_back(SealedPlace { word: word.clone(), place });
        word
    }

    /// The place that a word stands for. `None`: it is no word of these, or one of too long ago.
    pub(super) fn open(&self, word: &str) -> Option<String> {
        if is_number(word) {
            return Some(word.to_owned());
        }
        self.0.lock().iter().find(|sealed| sealed.word == word).map(|sealed| sealed.place.clone())
    }
}

fn is_number(place: &str) -> bool {
    place.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_leads_to_its_place_and_says_nothing_of_it() {
        let places = SealedPlaces::default();
        let word = places.seal("iem9vLTE".to_owned());
        assert!(!word.contains("em9v") && places.open(&word).as_deref() == Some("iem9vLTE"));
        assert_eq!(places.seal("iem9vLTE".to_owned()), word, "whoever loads a page again gets the same one");
        assert_eq!(places.open("iem9vLTE"), None, "nobody makes a place by hand");
        assert_eq!(
            (places.seal("50".to_owned()), places.open("50")),
            ("50".to_owned(), Some("50".to_owned()))
        );
    }

    #[test]
    fn the_last_places_are_remembered_and_no_more() {
        let places = SealedPlaces::default();
        let words: Vec<String> = (0..=MOST).map(|n| places.seal(format!("m{n}"))).collect();
        assert_eq!((places.open(&words[0]), places.open(&words[1]).as_deref()), (None, Some("m1")));
        assert_eq!(places.0.lock().len(), MOST);
    }
}
