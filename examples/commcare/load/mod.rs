//! A mixed load through all 24 queues: some hundreds of tasks with known outcomes and known effects.
//!
//! It comes in phases, because some tasks read what others write. Within a phase everything is enqueued at once.

pub mod cases;
pub mod ledger;
mod phases;
mod queued;
mod verify;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use celeriac::task::{Client, Signature, State, Task};
use celeriac::{Celeriac, EnqueueError, Receipt, TaskId};
use futures_util::future::join_all;

use crate::hq::{hq, write_whole};
use crate::tasks::{case_importer, email, export, outgoing};
use crate::web::sink::Sink;
use cases::Cases;
use ledger::Ledger;

/// The longest that anything here waits for the tasks of one phase.
pub const PATIENCE: Duration = Duration::from_secs(120);

static LEDGER: OnceLock<Ledger> = OnceLock::new();

/// Makes this the ledger of all loads.
pub fn keep_ledger(ledger: Ledger) {
    let _ = LEDGER.set(ledger);
}

/// The ledger of all loads.
pub fn the_ledger() -> &'static Ledger {
    LEDGER.get().expect("`main` opens it before anything runs")
}

type Sending = Pin<Box<dyn Future<Output = Result<Receipt, EnqueueError>> + Send>>;

/// A call to make, and how it is to end.
pub struct Call {
    id: String,
    expected: State,
    /// How many runs it takes at least, and what is to be found in its error.
    attempts: u32,
    error: &'static str,
    send: Box<dyn FnOnce(Arc<dyn Client>) -> Sending + Send>,
}

impl Call {
    fn new<T: Task>(id: String, signature: Signature<T>) -> Self {
        let signature = signature.id(id.clone());
        let send = |client: Arc<dyn Client>| -> Sending {
            Box::pin(async move { signature.send(client).await.map(|task| task.receipt().clone()) })
        };
        Self { id, expected: State::Success, attempts: 1, error: "", send: Box::new(send) }
    }

    fn ends(mut self, expected: State, error: &'static str) -> Self {
        self.expected = expected;
        self.error = error;
        self
    }

    fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }
}

/// How a load went.
#[derive(Debug, Default)]
pub struct Tally {
    /// Tasks that were accepted and are over, those that followed from others included.
    pub tasks: usize,
    /// Accepted, and then unknown.
    pub lost: usize,
    /// Not over in time.
    pub left: usize,
    /// Everything that is not as it should be, in words.
    pub faults: Vec<String>,
}

/// One run of the load, with domains of its own.
pub struct Load {
    pub run: i64,
    pub domain: String,
    pub throttled: String,
    cases: Cases,
    few_cases: Cases,
}

const CASES: usize = 5_000;
const FEW_CASES: usize = 200;
const BAD_ROWS: usize = 5;
const EVENTS: usize = 60;
const BAD_EVENTS: usize = 2;
const MESSAGES: usize = 60;
const LOGS: usize = 30;
const RECORDS: usize = 40;
const RECORDS_TO_NOWHERE: usize = 2;
const MAILS: usize = 60;
const STUBS: usize = 18;
const CHANGED: usize = 40;
const REPORTS: usize = 20;
const THROTTLED_REPORTS: usize = 5;
const EXPORTS: usize = 3;
const RESTORES: usize = 8;
const FACILITIES: usize = 12;
/// Rows for each of the source pollers.
const QUEUED: usize = 10;

impl Load {
    /// Writes what users would have written before the tasks run: uploads, mails, messages, rules.
    pub fn prepare() -> Result<Self, String> {
        let run = the_ledger().new_run().map_err(|e| e.to_string())?;
        let load = Self {
            run,
            domain: format!("demo-{run}"),
            throttled: format!("mvp-{run}"),
            cases: cases::make(CASES),
            few_cases: cases::make(FEW_CASES),
        };
        load.upload(&load.domain, &load.cases, 0)?;
        load.upload(&load.throttled, &load.few_cases, BAD_ROWS)?;
        hq().db.write(|tx| load.rows(tx)).map_err(|e| e.to_string())?;
        Ok(load)
    }

