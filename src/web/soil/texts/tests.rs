//! All sentences in all languages, and who gets which.

use actix_web::test::TestRequest;

use super::*;
use Sentence as S;

/// A sentence of each kind, with numbers and names that can be found again.
const SENTENCES: &[Sentence<'static>] = &[
    S::TabReady,
    S::TabFailed,
    S::TabCancelled,
    S::TabMissing,
    S::TabPercent(40),
    S::TabWaiting,
    S::TabRunning,
    S::WaitingToStart,
    S::Working,
    S::Progress,
    S::Processed(40),
    S::PartsDone { done: 4, total: 7 },
    S::StepsDone { done: 4, total: 7 },
    S::DoneSoFar(4),
    S::NoProgressYet,
    S::PercentDone(40),
    S::LoadsAgain,
    S::Cancel,
    S::NextInLine { again: false },
    S::NextInLine { again: true },
    S::InLine { ahead: 4, or_more: false, again: false },
    S::InLine { ahead: 4, or_more: true, again: true },
    S::WaitsForTime,
    S::WaitsForAttempt,
    S::WaitsForOther,
    S::HeldBack,
    S::StartsIn { from: 4, to: 7, hours: false },
    S::StartsIn { from: 4, to: 40, hours: true },
    S::StartsIn { from: 0, to: 7, hours: true },
    S::QueuePaused(None),
    S::QueuePaused(Some("exports")),
    S::QueueHalted(None),
    S::QueueHalted(Some("exports")),
    S::QueueStuck { queue: None, minutes: 4 },
    S::QueueStuck { queue: Some("exports"), minutes: 4 },
    S::FilesReady(1),
    S::FilesReady(4),
    S::Complete,
    S::Download("exports"),
    S::Size(4),
    S::Size(4_700),
    S::Results,
    S::WhatIsMissing,
    S::SomethingWrong,
    S::WhatThereIs,
    S::CancelledTitle,
    S::CancelledText,
    S::Parts,
    S::Part { part: 4, state: "exports" },
    S::PartDone,
    S::PartFailed("exports"),
    S::PartCancelled,
    S::PartMissing,
    S::PartPercent(40),
    S::PartWaiting,
    S::PartRunning,
    S::ProgressOfPart(4),
    S::ErrorOfPart { part: 4, error: "exports" },
    S::MorePartsFailed(4),
    S::PagesOfParts,
    S::EarlierParts,
    S::LaterParts,
    S::PartsShown { first: 4, last: 40, total: 47 },
    S::Back,
    S::UnknownTitle,
    S::UnknownText,
    S::GoneTitle,
    S::GoneText,
    S::NoFileTitle,
    S::NoFileFailed,
    S::NoFileMade,
    S::NoFileYet,
    S::LinkExpiredTitle,
    S::LinkExpiredText,
    S::LinkRevokedTitle,
    S::LinkRevokedText,
    S::DeniedTitle,
    S::DeniedText,
    S::LogInTitle,
    S::LogInText,
    S::BrokenTitle,
    S::BrokenId,
    S::BrokenIdLength,
    S::BrokenQuery,
    S::BrokenPart,
    S::NoPageTitle,
    S::NoPageText,
    S::WrongMethodTitle,
    S::WrongMethodText,
    S::CrowdedTitle,
    S::CrowdedText,
    S::UnavailableTitle,
    S::UnavailableText,
];

/// The numbers and the name in the English sentence.
fn told(text: &str) -> (Vec<char>, bool) {
    let digits = text.chars().filter_map(|character| match character {
        '\u{0660}'..='\u{0669}' => char::from_u32(u32::from(character) - 0x0660 + u32::from('0')),
        digit => digit.is_ascii_digit().then_some(digit),
    });
    (digits.collect(), text.contains("exports"))
}

#[test]
fn each_language_says_each_sentence_with_its_numbers_and_names() {
    let english = Language::english();
    for language in [Language::french(), Language::arabic()] {
        for sentence in SENTENCES {
            let (here, there) = (english.say(*sentence), language.say(*sentence));
            assert_ne!(here, there, "{language:?} {sentence:?}");
            assert!(!there.trim().is_empty());
            assert_eq!(told(&here), told(&there), "{language:?} {sentence:?}: {there}");
            let is_arabic = there.chars().any(|character| ('\u{0600}'..='\u{06ff}').contains(&character));
            assert_eq!(is_arabic, language.is_right_to_left(), "{sentence:?}: {there}");
            let is_latin = there.chars().any(|character| character.is_ascii_alphabetic());
            let has_foreign = there.contains("exports") || there.contains("status");
            assert!(!language.is_right_to_left() || is_latin == has_foreign, "{sentence:?}: {there}");
        }
    }
}

