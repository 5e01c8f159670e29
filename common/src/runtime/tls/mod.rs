//! Certificates and keys in files, and the encrypted connections made with them.

mod accept;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use accept::{Accepted, Peer, incoming};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::secret::{FileStamp, SecretError, read_private};

/// Time for a peer to agree on keys.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// Files in PEM: a certificate with its key, and the certificates of those who sign the peers' ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsFiles<'a> {
    /// The certificate to show.
    pub cert: Option<&'a Path>,
    /// Its key.
    pub key: Option<&'a Path>,
    /// Who signs the peers' certificates.
    pub ca: Option<&'a Path>,
    /// What names them on the command line.
    pub flags: TlsFlags,
}

/// The names of flags.
#[derive(Clone, Copy, Debug)]
pub struct TlsFlags {
    /// Of the peers' authority.
    pub ca: &'static str,
    /// Of the certificate.
    pub cert: &'static str,
    /// Of its key.
    pub key: &'static str,
}

impl Default for TlsFlags {
    fn default() -> Self {
        Self { ca: "--tls-ca", cert: "--tls-cert", key: "--tls-key" }
    }
}

/// Why certificates are not used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A flag is missing.
    #[error("{0}")]
    Incomplete(String),
    /// A file cannot be read.
    #[error("{flag}: cannot read {path}: {source}", path = path.display())]
    Unreadable {
        /// Which file.
        flag: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// A key cannot be read, or others can read it.
    #[error("{flag}: {source}")]
    Key {
        /// Which file.
        flag: &'static str,
        /// What happened.
        source: SecretError,
    },
    /// A file holds something else.
    #[error("{flag}: {path} holds no {what} in PEM (a block `-----BEGIN …`)", path = path.display())]
    NoPem {
        /// Which file.
        flag: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// Certificate and key do not make an identity.
    #[error("these certificates cannot be used together: {0}; `evenkeel certs` makes some that can")]
    Unusable(String),
}

/// Why somebody was not connected to.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Encryption was asked for.
    #[error(
        "{0} is not encrypted, but --tls-ca asks for it: give the address as https://, or start who listens there with \
         --tls-cert and --tls-key"
    )]
    Plain(String),
    /// Nobody could be recognised.
    #[error("{0} is encrypted: name who signs its certificate with --tls-ca")]
    NoCa(String),
    /// The address is malformed, nobody answers, or who answers is not trusted.
    #[error("{}", chain(.0))]
    Unreachable(#[from] tonic::transport::Error),
}

/// An error and what led to it, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// How connections are encrypted, in both directions; by default they are not. Files that change are read again, so that a new
/// certificate needs no restart. Printing it shows no key; clones share it.
#[derive(Clone, Default)]
pub struct Tls(Option<Arc<Watched>>);

struct Watched {
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
    read: Mutex<(Vec<Option<FileStamp>>, Loaded)>,
}

/// What the files make when they are read.
#[derive(Clone)]
struct Loaded {
    server: Option<Arc<ServerConfig>>,
    client: Option<ClientTlsConfig>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("serves", &self.serves()).finish_non_exhaustive()
    }
}

impl Tls {
    /// For a program that serves and dials. With a certificate it serves encrypted; with a CA it lets only those in who
    /// show a certificate of it, and dials encrypted.
    ///
    /// # Errors
    /// When a flag is missing, or a file is not what it should be.
    pub fn for_server(files: TlsFiles<'_>) -> Result<Self, TlsError> {
        let TlsFlags { ca, cert, key } = files.flags;
        if files.ca.is_some() && files.cert.is_none() {
            return Err(TlsError::Incomplete(format!(
                "{ca} of who serves needs {cert} and {key}: without them nothing is encrypted"
            )));
        }
        Self::open(files)
    }

    /// For a program that only dials. With a CA it dials encrypted, and shows its certificate where it has one.
    ///
    /// # Errors
    /// When a flag is missing, or a file is not what it should be.
    pub fn for_client(files: TlsFiles<'_>) -> Result<Self, TlsError> {
        files.check_client()?;
        Self::open(files)
    }

