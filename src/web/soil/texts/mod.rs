//! The texts of the pages: every sentence that a reader sees and no task has written, in three languages, each of them
//! replaceable.
//!
//! A language is a function from [`Sentence`] to text. So a language with six plural forms, or with digits of its own, is
//! as simple to add as any other, and the compiler knows when a language here lacks a sentence. A file holds one language.

mod arabic;
mod choice;
mod english;
mod french;
mod numbers;
mod sentence;

use std::fmt;
use std::sync::Arc;

pub(super) use choice::Languages;
pub use sentence::Sentence;

/// The texts of a program that take the place of those here; `None` for a sentence leaves it as it is.
type OwnTexts = Arc<dyn Fn(Sentence<'_>) -> Option<String> + Send + Sync>;

/// A language of the pages, with its texts. [`SoilPages::languages`](crate::web::SoilPages::languages) takes them.
///
/// ```
/// use celeriac::web::soil::{Language, Sentence};
///
/// // The English texts, with one of the program's own.
/// let english = Language::english().with(|sentence| match sentence {
///     Sentence::UnknownText => Some("Please go to *My reports* and start it again.".to_owned()),
///     _ => None,
/// });
/// assert_eq!(english.say(Sentence::UnknownText), "Please go to *My reports* and start it again.");
/// assert_eq!(english.say(Sentence::FilesReady(2)), "Your files are ready.");
///
/// // A language that is not here. What it leaves out is in English.
/// let german = Language::new("de", |sentence| {
///     Some(match sentence {
///         Sentence::FilesReady(1) => "Ihre Datei ist bereit.".to_owned(),
///         Sentence::FilesReady(files) => format!("Ihre {files} Dateien sind bereit."),
///         _ => return None,
///     })
/// });
/// assert_eq!(german.say(Sentence::FilesReady(3)), "Ihre 3 Dateien sind bereit.");
/// assert_eq!(german.say(Sentence::Back), "Go back");
/// ```
#[derive(Clone)]
pub struct Language {
    tag: Arc<str>,
    is_right_to_left: bool,
    texts: fn(Sentence<'_>) -> String,
    /// The newest ones are the last.
    own: Vec<OwnTexts>,
}

impl Language {
    /// Makes the texts in English, which are the default.
    pub fn english() -> Self {
        Self::of("en", english::say)
    }

    /// Makes the texts in French.
    pub fn french() -> Self {
        Self::of("fr", french::say)
    }

    /// Modern Standard Arabic, which is written from right to left.
    pub fn arabic() -> Self {
        Self::of("ar", arabic::say).right_to_left()
    }

    /// A language of the program's own. `tag` is its BCP 47 tag, such as `de` or `pt-BR`. Sentences for which `texts`
    /// returns `None` are in English.
    pub fn new(
        tag: impl Into<String>,
        texts: impl Fn(Sentence<'_>) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let tag: String = tag.into();
        Self { tag: tag.into(), ..Self::english() }.with(texts)
    }

    fn of(tag: &str, texts: fn(Sentence<'_>) -> String) -> Self {
        Self { tag: tag.into(), is_right_to_left: false, texts, own: Vec::new() }
    }

    /// Replaces the sentences for which `texts` returns one.
    #[must_use]
    pub fn with(mut self, texts: impl Fn(Sentence<'_>) -> Option<String> + Send + Sync + 'static) -> Self {
        self.own.push(Arc::new(texts));
        self
    }

    /// States that the language is written from right to left. The pages mirror themselves then.
    #[must_use]
    pub fn right_to_left(mut self) -> Self {
        self.is_right_to_left = true;
        self
    }

    /// The BCP 47 tag of the language.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Whether the language is written from right to left.
    pub fn is_right_to_left(&self) -> bool {
        self.is_right_to_left
    }

    /// The sentence in this language, as plain text.
    pub fn say(&self, sentence: Sentence<'_>) -> String {
        let own = self.own.iter().rev().find_map(|texts| texts(sentence));
        own.unwrap_or_else(|| (self.texts)(sentence))
    }

    /// Whether the tag has the form of one: letters, then letters and digits, with hyphens between them.
    pub(super) fn has_tag(&self) -> bool {
        let mut parts = self.tag.split('-');
        let is_first =
            |part: &str| (2..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphabetic());
        let is_other = |part: &str| {
            (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        self.tag.len() <= 64 && parts.next().is_some_and(is_first) && parts.all(is_other)
    }

    /// The value of the attribute `dir`, if the page needs one.
    pub(super) fn dir(&self) -> Option<&'static str> {
        self.is_right_to_left.then_some("rtl")
    }
}

impl fmt::Debug for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Language").field("tag", &self.tag).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