    fn upload(&self, domain: &str, cases: &Cases, bad: usize) -> Result<(), String> {
        let file = format!("{domain}.csv");
        let csv = cases::csv(cases, bad).map_err(|e| e.to_string())?;
        let write = |out: &mut std::io::BufWriter<_>| Ok(std::io::Write::write_all(out, &csv)?);
        write_whole(&hq().uploads.join(&file), write).map_err(|e| e.to_string())?;
        case_importer::register(domain, domain, &file).map_err(|e| e.to_string())
    }

    fn rows(&self, tx: &rusqlite::Connection) -> rusqlite::Result<()> {
        use serde_json::json;
        let (domain, throttled) = (&self.domain, &self.throttled);
        for i in 0..EVENTS {
            // Two that the other side refuses for good.
            let email = if i < BAD_EVENTS { String::new() } else { format!("user{i}@{domain}.example") };
            let event = json!({ "event": "form_saved", "email": email });
            outgoing::queue(tx, &self.id("event", i), "analytics", &event)?;
        }
        for i in 0..MESSAGES {
            let message = json!({ "to": format!("+91{i:08}"), "text": "Clinic opens at 9 <tomorrow>" });
            outgoing::queue(tx, &self.id("sms", i), "sms", &message)?;
        }
        for i in 0..LOGS {
            outgoing::queue(
                tx,
                &self.id("log", i),
                "sumologic",
                &json!({ "lines": [format!("user {i} logged in")] }),
            )?;
        }
        for i in 0..RECORDS {
            outgoing::queue(tx, &self.id("record", i), "repeater", &json!({ "form": i, "domain": domain }))?;
        }
        for i in 0..MAILS {
            // One that is no address.
            let to = if i == 0 {
                "nobody at all".to_owned()
            } else {
                format!("User {i} <user{i}@{domain}.example>")
            };
            email::queue(
                tx,
                &self.id("mail", i),
                &to,
                "Your account is ready",
                "Welcome to CommCare – ようこそ.\n",
            )?;
        }
        for i in 0..STUBS + 2 {
            let form = match i {
                _ if i < STUBS => {
                    json!({ "case_id": cases::id(i * 100), "village": self.moved_to(i) }).to_string()
                }
                STUBS => "{\"case_id\": ".to_owned(), // cut off
                _ => json!({ "case_id": "nobody", "village": "nowhere" }).to_string(),
            };
            let sql = "INSERT INTO stub (id, domain, form) VALUES (?, ?, ?)";
            tx.execute(sql, (self.id("stub", i), domain, form))?;
        }
        let sql = "INSERT INTO rule VALUES (?, ?, ?, 1, 500, 'Please visit your clinic')";
        tx.execute(sql, (self.rule(), domain, self.rule_village()))?;
        for i in 0..REPORTS + THROTTLED_REPORTS {
            let its = if i < REPORTS { domain } else { throttled };
            let sql = "INSERT INTO report VALUES (?, ?, ?)";
            tx.execute(sql, (self.id("report", i), its, format!("manager{i}@{its}.example")))?;
        }
        for i in 0..EXPORTS * 2 {
            export::register(tx, &self.id("export", i), domain, &format!("{domain}-{i}.xlsx"))?;
        }
        for i in 0..FACILITIES {
            for (n, quantity) in [(0, 30), (1, -2 * i64::try_from(i).unwrap_or(0))] {
                let id = format!("{}.{n}", self.id("transaction", i));
                let sql = "INSERT INTO stock_transaction VALUES (?, ?, ?, ?)";
                tx.execute(sql, (id, domain, format!("facility-{i:02}"), quantity))?;
            }
        }
        Ok(())
    }

    fn id(&self, kind: &str, number: usize) -> String {
        format!("{}.{kind}.{number}", self.domain)
    }

    fn rule(&self) -> String {
        format!("{}.rule", self.domain)
    }

