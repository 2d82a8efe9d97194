//! The colours of the pages: the tokens of their style sheet that a program may set.
//!
//! A colour is read and written anew, so nothing but a colour comes into the style sheet, whoever wrote the text.

use std::collections::BTreeMap;
use std::fmt;

/// A token of the pages' style sheets. Its name there is that of the CSS custom property, such as `--accent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Colour {
    /// `--paper`: the background of the page.
    Paper,
    /// `--card`: the background of what stands on it.
    Card,
    /// `--ink`: text.
    Ink,
    /// `--faint`: text that matters less.
    Faint,
    /// `--line`: thin lines.
    Line,
    /// `--accent`: buttons, links and bars.
    Accent,
    /// `--on-accent`: text on the accent. If it is not set, it is black or white, whichever is easier to read there.
    OnAccent,
    /// `--track`: the part of a bar that is not filled.
    Track,
    /// `--good`: what is ready.
    Good,
    /// `--bad`: text about failures.
    Bad,
    /// `--bad-paper`: the background of such text.
    BadPaper,
    /// `--warn`: text of warnings.
    Warn,
    /// `--warn-paper`: the background of such text.
    WarnPaper,
}

impl Colour {
    fn property(self) -> &'static str {
        match self {
            Self::Paper => "--paper",
            Self::Card => "--card",
            Self::Ink => "--ink",
            Self::Faint => "--faint",
            Self::Line => "--line",
            Self::Accent => "--accent",
            Self::OnAccent => "--on-accent",
            Self::Track => "--track",
            Self::Good => "--good",
            Self::Bad => "--bad",
            Self::BadPaper => "--bad-paper",
            Self::Warn => "--warn",
            Self::WarnPaper => "--warn-paper",
        }
    }
}

/// Why a theme cannot be made.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ThemeError {
    /// A text is no colour.
    #[error("`{text}` is no colour for {property}: write #rrggbb or #rgb, such as #1d63b8")]
    NoColour {
        /// The CSS custom property that was to be set.
        property: &'static str,
        /// The text.
        text: String,
    },
}

crate::core::debug_as_display!(ThemeError);

/// Colours in place of the pages' own.
///
/// ```
/// use celeriac::web::{Colour, Theme};
///
/// let theme = Theme::new().colour(Colour::Accent, "#7a1fa2", "#d9a7ec")?;
/// assert!(theme.colour(Colour::Paper, "red; } body { display: none", "#000").is_err());
/// # Ok::<_, celeriac::web::ThemeError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Theme {
    colours: BTreeMap<Colour, Pair>,
}

/// A colour on light pages and on dark ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    light: Rgb,
    dark: Rgb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rgb([u8; 3]);

impl Theme {
    /// The colours of the pages themselves.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a colour, as `#rrggbb` or `#rgb`, for browsers that prefer light pages and for those that prefer dark ones.
    ///
    /// # Errors
    /// One of the texts is no such colour.
    pub fn colour(mut self, which: Colour, light: &str, dark: &str) -> Result<Self, ThemeError> {
        let read = |text: &str| {
            let wrong = || ThemeError::NoColour { property: which.property(), text: text.to_owned() };
            Rgb::read(text).ok_or_else(wrong)
        };
        self.colours.insert(which, Pair { light: read(light)?, dark: read(dark)? });
        Ok(self)
    }

    /// The rules that set the colours; they come after those that they replace.
    pub(super) fn style_sheet(&self) -> String {
        let mut colours = self.colours.clone();
        if let Some(accent) = colours.get(&Colour::Accent).copied() {
            let own = Pair { light: accent.light.text_on(), dark: accent.dark.text_on() };
            colours.entry(Colour::OnAccent).or_insert(own);
        }
        if colours.is_empty() {
            return String::new();
        }
        let rules = |of: fn(&Pair) -> Rgb| -> String {
            colours.iter().map(|(colour, pair)| format!(" {}: {};", colour.property(), of(pair))).collect()
        };
        let (light, dark) = (rules(|pair| pair.light), rules(|pair| pair.dark));
        format!(":root {{{light} }}\n@media (prefers-color-scheme: dark) {{ :root {{{dark} }} }}\n")
    }
}

