//! The address of a place for payloads: a directory or a bucket, as a URL.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;

use crate::core::address::shown;

/// The place that an address names.
pub(crate) enum Address {
    Directory(PathBuf),
    Objects(Arc<dyn ObjectStore>),
}

impl Address {
    /// Reads `file:///srv/exports` or `s3://bucket/prefix?region=eu-central-1`. The other settings of an S3 client
    /// are in the variables that AWS's own tools read (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`,
    /// `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP`, …) or after the `?`, under the same names without `AWS_`.
    pub(crate) fn open(url: &str) -> Result<Self, String> {
        let parts = url.split_once("://").map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest));
        match parts.as_ref().map(|(scheme, rest)| (scheme.as_str(), *rest)) {
            Some(("file", path)) if path.starts_with('/') && path.len() > 1 => {
                Ok(Self::Directory(path.into()))
            }
            Some(("s3", bucket)) => bucket_at(url, bucket).map(Self::Objects),
            _ => Err(format!(
                "downloads cannot be kept at `{}`: write `s3://bucket/prefix` or `file:///absolute/directory`",
                shown(url)
            )),
        }
    }
}

#[cfg(feature = "s3")]
fn bucket_at(url: &str, path: &str) -> Result<Arc<dyn ObjectStore>, String> {
    use object_store::aws::AmazonS3Builder;
    use object_store::path::Path;
    use object_store::prefix::PrefixStore;

    use crate::core::address::said_of;

    let told = |why: &str| format!("downloads cannot be kept at `{}`: {why}", shown(url));
    let wrong = |error: &dyn std::fmt::Display| told(&said_of(url, error));
    let (path, settings) = path.split_once('?').unwrap_or((path, ""));
    if path.contains('@') {
        return Err(told(
            "a bucket's address has no user in it; its keys go into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ));
    }
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    if bucket.is_empty() {
        return Err(told("it names no bucket; write `s3://bucket/prefix`"));
    }
    crate::tls::prepare();
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    // The error names the setting only if it is a name: a text without a value may be the end of a secret.
    let unknown = |name: &str, setting: &str| {
        let is_name = setting.contains('=')
            && name.len() <= 40
            && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let name = if is_name { format!(" `{name}`") } else { " of one of the names in it".to_owned() };
        told(&format!("S3 has no setting{name}"))
    };
    for setting in settings.split('&').filter(|setting| !setting.is_empty()) {
        let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
        let key = format!("aws_{name}").parse().map_err(|_| unknown(name, setting))?;
        let value =
            percent_encoding::percent_decode_str(value).decode_utf8().map_err(|error| wrong(&error))?;
        builder = builder.with_config(key, value);
    }
    let objects = builder.build().map_err(|error| wrong(&error))?;
    let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|error| wrong(&error))?;
    if prefix.as_ref().is_empty() {
        Ok(Arc::new(objects))
    } else {
        Ok(Arc::new(PrefixStore::new(objects, prefix)))
    }
}

#[cfg(not(feature = "s3"))]
fn bucket_at(url: &str, _: &str) -> Result<Arc<dyn ObjectStore>, String> {
    Err(format!(
        "downloads cannot be kept at `{}`: S3 is not in this build of Celeriac: build it with the feature `s3`",
        shown(url)
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
        for url in [
            "s3://k:geheim@b",
            "s3://exports?secret_access_key=a&geheim",
            "s3://?secret_access_key=geheim",
            "S3://k:geheim@b/p?region=x",
            "s3:k:geheim@b",
            "geheim@b",
            "s3://exports?request_timeout=geheim",
            "s3://exports?secret_access_key=%FFgeheim",
        ] {
            let told = refusal(url);
            assert!(!told.contains("geheim"), "{told}");
        }
    }

    #[cfg(not(feature = "s3"))]
    #[test]
    fn a_build_without_s3_says_so() {
        assert!(refusal("s3://exports").contains("feature `s3`"));
    }
}
