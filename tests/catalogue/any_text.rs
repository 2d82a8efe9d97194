//! Whatever the text, it is read or refused, and never brings the program down.

use std::time::Duration;

use celeriac::catalogue::{Catalogue, format_span, parse_span};
use proptest::prelude::*;

use crate::SHIPPED;

/// Whatever was read can be used, whatever was not is explained.
fn survives(text: &str) {
    match Catalogue::parse(text, "f") {
        Ok(catalogue) => {
            let names: Vec<_> = catalogue.environments().map(str::to_owned).collect();
            for name in names {
                let environment =
                    catalogue.for_environment(&name).unwrap_or_else(|errors| panic!("{errors}"));
                assert_eq!(environment.validate(), Ok(()), "{name}");
            }
            for queue in catalogue
                .aliases
                .keys()
                .chain(catalogue.routes.values())
                .chain(catalogue.route_rows.iter().map(|row| &row.queue))
            {
                assert!(catalogue.resolve(queue).is_some(), "{queue:?}");
            }
            catalogue.warnings().iter().for_each(|warning| assert!(!warning.to_string().contains('\n')));
            catalogue.queues.iter().for_each(|row| assert!(!row.explain().contains('\n')));
            assert_eq!(catalogue.validate(), Ok(()));
        }
        Err(errors) => {
            assert!(!errors.errors.is_empty());
            assert_eq!(errors.to_string().lines().count(), errors.errors.len(), "{errors}");
        }
    }
}

#[test]
fn deep_texts_are_read_or_refused() {
    for piece in ["[", "{a=", "a.", "[[a]]\n", "[queue.", "\u{feff}"] {
        survives(&piece.repeat(20_000));
        survives(&format!("queue = {}", piece.repeat(20_000)));
        survives(&format!("{}a = 1", piece.repeat(20_000)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        survives(&text);
    }

    #[test]
    fn any_toml_like_text_is_read_or_refused(text in r#"([\[\]{}=.,"'#\n ]|queue|name|aliases|a|environment|1|-){0,60}"#) {
        survives(&text);
    }

    #[test]
    fn a_mangled_file_is_read_or_refused(
        cuts in prop::collection::vec((0..SHIPPED.len(), 0..12_usize, r#"(\PC|["\n=\[\].]){0,3}"#), 1..4),
    ) {
        let mut text: Vec<char> = SHIPPED.chars().collect();
        for (at, length, insert) in cuts {
            let at = at.min(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, insert.chars());
        }
        survives(&text.into_iter().collect::<String>());
    }

    #[test]
    fn lines_in_another_order_are_read_or_refused(swaps in prop::collection::vec((0..250_usize, 0..250_usize), 1..4)) {
        let mut lines: Vec<&str> = SHIPPED.lines().collect();
        for (a, b) in swaps {
            let count = lines.len();
            lines.swap(a % count, b % count);
        }
        survives(&lines.join("\n"));
    }

    #[test]
    fn spans_of_time_are_read_as_printed(millis in any::<u64>(), text in any::<String>()) {
        let span = Duration::from_millis(millis);
        prop_assert_eq!(parse_span(&format_span(span)), Some(span));
        let _ = parse_span(&text);
    }
}