impl Rgb {
    fn read(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('#')?;
        let digits: Vec<u8> =
            digits.chars().map(|digit| u8::try_from(digit.to_digit(16)?).ok()).collect::<Option<_>>()?;
        match digits[..] {
            [r, g, b] => Some(Self([r * 17, g * 17, b * 17])),
            [r, r2, g, g2, b, b2] => Some(Self([r * 16 + r2, g * 16 + g2, b * 16 + b2])),
            _ => None,
        }
    }

    /// Black or white, whichever has the greater contrast with this colour, as the WCAG counts it.
    fn text_on(self) -> Self {
        let [r, g, b] = self.0.map(|channel| {
            let share = f64::from(channel) / 255.0;
            if share <= 0.04045 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) }
        });
        let luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b;
        let (with_white, with_black) = (1.05 / (luminance + 0.05), (luminance + 0.05) / 0.05);
        if with_black > with_white { Self([0; 3]) } else { Self([255; 3]) }
    }
}

impl fmt::Display for Rgb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [r, g, b] = self.0;
        write!(f, "#{r:02x}{g:02x}{b:02x}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sheet(which: Colour, light: &str, dark: &str) -> String {
        Theme::new().colour(which, light, dark).expect("two colours").style_sheet()
    }

    #[test]
    fn a_colour_is_set_for_light_and_for_dark_pages() {
        assert_eq!(
            sheet(Colour::BadPaper, "#fDeCeA", "#321"),
            ":root { --bad-paper: #fdecea; }\n@media (prefers-color-scheme: dark) { :root { --bad-paper: #332211; } }\n"
        );
        assert_eq!(Theme::new().style_sheet(), "");
    }

    #[test]
    fn text_on_the_accent_can_be_read_unless_the_program_says_otherwise() {
        let own = sheet(Colour::Accent, "#0a3d62", "#ffe066");
        assert!(own.starts_with(":root { --accent: #0a3d62; --on-accent: #ffffff; }"), "{own}");
        assert!(own.contains("--accent: #ffe066; --on-accent: #000000;"), "{own}");
        let theme = Theme::new().colour(Colour::OnAccent, "#eee", "#111").expect("two colours");
        let theme = theme.colour(Colour::Accent, "#0a3d62", "#ffe066").expect("two colours");
        assert!(theme.style_sheet().contains("--on-accent: #eeeeee;"), "{}", theme.style_sheet());
    }

    #[test]
    fn whatever_is_no_colour_is_refused_with_what_to_write() {
        for text in [
            "",
            "#",
            "#12",
            "#1234",
            "#12345",
            "#1234567",
            "#12345678",
            "red",
            "rgb(0,0,0)",
            "#12345g",
            "# 12345",
            "#123456;",
            "#12\u{e9}",
            "#１２３",
            "#000;}</style><script>",
            "var(--ink)",
            "url(//evil.example)",
            "#fff\n}",
        ] {
            for (light, dark) in [(text, "#000"), ("#000", text)] {
                let error = Theme::new().colour(Colour::Ink, light, dark).expect_err(text).to_string();
                assert!(error.contains("for --ink: write #rrggbb"), "{error}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_text_brings_more_than_a_colour(text in "[#0-9a-fA-F;{}/* ()]{0,9}") {
            let plain = sheet(Colour::Ink, "#000000", "#000000");
            if let Ok(theme) = Theme::new().colour(Colour::Ink, &text, &text) {
                let sheet = theme.style_sheet();
                prop_assert_eq!(sheet.len(), plain.len());
                let begins = sheet.starts_with(":root { --ink: #");
                prop_assert!(begins, "{}", sheet);
                prop_assert_eq!(sheet.matches(['{', ';', '}']).count(), plain.matches(['{', ';', '}']).count());
            }
        }
    }
}
