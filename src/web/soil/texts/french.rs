//! The pages in French. Numbers have a narrow space between groups of digits and a comma before decimals; signs of two
//! parts have a narrow space before them. Zero and one are singular.

use super::Sentence;
use super::numbers::{grouped, scaled};

pub(super) fn say(sentence: Sentence<'_>) -> String {
    use Sentence as S;
    match sentence {
        S::TabReady => "Prêt".into(),
        S::TabFailed => "Échec".into(),
        S::TabCancelled | S::CancelledTitle => "Annulé".into(),
        S::TabMissing => "Introuvable".into(),
        S::TabPercent(percent) => format!("{percent}\u{202f}% - en cours"),
        S::TabWaiting => "En attente".into(),
        S::TabRunning => "En cours".into(),

        S::WaitingToStart => "En attente de démarrage".into(),
        S::Working => "Traitement en cours".into(),
        S::Progress => "Progression".into(),
        S::Processed(percent) => format!("Traité à {percent}\u{202f}%"),
        S::PartsDone { done, total } => {
            let counted = if is_singular(done) { "partie terminée" } else { "parties terminées" };
            format!("({} {counted} sur {})", number(done), number(total))
        }
        S::StepsDone { done, total } => format!("({} sur {})", number(done), number(total)),
        S::DoneSoFar(done) => format!("({} jusqu’ici)", number(done)),
        S::NoProgressYet => "Le traitement est en cours, mais son avancement n’est pas encore connu.".into(),
        S::PercentDone(percent) => format!("{percent} pour cent effectués"),
        S::LoadsAgain => "Cette page se recharge toutes les deux secondes.".into(),
        S::Cancel => "Annuler".into(),
        S::NextInLine { again } => format!("Cette tâche est la prochaine à {}.", turn(again)),
        S::InLine { ahead, or_more, again } => {
            let least = if or_more { "au moins " } else { "" };
            let others = match ahead {
                1 => "une autre la précède".to_owned(),
                ahead => format!("{} autres la précèdent", number(ahead)),
            };
            format!("Cette tâche attend de {}\u{202f}: {least}{others} dans la file.", turn(again))
        }
        S::WaitsForTime => "Cette tâche démarrera plus tard, comme demandé.".into(),
        S::WaitsForAttempt => "Une nouvelle tentative aura lieu d’elle-même après une pause.".into(),
        S::WaitsForOther => "Cette tâche attend la fin d’une autre du même genre.".into(),
        S::HeldBack => "Cette tâche est retenue pour le moment. Elle démarrera d’elle-même plus tard.".into(),
        S::StartsIn { from, to, hours } => {
            let unit = match (hours, is_singular(to)) {
                (false, true) => "minute",
                (false, false) => "minutes",
                (true, true) => "heure",
                (true, false) => "heures",
            };
            match from {
                0 => format!("Cette tâche devrait démarrer d’ici {} {unit}.", number(to)),
                from => {
                    format!("Cette tâche devrait démarrer dans {} à {} {unit}.", number(from), number(to))
                }
            }
        }
        S::QueuePaused(name) => {
            format!("{} est en pause. Le traitement reprendra dès qu’elle sera remise en marche.", queue(name))
        }
        S::QueueHalted(name) => {
            format!(
                "{} s’est arrêtée à cause d’une panne. Le traitement reprendra après la réparation.",
                queue(name)
            )
        }
        S::QueueStuck { queue: name, minutes } => {
            let unit = if is_singular(minutes) { "minute" } else { "minutes" };
            format!(
                "{} n’a rien démarré depuis {} {unit}. Le système rencontre peut-être un problème.",
                queue(name),
                number(minutes)
            )
        }

        S::FilesReady(1) => "Votre fichier est prêt.".into(),
        S::FilesReady(_) => "Vos fichiers sont prêts.".into(),
        S::Complete => "Traitement terminé.".into(),
        S::Download(name) => format!("Télécharger {name}"),
        S::Size(bytes) => size(bytes),
        S::Results => "Résultats".into(),
        S::WhatIsMissing => "Ce qui manque".into(),
        S::SomethingWrong => "Une erreur s’est produite".into(),
        S::WhatThereIs => "Ce qui est disponible".into(),
        S::CancelledText => "Le traitement a été arrêté avant la fin.".into(),

        S::Parts => "Parties".into(),
        S::Part { part, state } => format!("Partie {}\u{202f}: {state}", number(part)),
        S::PartDone => "terminée".into(),
        S::PartFailed(errors) => format!("échec\u{202f}: {errors}"),
        S::PartCancelled => "annulée".into(),
        S::PartMissing => "n’est plus connue".into(),
        S::PartPercent(percent) => format!("{percent}\u{202f}%"),
        S::PartWaiting => "en attente".into(),
        S::PartRunning => "en cours".into(),
        S::ProgressOfPart(part) => format!("Progression de la partie {}", number(part)),
        S::ErrorOfPart { part, error } => format!("Partie {}\u{202f}: {error}", number(part)),
        S::MorePartsFailed(more) if is_singular(more) => {
            format!("Et {} autre partie a échoué.", number(more))
        }
        S::MorePartsFailed(more) => format!("Et {} autres parties ont échoué.", number(more)),
        S::PagesOfParts => "Pages des parties".into(),
        S::EarlierParts => "Parties précédentes".into(),
        S::LaterParts => "Parties suivantes".into(),
        S::PartsShown { first, last, total } => {
            format!("Parties {} à {} sur {}", number(first), number(last), number(total))
        }

        S::Back => "Retour".into(),
        S::UnknownTitle => "Il n’y a rien ici".into(),
        S::UnknownText => {
            "Ce téléchargement n’est pas connu. Il n’a peut-être jamais été lancé\u{202f}; veuillez le lancer à nouveau."
                .into()
        }
        S::GoneTitle => "Ce téléchargement a expiré".into(),
        S::GoneText => {
            "Les fichiers sont conservés pendant une durée limitée. Veuillez le lancer à nouveau.".into()
        }
        S::NoFileTitle => "Il n’y a pas de fichier".into(),
        S::NoFileFailed => "Le traitement qui devait le produire a échoué.".into(),
        S::NoFileMade => "Le traitement est terminé et n’a produit aucun fichier.".into(),
        S::NoFileYet => "Il n’est pas encore prêt.".into(),
        S::LinkExpiredTitle => "Ce lien a expiré".into(),
        S::LinkExpiredText => "Veuillez en demander un nouveau là où vous l’avez obtenu.".into(),
        S::LinkRevokedTitle => "Ce lien a été retiré".into(),
        S::LinkRevokedText => {
            "Il n’ouvre plus rien. Veuillez en demander un nouveau là où vous l’avez obtenu.".into()
        }
        S::DeniedTitle => "Vous n’avez pas accès à cette page".into(),
        S::DeniedText => "Elle appartient à quelqu’un d’autre, ou le lien est incomplet.".into(),
        S::LogInTitle => "Veuillez vous connecter".into(),
        S::LogInText => "Votre session n’est plus connue.".into(),
        S::BrokenTitle => "Ce lien est défectueux".into(),
        S::BrokenId => "L’identifiant qu’il contient n’est pas un texte.".into(),
        S::BrokenIdLength => {
            "Un identifiant compte de 1 à 255 octets, sans caractères de contrôle.".into()
        }
        S::BrokenQuery => "Ce qui suit le point d’interrogation est illisible.".into(),
        S::BrokenPart => "Une partie a un numéro, à partir de 0.".into(),
        S::NoPageTitle => "Cette page n’existe pas".into(),
        S::NoPageText => "L’adresse ne mène nulle part.".into(),
        S::WrongMethodTitle => "Ce n’est pas possible ici".into(),
        S::WrongMethodText => "Cette adresse n’accepte pas une telle requête.".into(),
        S::CrowdedTitle => "Trop de personnes regardent en même temps".into(),
        S::CrowdedText => {
            "Les changements ne sont pas annoncés, mais donnés sur demande\u{202f}: voir `status`.".into()
        }
        S::UnavailableTitle => "Réponse impossible pour le moment".into(),
        S::UnavailableText => "Ce que vous avez lancé continue. Veuillez réessayer dans un instant.".into(),
    }
}

fn is_singular(count: u64) -> bool {
    count < 2
}

fn number(number: u64) -> String {
    grouped(number, "\u{202f}")
}

fn turn(again: bool) -> &'static str {
    if again { "reprendre" } else { "démarrer" }
}

fn queue(name: Option<&str>) -> String {
    name.map_or_else(|| "Sa file d’attente".to_owned(), |name| format!("Sa file d’attente, {name},"))
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["ko", "Mo", "Go", "To", "Po"];
    match scaled(bytes) {
        Some((number, unit)) => format!("{}\u{202f}{}", number.replace('.', ","), UNITS[unit]),
        None if is_singular(bytes) => format!("{bytes}\u{202f}octet"),
        None => format!("{bytes}\u{202f}octets"),
    }
}
