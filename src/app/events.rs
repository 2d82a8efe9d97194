//! What happens to tasks, for programs that want to be told.

use super::handle::Celeriac;
use crate::task::{EventGroup, EventStream};

impl Celeriac {
    /// Streams what happens to the tasks that this program sends and runs, from now on: Celery's task events, on any
    /// broker, without one that others could listen to.
    ///
    /// The stream costs nothing while nobody listens. It holds up nobody either: a listener that is slow loses the
    /// oldest events, and [`EventStream::missed`] says how many. It ends when the runtime has shut down.
    ///
    /// ```
    /// use celeriac::task::EventKind;
    /// use celeriac::{Celeriac, task};
    ///
    /// #[task]
    /// async fn add(a: i64, b: i64) -> i64 {
    ///     a + b
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let celeriac = Celeriac::builder().in_memory().start().await?;
    /// let mut events = celeriac.events();
    /// add::delay(2, 3).await?;
    /// while let Some(event) = events.next().await {
    ///     println!("{} {} {}", event.at, event.task(), event.kind.name());
    ///     if let EventKind::Succeeded { result, runtime } = event.kind {
    ///         println!("{result} after {runtime:?}");
    ///         break;
    ///     }
    /// }
    /// celeriac.shutdown().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// Tasks with the option `send_events = false` are left out. An event says of a result what fits a line; the value
    /// itself is in the result store.
    pub fn events(&self) -> EventStream {
        self.runtime().events.listen(&EventGroup::ALL)
    }
}
