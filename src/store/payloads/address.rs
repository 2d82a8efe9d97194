//! The address of a place for payloads: a directory or a bucket, as a URL.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;

/// What an address names.
pub(crate) enum Address {
    Directory(PathBuf),
    Objects(Arc<dyn ObjectStore>),
}

impl Address {
    /// Reads `file:///srv/exports` or `s3://bucket/prefix?region=eu-central-1`. What a client of S3 has to know besides is in
    /// the variables that AWS's own tools read (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`,
    /// `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP`, …) or after the `?`, by the same names without `AWS_`.
    pub(crate) fn open(url: &str) -> Result<Self, String> {
        match url.split_once("://") {
            Some(("file", path)) if path.starts_with('/') && path.len() > 1 => {
                Ok(Self::Directory(path.into()))
            }
            Some(("s3", bucket)) => bucket_at(url, bucket).map(Self::Objects),
            _ => Err(format!(
                "downloads cannot be kept at `{url}`: write `s3://bucket/prefix` or `file:///absolute/directory`"
            )),
        }
    }
}

#[cfg(feature = "s3")]
fn bucket_at(url: &str, path: &str) -> Result<Arc<dyn ObjectStore>, String> {
    use object_store::aws::AmazonS3Builder;
    use object_store::path::Path;
    use object_store::prefix::PrefixStore;

    // What follows the `?` may be secret.
    let shown = url.split('?').next().unwrap_or_default();
    let told = |error: &dyn std::fmt::Display| format!("downloads cannot be kept at `{shown}`: {error}");
    let (path, settings) = path.split_once('?').unwrap_or((path, ""));
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    if bucket.is_empty() {
        return Err(told(&"it names no bucket; write `s3://bucket/prefix`"));
    }
    crate::broker::tls::prepare();
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    for setting in settings.split('&').filter(|setting| !setting.is_empty()) {
        let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
        let key = format!("aws_{name}").parse().map_err(|_| told(&format!("S3 has no setting `{name}`")))?;
        let value =
            percent_encoding::percent_decode_str(value).decode_utf8().map_err(|error| told(&error))?;
        builder = builder.with_config(key, value);
    }
    let objects = builder.build().map_err(|error| told(&error))?;
    let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|error| told(&error))?;
    if prefix.as_ref().is_empty() {
        Ok(Arc::new(objects))
    } else {
        Ok(Arc::new(PrefixStore::new(objects, prefix)))
    }
}

#[cfg(not(feature = "s3"))]
fn bucket_at(url: &str, _: &str) -> Result<Arc<dyn ObjectStore>, String> {
    Err(format!(
        "downloads cannot be kept at `{url}`: S3 is not in this build of Celeriac: build it with the feature `s3`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        Address::open(url).err().expect("refused")
    }

    #[test]
    fn what_is_no_address_is_refused_with_both_forms() {
        for wrong in
            ["", "exports", "file://", "file:///", "file://exports", "ftp://host/exports", "S3//bucket"]
        {
            let told = refusal(wrong);
            assert!(told.contains(&format!("`{wrong}`")) && told.contains("s3://bucket/prefix"), "{told}");
        }
    }

    #[test]
    fn a_directory_is_one() {
        let address = Address::open("file:///srv/exports").expect("read");
        assert!(matches!(address, Address::Directory(path) if path == std::path::Path::new("/srv/exports")));
    }

    #[cfg(feature = "s3")]
    #[test]
    fn a_bucket_needs_its_name() {
        assert!(refusal("s3:///prefix").contains("names no bucket"));
        assert!(matches!(Address::open("s3://exports/of/today/"), Ok(Address::Objects(_))));
    }

    #[cfg(feature = "s3")]
    #[test]
    fn a_setting_that_s3_does_not_have_is_named_and_no_secret_is() {
        let told = refusal("s3://exports?secret_access_key=geheim&regoin=eu-central-1");
        assert!(told.contains("no setting `regoin`") && !told.contains("geheim"), "{told}");
    }

    #[cfg(not(feature = "s3"))]
    #[test]
    fn a_build_without_s3_says_so() {
        assert!(refusal("s3://exports").contains("feature `s3`"));
    }
}
