//! The first twelve lines: a task, a durable enqueue, its result. `cargo run --example quickstart`
use celeriac::{Celeriac, task};
use std::time::Duration;

#[task]
async fn send_email(user_id: u64) -> String {
    format!("sent to user {user_id}")
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let celeriac = Celeriac::builder().directory("data/quickstart").start().await?;
    let email = send_email::delay(42).await?; // on disk by now: survives kill -9
    println!("{}", email.get(Duration::from_secs(5)).await?);
    celeriac.shutdown().await?;
    Ok(())
}
