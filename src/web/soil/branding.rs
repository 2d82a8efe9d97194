//! What a program sets so that the pages look and speak like the rest of it: title, colours, layout, languages.

use std::sync::Arc;

use actix_web::HttpRequest;

use super::texts::{Language, Sentence};
use super::{SoilPages, SoilPagesError};
use crate::soil::QueueSummary;
use crate::web::Theme;

/// The content of one of Soil's pages, for a [layout](SoilPages::layout) around it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PageContent<'a> {
    /// The title of the page: its state, and the [title](SoilPages::title) of the pages behind it. It is text, not HTML.
    pub title: &'a str,
    /// The language of the page.
    pub language: &'a Language,
    /// The content as HTML: an element `<main>`. It belongs into the page once, as it is.
    pub html: &'a str,
}

type LayoutHook = Arc<dyn Fn(&HttpRequest, PageContent<'_>) -> String + Send + Sync>;

/// The look of the pages.
#[derive(Clone, Default)]
pub(super) struct Branding {
    pub(super) title: Option<Arc<str>>,
    pub(super) home: Option<Arc<str>>,
    pub(super) style_sheets: Vec<Arc<str>>,
    pub(super) layout: Option<LayoutHook>,
    /// The rules of the theme.
    pub(super) colours: Arc<str>,
    pub(super) shows_queue_names: bool,
}

impl Branding {
    /// Whether the page may load pictures and fonts of its own site: only parts of the program's own have any.
    pub(super) fn loads_more(&self) -> bool {
        self.layout.is_some() || !self.style_sheets.is_empty()
    }
}

impl SoilPages {
    /// Sets the name of the program as its users know it. It stands in the title of each page behind the state, and
    /// above the content unless there is a [layout](Self::layout).
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> Self {
        let title: String = title.into();
        self.branding.title = Some(title.into());
        self
    }

    /// Sets colours in place of the pages' own.
    ///
    /// ```
    /// use celeriac::web::{Colour, SoilPages, Theme};
    /// # fn demo(pages: SoilPages) -> Result<SoilPages, celeriac::web::ThemeError> {
    /// let theme = Theme::new().colour(Colour::Accent, "#7a1fa2", "#d9a7ec")?; // on light pages, on dark ones
    /// Ok(pages.theme(&theme))
    /// # }
    /// ```
    #[must_use]
    pub fn theme(mut self, theme: &Theme) -> Self {
        self.branding.colours = theme.style_sheet().into();
        self
    }

    /// Adds a style sheet to the pages, behind their own. The pages allow nothing but files of their own origin: style
    /// sheets, and the pictures and fonts that those name.
    ///
    /// # Errors
    /// The address is neither a path that begins with one `/` nor a URL of HTTP.
    pub fn style_sheet(mut self, address: &str) -> Result<Self, SoilPagesError> {
        self.branding.style_sheets.push(checked("style sheet", address)?);
        Ok(self)
    }

    /// Sets where the link *Go back* leads: a path such as `/exports`, or a URL. Without it, pages about something that
    /// is not there lead back to the page of this site that the reader came from, if the browser says which.
    ///
    /// # Errors
    /// The address is neither a path that begins with one `/` nor a URL of HTTP.
    pub fn home(mut self, address: &str) -> Result<Self, SoilPagesError> {
        self.branding.home = Some(checked("way back", address)?);
        Ok(self)
    }

    /// Sets a function that puts each page into the program's own frame, with its header and its navigation. It gets
    /// the request and the [content](PageContent), and returns the HTML of what is inside of `<body>`; a `maud::Markup`
    /// will do as well. It has to escape what it adds. It is called for refused requests too, and must not block.
    ///
    /// The policy of the pages allows no scripts and styles inside of the HTML, and no files of other origins.
    ///
    /// ```
    /// # fn user_of(request: &actix_web::HttpRequest) -> u64 { 42 }
    /// # fn demo(pages: celeriac::web::SoilPages) -> Result<celeriac::web::SoilPages, Box<dyn std::error::Error>> {
    /// let pages = pages.style_sheet("/static/site.css")?.layout(|request, page| {
    ///     format!("<header>Reports of user {}</header>{}<footer>…</footer>", user_of(request), page.html)
    /// });
    /// # Ok(pages) }
    /// ```
    #[must_use]
    pub fn layout<F, H>(mut self, hook: F) -> Self
    where
        F: Fn(&HttpRequest, PageContent<'_>) -> H + Send + Sync + 'static,
        H: Into<String>,
    {
        let layout =
            move |request: &HttpRequest, page: PageContent<'_>| -> String { hook(request, page).into() };
        self.branding.layout = Some(Arc::new(layout));
        self
    }

    /// Shows the names of queues to those who look at the pages. By default the pages and their JSON say that "its queue"
    /// is paused, and not which: how the program names its queues is no concern of its customers.
    #[must_use]
    pub fn show_queue_names(mut self) -> Self {
        self.branding.shows_queue_names = true;
        self
    }

    /// Sets the languages of the pages, the default one first. A reader gets the one that the browser asks for, if it is
    /// among them, unless the program [chooses](Self::choose_language). The default is English alone.
    ///
    /// ```
    /// use celeriac::web::SoilPages;
    /// use celeriac::web::soil::{Language, SoilPagesError};
    /// # fn demo(pages: SoilPages) -> Result<SoilPages, SoilPagesError> {
    /// pages.languages([Language::english(), Language::french(), Language::arabic()])
    /// # }
    /// ```
    ///
    /// # Errors
    /// There is no language, or the tag of one has not the form of a BCP 47 tag.
    pub fn languages(
        mut self,
        languages: impl IntoIterator<Item = Language>,
    ) -> Result<Self, SoilPagesError> {
        self.languages = self.languages.offer(languages).ok_or(SoilPagesError::NoLanguage)?;
        let wrong = self.languages.all().find(|language| !language.has_tag());
        let wrong = wrong.map(|language| language.tag().to_owned());
        wrong.map_or(Ok(self), |tag| Err(SoilPagesError::Language(tag)))
    }

    /// Sets a function that knows the language of a request, such as that of the user's settings, by its tag. For
    /// `None`, and for a language that the pages do not [have](Self::languages), the browser's wish counts.
    #[must_use]
    pub fn choose_language(
        mut self,
        hook: impl Fn(&HttpRequest) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.languages.choose(hook);
        self
    }

    /// How the pages speak to whoever makes this request.
    pub(super) fn wording(&self, request: &HttpRequest) -> Wording {
        Wording {
            language: self.languages.of(request).clone(),
            shows_queue_names: self.branding.shows_queue_names,
            title: self.branding.title.clone(),
        }
    }
}

/// How the pages speak to one reader.
#[derive(Clone, Debug)]
pub(super) struct Wording {
    pub(super) language: Language,
    shows_queue_names: bool,
    title: Option<Arc<str>>,
}

impl Wording {
    pub(super) fn say(&self, sentence: Sentence<'_>) -> String {
        self.language.say(sentence)
    }

    /// The name of a queue, if the reader may see it.
    pub(super) fn name_of<'a>(&self, queue: &'a QueueSummary) -> Option<&'a str> {
        self.shows_queue_names.then_some(queue.name.as_str())
    }

    /// The title of a page in this state.
    pub(super) fn title(&self, state: &str) -> String {
        self.title.as_ref().map_or_else(|| state.to_owned(), |title| format!("{state} · {title}"))
    }
}

