//! Uploads of cases.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::json;
use std::io::Write;

use super::{Problem, accepted, domain};
use crate::hq::hq;
use crate::tasks::case_importer;

/// The largest upload.
const LARGEST: usize = 256 << 20;

#[derive(Deserialize)]
pub struct Whose {
    domain: Option<String>,
}

/// `POST /cases?domain=demo` with the text of a CSV file: stores it, then enqueues its import by its id.
pub async fn upload(
    whose: web::Query<Whose>,
    request: HttpRequest,
    mut body: web::Payload,
) -> Result<HttpResponse, Problem> {
    let domain = domain(whose.domain.as_deref())?;
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !["text/csv", "text/plain", "application/octet-stream"].iter().any(|k| kind.starts_with(k)) {
        return Err(Problem::bad(format!("send the file itself, as `text/csv`; this came as `{kind}`")));
    }
    let id = uuid::Uuid::now_v7().to_string();
    let name = format!("{id}.csv");
    let path = hq().uploads.join(&name);
    let part = Part(path.with_extension("part"));
    let mut file = crate::hq::create_private(&part.0)?;
    let mut size = 0;
    while let Some(bytes) = body.next().await {
        let bytes = bytes.map_err(|error| Problem::bad(format!("the upload broke off: {error}")))?;
        size += bytes.len();
        if size > LARGEST {
            return Err(Problem::too_large(format!(
                "an upload may have {} MiB; split the file",
                LARGEST >> 20
            )));
        }
        file = web::block(move || file.write_all(&bytes).map(|()| file)).await??;
    }
    let import = id.clone();
    let its_domain = domain.clone();
    web::block(move || -> Result<(), Problem> {
        file.sync_all()?;
        check(&part.0)?;
        std::fs::rename(&part.0, path)?;
        case_importer::register(&import, &its_domain, &name)?;
        Ok(())
    })
    .await??;
    let call = case_importer::import_cases::s(domain.clone(), id.clone(), 0);
    let task = call.id(format!("import:{id}")).delay().await?;
    Ok(accepted(task.id(), json!({ "import": id, "domain": domain, "bytes": size })))
}

/// What is wrong with the file as a whole is said at once; what is wrong with a row, in the import's result.
fn check(path: &std::path::Path) -> Result<(), Problem> {
    let (mut reader, _) = case_importer::open(std::fs::File::open(path)?)
        .map_err(|error| Problem::bad(format!("this is no CSV of cases: {error}")))?;
    match reader.byte_records().next() {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(Problem::bad(format!("the first row cannot be read: {error}"))),
        None => Err(Problem::bad("the file has a header and no rows")),
    }
}

/// A file that goes away unless it was renamed.
struct Part(std::path::PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
