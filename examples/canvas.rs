//! A chain, a group, a chord, and what happens when a member fails. `cargo run --example canvas`
use std::time::Duration;

use celeriac::task::canvas::{chord, group};
use celeriac::{Celeriac, GetError, TaskError, task};

const PATIENCE: Duration = Duration::from_secs(60);

#[task]
async fn count_words(text: String) -> usize {
    text.split_whitespace().count()
}

#[task]
async fn sum(counts: Vec<usize>) -> usize {
    counts.iter().sum()
}

#[task]
async fn describe(words: usize, what: String) -> String {
    format!("{words} words in {what}")
}

#[task]
async fn fetch(page: u32) -> Result<String, TaskError> {
    if page > 3 {
        return Err(TaskError::permanent(format!("there is no page {page}")));
    }
    Ok("so it goes ".repeat(page as usize))
}

#[task]
async fn alarm(failed: String) {
    println!("errback: the task that failed is {failed}");
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args().nth(1).unwrap_or_else(|| "data/canvas".to_owned());
    let celeriac = Celeriac::builder().directory(directory).start().await?;

    let chain = count_words::s("one two three".into()).then(describe::p("a line".into()));
    println!("chain: {}", chain.delay().await?.get(PATIENCE).await?);

    let pages = group((1..=3).map(|page| fetch::s(page).then(count_words::p())));
    let counts = pages.clone().delay().await?;
    println!("group: {:?}", counts.get(PATIENCE).await?);

    let book = pages.then(sum::p()).then(describe::p("a book".into())).delay().await?;
    println!("chord: {}", book.get(PATIENCE).await?);

    let broken = chord((3..=4).map(|page| fetch::s(page).then(count_words::p())), sum::p());
    match broken.link_error(alarm::p()).delay().await?.get(PATIENCE).await {
        Err(GetError::Ended(record)) => println!("broken chord: {}: {}", record.state, record.errors[0]),
        other => println!("broken chord: {other:?}"),
    }
    celeriac.shutdown().await?;
    Ok(())
}
