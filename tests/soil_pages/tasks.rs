//! What the pages are about.

use celeriac::soil::Download;
use celeriac::{Context, TaskError, task};

/// Makes a file of ten bytes.
#[task(queue = "exports")]
pub async fn export(ctx: Context, name: String, owner: Option<String>) -> Result<(), TaskError> {
    ctx.progress(1, 4);
    let download = Download::from_bytes("0123456789").name(name).header("X-Download-Report", "monthly");
    let download = match owner {
        Some(owner) => download.owner(owner),
        None => download,
    };
    ctx.expose_download(download).await?;
    Ok(())
}

#[task(queue = "exports")]
pub async fn failing(ctx: Context, errors: Vec<String>) -> Result<(), TaskError> {
    Err(ctx.fail(errors))
}

#[task(queue = "exports")]
pub async fn without_file() -> serde_json::Value {
    serde_json::json!({ "messages": ["3 cases <b>closed</b>"] })
}