    fn open(files: TlsFiles<'_>) -> Result<Self, TlsError> {
        if files.cert.is_none() && files.key.is_none() && files.ca.is_none() {
            return Ok(Self::default());
        }
        let own = |path: Option<&Path>| path.map(Path::to_owned);
        // The stamps first: a change while files are read is then seen afterwards.
        let stamps = files.stamps();
        let read = Mutex::new((stamps, files.load()?));
        Ok(Self(Some(Arc::new(Watched {
            cert: own(files.cert),
            key: own(files.key),
            ca: own(files.ca),
            read,
        }))))
    }

    /// What the files make now. Files that cannot be used are reported once, and what they were before stays in force.
    fn loaded(&self) -> Option<Loaded> {
        let watched = self.0.as_ref()?;
        let flags = TlsFlags::default();
        let files = TlsFiles {
            cert: watched.cert.as_deref(),
            key: watched.key.as_deref(),
            ca: watched.ca.as_deref(),
            flags,
        };
        let mut read = watched.read.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = files.stamps();
        if stamps != read.0 {
            read.0 = stamps;
            match files.load() {
                Ok(loaded) => {
                    tracing::info!("certificates read again");
                    read.1 = loaded;
                }
                Err(error) => tracing::error!(%error, "the certificates from before stay in force"),
            }
        }
        Some(read.1.clone())
    }

    /// Whether what is served is encrypted.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.0.as_ref().is_some_and(|watched| watched.cert.is_some())
    }

    /// What others put before the address of who serves with this.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.serves() { "https" } else { "http" }
    }

    fn server(&self) -> Option<Arc<ServerConfig>> {
        self.loaded()?.server
    }

    /// Where somebody is to be reached: at https with a CA, at http without, and never the one for the other.
    ///
    /// # Errors
    /// When the address is malformed or of the other kind.
    pub fn endpoint(&self, address: &str) -> Result<Endpoint, DialError> {
        let endpoint = Endpoint::from_shared(address.to_owned())?;
        match (self.loaded().and_then(|loaded| loaded.client), endpoint.uri().scheme_str()) {
            (Some(config), Some("https")) => Ok(endpoint.tls_config(config)?),
            (Some(_), _) => Err(DialError::Plain(address.to_owned())),
            (None, Some("https")) => Err(DialError::NoCa(address.to_owned())),
            (None, _) => Ok(endpoint),
        }
    }
}

impl TlsFiles<'_> {
    fn stamps(&self) -> Vec<Option<FileStamp>> {
        [self.cert, self.key, self.ca].into_iter().flatten().map(FileStamp::of).collect()
    }

    fn check_client(&self) -> Result<(), TlsError> {
        let TlsFlags { ca, cert, .. } = self.flags;
        if self.cert.is_some() && self.ca.is_none() {
            return Err(TlsError::Incomplete(format!(
                "{cert} needs {ca}, which says whose servers are trusted"
            )));
        }
        Ok(())
    }

    /// What is dialled with.
    ///
    /// # Errors
    /// When a flag is missing, or a file is not what it should be.
    pub fn client(&self) -> Result<ClientTlsConfig, TlsError> {
        self.check_client()?;
        let TlsFlags { ca, .. } = self.flags;
        let missing =
            || TlsError::Incomplete(format!("{ca} is missing, which says whose servers are trusted"));
        self.load()?.client.ok_or_else(missing)
    }

    fn load(&self) -> Result<Loaded, TlsError> {
        let flags = self.flags;
        let identity = match (self.cert, self.key) {
            (None, None) => None,
            (Some(cert), Some(key)) => {
                let text = read_private(key).map_err(|source| TlsError::Key { flag: flags.key, source })?;
                Some((read(flags.cert, cert)?, pem(flags.key, key, text, "PRIVATE KEY")?))
            }
            (Some(_), None) => {
                return Err(TlsError::Incomplete(format!("{} needs {}", flags.cert, flags.key)));
            }
            (None, Some(_)) => {
                return Err(TlsError::Incomplete(format!("{} needs {}", flags.key, flags.cert)));
            }
        };
        let ca = self.ca.map(|path| read(flags.ca, path)).transpose()?;
        let server = identity.as_ref().map(|(cert, key)| serving(cert, key, ca.as_deref())).transpose()?;
        let client = ca.map(|ca| {
            let config =
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).timeout(HANDSHAKE_WITHIN);
            identity
                .into_iter()
                .fold(config, |config, (cert, key)| config.identity(Identity::from_pem(cert, key)))
        });
        if let Some(config) = client.clone() {
            // Whatever does not fit together is found before anything is dialled.
            Endpoint::from_static("https://localhost")
                .tls_config(config)
                .map_err(|error| TlsError::Unusable(chain(&error)))?;
        }
        Ok(Loaded { server: server.map(Arc::new), client })
    }
}

