//! A server that speaks S3, and stores on it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use evenkeel_common::runtime::objects::Objects;
use object_store::aws::AmazonS3Builder;
use object_store::prefix::PrefixStore;

use crate::process::{Process, free_port, until};

const BUCKET: &str = "evenkeel";
const REGION: &str = "us-east-1";

/// A server that speaks S3 and keeps its objects in memory.
#[derive(Debug)]
pub struct S3 {
    /// Its process.
    pub process: Process,
    address: String,
}

impl S3 {
    /// What must not be seen in a log.
    pub const SECRET: &'static str = "the-secret-of-who";
    /// Whom it lets in.
    pub const KEY: &'static str = "who";

    /// Starts one, `MOTO_BIN` or `moto_server` on the PATH, and makes a bucket. None, with a reason printed, when there is
    /// none; on CI (where `CI` is set) that is an error.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(dir: &Path) -> anyhow::Result<Option<Self>> {
        Self::start_at(dir, "127.0.0.1")
    }

    /// The same at another address of this machine.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_at(dir: &Path, host: &str) -> anyhow::Result<Option<Self>> {
        let program = std::env::var_os("MOTO_BIN").unwrap_or_else(|| "moto_server".into());
        if Command::new(&program).arg("--help").output().is_err() {
            let reason = "there is no moto_server here (MOTO_BIN names none); `make test` gets one";
            if std::env::var_os("CI").is_some() {
                bail!("{reason}");
            }
            eprintln!("skipped: {reason}");
            return Ok(None);
        }
        let port = free_port()?;
        let mut command = Command::new(program);
        command.args(["-H", host, "-p", &port.to_string()]);
        let process = Process::start(dir, "s3", command)?;
        let server = Self { process, address: format!("{host}:{port}") };
        until("the S3 server to listen", Duration::from_secs(60), || {
            TcpStream::connect(&server.address).ok()
        })?;
        server.make_bucket()?;
        Ok(Some(server))
    }

    fn make_bucket(&self) -> anyhow::Result<()> {
        let mut stream = TcpStream::connect(&self.address)?;
        let host = &self.address;
        write!(
            stream,
            "PUT /{BUCKET} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if !answer.starts_with("HTTP/1.1 200") {
            bail!("no bucket: {answer}");
        }
        Ok(())
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> &str {
        self.address.rsplit(':').next().unwrap_or_default()
    }

    /// A store on it, as it is named on a command line.
    #[must_use]
    pub fn location(prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// The same with what a program needs in its environment to reach it.
    pub fn reach(&self, command: &mut Command) {
        command
            .env("AWS_ENDPOINT", format!("http://{}", self.address))
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_ACCESS_KEY_ID", Self::KEY)
            .env("AWS_SECRET_ACCESS_KEY", Self::SECRET)
            .env("AWS_REGION", REGION);
    }

    /// A store on it, opened here.
    ///
    /// # Errors
    /// When that cannot be.
    pub fn objects(&self, prefix: &str) -> anyhow::Result<Objects> {
        let bucket = AmazonS3Builder::new()
            .with_endpoint(format!("http://{}", self.address))
            .with_allow_http(true)
            .with_access_key_id(Self::KEY)
            .with_secret_access_key(Self::SECRET)
            .with_region(REGION)
            .with_bucket_name(BUCKET)
            .build()
            .context("no client")?;
        Ok(Objects::over(Arc::new(PrefixStore::new(bucket, prefix)), &Self::location(prefix)))
    }
}
