//! The witness: hears of every record that is written to Redis, as Celery's clients do, and reads what is there in the end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

const PREFIX: &str = "celery-task-meta-";
const FINAL: [&str; 5] = ["SUCCESS", "FAILURE", "REVOKED", "REJECTED", "IGNORED"];

/// A final record, as far as it matters.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub state: String,
    pub value: Value,
    /// The whole document.
    document: String,
}

/// Listens on a thread of its own for as long as it lives.
pub struct Witness {
    client: redis::Client,
    records: Arc<Mutex<HashMap<String, Vec<Record>>>>,
    living: Arc<()>,
}

impl Witness {
    pub fn start(url: &str) -> Self {
        let client = redis::Client::open(url).expect("an address");
        let records = Arc::<Mutex<HashMap<String, Vec<Record>>>>::default();
        let living = Arc::new(());
        let mut connection = client.get_connection().expect("Redis");
        connection.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        let (heard, alive) = (Arc::clone(&records), Arc::downgrade(&living));
        let (ready, listening) = std::sync::mpsc::channel();
        let listen = move || {
            let mut pubsub = connection.as_pubsub();
            pubsub.psubscribe(format!("{PREFIX}*")).expect("a subscription");
            ready.send(()).expect("somebody waits");
            while alive.strong_count() > 0 {
                let message = match pubsub.get_message() {
                    Ok(message) => message,
                    Err(error) if error.is_timeout() => continue,
                    Err(error) => panic!("Redis is gone: {error}"),
                };
                let document: String = message.get_payload().expect("text");
                let Some(record) = read(document) else { continue };
                let id = message.get_channel_name()[PREFIX.len()..].to_owned();
                heard.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default().push(record);
            }
        };
        std::thread::Builder::new().name("witness".to_owned()).spawn(listen).expect("a thread");
        listening.recv().expect("it listens");
        Self { client, records, living }
    }

    /// All final records that were written, by their tasks.
    pub fn with<T>(&self, look: impl FnOnce(&HashMap<String, Vec<Record>>) -> T) -> T {
        let _ = &self.living;
        look(&self.records.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What Redis has now.
    pub fn kept(&self) -> HashMap<String, Record> {
        let ids: Vec<String> = self.with(|records| records.keys().cloned().collect());
        let mut connection = self.client.get_connection().expect("Redis");
        let mut kept = HashMap::new();
        for ids in ids.chunks(500) {
            let keys: Vec<String> = ids.iter().map(|id| format!("{PREFIX}{id}")).collect();
            let documents: Vec<Option<String>> =
                redis::cmd("MGET").arg(keys).query(&mut connection).expect("Redis answers");
            let records = ids.iter().zip(documents);
            kept.extend(records.filter_map(|(id, document)| Some((id.clone(), read(document?)?))));
        }
        kept
    }
}

/// Reads a document; `None`: the task is not over.
fn read(document: String) -> Option<Record> {
    let fields: Value = serde_json::from_str(&document).expect("a document is JSON");
    let state = fields["status"].as_str().expect("a status").to_owned();
    FINAL.contains(&state.as_str()).then(|| Record { state, value: fields["result"].clone(), document })
}
