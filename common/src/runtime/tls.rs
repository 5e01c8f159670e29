//! Certificates and keys in files, and the encrypted connections made with them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};

/// Time for a peer to agree on keys.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// Files in PEM: a certificate with its key, and the certificates of those who sign the peers' ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsFiles<'a> {
    /// The certificate to show (`--tls-cert`).
    pub cert: Option<&'a Path>,
    /// Its key (`--tls-key`).
    pub key: Option<&'a Path>,
    /// Who signs the peers' certificates (`--tls-ca`).
    pub ca: Option<&'a Path>,
}

/// Why certificates are not used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A flag is missing.
    #[error("{0}")]
    Incomplete(&'static str),
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
    #[error(
        "--tls-cert, --tls-key and --tls-ca cannot be used together: {0}; `evenkeel certs` makes some that can"
    )]
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

/// How connections are encrypted, in both directions; by default they are not. Printing it shows no key.
#[derive(Clone, Default)]
pub struct Tls {
    server: Option<ServerTlsConfig>,
    client: Option<ClientTlsConfig>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (serves, dials) = (self.server.is_some(), self.client.is_some());
        f.debug_struct("Tls").field("serves", &serves).field("dials", &dials).finish()
    }
}

impl Tls {
    /// For a program that serves and dials. With a certificate it serves encrypted; with a CA it lets only those in who
    /// show a certificate of it, and dials encrypted.
    ///
    /// # Errors
    /// When a flag is missing, or a file is not what it should be.
    pub fn for_server(files: TlsFiles<'_>) -> Result<Self, TlsError> {
        if files.ca.is_some() && files.cert.is_none() {
            return Err(TlsError::Incomplete(
                "--tls-ca (EVENKEEL_TLS_CA) of who serves needs --tls-cert and --tls-key: without them nothing is encrypted",
            ));
        }
        let tls = Self::load(files)?;
        if let Some(config) = tls.server.clone() {
            // Whatever does not fit together is found before anything listens.
            Server::builder().tls_config(config).map_err(|error| TlsError::Unusable(chain(&error)))?;
        }
        Ok(tls)
    }

    /// For a program that only dials. With a CA it dials encrypted, and shows its certificate where it has one.
    ///
    /// # Errors
    /// When a flag is missing, or a file is not what it should be.
    pub fn for_client(files: TlsFiles<'_>) -> Result<Self, TlsError> {
        if files.cert.is_some() && files.ca.is_none() {
            return Err(TlsError::Incomplete(
                "--tls-cert (EVENKEEL_TLS_CERT) needs --tls-ca, which says whose coordinators are trusted",
            ));
        }
        let tls = Self::load(files)?;
        if let Some(config) = tls.client.clone() {
            Endpoint::from_static("https://localhost")
                .tls_config(config)
                .map_err(|error| TlsError::Unusable(chain(&error)))?;
        }
        Ok(tls)
    }

    fn load(files: TlsFiles<'_>) -> Result<Self, TlsError> {
        let identity = match (files.cert, files.key) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some(Identity::from_pem(
                read("--tls-cert", cert, "CERTIFICATE")?,
                read("--tls-key", key, "PRIVATE KEY")?,
            )),
            (Some(_), None) => {
                return Err(TlsError::Incomplete("--tls-cert (EVENKEEL_TLS_CERT) needs --tls-key"));
            }
            (None, Some(_)) => {
                return Err(TlsError::Incomplete("--tls-key (EVENKEEL_TLS_KEY) needs --tls-cert"));
            }
        };
        let ca = files
            .ca
            .map(|path| read("--tls-ca", path, "CERTIFICATE"))
            .transpose()?
            .map(Certificate::from_pem);
        let server = identity.clone().map(|identity| {
            let config = ServerTlsConfig::new().identity(identity).timeout(HANDSHAKE_WITHIN);
            ca.iter().cloned().fold(config, ServerTlsConfig::client_ca_root)
        });
        let client = ca.map(|ca| {
            let config = ClientTlsConfig::new().ca_certificate(ca).timeout(HANDSHAKE_WITHIN);
            identity.into_iter().fold(config, ClientTlsConfig::identity)
        });
        Ok(Self { server, client })
    }

    /// Whether what is served is encrypted.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.server.is_some()
    }

    /// What others put before the address of who serves with this.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.serves() { "https" } else { "http" }
    }

    /// A builder of servers that encrypts if this says so.
    ///
    /// # Errors
    /// When the certificates cannot be used, which loading them has found already.
    pub fn server(&self) -> Result<Server, tonic::transport::Error> {
        match self.server.clone() {
            Some(config) => Server::builder().tls_config(config),
            None => Ok(Server::builder()),
        }
    }

    /// Where somebody is to be reached: at https with a CA, at http without, and never the one for the other.
    ///
    /// # Errors
    /// When the address is malformed or of the other kind.
    pub fn endpoint(&self, address: &str) -> Result<Endpoint, DialError> {
        let endpoint = Endpoint::from_shared(address.to_owned())?;
        match (&self.client, endpoint.uri().scheme_str()) {
            (Some(config), Some("https")) => Ok(endpoint.tls_config(config.clone())?),
            (Some(_), _) => Err(DialError::Plain(address.to_owned())),
            (None, Some("https")) => Err(DialError::NoCa(address.to_owned())),
            (None, _) => Ok(endpoint),
        }
    }
}

fn read(flag: &'static str, path: &Path, what: &'static str) -> Result<String, TlsError> {
    let text = std::fs::read_to_string(path).map_err(|source| TlsError::Unreadable {
        flag,
        path: path.to_owned(),
        source,
    })?;
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
        assert!(says(TlsFiles { cert: path, key: path, ca: None }).contains("cannot read /nowhere"));
        let client = Tls::for_client(TlsFiles { cert: path, key: path, ca: None });
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
