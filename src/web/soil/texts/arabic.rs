//! The pages in Modern Standard Arabic. Digits are those of the Arabic script, nouns that are counted have the six forms of
//! the language, and what comes from elsewhere (names of files, errors) is isolated, so that its own direction does not
//! turn the sentence around.

use super::Sentence;
use super::numbers::{grouped, scaled};

pub(super) fn say(sentence: Sentence<'_>) -> String {
    use Sentence as S;
    match sentence {
        S::TabReady => "جاهز".into(),
        S::TabFailed => "فشل".into(),
        S::TabCancelled | S::CancelledTitle => "أُلغي".into(),
        S::TabMissing => "غير موجود".into(),
        S::TabPercent(share) => format!("{} - قيد التنفيذ", percent(share)),
        S::TabWaiting => "في الانتظار".into(),
        S::TabRunning => "قيد التنفيذ".into(),

        S::WaitingToStart => "في انتظار البدء".into(),
        S::Working => "جارٍ العمل".into(),
        S::Progress => "التقدم".into(),
        S::Processed(share) => format!("تمت معالجة {}", percent(share)),
        S::PartsDone { done, total } => format!("(اكتمل {} من أصل {})", number(done), PARTS_OF.count(total)),
        S::StepsDone { done, total } => format!("({} من {})", number(done), number(total)),
        S::DoneSoFar(done) => format!("({} حتى الآن)", number(done)),
        S::NoProgressYet => "العمل جارٍ، ولم يُعرف بعد مدى تقدمه.".into(),
        S::PercentDone(share) => format!("اكتمل {} بالمئة", number(share.into())),
        S::LoadsAgain => "تُعاد هذه الصفحة تلقائيًا كل ثانيتين.".into(),
        S::Cancel => "إلغاء".into(),
        S::NextInLine { again } => format!("هذه المهمة هي التالية في {}.", turn(again)),
        S::InLine { ahead, or_more, again } => {
            let least = if or_more { " على الأقل" } else { "" };
            format!("تنتظر هذه المهمة {}: {}{least} قبلها في الصف.", turn(again), OTHERS.count(ahead))
        }
        S::WaitsForTime => "ستبدأ هذه المهمة في وقت لاحق كما طُلب.".into(),
        S::WaitsForAttempt => "ستُعاد المحاولة تلقائيًا بعد فترة.".into(),
        S::WaitsForOther => "تنتظر هذه المهمة حتى تنتهي مهمة أخرى من النوع نفسه.".into(),
        S::HeldBack => "هذه المهمة موقوفة حاليًا، وستبدأ تلقائيًا لاحقًا.".into(),
        S::StartsIn { from, to, hours } => {
            let to = if hours { HOURS.count(to) } else { MINUTES.count(to) };
            match from {
                0 => format!("من المرجح أن تبدأ هذه المهمة خلال {to}."),
                from => format!("من المرجح أن تبدأ هذه المهمة بعد {} إلى {to}.", number(from)),
            }
        }
        S::QueuePaused(name) => {
            format!("قائمة انتظارها{} متوقفة مؤقتًا. ستتابع المهمة عند إعادة تشغيل القائمة.", queue(name))
        }
        S::QueueHalted(name) => {
            format!("توقفت قائمة انتظارها{} بسبب عطل. ستتابع المهمة بعد إصلاحه.", queue(name))
        }
        S::QueueStuck { queue: name, minutes } => format!(
            "لم تبدأ قائمة انتظارها{} أي مهمة منذ {}. قد يكون هناك خلل في النظام.",
            queue(name),
            MINUTES.count(minutes)
        ),

        S::FilesReady(1) => "ملفك جاهز.".into(),
        S::FilesReady(2) => "ملفاك جاهزان.".into(),
        S::FilesReady(_) => "ملفاتك جاهزة.".into(),
        S::Complete => "اكتملت العملية.".into(),
        S::Download(name) => format!("تنزيل {}", isolated(name)),
        S::Size(bytes) => size(bytes),
        S::Results => "النتائج".into(),
        S::WhatIsMissing => "ما ينقص".into(),
        S::SomethingWrong => "حدث خطأ ما".into(),
        S::WhatThereIs => "ما هو متاح".into(),
        S::CancelledText => "أُوقفت العملية قبل أن تكتمل.".into(),

        S::Parts => "الأجزاء".into(),
        S::Part { part, state } => format!("الجزء {}: {}", number(part), isolated(state)),
        S::PartDone => "اكتمل".into(),
        S::PartFailed(errors) => format!("فشل: {}", isolated(errors)),
        S::PartCancelled => "أُلغي".into(),
        S::PartMissing => "لم يعد معروفًا".into(),
        S::PartPercent(share) => percent(share),
        S::PartWaiting => "في الانتظار".into(),
        S::PartRunning => "قيد التنفيذ".into(),
        S::ProgressOfPart(part) => format!("تقدم الجزء {}", number(part)),
        S::ErrorOfPart { part, error } => format!("الجزء {}: {}", number(part), isolated(error)),
        S::MorePartsFailed(more) => format!("وهناك أيضًا {}.", FAILED_PARTS.count(more)),
        S::PagesOfParts => "صفحات الأجزاء".into(),
        S::EarlierParts => "الأجزاء السابقة".into(),
        S::LaterParts => "الأجزاء التالية".into(),
        S::PartsShown { first, last, total } => {
            format!("الأجزاء من {} إلى {} من أصل {}", number(first), number(last), number(total))
        }

        S::Back => "رجوع".into(),
        S::UnknownTitle => "لا يوجد شيء هنا".into(),
        S::UnknownText => "هذا التنزيل غير معروف. ربما لم يبدأ قط؛ يُرجى البدء من جديد.".into(),
        S::GoneTitle => "انتهت صلاحية هذا التنزيل".into(),
        S::GoneText => "تُحفظ الملفات لمدة محدودة. يُرجى البدء من جديد.".into(),
        S::NoFileTitle => "لا يوجد ملف".into(),
        S::NoFileFailed => "فشلت العملية التي كانت ستُنشئه.".into(),
        S::NoFileMade => "اكتملت العملية ولم تُنشئ أي ملف.".into(),
        S::NoFileYet => "الملف غير جاهز بعد.".into(),
        S::LinkExpiredTitle => "انتهت صلاحية هذا الرابط".into(),
        S::LinkExpiredText => "يُرجى طلب رابط جديد من حيث حصلت عليه.".into(),
        S::LinkRevokedTitle => "سُحب هذا الرابط".into(),
        S::LinkRevokedText => "لم يعد يفتح شيئًا. يُرجى طلب رابط جديد من حيث حصلت عليه.".into(),
        S::DeniedTitle => "لا يحق لك الاطلاع على هذا".into(),
        S::DeniedText => "هذا يخص شخصًا آخر، أو أن الرابط غير كامل.".into(),
        S::LogInTitle => "يُرجى تسجيل الدخول".into(),
        S::LogInText => "لم تعد هويتك معروفة.".into(),
        S::BrokenTitle => "هذا الرابط معطوب".into(),
        S::BrokenId => "المعرّف فيه ليس نصًا.".into(),
        S::BrokenIdLength => "يتكون المعرّف من ١ إلى ٢٥٥ بايت، بلا محارف تحكم.".into(),
        S::BrokenQuery => "تتعذر قراءة ما يلي علامة الاستفهام.".into(),
        S::BrokenPart => "لكل جزء رقم يبدأ من ٠.".into(),
        S::NoPageTitle => "لا توجد صفحة كهذه".into(),
        S::NoPageText => "هذا العنوان لا يقود إلى شيء.".into(),
        S::WrongMethodTitle => "لا يمكن فعل ذلك هنا".into(),
        S::WrongMethodText => "هذا العنوان لا يقبل طلبًا كهذا.".into(),
        S::CrowdedTitle => "عدد المشاهدين كبير جدًا".into(),
        S::CrowdedText => {
            format!("لا تُرسل التغييرات الآن، بل تُعطى عند الطلب: انظر {}.", isolated("`status`"))
        }
        S::UnavailableTitle => "تتعذر الإجابة الآن".into(),
        S::UnavailableText => "ما بدأته مستمر. يُرجى المحاولة مرة أخرى بعد لحظات.".into(),
    }
}

