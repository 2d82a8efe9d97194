//! A program with one background task.
//!
//! `cargo run -- ada` enqueues a mail to Ada and works on it; `cargo run` works on what is left. Ctrl-C ends it.

use std::time::Duration;

use celeriac::{Celeriac, Context, task};

/// A task is a function. This one mostly waits, so it is `async`.
#[task(queue = "email")]
async fn send_email(ctx: Context, user: String) -> String {
    for step in 1..=10 {
        println!("attempt {}: {step} of 10 for {user}", ctx.attempt());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    format!("sent to {user}")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let celeriac = Celeriac::builder()
        .catalogue_file("celeriac.toml") // the queues
        .directory("data") // where tasks wait, and what survives kill -9
        .start()
        .await?;
    for user in std::env::args().skip(1) {
        let email = send_email::delay(user).await?; // on disk by now
        println!("enqueued as {}", email.id());
    }
    celeriac.run_until_signal().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use celeriac::{assert_enqueued, testing};

    use super::*;

    /// The test moves the clock, so the ten seconds of the body take no time.
    #[tokio::test(start_paused = true)]
    async fn a_mail_is_sent_although_its_worker_dies() -> Result<(), Box<dyn std::error::Error>> {
        let app = testing::start().await?;
        let email = send_email::delay("ada".into()).await?;
        assert_enqueued!(app, send_email("ada".into()), queue = "email");
        app.crash_before_settle(send_email::Task);
        assert_eq!(email.get(Duration::from_secs(60)).await?, "sent to ada");
        assert_eq!(app.runs().len(), 2);
        Ok(())
    }
}
