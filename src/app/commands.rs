//! The commands that a program adds to remote control.

use std::error::Error;

use serde_json::Value;

use super::builder::Builder;
use super::control::CommandKind;

/// Commands of the program's own, which `celery -A app control NAME`, `celery -A app inspect NAME`, `celeriac control
/// NAME` and [`Fleet::control`](crate::app::Fleet::control) reach over RabbitMQ. Celery's `@control_command` and
/// `@inspect_command`.
///
/// A command gets its arguments as a JSON object, and its answer is sent as it is; Celery's own say `{"ok": …}` if all
/// is well. An error is answered as `{"error": …}` with its text, and so is a panic, which harms nothing else. Celery's
/// tools wait for about a second; after 10 seconds a command is given up. Four run at a time, on the runtime in which
/// the program was started. A name that Celery, Celeriac or another command of the program has is an error at start.
///
/// ```no_run
/// # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
/// use celeriac::Celeriac;
/// use serde_json::json;
///
/// let celeriac = Celeriac::builder()
///     .control_command("set_mode", |arguments| async move {
///         let mode = arguments["mode"].as_str().ok_or("set_mode() needs `mode`, a text")?;
///         Ok(json!({ "ok": format!("the mode is {mode}") }))
///     })
///     .inspect_command("mode", |_| async { Ok(json!({ "mode": "careful" })) })
///     .start()
///     .await?;
/// # celeriac.shutdown().await?;
/// # Ok(()) }
/// ```
impl Builder {
    /// Adds a command that changes something. Each time that it is given, the log says so.
    pub fn control_command<R>(
        mut self,
        name: impl Into<String>,
        command: impl Fn(Value) -> R + Send + Sync + 'static,
    ) -> Self
    where
        R: Future<Output = Result<Value, Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        self.commands.add(name.into(), CommandKind::Control, command);
        self
    }

    /// Adds a question, which changes nothing. Programs and workers that do not have it are silent.
    pub fn inspect_command<R>(
        mut self,
        name: impl Into<String>,
        command: impl Fn(Value) -> R + Send + Sync + 'static,
    ) -> Self
    where
        R: Future<Output = Result<Value, Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        self.commands.add(name.into(), CommandKind::Inspect, command);
        self
    }
}
