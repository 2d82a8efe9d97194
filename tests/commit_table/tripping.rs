//! A commit table whose process dies at a step of its forwarding.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use celeriac::async_trait;
use celeriac::commit_table::{CommitRow, CommitTable, CommitTableError, RowEnds, TakenRows};
use serde::{Deserialize, Serialize};

use crate::database::die;

/// A step at which a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// An order and its row are written, and not committed.
    Written,
    /// They are committed.
    Committed,
    /// The forwarder has taken rows in hand.
    Taken,
    /// The broker has their tasks.
    Forwarded,
    /// The rows are deleted.
    Deleted,
}

impl Step {
    pub const ALL: [Self; 5] = [Self::Written, Self::Committed, Self::Taken, Self::Forwarded, Self::Deleted];
}

/// So many batches with rows go well before the process dies.
const BATCHES: u32 = 3;

pub struct Tripping<T> {
    inner: T,
    step: Option<Step>,
    batches: AtomicU32,
}

impl<T: CommitTable> Tripping<T> {
    pub fn over(inner: T, step: Option<Step>) -> Self {
        Self { inner, step, batches: AtomicU32::new(0) }
    }
}

#[async_trait]
impl<T: CommitTable> CommitTable for Tripping<T> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn tells(&self) -> bool {
        self.inner.tells()
    }

    async fn create(&self) -> Result<(), CommitTableError> {
        self.inner.create().await
    }

    async fn open(&self) -> Result<(), CommitTableError> {
        self.inner.open().await
    }

    async fn take(&self, limit: usize) -> Result<Option<Box<dyn TakenRows>>, CommitTableError> {
        let Some(taken) = self.inner.take(limit).await? else { return Ok(None) };
        let is_due = !taken.rows().is_empty() && self.batches.fetch_add(1, Ordering::SeqCst) >= BATCHES;
        let dies_at = self.step.filter(|_| is_due);
        if dies_at == Some(Step::Taken) {
            die();
        }
        Ok(Some(Box::new(TrippingRows { taken, dies_at })))
    }

    async fn committed(&self) {
        self.inner.committed().await;
    }
}

struct TrippingRows {
    taken: Box<dyn TakenRows>,
    dies_at: Option<Step>,
}

#[async_trait]
impl TakenRows for TrippingRows {
    fn rows(&self) -> &[CommitRow] {
        self.taken.rows()
    }

    async fn settle(self: Box<Self>, ends: RowEnds) -> Result<(), CommitTableError> {
        if self.dies_at == Some(Step::Forwarded) {
            die();
        }
        let dies_at = self.dies_at;
        self.taken.settle(ends).await?;
        if dies_at == Some(Step::Deleted) {
            die();
        }
        Ok(())
    }
}

/// A commit table that counts how often its database has told of commits.
pub struct Telling<T> {
    pub inner: T,
    pub told: Arc<AtomicU32>,
}

#[async_trait]
impl<T: CommitTable> CommitTable for Telling<T> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn tells(&self) -> bool {
        self.inner.tells()
    }

    async fn create(&self) -> Result<(), CommitTableError> {
        self.inner.create().await
    }

    async fn open(&self) -> Result<(), CommitTableError> {
        self.inner.open().await
    }

    async fn take(&self, limit: usize) -> Result<Option<Box<dyn TakenRows>>, CommitTableError> {
        self.inner.take(limit).await
    }

    async fn committed(&self) {
        self.inner.committed().await;
        self.told.fetch_add(1, Ordering::SeqCst);
    }
}
