//! The operator's levers on the commit table.

use super::handle::Celeriac;
use crate::actors::CommitTableStatus;

impl Celeriac {
    /// The status of the commit table, as this process forwards it. `None`: the builder was given none.
    pub fn commit_table(&self) -> Option<CommitTableStatus> {
        Some(self.inner.forwarder.get()?.status())
    }

    /// Has the forwarder look into the commit table now. There is hardly ever a need for it: Postgres tells of each commit,
    /// and what this process has written is looked for at once. It may be called often, because looks do not pile up.
    ///
    /// In a test it forwards all committed rows itself, before it returns.
    pub async fn forward_committed(&self) {
        let Some(forwarder) = self.inner.forwarder.get() else { return };
        #[cfg(feature = "testing")]
        if self.is_in_test() {
            while forwarder.look().await.is_some_and(|found| found > 0) {}
            return;
        }
        forwarder.look_now();
    }
}
