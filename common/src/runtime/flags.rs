//! Flags that both programs have.

use std::path::PathBuf;
use std::time::Duration;

use super::etcd::{Credentials, EtcdConfig, EtcdError};
use super::net::Network;

/// How etcd is reached.
#[derive(Clone, Debug, clap::Args)]
pub struct EtcdArgs {
    /// etcd members, separated by commas
    #[arg(long, env = "EVENKEEL_ETCD", value_delimiter = ',', value_name = "URL")]
    pub etcd: Vec<String>,
    /// Name of the cluster, part of every key in etcd
    #[arg(long, env = "EVENKEEL_CLUSTER", default_value = "default")]
    pub cluster: String,
    /// Certificates of the authority that etcd is recognised by (PEM)
    #[arg(long, env = "EVENKEEL_ETCD_CA", value_name = "FILE")]
    pub etcd_ca: Option<PathBuf>,
    /// Certificate to show to etcd (PEM)
    #[arg(long, env = "EVENKEEL_ETCD_CERT", value_name = "FILE")]
    pub etcd_cert: Option<PathBuf>,
    /// Key of that certificate (PEM)
    #[arg(long, env = "EVENKEEL_ETCD_KEY", value_name = "FILE")]
    pub etcd_key: Option<PathBuf>,
    /// User of etcd, where it asks for one
    #[arg(long, env = "EVENKEEL_ETCD_USER", value_name = "NAME")]
    pub etcd_user: Option<String>,
    /// File that holds the user's password, readable by this user alone
    #[arg(long, env = "EVENKEEL_ETCD_PASSWORD_FILE", value_name = "FILE")]
    pub etcd_password_file: Option<PathBuf>,
}

impl EtcdArgs {
    /// What was typed, if etcd is to be used.
    ///
    /// # Errors
    /// When flags do not go together, or a file is not what it should be.
    pub fn config(&self) -> Result<Option<EtcdConfig>, EtcdError> {
        let credentials = Credentials {
            ca: self.etcd_ca.clone(),
            cert: self.etcd_cert.clone(),
            key: self.etcd_key.clone(),
            user: self.etcd_user.clone(),
            password_file: self.etcd_password_file.clone(),
        };
        let config = EtcdConfig {
            endpoints: self.etcd.clone(),
            cluster: self.cluster.clone(),
            credentials,
            network: Network::default(),
        };
        if config.endpoints.is_empty() {
            return Ok(None);
        }
        config.check()?;
        Ok(Some(config))
    }
}

/// A time such as `90s`, `45m`, `12h` or `30d`.
///
/// # Errors
/// What is wrong with it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err("expected a number and a unit: 90s, 45m, 12h or 30d".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| format!("`{number}` is no whole number: expected such as 90s, 45m, 12h or 30d"))?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| "too long".to_owned())
}
