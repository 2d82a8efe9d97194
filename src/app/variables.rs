//! The environment variables that say where a program's tasks are, and what holds for all of them. The builder takes them
//! when it is asked to, and the command line reads those of the broker and the result backend, under the same names.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::backend::{Backend, unknown};
use super::builder::{Builder, Transport};
use super::start_error::StartError;
use crate::catalogue::{Problem, parse_span};
use crate::core::address::shown;
use crate::core::calendar::Zone;
use crate::task::TaskDefaults;

/// The address of the broker.
pub(crate) const BROKER: &str = "CELERIAC_BROKER";
/// The address of the result backend.
pub(crate) const RESULT_BACKEND: &str = "CELERIAC_RESULT_BACKEND";
/// The directory of the embedded store.
pub(crate) const DIRECTORY: &str = "CELERIAC_DIRECTORY";
/// The file of the catalogue.
pub(crate) const CATALOGUE: &str = "CELERIAC_CATALOGUE";
/// The environment of the catalogue.
pub(crate) const ENVIRONMENT: &str = "CELERIAC_ENVIRONMENT";

/// The soft time limit of tasks that state none.
const SOFT_TIME_LIMIT: &str = "CELERIAC_SOFT_TIME_LIMIT";
/// The hard time limit of tasks that state none.
const TIME_LIMIT: &str = "CELERIAC_TIME_LIMIT";
/// How often a failed attempt is tried again, of tasks that do not say it.
const MAX_RETRIES: &str = "CELERIAC_MAX_RETRIES";
/// How long results are kept, of tasks that do not say it.
const RESULT_EXPIRES: &str = "CELERIAC_RESULT_EXPIRES";
/// The zone of periodic entries that state none.
const ZONE: &str = "CELERIAC_ZONE";

/// A variable that was taken, with its value.
pub(super) type TakenVariable = (&'static str, String);

impl Builder {
    /// A builder with what the environment says, and the defaults for the rest. What the code says afterwards wins:
    /// `Builder::from_env()?.directory("data")` has its tasks in `data`, whatever the environment says. For the other
    /// way round see [`with_env`](Self::with_env).
    ///
    /// | variable | is |
    /// |---|---|
    /// | `CELERIAC_BROKER` | [`amqp`](Self#method.amqp), or with the value `memory://` [`in_memory`](Self::in_memory) |
    /// | `CELERIAC_DIRECTORY` | [`directory`](Self::directory); not together with `CELERIAC_BROKER` |
    /// | `CELERIAC_RESULT_BACKEND` | [`result_backend`](Self::result_backend) |
    /// | `CELERIAC_CATALOGUE` | [`catalogue_file`](Self::catalogue_file) |
    /// | `CELERIAC_ENVIRONMENT` | [`environment`](Self::environment) |
    /// | `CELERIAC_SOFT_TIME_LIMIT`, `CELERIAC_TIME_LIMIT` | the limits of [`defaults`](Self::defaults): `2d`, `90s` |
    /// | `CELERIAC_MAX_RETRIES`, `CELERIAC_RESULT_EXPIRES` | those of [`defaults`](Self::defaults): `5`, `12h` |
    /// | `CELERIAC_ZONE` | [`zone`](Self::zone): `Asia/Kolkata` |
    ///
    /// A variable that is empty counts as not set.
    ///
    /// ```no_run
    /// # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
    /// use celeriac::Builder;
    /// let celeriac = Builder::from_env()?.start().await?;
    /// # celeriac.shutdown().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// A variable has a value that means nothing; the error names it. What only the start can see, such as a file that is
    /// not there, is an error of [`start`](Self::start), and names its variable as well.
    pub fn from_env() -> Result<Self, StartError> {
        Self::new().with_env()
    }

    /// Takes what the environment says, by the variables of [`from_env`](Self::from_env). It wins over what the code has
    /// said before, so this goes last where the code states the defaults of a program:
    /// `Celeriac::builder().directory("data").with_env()?`.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn with_env(self) -> Result<Self, StartError> {
        self.with_variables(std::env::var_os)
    }

    fn with_variables(mut self, read: impl Fn(&'static str) -> Option<OsString>) -> Result<Self, StartError> {
        let text = |variable: &'static str| match read(variable).filter(|value| !value.is_empty()) {
            Some(value) => value.into_string().map(Some).map_err(|value| {
                wrong(variable, format!("`{}` is not Unicode text", value.to_string_lossy()))
            }),
            None => Ok(None),
        };
        let (broker, directory) = (text(BROKER)?, text(DIRECTORY)?);
        if let (Some(_), Some(directory)) = (&broker, &directory) {
            let problem = format!(
                "`{directory}` is the directory of an embedded store, and {BROKER} names a broker; the tasks are in one place, so unset one of the two"
            );
            return Err(wrong(DIRECTORY, problem));
        }
        let mut taken = Vec::new();
        if let Some(url) = broker {
            self = self.with_broker_at(&url)?;
            taken.push((BROKER, url));
        }
        if let Some(directory) = directory {
            self = self.directory(&directory);
            taken.push((DIRECTORY, directory));
        }
        if let Some(url) = text(RESULT_BACKEND)? {
            if let Backend::Unknown(url) = Backend::at(url.clone()) {
                return Err(wrong(RESULT_BACKEND, unknown(&url)));
            }
            self = self.result_backend(&url);
            taken.push((RESULT_BACKEND, url));
        }
        if let Some(file) = text(CATALOGUE)? {
            self = self.catalogue_file(&file);
            taken.push((CATALOGUE, file));
        }
        if let Some(environment) = text(ENVIRONMENT)? {
            self = self.environment(&environment);
            taken.push((ENVIRONMENT, environment));
        }
        let mut defaults = TaskDefaults::default();
        for (variable, limit) in [
            (SOFT_TIME_LIMIT, &mut defaults.soft_time_limit),
            (TIME_LIMIT, &mut defaults.time_limit),
            (RESULT_EXPIRES, &mut defaults.result_expires),
        ] {
            *limit = text(variable)?.map(|value| span(variable, &value)).transpose()?;
        }
        let retries = |value: String| {
            value
                .parse::<u32>()
                .map_err(|_| wrong(MAX_RETRIES, format!("`{value}` is no whole number such as 5")))
        };
        defaults.max_retries = text(MAX_RETRIES)?.map(retries).transpose()?;
        self = self.defaults(defaults);
        if let Some(zone) = text(ZONE)? {
            let zone = zone.parse::<Zone>().map_err(|error| wrong(ZONE, error.to_string()))?;
            self = self.zone(zone);
        }
        self.taken = taken;
        Ok(self)
    }

    fn with_broker_at(self, url: &str) -> Result<Self, StartError> {
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme).trim().to_ascii_lowercase();
        match scheme.as_str() {
            "memory" => Ok(self.in_memory()),
            #[cfg(feature = "amqp")]
            "amqp" | "amqps" | "pyamqp" | "pyamqps" => Ok(self.amqp(url)),
            #[cfg(not(feature = "amqp"))]
            "amqp" | "amqps" | "pyamqp" | "pyamqps" => Err(wrong(
                BROKER,
                "this build of Celeriac has no RabbitMQ: build it with the feature `amqp`".to_owned(),
            )),
            _ => Err(wrong(
                BROKER,
                format!(
                    "`{}` is no broker of Celeriac; there are amqp://, amqps:// and memory://, and {DIRECTORY} names the directory of an embedded store",
                    shown(url)
                ),
            )),
        }
    }

    /// The variables whose values still hold: the code has said nothing else since.
    pub(super) fn variables_in_force(&self) -> Vec<&'static str> {
        let holds = |(variable, value): &&TakenVariable| match *variable {
            BROKER => match &self.keeping {
                #[cfg(feature = "amqp")]
                Transport::Amqp(url) => url == value,
                Transport::Memory => true,
                _ => false,
            },
            DIRECTORY => matches!(&self.keeping, Transport::Embedded(dir) if dir == Path::new(value)),
            RESULT_BACKEND => self.backend.is_some(),
            CATALOGUE => self.file.as_deref() == Some(Path::new(value)),
            ENVIRONMENT => self.environment.as_ref() == Some(value),
            _ => false,
        };
        self.taken.iter().filter(holds).map(|(variable, _)| *variable).collect()
    }
}

