//! The server's certificate and key, from a directory whose files may be replaced at any time.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{InconsistentKeys, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Certificate chain and key, under the names that Secrets of type `kubernetes.io/tls` and cert-manager give them.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// Why the files cannot be used. Names the file, never shows what is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", .path.display())]
pub struct CertificateError {
    /// The file.
    pub path: PathBuf,
    /// What was found and what was expected.
    pub reason: String,
}

/// What is in the files.
#[derive(Clone, PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// The certificate of a directory, as it is now.
pub(super) struct Certificates {
    directory: PathBuf,
    /// What was looked at last, whether it could be used or not; none when it could not be read.
    seen: Option<Files>,
    config: Arc<ServerConfig>,
}

impl Certificates {
    /// Reads the directory.
    ///
    /// # Errors
    /// When a file cannot be read, is not PEM, or the key is not the certificate's.
    pub(super) async fn read(directory: &Path) -> Result<Self, CertificateError> {
        let files = read(directory).await?;
        let config = configuration(directory, &files)?;
        Ok(Self { directory: directory.to_owned(), seen: Some(files), config })
    }

    /// What to serve the next connection with. The files are read for every one: the API server keeps its connections,
    /// so there are few. While files cannot be used, which they cannot between the writing of one and the other, the
    /// earlier ones hold; that is told once for what is found.
    pub(super) async fn current(&mut self) -> Arc<ServerConfig> {
        let found = read(&self.directory).await;
        let problem = match &found {
            Ok(files) if self.seen.as_ref() == Some(files) => None,
            Ok(files) => match configuration(&self.directory, files) {
                Ok(config) => {
                    self.config = config;
                    tracing::info!(directory = %self.directory.display(), "Serves admission with a new certificate.");
                    None
                }
                Err(error) => Some(error),
            },
            Err(error) => self.seen.is_some().then(|| error.clone()),
        };
        if let Some(error) = problem {
            tracing::warn!(%error, "The new certificate for admission cannot be used; the earlier one is kept.");
        }
        self.seen = found.ok();
        Arc::clone(&self.config)
    }
}

async fn read(directory: &Path) -> Result<Files, CertificateError> {
    let file = async |name: &str| {
        let path = directory.join(name);
        match tokio::fs::read(&path).await {
            Ok(bytes) => Ok(bytes),
            Err(error) => Err(CertificateError { path, reason: format!("cannot be read: {error}") }),
        }
    };
    Ok(Files { certificate: file(CERTIFICATE).await?, key: file(KEY).await? })
}

fn configuration(directory: &Path, files: &Files) -> Result<Arc<ServerConfig>, CertificateError> {
    let in_certificate = |reason: String| CertificateError { path: directory.join(CERTIFICATE), reason };
    let in_key = |reason: String| CertificateError { path: directory.join(KEY), reason };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&files.certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| in_certificate(format!("is not PEM: {error}")))?;
    if chain.is_empty() {
        return Err(in_certificate("has no certificate, expected PEM with BEGIN CERTIFICATE".to_owned()));
    }
    // The reason is left out: it could quote the key.
    let key = PrivateKeyDer::from_pem_slice(&files.key)
        .map_err(|_| in_key("has no private key, expected PEM with BEGIN PRIVATE KEY".to_owned()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                in_key(format!("is not the key of the certificate in {}", directory.join(CERTIFICATE).display()))
            }
            rustls::Error::InvalidCertificate(error) => in_certificate(format!("is no certificate: {error}")),
            error => in_key(format!("cannot be used: {error}")),
        })?;
    let mut config = config;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A certificate for `webhook.test`, which is its own authority until the year 2126, and its key. For tests only.
    pub(crate) struct Pair {
        pub(crate) certificate: &'static str,
        key: &'static str,
    }

    pub(crate) const ONE: Pair =
        Pair { certificate: include_str!("testdata/one.crt"), key: include_str!("testdata/one.key") };
    pub(crate) const TWO: Pair =
        Pair { certificate: include_str!("testdata/two.crt"), key: include_str!("testdata/two.key") };

    impl Pair {
        pub(crate) fn put(&self, directory: &Path) {
            std::fs::write(directory.join(CERTIFICATE), self.certificate).unwrap();
            std::fs::write(directory.join(KEY), self.key).unwrap();
        }
    }

    async fn error(directory: &Path) -> String {
        Certificates::read(directory).await.err().unwrap().to_string()
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join(CERTIFICATE), directory.path().join(KEY));
        let says = |error: String, path: &Path, words: &str| {
            assert!(error.starts_with(&format!("{}: ", path.display())) && error.contains(words), "{error}");
        };
        says(error(directory.path()).await, &certificate, "cannot be read: No such file");
        ONE.put(directory.path());
        assert!(Certificates::read(directory.path()).await.is_ok());

        std::fs::write(&key, TWO.key).unwrap();
        let words = format!("is not the key of the certificate in {}", certificate.display());
        says(error(directory.path()).await, &key, &words);
        std::fs::write(&key, "secret text").unwrap();
        let said = error(directory.path()).await;
        assert!(!said.contains("secret text"), "{said}");
        says(said, &key, "has no private key");
        std::fs::write(&key, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
        says(error(directory.path()).await, &key, "cannot be used");
        std::fs::write(&key, ONE.key).unwrap();
        std::fs::write(&certificate, ONE.key).unwrap();
        says(error(directory.path()).await, &certificate, "has no certificate");
        std::fs::write(&certificate, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        says(error(directory.path()).await, &certificate, "is no certificate");
        std::fs::write(&certificate, ONE.certificate).unwrap();
        std::fs::remove_file(&key).unwrap();
        says(error(directory.path()).await, &key, "cannot be read");
    }

    #[tokio::test]
    async fn a_new_certificate_is_taken_and_a_bad_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join(KEY);
        ONE.put(directory.path());
        let mut certificates = Certificates::read(directory.path()).await.unwrap();
        let first = certificates.current().await;
        assert!(Arc::ptr_eq(&first, &certificates.current().await));

        // The certificate is there already, its key is not.
        std::fs::write(directory.path().join(CERTIFICATE), TWO.certificate).unwrap();
        assert!(Arc::ptr_eq(&first, &certificates.current().await));
        std::fs::remove_file(&key).unwrap();
        assert!(Arc::ptr_eq(&first, &certificates.current().await));
        std::fs::write(&key, TWO.key).unwrap();
        let second = certificates.current().await;
        assert!(!Arc::ptr_eq(&first, &second), "it is taken as soon as it is whole");
        assert!(Arc::ptr_eq(&second, &certificates.current().await));
    }
}
