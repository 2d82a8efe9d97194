//! Metrics in the form of Prometheus, under two kinds of names. Those of celery-exporter let its Grafana boards and alerts work
//! on a program, also on one with the embedded store, where that exporter has nothing to ask. Celeriac's own names say what
//! Celery does not know: the promises, and how they are kept.
//!
//! Nothing is counted for metrics that is not counted anyhow. A [reading] asks all queues by message, and a collector shows
//! the last reading: a collector must answer at once, on whatever thread, and a queue may take its time.

mod celery;
mod families;
mod own;
mod reading;

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text};
use prometheus_client::registry::Registry;

use super::handle::Celeriac;
use families::Families;
use reading::Reading;

/// Celeriac's metrics in a registry of the program's own, which shows what was [read](Self::read) last.
#[derive(Clone)]
#[must_use = "the registry shows what was read last: `read` before each scrape"]
pub struct MetricsReader {
    celeriac: Celeriac,
    last: Arc<LastReading>,
}

impl MetricsReader {
    /// Reads all metrics anew. Each queue has a second to answer; one that does not is left out, and the metric
    /// `celeriac_queue_up` names it.
    pub async fn read(&self) {
        let reading = Reading::of(&self.celeriac).await;
        *self.last.0.lock() = Arc::new(reading);
    }
}

/// What was read last.
#[derive(Debug, Default)]
struct LastReading(Mutex<Arc<Reading>>);

impl Collector for LastReading {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let reading = Arc::clone(&self.0.lock());
        let mut families = Families::of(encoder);
        celery::encode(&reading, &mut families)?;
        own::encode(&reading, &mut families)
    }
}

impl Celeriac {
    /// All metrics as they are now, in the text format of Prometheus (version 0.0.4). `celeriac::web::metrics` (feature `web`)
    /// serves it to actix-web; with another server, answer with this text and
    /// [its content type](prometheus_client::encoding::prometheus_text::CONTENT_TYPE).
    ///
    /// It takes no longer than six seconds: each queue has a second to answer, and the broker five. What does not answer is left
    /// out by name.
    pub async fn metrics_text(&self) -> String {
        let mut registry = Registry::default();
        self.register(&mut registry).read().await;
        let mut text = String::new();
        if let Err(error) = prometheus_text::encode(&mut text, &registry) {
            tracing::error!(%error, "the metrics cannot be written");
        }
        text
    }

    /// Adds Celeriac's metrics to a registry of the program's own. The registry shows what the reader that is returned has read
    /// last.
    ///
    /// ```
    /// use celeriac::Celeriac;
    /// use celeriac::prometheus_client::encoding::prometheus_text;
    /// use celeriac::prometheus_client::registry::Registry;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let celeriac = Celeriac::builder().in_memory().start().await?;
    /// let mut registry = Registry::default(); // with the program's own metrics
    /// let metrics = celeriac.register(&mut registry);
    ///
    /// // In the handler of a scrape:
    /// metrics.read().await;
    /// let mut text = String::new();
    /// prometheus_text::encode(&mut text, &registry)?;
    /// assert!(text.contains("celery_worker_up"));
    /// # celeriac.shutdown().await?;
    /// # Ok(()) }
    /// ```
    pub fn register(&self, registry: &mut Registry) -> MetricsReader {
        let last = Arc::<LastReading>::default();
        registry.register_collector(Box::new(Arc::clone(&last)));
        MetricsReader { celeriac: self.clone(), last }
    }
}
