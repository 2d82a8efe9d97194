//! TLS to RabbitMQ, Redis and S3: servers are always checked, against the system's authorities or against those of a file.

#[cfg(any(feature = "amqp", feature = "tls", test))]
use std::path::Path;

/// The authorities in a PEM file, as text.
#[cfg(any(feature = "amqp", feature = "tls", test))]
pub(crate) fn read_authorities(file: &Path) -> Result<String, String> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| {
        format!("the certificate authorities in {shown} cannot be read: {error}; name a PEM file")
    })?;
    if text.contains("-----BEGIN CERTIFICATE-----") {
        Ok(text)
    } else {
        Err(format!(
            "{shown} holds no certificate: name a PEM file that has `-----BEGIN CERTIFICATE-----` in it"
        ))
    }
}

/// What to tell whoever asks for TLS in a build without it.
#[cfg(not(feature = "tls"))]
pub(crate) const MISSING: &str = "TLS is not in this build of Celeriac: build it with the feature `tls`";

/// Makes sure that there is one implementation of cryptography for TLS, which a program with several must choose.
#[cfg(any(feature = "tls", feature = "s3"))]
pub(crate) fn prepare() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Refused if somebody else was faster, whose choice is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_told() {
        let error = read_authorities(Path::new("/nonexistent/ca.pem")).expect_err("no file");
        assert!(error.contains("/nonexistent/ca.pem cannot be read"), "{error}");
        let file = tempfile::NamedTempFile::new().expect("a file");
        let error = read_authorities(file.path()).expect_err("empty");
        assert!(error.contains("holds no certificate"), "{error}");
    }
}
