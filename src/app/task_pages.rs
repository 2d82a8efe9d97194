//! Tasks in pages, for screens: those that are not over, and those that have failed for good.

use super::handle::{Celeriac, ControlError};
use crate::broker::{FailedTask, Standing, TaskFilter, TaskPage, UnfinishedTask};
use crate::runtime::rule_count::CountProgress;

impl Celeriac {
    /// A page of the tasks that wait, are scheduled or run and that the filter chooses, of those that stand so, or of all if
    /// none is stated: at most `limit` of them. `after` is [`next`](TaskPage::next) of the page before. In the embedded store a page costs the
    /// same however much waits; one for which too many tasks would have to be looked at ends early, and says from where to go
    /// on.
    ///
    /// Tasks with a [declared](crate::task::Message::searched) argument are found by its index. Then
    /// [`by_index`](TaskPage::by_index) of the page is set.
    ///
    /// ```no_run
    /// # async fn demo(celeriac: celeriac::Celeriac) -> Result<(), Box<dyn std::error::Error>> {
    /// use celeriac::broker::{Standing, TaskFilter};
    ///
    /// let (filter, mut after) = (TaskFilter::new().queue("email_queue"), None);
    /// loop {
    ///     let page = celeriac.page_unfinished_tasks(&filter, &[Standing::Scheduled], after.as_deref(), 50).await?;
    ///     for task in &page.tasks {
    ///         println!("{} {}", task.message.id, task.message.task);
    ///     }
    ///     let Some(next) = page.next else { break };
    ///     after = Some(next);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The broker does not answer, or cannot list tasks, or `after` is no place in its list.
    pub async fn page_unfinished_tasks(
        &self,
        filter: &TaskFilter,
        standings: &[Standing],
        after: Option<&str>,
        limit: usize,
    ) -> Result<TaskPage<UnfinishedTask>, ControlError> {
        Ok(self
            .inspector()?
            .page_unfinished(&self.informed_for_pages(filter), standings, after, limit)
            .await?)
    }

    /// A page of the tasks that have failed for good and that the filter chooses, dead letters among them: at most `limit` of
    /// them, the newest first where the broker can ([`is_newest_first`](TaskPage::is_newest_first)). `after` is
    /// [`next`](TaskPage::next) of the page before.
    ///
    /// # Errors
    /// The broker does not answer, or keeps no failed tasks, or `after` is no place in its list.
    pub async fn page_failed_tasks(
        &self,
        filter: &TaskFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<TaskPage<FailedTask>, ControlError> {
        Ok(self.keeper()?.page_failed(&self.informed_for_pages(filter), after, limit).await?)
    }

    /// How many failed tasks the filter chooses. It looks at all of them.
    ///
    /// # Errors
    /// The broker does not answer, or keeps no failed tasks.
    pub async fn count_failed_tasks(&self, filter: &TaskFilter) -> Result<usize, ControlError> {
        self.count_failed(filter, &CountProgress::default()).await
    }

    /// As [`count_failed_tasks`](Self::count_failed_tasks). `progress` tells at how many tasks was looked.
    ///
    /// # Errors
    /// As those of [`count_failed_tasks`](Self::count_failed_tasks).
    pub(crate) async fn count_failed(
        &self,
        filter: &TaskFilter,
        progress: &CountProgress,
    ) -> Result<usize, ControlError> {
        let filter = progress.noted_by(self.informed(filter));
        Ok(self.keeper()?.failed_ids(&filter).await?.len())
    }
}