/// A noun with what is counted of it, in the forms that the Unicode plural rules name zero, one, two, few (3 to 10), many
/// (11 to 99) and other (whole hundreds). The last three follow their number.
struct CountedNoun {
    zero: &'static str,
    one: &'static str,
    two: &'static str,
    few: &'static str,
    many: &'static str,
    other: &'static str,
}

const PARTS_OF: CountedNoun =
    CountedNoun {
        zero: "لا أجزاء", one: "جزء واحد", two: "جزأين", few: "أجزاء", many: "جزءًا", other: "جزء"
    };

const FAILED_PARTS: CountedNoun = CountedNoun {
    zero: "لا أجزاء أخرى فاشلة",
    one: "جزء آخر فاشل",
    two: "جزآن آخران فاشلان",
    few: "أجزاء أخرى فاشلة",
    many: "جزءًا آخر فاشلًا",
    other: "جزء آخر فاشل",
};

const OTHERS: CountedNoun = CountedNoun {
    zero: "لا مهام أخرى",
    one: "مهمة أخرى واحدة",
    two: "مهمتان أخريان",
    few: "مهام أخرى",
    many: "مهمة أخرى",
    other: "مهمة أخرى",
};

const MINUTES: CountedNoun = CountedNoun {
    zero: "أقل من دقيقة",
    one: "دقيقة واحدة",
    two: "دقيقتين",
    few: "دقائق",
    many: "دقيقة",
    other: "دقيقة",
};

const HOURS: CountedNoun = CountedNoun {
    zero: "أقل من ساعة",
    one: "ساعة واحدة",
    two: "ساعتين",
    few: "ساعات",
    many: "ساعة",
    other: "ساعة",
};

impl CountedNoun {
    fn count(&self, count: u64) -> String {
        let noun = match (count, count % 100) {
            (0, _) => return self.zero.to_owned(),
            (1, _) => return self.one.to_owned(),
            (2, _) => return self.two.to_owned(),
            (_, 3..=10) => self.few,
            (_, 11..=99) => self.many,
            _ => self.other,
        };
        format!("{} {noun}", number(count))
    }
}

/// The same text with the digits and the signs of the Arabic script.
fn in_script(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            '0'..='9' => char::from_u32(0x0660 + u32::from(character) - u32::from('0')).unwrap_or(character),
            '.' => '\u{066b}',
            other => other,
        })
        .collect()
}

fn number(number: u64) -> String {
    in_script(&grouped(number, "\u{066c}"))
}

fn percent(share: u8) -> String {
    format!("{}\u{066a}", number(share.into()))
}

fn turn(again: bool) -> &'static str {
    if again { "الاستئناف" } else { "البدء" }
}

fn queue(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!("، {}،", isolated(name)))
}

/// A text of any direction, in the middle of one in Arabic.
fn isolated(text: &str) -> String {
    format!("\u{2068}{text}\u{2069}")
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["كيلوبايت", "ميغابايت", "غيغابايت", "تيرابايت", "بيتابايت"];
    match scaled(bytes) {
        Some((number, unit)) => format!("{} {}", in_script(&number), UNITS[unit]),
        None => format!("{} بايت", number(bytes)),
    }
}