/// What is served with: this certificate, to all or to those who show one of the CA's.
fn serving(cert: &str, key: &str, ca: Option<&str>) -> Result<ServerConfig, TlsError> {
    let unusable = |error: &dyn std::error::Error| TlsError::Unusable(chain(error));
    let certificates = |pem: &str| {
        CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| unusable(&e))
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?;
    let builder = match ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(ca)? {
                roots.add(certificate).map_err(|error| unusable(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| unusable(&error))?)
        }
    };
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| unusable(&error))?;
    let mut config = builder.with_single_cert(certificates(cert)?, key).map_err(|error| unusable(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn read(flag: &'static str, path: &Path) -> Result<String, TlsError> {
    let text = std::fs::read_to_string(path).map_err(|source| TlsError::Unreadable {
        flag,
        path: path.to_owned(),
        source,
    })?;
    pem(flag, path, text, "CERTIFICATE")
}

fn pem(flag: &'static str, path: &Path, text: String, what: &'static str) -> Result<String, TlsError> {
    // `EC PRIVATE KEY` and `RSA PRIVATE KEY` are keys, too.
    if !text
        .lines()
        .any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&format!("{what}-----")))
    {
        return Err(TlsError::NoPem { flag, path: path.to_owned(), what });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_an_identity_is_refused_with_the_flag_that_is_missing() {
        let path = Some(Path::new("/nowhere"));
        let says = |files| Tls::for_server(files).expect_err("accepted").to_string();
        assert!(says(TlsFiles { cert: path, ..TlsFiles::default() }).contains("needs --tls-key"));
        assert!(says(TlsFiles { key: path, ..TlsFiles::default() }).contains("needs --tls-cert"));
        assert!(
            says(TlsFiles { ca: path, ..TlsFiles::default() }).contains("needs --tls-cert and --tls-key")
        );
        assert!(
            says(TlsFiles { cert: path, key: path, ..TlsFiles::default() }).contains("cannot read /nowhere")
        );
        let client = Tls::for_client(TlsFiles { cert: path, key: path, ..TlsFiles::default() });
        assert!(client.expect_err("accepted").to_string().contains("needs --tls-ca"));
    }

    #[test]
    fn a_file_that_is_no_certificate_is_named() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, "hello").expect("write");
        let error =
            Tls::for_client(TlsFiles { ca: Some(&path), ..TlsFiles::default() }).expect_err("accepted");
        assert!(error.to_string().contains("ca.pem holds no CERTIFICATE in PEM"), "{error}");
    }

    #[test]
    fn without_certificates_nothing_is_encrypted_and_https_is_refused() {
        let tls = Tls::for_server(TlsFiles::default()).expect("none");
        assert_eq!(tls.scheme(), "http");
        assert!(tls.endpoint("http://127.0.0.1:7070").is_ok());
        let refused = tls.endpoint("https://127.0.0.1:7070").expect_err("accepted");
        assert!(refused.to_string().contains("--tls-ca"), "{refused}");
    }
}