#[test]
fn counted_nouns_have_the_forms_of_their_language() {
    let ahead = |language: &Language, ahead| language.say(S::InLine { ahead, or_more: false, again: false });
    for (language, count, part) in [
        (Language::english(), 1, "one other is"),
        (Language::english(), 2, "2 others are"),
        (Language::french(), 1, "une autre la précède"),
        (Language::french(), 2, "2 autres la précèdent"),
        (Language::french(), 12_345, "12\u{202f}345 autres"),
        (Language::arabic(), 1, "مهمة أخرى واحدة"),
        (Language::arabic(), 2, "مهمتان أخريان"),
        (Language::arabic(), 3, "٣ مهام أخرى"),
        (Language::arabic(), 10, "١٠ مهام أخرى"),
        (Language::arabic(), 11, "١١ مهمة أخرى"),
        (Language::arabic(), 100, "١٠٠ مهمة أخرى"),
        (Language::arabic(), 103, "١٠٣ مهام أخرى"),
        (Language::arabic(), 1_111, "١٬١١١ مهمة أخرى"),
    ] {
        let text = ahead(&language, count);
        assert!(text.contains(part), "{count}: {text}");
    }
    let more = |language: &Language, more| language.say(S::MorePartsFailed(more));
    assert_eq!(more(&Language::english(), 1), "And 1 more part has failed.");
    assert_eq!(more(&Language::english(), 20), "And 20 more parts have failed.");
    assert_eq!(more(&Language::french(), 1), "Et 1 autre partie a échoué.");
    let done = |done| Language::french().say(S::PartsDone { done, total: 3 });
    assert_eq!([done(0), done(2)], ["(0 partie terminée sur 3)", "(2 parties terminées sur 3)"]);
}

#[test]
fn sizes_are_read_by_people() {
    for (bytes, english, french, arabic) in [
        (0, "0 bytes", "0\u{202f}octet", "٠ بايت"),
        (1, "1 byte", "1\u{202f}octet", "١ بايت"),
        (999, "999 bytes", "999\u{202f}octets", "٩٩٩ بايت"),
        (1_500, "1.5 kB", "1,5\u{202f}ko", "١٫٥ كيلوبايت"),
        (1_500_000_000, "1.5 GB", "1,5\u{202f}Go", "١٫٥ غيغابايت"),
    ] {
        assert_eq!(Language::english().say(S::Size(bytes)), english);
        assert_eq!(Language::french().say(S::Size(bytes)), french);
        assert_eq!(Language::arabic().say(S::Size(bytes)), arabic);
    }
}

#[test]
fn any_sentence_can_be_replaced_and_the_newest_text_wins() {
    let mine =
        |text: &'static str| move |sentence: Sentence<'_>| (sentence == S::Back).then(|| text.to_owned());
    let language = Language::french().with(mine("une")).with(mine("deux"));
    assert_eq!(language.say(S::Back), "deux");
    assert_eq!(language.say(S::Cancel), "Annuler");
    assert_eq!((language.tag(), language.is_right_to_left()), ("fr", false));
    let hebrew = Language::new("he", mine("חזרה")).right_to_left();
    assert_eq!((hebrew.say(S::Back).as_str(), hebrew.say(S::Cancel).as_str()), ("חזרה", "Cancel"));
    assert!(hebrew.is_right_to_left() && hebrew.has_tag());
    for (tag, is_one) in [
        ("pt-BR", true),
        ("zh-Hant-TW", true),
        ("", false),
        ("x", false),
        ("de_DE", false),
        ("en\"><b", false),
    ] {
        assert_eq!(Language::new(tag, mine("")).has_tag(), is_one, "{tag}");
    }
}

#[test]
fn a_request_gets_the_language_that_it_asks_for_if_there_is_one() {
    let brazilian = Language::new("pt-BR", |_| None);
    let offered = [Language::english(), Language::french(), Language::arabic(), brazilian];
    let mut languages = Languages::default().offer(offered).expect("there are some");
    let tag = |languages: &Languages, accept: &str| {
        let request = TestRequest::default().insert_header(("Accept-Language", accept)).to_http_request();
        languages.of(&request).tag().to_owned()
    };
    for (accept, expected) in [
        ("fr", "fr"),
        ("fr-CA,fr;q=0.9,en;q=0.8", "fr"),
        ("FR-be", "fr"),
        ("de, ar;q=0.5, fr;q=0.4", "ar"),
        ("en;q=0.1, ar-EG;q=0.2", "ar"),
        ("pt", "pt-BR"),
        ("pt-PT", "pt-BR"),
        ("de", "en"),
        ("fr;q=0, de", "en"),
        ("*", "en"),
        ("*, fr;q=0.9", "en"),
        ("", "en"),
        (";;;q=x,,fr;q=", "en"),
        ("fr;q=0.9;q=7, ar", "ar"),
    ] {
        assert_eq!(tag(&languages, accept), expected, "{accept}");
    }
    assert_eq!(languages.of(&TestRequest::default().to_http_request()).tag(), "en");
    assert_eq!(tag(&Languages::default(), "fr"), "en", "only English is offered");
    // What the program says comes first, if the pages have it.
    languages.choose(|request| Some(request.headers().get("X-Language")?.to_str().ok()?.to_owned()));
    for (chosen, expected) in [("ar", "ar"), ("fr-CH", "fr"), ("tlh", "fr")] {
        let request = TestRequest::default().insert_header(("Accept-Language", "fr"));
        let request = request.insert_header(("X-Language", chosen)).to_http_request();
        assert_eq!(languages.of(&request).tag(), expected, "{chosen}");
    }
    assert!(Languages::default().offer([]).is_none());
}
