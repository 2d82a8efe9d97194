//! A program that is a child of its own process pool: it builds what it builds, and then serves in place of starting.

use super::builder::Builder;
use super::start_error::StartError;
#[cfg(unix)]
use crate::runtime::process::child::{self, ChildSetup};
#[cfg(unix)]
use crate::task::registry::Registry;

/// Whether this process is a child of a process pool: the program itself, started again to run the bodies of a queue with
/// `pool = "process"`.
///
/// A child runs `main` up to [`Builder::start`], or to [`Builder::serve_if_child`], and no further. A program that does
/// something before, which only one process may do, asks this first.
///
/// ```
/// if !celeriac::is_child_process() {
///     println!("migrating the database");
/// }
/// ```
pub fn is_child_process() -> bool {
    crate::runtime::process::child::is_child()
}

impl Builder {
    /// In a child of a process pool, serves the program that has started it, and never returns. Otherwise it returns the
    /// builder as it is. [`start`](Self::start) does the same; a program calls this earlier if its `main` does something
    /// before the start that a child must not do, such as binding a port. The data, the layers and the hook for workers have to
    /// be in the builder by then.
    ///
    /// ```no_run
    /// # use celeriac::Celeriac;
    /// # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
    /// let builder = Celeriac::builder().catalogue_file("celeriac.toml").data("a client".to_owned());
    /// let builder = builder.serve_if_child().await?; // a child comes as far as this
    /// let listener = std::net::TcpListener::bind("127.0.0.1:8080")?;
    /// let celeriac = builder.start().await?;
    /// # drop((listener, celeriac));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// This is a child, and the program that has started it cannot be spoken to.
    pub async fn serve_if_child(self) -> Result<Self, StartError> {
        #[cfg(unix)]
        if is_child_process() && !self.without_actors {
            return Err(self.serve().await);
        }
        Ok(self)
    }

    /// Serves until the process ends. Returns only if it cannot.
    #[cfg(unix)]
    async fn serve(self) -> StartError {
        let setup = self.child_setup().map_err(|error| {
            tracing::error!(%error, "a child process cannot work");
            format!("ended because its `main` has built something else than that of the program: {error}")
        });
        match child::serve(setup) {
            // The thread that serves ends the process. The event loop of `main` goes on meanwhile.
            Ok(()) => std::future::pending().await,
            Err(error) => StartError::Child(error),
        }
    }

    /// What a child needs of all that the builder has.
    #[cfg(unix)]
    fn child_setup(self) -> Result<ChildSetup, StartError> {
        let registry = Registry::discover()?.with_defaults(self.defaults);
        if let Some((task, data)) = registry.lacks(&self.data) {
            return Err(StartError::data_not_given(task, data));
        }
        Ok(ChildSetup {
            registry,
            data: std::sync::Arc::new(self.data),
            layers: self.layers.into(),
            on_worker_start: self.hooks.on_worker_start,
            max_result_size: self.max_result_size,
        })
    }
}
