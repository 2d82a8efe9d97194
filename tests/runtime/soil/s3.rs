//! Files in S3: a server that speaks its protocol, over HTTP.

use std::path::PathBuf;

use celeriac::soil::Download;
use celeriac::{Celeriac, State};

use super::files::{export_from, pattern, read};
use crate::kit::{LONG, builder, record};
use crate::services::{S3, blocking};

const LEN: usize = 12_000_000;

async fn started(s3: &S3) -> Celeriac {
    builder().in_memory().downloads_at(format!("s3://exports/of/hq?{}", s3.settings())).start().await.unwrap()
}

/// What is there besides tombstones.
fn payloads(s3: &S3) -> Vec<(String, u64)> {
    s3.list("exports").into_iter().filter(|(key, _)| key.contains("/payload/")).collect()
}

#[tokio::test]
async fn files_are_in_a_bucket() {
    let s3 = blocking(|| S3::start("exports")).await;
    let celeriac = started(&s3).await;
    for kind in ["bytes", "stream", "reader"] {
        let task = export_from::s(kind.into(), PathBuf::new(), LEN).send(celeriac.client()).await.unwrap();
        task.get(LONG).await.unwrap();
        assert!(read(&celeriac, task.id(), None).await.unwrap() == pattern(LEN), "{kind}");
        let part = read(&celeriac, task.id(), Some(5_000_000..9_000_123)).await.unwrap();
        assert!(part == pattern(LEN)[5_000_000..9_000_123], "{kind}");
        let payloads = payloads(&s3);
        let [(key, size)] = payloads.as_slice() else { panic!("one: {payloads:?}") };
        assert!(key.starts_with(&format!("of/hq/celeriac-downloads/payload/{}/", task.id())), "{key}");
        assert_eq!(*size, LEN as u64);
        // Its record takes it along.
        assert!(celeriac.soil().forget(task.id()).await.unwrap());
        assert_eq!(self::payloads(&s3), []);
        assert!(celeriac.soil().status(task.id()).await.unwrap().gone);
    }
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_breaks_off_leaves_nothing_in_the_bucket() {
    let s3 = blocking(|| S3::start("exports")).await;
    let celeriac = started(&s3).await;
    let task = export_from::s("broken".into(), PathBuf::new(), LEN).send(celeriac.client()).await.unwrap();
    assert_eq!(record(&task).await.state, State::Failure);
    let left: Vec<String> = s3.list("exports").into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, ["of/hq/celeriac-downloads/LAYOUT"], "the marker, and nothing else");
    assert_eq!(s3.uploads("exports"), 0);
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_bucket_that_is_not_there_fails_the_task_and_says_so() {
    let s3 = blocking(|| S3::start("exports")).await;
    let url = format!("s3://nowhere?{}", s3.settings());
    let celeriac = builder().in_memory().downloads_at(url).start().await.unwrap();
    let soil = celeriac.soil();
    let error = soil.expose(Download::from_bytes("x")).await.unwrap_err().to_string();
    assert!(error.contains("nowhere") && error.contains("NoSuchBucket"), "{error}");
    celeriac.shutdown().await.unwrap();
}