fn span(variable: &'static str, value: &str) -> Result<Duration, StartError> {
    parse_span(value).filter(|span| !span.is_zero()).ok_or_else(|| {
        wrong(
            variable,
            format!("`{value}` is no duration above zero; write one such as `90s`, `15m` or `2d`"),
        )
    })
}

fn wrong(variable: &'static str, problem: String) -> StartError {
    StartError::Variable { variable, problem }
}

/// The error of a start, with the variable that named what it is about, if one of these did.
pub(super) fn traced(error: StartError, in_force: &[&'static str]) -> StartError {
    let concerned: &[&str] = match &error {
        StartError::Broker(_) => &[BROKER, DIRECTORY],
        StartError::Store(_) => &[RESULT_BACKEND],
        StartError::Catalogue(errors) => {
            let of_environment = |problem: &Problem| matches!(problem, Problem::UnknownEnvironment { .. });
            if errors.errors.iter().any(|error| of_environment(&error.problem)) {
                &[ENVIRONMENT]
            } else {
                &[CATALOGUE]
            }
        }
        _ => &[],
    };
    match in_force.iter().copied().find(|variable| concerned.contains(variable)) {
        Some(variable) => StartError::OfVariable { variable, error: Box::new(error) },
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Celeriac;

    /// A builder that takes these variables after `before`.
    fn after(before: Builder, variables: &[(&str, &str)]) -> Result<Builder, StartError> {
        before.with_variables(|name| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).into())
        })
    }

    fn of(variables: &[(&str, &str)]) -> Result<Builder, StartError> {
        after(Celeriac::builder(), variables)
    }

    #[test]
    fn each_variable_does_what_its_method_does() {
        let builder = of(&[
            (DIRECTORY, "/srv/tasks"),
            (RESULT_BACKEND, "memory://"),
            (CATALOGUE, "queues.toml"),
            (ENVIRONMENT, "staging"),
            (BROKER, ""),
        ])
        .expect("the empty one counts as not set");
        assert!(matches!(&builder.keeping, Transport::Embedded(dir) if dir == Path::new("/srv/tasks")));
        assert!(matches!(builder.backend, Some(Backend::Memory)));
        assert_eq!(builder.file.as_deref(), Some(Path::new("queues.toml")));
        assert_eq!(builder.environment.as_deref(), Some("staging"));
        assert_eq!(builder.variables_in_force(), [DIRECTORY, RESULT_BACKEND, CATALOGUE, ENVIRONMENT]);
        assert!(matches!(of(&[(BROKER, "memory://")]), Ok(Builder { keeping: Transport::Memory, .. })));
        #[cfg(feature = "amqp")]
        assert!(matches!(
            of(&[(BROKER, "AMQPS://rabbit/hq")]),
            Ok(Builder { keeping: Transport::Amqp(_), .. })
        ));
    }

    #[test]
    fn defaults_of_tasks_are_taken_and_win_over_what_the_code_said_before() {
        let mut before = TaskDefaults::default();
        (before.max_retries, before.autoretry) = (Some(1), Some(false));
        let variables = [
            (SOFT_TIME_LIMIT, "2d"),
            (TIME_LIMIT, "2d1h"),
            (MAX_RETRIES, "5"),
            (RESULT_EXPIRES, "12h"),
            (ZONE, "Asia/Kolkata"),
        ];
        let builder = after(Celeriac::builder().defaults(before), &variables).expect("valid");
        let hour = |hours: u64| Some(Duration::from_secs(hours * 3600));
        let defaults = &builder.defaults;
        assert_eq!((defaults.soft_time_limit, defaults.time_limit), (hour(48), hour(49)));
        assert_eq!((defaults.max_retries, defaults.result_expires), (Some(5), hour(12)));
        assert_eq!(defaults.autoretry, Some(false));
        assert_eq!(builder.zone.map(|zone| zone.to_string()).as_deref(), Some("Asia/Kolkata"));
        for (variable, value, part) in [
            (TIME_LIMIT, "2 days", "`2 days` is no duration"),
            (SOFT_TIME_LIMIT, "0s", "above zero"),
            (MAX_RETRIES, "-1", "`-1` is no whole number"),
            (ZONE, "Asia/Calcuta", "did you mean `Asia/Calcutta`?"),
        ] {
            let error = of(&[(variable, value)]).err().expect("an error").to_string();
            assert!(error.starts_with(variable) && error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_last_word_wins() {
        let code_last = of(&[(DIRECTORY, "env")]).expect("valid").directory("code");
        assert!(matches!(&code_last.keeping, Transport::Embedded(dir) if dir == Path::new("code")));
        assert!(code_last.variables_in_force().is_empty());
        let env_last = after(Celeriac::builder().directory("code"), &[(DIRECTORY, "env")]).expect("valid");
        assert!(matches!(&env_last.keeping, Transport::Embedded(dir) if dir == Path::new("env")));
        let unset = after(Celeriac::builder().directory("code"), &[]).expect("valid");
        assert!(matches!(&unset.keeping, Transport::Embedded(dir) if dir == Path::new("code")));
    }

    #[test]
    fn a_value_that_means_nothing_is_an_error_that_names_its_variable() {
        for (variables, parts) in [
            (&[(BROKER, "redis://u:geheim@h")][..], [BROKER, "`redis://***@h` is no broker"]),
            (&[(BROKER, "/srv/tasks")][..], [BROKER, DIRECTORY]),
            (&[(BROKER, "memory://"), (DIRECTORY, "d")][..], [DIRECTORY, "unset one of the two"]),
            (&[(RESULT_BACKEND, "mongodb://h")][..], [RESULT_BACKEND, "`mongodb://h` is no result backend"]),
        ] {
            let error = of(variables).err().expect("an error").to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
            assert!(error.starts_with(parts[0]) && !error.contains("geheim"), "{error}");
        }
    }

    #[tokio::test]
    async fn what_only_the_start_sees_names_its_variable_too() {
        let missing = of(&[(BROKER, "memory://"), (CATALOGUE, "/nowhere/queues.toml")]);
        let error = missing.expect("valid so far").start().await.err().expect("no such file");
        let text = error.to_string();
        assert!(text.contains("/nowhere/queues.toml") && text.contains(CATALOGUE), "{text}");
        let unknown = of(&[(BROKER, "memory://"), (ENVIRONMENT, "no-such-environment")]);
        let text = unknown.expect("valid so far").start().await.err().expect("unknown").to_string();
        assert!(text.contains("no-such-environment") && text.contains(ENVIRONMENT), "{text}");
        // What the code names is not the environment's fault.
        let of_code = of(&[(BROKER, "memory://"), (CATALOGUE, "queues.toml")]).expect("valid");
        let error = of_code.catalogue_file("/nowhere/other.toml").start().await.err().expect("no such file");
        assert!(matches!(error, StartError::Catalogue(_)), "{error}");
    }
}
