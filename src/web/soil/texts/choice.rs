//! Which language a request gets: the one that the program chooses, else the best of those that the browser asks for, else
//! the first one that the pages offer.

use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header::{AcceptLanguage, Header, Preference, Quality};

use super::Language;

/// A program's choice: the tag of the language for a request, or `None` if the browser may choose.
type Chooser = Arc<dyn Fn(&HttpRequest) -> Option<String> + Send + Sync>;

/// The languages that the pages offer, the default first. There is at least one.
#[derive(Clone)]
pub(in crate::web::soil) struct Languages {
    first: Language,
    others: Arc<[Language]>,
    chooser: Option<Chooser>,
}

impl Default for Languages {
    fn default() -> Self {
        Self { first: Language::english(), others: Arc::default(), chooser: None }
    }
}

impl Languages {
    /// Offers these languages; `None` if there are none.
    pub(in crate::web::soil) fn offer(self, languages: impl IntoIterator<Item = Language>) -> Option<Self> {
        let mut languages = languages.into_iter();
        let first = languages.next()?;
        Some(Self { first, others: languages.collect(), ..self })
    }

    /// Has the program choose.
    pub(in crate::web::soil) fn choose(
        &mut self,
        chooser: impl Fn(&HttpRequest) -> Option<String> + Send + Sync + 'static,
    ) {
        self.chooser = Some(Arc::new(chooser));
    }

    pub(in crate::web::soil) fn all(&self) -> impl Iterator<Item = &Language> {
        std::iter::once(&self.first).chain(self.others.iter())
    }

    /// The language for a request.
    pub(in crate::web::soil) fn of(&self, request: &HttpRequest) -> &Language {
        let tag = self.chooser.as_ref().and_then(|chooser| chooser(request));
        let chosen = tag.and_then(|tag| self.find(&tag));
        chosen.or_else(|| self.accepted(request)).unwrap_or(&self.first)
    }

    /// The offered language that the browser likes best.
    fn accepted(&self, request: &HttpRequest) -> Option<&Language> {
        if self.others.is_empty() {
            return None;
        }
        let AcceptLanguage(mut wanted) = AcceptLanguage::parse(request).ok()?;
        wanted.retain(|wanted| wanted.quality > Quality::ZERO);
        // Languages that are wanted as much stay in the order of the header.
        wanted.sort_by_key(|wanted| std::cmp::Reverse(wanted.quality));
        wanted.iter().find_map(|wanted| match &wanted.item {
            Preference::Any => Some(&self.first),
            Preference::Specific(tag) => self.find(tag.as_str()),
        })
    }

    /// The offered language for a tag, by the lookup of RFC 4647: `fr-CA` may have `fr`. If there is none, another form of
    /// the same language will do: `pt` or `pt-PT` may have `pt-BR`.
    fn find(&self, tag: &str) -> Option<&Language> {
        let mut range = tag;
        loop {
            if let Some(found) = self.all().find(|language| language.tag().eq_ignore_ascii_case(range)) {
                return Some(found);
            }
            let Some(end) = range.rfind('-') else { break };
            range = &range[..end];
        }
        let is_same = |language: &&Language| {
            language.tag().split('-').next().is_some_and(|first| first.eq_ignore_ascii_case(range))
        };
        self.all().find(is_same)
    }
}