/// An address to which a page may link: `/path` or a URL of HTTP, without what browsers would read as another site or
/// would leave out.
fn checked(what: &'static str, address: &str) -> Result<Arc<str>, SoilPagesError> {
    let path = address.strip_prefix('/').filter(|rest| !rest.starts_with('/'));
    let url = ["https://", "http://"].iter().find_map(|scheme| address.strip_prefix(*scheme));
    let is_plain = |text: &str| !text.contains(|c: char| c.is_control() || c.is_whitespace() || c == '\\');
    match path.or(url.filter(|rest| !rest.is_empty())) {
        Some(rest) if is_plain(rest) => Ok(address.into()),
        _ => Err(SoilPagesError::Address { what, address: address.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_links_to_paths_and_urls_and_to_nothing_else() {
        for address in ["/", "/exports?page=2#top", "/a//b", "https://hq.example", "http://127.0.0.1:8080/x"]
        {
            assert_eq!(checked("way back", address).as_deref(), Ok(address));
        }
        for address in [
            "",
            "exports",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/a\\b",
            "/\t/evil.example",
            "/a b",
            "javascript:alert(1)",
            "data:text/html,x",
            "https://",
            "HTTPS:/x",
            "/a\nb",
        ] {
            let error = checked("way back", address).expect_err(address).to_string();
            assert!(error.contains("way back") && error.contains("begin"), "{error}");
        }
    }
}