    fn rule_village(&self) -> &'static str {
        "village-5"
    }

    fn moved_to(&self, stub: usize) -> String {
        format!("village-{}", 50 + stub)
    }

    /// The cases as they are to be when all is over.
    fn expected_cases(&self) -> Cases {
        let mut cases = self.cases.clone();
        for stub in 0..STUBS {
            if let Some(case) = cases.get_mut(&cases::id(stub * 100)) {
                case.village = self.moved_to(stub);
            }
        }
        for case in cases.values_mut() {
            case.closed = case.visits >= cases::CLOSED_FROM;
            if case.owner == "worker-3" {
                case.owner = "worker-99".to_owned();
            }
        }
        cases
    }
}

/// Feeds the load through the queues, waits for each phase, and looks at what came of it.
pub async fn run(load: Load, celeriac: &Celeriac, sink: &Sink) -> Result<Tally, String> {
    let mut tally = Tally::default();
    for (number, phase) in load.phases().into_iter().enumerate() {
        feed(phase, celeriac, &mut tally).await?;
        tracing::debug!(run = load.run, phase = number, tasks = tally.tasks, "phase over");
        if number == 0 {
            // The upload, before anything else changes it.
            load.check_import(&mut tally).map_err(|e| e.to_string())?;
            hq().db.write(|tx| load.queued(tx)).map_err(|e| e.to_string())?;
        }
    }
    for id in load.followers() {
        settle(
            &id,
            Wanted { expected: State::Success.as_str(), attempts: 1, error: "" },
            celeriac,
            &mut tally,
        )
        .await;
    }
    let left = load.wait_for_loops().await.map_err(|e| e.to_string())?;
    if left > 0 {
        tally.left += left;
        tally
            .faults
            .push(format!("{left} rows are due that a source poller should have brought to their end"));
    }
    load.verify(sink, &mut tally).map_err(|e| e.to_string())?;
    Ok(tally)
}

async fn feed(phase: Vec<Call>, celeriac: &Celeriac, tally: &mut Tally) -> Result<(), String> {
    let ledger = the_ledger();
    let lines = phase.iter().map(|call| (call.id.as_str(), call.expected));
    ledger.plan(lines).map_err(|e| format!("the ledger cannot be written: {e}"))?;
    let mut waiting = Vec::new();
    let enqueued = join_all(phase.into_iter().map(|call| {
        let sending = (call.send)(celeriac.client());
        async move { (call.id, call.expected, call.attempts, call.error, sending.await) }
    }));
    for (id, expected, attempts, error, receipt) in enqueued.await {
        receipt.map_err(|e| format!("{id} was not accepted: {e}"))?;
        ledger.accepted(&id).map_err(|e| format!("the ledger cannot be written: {e}"))?;
        waiting.push((id, Wanted { expected: expected.as_str(), attempts, error }));
    }
    for (id, wanted) in waiting {
        if let Some(outcome) = settle(&id, wanted, celeriac, tally).await {
            ledger.over(&id, &outcome).map_err(|e| format!("the ledger cannot be written: {e}"))?;
        }
    }
    Ok(())
}

/// How a task is to end.
pub struct Wanted<'a> {
    pub expected: &'a str,
    pub attempts: u32,
    pub error: &'a str,
}

/// Waits for a task's end, without polling, and holds it against what is wanted. `None`: it is not over.
pub async fn settle(id: &str, wanted: Wanted<'_>, celeriac: &Celeriac, tally: &mut Tally) -> Option<String> {
    let Wanted { expected, attempts, error } = wanted;
    let task = TaskId::from(id);
    match tokio::time::timeout(PATIENCE, celeriac.client().wait(&task)).await {
        Ok(Ok(record)) => {
            tally.tasks += 1;
            let errors = record.errors.join(": ");
            if record.state.as_str() != expected || !errors.contains(error) {
                tally
                    .faults
                    .push(format!("{id} ended as {}, expected {expected} {error}: {errors}", record.state));
            } else if record.attempts < attempts {
                tally
                    .faults
                    .push(format!("{id} took {} runs, expected {attempts} at least", record.attempts));
            }
            Some(record.state.as_str().to_owned())
        }
        Ok(Err(error)) => {
            tally.lost += 1;
            tally.faults.push(format!("{id} is lost: {error}"));
            Some("LOST".to_owned())
        }
        Err(_) => {
            tally.left += 1;
            tally.faults.push(format!("{id} was not over after {PATIENCE:?}"));
            None
        }
    }
}
